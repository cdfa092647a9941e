//! Segments: until they are sealed, flushed, indexed, compacted, collected.

use std::time::Duration;

use proto::milvus::common::SegmentState;
use proto::quorate::HasRows;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::SegmentId;

use super::super::show::no_segment;
use super::super::{InspectError, hybrid_time};
use super::{Line, Scene, born_ms, build, channel, rootcoord};
use crate::coordinator::tso::physical_ms;

pub(super) fn of(scene: &Scene<'_>, id: SegmentId) -> Result<Vec<Line>, InspectError> {
    let segment = scene.views.segments().get(id).ok_or_else(|| no_segment(id))?;
    let mut lines = vec![Line::met(format!("it is {}", segment.state.as_str_name()))];
    lines.extend(match segment.state {
        SegmentState::Growing => growing(scene, id, segment),
        SegmentState::Sealed => sealed(scene, id, segment),
        SegmentState::Importing => importing(scene, id),
        SegmentState::Flushed | SegmentState::Flushing => flushed(scene, id, segment),
        SegmentState::Dropped => dropped(scene, id, segment),
        SegmentState::None | SegmentState::NotExist => vec![Line::done("nothing happens to it")],
    });
    Ok(lines)
}

/// Any one of them seals it.
fn growing(scene: &Scene<'_>, id: SegmentId, segment: &Segment) -> Vec<Line> {
    let born = born_ms(id.0);
    let settings = scene.settings;
    let life_ends = born + ms(settings.segment_max_life);
    let mut lines = vec![
        Line::waits(
            format!(
                "sealed when full: {} of {} rows and more (sealProportion {})",
                segment.rows, segment.rows_max, settings.seal_proportion
            ),
            born,
            "clients that insert; row counts of unwritten rows are in the leader's memory",
        ),
        Line::judge(
            scene.now_ms >= life_ends,
            format!("or sealed by age: {}", span(settings.segment_max_life)),
            born,
            "time",
        ),
        Line::waits(
            format!(
                "or sealed when idle: {} without rows, and {} MB at least",
                span(settings.segment_max_idle),
                settings.min_size_from_idle_mb
            ),
            0,
            "time",
        ),
        Line::waits("or sealed by a flush", 0, "a client that calls flush()"),
    ];
    match scene.views.segments().growth(id) {
        Some(growth) if growth.window_rows > 0 => lines.push(Line::met(format!(
            "{} rows may be assigned until {}",
            growth.window_rows,
            hybrid_time(growth.window_expire_ts)
        ))),
        Some(_) => {}
        None => {
            lines.push(Line::waits(
                "taken over from the coordinator that made it",
                0,
                "the leading coordinator",
            ));
            lines.push(rootcoord(scene.views));
        }
    }
    lines.extend(channel::owner(scene, &segment.channel));
    lines
}

fn sealed(scene: &Scene<'_>, id: SegmentId, segment: &Segment) -> Vec<Line> {
    let growth = scene.views.segments().growth(id);
    let since = growth.map_or(0, |growth| growth.sealed_at_ms);
    let expired = physical_ms(segment.last_expire_ts) < scene.now_ms;
    let mut lines = vec![Line::judge(
        expired,
        format!("its assignments have expired ({})", hybrid_time(segment.last_expire_ts)),
        since,
        "time",
    )];
    lines.extend(channel::owner(scene, &segment.channel));
    let node = scene.views.assignments().get(&segment.channel).map(|one| one.node);
    let node = node.map_or_else(|| "nobody".to_owned(), super::super::list::node);
    match growth.map(|growth| growth.has_rows) {
        Some(HasRows::No) => lines.push(Line::waits(
            "dropped, as it never got a row: a tick of its channel past the expiry",
            since,
            format!("data node {node} reports a tick"),
        )),
        Some(HasRows::Yes | HasRows::Unknown) | None => {
            lines.push(Line::waits(
                "a tick of its channel past the expiry, then FlushSegments",
                since,
                format!("data node {node} reports a tick"),
            ));
            lines.push(Line::waits(
                "its rows are written and saved",
                since,
                format!("data node {node}"),
            ));
        }
    }
    lines
}

fn importing(scene: &Scene<'_>, id: SegmentId) -> Vec<Line> {
    let born = born_ms(id.0);
    vec![
        Line::waits(
            "the import that fills it is done",
            born,
            "the data node of the import, then RootCoord (`quorate imports list`)",
        ),
        Line::waits(
            format!("or it is given up after {}", span(scene.settings.import_task_expiration)),
            born,
            "time",
        ),
    ]
}

fn flushed(scene: &Scene<'_>, id: SegmentId, segment: &Segment) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut n_indexes = 0;
    for (index, definition) in scene.views.indexes().live_of(segment.collection) {
        n_indexes += 1;
        match scene.views.indexes().of_index(id, index) {
            Some((build_id, _)) => lines.extend(build(scene, build_id)),
            None => {
                lines.push(Line::waits(
                    format!("a build of index {index} (`{}`) is planned", definition.name),
                    0,
                    "the leading coordinator",
                ));
                lines.push(rootcoord(scene.views));
            }
        }
    }
    if n_indexes == 0 {
        lines.push(Line::met("its collection has no index: query nodes load its rows"));
    }
    match scene.views.plans().of_input(id) {
        Some(plan) => lines.push(Line::waits(
            format!("compaction plan {plan} takes it in"),
            0,
            format!("`quorate explain compaction {plan}`"),
        )),
        None => lines.push(Line::done("no compaction has it")),
    }
    lines
}

fn dropped(scene: &Scene<'_>, id: SegmentId, segment: &Segment) -> Vec<Line> {
    let since = segment.dropped_at_ns / 1_000_000;
    let settings = scene.settings;
    let due = since + ms(settings.gc_drop_tolerance);
    let mut lines = vec![
        Line::judge(
            settings.enable_gc,
            "garbage collection is enabled",
            0,
            "an operator: dataCoord.enableGarbageCollection",
        ),
        Line::judge(
            scene.now_ms >= due,
            format!("dropped for {} (dropTolerance)", span(settings.gc_drop_tolerance)),
            since,
            "time",
        ),
    ];
    if let Some(child) = scene.views.segments().child_of(id) {
        let checkpoint = scene.views.assignments().checkpoint(&segment.channel);
        let passed = match (checkpoint, segment.dml_ts) {
            (Some(checkpoint), Some(written)) => checkpoint.position.timestamp >= written,
            (None, _) | (_, None) => false,
        };
        lines.push(Line::judge(
            passed,
            "its channel's checkpoint has passed it",
            since,
            "the channel's data node reports a checkpoint",
        ));
        let builds = scene.views.indexes().of_segment(child);
        let indexed = builds.into_iter().all(|(_, build)| !build.is_unfinished());
        lines.push(Line::judge(
            indexed || scene.views.segments().healthy(child).is_none(),
            format!("the result of its compaction, {child}, is indexed or gone"),
            since,
            "index nodes",
        ));
    }
    lines.push(Line::waits(
        format!("the next round of garbage collection, every {}", span(settings.gc_interval)),
        since,
        "the leading coordinator",
    ));
    lines
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

fn span(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}
