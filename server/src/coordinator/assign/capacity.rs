//! How many rows fit into a segment: Milvus's estimate of a row's size, over all fields of the
//! schema, system fields included (pkg/util/typeutil/schema.go).

use proto::milvus::schema::DataType;
use statemachine::catalog::Field;

/// A longer text counts as this long, bytes.
const TEXT_BYTES_MAX: i64 = 256;
/// What a JSON value or an array counts as, bytes.
const DYNAMIC_BYTES: i64 = 512;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CapacityError {
    #[error("field {field} has no type parameter {param}, or one that is no number")]
    Param { field: String, param: &'static str },
    #[error("rows of the schema have no size")]
    NoSize,
}

/// Bytes of a row, about.
///
/// # Errors
/// A type parameter is missing, or no field has a size.
pub(crate) fn row_bytes<'a>(
    fields: impl IntoIterator<Item = &'a Field>,
) -> Result<i64, CapacityError> {
    let mut bytes = 0;
    for field in fields {
        bytes = field_bytes(field)?.saturating_add(bytes);
    }
    if bytes > 0 { Ok(bytes) } else { Err(CapacityError::NoSize) }
}

/// Rows of a segment of so many MiB; at least one.
pub(crate) fn rows_of(segment_mb: i64, row_bytes: i64) -> i64 {
    (segment_mb.saturating_mul(1 << 20) / row_bytes.max(1)).max(1)
}

fn field_bytes(field: &Field) -> Result<i64, CapacityError> {
    Ok(match field.data_type {
        DataType::Bool | DataType::Int8 => 1,
        DataType::Int16 => 2,
        DataType::Int32 | DataType::Float => 4,
        DataType::Int64 | DataType::Double => 8,
        DataType::VarChar => param(field, "max_length")?.min(TEXT_BYTES_MAX),
        DataType::Json | DataType::Array => DYNAMIC_BYTES,
        DataType::BinaryVector => param(field, "dim")? / 8,
        DataType::FloatVector => param(field, "dim")?.saturating_mul(4),
        DataType::Float16Vector | DataType::BFloat16Vector => {
            param(field, "dim")?.saturating_mul(2)
        }
        DataType::None | DataType::String => 0,
    })
}

fn param(field: &Field, name: &'static str) -> Result<i64, CapacityError> {
    field
        .type_params
        .iter()
        .find(|(key, _)| &**key == name)
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| CapacityError::Param { field: field.name.to_string(), param: name })
}
