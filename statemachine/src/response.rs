//! What a command answers: a response, or a refusal that is equal on every node.

use proto::{etcd, quorate};

use crate::coordinator::Refusal;
use crate::kv::answer::Deferred;
use crate::kv::cost::CostBound;

/// A refusal is data: it is part of what replicas agree on. A [`Fault`](crate::Fault) is not.
pub type Outcome = Result<Response, Rejection>;

/// Headers carry only `revision`; who serves the response fills in the rest.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Put(etcd::PutResponse),
    DeleteRange(etcd::DeleteRangeResponse),
    Txn(etcd::TxnResponse),
    Compact(etcd::CompactionResponse),
    LeaseGrant(etcd::LeaseGrantResponse),
    LeaseRevoke(etcd::LeaseRevokeResponse),
    /// The leases that were there and are gone now.
    LeasesExpired {
        ids: Vec<i64>,
        revision: i64,
    },
    Alarm(etcd::AlarmResponse),
    /// The node's boot epoch, which its requests carry from now on.
    OriginRegistered {
        epoch: u64,
    },
    SettingsChanged(quorate::Settings),
    LevelRaised {
        level: u32,
    },
    /// The digests of this entry are in [`Applied::checks`](crate::Applied).
    DigestChecked {
        index: u64,
    },
    Coordinator(quorate::CoordinatorOutcome),
    /// Cluster time after it was set; `clipped` records were changed, `more` are left.
    TimeSet {
        at_ms: u64,
        clipped: u32,
        more: bool,
    },
    /// The command took effect; the values of its answer are not read yet. Never kept.
    Deferred(Deferred),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("key is not provided")]
    EmptyKey,
    #[error("value is provided together with ignore_value")]
    ValueProvided,
    #[error("lease {lease} is provided together with ignore_lease")]
    LeaseProvided { lease: i64 },
    #[error("transaction has {given} operations, the limit is {limit}")]
    TooManyOperations { given: u64, limit: u64 },
    #[error("transaction names key {key} twice")]
    DuplicateKey { key: String },
    #[error("operation of a transaction is empty")]
    EmptyOperation,
    #[error("key does not exist, so its value or lease cannot stay")]
    KeyNotFound,
    #[error("unknown sort order or sort target {value}")]
    UnknownOption { value: i64 },
    #[error("revision {requested} is compacted, the oldest is {compacted}")]
    Compacted { requested: i64, compacted: i64 },
    #[error("revision {requested} is in the future, the newest is {current}")]
    FutureRevision { requested: i64, current: i64 },
    #[error("lease {id} does not exist")]
    LeaseNotFound { id: i64 },
    #[error("lease {id} exists already")]
    LeaseExists { id: i64 },
    #[error("lease has no id")]
    LeaseIdMissing,
    #[error("time to live of {ttl_s} s is above {limit_s} s")]
    LeaseTtlTooLarge { ttl_s: i64, limit_s: i64 },
    #[error("keyspace of {size_bytes} bytes is at its quota of {quota_bytes} bytes")]
    NoSpace { size_bytes: u64, quota_bytes: u64 },
    #[error("replicas differ: writes are refused until the alarm is cleared")]
    Corrupt,
    #[error("proposed under term {term} of node {node}, which is over")]
    StaleFence { term: u64, node: u64 },
    #[error("request is settled, or of an earlier start of its node")]
    StaleRequest,
    #[error("request was applied, its response was too large to be kept")]
    OutcomeTooLarge,
    #[error("{bound}")]
    TooCostly { bound: CostBound },
    #[error("setting {name} cannot be {value}")]
    InvalidSetting { name: String, value: String },
    #[error("unknown alarm {alarm} or action {action}")]
    UnknownAlarm { alarm: i64, action: i64 },
    /// Says nothing of the reason, which may be another one in another binary.
    #[error(
        "the log entry that held the command cannot be understood at feature level {level}: none \
         of its run was carried out"
    )]
    UnreadableRun { level: u32 },
    #[error(transparent)]
    Coordinator(#[from] Refusal),
}

impl Response {
    pub(crate) fn header(revision: i64) -> Option<etcd::ResponseHeader> {
        Some(etcd::ResponseHeader { revision, ..Default::default() })
    }

    fn into_wire(self) -> quorate::outcome::Kind {
        use quorate::outcome::Kind;
        match self {
            Response::Put(response) => Kind::Put(response),
            Response::DeleteRange(response) => Kind::DeleteRange(response),
            Response::Txn(response) => Kind::Txn(response),
            Response::Compact(response) => Kind::Compact(response),
            Response::LeaseGrant(response) => Kind::LeaseGrant(response),
            Response::LeaseRevoke(response) => Kind::LeaseRevoke(response),
            Response::LeasesExpired { ids, revision } => {
                Kind::LeasesExpired(quorate::LeasesExpired { ids, revision })
            }
            Response::Alarm(response) => Kind::Alarm(response),
            Response::OriginRegistered { epoch } => {
                Kind::OriginRegistered(quorate::OriginRegistered { epoch })
            }
            Response::SettingsChanged(settings) => {
                Kind::SettingsChanged(quorate::SettingsChanged { settings: Some(settings) })
            }
            Response::LevelRaised { level } => Kind::LevelRaised(quorate::LevelRaised { level }),
            Response::DigestChecked { index } => {
                Kind::DigestChecked(quorate::DigestChecked { index })
            }
            Response::Coordinator(outcome) => Kind::Coordinator(outcome),
            Response::TimeSet { at_ms, clipped, more } => {
                Kind::TimeSet(quorate::TimeSet { at_ms, clipped, more })
            }
            Response::Deferred(_) => Kind::Rejection(Rejection::OutcomeTooLarge.into_wire()),
        }
    }

    fn from_wire(kind: quorate::outcome::Kind) -> Option<Outcome> {
        use quorate::outcome::Kind;
        let response = match kind {
            Kind::Rejection(rejection) => return Some(Err(Rejection::from_wire(rejection)?)),
            Kind::Put(response) => Response::Put(response),
            Kind::DeleteRange(response) => Response::DeleteRange(response),
            Kind::Txn(response) => Response::Txn(response),
            Kind::Compact(response) => Response::Compact(response),
            Kind::LeaseGrant(response) => Response::LeaseGrant(response),
            Kind::LeaseRevoke(response) => Response::LeaseRevoke(response),
            Kind::LeasesExpired(expired) => {
                Response::LeasesExpired { ids: expired.ids, revision: expired.revision }
            }
            Kind::Alarm(response) => Response::Alarm(response),
            Kind::OriginRegistered(registered) => {
                Response::OriginRegistered { epoch: registered.epoch }
            }
            Kind::SettingsChanged(changed) => Response::SettingsChanged(changed.settings?),
            Kind::LevelRaised(raised) => Response::LevelRaised { level: raised.level },
            Kind::DigestChecked(checked) => Response::DigestChecked { index: checked.index },
            Kind::Coordinator(outcome) => Response::Coordinator(outcome),
            Kind::TimeSet(quorate::TimeSet { at_ms, clipped, more }) => {
                Response::TimeSet { at_ms, clipped, more }
            }
        };
        Some(Ok(response))
    }
}

/// The stored and forwarded form of an outcome.
pub fn outcome_to_wire(outcome: Outcome) -> quorate::Outcome {
    let kind = match outcome {
        Ok(response) => response.into_wire(),
        Err(rejection) => quorate::outcome::Kind::Rejection(rejection.into_wire()),
    };
    quorate::Outcome { kind: Some(kind) }
}

/// `None`: written by a newer binary.
pub fn outcome_from_wire(outcome: quorate::Outcome) -> Option<Outcome> {
    Response::from_wire(outcome.kind?)
}

impl Rejection {
    fn into_wire(self) -> quorate::Rejection {
        let (code, facts, text): (u32, Vec<i64>, String) = match self {
            Rejection::EmptyKey => (1, vec![], String::new()),
            Rejection::ValueProvided => (2, vec![], String::new()),
            Rejection::LeaseProvided { lease } => (3, vec![lease], String::new()),
            Rejection::TooManyOperations { given, limit } => {
                (4, vec![given.cast_signed(), limit.cast_signed()], String::new())
            }
            Rejection::DuplicateKey { key } => (5, vec![], key),
            Rejection::EmptyOperation => (6, vec![], String::new()),
            Rejection::KeyNotFound => (7, vec![], String::new()),
            Rejection::UnknownOption { value } => (8, vec![value], String::new()),
            Rejection::Compacted { requested, compacted } => {
                (9, vec![requested, compacted], String::new())
            }
            Rejection::FutureRevision { requested, current } => {
                (10, vec![requested, current], String::new())
            }
            Rejection::LeaseNotFound { id } => (11, vec![id], String::new()),
            Rejection::LeaseExists { id } => (12, vec![id], String::new()),
            Rejection::LeaseIdMissing => (13, vec![], String::new()),
            Rejection::LeaseTtlTooLarge { ttl_s, limit_s } => {
                (14, vec![ttl_s, limit_s], String::new())
            }
            Rejection::NoSpace { size_bytes, quota_bytes } => {
                (15, vec![size_bytes.cast_signed(), quota_bytes.cast_signed()], String::new())
            }
            Rejection::Corrupt => (16, vec![], String::new()),
            Rejection::StaleFence { term, node } => {
                (17, vec![term.cast_signed(), node.cast_signed()], String::new())
            }
            Rejection::StaleRequest => (18, vec![], String::new()),
            Rejection::OutcomeTooLarge => (19, vec![], String::new()),
            Rejection::InvalidSetting { name, value } => (20, vec![], format!("{name}\n{value}")),
            Rejection::UnknownAlarm { alarm, action } => (21, vec![alarm, action], String::new()),
            Rejection::UnreadableRun { level } => (22, vec![i64::from(level)], String::new()),
            Rejection::TooCostly { bound } => {
                let nth = CostBound::ALL.iter().position(|known| *known == bound);
                (23, vec![nth.map_or(-1, |nth| nth as i64)], String::new())
            }
            Rejection::Coordinator(refusal) => return refusal.into_wire(),
        };
        quorate::Rejection { code, facts, text }
    }

    fn from_wire(wire: quorate::Rejection) -> Option<Rejection> {
        let fact = |position: usize| wire.facts.get(position).copied();
        let count = |position: usize| fact(position).map(i64::cast_unsigned);
        Some(match wire.code {
            1 => Rejection::EmptyKey,
            2 => Rejection::ValueProvided,
            3 => Rejection::LeaseProvided { lease: fact(0)? },
            4 => Rejection::TooManyOperations { given: count(0)?, limit: count(1)? },
            5 => Rejection::DuplicateKey { key: wire.text },
            6 => Rejection::EmptyOperation,
            7 => Rejection::KeyNotFound,
            8 => Rejection::UnknownOption { value: fact(0)? },
            9 => Rejection::Compacted { requested: fact(0)?, compacted: fact(1)? },
            10 => Rejection::FutureRevision { requested: fact(0)?, current: fact(1)? },
            11 => Rejection::LeaseNotFound { id: fact(0)? },
            12 => Rejection::LeaseExists { id: fact(0)? },
            13 => Rejection::LeaseIdMissing,
            14 => Rejection::LeaseTtlTooLarge { ttl_s: fact(0)?, limit_s: fact(1)? },
            15 => Rejection::NoSpace { size_bytes: count(0)?, quota_bytes: count(1)? },
            16 => Rejection::Corrupt,
            17 => Rejection::StaleFence { term: count(0)?, node: count(1)? },
            18 => Rejection::StaleRequest,
            19 => Rejection::OutcomeTooLarge,
            20 => {
                let (name, value) = wire.text.split_once('\n')?;
                Rejection::InvalidSetting { name: name.to_owned(), value: value.to_owned() }
            }
            21 => Rejection::UnknownAlarm { alarm: fact(0)?, action: fact(1)? },
            22 => Rejection::UnreadableRun { level: u32::try_from(fact(0)?).ok()? },
            23 => {
                let nth = usize::try_from(fact(0)?).ok()?;
                Rejection::TooCostly { bound: *CostBound::ALL.get(nth)? }
            }
            code => Rejection::Coordinator(Refusal::from_wire(code, &wire.facts, wire.text)?),
        })
    }
}
