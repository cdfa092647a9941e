//! Transactions that only read: planned under the lock, evaluated off it.

use std::ops::ControlFlow;

use bytes::Bytes;
use proto::etcd;
use proto::etcd::request_op::Request;
use proto::etcd::response_op;

use crate::history;
use crate::ids::EventId;
use crate::keyspace::key_range::KeyRange;
use crate::keyspace::meta::KeyMeta;
use crate::kv::compare::Comparison;
use crate::kv::cost::Reads;
use crate::kv::range::RangePlan;
use crate::kv::{check, past};
use crate::limits;
use crate::response::{Rejection, Response};
use crate::state::State;
use crate::state::draft::{Stop, outcome_of};
use crate::store::{Fault, StateRead};

/// A read-only transaction whose part of the index is copied, for both branches.
#[derive(Debug)]
pub struct TxnPlan {
    revision: i64,
    root: Node,
}

#[derive(Debug)]
struct Node {
    compares: Vec<ComparePlan>,
    success: Vec<OpPlan>,
    failure: Vec<OpPlan>,
}

#[derive(Debug)]
enum ComparePlan {
    Decided(bool),
    /// Needs the values of these; no key at all was decided already.
    Values(Comparison, Vec<EventId>),
    /// Too many keys to look at under the lock.
    Scan {
        comparison: Comparison,
        key: Bytes,
        range_end: Bytes,
    },
}

#[derive(Debug)]
enum OpPlan {
    /// A refusal counts only where the branch runs.
    Range(Result<RangePlan, Rejection>),
    Txn(Node),
}

impl State {
    /// Copies what a read-only transaction needs of the index, up to a bound; what needs more scans
    /// the tables when it is fetched. Runs under the read lock.
    ///
    /// # Errors
    /// A request that is wrong whatever the state holds. One that could write is refused as an
    /// empty operation: see `check::is_read_only`.
    pub fn plan_txn(&self, request: &etcd::TxnRequest) -> Result<TxnPlan, Rejection> {
        check::txn(request, self.settings.txn_ops_max)?;
        let root = self.plan_node(request, &mut { limits::LOCKED_TXN_KEYS_MAX })?;
        Ok(TxnPlan { revision: self.revision(), root })
    }

    fn plan_node(
        &self,
        request: &etcd::TxnRequest,
        keys_left: &mut usize,
    ) -> Result<Node, Rejection> {
        let compares = request.compare.iter().map(|compare| self.plan_compare(compare, keys_left));
        Ok(Node {
            compares: compares.collect(),
            success: self.plan_ops(&request.success, keys_left)?,
            failure: self.plan_ops(&request.failure, keys_left)?,
        })
    }

    fn plan_ops(
        &self,
        ops: &[etcd::RequestOp],
        keys_left: &mut usize,
    ) -> Result<Vec<OpPlan>, Rejection> {
        let plan = |op: &etcd::RequestOp| match &op.request {
            Some(Request::RequestRange(range)) => {
                Ok(OpPlan::Range(self.plan_range_within(range, keys_left)))
            }
            Some(Request::RequestTxn(inner)) => Ok(OpPlan::Txn(self.plan_node(inner, keys_left)?)),
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {
                Err(Rejection::EmptyOperation)
            }
        };
        ops.iter().map(plan).collect()
    }

    fn plan_compare(&self, compare: &etcd::Compare, keys_left: &mut usize) -> ComparePlan {
        let comparison = Comparison::of(compare);
        let range = KeyRange::of_request(&compare.key, &compare.range_end);
        let Some(left) = keys_left.checked_sub(self.index.count(&range)) else {
            let (key, range_end) = (compare.key.clone(), compare.range_end.clone());
            return ComparePlan::Scan { comparison, key, range_end };
        };
        *keys_left = left;
        let mut is_empty = true;
        let mut holds = true;
        let mut values = Vec::new();
        self.index.visit(&range, &mut |_key, meta| {
            is_empty = false;
            match comparison.holds_for(meta) {
                None => values.push(meta.event_id()),
                Some(holds_here) => holds = holds_here,
            }
            if holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match (is_empty, holds) {
            (true, _) => ComparePlan::Decided(comparison.holds_for_none()),
            (false, true) if !values.is_empty() => ComparePlan::Values(comparison, values),
            (false, holds) => ComparePlan::Decided(holds),
        }
    }
}

impl TxnPlan {
    /// Of the state that the plan was made from.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Evaluates off the lock, on the store image that belongs to the plan's state.
    ///
    /// # Errors
    /// A fault of the storage. A refusal is part of the outcome.
    pub fn fetch(
        self,
        store: &dyn StateRead,
    ) -> Result<Result<etcd::TxnResponse, Rejection>, Fault> {
        let reads = Reads::of_transaction();
        let mut evaluation = Evaluation { store, revision: self.revision, reads };
        let response = outcome_of(evaluation.node(self.root))?;
        let header = Response::header(self.revision);
        Ok(response.map(|response| etcd::TxnResponse { header, ..response }))
    }
}

/// The part that needs no lock.
struct Evaluation<'a> {
    store: &'a dyn StateRead,
    revision: i64,
    reads: Reads,
}

impl Evaluation<'_> {
    fn node(&mut self, node: Node) -> Result<etcd::TxnResponse, Stop> {
        let mut succeeded = true;
        for compare in &node.compares {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { node.success } else { node.failure };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match op {
                OpPlan::Range(plan) => {
                    let response = plan?.fetch_within(self.store, &mut self.reads)?;
                    response_op::Response::ResponseRange(response)
                }
                OpPlan::Txn(node) => response_op::Response::ResponseTxn(self.node(node)?),
            };
            responses.push(etcd::ResponseOp { response: Some(response) });
        }
        let header = Some(etcd::ResponseHeader::default());
        Ok(etcd::TxnResponse { header, succeeded, responses })
    }

    fn holds(&mut self, compare: &ComparePlan) -> Result<bool, Stop> {
        match compare {
            ComparePlan::Decided(holds) => Ok(*holds),
            ComparePlan::Values(comparison, ids) => {
                for id in ids {
                    if !self.holds_for_value(comparison, *id)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            ComparePlan::Scan { comparison, key, range_end } => {
                self.scan(comparison, &KeyRange::of_request(key, range_end))
            }
        }
    }

    fn scan(&mut self, comparison: &Comparison, range: &KeyRange<'_>) -> Result<bool, Stop> {
        let mut is_empty = true;
        let mut holds = Ok(true);
        past::visit(self.store, range, self.revision, &mut |_key, meta| {
            is_empty = false;
            holds = self.holds_for(comparison, meta);
            let goes_on = matches!(holds, Ok(true));
            Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if is_empty { Ok(comparison.holds_for_none()) } else { holds }
    }

    fn holds_for(&mut self, comparison: &Comparison, meta: &KeyMeta) -> Result<bool, Stop> {
        self.reads.visit()?;
        match comparison.holds_for(meta) {
            Some(holds) => Ok(holds),
            None => self.holds_for_value(comparison, meta.event_id()),
        }
    }

    fn holds_for_value(&mut self, comparison: &Comparison, id: EventId) -> Result<bool, Stop> {
        let pair = history::pair(self.store, id)?;
        self.reads.answer(limits::ANSWER_PAIR_BYTES + pair.value.len() as u64)?;
        Ok(comparison.holds_for_value(&pair.value))
    }
}
