//! Table `domain`: rows that are not part of the keyspace. The first byte says whose they are.
//!
//! | key | value |
//! |---|---|
//! | `a` alarm (1) member (8) | empty |
//! | `o` origin (8) | epoch (8), floor (8), nonce (8) |
//! | `r` origin (8) first seq (8) | outcomes, see `origin` |
//! | `s` | `quorate.v1.Settings` |
//!
//! Numbers are big endian.

use std::ops::ControlFlow;

use crate::store::{Direction, Fault, StateRead, Table};

pub(crate) const SETTINGS: &[u8] = b"s";

pub(crate) fn alarm(kind: u8, member: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[0] = b'a';
    key[1] = kind;
    key[2..].copy_from_slice(&member.to_be_bytes());
    key
}

pub(crate) fn origin(origin: u64) -> [u8; 9] {
    let mut key = [0; 9];
    key[0] = b'o';
    key[1..].copy_from_slice(&origin.to_be_bytes());
    key
}

pub(crate) fn outcomes(origin: u64, first_seq: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[0] = b'r';
    key[1..9].copy_from_slice(&origin.to_be_bytes());
    key[9..].copy_from_slice(&first_seq.to_be_bytes());
    key
}

pub(crate) type VisitRow<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Fault> + 'a;

/// Visits the rows whose key begins with `kind`; the visitor gets the key without it.
pub(crate) fn scan(store: &dyn StateRead, kind: u8, visit: &mut VisitRow<'_>) -> Result<(), Fault> {
    let end = [kind + 1];
    store.scan(Table::Domain, &[kind], Some(&end), Direction::Forward, &mut |row_key, row| {
        visit(&row_key[1..], row)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// Cuts a key or row into big endian words.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> Result<[u64; N], Fault> {
    if bytes.len() != N * 8 {
        return Err(corrupt("key or row has a wrong length"));
    }
    Ok(std::array::from_fn(|nth| {
        u64::from_be_bytes(bytes[nth * 8..nth * 8 + 8].try_into().expect("length was checked"))
    }))
}

pub(crate) fn corrupt(reason: &str) -> Fault {
    Fault::Corrupt { table: Table::Domain.name(), reason: reason.to_owned() }
}
