//! Comparisons of transactions.

use bytes::Bytes;
use proto::etcd;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::keyspace::meta::KeyMeta;
use crate::response::Rejection;

/// One comparison, its numbers understood.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    result: CompareResult,
    against: Against,
}

#[derive(Clone, Debug)]
enum Against {
    Number(CompareNumber, i64),
    Value(Bytes),
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
    pub(crate) fn parse(compare: &etcd::Compare) -> Result<Comparison, Rejection> {
        let unknown = |value: i32| Rejection::UnknownOption { value: i64::from(value) };
        let result =
            CompareResult::try_from(compare.result).map_err(|_number| unknown(compare.result))?;
        let target =
            CompareTarget::try_from(compare.target).map_err(|_number| unknown(compare.target))?;
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
        Ok(Comparison { result, against })
    }

    pub(crate) fn needs_value(&self) -> bool {
        matches!(self.against, Against::Value(_))
    }

    /// Where no key is in the range: a value never compares, numbers count as 0.
    pub(crate) fn holds_for_none(&self) -> bool {
        match &self.against {
            Against::Value(_) => false,
            Against::Number(_, wanted) => self.accepts(0_i64.cmp(wanted)),
        }
    }

    /// For a comparison that needs no value.
    pub(crate) fn holds_for(&self, meta: &KeyMeta) -> bool {
        match &self.against {
            Against::Value(_) => false,
            Against::Number(number, wanted) => {
                let found = match number {
                    CompareNumber::Version => meta.version,
                    CompareNumber::Create => meta.create_revision,
                    CompareNumber::Mod => meta.mod_revision,
                    CompareNumber::Lease => meta.lease,
                };
                self.accepts(found.cmp(wanted))
            }
        }
    }

    /// For a comparison that needs the value.
    pub(crate) fn holds_for_value(&self, value: &[u8]) -> bool {
        match &self.against {
            Against::Value(wanted) => self.accepts(value.cmp(wanted)),
            Against::Number(..) => false,
        }
    }

    fn accepts(&self, order: std::cmp::Ordering) -> bool {
        match self.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    }
}
