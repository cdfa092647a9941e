//! Making the state of one cluster the beginning of another: restoring a backup.

use crate::alarm::Alarms;
use crate::origin::Origins;
use crate::state::counters::Counters;
use crate::store::{Changes, Fault, StateRead, Table};
use crate::table;

/// What has to change in a copied state so that a new cluster can go on from it at log index 0:
/// everything goes that names the old cluster's nodes or log. Keys, leases, settings and revisions
/// stay, and so does the content digest.
///
/// # Errors
/// A fault of the storage.
pub fn into_new_cluster(store: &dyn StateRead) -> Result<Changes, Fault> {
    let mut changes = Changes::default();
    for (node, origin) in Origins::load(store)?.iter() {
        origin.delete_rows(node, &mut changes);
    }
    for alarm in Alarms::load(store)?.iter() {
        changes.delete(Table::Domain, &alarm.row_key());
    }
    let Some(mut counters) = table::meta::counters(store)? else { return Ok(changes) };
    counters.last_index = 0;
    counters.digests.chain = Counters::fresh().digests.chain;
    table::meta::put_counters(&mut changes, &counters);
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use crate::testkit::Machine;

    #[test]
    fn a_transplanted_state_keeps_its_content_and_takes_entries_from_the_first_on() {
        let mut old = Machine::new();
        old.script("grant 5 60\n put a 1 lease=5\n put b 1\n del b\n compact 3");
        let alarm = proto::etcd::AlarmRequest { action: 1, member_id: 3, alarm: 1 };
        old.run(proto::quorate::command::Kind::Alarm(alarm)).unwrap();
        let mut new = Machine::new();
        new.store = old.store.clone();
        let changes = into_new_cluster(&new.store).unwrap();
        new.store.apply(&changes);
        new.state = State::load(&new.store).unwrap();
        assert_eq!(new.state.digests().content, old.state.digests().content);
        assert_eq!(new.state.revision(), old.state.revision());
        assert_eq!((new.state.origins().count(), new.state.alarms().count()), (0, 0));
        new.index = 1;
        new.register(9);
        assert_eq!(new.epoch, 1);
        new.script("put c 1");
        new.check();
        assert_eq!(new.state.revision(), 5);
        assert_eq!(new.state.lease(5).unwrap().keys.len(), 1);
    }
}
