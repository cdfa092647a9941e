//! From what a data node wrote to a command: paths are parsed here, and must be the segment's own.

use std::sync::Arc;

use proto::milvus::data;
use proto::quorate::{SaveBinlogs, SegmentRef, StartPosition};
use raft::View;
use statemachine::coordinator::keys::LogKind;
use statemachine::view::SegmentId;

use crate::coordinator::{Code, Failure, Lead};

/// # Errors
/// The segment is not known, or a path names another one.
pub(super) async fn command(
    lead: &Arc<Lead>,
    request: data::SaveBinlogPathsRequest,
) -> Result<SaveBinlogs, Failure> {
    let id = request.segment_id;
    let segment = known(lead, id).await?;
    let starts = start_positions(lead, request.start_positions);
    // Only one of them is of this segment, and only that one goes with these logs.
    let checkpoint = request.check_points.into_iter().find(|point| point.segment_id == id);
    let checkpoint_rows = checkpoint.as_ref().map_or(0, |point| point.num_of_rows);
    Ok(SaveBinlogs {
        segment: Some(segment),
        node: request.base.as_ref().map_or(0, |base| base.source_id),
        channel: request.channel,
        flushed: request.flushed,
        dropped: request.dropped,
        importing: request.importing,
        binlogs: parsed(id, LogKind::Insert, request.field2_binlog_paths)?,
        statslogs: parsed(id, LogKind::Stats, request.field2_statslog_paths)?,
        deltalogs: parsed(id, LogKind::Delta, request.deltalogs)?,
        start_positions: starts,
        checkpoint: checkpoint.and_then(|point| point.position),
        checkpoint_rows,
        dropped_at_ns: lead.now_ns(),
    })
}

/// What a data node still knew of a segment of a channel that ends; `None` where we do not know it.
///
/// # Errors
/// A path names another segment.
pub(super) fn of_dropped(
    lead: &Lead,
    channel: &str,
    dropped: data::DropVirtualChannelSegment,
) -> Result<Option<SaveBinlogs>, Failure> {
    let id = dropped.segment_id;
    let Some(segment) = reference(&lead.local(), id) else { return Ok(None) };
    Ok(Some(SaveBinlogs {
        segment: Some(segment),
        channel: channel.to_owned(),
        dropped: true,
        binlogs: parsed(id, LogKind::Insert, dropped.field2_binlog_paths)?,
        statslogs: parsed(id, LogKind::Stats, dropped.field2_statslog_paths)?,
        deltalogs: parsed(id, LogKind::Delta, dropped.deltalogs)?,
        ..SaveBinlogs::default()
    }))
}

/// A wrong "not known" makes a data node drop rows, so it is asked of the whole cluster.
async fn known(lead: &Lead, segment: i64) -> Result<SegmentRef, Failure> {
    if let Some(segment) = reference(&lead.local(), segment) {
        return Ok(segment);
    }
    let view = lead.view().await?;
    reference(&view, segment).ok_or_else(|| Failure::segment_not_found(segment))
}

fn reference(view: &View, segment: i64) -> Option<SegmentRef> {
    let id = SegmentId(segment);
    view.read(|state| Some(state.views().segments().get(id)?.reference(id)))
}

fn start_positions(lead: &Lead, starts: Vec<data::SegmentStartPosition>) -> Vec<StartPosition> {
    let view = lead.local();
    starts
        .into_iter()
        .filter_map(|start| {
            let segment = reference(&view, start.segment_id)?;
            Some(StartPosition { segment: Some(segment), position: start.start_position })
        })
        .collect()
}

/// Logs by id instead of by path.
///
/// # Errors
/// A path is none of the segment's.
fn parsed(
    segment: i64,
    kind: LogKind,
    fields: Vec<data::FieldBinlog>,
) -> Result<Vec<data::FieldBinlog>, Failure> {
    let mut parsed = fields;
    for log in parsed.iter_mut().flat_map(|field| &mut field.binlogs) {
        if log.log_path.is_empty() && log.log_id != 0 {
            continue;
        }
        log.log_id = log_id(segment, kind, &log.log_path)?;
        log.log_path.clear();
    }
    Ok(parsed)
}

/// The log's id is the last part of the path; before it comes the field, but for delta logs.
fn log_id(segment: i64, kind: LogKind, path: &str) -> Result<i64, Failure> {
    let mut parts = path.rsplit('/');
    let id = parts.next().and_then(|part| part.parse().ok());
    let named = match kind {
        LogKind::Insert | LogKind::Stats => parts.nth(1),
        LogKind::Delta => parts.next(),
    };
    match id {
        Some(id) if named == Some(segment.to_string().as_str()) => Ok(id),
        Some(_) | None => Err(Failure::refused(
            Code::Unexpected,
            format!("log path {path} is none of segment {segment}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_paths_of_the_segment() {
        let id = |kind, path| log_id(3, kind, path).ok();
        assert_eq!(id(LogKind::Insert, "files/insert_log/1/2/3/100/77"), Some(77));
        assert_eq!(id(LogKind::Stats, "/data/stats_log/1/2/3/100/1"), Some(1));
        assert_eq!(id(LogKind::Delta, "files/delta_log/1/2/3/78"), Some(78));
        assert_eq!(id(LogKind::Insert, "files/insert_log/1/2/4/100/77"), None, "another segment");
        assert_eq!(id(LogKind::Insert, "files/insert_log/1/2/3/100/x"), None, "no number");
        assert_eq!(id(LogKind::Delta, ""), None);
    }
}
