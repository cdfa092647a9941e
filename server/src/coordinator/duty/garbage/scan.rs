//! The pass over the object store: files that no record names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use proto::quorate::SegmentRef;
use raft::View;
use statemachine::coordinator::keys::LogKind;
use statemachine::view::{BuildId, SegmentId};

use super::orphan::{self, Claim};
use super::path::{self, INDEX_AREA, IndexPath, LogPath, ParsedPath};
use super::run::{Doomed, Kind, Run};
use crate::coordinator::objects::ObjectFile;
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::{Failure, Lead, records};

/// Old files that are judged together.
const AT_ONCE: usize = 1000;

/// Lists the store and deletes what nobody names.
///
/// # Errors
/// The leadership is gone, or the object store is; the rest waits for the next pass.
pub(super) async fn scan(run: &mut Run<'_>) -> Result<(), Failure> {
    let prefix = run.lead.settings().storage_prefix();
    let pass = run.lead.unnamed.lock().begin_pass();
    for area in LogKind::ALL.map(path::area).into_iter().chain([INDEX_AREA]) {
        let mut files = run.lead.coordinator.objects().list(&format!("{prefix}{area}"));
        let mut old = Vec::new();
        while let Some(file) = files.next().await {
            let file = file.map_err(|error| {
                run.note_failure(&error);
                Failure::Unavailable("the object store cannot be listed".to_owned())
            })?;
            let store_now = run.lead.coordinator.objects().store_now();
            match age_of(&file, store_now, run.lead.settings().gc_missing_tolerance) {
                Age::Young => run.keep("younger than the tolerance"),
                Age::Unknown => run.keep("age not known: the store does not say what time it is"),
                Age::Old if path::parse(&prefix, &file.path).is_none() => {
                    run.keep("name of another shape");
                }
                Age::Old => old.push(file),
            }
            if old.len() >= AT_ONCE {
                judge(run, &prefix, std::mem::take(&mut old)).await?;
            }
        }
        judge(run, &prefix, old).await?;
    }
    run.lead.unnamed.lock().end_pass(pass);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Young,
    Old,
    Unknown,
}

/// By the clock that gave the file its time: ours may be days ahead. A file from the future is young.
fn age_of(file: &ObjectFile, store_now: Option<SystemTime>, tolerance: Duration) -> Age {
    let Some(store_now) = store_now else { return Age::Unknown };
    match store_now.duration_since(file.modified) {
        Ok(age) if age >= tolerance => Age::Old,
        Ok(_) | Err(_) => Age::Young,
    }
}

/// Deletes those of some listed files that nobody names, by records newer than the listing.
async fn judge(run: &mut Run<'_>, prefix: &str, files: Vec<ObjectFile>) -> Result<(), Failure> {
    if files.is_empty() {
        return Ok(());
    }
    let view = run.confirmed().await?;
    let claims: Vec<Claim> = view.read(|state| {
        let busy = orphan::busy_partitions(state.views());
        let claim = |file: &ObjectFile| match path::parse(prefix, &file.path) {
            Some(ParsedPath::Log(log)) => orphan::claim_of_log(state.views(), &busy, &log),
            Some(ParsedPath::Index(index)) => orphan::claim_of_index_file(state.views(), &index),
            None => Claim::Keep("name of another shape"),
        };
        files.iter().map(claim).collect()
    });
    let mut names = Names::new(&view, run.lead.settings());
    let mut doomed = Vec::new();
    let mut kept = Vec::new();
    for (file, claim) in files.into_iter().zip(claims) {
        let Some(parsed) = path::parse(prefix, &file.path) else { continue };
        let why = match claim {
            Claim::Keep(why) => Some(why),
            Claim::Orphan => None,
            Claim::UnlessNamed => names.claim(&parsed)?,
        };
        match why {
            Some(why) => {
                run.lead.unnamed.lock().forget(&file.path);
                kept.push(why);
            }
            None if is_long_unnamed(run.lead, &file.path) => {
                doomed.push(doomed_of(&file, &parsed, claim));
            }
            None => kept.push("not seen without a name for long enough"),
        }
    }
    for why in kept {
        run.keep(why);
    }
    for file in &doomed {
        tracing::debug!(path = file.path, "orphan");
    }
    run.delete(doomed).await.map(|_left| ())
}

/// Whether no record has named the file for as long as the tolerance, by a clock that cannot jump.
fn is_long_unnamed(lead: &Lead, path: &str) -> bool {
    let age = lead.unnamed.lock().note(path, Instant::now());
    age.is_some_and(|age| age >= lead.settings().gc_missing_tolerance)
}

fn doomed_of(file: &ObjectFile, parsed: &ParsedPath<'_>, claim: Claim) -> Doomed {
    let is_alone = claim == Claim::Orphan;
    let (kind, segment, folders) = match parsed {
        ParsedPath::Log(log) => {
            let folders = if is_alone { path::folders_of_segment(log.kind) } else { 0 };
            (Kind::Orphan, log.segment, folders)
        }
        ParsedPath::Index(index) => (Kind::Index, index.segment, if is_alone { 4 } else { 0 }),
    };
    Doomed { path: file.path.clone(), size_bytes: file.size_bytes, kind, segment, folders }
}

/// Names as the records of one moment have them, read once for each segment and build.
struct Names<'v> {
    view: &'v View,
    settings: &'v CoordinatorSettings,
    /// `None`: what it names is not known.
    logs: BTreeMap<i64, Option<BTreeSet<LogPath>>>,
    index_files: BTreeMap<i64, BTreeSet<String>>,
}

impl<'v> Names<'v> {
    fn new(view: &'v View, settings: &'v CoordinatorSettings) -> Names<'v> {
        Names { view, settings, logs: BTreeMap::new(), index_files: BTreeMap::new() }
    }

    /// Why a file stays; `None` where no record names it.
    fn claim(&mut self, parsed: &ParsedPath<'_>) -> Result<Option<&'static str>, Failure> {
        match parsed {
            ParsedPath::Log(log) => {
                let names = match self.logs.get(&log.segment) {
                    Some(names) => names,
                    None => {
                        let names = self.logs_of(log.segment)?;
                        self.logs.entry(log.segment).or_insert(names)
                    }
                };
                Ok(match names {
                    None => Some("segment that does not decode"),
                    Some(names) if names.contains(log) => Some("named"),
                    Some(_) => None,
                })
            }
            ParsedPath::Index(file) => {
                let is_named = match self.index_files.get(&file.build) {
                    Some(names) => names.contains(file.key),
                    None => {
                        let names = self.files_of(file)?;
                        self.index_files.entry(file.build).or_insert(names).contains(file.key)
                    }
                };
                Ok(is_named.then_some("named"))
            }
        }
    }

    fn logs_of(&self, segment: i64) -> Result<Option<BTreeSet<LogPath>>, Failure> {
        let id = SegmentId(segment);
        let of: Option<SegmentRef> = self.view.read(|state| {
            let of = state.views().segments().get(id)?.reference(id);
            records::all_logs_decode(state, of).then_some(of)
        });
        let Some(of) = of else { return Ok(None) };
        let info = match records::segment(self.view, self.settings, of) {
            Ok(Some(info)) => info,
            // Gone since, or no record: the next pass sees more.
            Ok(None) | Err(Failure::Refused { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let mut names = BTreeSet::new();
        for (kind, fields) in [
            (LogKind::Insert, &info.binlogs),
            (LogKind::Stats, &info.statslogs),
            (LogKind::Delta, &info.deltalogs),
        ] {
            for (field, log) in
                fields.iter().flat_map(|one| one.binlogs.iter().map(|log| (one.field_id, log)))
            {
                let tail = log.log_path.rsplit('/').next().and_then(|tail| tail.parse().ok());
                let number = if log.log_id == 0 { tail } else { Some(log.log_id) };
                let Some(number) = number else { return Ok(None) };
                names.insert(LogPath {
                    kind,
                    collection: of.collection,
                    partition: of.partition,
                    segment,
                    field: if kind == LogKind::Delta { 0 } else { field },
                    log: number,
                });
            }
        }
        Ok(Some(names))
    }

    fn files_of(&self, file: &IndexPath<'_>) -> Result<BTreeSet<String>, Failure> {
        let of = self.view.read(|state| {
            let build = state.views().indexes().build(BuildId(file.build))?;
            Some(SegmentRef {
                collection: build.collection.0,
                partition: build.partition.0,
                segment: build.segment.0,
            })
        });
        // Gone between two looks: keep it for this time.
        let keep = || BTreeSet::from([file.key.to_owned()]);
        let Some(of) = of else { return Ok(keep()) };
        match records::segment_index(self.view, of, file.build) {
            Ok(Some(index)) => Ok(index.index_file_keys.into_iter().collect()),
            Ok(None) | Err(Failure::Refused { .. }) => Ok(keep()),
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_age_of_a_file_is_by_the_clock_of_its_store() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let file =
            |seconds| ObjectFile { path: String::new(), size_bytes: 0, modified: at(seconds) };
        let age = |modified, store_now: Option<u64>| {
            age_of(&file(modified), store_now.map(at), Duration::from_secs(3600))
        };
        // A store whose clock is of the year 2001, and one of 2100: each goes by its own.
        assert_eq!(age(1_000_000_000, Some(1_000_000_010)), Age::Young);
        assert_eq!(age(1_000_000_000, Some(1_000_003_600)), Age::Old);
        assert_eq!(age(4_102_444_800, Some(4_102_444_900)), Age::Young);
        assert_eq!(age(4_102_444_800, Some(1_000_000_000)), Age::Young, "from the future");
        assert_eq!(age(0, None), Age::Unknown);
    }
}
