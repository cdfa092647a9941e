//! View of RootCoord's catalogue: databases, collections, partitions, fields, aliases.
//!
//! RootCoord keeps the newest state of a thing under a plain key and, in the same transaction, a
//! copy under `snapshots/<key>_ts<timestamp>`. To remove a thing it overwrites both with a
//! tombstone; the keys themselves go up to an hour later. This view is made of the plain keys; of
//! the copies it remembers only that they are there, because a restarted RootCoord loads from them
//! alone: where the two disagree, it will come up with something else than it has now (`drift`).

mod key;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use proto::etcd;

use crate::view::{
    CollectionId, DatabaseId, FieldId, Name, Names, PartitionId, Row, Rows, Undecodable,
};
use key::Located;

pub use key::{AliasKey, CatalogKey, CollectionKey};
pub use record::{Alias, Collection, Database, Embedded, Field, Lifecycle, Partition};

/// RootCoord's mark of a removed thing.
const TOMBSTONE: &[u8] = b"\xE2\x9B\xBC";

/// The whole catalogue.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    databases: Rows<DatabaseId, Database>,
    collections: Rows<CollectionKey, Collection>,
    partitions: Rows<(CollectionId, PartitionId), Partition>,
    fields: Rows<(CollectionId, FieldId), Field>,
    aliases: Rows<AliasKey, Alias>,
    /// Plain keys that hold a tombstone.
    tombstones: BTreeSet<CatalogKey>,
    /// Where a collection's record is. More than one database is a fault of whoever wrote it.
    places: BTreeSet<(CollectionId, Option<DatabaseId>)>,
    /// Collections by database and name, whatever their state.
    by_name: BTreeSet<(DatabaseId, Name, CollectionKey)>,
    /// Copies by timestamp; true is a tombstone.
    copies: BTreeMap<(CatalogKey, u64), bool>,
    /// Keys that RootCoord cannot have written, by revision.
    strays: BTreeMap<Bytes, i64>,
}

impl Catalog {
    pub(crate) const PREFIX: &str = key::ROOT;
    pub(crate) const COPIES_PREFIX: &str = key::COPIES;

    pub(crate) fn put(&mut self, names: &mut Names, key: &[u8], kv: &etcd::KeyValue) {
        let is_tombstone = kv.value == TOMBSTONE;
        match key::locate(key) {
            Located::Plain(key) => {
                if is_tombstone {
                    self.remove(&key);
                    self.tombstones.insert(key);
                } else {
                    self.tombstones.remove(&key);
                    self.insert(names, key, kv);
                }
            }
            Located::Copy(key, timestamp) => {
                self.copies.insert((key, timestamp), is_tombstone);
            }
            Located::Stray => {
                self.strays.insert(Bytes::copy_from_slice(key), kv.mod_revision);
            }
            Located::Elsewhere => {}
        }
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        match key::locate(key) {
            Located::Plain(key) => {
                self.tombstones.remove(&key);
                self.remove(&key);
            }
            Located::Copy(key, timestamp) => {
                self.copies.remove(&(key, timestamp));
            }
            Located::Stray => {
                self.strays.remove(key);
            }
            Located::Elsewhere => {}
        }
    }

    fn insert(&mut self, names: &mut Names, key: CatalogKey, kv: &etcd::KeyValue) {
        let (value, revision) = (&kv.value[..], kv.mod_revision);
        match key {
            CatalogKey::Database(id) => {
                self.databases.put(id, Row::from_result(Database::decode(names, value), revision));
            }
            CatalogKey::Collection(key) => {
                self.remove(&CatalogKey::Collection(key));
                let row = Row::from_result(Collection::decode(names, value), revision);
                self.places.insert((key.collection, key.database));
                if let Some(collection) = row.decoded() {
                    self.by_name.insert(name_entry(key, collection));
                }
                self.collections.put(key, row);
            }
            CatalogKey::Partition(collection, id) => {
                let row = Row::from_result(Partition::decode(names, value), revision);
                self.partitions.put((collection, id), row);
            }
            CatalogKey::Field(collection, id) => {
                let row = Row::from_result(Field::decode(names, value), revision);
                self.fields.put((collection, id), row);
            }
            CatalogKey::Alias(key) => {
                let alias = match key {
                    AliasKey::Of(..) | AliasKey::BeforeDatabases(_) => Alias::decode(value),
                    AliasKey::BeforeAliasInfo(_) => Alias::decode_collection_info(value),
                };
                self.aliases.put(key, Row::from_result(alias, revision));
            }
        }
    }

    fn remove(&mut self, key: &CatalogKey) {
        match key {
            CatalogKey::Database(id) => {
                self.databases.remove(id);
            }
            CatalogKey::Collection(key) => {
                self.places.remove(&(key.collection, key.database));
                if let Some(Row::Decoded(old)) = self.collections.remove(key) {
                    self.by_name.remove(&name_entry(*key, &old));
                }
            }
            CatalogKey::Partition(collection, id) => {
                self.partitions.remove(&(*collection, *id));
            }
            CatalogKey::Field(collection, id) => {
                self.fields.remove(&(*collection, *id));
            }
            CatalogKey::Alias(key) => {
                self.aliases.remove(key);
            }
        }
    }
}

fn name_entry(key: CollectionKey, collection: &Collection) -> (DatabaseId, Name, CollectionKey) {
    (record::home(key.database), collection.name.clone(), key)
}

/// Questions.
impl Catalog {
    pub fn database(&self, id: DatabaseId) -> Option<&Database> {
        self.databases.get(&id)
    }

    pub fn database_by_name(&self, name: &str) -> Option<DatabaseId> {
        let named = |(_, database): &(&DatabaseId, &Database)| &*database.name == name;
        self.databases.decoded().find(named).map(|(id, _)| *id)
    }

    /// A collection in any state, wherever its record is.
    pub fn collection(&self, id: CollectionId) -> Option<(CollectionKey, &Collection)> {
        self.places_of(id).find_map(|key| Some((key, self.collections.get(&key)?)))
    }

    fn places_of(&self, id: CollectionId) -> impl Iterator<Item = CollectionKey> {
        let all = self.places.range((id, None)..);
        all.take_while(move |(collection, _)| *collection == id).map(|(collection, database)| {
            CollectionKey { database: *database, collection: *collection }
        })
    }

    /// The collection that a client means by a name: an alias comes before a name, as RootCoord
    /// has it, and only what is completely created counts.
    pub fn resolve(&self, database: DatabaseId, name: &str) -> Option<CollectionId> {
        let alias = self.alias(database, name).filter(|alias| alias.state == Lifecycle::Created);
        match alias {
            Some(alias) => Some(alias.collection),
            None => self.collection_by_name(database, name),
        }
    }

    fn collection_by_name(&self, database: DatabaseId, name: &str) -> Option<CollectionId> {
        let name = Name::from(name);
        let first = CollectionKey { database: None, collection: CollectionId(i64::MIN) };
        let same = self.by_name.range((database, name.clone(), first)..).take_while(
            |(other_database, other_name, _)| *other_database == database && *other_name == name,
        );
        same.map(|(_, _, key)| key)
            .find(|key| {
                self.collections.get(*key).is_some_and(|found| found.state == Lifecycle::Created)
            })
            .map(|key| key.collection)
    }

    fn alias(&self, database: DatabaseId, name: &str) -> Option<&Alias> {
        let name = Name::from(name);
        let newest = self.aliases.get(&AliasKey::Of(database, name.clone()));
        if newest.is_some() || database != DatabaseId::DEFAULT {
            return newest;
        }
        let older = self.aliases.get(&AliasKey::BeforeDatabases(name.clone()));
        older.or_else(|| self.aliases.get(&AliasKey::BeforeAliasInfo(name)))
    }

    /// A collection's partitions in any state, by id.
    pub fn partitions(&self, id: CollectionId) -> Vec<(PartitionId, &Partition)> {
        let embedded = self.collection(id).and_then(|(_, found)| found.embedded.as_deref());
        if let Some(embedded) = embedded.filter(|embedded| !embedded.partitions.is_empty()) {
            return embedded.partitions.iter().map(|(id, partition)| (*id, partition)).collect();
        }
        let range = (id, PartitionId(i64::MIN))..=(id, PartitionId(i64::MAX));
        let rows = self.partitions.range(range);
        rows.filter_map(|((_, id), row)| Some((*id, row.decoded()?))).collect()
    }

    /// A collection's fields, the system's own included, by id.
    pub fn fields(&self, id: CollectionId) -> Vec<(FieldId, &Field)> {
        let embedded = self.collection(id).and_then(|(_, found)| found.embedded.as_deref());
        if let Some(embedded) = embedded.filter(|embedded| !embedded.fields.is_empty()) {
            return embedded.fields.iter().map(|(id, field)| (*id, field)).collect();
        }
        let rows = self.fields.range((id, FieldId(i64::MIN))..=(id, FieldId(i64::MAX)));
        rows.filter_map(|((_, id), row)| Some((*id, row.decoded()?))).collect()
    }

    pub fn databases(&self) -> &Rows<DatabaseId, Database> {
        &self.databases
    }

    pub fn collections(&self) -> &Rows<CollectionKey, Collection> {
        &self.collections
    }

    pub fn partition_rows(&self) -> &Rows<(CollectionId, PartitionId), Partition> {
        &self.partitions
    }

    pub fn field_rows(&self) -> &Rows<(CollectionId, FieldId), Field> {
        &self.fields
    }

    pub fn aliases(&self) -> &Rows<AliasKey, Alias> {
        &self.aliases
    }

    /// Plain keys that hold a tombstone and will be collected by RootCoord.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Keys below `snapshots/`.
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Things of which the newest copy says alive and the plain key dead, or the other way round.
    /// Walks the whole catalogue.
    pub fn drift(&self) -> Vec<CatalogKey> {
        let mut newest: BTreeMap<&CatalogKey, bool> = BTreeMap::new();
        for ((key, _), is_tombstone) in &self.copies {
            newest.insert(key, !is_tombstone);
        }
        let mut plain: BTreeSet<CatalogKey> = BTreeSet::new();
        plain.extend(self.databases.iter().map(|(id, _)| CatalogKey::Database(*id)));
        plain.extend(self.collections.iter().map(|(key, _)| CatalogKey::Collection(*key)));
        plain.extend(self.partitions.iter().map(|(key, _)| CatalogKey::Partition(key.0, key.1)));
        plain.extend(self.fields.iter().map(|(key, _)| CatalogKey::Field(key.0, key.1)));
        plain.extend(self.aliases.iter().map(|(key, _)| CatalogKey::Alias(key.clone())));
        let unsaved = plain.iter().filter(|key| newest.get(key) != Some(&true));
        let revived = newest
            .iter()
            .filter(|(key, alive)| **alive && !plain.contains(key))
            .map(|(key, _)| *key);
        unsaved.chain(revived).cloned().collect()
    }

    pub fn undecodable(&self) -> usize {
        let Catalog { databases, collections, partitions, fields, aliases, strays, .. } = self;
        databases.undecodable()
            + collections.undecodable()
            + partitions.undecodable()
            + fields.undecodable()
            + aliases.undecodable()
            + strays.len()
    }

    /// Why rows do not decode.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (CatalogKey, &Undecodable)> {
        let databases = self.databases.troubles();
        let collections = self.collections.troubles();
        let partitions = self.partitions.troubles();
        let fields = self.fields.troubles();
        let aliases = self.aliases.troubles();
        databases
            .map(|(id, why)| (CatalogKey::Database(*id), why))
            .chain(collections.map(|(key, why)| (CatalogKey::Collection(*key), why)))
            .chain(partitions.map(|(key, why)| (CatalogKey::Partition(key.0, key.1), why)))
            .chain(fields.map(|(key, why)| (CatalogKey::Field(key.0, key.1), why)))
            .chain(aliases.map(|(key, why)| (CatalogKey::Alias(key.clone()), why)))
    }

    pub(crate) fn strays(&self) -> &BTreeMap<Bytes, i64> {
        &self.strays
    }
}

impl fmt::Display for Catalog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, row) in self.databases.iter() {
            writeln!(out, "database {id}: {row}")?;
        }
        for (key, row) in self.collections.iter() {
            writeln!(out, "collection {key}: {row}")?;
        }
        for ((collection, id), row) in self.partitions.iter() {
            writeln!(out, "partition {collection}/{id}: {row}")?;
        }
        for ((collection, id), row) in self.fields.iter() {
            writeln!(out, "field {collection}/{id}: {row}")?;
        }
        for (key, row) in self.aliases.iter() {
            writeln!(out, "alias {key}: {row}")?;
        }
        for key in &self.tombstones {
            writeln!(out, "tombstone {key}")?;
        }
        for ((key, timestamp), is_tombstone) in &self.copies {
            let dead = if *is_tombstone { " tombstone" } else { "" };
            writeln!(out, "copy {key} at {timestamp}{dead}")?;
        }
        for (key, revision) in &self.strays {
            writeln!(out, "catalogue stray {key:?} revision {revision}")?;
        }
        Ok(())
    }
}
