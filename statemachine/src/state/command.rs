//! The one dispatch of all commands.

use proto::quorate::command::Kind;
use proto::{etcd, quorate};

use crate::alarm::{Alarm, AlarmKind, AlarmOrder};
use crate::coordinator;
use crate::digest;
use crate::ids::EntryMeta;
use crate::kv::answer::Answer;
use crate::kv::cost::Cost;
use crate::kv::{self, check};
use crate::limits;
use crate::response::{Outcome, Rejection, Response};
use crate::settings::Settings;
use crate::state::chunk::Chunk;
use crate::state::draft::{Alone, Draft, Stop, outcome_of};
use crate::store::{Fault, Table};
use crate::table;
use crate::versions;

/// No node has this id: an alarm of this member is one of the whole cluster.
const CLUSTER: u64 = 0;

/// By how much a command may grow the keyspace; `None` of those that alarms never refuse.
fn growth_bytes(kind: &Kind) -> Option<u64> {
    match kind {
        Kind::Put(request) => Some(put_cost_bytes(request)),
        Kind::Txn(request) => Some(txn_cost_bytes(request)),
        Kind::LeaseGrant(_) => Some(limits::LEASE_COST_BYTES),
        Kind::Coordinator(command) => Some(coordinator::cost_bytes(command)),
        Kind::DeleteRange(_) | Kind::Compact(_) | Kind::LeaseRevoke(_) | Kind::ExpireLeases(_) => {
            Some(0)
        }
        Kind::Alarm(_)
        | Kind::RegisterOrigin(_)
        | Kind::ChangeSettings(_)
        | Kind::RaiseLevel(_)
        | Kind::SetTime(_)
        | Kind::CheckDigest(_) => None,
    }
}

/// Whether a keyspace without room refuses the command.
pub fn grows(kind: &Kind) -> bool {
    growth_bytes(kind).is_some_and(|bytes| bytes > 0)
}

impl Chunk<'_> {
    /// Carries out one command. A refused one leaves nothing behind, but for the alarm that a full
    /// keyspace raises.
    pub(crate) fn execute(
        &mut self,
        entry: &EntryMeta,
        command: quorate::Command,
    ) -> Result<Outcome, Fault> {
        if let Some(fence) = command.fence
            && (fence.term, fence.node) != (entry.term, entry.node)
        {
            let quorate::Fence { term, node } = fence;
            return Ok(Err(Rejection::StaleFence { term, node }));
        }
        if let Err(rejection) = check::request(&command, self.settings()) {
            return Ok(Err(rejection));
        }
        if self.settings().coordinator
            && !self.settings().raw_writes
            && let Some(kind) = &command.kind
            && let Err(rejection) = coordinator::touches_owned(&self.settings().root_path, kind)
        {
            return Ok(Err(rejection));
        }
        // A run with such a command is refused as a whole before it comes here.
        let Some(kind) = command.kind else {
            return Ok(Err(Rejection::UnreadableRun { level: self.counters.level }));
        };
        if let Err(rejection) = self.admit(entry, &kind) {
            return Ok(Err(rejection));
        }
        match kind {
            Kind::Put(request) => outcome_of(self.put(request)),
            Kind::DeleteRange(request) => outcome_of(self.delete_range(&request)),
            Kind::Txn(request) => outcome_of(self.txn(request)),
            Kind::Compact(request) => outcome_of(self.compact(&request)),
            Kind::LeaseGrant(request) => Ok(self.lease_grant(&request)),
            Kind::LeaseRevoke(request) => Ok(self.lease_revoke(&request)),
            Kind::ExpireLeases(request) => Ok(Ok(self.expire_leases(&request))),
            Kind::Alarm(request) => Ok(self.alarm(&request)),
            Kind::ChangeSettings(change) => Ok(self.change_settings(&change)),
            Kind::RaiseLevel(request) => self.raise_level(entry, &request),
            Kind::CheckDigest(quorate::CheckDigest {}) => {
                self.check_digest = true;
                Ok(Ok(Response::DigestChecked { index: entry.index }))
            }
            Kind::SetTime(request) => outcome_of(self.set_time(&request)),
            Kind::Coordinator(command) => self.coordinate(command),
            Kind::RegisterOrigin(_) => {
                Err(Fault::Invariant("registrations are carried out with their run".to_owned()))
            }
        }
    }

    /// Alarms and the quota. Deletes and compaction pass a full keyspace.
    fn admit(&mut self, entry: &EntryMeta, kind: &Kind) -> Result<(), Rejection> {
        let Some(growth_bytes) = growth_bytes(kind) else { return Ok(()) };
        // That of one member is for people to see; only that of the whole cluster stops writes.
        let of_cluster = Alarm { kind: AlarmKind::Corrupt, member: CLUSTER };
        if self.alarms().iter().any(|alarm| alarm == of_cluster) {
            return Err(Rejection::Corrupt);
        }
        if growth_bytes == 0 {
            return Ok(());
        }
        let size_bytes = self.counters.logical_bytes();
        let quota_bytes = self.settings().quota_bytes;
        let is_raised = self.alarms().is_raised(AlarmKind::NoSpace);
        if !is_raised && (quota_bytes == 0 || size_bytes + growth_bytes <= quota_bytes) {
            return Ok(());
        }
        if !is_raised {
            self.raise_alarm(Alarm { kind: AlarmKind::NoSpace, member: entry.node });
        }
        Err(Rejection::NoSpace { size_bytes, quota_bytes })
    }

    fn put(&mut self, request: etcd::PutRequest) -> Result<Response, Stop> {
        let mut draft = Draft::new(self);
        let mut cost = Cost::default();
        kv::check_put(&draft, &request)?;
        let answer = kv::put(&mut draft, request, Alone::Yes, &mut cost)?;
        let response = Answer::Put(answer).settle(&cost, draft.chunk.store)?;
        let writes = draft.into_writes();
        self.absorb(writes);
        Ok(response)
    }

    fn delete_range(&mut self, request: &etcd::DeleteRangeRequest) -> Result<Response, Stop> {
        let mut draft = Draft::new(self);
        let mut cost = Cost::default();
        let answer = kv::delete_range(&mut draft, request, Alone::Yes, &mut cost)?;
        let response = Answer::DeleteRange(answer).settle(&cost, draft.chunk.store)?;
        let writes = draft.into_writes();
        self.absorb(writes);
        Ok(response)
    }

    fn txn(&mut self, request: etcd::TxnRequest) -> Result<Response, Stop> {
        let mut draft = Draft::new(self);
        let mut cost = Cost::default();
        let answer = kv::txn::txn(&mut draft, request, &mut cost)?;
        let response = Answer::Txn(answer).settle(&cost, draft.chunk.store)?;
        let writes = draft.into_writes();
        self.absorb(writes);
        Ok(response)
    }

    fn compact(&mut self, request: &etcd::CompactionRequest) -> Result<Response, Stop> {
        let requested = request.revision;
        let (current, compacted) = (self.counters.revision, self.counters.compacted_revision);
        if requested <= compacted {
            return Err(Rejection::Compacted { requested, compacted }.into());
        }
        if requested > current {
            return Err(Rejection::FutureRevision { requested, current }.into());
        }
        self.counters.superseded_at_compacted_bytes = self.superseded_bytes_at(requested)?;
        self.counters.compacted_revision = requested;
        self.touched.compaction = true;
        Ok(Response::Compact(etcd::CompactionResponse { header: Response::header(current) }))
    }

    fn alarm(&mut self, request: &etcd::AlarmRequest) -> Outcome {
        let alarms = match AlarmOrder::parse(request, self.counters.level)? {
            AlarmOrder::List(kind) => self
                .alarms()
                .iter()
                .filter(|alarm| kind.map_or(alarm.kind.is_of_etcd(), |kind| kind == alarm.kind))
                .map(Alarm::to_wire)
                .collect(),
            AlarmOrder::Raise(alarm) => {
                self.raise_alarm(alarm);
                vec![alarm.to_wire()]
            }
            AlarmOrder::Clear(alarm) => {
                if self.alarms().iter().any(|raised| raised == alarm) {
                    self.alarms_mut().clear(alarm);
                    self.changes.delete(Table::Domain, &alarm.row_key());
                    self.touched.alarms = true;
                    vec![alarm.to_wire()]
                } else {
                    Vec::new()
                }
            }
            AlarmOrder::Nothing => Vec::new(),
        };
        let header = Response::header(self.counters.revision);
        Ok(Response::Alarm(etcd::AlarmResponse { header, alarms }))
    }

    pub(crate) fn raise_alarm(&mut self, alarm: Alarm) {
        if self.alarms_mut().raise(alarm) {
            self.changes.put(Table::Domain, &alarm.row_key(), &[]);
            self.touched.alarms = true;
        }
    }

    fn change_settings(&mut self, change: &quorate::ChangeSettings) -> Outcome {
        let settings = self.settings().changed(change)?;
        let response = Response::SettingsChanged(settings.to_wire());
        self.store_settings(settings);
        Ok(response)
    }

    pub(crate) fn store_settings(&mut self, settings: Settings) {
        self.counters.subtract_content(digest::settings_hash(self.settings()));
        self.counters.add_content(digest::settings_hash(&settings));
        self.changes.put(Table::Domain, table::domain::SETTINGS, &settings.encode());
        self.touched.settings = true;
        self.settings = Some(settings);
    }

    fn raise_level(
        &mut self,
        entry: &EntryMeta,
        request: &quorate::RaiseLevel,
    ) -> Result<Outcome, Fault> {
        if request.level > versions::KNOWN_LEVEL {
            return Err(self.unknown_level(entry, request.level));
        }
        if request.level > self.counters.level {
            self.counters.level = request.level;
            self.touched.level = true;
        }
        Ok(Ok(Response::LevelRaised { level: self.counters.level }))
    }

    fn unknown_level(&self, entry: &EntryMeta, needed: u32) -> Fault {
        Fault::UnknownLevel { index: entry.index, needed, known: versions::KNOWN_LEVEL }
    }
}

fn put_cost_bytes(request: &etcd::PutRequest) -> u64 {
    crate::keyspace::meta::version_cost_bytes(request.key.len(), request.value.len())
}

/// Of the dearer branch; which one runs is not known yet.
fn txn_cost_bytes(request: &etcd::TxnRequest) -> u64 {
    use etcd::request_op::Request;
    let branch = |ops: &[etcd::RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(Request::RequestPut(put)) => put_cost_bytes(put),
                Some(Request::RequestTxn(nested)) => txn_cost_bytes(nested),
                Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
            })
            .sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

#[cfg(test)]
mod tests;
