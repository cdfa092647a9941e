//! Alarms: replicated facts that make every member refuse writes.

use std::collections::BTreeSet;

use proto::etcd;

use crate::response::Rejection;
use crate::store::{Fault, StateRead};
use crate::table;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is used up: what grows the keyspace is refused.
    NoSpace,
    /// Replicas differ: all writes of keys and leases are refused.
    Corrupt,
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
    pub(crate) fn parse(request: &etcd::AlarmRequest) -> Result<AlarmOrder, Rejection> {
        let unknown = || Rejection::UnknownAlarm {
            alarm: i64::from(request.alarm),
            action: i64::from(request.action),
        };
        let action = etcd::alarm_request::AlarmAction::try_from(request.action)
            .map_err(|_number| unknown())?;
        let alarm = etcd::AlarmType::try_from(request.alarm).map_err(|_number| unknown())?;
        let kind = match alarm {
            etcd::AlarmType::None => None,
            etcd::AlarmType::Nospace => Some(AlarmKind::NoSpace),
            etcd::AlarmType::Corrupt => Some(AlarmKind::Corrupt),
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
        let alarm = match self.kind {
            AlarmKind::NoSpace => etcd::AlarmType::Nospace,
            AlarmKind::Corrupt => etcd::AlarmType::Corrupt,
        };
        etcd::AlarmMember { member_id: self.member, alarm: i32::from(alarm) }
    }

    pub(crate) fn row_key(self) -> [u8; 10] {
        let kind = match self.kind {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
        };
        table::domain::alarm(kind, self.member)
    }

    fn from_row_key(key: &[u8]) -> Result<Alarm, Fault> {
        let (kind, member) =
            key.split_first().ok_or_else(|| table::domain::corrupt("alarm has no kind"))?;
        let kind = match kind {
            1 => AlarmKind::NoSpace,
            2 => AlarmKind::Corrupt,
            other => return Err(table::domain::corrupt(&format!("alarm of kind {other}"))),
        };
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
