//! The pass over records: dropped segments with their files, then indexes and builds.

use proto::milvus::data;
use proto::quorate::{self, SegmentRef};
use raft::View;
use statemachine::view::SegmentId;

use super::path::{self, ParsedPath};
use super::plan::{self, Policy, Removal};
use super::run::{Doomed, Kind, Mode, Run, millis};
use crate::coordinator::{Failure, indexing, records};

/// Dropped segments that are looked at while commands wait.
const LOOK: usize = 512;
/// Segments whose files go before their records do, together.
const AT_ONCE: usize = 32;

/// Removes what records alone say can go.
///
/// # Errors
/// The leadership is gone, or the object store is; the rest waits for the next pass.
pub(super) async fn sweep(run: &mut Run<'_>) -> Result<(), Failure> {
    let tolerance = run.lead.settings().gc_drop_tolerance;
    let mut after = SegmentId(i64::MIN);
    loop {
        let policy = Policy { now_ms: run.lead.now_ms(), drop_tolerance_ms: millis(tolerance) };
        let plan = run.look(|state| plan::plan(state.views(), policy, after, LOOK));
        if !plan.removals.is_empty() || !plan.waits.is_empty() {
            tracing::debug!(%plan, "dropped segments");
        }
        for (_, wait) in &plan.waits {
            *run.report.waiting.entry(wait.name()).or_default() += 1;
        }
        for some in plan.removals.chunks(AT_ONCE) {
            remove_segments(run, policy, some).await?;
        }
        let Some(next) = plan.next else { break };
        after = next;
        tokio::task::yield_now().await;
    }
    if run.mode == Mode::Remove {
        let collected = indexing::collect(run.lead).await?;
        run.report.indexes += collected.n_indexes as u64;
        run.report.builds += collected.n_builds as u64;
    }
    Ok(())
}

async fn remove_segments(
    run: &mut Run<'_>,
    policy: Policy,
    removals: &[Removal],
) -> Result<(), Failure> {
    let view = run.confirmed().await?;
    let still = view.read(|state| {
        let mut still = Vec::new();
        for Removal { of, .. } in removals {
            let id = SegmentId(of.segment);
            let segment = state.views().segments().get(id);
            let segment = segment.filter(|segment| segment.reference(id) == *of);
            if let Some(segment) = segment.filter(|segment| !segment.is_healthy())
                && plan::judge(state.views(), policy, id, segment).is_ok()
            {
                still.push(*of);
            }
        }
        still
    });
    let mut doomed = Vec::new();
    let mut named = Vec::new();
    for of in still {
        match files_of(run, &view, of) {
            Ok(files) => {
                doomed.extend(files);
                named.push(of);
            }
            Err(failure) => {
                let (segment, error) = (of.segment, failure.to_string());
                tracing::warn!(segment, error, "files of a dropped segment are not known");
                *run.report.waiting.entry("records that do not decode").or_default() += 1;
            }
        }
    }
    let left = run.delete(doomed).await?;
    named.retain(|of| !left.contains(&of.segment));
    if run.mode == Mode::DryRun {
        run.report.segments += named.len() as u64;
        return Ok(());
    }
    if named.is_empty() {
        return Ok(());
    }
    let remove = quorate::RemoveSegments { segments: named };
    let kind = quorate::segment_command::Kind::Remove(remove);
    let done = run.lead.propose_segment(kind).await?;
    run.report.segments += done.changed.len() as u64;
    Ok(())
}

/// The files that a segment's records name.
fn files_of(run: &mut Run<'_>, view: &View, of: SegmentRef) -> Result<Vec<Doomed>, Failure> {
    let settings = run.lead.settings();
    if !view.read(|state| records::all_logs_decode(state, of)) {
        return Err(Failure::Unavailable("a record of its logs does not decode".to_owned()));
    }
    let Some(info) = records::segment(view, settings, of)? else { return Ok(Vec::new()) };
    let prefix = settings.storage_prefix();
    let mut doomed = Vec::new();
    for log in all_logs(&info) {
        // A name of somebody else's making is none of ours to delete.
        let Some(ParsedPath::Log(parsed)) = path::parse(&prefix, &log.log_path) else {
            *run.report.kept.entry("name of another shape").or_default() += 1;
            continue;
        };
        if parsed.segment != of.segment {
            *run.report.kept.entry("file of another segment").or_default() += 1;
            continue;
        }
        doomed.push(Doomed {
            path: log.log_path.clone(),
            size_bytes: u64::try_from(log.log_size).unwrap_or(0),
            kind: Kind::Log,
            segment: of.segment,
            folders: path::folders_of_segment(parsed.kind),
        });
    }
    Ok(doomed)
}

pub(super) fn all_logs(info: &data::SegmentInfo) -> impl Iterator<Item = &data::Binlog> {
    let fields = info.binlogs.iter().chain(&info.statslogs).chain(&info.deltalogs);
    fields.flat_map(|field| &field.binlogs)
}
