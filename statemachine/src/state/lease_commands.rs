//! Commands on leases. The keys of a lease go in the revision that it ends in, unless they are too
//! many for one step of apply: then the lease is marked ended and its keys go in pieces.

use proto::{etcd, quorate};

use crate::lease::ENDED_TTL_S;
use crate::limits;
use crate::response::{Outcome, Rejection, Response};
use crate::state::chunk::Chunk;
use crate::state::draft::{Alone, Draft};

impl Chunk<'_> {
    pub(crate) fn lease_grant(&mut self, request: &etcd::LeaseGrantRequest) -> Outcome {
        if self.lease(request.id).is_some() {
            return Err(Rejection::LeaseExists { id: request.id });
        }
        let ttl_s = request.ttl.max(1);
        self.grant_lease(request.id, ttl_s);
        Ok(Response::LeaseGrant(etcd::LeaseGrantResponse {
            header: Response::header(self.counters.revision),
            id: request.id,
            ttl: ttl_s,
            error: String::new(),
        }))
    }

    pub(crate) fn lease_revoke(&mut self, request: &etcd::LeaseRevokeRequest) -> Outcome {
        if self.lease_ttl_s(request.id).is_none() {
            return Err(Rejection::LeaseNotFound { id: request.id });
        }
        let mut keys_left = limits::LEASE_KEYS_PER_STEP_MAX;
        self.end_lease(request.id, &mut keys_left);
        let header = Response::header(self.counters.revision);
        Ok(Response::LeaseRevoke(etcd::LeaseRevokeResponse { header }))
    }

    /// Leases that are gone already are passed over: a revocation may have come first. The keys of
    /// those that are marked ended go on going.
    pub(crate) fn expire_leases(&mut self, request: &quorate::ExpireLeases) -> Response {
        let mut keys_left = limits::LEASE_KEYS_PER_STEP_MAX;
        let ids = request.ids.iter().copied();
        let ids = ids.filter(|id| self.end_lease(*id, &mut keys_left)).collect();
        Response::LeasesExpired { ids, revision: self.counters.revision }
    }

    /// Ends a lease, and deletes its keys in one revision while `keys_left` lasts. Whether it was
    /// there and is gone now.
    ///
    /// A lease that fits one step is never cut: it waits for the next one, marked.
    fn end_lease(&mut self, id: i64, keys_left: &mut usize) -> bool {
        let Some(ttl_s) = self.lease(id) else { return false };
        let keys_max = limits::LEASE_KEYS_PER_STEP_MAX;
        let mut keys = self.lease_keys(id, keys_max + 1);
        let is_last = keys.len() <= *keys_left;
        if !is_last && keys.len() <= keys_max {
            keys.clear();
        }
        let mut draft = Draft::new(self);
        for key in keys.into_iter().take(*keys_left) {
            *keys_left -= 1;
            let found = draft.get(&key).expect("a key that hangs on a lease lives");
            draft.delete(key, found.meta, Alone::Yes);
        }
        let writes = draft.into_writes();
        self.absorb(writes);
        if is_last {
            self.drop_lease(id, ttl_s);
        } else if ttl_s != ENDED_TTL_S {
            self.mark_lease_ended(id, ttl_s);
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use proto::quorate::command::Kind;

    use super::*;
    use crate::LeaseChange;
    use crate::state::State;
    use crate::testkit::Machine;

    const MAX: usize = limits::LEASE_KEYS_PER_STEP_MAX;

    fn attach(machine: &mut Machine, lease: i64, n_keys: usize) {
        let put = |n: usize| {
            let key = format!("{lease}/{n:06}").into();
            Kind::Put(etcd::PutRequest { key, lease, ..Default::default() })
        };
        let puts: Vec<Kind> = (0..n_keys).map(put).collect();
        for run in puts.chunks(limits::RUN_COMMANDS_MAX) {
            assert!(machine.run_all(run.to_vec()).iter().all(Result::is_ok));
        }
    }

    fn expire(machine: &mut Machine, ids: &[i64]) -> Vec<i64> {
        let expire = Kind::ExpireLeases(quorate::ExpireLeases { ids: ids.to_vec() });
        match machine.run(expire) {
            Ok(Response::LeasesExpired { ids, .. }) => ids,
            outcome => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn a_lease_with_many_keys_ends_at_once_and_its_keys_go_in_pieces() {
        let mut machine = Machine::new();
        machine.script("grant 7 60\n put free 1");
        attach(&mut machine, 7, 2 * MAX + 5);
        let n_keys = |machine: &Machine| machine.state.n_keys();
        let revision = machine.state.revision();
        let told = machine.script("revoke 7\n put x 1 lease=7\n revoke 7\n grant 7 60");
        expect_test::expect![[r#"
            revoke 7
              r20008 revoked
            put x 1 lease=7
              refused: lease 7 does not exist
            revoke 7
              refused: lease 7 does not exist
            grant 7 60
              refused: lease 7 exists already
        "#]]
        .assert_eq(&told);
        assert_eq!((machine.state.revision(), n_keys(&machine)), (revision + 1, MAX + 6));
        assert!(machine.state.lease(7).is_none() && machine.state.leases().next().is_none());
        assert_eq!(machine.state.ending_leases().collect::<Vec<_>>(), [7]);
        machine.check();

        // A state that is loaded in between goes on.
        machine.state = State::load(&machine.store).unwrap();
        assert_eq!(machine.state.ending_leases().collect::<Vec<_>>(), [7]);
        assert!(expire(&mut machine, &[7]).is_empty());
        assert_eq!((machine.state.revision(), n_keys(&machine)), (revision + 2, 6));
        let last = machine.entry(vec![Kind::ExpireLeases(quorate::ExpireLeases { ids: vec![7] })]);
        let applied = machine.apply(&[last]).unwrap();
        assert_eq!(applied.touched.leases, [LeaseChange::Revoked { id: 7 }]);
        assert_eq!((machine.state.revision(), n_keys(&machine)), (revision + 3, 1));
        assert_eq!(machine.state.n_leases(), 0);
        machine.check();
        machine.script("grant 7 60\n put x 1 lease=7");
        machine.check();
    }

    #[test]
    fn leases_that_fit_one_step_together_or_alone_are_never_cut() {
        let mut machine = Machine::new();
        machine.script("grant 1 60\n grant 2 60\n grant 3 60");
        attach(&mut machine, 1, MAX - 1);
        attach(&mut machine, 2, 2);
        attach(&mut machine, 3, 1);
        let revision = machine.state.revision();
        assert_eq!(expire(&mut machine, &[1, 2, 3]), [1, 3]);
        assert_eq!((machine.state.revision(), machine.state.n_keys()), (revision + 2, 2));
        assert_eq!(machine.state.ending_leases().collect::<Vec<_>>(), [2]);
        assert_eq!(expire(&mut machine, &[2]), [2]);
        assert_eq!((machine.state.revision(), machine.state.n_keys()), (revision + 3, 0));
        machine.check();
    }
}
