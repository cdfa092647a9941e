//! Rows that may turn out not to be what their key promises.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// What a key of a view holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row<T> {
    Decoded(T),
    Undecodable(Box<Undecodable>),
}

/// Why a value is no row. Typed commands on it are rejected until somebody puts it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Revision of the put.
    pub revision: i64,
    pub reason: String,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "undecodable since revision {}: {}", self.revision, self.reason)
    }
}

impl<T> Row<T> {
    pub fn from_result(result: Result<T, String>, revision: i64) -> Row<T> {
        match result {
            Ok(value) => Row::Decoded(value),
            Err(reason) => Row::Undecodable(Box::new(Undecodable { revision, reason })),
        }
    }

    pub fn decoded(&self) -> Option<&T> {
        match self {
            Row::Decoded(value) => Some(value),
            Row::Undecodable(_) => None,
        }
    }

    pub fn undecodable(&self) -> Option<&Undecodable> {
        match self {
            Row::Decoded(_) => None,
            Row::Undecodable(why) => Some(why),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Row<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Row::Decoded(value) => value.fmt(out),
            Row::Undecodable(why) => why.fmt(out),
        }
    }
}

/// Rows by key, with the number of those that do not decode.
#[derive(Debug, PartialEq, Eq)]
pub struct Rows<K, T> {
    rows: BTreeMap<K, Row<T>>,
    undecodable: usize,
}

impl<K, T> Default for Rows<K, T> {
    fn default() -> Rows<K, T> {
        Rows { rows: BTreeMap::new(), undecodable: 0 }
    }
}

impl<K: Ord, T> Rows<K, T> {
    /// Puts a row and returns the one that it replaces.
    pub fn put(&mut self, key: K, row: Row<T>) -> Option<Row<T>> {
        self.undecodable += usize::from(row.decoded().is_none());
        let old = match self.rows.entry(key) {
            Entry::Occupied(mut entry) => Some(entry.insert(row)),
            Entry::Vacant(entry) => {
                entry.insert(row);
                None
            }
        };
        self.forget(old.as_ref());
        old
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<Row<T>>
    where
        K: Borrow<Q>,
    {
        let old = self.rows.remove(key);
        self.forget(old.as_ref());
        old
    }

    fn forget(&mut self, old: Option<&Row<T>>) {
        self.undecodable -= usize::from(old.is_some_and(|row| row.decoded().is_none()));
    }

    /// The row, where there is one and it decodes.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key).and_then(Row::decoded)
    }

    pub fn row<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Row<T>>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &Row<T>)> {
        self.rows.iter()
    }

    /// The rows that decode, in key order.
    pub fn decoded(&self) -> impl Iterator<Item = (&K, &T)> {
        self.rows.iter().filter_map(|(key, row)| Some((key, row.decoded()?)))
    }

    pub fn range<Q: Ord + ?Sized, R: std::ops::RangeBounds<Q>>(
        &self,
        range: R,
    ) -> impl DoubleEndedIterator<Item = (&K, &Row<T>)>
    where
        K: Borrow<Q>,
    {
        self.rows.range(range)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn undecodable(&self) -> usize {
        self.undecodable
    }

    /// Why the rows that do not decode do not. Walks all rows unless all are fine.
    pub fn troubles(&self) -> impl Iterator<Item = (&K, &Undecodable)> {
        let rows = if self.undecodable == 0 { None } else { Some(self.rows.iter()) };
        rows.into_iter().flatten().filter_map(|(key, row)| Some((key, row.undecodable()?)))
    }
}
