//! Where commands of the coordinator come in, and where raw writes to its keys are turned away.

use proto::quorate::coordinator_command::Area;
use proto::{etcd, quorate};

use crate::coordinator::records::{Outcomes, Records};
use crate::coordinator::{Refusal, channel, compaction, garbage, index, keys, segment};
use crate::keyspace::meta::version_cost_bytes;
use crate::response::{Outcome, Rejection, Response};
use crate::settings::Settings;
use crate::state::chunk::Chunk;
use crate::state::draft::{Stop, outcome_of};
use crate::store::Fault;

impl Chunk<'_> {
    /// Carries out one command of the coordinator, all of it or nothing.
    pub(crate) fn coordinate(
        &mut self,
        command: quorate::CoordinatorCommand,
    ) -> Result<Outcome, Fault> {
        let Some(area) = command.area else {
            return Ok(Err(Refusal::unknown_command("coordinator").into()));
        };
        if let Area::Channel(quorate::ChannelCommand {
            kind: Some(quorate::channel_command::Kind::SetRole(role)),
        }) = area
        {
            return Ok(self.set_role(role));
        }
        if !self.settings().coordinator {
            return Ok(Err(Refusal::RoleOff.into()));
        }
        let resumes = is_resume(&area);
        let outcome = outcome_of(self.carry_out(area))?;
        if resumes && outcome.is_ok() && self.settings().garbage_held {
            let settings = Settings { garbage_held: false, ..self.settings().clone() };
            self.store_settings(settings);
        }
        Ok(outcome)
    }

    fn carry_out(&mut self, area: Area) -> Result<Response, Stop> {
        let mut records = Records::new(self);
        let outcomes: Outcomes = match area {
            Area::Segment(command) => segment::apply(&mut records, command)?,
            Area::Channel(command) => channel::apply(&mut records, command)?,
            Area::Index(command) => index::apply(&mut records, command)?,
            Area::Compaction(command) => compaction::apply(&mut records, command)?,
            Area::Garbage(command) => garbage::apply(&mut records, command)?,
        };
        let writes = records.into_writes();
        self.absorb(writes);
        Ok(Response::Coordinator(outcomes.into_wire(self.counters.revision)))
    }

    fn set_role(&mut self, role: quorate::SetRole) -> Outcome {
        if self.settings().coordinator && !role.on {
            // In the same entry: a coordinator that stands by may serve from here on, and not before.
            let mut records = Records::new(self);
            for name in keys::COORDINATOR_SESSIONS {
                let key = records.keys().session(name);
                records.delete(key);
            }
            let writes = records.into_writes();
            self.absorb(writes);
        }
        let settings = Settings {
            coordinator: role.on,
            raw_writes: role.raw_writes,
            ..self.settings().clone()
        };
        self.store_settings(settings);
        let outcome =
            quorate::CoordinatorOutcome { revision: self.counters.revision, ..Default::default() };
        Ok(Response::Coordinator(outcome))
    }
}

fn is_resume(area: &Area) -> bool {
    use quorate::garbage_command::Kind;
    match area {
        Area::Garbage(command) => matches!(command.kind, Some(Kind::Resume(_))),
        Area::Segment(_) | Area::Channel(_) | Area::Index(_) | Area::Compaction(_) => false,
    }
}

/// What a command adds to the logical size, about: an upper bound is enough for the quota. Commands
/// that only take away pass a full keyspace.
pub(crate) fn cost_bytes(command: &quorate::CoordinatorCommand) -> u64 {
    use quorate::segment_command::Kind;
    match &command.area {
        Some(Area::Segment(quorate::SegmentCommand {
            kind: Some(Kind::Drop(_) | Kind::DropChannel(_) | Kind::Remove(_) | Kind::Seal(_)),
        })) => 0,
        Some(
            Area::Index(_)
            | Area::Compaction(_)
            | Area::Segment(_)
            | Area::Channel(_)
            | Area::Garbage(_),
        ) => version_cost_bytes(0, prost::Message::encoded_len(command)),
        None => 0,
    }
}

/// Whether a key below the root path is written by commands of the coordinator only.
fn is_owned(root_path: &str, key: &[u8]) -> bool {
    keys::owned_prefixes(root_path).any(|prefix| key.starts_with(prefix.as_bytes()))
}

/// Refuses raw writes to owned keys, also inside of transactions and ranges that cover some.
///
/// # Errors
/// The first key or range that is owned.
pub(crate) fn touches_owned(
    root_path: &str,
    kind: &quorate::command::Kind,
) -> Result<(), Rejection> {
    use quorate::command::Kind;
    match kind {
        Kind::Put(put) => owned_key(root_path, &put.key),
        Kind::DeleteRange(delete) => owned_range(root_path, &delete.key, &delete.range_end),
        Kind::Txn(txn) => owned_txn(root_path, txn),
        Kind::Compact(_)
        | Kind::LeaseGrant(_)
        | Kind::LeaseRevoke(_)
        | Kind::ExpireLeases(_)
        | Kind::Alarm(_)
        | Kind::RegisterOrigin(_)
        | Kind::ChangeSettings(_)
        | Kind::RaiseLevel(_)
        | Kind::CheckDigest(_)
        | Kind::SetTime(_)
        | Kind::Coordinator(_) => Ok(()),
    }
}

fn owned_txn(root_path: &str, txn: &etcd::TxnRequest) -> Result<(), Rejection> {
    use etcd::request_op::Request;
    for operation in txn.success.iter().chain(&txn.failure) {
        match &operation.request {
            Some(Request::RequestPut(put)) => owned_key(root_path, &put.key)?,
            Some(Request::RequestDeleteRange(delete)) => {
                owned_range(root_path, &delete.key, &delete.range_end)?;
            }
            Some(Request::RequestTxn(nested)) => owned_txn(root_path, nested)?,
            Some(Request::RequestRange(_)) | None => {}
        }
    }
    Ok(())
}

fn owned_key(root_path: &str, key: &[u8]) -> Result<(), Rejection> {
    if is_owned(root_path, key) {
        let key = String::from_utf8_lossy(key).into_owned();
        return Err(Refusal::Owned { key }.into());
    }
    Ok(())
}

fn owned_range(root_path: &str, key: &[u8], range_end: &[u8]) -> Result<(), Rejection> {
    if range_end.is_empty() {
        return owned_key(root_path, key);
    }
    for prefix in keys::owned_prefixes(root_path) {
        let prefix = prefix.as_bytes();
        // A range end of one zero byte stands for "to the end of the keyspace".
        let begins_before_end = range_end == b"\0" || prefix < range_end;
        let ends_after_begin = key < prefix || key.starts_with(prefix);
        if begins_before_end && ends_after_begin {
            let key = String::from_utf8_lossy(prefix).into_owned();
            return Err(Refusal::Owned { key }.into());
        }
    }
    Ok(())
}
