//! What one command may cost, counted from the index alone: no value is read to decide, and every
//! node counts alike, however the log is cut into chunks.

use crate::keyspace::meta::KeyMeta;
use crate::limits;
use crate::response::Rejection;

/// What a command asks too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostBound {
    /// Keys that its comparisons and ranges visit.
    ReadKeys,
    DeletedKeys,
    /// Keys, values and previous pairs of its answer.
    AnswerBytes,
    /// Values that its comparisons have to read.
    ComparedBytes,
    /// Values that its puts keep.
    KeptBytes,
    /// Keys that a transaction visits which only reads.
    ScannedKeys,
    /// Keys and values of a range that is no part of a write or a transaction.
    RangeAnswerBytes,
}

impl CostBound {
    pub(crate) const ALL: [CostBound; 7] = [
        CostBound::ReadKeys,
        CostBound::DeletedKeys,
        CostBound::AnswerBytes,
        CostBound::ComparedBytes,
        CostBound::KeptBytes,
        CostBound::ScannedKeys,
        CostBound::RangeAnswerBytes,
    ];

    pub fn limit(self) -> u64 {
        match self {
            CostBound::ReadKeys => limits::COMMAND_READ_KEYS_MAX,
            CostBound::DeletedKeys => limits::COMMAND_DELETED_KEYS_MAX,
            CostBound::AnswerBytes => limits::COMMAND_ANSWER_BYTES_MAX,
            CostBound::ComparedBytes => limits::COMMAND_COMPARED_BYTES_MAX,
            CostBound::KeptBytes => limits::COMMAND_KEPT_BYTES_MAX,
            CostBound::ScannedKeys => limits::READ_TXN_KEYS_MAX,
            CostBound::RangeAnswerBytes => limits::RANGE_ANSWER_BYTES_MAX,
        }
    }
}

impl std::fmt::Display for CostBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limit = self.limit();
        match self {
            CostBound::ReadKeys | CostBound::ScannedKeys => write!(
                f,
                "comparisons and ranges visit more than {limit} keys: name smaller ranges"
            ),
            CostBound::DeletedKeys => write!(
                f,
                "more than {limit} keys would be deleted: delete smaller ranges one after the other"
            ),
            CostBound::AnswerBytes => write!(
                f,
                "the answer has more than {limit} bytes: ask for fewer keys, or without values or \
                 previous pairs"
            ),
            CostBound::RangeAnswerBytes => write!(
                f,
                "the answer has more than {limit} bytes: ask for it in pages with a limit, or for \
                 keys only"
            ),
            CostBound::ComparedBytes => write!(
                f,
                "values of more than {limit} bytes are compared: compare versions or revisions"
            ),
            CostBound::KeptBytes => write!(
                f,
                "puts with ignore_value keep more than {limit} bytes: split the transaction"
            ),
        }
    }
}

/// What a command has cost so far.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    read_keys: u64,
    deleted_keys: u64,
    answer_bytes: u64,
    compared_bytes: u64,
    kept_bytes: u64,
    /// A part of the answer is a range of the past, whose size only a scan tells.
    is_open: bool,
}

impl Cost {
    pub(crate) fn read_keys(&mut self, n_keys: usize) -> Result<(), Rejection> {
        charge(&mut self.read_keys, n_keys as u64, CostBound::ReadKeys)
    }

    pub(crate) fn delete_keys(&mut self, n_keys: usize) -> Result<(), Rejection> {
        charge(&mut self.deleted_keys, n_keys as u64, CostBound::DeletedKeys)
    }

    /// Of pairs that are part of the answer.
    pub(crate) fn answer(&mut self, bytes: u64) -> Result<(), Rejection> {
        charge(&mut self.answer_bytes, bytes, CostBound::AnswerBytes)
    }

    pub(crate) fn answer_past_range(&mut self) {
        self.is_open = true;
    }

    pub(crate) fn compare_value(&mut self, meta: &KeyMeta) -> Result<(), Rejection> {
        let bytes = limits::COMPARED_VALUE_BYTES_MIN + u64::from(meta.value_bytes);
        charge(&mut self.compared_bytes, bytes, CostBound::ComparedBytes)
    }

    pub(crate) fn keep_value(&mut self, meta: &KeyMeta) -> Result<(), Rejection> {
        charge(&mut self.kept_bytes, meta.value_bytes.into(), CostBound::KeptBytes)
    }

    /// The answer is small enough to be read on every node and kept for duplicates.
    pub(crate) fn is_kept(&self) -> bool {
        !self.is_open && self.answer_bytes <= limits::OUTCOME_BYTES_MAX as u64
    }
}

fn charge(counted: &mut u64, more: u64, bound: CostBound) -> Result<(), Rejection> {
    *counted = counted.saturating_add(more).min(bound.limit() + 1);
    if *counted > bound.limit() { Err(Rejection::TooCostly { bound }) } else { Ok(()) }
}

/// What reading the values of an answer may still cost: nothing of it decides an outcome.
#[derive(Debug)]
pub(crate) struct Reads {
    keys_left: u64,
    bytes_left: u64,
    /// What an answer beyond `bytes_left` is refused for.
    bytes_bound: CostBound,
}

impl Reads {
    /// Of whoever reads on a machine of its own, such as a tool.
    pub(crate) const UNBOUNDED: Reads = Reads {
        keys_left: u64::MAX,
        bytes_left: u64::MAX,
        bytes_bound: CostBound::RangeAnswerBytes,
    };

    /// Of one range by itself: it may count the whole keyspace.
    pub(crate) fn of_range() -> Reads {
        let bytes_bound = CostBound::RangeAnswerBytes;
        Reads { keys_left: u64::MAX, bytes_left: bytes_bound.limit(), bytes_bound }
    }

    /// Of a whole transaction.
    pub(crate) fn of_transaction() -> Reads {
        let bytes_bound = CostBound::AnswerBytes;
        let keys_left = limits::READ_TXN_KEYS_MAX;
        Reads { keys_left, bytes_left: bytes_bound.limit(), bytes_bound }
    }

    pub(crate) fn visit(&mut self) -> Result<(), Rejection> {
        let too_many = Rejection::TooCostly { bound: CostBound::ScannedKeys };
        self.keys_left = self.keys_left.checked_sub(1).ok_or(too_many)?;
        Ok(())
    }

    pub(crate) fn answer(&mut self, bytes: u64) -> Result<(), Rejection> {
        let too_large = Rejection::TooCostly { bound: self.bytes_bound };
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(too_large)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
