//! What a write answers, before the values in it are read.
//!
//! Apply decides from the index which pairs an answer holds and how large it is. A small answer is
//! read at once, on every node, and kept for duplicates. A large one is read after the commit, only
//! on the node whose client waits for it, off the thread that applies.

use proto::etcd;
use proto::etcd::response_op;

use crate::kv::cost::{Cost, Reads};
use crate::kv::picks::Picks;
use crate::kv::range::RangePlan;
use crate::response::{Outcome, Rejection, Response};
use crate::state::draft::{Stop, outcome_of};
use crate::store::{Fault, StateRead};

/// An answer that is too large to be read in apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Deferred(Box<Answer>);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Put(PutAnswer),
    DeleteRange(DeleteAnswer),
    Txn(TxnAnswer),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PutAnswer {
    pub(crate) header: Option<etcd::ResponseHeader>,
    /// At most one.
    pub(crate) previous: Picks,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeleteAnswer {
    pub(crate) header: Option<etcd::ResponseHeader>,
    pub(crate) deleted: i64,
    pub(crate) previous: Picks,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TxnAnswer {
    pub(crate) header: Option<etcd::ResponseHeader>,
    pub(crate) succeeded: bool,
    pub(crate) ops: Vec<OpAnswer>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OpAnswer {
    Range(RangePlan),
    Put(PutAnswer),
    DeleteRange(DeleteAnswer),
    Txn(TxnAnswer),
}

impl Answer {
    /// The answer of a command that cost so much.
    pub(crate) fn settle(self, cost: &Cost, store: &dyn StateRead) -> Result<Response, Stop> {
        if cost.is_kept() {
            self.read(store, &mut Reads::of_transaction())
        } else {
            Ok(Response::Deferred(Deferred(Box::new(self))))
        }
    }

    fn read(self, store: &dyn StateRead, reads: &mut Reads) -> Result<Response, Stop> {
        Ok(match self {
            Answer::Put(answer) => Response::Put(answer.read(store, reads)?),
            Answer::DeleteRange(answer) => Response::DeleteRange(answer.read(store, reads)?),
            Answer::Txn(answer) => Response::Txn(answer.read(store, reads)?),
        })
    }
}

impl Deferred {
    /// Reads the values, from an image of the store that was taken between the evaluation of the
    /// command and the next compaction. The command has taken effect already.
    ///
    /// # Errors
    /// A fault of the storage. An answer that is beyond its bound is a refusal in the outcome.
    pub fn fetch(self, store: &dyn StateRead) -> Result<Outcome, Fault> {
        let read = outcome_of(self.0.read(store, &mut Reads::of_transaction()))?;
        Ok(read.map_err(|_too_costly| Rejection::OutcomeTooLarge))
    }

    /// Rows that fetching will read; `None` where it has to scan.
    pub fn n_rows(&self) -> Option<usize> {
        match &*self.0 {
            Answer::Put(answer) => Some(answer.previous.len()),
            Answer::DeleteRange(answer) => Some(answer.previous.len()),
            Answer::Txn(answer) => answer.n_rows(),
        }
    }
}

impl PutAnswer {
    fn read(self, store: &dyn StateRead, reads: &mut Reads) -> Result<etcd::PutResponse, Stop> {
        let prev_kv = self.previous.into_pairs(store, reads)?.pop();
        Ok(etcd::PutResponse { header: self.header, prev_kv })
    }
}

impl DeleteAnswer {
    fn read(
        self,
        store: &dyn StateRead,
        reads: &mut Reads,
    ) -> Result<etcd::DeleteRangeResponse, Stop> {
        let prev_kvs = self.previous.into_pairs(store, reads)?;
        Ok(etcd::DeleteRangeResponse { header: self.header, deleted: self.deleted, prev_kvs })
    }
}

impl TxnAnswer {
    fn read(self, store: &dyn StateRead, reads: &mut Reads) -> Result<etcd::TxnResponse, Stop> {
        let mut responses = Vec::with_capacity(self.ops.len());
        for op in self.ops {
            let response = match op {
                OpAnswer::Range(plan) => {
                    response_op::Response::ResponseRange(plan.fetch_within(store, reads)?)
                }
                OpAnswer::Put(answer) => {
                    response_op::Response::ResponsePut(answer.read(store, reads)?)
                }
                OpAnswer::DeleteRange(answer) => {
                    response_op::Response::ResponseDeleteRange(answer.read(store, reads)?)
                }
                OpAnswer::Txn(answer) => {
                    response_op::Response::ResponseTxn(answer.read(store, reads)?)
                }
            };
            responses.push(etcd::ResponseOp { response: Some(response) });
        }
        Ok(etcd::TxnResponse { header: self.header, succeeded: self.succeeded, responses })
    }

    fn n_rows(&self) -> Option<usize> {
        let rows = self.ops.iter().map(|op| match op {
            OpAnswer::Range(plan) => plan.n_rows(),
            OpAnswer::Put(answer) => Some(answer.previous.len()),
            OpAnswer::DeleteRange(answer) => Some(answer.previous.len()),
            OpAnswer::Txn(answer) => answer.n_rows(),
        });
        rows.sum()
    }
}
