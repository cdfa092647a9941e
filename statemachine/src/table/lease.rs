//! Table `lease`: id (8 bytes, big endian) -> granted time to live in seconds (8, big endian),
//! 0 once it has ended while keys of it are left.

use std::ops::ControlFlow;

use crate::store::{Changes, Direction, Fault, StateRead, Table};

pub(crate) fn put(changes: &mut Changes, id: i64, ttl_s: i64) {
    changes.put(Table::Lease, &id.to_be_bytes(), &ttl_s.to_be_bytes());
}

pub(crate) fn delete(changes: &mut Changes, id: i64) {
    changes.delete(Table::Lease, &id.to_be_bytes());
}

pub(crate) fn scan(store: &dyn StateRead, visit: &mut dyn FnMut(i64, i64)) -> Result<(), Fault> {
    store.scan(Table::Lease, &[], None, Direction::Forward, &mut |row_key, row| {
        let (Ok(id), Ok(ttl_s)) = (row_key.try_into(), row.try_into()) else {
            let reason = "key or row is not eight bytes long".to_owned();
            return Err(Fault::Corrupt { table: Table::Lease.name(), reason });
        };
        visit(i64::from_be_bytes(id), i64::from_be_bytes(ttl_s));
        Ok(ControlFlow::Continue(()))
    })
}
