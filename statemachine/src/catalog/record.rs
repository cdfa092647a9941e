//! Compact forms of RootCoord's records.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use proto::milvus::{common, etcd, schema};

use crate::view::{CollectionId, DatabaseId, FieldId, Name, Names, PartitionId};

/// How far the creation or the removal of a thing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    Creating,
    Created,
    Dropping,
    Dropped,
}

/// The records of collections, partitions and aliases number their states alike.
fn lifecycle(number: i32) -> Result<Lifecycle, String> {
    match number {
        0 => Ok(Lifecycle::Created),
        1 => Ok(Lifecycle::Creating),
        2 => Ok(Lifecycle::Dropping),
        3 => Ok(Lifecycle::Dropped),
        other => Err(format!("no state has the number {other}")),
    }
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub name: Name,
    pub state: Lifecycle,
    /// Nanoseconds since the Unix epoch, not a hybrid timestamp.
    pub created_ns: u64,
}

impl Database {
    pub(crate) fn decode(names: &mut Names, value: &[u8]) -> Result<Database, String> {
        let info = etcd::DatabaseInfo::decode(value).map_err(text)?;
        let state = match etcd::DatabaseState::try_from(info.state) {
            // Written by versions that had no states yet.
            Ok(etcd::DatabaseState::DatabaseUnknown | etcd::DatabaseState::DatabaseCreated) => {
                Lifecycle::Created
            }
            Ok(etcd::DatabaseState::DatabaseCreating) => Lifecycle::Creating,
            Ok(etcd::DatabaseState::DatabaseDropping) => Lifecycle::Dropping,
            Ok(etcd::DatabaseState::DatabaseDropped) => Lifecycle::Dropped,
            Err(_unknown) => return Err(format!("no state has the number {}", info.state)),
        };
        Ok(Database { name: names.intern(&info.name), state, created_ns: info.created_time })
    }
}

impl fmt::Display for Database {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Database { name, state, created_ns } = self;
        write!(out, "{name:?} {state:?} created {created_ns} ns")
    }
}

/// A collection without its fields and partitions, which have keys of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    pub name: Name,
    pub state: Lifecycle,
    /// Hybrid timestamp.
    pub created: u64,
    pub shards: i32,
    pub consistency_level: i32,
    pub auto_id: bool,
    pub dynamic_field: bool,
    /// Virtual and physical channel of each shard.
    pub channels: Box<[(Name, Name)]>,
    pub properties: Box<[(Name, Name)]>,
    /// Where each physical channel begins to matter for the collection: a serialised message id.
    pub start_positions: Box<[(Name, Bytes)]>,
    /// Partitions and fields inside the record itself, as versions before 2.2 wrote them.
    pub embedded: Option<Box<Embedded>>,
}

/// What old versions kept inside a collection's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Embedded {
    pub partitions: Box<[(PartitionId, Partition)]>,
    pub fields: Box<[(FieldId, Field)]>,
}

impl Collection {
    pub(crate) fn decode(names: &mut Names, value: &[u8]) -> Result<Collection, String> {
        let info = etcd::CollectionInfo::decode(value).map_err(text)?;
        let state = lifecycle(info.state)?;
        let schema = info.schema.ok_or("no schema")?;
        if info.virtual_channel_names.len() != info.physical_channel_names.len() {
            return Err("virtual and physical channels differ in number".to_owned());
        }
        let virtual_and_physical =
            info.virtual_channel_names.iter().zip(&info.physical_channel_names);
        let channels = virtual_and_physical
            .map(|(channel, physical)| (names.intern(channel), names.intern(physical)))
            .collect();
        let partitions = info
            .partition_i_ds
            .iter()
            .enumerate()
            .map(|(position, id)| {
                let name = info.partition_names.get(position).map_or("", String::as_str);
                let created =
                    info.partition_created_timestamps.get(position).copied().unwrap_or_default();
                let state = Lifecycle::Created;
                (PartitionId(*id), Partition { name: names.intern(name), state, created })
            })
            .collect();
        let fields = schema
            .fields
            .iter()
            .map(|field| Ok((FieldId(field.field_id), Field::from_wire(names, field)?)))
            .collect::<Result<_, String>>()?;
        let embedded = Embedded { partitions, fields };
        Ok(Collection {
            name: names.intern(&schema.name),
            state,
            created: info.create_time,
            shards: info.shards_num,
            consistency_level: info.consistency_level,
            auto_id: schema.auto_id,
            dynamic_field: schema.enable_dynamic_field,
            channels,
            properties: pairs(names, &info.properties),
            start_positions: info
                .start_positions
                .iter()
                // A copy, or the row would hold on to the whole entry that it came in.
                .map(|pair| (names.intern(&pair.key), Bytes::copy_from_slice(&pair.data)))
                .collect(),
            embedded: (embedded != Embedded::default()).then(|| Box::new(embedded)),
        })
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Collection { name, state, created, shards, consistency_level, .. } = self;
        write!(
            out,
            "{name:?} {state:?} created {created} shards {shards} consistency {consistency_level}"
        )?;
        for (set, word) in [(self.auto_id, "auto-id"), (self.dynamic_field, "dynamic")] {
            if set {
                write!(out, " {word}")?;
            }
        }
        for (channel, physical) in &self.channels {
            write!(out, " {channel}@{physical}")?;
        }
        for (key, value) in &self.properties {
            write!(out, " {key}={value}")?;
        }
        for (channel, position) in &self.start_positions {
            write!(out, " {channel}>={position:x}")?;
        }
        if let Some(embedded) = &self.embedded {
            for (id, partition) in &embedded.partitions {
                write!(out, " partition {id} {partition};")?;
            }
            for (id, field) in &embedded.fields {
                write!(out, " field {id} {field};")?;
            }
        }
        Ok(())
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub name: Name,
    pub state: Lifecycle,
    /// Hybrid timestamp.
    pub created: u64,
}

impl Partition {
    pub(crate) fn decode(names: &mut Names, value: &[u8]) -> Result<Partition, String> {
        let info = etcd::PartitionInfo::decode(value).map_err(text)?;
        Ok(Partition {
            name: names.intern(&info.partition_name),
            state: lifecycle(info.state)?,
            created: info.partition_created_timestamp,
        })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Partition { name, state, created } = self;
        write!(out, "{name:?} {state:?} created {created}")
    }
}

/// A field of a schema, without its description and default value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Name,
    pub data_type: schema::DataType,
    /// Of arrays.
    pub element_type: schema::DataType,
    pub primary_key: bool,
    pub auto_id: bool,
    /// Holds what the schema does not name.
    pub dynamic: bool,
    pub partition_key: bool,
    /// `dim`, `max_length`, `max_capacity`.
    pub type_params: Box<[(Name, Name)]>,
}

impl Field {
    pub(crate) fn decode(names: &mut Names, value: &[u8]) -> Result<Field, String> {
        Field::from_wire(names, &schema::FieldSchema::decode(value).map_err(text)?)
    }

    fn from_wire(names: &mut Names, field: &schema::FieldSchema) -> Result<Field, String> {
        Ok(Field {
            name: names.intern(&field.name),
            data_type: data_type(field.data_type)?,
            element_type: data_type(field.element_type)?,
            primary_key: field.is_primary_key,
            auto_id: field.auto_id,
            dynamic: field.is_dynamic,
            partition_key: field.is_partition_key,
            type_params: pairs(names, &field.type_params),
        })
    }
}

fn data_type(number: i32) -> Result<schema::DataType, String> {
    schema::DataType::try_from(number)
        .map_err(|_unknown| format!("no data type has the number {number}"))
}

impl fmt::Display for Field {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {:?}", self.name, self.data_type)?;
        if self.element_type != schema::DataType::None {
            write!(out, " of {:?}", self.element_type)?;
        }
        for (set, word) in [
            (self.primary_key, "primary"),
            (self.auto_id, "auto-id"),
            (self.dynamic, "dynamic"),
            (self.partition_key, "partition-key"),
        ] {
            if set {
                write!(out, " {word}")?;
            }
        }
        for (key, value) in &self.type_params {
            write!(out, " {key}={value}")?;
        }
        Ok(())
    }
}

/// Another name of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    pub collection: CollectionId,
    pub state: Lifecycle,
    /// Hybrid timestamp; 0 in records from 2.1.
    pub created: u64,
}

impl Alias {
    pub(crate) fn decode(value: &[u8]) -> Result<Alias, String> {
        let info = etcd::AliasInfo::decode(value).map_err(text)?;
        Ok(Alias {
            collection: CollectionId(info.collection_id),
            state: lifecycle(info.state)?,
            created: info.created_time,
        })
    }

    /// In 2.1 an alias was a collection's record with nothing in it but id and name.
    pub(crate) fn decode_collection_info(value: &[u8]) -> Result<Alias, String> {
        let info = etcd::CollectionInfo::decode(value).map_err(text)?;
        Ok(Alias { collection: CollectionId(info.id), state: Lifecycle::Created, created: 0 })
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Alias { collection, state, created } = self;
        write!(out, "-> {collection} {state:?} created {created}")
    }
}

fn pairs(names: &mut Names, pairs: &[common::KeyValuePair]) -> Box<[(Name, Name)]> {
    pairs.iter().map(|pair| (names.intern(&pair.key), names.intern(&pair.value))).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn text(error: prost::DecodeError) -> String {
    error.to_string()
}

/// The database that a collection's key puts it into.
pub(crate) fn home(database: Option<DatabaseId>) -> DatabaseId {
    // RootCoord loads what is older than databases into `default`.
    database.unwrap_or(DatabaseId::DEFAULT)
}
