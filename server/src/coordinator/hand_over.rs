//! Handing the role to a stock coordinator that stands by, and taking it back.
//!
//! Stock drops sealed segments that were never written and keeps compaction plans in memory, so
//! nothing of either may be left when it takes over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::milvus::data;
use proto::quorate::command::Kind;
use proto::quorate::{self, HasRows, channel_command, compaction_command};
use statemachine::coordinator::segment::view::Segments;
use statemachine::versions;
use statemachine::view::CollectionId;
use tokio::time::Instant;

use super::{Coordinator, Failure, Lead};
use crate::rpc::datacoord;

/// Between two looks at what is left to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// Finishes what must not be left, then switches the role off. Returns what was done, for people.
///
/// # Errors
/// It was not finished by the deadline: then the role stays here, and everything goes on.
pub(crate) async fn hand_over(lead: &Arc<Lead>, deadline: Instant) -> Result<Vec<String>, Failure> {
    let _closing = Closing::begin(lead);
    let was_paused = lead.local().read(|state| state.views().plans().is_paused());
    if !was_paused {
        pause(lead, true).await?;
    }
    let done = finish(lead, deadline).await;
    match done {
        Ok(mut told) => {
            // One after the other in the log, and nothing is planned in between.
            let off =
                channel_command::Kind::SetRole(quorate::SetRole { on: false, raw_writes: true });
            let (resumed, off) = tokio::join!(pause(lead, was_paused), lead.propose_channel(off));
            off?;
            if let Err(error) = resumed {
                tracing::warn!(%error, "compaction stays paused");
            }
            told.push("role switched off, raw writes open, session deleted".to_owned());
            Ok(told)
        }
        Err(error) => {
            if !was_paused {
                pause(lead, false).await?;
            }
            Err(error)
        }
    }
}

/// While it lives nothing is assigned.
struct Closing<'a>(&'a Lead);

impl Closing<'_> {
    fn begin(lead: &Lead) -> Closing<'_> {
        lead.closing.store(true, Ordering::Relaxed);
        Closing(lead)
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.closing.store(false, Ordering::Relaxed);
    }
}

async fn pause(lead: &Lead, paused: bool) -> Result<(), Failure> {
    let control = compaction_command::Kind::Control(quorate::ControlCompaction { paused });
    lead.propose_compaction(control).await?;
    Ok(())
}

async fn finish(lead: &Arc<Lead>, deadline: Instant) -> Result<Vec<String>, Failure> {
    let mut told = Vec::new();
    let until = lead.local().read(|state| last_expiry(state.views().segments()));
    while lead.tso.fresh().await? <= until {
        wait(deadline, || "assignments have not expired".to_owned()).await?;
    }
    told.push("no assignment is left".to_owned());
    cancel_queued(lead).await?;
    let collections = growing(lead);
    for collection in &collections {
        let request =
            data::FlushRequest { collection_id: collection.0, ..data::FlushRequest::default() };
        datacoord::flush(lead, request).await?;
    }
    told.push(format!("growing segments of {} collections sealed", collections.len()));
    loop {
        let (unwritten, plans) = left(lead);
        if unwritten == 0 && plans == 0 {
            break;
        }
        wait(deadline, || {
            format!("{unwritten} segments are not written, {plans} compactions not finished")
        })
        .await?;
    }
    told.push("every sealed segment is written, no compaction runs".to_owned());
    Ok(told)
}

/// Plans that nobody has begun would wait for ever while compaction is paused.
async fn cancel_queued(lead: &Lead) -> Result<(), Failure> {
    let queued: Vec<i64> = lead.local().read(|state| {
        let running = state.views().plans().running();
        let queued = running
            .filter(|(_, plan)| plan.task.state() == quorate::CompactionState::Queued)
            .map(|(id, _)| id.0);
        queued.collect()
    });
    for plan in queued {
        let end = compaction_command::Kind::End(quorate::EndCompaction {
            plan,
            state: quorate::CompactionState::Cancelled.into(),
            reason: "the role is handed over".to_owned(),
            overdue: false,
        });
        if let Err(error) = lead.propose_compaction(end).await {
            // It was sent meanwhile, and is waited for.
            tracing::info!(plan, %error, "a queued compaction was not cancelled");
        }
    }
    Ok(())
}

async fn wait(deadline: Instant, what: impl Fn() -> String) -> Result<(), Failure> {
    if Instant::now() + LOOK_EVERY > deadline {
        return Err(Failure::Unavailable(format!("{}; the role stays here", what())));
    }
    tokio::time::sleep(LOOK_EVERY).await;
    Ok(())
}

/// No row can arrive later under an assignment of ours. The time of an import is none: its rows come
/// as files.
fn last_expiry(segments: &Segments) -> u64 {
    let assigned = segments.open().filter(|(_, segment)| !segment.is_importing);
    let windows = assigned.map(|(id, segment)| {
        let window = segments.growth(id).map_or(0, |growth| growth.window_expire_ts);
        window.max(segment.last_expire_ts)
    });
    windows.max().unwrap_or(0)
}

fn growing(lead: &Lead) -> Vec<CollectionId> {
    use proto::milvus::common::SegmentState;
    let mut collections: Vec<CollectionId> = lead.local().read(|state| {
        let open = state.views().segments().open();
        open.filter(|(_, segment)| segment.state == SegmentState::Growing)
            .map(|(_, segment)| segment.collection)
            .collect()
    });
    collections.sort_unstable();
    collections.dedup();
    collections
}

/// Segments with rows that are not written, and compactions that have not ended. Importing ones
/// stay as they are: RootCoord goes on with them under any coordinator.
fn left(lead: &Lead) -> (usize, usize) {
    use proto::milvus::common::SegmentState;
    lead.local().read(|state| {
        let views = state.views();
        let unwritten = views.segments().open().filter(|(id, segment)| {
            let rows = views.segments().growth(*id).map_or(HasRows::Unknown, |one| one.has_rows);
            segment.state != SegmentState::Importing && rows != HasRows::No
        });
        (unwritten.count(), views.plans().running().count())
    })
}

impl Coordinator {
    /// Switches the role on again after it was handed over.
    ///
    /// # Errors
    /// No leader, or the state machine refused.
    pub(crate) async fn take_over(&self) -> Result<(), Failure> {
        let raise = Kind::RaiseLevel(quorate::RaiseLevel { level: versions::COORDINATOR });
        let role = channel_command::Kind::SetRole(quorate::SetRole { on: true, raw_writes: false });
        let area = quorate::coordinator_command::Area::Channel(quorate::ChannelCommand {
            kind: Some(role),
        });
        let role = Kind::Coordinator(quorate::CoordinatorCommand { area: Some(area) });
        for kind in [raise, role] {
            let command = quorate::Command { fence: None, kind: Some(kind) };
            self.node.propose(command, Instant::now() + CALL_WITHIN).await?.outcome?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcd;
    use proto::milvus::common::SegmentState;
    use proto::milvus::data::SegmentInfo;
    use proto::quorate::Growth;
    use statemachine::Views;

    use super::*;

    #[test]
    fn only_assignments_to_proxies_are_waited_for() {
        let mut views = Views::new("by-dev");
        let mut put = |key: String, value: Vec<u8>| {
            views.put(&etcd::KeyValue {
                key: key.into(),
                value: value.into(),
                mod_revision: 1,
                ..etcd::KeyValue::default()
            });
        };
        for (id, state, is_importing, window_expire_ts) in [
            (1, SegmentState::Growing, false, 50),
            (2, SegmentState::Importing, true, 900),
            (3, SegmentState::Sealed, true, 800),
            (4, SegmentState::Flushed, false, 700),
        ] {
            let info = SegmentInfo {
                id,
                collection_id: 1,
                partition_id: 2,
                state: state.into(),
                is_importing,
                ..SegmentInfo::default()
            };
            put(format!("by-dev/meta/datacoord-meta/s/1/2/{id}"), info.encode_to_vec());
            let growth = Growth { window_expire_ts, ..Growth::default() };
            put(format!("by-dev/quorate/growing/{id}"), growth.encode_to_vec());
        }
        assert_eq!(last_expiry(views.segments()), 50);
    }
}
