//! Keys of RootCoord's catalogue.
//!
//! Layout below `meta/`:
//! ```text
//! root-coord/database/db-info/<database>
//! root-coord/database/collection-info/<database>/<collection>
//! root-coord/database/aliases/<database>/<alias>
//! root-coord/partitions/<collection>/<partition>
//! root-coord/fields/<collection>/<field>
//! root-coord/collection/<collection>          before there were databases
//! root-coord/aliases/<alias>                  before there were databases
//! root-coord/collection-alias/<alias>         in 2.1
//! snapshots/<any of these>_ts<hybrid timestamp>
//! ```

use std::fmt;

use crate::view::{CollectionId, DatabaseId, FieldId, Name, PartitionId, canonical_i64};

/// What a key of the catalogue stands for. Two different keys are never equal here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CatalogKey {
    Database(DatabaseId),
    Collection(CollectionKey),
    Partition(CollectionId, PartitionId),
    Field(CollectionId, FieldId),
    Alias(AliasKey),
}

/// Where a collection's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CollectionKey {
    /// `None`: where collections lived before there were databases.
    pub database: Option<DatabaseId>,
    pub collection: CollectionId,
}

/// Where an alias's record is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AliasKey {
    Of(DatabaseId, Name),
    /// From before there were databases.
    BeforeDatabases(Name),
    /// From 2.1, where the record is a `CollectionInfo`.
    BeforeAliasInfo(Name),
}

impl AliasKey {
    pub fn name(&self) -> &Name {
        match self {
            AliasKey::Of(_, name)
            | AliasKey::BeforeDatabases(name)
            | AliasKey::BeforeAliasInfo(name) => name,
        }
    }
}

/// What a key below `meta/` is to the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// The newest state of a thing.
    Plain(CatalogKey),
    /// Its state from a hybrid timestamp on.
    Copy(CatalogKey, u64),
    /// Within a prefix of the catalogue, but no key that RootCoord could have written.
    Stray,
    /// Something else that RootCoord keeps: users, roles, grants.
    Elsewhere,
}

pub(crate) const ROOT: &str = "root-coord/";
pub(crate) const COPIES: &str = "snapshots/";
const COPY_MARK: &str = "_ts";

pub(crate) fn locate(key: &[u8]) -> Located {
    let Ok(key) = std::str::from_utf8(key) else { return Located::Stray };
    let Some(copy) = key.strip_prefix(COPIES) else {
        return match parse(key) {
            Parsed::Key(key) => Located::Plain(key),
            Parsed::Broken => Located::Stray,
            Parsed::Elsewhere => Located::Elsewhere,
        };
    };
    let Some((original, timestamp)) = copy.rsplit_once(COPY_MARK) else { return Located::Stray };
    match (parse(original), canonical_u64(timestamp)) {
        (Parsed::Key(key), Some(timestamp)) => Located::Copy(key, timestamp),
        (Parsed::Key(_) | Parsed::Broken, _) => Located::Stray,
        (Parsed::Elsewhere, _) => Located::Elsewhere,
    }
}

enum Parsed {
    Key(CatalogKey),
    Broken,
    Elsewhere,
}

fn parse(key: &str) -> Parsed {
    let Some(key) = key.strip_prefix(ROOT) else { return Parsed::Elsewhere };
    let parsed = if let Some(rest) = key.strip_prefix("database/db-info/") {
        canonical_i64(rest).map(|id| CatalogKey::Database(DatabaseId(id)))
    } else if let Some(rest) = key.strip_prefix("database/collection-info/") {
        two_numbers(rest).map(|(database, collection)| {
            CatalogKey::Collection(CollectionKey {
                database: Some(DatabaseId(database)),
                collection: CollectionId(collection),
            })
        })
    } else if let Some(rest) = key.strip_prefix("database/aliases/") {
        rest.split_once('/').and_then(|(database, alias)| {
            let database = DatabaseId(canonical_i64(database)?);
            Some(CatalogKey::Alias(AliasKey::Of(database, name(alias)?)))
        })
    } else if let Some(rest) = key.strip_prefix("partitions/") {
        two_numbers(rest).map(|(collection, partition)| {
            CatalogKey::Partition(CollectionId(collection), PartitionId(partition))
        })
    } else if let Some(rest) = key.strip_prefix("fields/") {
        two_numbers(rest)
            .map(|(collection, field)| CatalogKey::Field(CollectionId(collection), FieldId(field)))
    } else if let Some(rest) = key.strip_prefix("collection/") {
        canonical_i64(rest).map(|id| {
            let collection = CollectionId(id);
            CatalogKey::Collection(CollectionKey { database: None, collection })
        })
    } else if let Some(rest) = key.strip_prefix("aliases/") {
        name(rest).map(|alias| CatalogKey::Alias(AliasKey::BeforeDatabases(alias)))
    } else if let Some(rest) = key.strip_prefix("collection-alias/") {
        name(rest).map(|alias| CatalogKey::Alias(AliasKey::BeforeAliasInfo(alias)))
    } else {
        return Parsed::Elsewhere;
    };
    parsed.map_or(Parsed::Broken, Parsed::Key)
}

fn two_numbers(text: &str) -> Option<(i64, i64)> {
    let (first, second) = text.split_once('/')?;
    Some((canonical_i64(first)?, canonical_i64(second)?))
}

fn name(text: &str) -> Option<Name> {
    (!text.is_empty() && !text.contains('/')).then(|| Name::from(text))
}

fn canonical_u64(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    // Without leading zeros or a plus sign, there is one text per number.
    let first = text.as_bytes().first()?;
    (first.is_ascii_digit() && (*first != b'0' || text.len() == 1)).then_some(number)
}

impl fmt::Display for CatalogKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogKey::Database(id) => write!(out, "database {id}"),
            CatalogKey::Collection(key) => write!(out, "collection {key}"),
            CatalogKey::Partition(collection, id) => write!(out, "partition {collection}/{id}"),
            CatalogKey::Field(collection, id) => write!(out, "field {collection}/{id}"),
            CatalogKey::Alias(key) => write!(out, "alias {key}"),
        }
    }
}

impl fmt::Display for CollectionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.database {
            Some(database) => write!(out, "{database}/{}", self.collection),
            None => write!(out, "-/{}", self.collection),
        }
    }
}

impl fmt::Display for AliasKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AliasKey::Of(database, name) => write!(out, "{database}/{name}"),
            AliasKey::BeforeDatabases(name) => write!(out, "-/{name}"),
            AliasKey::BeforeAliasInfo(name) => write!(out, "--/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_root_coord_writes_is_a_key() {
        let strays = [
            "root-coord/database/db-info/01",
            "root-coord/database/db-info/+1",
            "root-coord/database/db-info/",
            "root-coord/database/db-info/1/2",
            "root-coord/fields/1/x",
            "root-coord/fields/1",
            "root-coord/database/aliases/1/",
            "snapshots/root-coord/fields/1/2",
            "snapshots/root-coord/fields/1/2_ts",
            "snapshots/root-coord/fields/1/2_ts01",
            "snapshots/root-coord/fields/1/2_ts-1",
        ];
        for key in strays {
            assert_eq!(locate(key.as_bytes()), Located::Stray, "{key}");
        }
        assert_eq!(locate(b"root-coord/credential/users/root"), Located::Elsewhere);
        let alias = CatalogKey::Alias(AliasKey::Of(DatabaseId(1), Name::from("a_ts5")));
        assert_eq!(
            locate(b"snapshots/root-coord/database/aliases/1/a_ts5_ts7"),
            Located::Copy(alias, 7)
        );
    }
}
