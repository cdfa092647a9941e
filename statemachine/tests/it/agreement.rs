//! The state machine and the naive model agree on everything that a client of etcd can see.

use std::collections::VecDeque;

use proptest::{prop_assert, prop_assert_eq};
use proto::etcd;
use proto::quorate::command::Kind;
use statemachine::testkit::Machine;
use statemachine::{EventKind, LogEntry, Outcome, PastImage, Rejection, Response, history};

use crate::commands::{self, Clock, Step};
use crate::model::{Answer, Model};
use crate::runner::{Verdict, law};
use crate::summary;

/// etcd's text of a refusal, without its `etcdserver: `.
fn etcd_text(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::EmptyKey => "key is not provided",
        Rejection::ValueProvided => "value is provided",
        Rejection::LeaseProvided { .. } => "lease is provided",
        Rejection::TooManyOperations { .. } => "too many operations in txn request",
        Rejection::DuplicateKey { .. } => "duplicate key given in txn request",
        Rejection::EmptyOperation | Rejection::KeyNotFound => "key not found",
        Rejection::Compacted { .. } => "mvcc: required revision has been compacted",
        Rejection::FutureRevision { .. } => "mvcc: required revision is a future revision",
        Rejection::LeaseNotFound { .. } => "requested lease not found",
        Rejection::LeaseExists { .. } => "lease already exists",
        Rejection::LeaseTtlTooLarge { .. } => "too large lease TTL",
        Rejection::UnknownOption { .. }
        | Rejection::LeaseIdMissing
        | Rejection::NoSpace { .. }
        | Rejection::Corrupt
        | Rejection::StaleFence { .. }
        | Rejection::StaleRequest
        | Rejection::OutcomeTooLarge
        | Rejection::TooCostly { .. }
        | Rejection::InvalidSetting { .. }
        | Rejection::UnknownAlarm { .. }
        | Rejection::UnreadableRun { .. }
        | Rejection::Coordinator(_) => "not one of etcd's",
    }
}

/// An answer of either side.
#[derive(Debug, PartialEq)]
enum Seen {
    Put(etcd::PutResponse),
    Delete(etcd::DeleteRangeResponse),
    Txn(etcd::TxnResponse),
    Compact(etcd::CompactionResponse),
    Grant(etcd::LeaseGrantResponse),
    Revoke(etcd::LeaseRevokeResponse),
}

fn ask_model(model: &mut Model, kind: &Kind) -> Answer<Seen> {
    match kind {
        Kind::Put(request) => model.put(request).map(Seen::Put),
        Kind::DeleteRange(request) => model.delete_range(request).map(Seen::Delete),
        Kind::Txn(request) => model.txn(request).map(Seen::Txn),
        Kind::Compact(request) => model.compact(request).map(Seen::Compact),
        Kind::LeaseGrant(request) => model.grant(request).map(Seen::Grant),
        Kind::LeaseRevoke(request) => model.revoke(request.id).map(Seen::Revoke),
        Kind::ExpireLeases(_)
        | Kind::Alarm(_)
        | Kind::RegisterOrigin(_)
        | Kind::ChangeSettings(_)
        | Kind::RaiseLevel(_)
        | Kind::CheckDigest(_)
        | Kind::SetTime(_)
        | Kind::Coordinator(_) => panic!("no command of etcd's clients: {kind:?}"),
    }
}

fn seen(outcome: Outcome) -> Answer<Seen> {
    let response = outcome.map_err(|rejection| etcd_text(&rejection))?;
    Ok(match response {
        Response::Put(response) => Seen::Put(response),
        Response::DeleteRange(response) => Seen::Delete(response),
        Response::Txn(mut response) => {
            for operation in &mut response.responses {
                without_header(operation);
            }
            Seen::Txn(response)
        }
        Response::Compact(response) => Seen::Compact(response),
        Response::LeaseGrant(response) => Seen::Grant(response),
        Response::LeaseRevoke(response) => Seen::Revoke(response),
        Response::LeasesExpired { .. }
        | Response::Alarm(_)
        | Response::OriginRegistered { .. }
        | Response::SettingsChanged(_)
        | Response::LevelRaised { .. }
        | Response::DigestChecked { .. }
        | Response::TimeSet { .. }
        | Response::Coordinator(_)
        | Response::Deferred(_) => panic!("no answer for etcd's clients: {response:?}"),
    })
}

/// What the header of a nested transaction says is open.
fn without_header(operation: &mut etcd::ResponseOp) {
    if let Some(etcd::response_op::Response::ResponseTxn(nested)) = &mut operation.response {
        nested.header = None;
        nested.responses.iter_mut().for_each(without_header);
    }
}

/// Both sides of a history, with commands that the model has answered and the machine not yet.
struct Pair {
    model: Model,
    machine: Machine,
    /// Commands of the next entry.
    commands: Vec<Kind>,
    entries: Vec<LogEntry>,
    expected: VecDeque<Answer<Seen>>,
    /// How much of the model's history the machine has shown as events.
    n_events: usize,
    entry_commands: usize,
    chunk_entries: usize,
    /// Of past revisions, made while the history was shorter.
    images: Vec<PastImage>,
}

/// Images that a history keeps.
const IMAGES_KEPT: usize = 6;

impl Pair {
    fn command(&mut self, kind: Kind) -> Verdict {
        self.expected.push_back(ask_model(&mut self.model, &kind));
        self.commands.push(kind);
        if self.commands.len() >= self.entry_commands {
            self.close_entry();
        }
        if self.entries.len() >= self.chunk_entries { self.apply() } else { Ok(()) }
    }

    fn close_entry(&mut self) {
        if !self.commands.is_empty() {
            let commands = std::mem::take(&mut self.commands);
            let entry = self.machine.entry(commands);
            self.entries.push(entry);
        }
    }

    /// Brings the machine up to the model and compares.
    fn apply(&mut self) -> Verdict {
        self.close_entry();
        if self.entries.is_empty() {
            return Ok(());
        }
        let applied = self.machine.apply(&std::mem::take(&mut self.entries)).unwrap();
        for (_, outcome) in applied.outcomes {
            let expected = self.expected.pop_front().expect("one outcome for one command");
            prop_assert_eq!(seen(outcome), expected);
        }
        prop_assert!(self.expected.is_empty());
        prop_assert_eq!(applied.revision, self.model.revision);
        prop_assert_eq!(applied.compacted_revision, self.model.compacted);
        let changes = &self.model.history[self.n_events..];
        prop_assert_eq!(applied.events.len(), changes.len());
        for (event, change) in applied.events.iter().zip(changes) {
            prop_assert_eq!(event.revision, change.revision);
            prop_assert_eq!(event.key(), &change.key);
            match &change.put {
                None => prop_assert_eq!(event.kind, EventKind::Delete),
                Some((value, lease)) => {
                    prop_assert_eq!(event.kind, EventKind::Put);
                    prop_assert_eq!((&event.kv.value, event.kv.lease), (value, *lease));
                }
            }
        }
        self.n_events = self.model.history.len();
        Ok(())
    }

    fn range(&mut self, request: &etcd::RangeRequest) -> Verdict {
        self.apply()?;
        let wanted = self.model.range(request);
        let store = &self.machine.store;
        let plan = match self.machine.state.plan_range(request) {
            Ok(plan) => plan,
            Err(rejection) => {
                prop_assert_eq!(Err(etcd_text(&rejection)), wanted, "{:?}", request);
                return Ok(());
            }
        };
        // A past revision is read in two ways, which must give equal answers.
        if let Some(at) = plan.past_revision() {
            let newest = self.machine.state.copy_index();
            let image = PastImage::build(newest, at, store).unwrap().expect("few changes");
            let kept = self.images.iter().find(|kept| kept.revision() == at);
            for image in kept.into_iter().chain([&image]) {
                let plan = image.plan_range(request, plan.revision()).unwrap();
                prop_assert_eq!(&Ok(plan.fetch(store).unwrap()), &wanted, "{:?}", request);
            }
            if kept.is_none() && self.images.len() < IMAGES_KEPT {
                self.images.push(image);
            }
        }
        prop_assert_eq!(Ok(plan.fetch(store).unwrap()), wanted, "{:?}", request);
        Ok(())
    }

    /// Compares all that is left to see.
    fn finish(mut self) -> Verdict {
        self.apply()?;
        for revision in self.model.compacted.max(1)..=self.model.revision {
            self.range(&summary::whole_range(revision))?;
        }
        let Machine { state, store, .. } = &self.machine;
        let leases: Vec<_> = state.leases().map(|(id, lease)| (id, lease.ttl_s)).collect();
        prop_assert_eq!(leases, self.model.leases.clone().into_iter().collect::<Vec<_>>());
        for (id, lease) in state.leases() {
            prop_assert_eq!(&lease.keys, &self.model.attached(id));
        }
        // Watchers may start at the compacted revision.
        let events = summary::events(store, self.model.compacted, self.model.revision);
        let changes: Vec<_> = self
            .model
            .history
            .iter()
            .filter(|change| change.revision >= self.model.compacted)
            .collect();
        prop_assert_eq!(events.len(), changes.len(), "{:?} {:?}", events, changes);
        for (event, change) in events.iter().zip(changes) {
            prop_assert_eq!(event.id().revision, change.revision);
            prop_assert_eq!(event.key(), &change.key);
            prop_assert_eq!(event.kind == EventKind::Put, change.put.is_some());
            // A range one revision earlier is what etcd takes the previous pair from; where that is
            // refused as compacted there is none.
            let before = self.model.range(&summary::whole_range(event.revision - 1));
            let before = before.map_or_else(|_compacted| Vec::new(), |answer| answer.kvs);
            let compacted = self.model.compacted;
            let previous =
                history::previous(store, event.key(), event.revision, compacted).unwrap();
            prop_assert_eq!(previous, before.into_iter().find(|kv| kv.key == event.key()));
        }
        Ok(())
    }
}

fn agree(steps: Vec<Step>, entry_commands: usize, chunk_entries: usize) -> Verdict {
    let mut pair = Pair {
        model: Model::new(),
        machine: Machine::new(),
        commands: Vec::new(),
        entries: Vec::new(),
        expected: VecDeque::new(),
        n_events: 0,
        entry_commands,
        chunk_entries,
        images: Vec::new(),
    };
    for step in steps {
        let clock = Clock { revision: pair.model.revision, compacted: pair.model.compacted };
        match clock.bind_step(step) {
            Step::Command(kind) => pair.command(kind)?,
            Step::Range(range) => pair.range(&range)?,
            Step::CompactRows { changes_max } => {
                pair.apply()?;
                pair.machine.compact_rows(changes_max);
            }
        }
    }
    pair.finish()
}

#[test]
fn a_naive_model_agrees_on_short_histories() {
    let inputs = (commands::etcd_history(60), 1usize..4, 1usize..4);
    law("agreement on short histories", 3_000, inputs, |(steps, entry, chunk)| {
        agree(steps, entry, chunk)
    });
}

#[test]
fn a_naive_model_agrees_on_long_histories() {
    let inputs = (commands::etcd_history(4_000), 1usize..8, 1usize..8);
    law("agreement on long histories", 6, inputs, |(steps, entry, chunk)| {
        agree(steps, entry, chunk)
    });
}
