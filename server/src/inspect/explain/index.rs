//! Indexes: until every flushed segment of the collection has its build.

use proto::milvus::common::SegmentState;
use statemachine::view::{BuildId, IndexId};

use super::super::InspectError;
use super::{Line, Scene, build, rootcoord};

/// Builds that are told one by one.
const BUILDS_TOLD: usize = 20;

/// The id of a definition, or of a build.
pub(super) fn of(scene: &Scene<'_>, id: i64) -> Result<Vec<Line>, InspectError> {
    let indexes = scene.views.indexes();
    if indexes.build(BuildId(id)).is_some() {
        return Ok(build(scene, BuildId(id)));
    }
    let found = indexes.definitions().decoded().find(|((_, index), _)| *index == IndexId(id));
    let Some(((collection, index), definition)) = found else {
        return Err(InspectError::NotFound(format!("there is no index and no build {id}")));
    };
    if definition.is_deleted {
        return Ok(vec![Line::done(
            "it is dropped; garbage collection removes its files and records",
        )]);
    }
    let flushed = scene
        .views
        .segments()
        .of_collection(*collection)
        .filter(|(_, segment)| segment.state == SegmentState::Flushed);
    let (mut finished, mut unplanned) = (0, 0);
    let mut unfinished = Vec::new();
    for (segment, _) in flushed {
        match indexes.of_index(segment, *index) {
            None => unplanned += 1,
            Some((_, build)) if !build.is_unfinished() => finished += 1,
            Some((build, _)) => unfinished.push(build),
        }
    }
    let mut lines = vec![Line::met(format!("{finished} flushed segments have it"))];
    if unplanned > 0 {
        lines.push(Line::waits(
            format!("builds for {unplanned} segments are planned"),
            0,
            "the leading coordinator",
        ));
        lines.push(rootcoord(scene.views));
    }
    for id in unfinished.iter().take(BUILDS_TOLD) {
        lines.extend(build(scene, *id));
    }
    if unfinished.len() > BUILDS_TOLD {
        lines.push(Line::waits(
            format!("{} more builds", unfinished.len() - BUILDS_TOLD),
            0,
            "index nodes",
        ));
    }
    if unplanned == 0 && unfinished.is_empty() {
        lines.push(Line::done("every flushed segment has it"));
    }
    Ok(lines)
}
