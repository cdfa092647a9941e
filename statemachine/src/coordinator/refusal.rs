//! Why the coordinator refuses: facts, equal on every node. `server` makes Milvus's codes of them.

use proto::quorate;

/// Codes on the wire begin here; below are those of etcd's operations.
const FIRST_CODE: u32 = 100;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the coordinator's role is off")]
    RoleOff,
    #[error("key {key} is written by the coordinator only")]
    Owned { key: String },
    #[error("key {key} holds no record: {reason}")]
    Undecodable { key: String, reason: String },
    #[error("segment {segment} is not known")]
    UnknownSegment { segment: i64 },
    #[error("segment {segment} exists")]
    SegmentExists { segment: i64 },
    /// `state` is the number of `common.SegmentState`.
    #[error("segment {segment} is in state {state}, which does not allow that")]
    SegmentState { segment: i64, state: i64 },
    #[error("segment {segment} has rows, or may have")]
    HasRows { segment: i64 },
    #[error("segment {segment} belongs to another channel than {channel}")]
    OtherChannel { segment: i64, channel: String },
    #[error("channel {channel} is not known")]
    UnknownChannel { channel: String },
    #[error("channel {channel} does not belong to node {node}")]
    NotOwner { node: i64, channel: String },
    #[error("channel {channel} changed meanwhile: epoch {epoch}, key revision {revision}")]
    ChannelChanged { epoch: i64, revision: i64, channel: String },
    #[error("index {index} is not known")]
    UnknownIndex { index: i64 },
    /// The text is Milvus's own.
    #[error("{reason}")]
    IndexConflict { reason: String },
    #[error("build {build} is not known")]
    UnknownBuild { build: i64 },
    #[error("build {build} is at attempt {version}, not at {expected}")]
    StaleBuild { build: i64, version: i64, expected: i64 },
    #[error("compaction plan {plan} is not known")]
    UnknownPlan { plan: i64 },
    #[error("compaction plan {plan} exists")]
    PlanExists { plan: i64 },
    /// `state` is the number of `quorate.CompactionState`.
    #[error("compaction plan {plan} is in state {state}, which does not allow that")]
    PlanState { plan: i64, state: i64 },
    #[error("segment {segment} cannot be an input of plan {plan}")]
    BadInput { plan: i64, segment: i64 },
    #[error("delta logs of plan {plan} are not all carried over")]
    DeltasDiffer { plan: i64 },
    #[error("build {build} is already there")]
    BuildExists { build: i64 },
    /// `state` is the number of `common.IndexState`.
    #[error("build {build} is in state {state}, which does not allow that")]
    BuildState { build: i64, state: i64 },
    #[error("build {build} is still of use")]
    BuildInUse { build: i64 },
    #[error("index {index} is not marked deleted")]
    IndexInUse { index: i64 },
    #[error("{field} cannot be {value}: {reason}")]
    Invalid { field: String, value: String, reason: String },
}

impl Refusal {
    /// An area without a command: of a newer binary, or of none.
    pub(crate) fn unknown_command(area: &str) -> Refusal {
        Refusal::Invalid {
            field: area.to_owned(),
            value: "no command".to_owned(),
            reason: "this version does not know it".to_owned(),
        }
    }

    pub(crate) fn into_wire(self) -> quorate::Rejection {
        let none = String::new;
        let (nth, facts, text): (u32, Vec<i64>, String) = match self {
            Refusal::RoleOff => (0, vec![], none()),
            Refusal::Owned { key } => (1, vec![], key),
            Refusal::Undecodable { key, reason } => (2, vec![], format!("{key}\n{reason}")),
            Refusal::UnknownSegment { segment } => (3, vec![segment], none()),
            Refusal::SegmentExists { segment } => (4, vec![segment], none()),
            Refusal::SegmentState { segment, state } => (5, vec![segment, state], none()),
            Refusal::HasRows { segment } => (6, vec![segment], none()),
            Refusal::OtherChannel { segment, channel } => (7, vec![segment], channel),
            Refusal::UnknownChannel { channel } => (8, vec![], channel),
            Refusal::NotOwner { node, channel } => (9, vec![node], channel),
            Refusal::ChannelChanged { epoch, revision, channel } => {
                (10, vec![epoch, revision], channel)
            }
            Refusal::UnknownIndex { index } => (11, vec![index], none()),
            Refusal::IndexConflict { reason } => (12, vec![], reason),
            Refusal::UnknownBuild { build } => (13, vec![build], none()),
            Refusal::StaleBuild { build, version, expected } => {
                (14, vec![build, version, expected], none())
            }
            Refusal::UnknownPlan { plan } => (15, vec![plan], none()),
            Refusal::PlanExists { plan } => (16, vec![plan], none()),
            Refusal::PlanState { plan, state } => (17, vec![plan, state], none()),
            Refusal::BadInput { plan, segment } => (18, vec![plan, segment], none()),
            Refusal::DeltasDiffer { plan } => (19, vec![plan], none()),
            Refusal::Invalid { field, value, reason } => {
                (20, vec![], format!("{field}\n{value}\n{reason}"))
            }
            Refusal::BuildExists { build } => (40, vec![build], none()),
            Refusal::BuildState { build, state } => (41, vec![build, state], none()),
            Refusal::BuildInUse { build } => (42, vec![build], none()),
            Refusal::IndexInUse { index } => (43, vec![index], none()),
        };
        quorate::Rejection { code: FIRST_CODE + nth, facts, text }
    }

    /// `None`: of a newer binary.
    pub fn from_wire(code: u32, facts: &[i64], text: String) -> Option<Refusal> {
        let fact = |position: usize| facts.get(position).copied();
        Some(match code.checked_sub(FIRST_CODE)? {
            0 => Refusal::RoleOff,
            1 => Refusal::Owned { key: text },
            2 => {
                let (key, reason) = text.split_once('\n')?;
                Refusal::Undecodable { key: key.to_owned(), reason: reason.to_owned() }
            }
            3 => Refusal::UnknownSegment { segment: fact(0)? },
            4 => Refusal::SegmentExists { segment: fact(0)? },
            5 => Refusal::SegmentState { segment: fact(0)?, state: fact(1)? },
            6 => Refusal::HasRows { segment: fact(0)? },
            7 => Refusal::OtherChannel { segment: fact(0)?, channel: text },
            8 => Refusal::UnknownChannel { channel: text },
            9 => Refusal::NotOwner { node: fact(0)?, channel: text },
            10 => Refusal::ChannelChanged { epoch: fact(0)?, revision: fact(1)?, channel: text },
            11 => Refusal::UnknownIndex { index: fact(0)? },
            12 => Refusal::IndexConflict { reason: text },
            13 => Refusal::UnknownBuild { build: fact(0)? },
            14 => Refusal::StaleBuild { build: fact(0)?, version: fact(1)?, expected: fact(2)? },
            15 => Refusal::UnknownPlan { plan: fact(0)? },
            16 => Refusal::PlanExists { plan: fact(0)? },
            17 => Refusal::PlanState { plan: fact(0)?, state: fact(1)? },
            18 => Refusal::BadInput { plan: fact(0)?, segment: fact(1)? },
            19 => Refusal::DeltasDiffer { plan: fact(0)? },
            20 => {
                let mut parts = text.splitn(3, '\n').map(str::to_owned);
                Refusal::Invalid {
                    field: parts.next()?,
                    value: parts.next()?,
                    reason: parts.next()?,
                }
            }
            40 => Refusal::BuildExists { build: fact(0)? },
            41 => Refusal::BuildState { build: fact(0)?, state: fact(1)? },
            42 => Refusal::BuildInUse { build: fact(0)? },
            43 => Refusal::IndexInUse { index: fact(0)? },
            _ => return None,
        })
    }

    /// Of one thing of a command on many.
    pub fn of_item(item: &quorate::RefusedItem) -> Option<Refusal> {
        Refusal::from_wire(item.code, &item.facts, item.text.clone())
    }
}
