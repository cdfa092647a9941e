//! View of the compaction plans on record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prost::Message;
use proto::etcd;
use proto::quorate::{self, CompactionState, CompactionTask};

use crate::view::{CollectionId, Name, PlanId, Row, Rows, SegmentId, Undecodable};

/// All plans. There are few, so a row holds the whole record.
#[derive(Debug, Default, PartialEq)]
pub struct Plans {
    rows: Rows<PlanId, Plan>,
    /// Inputs of plans that have not ended.
    inputs: BTreeSet<(SegmentId, PlanId)>,
    of_trigger: BTreeSet<(i64, PlanId)>,
    running: BTreeSet<(Name, PlanId)>,
    is_paused: bool,
    /// Properties that were changed after the collection was made.
    altered: BTreeMap<CollectionId, BTreeMap<String, String>>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub task: CompactionTask,
    pub revision: i64,
}

impl Plan {
    /// Its inputs are still bound and its node may be at work.
    pub fn is_running(&self) -> bool {
        is_running(&self.task)
    }
}

/// Whether a plan has not ended. One that timed out has, once its node let go of it.
pub(crate) fn is_running(task: &CompactionTask) -> bool {
    match task.state() {
        CompactionState::Queued | CompactionState::Executing | CompactionState::Completed => true,
        CompactionState::TimedOut => task.ended_at_ms == 0,
        CompactionState::Unspecified
        | CompactionState::Synced
        | CompactionState::Failed
        | CompactionState::Cancelled => false,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = &self.task;
        write!(
            out,
            "{} channel {} node {} epoch {} result {} inputs",
            task.state().as_str_name(),
            task.channel,
            task.node,
            task.epoch,
            task.result
        )?;
        for input in &task.inputs {
            write!(out, " {}", input.segment)?;
        }
        Ok(())
    }
}

/// Following the keyspace.
impl Plans {
    pub(crate) fn put(&mut self, id: PlanId, kv: &etcd::KeyValue) {
        self.forget(id);
        let plan = CompactionTask::decode(&kv.value[..])
            .map(|task| Plan { task, revision: kv.mod_revision })
            .map_err(|error| error.to_string());
        let row = Row::from_result(plan, kv.mod_revision);
        if let Some(plan) = row.decoded() {
            self.of_trigger.insert((plan.task.trigger, id));
            if plan.is_running() {
                self.running.insert((Name::from(plan.task.channel.as_str()), id));
                for input in &plan.task.inputs {
                    self.inputs.insert((SegmentId(input.segment), id));
                }
            }
        }
        self.rows.put(id, row);
    }

    pub(crate) fn delete(&mut self, id: PlanId) {
        self.forget(id);
        self.rows.remove(&id);
    }

    fn forget(&mut self, id: PlanId) {
        let Some(old) = self.rows.get(&id) else { return };
        self.of_trigger.remove(&(old.task.trigger, id));
        self.running.remove(&(Name::from(old.task.channel.as_str()), id));
        for input in &old.task.inputs {
            self.inputs.remove(&(SegmentId(input.segment), id));
        }
    }

    pub(crate) fn put_control(&mut self, kv: &etcd::KeyValue) {
        self.is_paused =
            quorate::ControlCompaction::decode(&kv.value[..]).is_ok_and(|control| control.paused);
    }

    pub(crate) fn delete_control(&mut self) {
        self.is_paused = false;
    }

    /// What does not decode counts as nothing changed.
    pub(crate) fn put_altered(&mut self, collection: CollectionId, kv: &etcd::KeyValue) {
        let record = quorate::AlteredCollection::decode(&kv.value[..]).unwrap_or_default();
        let properties = record.properties.into_iter().map(|pair| (pair.key, pair.value));
        self.altered.insert(collection, properties.collect());
    }

    pub(crate) fn delete_altered(&mut self, collection: CollectionId) {
        self.altered.remove(&collection);
    }
}

/// Questions.
impl Plans {
    pub fn get(&self, id: PlanId) -> Option<&Plan> {
        self.rows.get(&id)
    }

    pub fn rows(&self) -> &Rows<PlanId, Plan> {
        &self.rows
    }

    /// The plan that has a segment as its input and has not ended.
    pub fn of_input(&self, segment: SegmentId) -> Option<PlanId> {
        self.with_input(segment).next()
    }

    /// As [`Plans::of_input`], more than one if somebody wrote plans raw.
    pub(crate) fn with_input(&self, segment: SegmentId) -> impl Iterator<Item = PlanId> {
        let first = (segment, PlanId(i64::MIN));
        let last = (segment, PlanId(i64::MAX));
        self.inputs.range(first..=last).map(|(_, plan)| *plan)
    }

    /// Plans of a channel that have not ended.
    pub fn running_on(&self, channel: &str) -> impl Iterator<Item = PlanId> {
        let first = (Name::from(channel), PlanId(i64::MIN));
        let last = (Name::from(channel), PlanId(i64::MAX));
        self.running.range(first..=last).map(|(_, id)| *id)
    }

    /// All plans that have not ended, by channel.
    pub fn running(&self) -> impl Iterator<Item = (PlanId, &Plan)> {
        self.running.iter().filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    /// Plans of one trigger.
    pub fn of_trigger(&self, trigger: i64) -> impl Iterator<Item = (PlanId, &Plan)> {
        let first = (trigger, PlanId(i64::MIN));
        let last = (trigger, PlanId(i64::MAX));
        self.of_trigger.range(first..=last).filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// A property of a collection that was changed after the collection was made.
    pub fn altered(&self, collection: CollectionId, key: &str) -> Option<&str> {
        self.altered.get(&collection)?.get(key).map(String::as_str)
    }

    pub(crate) fn troubles(&self) -> impl Iterator<Item = (PlanId, &Undecodable)> {
        self.rows.troubles().map(|(id, why)| (*id, why))
    }

    pub fn undecodable(&self) -> usize {
        self.rows.undecodable()
    }
}

impl fmt::Display for Plans {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, row) in self.rows.iter() {
            writeln!(out, "plan {id}: {row}")?;
        }
        if self.is_paused {
            writeln!(out, "compaction is paused")?;
        }
        for (collection, properties) in &self.altered {
            writeln!(out, "collection {collection} has {properties:?}")?;
        }
        Ok(())
    }
}
