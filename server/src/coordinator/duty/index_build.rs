//! Sees to it that each flushed segment has a build of each index of its collection.
//!
//! Looking at all segments takes long where there are many, so this duty also listens to what is
//! applied: a segment that has just been flushed, or an index that has just been defined, is looked
//! at within milliseconds, everything else once a minute.

mod survey;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proto::quorate::index_command::Kind;
use proto::quorate::{self, BuildRef, SegmentRef};
use statemachine::coordinator::Refusal;
use statemachine::view::{Area, IndexId, SegmentId, Views};

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead, indexing};
use survey::Survey;

/// Segments looked at under one lock.
const SLICE: usize = 2048;
/// Builds added by one command.
const ADDED_MAX: usize = 512;

#[derive(Default)]
pub(super) struct IndexBuild {
    survey: Option<Survey>,
}

impl Duty for IndexBuild {
    const NAME: &'static str = "duty-index-build";
    const AREAS: &'static [Area] = &[Area::Segment, Area::Index];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let survey = self.survey.get_or_insert_with(|| Survey::new(lead.node().applied()));
        survey.listen();
        let view = lead.local();
        let min_rows = lead.settings().index_min_rows;
        loop {
            let looked_at = view.read(|state| survey.take(state.views(), SLICE));
            if looked_at.is_empty() {
                return Ok(());
            }
            let wishes = view.read(|state| wishes(state.views(), &looked_at, min_rows));
            if let Err(failure) = add(lead, &wishes).await {
                survey.put_back(looked_at);
                return Err(failure);
            }
        }
    }
}

/// A build that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    of: SegmentRef,
    index: IndexId,
    /// Nothing has to be built for it.
    finished: bool,
}

impl fmt::Display for Wish {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.finished { "finished without files" } else { "to be built" };
        write!(out, "index {} of segment {}: {how}", self.index, self.of.segment)
    }
}

fn wishes(views: &Views, segments: &[SegmentId], min_rows: i64) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for id in segments {
        let Some(segment) = views.segments().get(*id) else { continue };
        for (index, definition) in indexing::missing(views, *id, segment) {
            let finished = indexing::needs_no_files(definition, segment.rows, min_rows);
            wishes.push(Wish { of: segment.reference(*id), index, finished });
        }
    }
    wishes
}

async fn add(lead: &Lead, wishes: &[Wish]) -> Result<(), Failure> {
    for wishes in wishes.chunks(ADDED_MAX) {
        let ids = lead.ids.many(wishes.len()).await?;
        let builds = wishes.iter().zip(ids).map(|(wish, id)| {
            let SegmentRef { collection, partition, segment } = wish.of;
            let build = BuildRef { collection, partition, segment, build: id };
            let Wish { of: _, index, finished } = *wish;
            quorate::NewBuild { build: Some(build), index: index.0, finished }
        });
        let add = quorate::AddBuilds { builds: builds.collect() };
        let done = lead.propose_index(Kind::AddBuilds(add)).await?;
        // What changed meanwhile is refused; the next look sees it as it is.
        let first_refusal = done.refused.first().and_then(Refusal::of_item);
        tracing::info!(
            n_builds = done.changed.len(),
            n_refused = done.refused.len(),
            refusal = first_refusal.map(tracing::field::display),
            "builds added"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
