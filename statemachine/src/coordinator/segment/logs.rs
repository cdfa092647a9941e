//! Logs of a segment: one record a field, in which every log is named once.

use proto::milvus::data::FieldBinlog;
use proto::quorate::SegmentRef;

use crate::coordinator::keys::LogKind;
use crate::coordinator::records::Records;
use crate::state::draft::Stop;

/// Adds logs to what is on record. One that is there already is replaced: a data node repeats a call
/// whose answer it did not get.
pub(crate) fn merge_logs(
    records: &mut Records<'_, '_>,
    of: SegmentRef,
    kind: LogKind,
    given: Vec<FieldBinlog>,
) -> Result<(), Stop> {
    for given in given {
        let key = records.keys().log(kind, of, given.field_id);
        let known: Option<FieldBinlog> = records.get(&key)?;
        let is_new = known.is_none();
        let mut logs =
            known.unwrap_or_else(|| FieldBinlog { field_id: given.field_id, binlogs: Vec::new() });
        if given.binlogs.is_empty() && !is_new {
            continue;
        }
        for log in given.binlogs {
            match logs.binlogs.iter_mut().find(|known| known.log_id == log.log_id) {
                Some(known) => *known = log,
                None => logs.binlogs.push(log),
            }
        }
        records.put(key, &logs);
    }
    Ok(())
}

/// Rows as the insert logs of the lowest field count them; 0 where there are none.
pub(super) fn rows(records: &Records<'_, '_>, of: SegmentRef) -> Result<i64, Stop> {
    let prefix = records.keys().logs(LogKind::Insert, of);
    let mut lowest: Option<FieldBinlog> = None;
    for (_key, logs) in records.scan::<FieldBinlog>(&prefix)? {
        if lowest.as_ref().is_none_or(|lowest| logs.field_id < lowest.field_id) {
            lowest = Some(logs);
        }
    }
    let binlogs = lowest.map_or_else(Vec::new, |logs| logs.binlogs);
    Ok(binlogs.iter().fold(0, |rows: i64, log| rows.saturating_add(log.entries_num)))
}
