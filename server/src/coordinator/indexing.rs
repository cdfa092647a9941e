//! Questions about indexes, answered from the views: what a definition means, what has to be built,
//! how far that is. Nothing here waits or writes.

mod collect;
mod progress;

use proto::milvus::common::IndexState;
use proto::milvus::schema::DataType;
use statemachine::coordinator::index::view::IndexDefinition;
use statemachine::coordinator::segment::view::Segment;
use statemachine::session::Role;
use statemachine::view::{CollectionId, FieldId, IndexId, SegmentId, Views};

pub(crate) use collect::collect;
pub(crate) use progress::{Progress, Since, progress};

/// `common.SegmentLevel` of segments that hold deletes only; Milvus 2.3 makes none.
const LEVEL_ZERO: i32 = 1;

/// What the user chose, such as `HNSW`.
pub(crate) fn index_type(definition: &IndexDefinition) -> &str {
    definition.param("index_type").unwrap_or("")
}

/// Whether such an index over a segment is no more than the segment's own rows: nothing is built,
/// and query nodes search the rows.
pub(crate) fn needs_no_files(definition: &IndexDefinition, rows: i64, min_rows: i64) -> bool {
    rows < min_rows || matches!(index_type(definition), "FLAT" | "BIN_FLAT")
}

/// State of the index over a segment's first vector field: that field's build, or `Unissued` where
/// there is none yet. `None`: the field has no index, or the collection no schema that we know.
pub(crate) fn vector_index_state(views: &Views, segment: SegmentId) -> Option<IndexState> {
    let collection = views.segments().get(segment)?.collection;
    let (index, _) = vector_index(views, collection)?;
    let build = views.indexes().of_index(segment, index);
    Some(build.map_or(IndexState::Unissued, |(_, build)| build.state))
}

/// The index of a collection's first vector field.
pub(crate) fn vector_index(
    views: &Views,
    collection: CollectionId,
) -> Option<(IndexId, &IndexDefinition)> {
    let field = vector_field(views, collection)?;
    views.indexes().live_of(collection).find(|(_, definition)| definition.field == field)
}

fn vector_field(views: &Views, collection: CollectionId) -> Option<FieldId> {
    let fields = views.catalog().fields(collection);
    if fields.is_empty() {
        // RootCoord has forgotten the collection already: only vectors have dimensions.
        let live = views.indexes().live_of(collection).map(|(_, definition)| definition);
        return live.filter(|one| one.param("dim").is_some()).map(|one| one.field).min();
    }
    fields.iter().find(|(_, field)| is_vector(field.data_type)).map(|(id, _)| *id)
}

fn is_vector(data_type: DataType) -> bool {
    // An exhaustive list would have to follow every version of Milvus; vectors begin at 100.
    i32::from(data_type) >= i32::from(DataType::BinaryVector)
}

/// A field's name, as the schema has it.
pub(crate) fn field_name(
    views: &Views,
    collection: CollectionId,
    field: FieldId,
) -> Option<String> {
    let fields = views.catalog().fields(collection);
    fields.iter().find(|(id, _)| *id == field).map(|(_, field)| field.name.to_string())
}

/// The newest index format that every query node reads; 0 where there is none.
pub(crate) fn engine_version(views: &Views) -> i32 {
    let nodes = views.sessions().nodes(Role::QueryNode);
    nodes.map(|(_, session)| session.index_engine_versions.1).min().unwrap_or(0)
}

/// Whether it gets indexes: all its rows are in files.
pub(crate) fn is_indexable(segment: &Segment) -> bool {
    segment.is_flushed() && !segment.is_fake && segment.level != LEVEL_ZERO
}

/// Live indexes of a segment's collection that it has no build of.
pub(crate) fn missing<'v>(
    views: &'v Views,
    id: SegmentId,
    segment: &Segment,
) -> impl Iterator<Item = (IndexId, &'v IndexDefinition)> {
    let definitions = is_indexable(segment).then(|| views.indexes().live_of(segment.collection));
    definitions
        .into_iter()
        .flatten()
        .filter(move |(index, _)| views.indexes().of_index(id, *index).is_none())
}

#[cfg(test)]
pub(crate) mod tests;
