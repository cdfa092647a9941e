//! Transactions that only read: planned under the lock, evaluated off it.

use std::ops::ControlFlow;

use proto::etcd;
use proto::etcd::request_op::Request;
use proto::etcd::response_op;

use crate::history;
use crate::ids::EventId;
use crate::keyspace::key_range::KeyRange;
use crate::kv::check;
use crate::kv::compare::Comparison;
use crate::kv::range::RangePlan;
use crate::response::{Rejection, Response};
use crate::state::State;
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
}

#[derive(Debug)]
enum OpPlan {
    /// A refusal counts only where the branch runs.
    Range(Result<RangePlan, Rejection>),
    Txn(Node),
}

impl State {
    /// Copies what a read-only transaction needs of the index. Runs under the read lock.
    ///
    /// # Errors
    /// A request that is wrong whatever the state holds. One that could write is refused as an
    /// empty operation: see `check::is_read_only`.
    pub fn plan_txn(&self, request: &etcd::TxnRequest) -> Result<TxnPlan, Rejection> {
        check::txn(request, self.settings.txn_ops_max)?;
        Ok(TxnPlan { revision: self.revision(), root: self.plan_node(request)? })
    }

    fn plan_node(&self, request: &etcd::TxnRequest) -> Result<Node, Rejection> {
        let compares = request.compare.iter().map(|compare| self.plan_compare(compare));
        let ops = |ops: &[etcd::RequestOp]| -> Result<Vec<OpPlan>, Rejection> {
            ops.iter()
                .map(|op| match &op.request {
                    Some(Request::RequestRange(range)) => Ok(OpPlan::Range(self.plan_range(range))),
                    Some(Request::RequestTxn(inner)) => Ok(OpPlan::Txn(self.plan_node(inner)?)),
                    Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {
                        Err(Rejection::EmptyOperation)
                    }
                })
                .collect()
        };
        Ok(Node {
            compares: compares.collect(),
            success: ops(&request.success)?,
            failure: ops(&request.failure)?,
        })
    }

    fn plan_compare(&self, compare: &etcd::Compare) -> ComparePlan {
        let comparison = Comparison::of(compare);
        let range = KeyRange::of_request(&compare.key, &compare.range_end);
        let needs_value = comparison.needs_value();
        let mut is_empty = true;
        let mut holds = true;
        let mut values = Vec::new();
        self.index.visit(&range, &mut |_key, meta| {
            is_empty = false;
            if needs_value {
                values.push(meta.event_id());
                return ControlFlow::Continue(());
            }
            holds = comparison.holds_for(meta);
            if holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match (is_empty, needs_value) {
            (true, _) => ComparePlan::Decided(comparison.holds_for_none()),
            (false, true) => ComparePlan::Values(comparison, values),
            (false, false) => ComparePlan::Decided(holds),
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
        let mut response = match self.root.run(store)? {
            Ok(response) => response,
            Err(rejection) => return Ok(Err(rejection)),
        };
        response.header = Response::header(self.revision);
        Ok(Ok(response))
    }
}

impl Node {
    fn run(self, store: &dyn StateRead) -> Result<Result<etcd::TxnResponse, Rejection>, Fault> {
        let mut succeeded = true;
        for compare in &self.compares {
            if !compare.holds(store)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { self.success } else { self.failure };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match op {
                OpPlan::Range(Err(rejection)) => return Ok(Err(rejection)),
                OpPlan::Range(Ok(plan)) => response_op::Response::ResponseRange(plan.fetch(store)?),
                OpPlan::Txn(node) => match node.run(store)? {
                    Ok(response) => response_op::Response::ResponseTxn(response),
                    Err(rejection) => return Ok(Err(rejection)),
                },
            };
            responses.push(etcd::ResponseOp { response: Some(response) });
        }
        Ok(Ok(etcd::TxnResponse {
            header: Some(etcd::ResponseHeader::default()),
            succeeded,
            responses,
        }))
    }
}

impl ComparePlan {
    fn holds(&self, store: &dyn StateRead) -> Result<bool, Fault> {
        match self {
            ComparePlan::Decided(holds) => Ok(*holds),
            ComparePlan::Values(comparison, ids) => {
                for id in ids {
                    if !comparison.holds_for_value(&history::pair(store, *id)?.value) {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }
}
