//! View of index definitions and of the builds of segments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prost::Message;
use proto::milvus::common::IndexState;
use proto::milvus::index;
use proto::quorate::{BuildRef, SegmentRef};
use proto::{etcd, milvus};

use crate::view::{
    BuildId, CollectionId, FieldId, IndexId, Name, Names, PartitionId, Row, Rows, SegmentId,
    ServerId, Undecodable,
};

/// Definition of an index on a field.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexDefinition {
    pub field: FieldId,
    pub name: Name,
    pub is_deleted: bool,
    /// Hybrid timestamp of the request that made it.
    pub create_ts: u64,
    pub is_auto_index: bool,
    pub type_params: Vec<milvus::common::KeyValuePair>,
    pub index_params: Vec<milvus::common::KeyValuePair>,
    pub user_index_params: Vec<milvus::common::KeyValuePair>,
    pub revision: i64,
}

impl IndexDefinition {
    /// The value of an index or type parameter.
    pub fn param(&self, key: &str) -> Option<&str> {
        let all = self.index_params.iter().chain(&self.type_params);
        all.filter(|pair| pair.key == key).map(|pair| pair.value.as_str()).next()
    }
}

impl fmt::Display for IndexDefinition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IndexDefinition { field, name, is_deleted, create_ts, .. } = self;
        write!(out, "{name} field {field} create {create_ts} deleted {is_deleted}")
    }
}

/// An index over one segment: a task until it is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    pub collection: CollectionId,
    pub partition: PartitionId,
    pub segment: SegmentId,
    pub index: IndexId,
    pub state: IndexState,
    /// Counts attempts; part of the path of the files.
    pub version: i64,
    pub node: ServerId,
    pub rows: i64,
    pub size_bytes: u64,
    pub n_files: u32,
    /// Of the engine that built it.
    pub engine_version: i32,
    pub is_deleted: bool,
    /// Why it failed, or why the last attempt was given up.
    pub failure: Option<Box<str>>,
    pub revision: i64,
}

impl Build {
    /// Not finished, not failed.
    pub fn is_unfinished(&self) -> bool {
        !self.is_deleted && !matches!(self.state, IndexState::Finished | IndexState::Failed)
    }

    /// There are files, of an engine of some version.
    pub fn is_in_files(&self) -> bool {
        !self.is_deleted && self.n_files > 0
    }

    pub fn reference(&self, id: BuildId) -> BuildRef {
        BuildRef {
            collection: self.collection.0,
            partition: self.partition.0,
            segment: self.segment.0,
            build: id.0,
        }
    }
}

impl fmt::Display for Build {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Build { segment, index, state, version, node, rows, .. } = self;
        write!(
            out,
            "{state:?} segment {segment} index {index} version {version} node {node} rows {rows} \
             files {} bytes {} deleted {}",
            self.n_files, self.size_bytes, self.is_deleted
        )?;
        match &self.failure {
            Some(failure) => write!(out, " because {failure}"),
            None => Ok(()),
        }
    }
}

/// A build's id and the rest of its key. Ids are unique unless somebody writes keys raw.
type BuildKey = (BuildId, [i64; 3]);

fn key_of(id: BuildId, of: SegmentRef) -> BuildKey {
    (id, [of.collection, of.partition, of.segment])
}

const FIRST: [i64; 3] = [i64::MIN; 3];
const LAST: [i64; 3] = [i64::MAX; 3];

/// All definitions and builds.
#[derive(Debug, Default, PartialEq)]
pub struct Indexes {
    definitions: Rows<(CollectionId, IndexId), IndexDefinition>,
    builds: Rows<BuildKey, Build>,
    of_segment: BTreeSet<(SegmentId, IndexId, BuildKey)>,
    /// Not finished, not failed.
    unfinished: BTreeSet<BuildKey>,
    /// Number of builds with files by the engine that built them, without deleted ones.
    engines: BTreeMap<i32, usize>,
}

/// Following the keyspace.
impl Indexes {
    pub(crate) fn put_definition(
        &mut self,
        names: &mut Names,
        collection: CollectionId,
        id: IndexId,
        kv: &etcd::KeyValue,
    ) {
        let definition = index::FieldIndex::decode(&kv.value[..])
            .map_err(|error| error.to_string())
            .and_then(|record| {
                let info = record.index_info.ok_or("no index_info")?;
                Ok(IndexDefinition {
                    field: FieldId(info.field_id),
                    name: names.intern(&info.index_name),
                    is_deleted: record.deleted,
                    create_ts: record.create_time,
                    is_auto_index: info.is_auto_index,
                    type_params: info.type_params,
                    index_params: info.index_params,
                    user_index_params: info.user_index_params,
                    revision: kv.mod_revision,
                })
            });
        self.definitions.put((collection, id), Row::from_result(definition, kv.mod_revision));
    }

    pub(crate) fn delete_definition(&mut self, collection: CollectionId, id: IndexId) {
        self.definitions.remove(&(collection, id));
    }

    pub(crate) fn put_build(&mut self, of: SegmentRef, id: BuildId, kv: &etcd::KeyValue) {
        let key = key_of(id, of);
        self.forget(&key);
        let row = Row::from_result(decode_build(of, id, kv), kv.mod_revision);
        if let Some(build) = row.decoded() {
            self.of_segment.insert((build.segment, build.index, key));
            if build.is_unfinished() {
                self.unfinished.insert(key);
            }
            if build.is_in_files() {
                *self.engines.entry(build.engine_version).or_default() += 1;
            }
        }
        self.builds.put(key, row);
    }

    pub(crate) fn delete_build(&mut self, of: SegmentRef, id: BuildId) {
        let key = key_of(id, of);
        self.forget(&key);
        self.builds.remove(&key);
    }

    fn forget(&mut self, key: &BuildKey) {
        let Some(old) = self.builds.get(key) else { return };
        self.of_segment.remove(&(old.segment, old.index, *key));
        self.unfinished.remove(key);
        if old.is_in_files()
            && let Some(count) = self.engines.get_mut(&old.engine_version)
        {
            *count -= 1;
            if *count == 0 {
                self.engines.remove(&old.engine_version);
            }
        }
    }
}

fn decode_build(of: SegmentRef, id: BuildId, kv: &etcd::KeyValue) -> Result<Build, String> {
    let record = index::SegmentIndex::decode(&kv.value[..]).map_err(|error| error.to_string())?;
    let named = (record.collection_id, record.partition_id, record.segment_id, record.build_id);
    if named != (of.collection, of.partition, of.segment, id.0) {
        return Err(format!("the record is of {named:?}, the key of another build"));
    }
    Ok(Build {
        collection: CollectionId(record.collection_id),
        partition: PartitionId(record.partition_id),
        segment: SegmentId(record.segment_id),
        index: IndexId(record.index_id),
        state: record.state(),
        version: record.index_version,
        node: ServerId(record.node_id),
        rows: record.num_rows,
        size_bytes: record.serialize_size,
        n_files: u32::try_from(record.index_file_keys.len()).unwrap_or(u32::MAX),
        engine_version: record.current_index_version,
        is_deleted: record.deleted,
        failure: (!record.fail_reason.is_empty()).then(|| record.fail_reason.into()),
        revision: kv.mod_revision,
    })
}

/// Questions.
impl Indexes {
    pub fn definition(&self, collection: CollectionId, id: IndexId) -> Option<&IndexDefinition> {
        self.definitions.get(&(collection, id))
    }

    /// Definitions of a collection that are not deleted, by id.
    pub fn live_of(
        &self,
        collection: CollectionId,
    ) -> impl Iterator<Item = (IndexId, &IndexDefinition)> {
        let first = (collection, IndexId(i64::MIN));
        let last = (collection, IndexId(i64::MAX));
        self.definitions
            .range(first..=last)
            .filter_map(|((_, id), row)| Some((*id, row.decoded()?)))
            .filter(|(_, definition)| !definition.is_deleted)
    }

    pub fn definitions(&self) -> &Rows<(CollectionId, IndexId), IndexDefinition> {
        &self.definitions
    }

    /// Whether there is a record of it, even one that does not decode.
    pub fn is_known(&self, id: BuildId) -> bool {
        self.builds.range((id, FIRST)..=(id, LAST)).next().is_some()
    }

    pub fn build(&self, id: BuildId) -> Option<&Build> {
        let mut same = self.builds.range((id, FIRST)..=(id, LAST));
        same.find_map(|(_, row)| row.decoded())
    }

    /// Rows that do not decode included.
    pub fn n_builds(&self) -> usize {
        self.builds.len()
    }

    /// All builds that decode, by ascending id.
    pub fn builds(&self) -> impl Iterator<Item = (BuildId, &Build)> {
        self.builds.decoded().map(|((id, _), build)| (*id, build))
    }

    /// Builds whose id is above `after`, by ascending id.
    pub fn builds_after(&self, after: BuildId) -> impl Iterator<Item = (BuildId, &Build)> {
        let above = (std::ops::Bound::Excluded((after, LAST)), std::ops::Bound::Unbounded);
        let rows = self.builds.range::<BuildKey, _>(above);
        rows.filter_map(|((id, _), row)| Some((*id, row.decoded()?)))
    }

    /// All builds that decode, the youngest first.
    pub fn youngest(&self) -> impl Iterator<Item = (BuildId, &Build)> {
        let rows = self.builds.range::<BuildKey, _>(..).rev();
        rows.filter_map(|((id, _), row)| Some((*id, row.decoded()?)))
    }

    /// Builds of a segment, deleted ones included, by index.
    pub fn of_segment(&self, segment: SegmentId) -> impl Iterator<Item = (BuildId, &Build)> {
        let first = (segment, IndexId(i64::MIN), (BuildId(i64::MIN), FIRST));
        let last = (segment, IndexId(i64::MAX), (BuildId(i64::MAX), LAST));
        self.of_segment
            .range(first..=last)
            .filter_map(|(_, _, key)| Some((key.0, self.builds.get(key)?)))
    }

    /// The build of an index over a segment, if it is not deleted.
    pub fn of_index(&self, segment: SegmentId, index: IndexId) -> Option<(BuildId, &Build)> {
        self.of_segment(segment).find(|(_, build)| build.index == index && !build.is_deleted)
    }

    /// Builds to be done, by ascending id.
    pub fn unfinished(&self) -> impl Iterator<Item = (BuildId, &Build)> {
        self.unfinished.iter().filter_map(|key| Some((key.0, self.builds.get(key)?)))
    }

    /// Version of the oldest engine that built files which are in use.
    pub fn oldest_engine(&self) -> Option<i32> {
        self.engines.keys().next().copied()
    }

    pub(crate) fn troubles(&self) -> impl Iterator<Item = (String, &Undecodable)> {
        let definitions = self.definitions.troubles();
        let builds = self.builds.troubles();
        definitions
            .map(|((collection, id), why)| (format!("index {collection}/{id}"), why))
            .chain(builds.map(|((id, _), why)| (format!("build {id}"), why)))
    }

    pub fn undecodable(&self) -> usize {
        self.definitions.undecodable() + self.builds.undecodable()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((collection, id), row) in self.definitions.iter() {
            writeln!(out, "index {id} of collection {collection}: {row}")?;
        }
        for ((id, _), row) in self.builds.iter() {
            writeln!(out, "build {id}: {row}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_engine_is_that_of_files_in_use() {
        let mut indexes = Indexes::default();
        let of = SegmentRef { collection: 1, partition: 2, segment: 3 };
        let put = |indexes: &mut Indexes, build_id: i64, version, n_files, deleted| {
            let record = index::SegmentIndex {
                collection_id: of.collection,
                partition_id: of.partition,
                segment_id: of.segment,
                build_id,
                current_index_version: version,
                index_file_keys: vec![String::new(); n_files],
                deleted,
                ..Default::default()
            };
            let value = record.encode_to_vec().into();
            let kv = etcd::KeyValue { value, ..Default::default() };
            indexes.put_build(of, BuildId(build_id), &kv);
            indexes.oldest_engine()
        };
        assert_eq!(put(&mut indexes, 1, 1, 0, false), None);
        assert_eq!(put(&mut indexes, 2, 3, 1, false), Some(3));
        assert_eq!(put(&mut indexes, 3, 2, 1, false), Some(2));
        assert_eq!(put(&mut indexes, 3, 2, 1, true), Some(3));
        assert_eq!(put(&mut indexes, 1, 1, 1, false), Some(1));
        for build in 1..=3 {
            indexes.delete_build(of, BuildId(build));
        }
        assert_eq!(indexes, Indexes::default());
    }
}
