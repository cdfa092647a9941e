//! Comparisons of transactions.

use std::cmp::Ordering;

use bytes::Bytes;
use proto::etcd;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::keyspace::meta::KeyMeta;

/// One comparison, its numbers understood.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// `None`: a number that stands for no relation, which holds for every pair, as in etcd.
    result: Option<CompareResult>,
    against: Against,
}

#[derive(Clone, Debug)]
enum Against {
    Number(CompareNumber, i64),
    Value(Bytes),
    /// A number that stands for no target: every pair counts as equal, as in etcd.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum CompareNumber {
    Version,
    Create,
    Mod,
    Lease,
}

impl Comparison {
    /// A target union of another kind than the target counts as 0 or empty, as in etcd.
    pub(crate) fn of(compare: &etcd::Compare) -> Comparison {
        let result = CompareResult::try_from(compare.result).ok();
        let Ok(target) = CompareTarget::try_from(compare.target) else {
            return Comparison { result, against: Against::Unknown };
        };
        let union = compare.target_union.as_ref();
        let against = match (target, union) {
            (CompareTarget::Value, Some(TargetUnion::Value(value))) => {
                Against::Value(value.clone())
            }
            (CompareTarget::Value, _) => Against::Value(Bytes::new()),
            (CompareTarget::Version, Some(TargetUnion::Version(number))) => {
                Against::Number(CompareNumber::Version, *number)
            }
            (CompareTarget::Version, _) => Against::Number(CompareNumber::Version, 0),
            (CompareTarget::Create, Some(TargetUnion::CreateRevision(number))) => {
                Against::Number(CompareNumber::Create, *number)
            }
            (CompareTarget::Create, _) => Against::Number(CompareNumber::Create, 0),
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(number))) => {
                Against::Number(CompareNumber::Mod, *number)
            }
            (CompareTarget::Mod, _) => Against::Number(CompareNumber::Mod, 0),
            (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => {
                Against::Number(CompareNumber::Lease, *number)
            }
            (CompareTarget::Lease, _) => Against::Number(CompareNumber::Lease, 0),
        };
        Comparison { result, against }
    }

    /// Where no key is in the range: a value never compares, numbers count as 0.
    pub(crate) fn holds_for_none(&self) -> bool {
        match &self.against {
            Against::Value(_) => false,
            Against::Number(_, wanted) => self.accepts(0_i64.cmp(wanted)),
            Against::Unknown => self.accepts(Ordering::Equal),
        }
    }

    /// By what the index knows of a key; `None` where the value decides.
    pub(crate) fn holds_for(&self, meta: &KeyMeta) -> Option<bool> {
        match &self.against {
            Against::Value(wanted) => {
                let is_as_long = meta.value_bytes as usize == wanted.len();
                match self.result {
                    None => Some(true),
                    Some(CompareResult::Equal) if !is_as_long => Some(false),
                    Some(CompareResult::NotEqual) if !is_as_long => Some(true),
                    Some(
                        CompareResult::Equal
                        | CompareResult::NotEqual
                        | CompareResult::Greater
                        | CompareResult::Less,
                    ) => None,
                }
            }
            Against::Unknown => Some(self.accepts(Ordering::Equal)),
            Against::Number(number, wanted) => {
                let found = match number {
                    CompareNumber::Version => meta.version,
                    CompareNumber::Create => meta.create_revision,
                    CompareNumber::Mod => meta.mod_revision,
                    CompareNumber::Lease => meta.lease,
                };
                Some(self.accepts(found.cmp(wanted)))
            }
        }
    }

    /// Where the value decides.
    pub(crate) fn holds_for_value(&self, value: &[u8]) -> bool {
        match &self.against {
            Against::Value(wanted) => self.accepts(value.cmp(wanted)),
            Against::Number(..) | Against::Unknown => false,
        }
    }

    fn accepts(&self, order: Ordering) -> bool {
        match self.result {
            None => true,
            Some(CompareResult::Equal) => order.is_eq(),
            Some(CompareResult::Greater) => order.is_gt(),
            Some(CompareResult::Less) => order.is_lt(),
            Some(CompareResult::NotEqual) => order.is_ne(),
        }
    }
}
