//! Making the state of one cluster the beginning of another: restoring a backup.

use crate::alarm::Alarms;
use crate::digest;
use crate::origin::{OriginDraft, Origins};
use crate::settings::Settings;
use crate::store::{Changes, Fault, StateRead, Table};
use crate::table;

/// What has to change in a copied state before a new cluster goes on from it.
///
/// - Everything goes that names the old cluster's nodes: origins and alarms.
/// - Revisions go on `revision_bump` further, and all up to there is compacted. The old cluster may
///   have given out revisions after the backup; clients that know some would otherwise see other
///   changes under the same numbers. So they get an error that makes them read again. 0 leaves the
///   revisions as they are.
/// - Garbage collection is held back: files that were written after the backup are named by no
///   record of it.
///
/// Keys, leases and the other settings stay.
///
/// # Errors
/// A fault of the storage, live rows that differ from the content digest, or revisions that would
/// overflow.
pub fn into_new_cluster(store: &dyn StateRead, revision_bump: i64) -> Result<Changes, Fault> {
    let mut changes = Changes::default();
    for (node, origin) in Origins::load(store)?.iter() {
        let mut draft = OriginDraft::of(node, Some(origin));
        draft.delete_rows(Some(origin), &mut changes);
    }
    for alarm in Alarms::load(store)?.iter() {
        changes.delete(Table::Domain, &alarm.row_key());
    }
    let Some(mut counters) = table::meta::counters(store)? else { return Ok(changes) };
    let content = digest::recompute(store)?;
    if content != counters.digests.content {
        let reason = "the live rows differ from the content digest that belongs to them";
        return Err(Fault::Invariant(reason.to_owned()));
    }
    if revision_bump > 0 {
        let revision = counters.revision.checked_add(revision_bump).ok_or_else(|| {
            Fault::Invariant(format!("revision {} + {revision_bump} overflows", counters.revision))
        })?;
        counters.revision = revision;
        counters.compacted_revision = revision;
        counters.superseded_at_compacted_bytes = counters.superseded_bytes;
    }
    let before = Settings::load(store)?;
    let held = Settings { garbage_held: true, ..before.clone() };
    counters.subtract_content(digest::settings_hash(&before));
    counters.add_content(digest::settings_hash(&held));
    changes.put(Table::Domain, table::domain::SETTINGS, &held.encode());
    table::meta::put_counters(&mut changes, &counters);
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Rejection;
    use crate::state::State;
    use crate::testkit::Machine;

    const BUMP: i64 = 1_000_000;

    fn old() -> Machine {
        let mut old = Machine::new();
        old.script("grant 5 60\n put a 1 lease=5\n put b 1\n del b\n put a 2\n compact 3");
        let alarm = proto::etcd::AlarmRequest { action: 1, member_id: 3, alarm: 1 };
        old.run(proto::quorate::command::Kind::Alarm(alarm)).unwrap();
        old
    }

    fn transplanted(old: &Machine, bump: i64) -> Machine {
        let mut new = Machine::new();
        new.store = old.store.clone();
        let changes = into_new_cluster(&new.store, bump).unwrap();
        new.store.apply(&changes);
        new.state = State::load(&new.store).unwrap();
        new.index = old.index;
        new.check();
        assert_eq!((new.state.origins().count(), new.state.alarms().count()), (0, 0));
        new.register(9);
        new
    }

    fn read(machine: &Machine, revision: i64) -> Result<Vec<proto::etcd::KeyValue>, Rejection> {
        let request = proto::etcd::RangeRequest {
            key: b"a".as_slice().into(),
            range_end: b"z".as_slice().into(),
            revision,
            ..Default::default()
        };
        let plan = machine.state.plan_range(&request)?;
        Ok(plan.fetch(&machine.store).unwrap().kvs)
    }

    #[test]
    fn a_transplanted_state_keeps_its_keys_and_never_gives_out_a_revision_twice() {
        let old = old();
        let mut new = transplanted(&old, BUMP);
        let bumped = old.state.revision() + BUMP;
        assert_eq!(read(&new, 0).unwrap(), read(&old, 0).unwrap());
        assert_eq!((new.state.revision(), new.state.compacted_revision()), (bumped, bumped));
        assert_eq!(new.state.lease(5), old.state.lease(5));
        for seen in [old.state.revision(), old.state.revision() + 1, bumped - 1] {
            let wanted = Rejection::Compacted { requested: seen, compacted: bumped };
            assert_eq!(read(&new, seen), Err(wanted), "its client has to read again");
        }
        new.script("put c 1");
        new.check();
        assert_eq!(new.state.revision(), bumped + 1);
        assert_eq!(read(&new, bumped).unwrap().len(), 1);
        new.compact_rows(2);
        new.script(&format!("put c 2\ncompact {}", bumped + 2));
        new.compact_rows(2);
        new.check();
        assert_eq!(new.state.logical_bytes(), new.state.live_bytes());
    }

    #[test]
    fn without_a_bump_history_stays() {
        let old = old();
        let new = transplanted(&old, 0);
        assert_eq!(new.state.revision(), old.state.revision());
        assert_eq!(read(&new, 4).unwrap(), read(&old, 4).unwrap());
        assert!(new.state.settings().garbage_held);
    }

    #[test]
    fn rows_that_differ_from_their_digest_are_refused() {
        let mut old = old();
        old.store.rows_mut(Table::Lease).clear();
        assert!(into_new_cluster(&old.store, BUMP).is_err());
    }
}
