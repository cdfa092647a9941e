//! Whole records, read from the store: what the views leave out. Paths of logs are filled in.

use prost::Message;
use proto::milvus::{data, index};
use proto::quorate::SegmentRef;
use raft::{Pinned, View};
use statemachine::coordinator::keys::{Keys, LogKind};
use statemachine::view::SegmentId;
use statemachine::{End, EventId, KeyRange, State, history};

use super::settings::CoordinatorSettings;
use super::{Code, Failure};

/// Where the rows of one segment are in an image.
pub(crate) struct SegmentPlace {
    id: SegmentId,
    segment: EventId,
    logs: Vec<(LogKind, EventId)>,
    /// Whether these are all its logs: of a record that does not decode the views know no field.
    is_whole: bool,
}

/// A segment with its logs, as Milvus's calls return it.
///
/// # Errors
/// The store cannot be read, or a record is no record.
pub(crate) fn segment(
    view: &View,
    settings: &CoordinatorSettings,
    of: SegmentRef,
) -> Result<Option<data::SegmentInfo>, Failure> {
    Ok(segments(view, settings, &[SegmentId(of.segment)])?.pop())
}

/// Segments with their logs, all of one moment, in the given order. Those that are not known are left
/// out.
///
/// # Errors
/// The store cannot be read, or a record is no record.
pub(crate) fn segments(
    view: &View,
    settings: &CoordinatorSettings,
    ids: &[SegmentId],
) -> Result<Vec<data::SegmentInfo>, Failure> {
    let (places, image) = view.pin(|state| places(state, ids));
    fetch_segments(&image, settings, &places)
}

/// For whoever reads more at the same moment: where known segments are.
pub(crate) fn places(state: &State, ids: &[SegmentId]) -> Vec<SegmentPlace> {
    ids.iter().filter_map(|id| place(state, *id)).collect()
}

/// # Errors
/// The store cannot be read, or a record is no record.
pub(crate) fn fetch_segments(
    image: &Pinned,
    settings: &CoordinatorSettings,
    places: &[SegmentPlace],
) -> Result<Vec<data::SegmentInfo>, Failure> {
    let wanted: Vec<EventId> = places
        .iter()
        .flat_map(|place| {
            std::iter::once(place.segment).chain(place.logs.iter().map(|(_, row)| *row))
        })
        .collect();
    let mut rows = history::pairs(image, &wanted).map_err(unreadable)?.into_iter();
    let mut next = || rows.next().map(|row| row.value).unwrap_or_default();
    let prefix = settings.storage_prefix();
    let mut segments = Vec::with_capacity(places.len());
    for place in places {
        if !place.is_whole {
            let reason = format!("a record of the logs of segment {} does not decode", place.id);
            return Err(Failure::refused(Code::Internal, reason));
        }
        let mut info = data::SegmentInfo::decode(next()).map_err(|error| undecodable(&error))?;
        for (kind, _) in &place.logs {
            let logs = data::FieldBinlog::decode(next()).map_err(|error| undecodable(&error))?;
            match kind {
                LogKind::Insert => info.binlogs.push(logs),
                LogKind::Stats => info.statslogs.push(logs),
                LogKind::Delta => info.deltalogs.push(logs),
            }
        }
        fill_in_paths(&prefix, &mut info);
        segments.push(info);
    }
    Ok(segments)
}

fn place(state: &State, id: SegmentId) -> Option<SegmentPlace> {
    let keys = keys(state);
    let segments = state.views().segments();
    let of = segments.get(id)?.reference(id);
    let segment = state.key_meta(keys.segment(of).as_bytes())?.event_id();
    let mut logs = Vec::new();
    for kind in LogKind::ALL {
        let fields = segments.logs(id).into_iter().flat_map(|logs| logs.of_kind(kind));
        for (field, _) in fields {
            let meta = state.key_meta(keys.log(kind, of, field).as_bytes());
            logs.extend(meta.map(|meta| (kind, meta.event_id())));
        }
    }
    Some(SegmentPlace { id, segment, logs, is_whole: all_logs_decode(state, of) })
}

/// Whether the views have every record of the segment's logs: one that does not decode names files
/// that nobody knows.
pub(crate) fn all_logs_decode(state: &State, of: SegmentRef) -> bool {
    let logs = state.views().segments().logs(SegmentId(of.segment));
    LogKind::ALL.into_iter().all(|kind| {
        let prefix = keys(state).logs(kind, of);
        // The next byte after a slash.
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let range = KeyRange { start: prefix.as_bytes(), end: End::Before(end.as_bytes()) };
        let n_decoded = logs.map_or(0, |logs| logs.of_kind(kind).count());
        state.count(&range) == n_decoded
    })
}

pub(crate) fn keys(state: &State) -> Keys<'_> {
    Keys { root_path: &state.settings().root_path }
}

/// Milvus's components read log paths and nothing else; the records keep numbers.
fn fill_in_paths(prefix: &str, info: &mut data::SegmentInfo) {
    let data::SegmentInfo { collection_id, partition_id, id, .. } = *info;
    let fill = |logs: &mut Vec<data::FieldBinlog>, area: &str, has_field: bool| {
        for field in logs {
            let below = if has_field { format!("/{}", field.field_id) } else { String::new() };
            for log in field.binlogs.iter_mut().filter(|log| log.log_path.is_empty()) {
                let number = log.log_id;
                log.log_path =
                    format!("{prefix}{area}/{collection_id}/{partition_id}/{id}{below}/{number}");
            }
        }
    };
    fill(&mut info.binlogs, "insert_log", true);
    fill(&mut info.statslogs, "stats_log", true);
    fill(&mut info.deltalogs, "delta_log", false);
}

/// Rows as the logs of the first field count them, where there are any.
pub(crate) fn rows_of_logs(info: &data::SegmentInfo) -> Option<i64> {
    let logs = info.binlogs.first()?;
    let rows = logs.binlogs.iter().fold(0, |rows: i64, log| rows.saturating_add(log.entries_num));
    (rows > 0).then_some(rows)
}

/// The build of an index over a segment, with the names of its files.
///
/// # Errors
/// The store cannot be read, or the record is no record.
pub(crate) fn segment_index(
    view: &View,
    of: SegmentRef,
    build: i64,
) -> Result<Option<index::SegmentIndex>, Failure> {
    record(view, |keys| keys.segment_index(of, build))
}

/// Any one record.
///
/// # Errors
/// The store cannot be read, or the record is no record.
pub(crate) fn record<M: Message + Default>(
    view: &View,
    key: impl FnOnce(Keys<'_>) -> String,
) -> Result<Option<M>, Failure> {
    let (place, image) = view.pin(|state| row(state, &key(keys(state))));
    fetch(&image, place)
}

/// For whoever reads more at the same moment: where the row of a live key is.
pub(crate) fn row(state: &State, key: &str) -> Option<EventId> {
    state.key_meta(key.as_bytes()).map(|meta| meta.event_id())
}

/// # Errors
/// The store cannot be read, or the record is no record.
pub(crate) fn fetch<M: Message + Default>(
    image: &Pinned,
    row: Option<EventId>,
) -> Result<Option<M>, Failure> {
    let Some(row) = row else { return Ok(None) };
    let row = history::fetch(image, row).map_err(unreadable)?;
    row.map(|row| M::decode(row.value).map_err(|error| undecodable(&error))).transpose()
}

#[allow(clippy::needless_pass_by_value, reason = "what map_err calls takes the error")]
fn unreadable(fault: statemachine::Fault) -> Failure {
    tracing::error!(%fault, "records cannot be read");
    Failure::Unavailable("records cannot be read".to_owned())
}

fn undecodable(error: &prost::DecodeError) -> Failure {
    Failure::refused(Code::Internal, format!("a record does not decode: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(field_id: i64, numbers: &[i64]) -> data::FieldBinlog {
        let log = |number: &i64| data::Binlog { log_id: *number, ..Default::default() };
        data::FieldBinlog { field_id, binlogs: numbers.iter().map(log).collect() }
    }

    #[test]
    fn paths_are_those_that_milvus_writes() {
        let mut info = data::SegmentInfo {
            collection_id: 1,
            partition_id: 2,
            id: 3,
            binlogs: vec![logs(100, &[7, 8])],
            statslogs: vec![logs(100, &[1])],
            deltalogs: vec![logs(0, &[9]), logs(1, &[])],
            ..Default::default()
        };
        info.binlogs[0].binlogs[1].log_path = "elsewhere/8".to_owned();
        fill_in_paths("files/", &mut info);
        let paths: Vec<&str> = [&info.binlogs, &info.statslogs, &info.deltalogs]
            .into_iter()
            .flatten()
            .flat_map(|logs| &logs.binlogs)
            .map(|log| log.log_path.as_str())
            .collect();
        assert_eq!(
            paths,
            [
                "files/insert_log/1/2/3/100/7",
                "elsewhere/8",
                "files/stats_log/1/2/3/100/1",
                "files/delta_log/1/2/3/9",
            ]
        );
    }
}
