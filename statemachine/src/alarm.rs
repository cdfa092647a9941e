//! Alarms: replicated facts that an operator must see. Those of etcd make every member refuse writes.

use std::collections::BTreeSet;

use proto::etcd;

use crate::response::Rejection;
use crate::store::{Fault, StateRead};
use crate::{table, versions};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is used up: what grows the keyspace is refused.
    NoSpace,
    /// Replicas differ: all writes of keys and leases are refused.
    Corrupt,
    /// The log holds a run that was refused because it could not be understood. Blocks nothing.
    Unreadable,
}

impl AlarmKind {
    const ALL: [AlarmKind; 3] = [AlarmKind::NoSpace, AlarmKind::Corrupt, AlarmKind::Unreadable];

    /// Its number on the wire and in its row. etcd's own kinds have the numbers of etcd, ours begin
    /// at 100.
    fn number(self) -> u8 {
        match self {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
            AlarmKind::Unreadable => 100,
        }
    }

    /// The first feature level at which commands may name it.
    fn since(self) -> u32 {
        match self {
            AlarmKind::NoSpace | AlarmKind::Corrupt => versions::KEYSPACE,
            AlarmKind::Unreadable => versions::HARDENING,
        }
    }

    /// Whether etcd has it. Others are listed only for who asks by number: clients of etcd may not
    /// bear a kind that they do not know.
    pub fn is_of_etcd(self) -> bool {
        match self {
            AlarmKind::NoSpace | AlarmKind::Corrupt => true,
            AlarmKind::Unreadable => false,
        }
    }

    fn from_number(number: i32) -> Option<AlarmKind> {
        AlarmKind::ALL.into_iter().find(|kind| i32::from(kind.number()) == number)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    pub kind: AlarmKind,
    pub member: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    raised: BTreeSet<Alarm>,
}

/// What an alarm request asks for, its numbers understood.
pub(crate) enum AlarmOrder {
    List(Option<AlarmKind>),
    Raise(Alarm),
    Clear(Alarm),
    Nothing,
}

impl AlarmOrder {
    /// `level`: kinds that a higher one brings are not known.
    pub(crate) fn parse(request: &etcd::AlarmRequest, level: u32) -> Result<AlarmOrder, Rejection> {
        let unknown = || Rejection::UnknownAlarm {
            alarm: i64::from(request.alarm),
            action: i64::from(request.action),
        };
        let action = etcd::alarm_request::AlarmAction::try_from(request.action)
            .map_err(|_number| unknown())?;
        let kind = match request.alarm {
            0 => None,
            number => Some(
                AlarmKind::from_number(number)
                    .filter(|kind| kind.since() <= level)
                    .ok_or_else(unknown)?,
            ),
        };
        let alarm = kind.map(|kind| Alarm { kind, member: request.member_id });
        Ok(match (action, alarm) {
            (etcd::alarm_request::AlarmAction::Get, _) => AlarmOrder::List(kind),
            (_, None) => AlarmOrder::Nothing,
            (etcd::alarm_request::AlarmAction::Activate, Some(alarm)) => AlarmOrder::Raise(alarm),
            (etcd::alarm_request::AlarmAction::Deactivate, Some(alarm)) => AlarmOrder::Clear(alarm),
        })
    }
}

impl Alarm {
    pub fn to_wire(self) -> etcd::AlarmMember {
        etcd::AlarmMember { member_id: self.member, alarm: i32::from(self.kind.number()) }
    }

    pub(crate) fn row_key(self) -> [u8; 10] {
        table::domain::alarm(self.kind.number(), self.member)
    }

    fn from_row_key(key: &[u8]) -> Result<Alarm, Fault> {
        let (kind, member) =
            key.split_first().ok_or_else(|| table::domain::corrupt("alarm has no kind"))?;
        let kind = AlarmKind::from_number(i32::from(*kind))
            .ok_or_else(|| table::domain::corrupt(&format!("alarm of kind {kind}")))?;
        let [member] = table::domain::words(member)?;
        Ok(Alarm { kind, member })
    }
}

impl Alarms {
    pub(crate) fn load(store: &dyn StateRead) -> Result<Alarms, Fault> {
        let mut alarms = Alarms::default();
        table::domain::scan(store, b'a', &mut |key, _row| {
            alarms.raised.insert(Alarm::from_row_key(key)?);
            Ok(())
        })?;
        Ok(alarms)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Alarm> {
        self.raised.iter().copied()
    }

    pub(crate) fn is_raised(&self, kind: AlarmKind) -> bool {
        self.raised.iter().any(|alarm| alarm.kind == kind)
    }

    /// Whether it was not raised before.
    pub(crate) fn raise(&mut self, alarm: Alarm) -> bool {
        self.raised.insert(alarm)
    }

    /// Whether it was raised before.
    pub(crate) fn clear(&mut self, alarm: Alarm) -> bool {
        self.raised.remove(&alarm)
    }
}
