//! One thing in full: what its record and everything beside it say.

use proto::admin::{Sheet, Subject};
use raft::View;
use statemachine::Views;
use statemachine::coordinator::keys::LogKind;
use statemachine::view::{BuildId, IndexId, PlanId, SegmentId, ServerId};

use super::{InspectError, collection_name, garbage, hybrid_time, list, parse_id, sheet, time};
use crate::coordinator::settings::CoordinatorSettings;

pub(super) fn of(
    view: &View,
    settings: &CoordinatorSettings,
    subject: Subject,
    id: &str,
) -> Result<Sheet, InspectError> {
    let mut notes = Vec::new();
    let facts = match subject {
        Subject::Segment => {
            let id = SegmentId(parse_id(id)?);
            view.read(|state| segment(state.views(), id))?
        }
        Subject::Channel => view.read(|state| channel(state.views(), id))?,
        Subject::Compaction => {
            let id = PlanId(parse_id(id)?);
            view.read(|state| compaction(state.views(), id))?
        }
        Subject::Index => {
            let id = parse_id(id)?;
            view.read(|state| index(state.views(), id))?
        }
        Subject::Import => import(view, parse_id(id)?)?,
        Subject::Garbage => {
            notes = view.read(garbage::notes);
            let is_of_garbage =
                |key: &str| key.contains(".gc.") || key.contains("GarbageCollection");
            let keys = settings.effective.iter().filter(|(key, _)| is_of_garbage(key));
            keys.map(|(key, value)| fact(key, value)).collect()
        }
        Subject::Unspecified => {
            return Err(InspectError::Invalid("say what shall be shown".to_owned()));
        }
    };
    Ok(sheet(&["what", "value"], facts, notes))
}

fn fact(what: &str, value: impl ToString) -> Vec<String> {
    vec![what.to_owned(), value.to_string()]
}

pub(super) fn no_segment(id: SegmentId) -> InspectError {
    InspectError::NotFound(format!("there is no segment {id}"))
}

fn segment(views: &Views, id: SegmentId) -> Result<Vec<Vec<String>>, InspectError> {
    let segments = views.segments();
    let segment = segments.get(id).ok_or_else(|| no_segment(id))?;
    let mut facts = vec![
        fact("segment", id),
        fact(
            "collection",
            format_args!("{} ({})", segment.collection, collection_name(views, segment.collection)),
        ),
        fact("partition", segment.partition),
        fact("channel", &segment.channel),
        fact("state", segment.state.as_str_name()),
        fact("rows", segment.rows),
        fact("rows at most", segment.rows_max),
        fact("last expiry", hybrid_time(segment.last_expire_ts)),
        fact("start position", segment.start_ts.map_or_else(|| "-".to_owned(), hybrid_time)),
        fact("written up to", segment.dml_ts.map_or_else(|| "-".to_owned(), hybrid_time)),
        fact("dropped", time(segment.dropped_at_ns / 1_000_000)),
        fact("record's revision", segment.revision),
    ];
    if let Some(growth) = segments.growth(id) {
        facts.push(fact("has rows", growth.has_rows.as_str_name()));
        facts.push(fact(
            "window",
            format_args!(
                "{} rows until {}",
                growth.window_rows,
                hybrid_time(growth.window_expire_ts)
            ),
        ));
        facts.push(fact("sealed", time(growth.sealed_at_ms)));
    }
    for parent in &segment.parents {
        facts.push(fact("made from", parent));
    }
    if let Some(child) = segments.child_of(id) {
        facts.push(fact("compacted into", child));
    }
    if let Some(plan) = views.plans().of_input(id) {
        facts.push(fact("in compaction", plan));
    }
    for kind in LogKind::ALL {
        let total = segments.logs(id).map(|logs| logs.total(kind)).unwrap_or_default();
        let text =
            format!("{} files, {} entries, {} bytes", total.files, total.entries, total.size_bytes);
        facts.push(fact(kind.as_str(), text));
    }
    for (build, of) in views.indexes().of_segment(id) {
        let text = format!(
            "index {} {} on node {}, attempt {}",
            of.index,
            of.state.as_str_name(),
            of.node,
            of.version
        );
        facts.push(fact(&format!("build {build}"), text));
    }
    Ok(facts)
}

fn channel(views: &Views, name: &str) -> Result<Vec<Vec<String>>, InspectError> {
    let assignments = views.assignments();
    let assignment = assignments
        .get(name)
        .ok_or_else(|| InspectError::NotFound(format!("there is no channel `{name}`")))?;
    let mut facts = vec![
        fact("channel", name),
        fact(
            "collection",
            format_args!(
                "{} ({})",
                assignment.collection,
                collection_name(views, assignment.collection)
            ),
        ),
        fact("node", list::node(assignment.node)),
        fact("epoch", assignment.epoch),
    ];
    for owner in views.channels().owners_of(name) {
        if let Some(watch) = views.channels().get(owner, name) {
            facts.push(fact(&format!("command to {}", list::node(owner)), watch));
        }
    }
    if let Some(checkpoint) = assignments.checkpoint(name) {
        facts.push(fact("checkpoint", hybrid_time(checkpoint.position.timestamp)));
    }
    if let Some(removed) = assignments.removal(name) {
        facts.push(fact("marked removed", removed));
    }
    for (id, segment) in views.segments().open_of_channel(name) {
        facts.push(fact("open segment", format_args!("{id} {}", segment.state.as_str_name())));
    }
    for plan in views.plans().running_on(name) {
        facts.push(fact("running compaction", plan));
    }
    Ok(facts)
}

fn compaction(views: &Views, id: PlanId) -> Result<Vec<Vec<String>>, InspectError> {
    let plan = views
        .plans()
        .get(id)
        .ok_or_else(|| InspectError::NotFound(format!("there is no compaction plan {id}")))?;
    let task = &plan.task;
    let mut facts = vec![
        fact("plan", id),
        fact("collection", task.collection),
        fact("partition", task.partition),
        fact("channel", &task.channel),
        fact("state", list::plan_state(task.state())),
        fact("reason", &task.reason),
        fact("priority", list::milli(task.priority_milli)),
    ];
    for (name, factor) in
        ["delete ratio", "fragmentation", "age", "size"].iter().zip(&task.factors_milli)
    {
        facts.push(fact(&format!("factor {name}"), list::milli(*factor)));
    }
    facts.extend([
        fact("node", list::node(ServerId(task.node))),
        fact("epoch", task.epoch),
        fact("attempt", task.attempt),
        fact("rows", task.total_rows),
        fact("planned", time(task.planned_at_ms)),
        fact("started", hybrid_time(task.start_ts)),
        fact("timeout s", task.timeout_s),
        fact("result", task.result),
        fact("result rows", task.result_rows),
        fact("ended", time(task.ended_at_ms)),
        fact("end reason", &task.end_reason),
    ]);
    for input in &task.inputs {
        let text = format!("{} with {} delta logs", input.segment, input.deltalogs.len());
        facts.push(fact("input", text));
    }
    Ok(facts)
}

fn index(views: &Views, id: i64) -> Result<Vec<Vec<String>>, InspectError> {
    if let Some(build) = views.indexes().build(BuildId(id)) {
        return Ok(vec![
            fact("build", id),
            fact("index", build.index),
            fact("segment", build.segment),
            fact("collection", build.collection),
            fact("state", build.state.as_str_name()),
            fact("attempt", build.version),
            fact("node", build.node),
            fact("rows", build.rows),
            fact("bytes", build.size_bytes),
            fact("files", build.n_files),
            fact("engine version", build.engine_version),
            fact("dropped", build.is_deleted),
        ]);
    }
    let found =
        views.indexes().definitions().decoded().find(|((_, index), _)| *index == IndexId(id));
    let ((collection, _), definition) = found
        .ok_or_else(|| InspectError::NotFound(format!("there is no index and no build {id}")))?;
    let mut facts = vec![
        fact("index", id),
        fact("collection", format_args!("{collection} ({})", collection_name(views, *collection))),
        fact("field", definition.field),
        fact("name", &definition.name),
        fact("created", hybrid_time(definition.create_ts)),
        fact("dropped", definition.is_deleted),
    ];
    for pair in definition.type_params.iter().chain(&definition.index_params) {
        facts.push(fact(&pair.key, &pair.value));
    }
    Ok(facts)
}

fn import(view: &View, id: i64) -> Result<Vec<Vec<String>>, InspectError> {
    let task = list::tasks(view)?
        .into_iter()
        .find(|task| task.id == id)
        .ok_or_else(|| InspectError::NotFound(format!("there is no import task {id}")))?;
    let state = task.state.clone().unwrap_or_default();
    let mut facts = vec![
        fact("task", id),
        fact("collection", format_args!("{} ({})", task.collection_id, task.collection_name)),
        fact("partition", &task.partition_name),
        fact("state", state.state_code().as_str_name()),
        fact("error", &state.error_message),
        fact("node", task.datanode_id),
        fact("rows", state.row_count),
    ];
    facts.extend(task.files.iter().map(|file| fact("file", file)));
    facts.extend(state.segments.iter().map(|segment| fact("segment", segment)));
    Ok(facts)
}
