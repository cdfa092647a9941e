//! Definitions: at most one live index a field, and one a name in a collection.

use proto::milvus::common::KeyValuePair;
use proto::milvus::index::{FieldIndex, IndexInfo};
use proto::quorate::{CreateIndex, DropIndexes};

use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(super) fn create(
    records: &mut Records<'_, '_>,
    command: CreateIndex,
) -> Result<Outcomes, Stop> {
    let CreateIndex { definition, field_name } = command;
    let FieldIndex { index_info, create_time, .. } = definition.unwrap_or_default();
    let mut info = index_info.unwrap_or_default();
    let live = live_of(records, info.collection_id)?;
    if info.index_name.is_empty() {
        let of_field = live.iter().find(|old| old.field_id == info.field_id);
        info.index_name = of_field.map_or(field_name, |old| old.index_name.clone());
    }
    if let Some(id) = same_index(&live, &info)? {
        info.index_id = id;
    } else if records.exists(&records.keys().field_index(info.collection_id, info.index_id)) {
        return Err(Refusal::Invalid {
            field: "index".to_owned(),
            value: info.index_id.to_string(),
            reason: "it exists".to_owned(),
        }
        .into());
    }
    if info.index_name.is_empty() {
        return Err(Refusal::Invalid {
            field: "index_name".to_owned(),
            value: "empty".to_owned(),
            reason: "neither the request nor the field has a name".to_owned(),
        }
        .into());
    }
    let mut outcomes = Outcomes::default();
    outcomes.changed(info.index_id);
    outcomes.changed_name(&info.index_name);
    let key = records.keys().field_index(info.collection_id, info.index_id);
    let index_info = Some(as_stored(info));
    records.put(key, &FieldIndex { index_info, deleted: false, create_time });
    Ok(outcomes)
}

/// What Milvus writes of it; the rest is computed when somebody asks.
fn as_stored(info: IndexInfo) -> IndexInfo {
    IndexInfo {
        collection_id: info.collection_id,
        field_id: info.field_id,
        index_name: info.index_name,
        index_id: info.index_id,
        type_params: info.type_params,
        index_params: info.index_params,
        is_auto_index: info.is_auto_index,
        user_index_params: info.user_index_params,
        ..IndexInfo::default()
    }
}

/// Definitions of a collection that are not deleted, by id.
fn live_of(records: &Records<'_, '_>, collection: i64) -> Result<Vec<IndexInfo>, Stop> {
    let prefix = records.keys().field_indexes(collection);
    let found = records.scan::<FieldIndex>(&prefix)?;
    let live = found.into_iter().filter(|(_, record)| !record.deleted);
    Ok(live.filter_map(|(_, record)| record.index_info).collect())
}

/// The id of an index that is already what is asked for.
///
/// # Errors
/// Refused, in Milvus's words, where another index has the name or the field.
fn same_index(live: &[IndexInfo], asked: &IndexInfo) -> Result<Option<i64>, Refusal> {
    let conflict =
        |why: &str| Refusal::IndexConflict { reason: format!("CreateIndex failed: {why}") };
    if let Some(old) = live.iter().find(|old| old.index_name == asked.index_name) {
        let is_same = old.field_id == asked.field_id
            && same_set(&old.type_params, &asked.type_params)
            && same_set(&old.user_index_params, &asked.user_index_params);
        return if is_same {
            Ok(Some(old.index_id))
        } else {
            Err(conflict("at most one distinct index is allowed per field"))
        };
    }
    if live.iter().any(|old| old.field_id == asked.field_id) {
        return Err(conflict("creating multiple indexes on same field is not supported"));
    }
    Ok(None)
}

fn same_set(one: &[KeyValuePair], other: &[KeyValuePair]) -> bool {
    one.len() == other.len() && one.iter().all(|pair| other.contains(pair))
}

pub(super) fn drop_indexes(
    records: &mut Records<'_, '_>,
    command: &DropIndexes,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for index in &command.indexes {
        match super::definition(records, command.collection, *index) {
            Ok(Some(mut record)) => {
                // Again is as good as once.
                if !record.deleted {
                    record.deleted = true;
                    records.put(records.keys().field_index(command.collection, *index), &record);
                    outcomes.changed(*index);
                }
            }
            Ok(None) => outcomes.refused(*index, Refusal::UnknownIndex { index: *index }),
            Err(stop) => outcomes.refused(*index, stop.into_refusal()?),
        }
    }
    Ok(outcomes)
}
