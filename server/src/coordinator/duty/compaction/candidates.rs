//! Which segments may be compacted, read from the views in slices: a walk over a million of them
//! never holds up what is applied meanwhile for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::milvus::common::IndexState;
use proto::milvus::data;
use statemachine::coordinator::keys::LogKind;
use statemachine::coordinator::segment::view::{LogSums, Logs, Segment};
use statemachine::view::{CollectionId, IndexId, Name, PartitionId, SegmentId, ServerId, Views};

use super::policy::{Candidate, Group, Limits, Wish};
use crate::coordinator::assign::{row_bytes, rows_of};
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::tso::{later, physical_ms};
use crate::coordinator::{Failure, Lead, indexing, records};

/// Segments looked at under one lock.
const SLICE: usize = 1_000;
/// Segments whose logs are read one by one, because only some of their rows may have expired.
const PARTLY_EXPIRED_MAX: usize = 1_000;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Everything,
    Collection(CollectionId),
    Groups(Vec<(Name, PartitionId)>),
}

/// What holds for all segments of a channel.
struct Rules {
    collection: CollectionId,
    /// What is older has expired; 0 where rows live for ever.
    expire_ts: u64,
    /// The index that must be finished, where one must.
    index: Option<IndexId>,
    /// Oldest engine whose indexes stay; 0 where no index is older.
    engine_version: i32,
    rows_max: RowsMax,
}

/// Rows of a full segment.
enum RowsMax {
    /// As the schema gives them.
    Of(i64),
    /// The schema is not known: what the segment's own record says.
    OfRecord,
}

/// Visits the groups of candidates, of the channels that a data node consumes: all of them at once
/// would take much memory. Blocks its thread.
///
/// # Errors
/// Logs cannot be read.
pub(super) fn visit(
    lead: &Arc<Lead>,
    scope: &Scope,
    wish: Wish,
    now_ts: u64,
    visit: &mut dyn FnMut(Group),
) -> Result<(), Failure> {
    for channel in channels(lead, scope) {
        let rules = lead
            .local()
            .read(|state| Rules::of(state.views(), lead.settings(), &channel, wish, now_ts));
        let Some(rules) = rules else { continue };
        groups_of(lead, &channel, &rules, scope, wish)?.into_iter().for_each(&mut *visit);
    }
    Ok(())
}

fn channels(lead: &Lead, scope: &Scope) -> Vec<Name> {
    lead.local().read(|state| {
        let assignments = state.views().assignments();
        let mut channels: Vec<Name> = match scope {
            Scope::Everything => {
                assignments.rows().decoded().map(|(channel, _)| channel.clone()).collect()
            }
            Scope::Collection(collection) => {
                assignments.of_collection(*collection).map(|(channel, _)| channel.clone()).collect()
            }
            Scope::Groups(groups) => groups.iter().map(|(channel, _)| channel.clone()).collect(),
        };
        channels.dedup();
        channels
    })
}

impl Rules {
    fn of(
        views: &Views,
        settings: &CoordinatorSettings,
        channel: &str,
        wish: Wish,
        now_ts: u64,
    ) -> Option<Rules> {
        let assignment = views.assignments().get(channel)?;
        let is_removed = views.assignments().removal(channel) == Some(true);
        if assignment.node == ServerId::NOBODY || is_removed {
            return None;
        }
        let collection = assignment.collection;
        if wish == Wish::Automatic && !is_automatic(views, settings, collection) {
            return None;
        }
        let index = indexing::vector_index(views, collection).map(|(index, _)| index);
        if settings.index_based_compaction && index.is_none() {
            return None;
        }
        Some(Rules {
            collection,
            expire_ts: time_to_live(views, settings, collection)
                .map_or(0, |ttl| later(0, physical_ms(now_ts).saturating_sub(millis(ttl)))),
            index: index.filter(|_| settings.index_based_compaction),
            engine_version: match settings.auto_upgrade_index {
                true => {
                    let version = indexing::engine_version(views);
                    let oldest = views.indexes().oldest_engine();
                    if oldest.is_some_and(|oldest| oldest < version) { version } else { 0 }
                }
                false => 0,
            },
            rows_max: rows_max(views, settings, collection).map_or(RowsMax::OfRecord, RowsMax::Of),
        })
    }
}

fn property<'a>(views: &'a Views, collection: CollectionId, key: &str) -> Option<&'a str> {
    if let Some(altered) = views.plans().altered(collection, key) {
        return Some(altered);
    }
    let (_, collection) = views.catalog().collection(collection)?;
    let pair = collection.properties.iter().find(|(name, _)| &**name == key);
    pair.map(|(_, value)| &**value)
}

fn is_automatic(views: &Views, settings: &CoordinatorSettings, collection: CollectionId) -> bool {
    match property(views, collection, "collection.autocompaction.enabled") {
        Some(value) => truth(value).unwrap_or(false),
        None => settings.enable_auto_compaction,
    }
}

/// As Milvus reads it (Go's `strconv.ParseBool`).
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `None`: rows live for ever. So they do with 0, with less, and with what is no number: data nodes
/// remove no row then, and a plan would rewrite each segment again and again.
pub(super) fn time_to_live(
    views: &Views,
    settings: &CoordinatorSettings,
    collection: CollectionId,
) -> Option<Duration> {
    let ttl = match property(views, collection, "collection.ttl.seconds") {
        Some(value) => value.trim().parse().ok().map(Duration::from_secs),
        None => settings.entity_expiration,
    };
    ttl.filter(|ttl| !ttl.is_zero())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Rows of a full segment, by today's settings; `None` where the schema is not known.
fn rows_max(
    views: &Views,
    settings: &CoordinatorSettings,
    collection: CollectionId,
) -> Option<i64> {
    let fields = views.catalog().fields(collection);
    let bytes = row_bytes(fields.iter().map(|(_, field)| *field)).ok()?;
    let mut indexes = views.indexes().live_of(collection);
    let is_on_disk = indexes.any(|(_, one)| indexing::index_type(one) == "DISKANN");
    let size_mb =
        if is_on_disk { settings.disk_segment_max_size_mb } else { settings.segment_max_size_mb };
    Some(rows_of(size_mb, bytes))
}

/// Walks a channel.
fn groups_of(
    lead: &Arc<Lead>,
    channel: &Name,
    rules: &Rules,
    scope: &Scope,
    wish: Wish,
) -> Result<Vec<Group>, Failure> {
    let limits = Limits::of(lead.settings());
    let mut partitions: BTreeMap<PartitionId, Group> = BTreeMap::new();
    let mut partly_expired: Vec<SegmentId> = Vec::new();
    let mut after = SegmentId(i64::MIN);
    loop {
        let mut looked_at = 0;
        lead.local().read(|state| {
            let views = state.views();
            let slice = views.segments().of_channel_after(channel, after).take(SLICE);
            for (id, segment, logs) in slice {
                looked_at += 1;
                after = id;
                if !is_free(views, id, segment) || !is_in_scope(scope, channel, segment) {
                    continue;
                }
                let (candidate, is_partly_expired) = candidate(views, id, segment, logs, rules);
                let rows_max = match rules.rows_max {
                    RowsMax::Of(rows_max) => rows_max,
                    RowsMax::OfRecord => segment.rows_max,
                };
                // Most segments are large and have no reason to go: their indexes are of no
                // interest, and looking them all up would take as long as the walk.
                let is_of_interest = wish == Wish::ByHand
                    || is_partly_expired
                    || limits.is_small(candidate.rows, rows_max)
                    || limits.reason(&candidate).is_some();
                if is_of_interest && !is_indexed(views, id, rules) {
                    continue;
                }
                if is_partly_expired {
                    partly_expired.push(id);
                }
                let group = partitions.entry(segment.partition).or_insert_with(|| Group {
                    collection: rules.collection,
                    partition: segment.partition,
                    channel: channel.clone(),
                    rows_max,
                    candidates: Vec::new(),
                });
                group.candidates.push(candidate);
            }
        });
        if looked_at < SLICE {
            break;
        }
        std::thread::yield_now();
    }
    count_expired(lead, &mut partitions, &partly_expired, rules)?;
    Ok(partitions.into_values().collect())
}

fn is_in_scope(scope: &Scope, channel: &Name, segment: &Segment) -> bool {
    match scope {
        Scope::Everything => true,
        Scope::Collection(collection) => segment.collection == *collection,
        Scope::Groups(groups) => groups
            .iter()
            .any(|(other, partition)| other == channel && *partition == segment.partition),
    }
}

/// Flushed, and nobody else's.
fn is_free(views: &Views, id: SegmentId, segment: &Segment) -> bool {
    segment.is_flushed()
        && !segment.is_importing
        && !segment.is_fake
        && views.plans().of_input(id).is_none()
}

fn is_indexed(views: &Views, id: SegmentId, rules: &Rules) -> bool {
    let Some(index) = rules.index else { return true };
    let build = views.indexes().of_index(id, index);
    build.is_some_and(|(_, build)| build.state == IndexState::Finished)
}

/// Whether all of a plan's inputs may go: large segments are taken into groups unseen.
pub(super) fn are_indexed(lead: &Lead, collection: CollectionId, inputs: &[SegmentId]) -> bool {
    if !lead.settings().index_based_compaction {
        return true;
    }
    lead.local().read(|state| {
        let views = state.views();
        let Some((index, _)) = indexing::vector_index(views, collection) else { return false };
        inputs.iter().all(|input| {
            let build = views.indexes().of_index(*input, index);
            build.is_some_and(|(_, build)| build.state == IndexState::Finished)
        })
    })
}

/// Also whether only some of its rows may have expired, which the sums do not tell.
fn candidate(
    views: &Views,
    id: SegmentId,
    segment: &Segment,
    logs: &Logs,
    rules: &Rules,
) -> (Candidate, bool) {
    let mut candidate = Candidate {
        id: id.0,
        rows: segment.rows,
        is_result: segment.is_compaction_result,
        made_at_ms: physical_ms(segment.last_expire_ts),
        ..Candidate::default()
    };
    candidate.has_old_index = rules.engine_version > 0
        && views
            .indexes()
            .of_segment(id)
            .any(|(_, build)| build.is_in_files() && build.engine_version < rules.engine_version);
    let deltas = logs.total(LogKind::Delta);
    candidate.delta_files = deltas.files;
    candidate.delta_rows = deltas.entries;
    candidate.delta_bytes = deltas.size_bytes;
    candidate.stats_files = logs.total(LogKind::Stats).files;
    candidate.size_bytes = logs.size_bytes();
    let mut is_partly_expired = false;
    let insert = logs.of_kind(LogKind::Insert).map(|(_, sums)| sums);
    for (nth, sums) in insert.filter(|sums| sums.files > 0).enumerate() {
        match expiry(sums, rules.expire_ts) {
            Expiry::None => {}
            Expiry::Some => is_partly_expired = true,
            Expiry::All => {
                // Rows are counted once, bytes in every field.
                candidate.expired_rows += if nth == 0 { sums.entries } else { 0 };
                candidate.expired_bytes += sums.size_bytes;
            }
        }
    }
    (candidate, is_partly_expired)
}

enum Expiry {
    None,
    Some,
    All,
}

fn expiry(sums: LogSums, expire_ts: u64) -> Expiry {
    if sums.newest_ts < expire_ts {
        Expiry::All
    } else if sums.oldest_ts < expire_ts && sums.files > 1 {
        Expiry::Some
    } else {
        Expiry::None
    }
}

/// Reads the logs of segments some of whose logs may have expired.
fn count_expired(
    lead: &Arc<Lead>,
    partitions: &mut BTreeMap<PartitionId, Group>,
    partly_expired: &[SegmentId],
    rules: &Rules,
) -> Result<(), Failure> {
    let few = &partly_expired[..partly_expired.len().min(PARTLY_EXPIRED_MAX)];
    for ids in few.chunks(100) {
        for info in records::segments(&lead.local(), lead.settings(), ids)? {
            let group = partitions.get_mut(&PartitionId(info.partition_id));
            let candidates = group.map(|group| &mut group.candidates);
            let candidate =
                candidates.and_then(|all| all.iter_mut().find(|candidate| candidate.id == info.id));
            if let Some(candidate) = candidate {
                (candidate.expired_rows, candidate.expired_bytes) = expired(&info, rules.expire_ts);
            }
        }
    }
    Ok(())
}

/// Rows of logs all of whose rows have expired, and bytes of such logs over all fields.
fn expired(info: &data::SegmentInfo, expire_ts: u64) -> (i64, i64) {
    let is_expired = |log: &&data::Binlog| log.timestamp_to < expire_ts;
    let first = info.binlogs.iter().min_by_key(|logs| logs.field_id);
    let rows = first.into_iter().flat_map(|logs| &logs.binlogs).filter(is_expired);
    let all = info.binlogs.iter().flat_map(|logs| &logs.binlogs).filter(is_expired);
    let add = i64::saturating_add;
    (rows.map(|log| log.entries_num).fold(0, add), all.map(|log| log.log_size).fold(0, add))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcd;
    use proto::milvus::common::KeyValuePair;
    use proto::quorate::AlteredCollection;

    use super::*;

    /// Views of a collection with one property.
    fn views_with(key: &str, value: &str) -> Views {
        let mut views = Views::new("by-dev");
        let (key, value) = (key.to_owned(), value.to_owned());
        let altered = AlteredCollection { properties: vec![KeyValuePair { key, value }] };
        views.put(&etcd::KeyValue {
            key: "by-dev/quorate/altered/1".into(),
            value: altered.encode_to_vec().into(),
            mod_revision: 1,
            ..etcd::KeyValue::default()
        });
        views
    }

    #[test]
    fn rows_live_for_ever_without_a_time_above_zero() {
        let seconds = |property: Option<&str>, setting: Option<u64>| {
            let views = match property {
                Some(value) => views_with("collection.ttl.seconds", value),
                None => Views::new("by-dev"),
            };
            let entity_expiration = setting.map(Duration::from_secs);
            let settings = CoordinatorSettings { entity_expiration, ..Default::default() };
            time_to_live(&views, &settings, CollectionId(1)).map(|ttl| ttl.as_secs())
        };
        assert_eq!(seconds(Some("5"), None), Some(5));
        assert_eq!(seconds(None, Some(7)), Some(7));
        assert_eq!(seconds(None, Some(0)), None);
        for none in ["0", "-1", "-7", "", "five", "1.5"] {
            assert_eq!(seconds(Some(none), None), None, "`{none}`");
            assert_eq!(seconds(Some(none), Some(7)), None, "`{none}` wins over the setting");
        }
    }

    #[test]
    fn the_switch_of_a_collection_is_read_as_milvus_reads_it() {
        let is_automatic = |value: &str, enable_auto_compaction| {
            let settings = CoordinatorSettings { enable_auto_compaction, ..Default::default() };
            let views = views_with("collection.autocompaction.enabled", value);
            is_automatic(&views, &settings, CollectionId(1))
        };
        for on in ["true", "True", "TRUE", "t", "T", "1"] {
            assert!(is_automatic(on, false), "`{on}`");
        }
        for off in ["false", "False", "0", "f", "no", "yes", "tRUE", ""] {
            assert!(!is_automatic(off, true), "`{off}`");
        }
    }

    #[test]
    fn rows_expire_log_by_log_and_bytes_in_every_field() {
        let log = |timestamp_to, entries_num, log_size| data::Binlog {
            timestamp_to,
            entries_num,
            log_size,
            ..Default::default()
        };
        let field = |field_id| data::FieldBinlog {
            field_id,
            binlogs: vec![log(10, 5, 100), log(20, 7, 200)],
        };
        let info =
            data::SegmentInfo { binlogs: vec![field(101), field(100)], ..Default::default() };
        assert_eq!(expired(&info, 10), (0, 0));
        assert_eq!(expired(&info, 11), (5, 200));
        assert_eq!(expired(&info, 21), (12, 600));
    }
}
