//! Lists.

use std::collections::BTreeMap;

use prost::Message;
use proto::admin::{Sheet, Subject};
use proto::etcd;
use proto::milvus::common::IndexState;
use proto::milvus::data::ImportTaskInfo;
use raft::View;
use statemachine::Views;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::{IndexId, SegmentId, ServerId};

use super::{Filter, InspectError, collection_name, garbage, hybrid_time, sheet, time};

/// The state of a channel that has no key.
pub(super) const NO_COMMAND: &str = "no command";

pub(super) fn of(view: &View, subject: Subject, filter: &Filter) -> Result<Sheet, InspectError> {
    match subject {
        Subject::Segment => Ok(view.read(|state| segments(state.views(), filter))),
        Subject::Channel => Ok(view.read(|state| channels(state.views(), filter))),
        Subject::Compaction => Ok(view.read(|state| compactions(state.views(), filter))),
        Subject::Index => Ok(view.read(|state| indexes(state.views(), filter))),
        Subject::Import => imports(view, filter),
        Subject::Garbage => Ok(view.read(|state| garbage::list(state, filter))),
        Subject::Unspecified => {
            Err(InspectError::Invalid("say of what the list shall be".to_owned()))
        }
    }
}

fn segments(views: &Views, filter: &Filter) -> Sheet {
    let all = views.segments();
    let found: Box<dyn Iterator<Item = (SegmentId, &Segment)>> =
        match (&filter.channel, filter.collection, filter.state.as_deref()) {
            (Some(channel), _, _) => Box::new(all.of_channel(channel)),
            (None, Some(collection), _) => Box::new(all.of_collection(collection)),
            (None, None, Some("growing" | "sealed" | "importing")) => Box::new(all.open()),
            (None, None, Some("dropped")) => Box::new(all.dropped_after(SegmentId(i64::MIN))),
            (None, None, _) => Box::new(all.iter()),
        };
    let mut fitting = found.filter(|(_, segment)| {
        filter.collection.is_none_or(|wanted| segment.collection == wanted)
            && filter.state_fits(segment.state.as_str_name())
    });
    let rows: Vec<Vec<String>> =
        fitting.by_ref().take(filter.limit).map(|(id, one)| segment(views, id, one)).collect();
    let more = fitting.next().is_some();
    let columns = [
        "segment",
        "collection",
        "partition",
        "channel",
        "state",
        "rows",
        "max",
        "bytes",
        "files",
        "note",
    ];
    sheet(&columns, rows, more_note(more, filter))
}

fn segment(views: &Views, id: SegmentId, segment: &Segment) -> Vec<String> {
    use statemachine::coordinator::keys::LogKind;
    let logs = views.segments().logs(id);
    let files: u32 =
        logs.map_or(0, |logs| LogKind::ALL.iter().map(|kind| logs.total(*kind).files).sum());
    let mut notes = Vec::new();
    for (set, word) in [
        (segment.is_importing, "importing"),
        (segment.is_compacted, "compacted"),
        (segment.is_compaction_result, "result of a compaction"),
    ] {
        if set {
            notes.push(word);
        }
    }
    vec![
        id.to_string(),
        collection_name(views, segment.collection),
        segment.partition.to_string(),
        segment.channel.to_string(),
        segment.state.as_str_name().to_owned(),
        segment.rows.to_string(),
        segment.rows_max.to_string(),
        logs.map_or(0, |logs| logs.size_bytes()).to_string(),
        files.to_string(),
        notes.join(", "),
    ]
}

fn channels(views: &Views, filter: &Filter) -> Sheet {
    let mut rows = Vec::new();
    let mut more = false;
    let draining = views.assignments().draining();
    let is_draining = |node: ServerId| draining.contains(&node);
    for (name, assignment) in views.assignments().rows().decoded() {
        let fits = filter.collection.is_none_or(|wanted| assignment.collection == wanted)
            && filter.channel.as_ref().is_none_or(|wanted| **name == **wanted);
        let state = watch_state(views, name, assignment.node);
        if !fits || !filter.state_fits(&state) {
            continue;
        }
        if rows.len() == filter.limit {
            more = true;
            break;
        }
        let checkpoint = views.assignments().checkpoint(name);
        let removal = match views.assignments().removal(name) {
            Some(true) => "removed",
            Some(false) | None if is_draining(assignment.node) => "its node is drained",
            Some(false) | None => "",
        };
        rows.push(vec![
            name.to_string(),
            collection_name(views, assignment.collection),
            node(assignment.node),
            assignment.epoch.to_string(),
            state,
            checkpoint.map_or_else(|| "-".to_owned(), |one| hybrid_time(one.position.timestamp)),
            removal.to_owned(),
        ]);
    }
    let columns = ["channel", "collection", "node", "epoch", "state", "checkpoint", "note"];
    sheet(&columns, rows, more_note(more, filter))
}

/// What the command to the channel's node, and its acknowledgement, say.
pub(super) fn watch_state(views: &Views, channel: &str, owner: ServerId) -> String {
    match views.channels().get(owner, channel) {
        Some(watch) => format!("{:?}", watch.state),
        None => NO_COMMAND.to_owned(),
    }
}

pub(super) fn node(id: ServerId) -> String {
    if id == ServerId::NOBODY { "nobody".to_owned() } else { id.to_string() }
}

fn compactions(views: &Views, filter: &Filter) -> Sheet {
    let mut fitting = views.plans().rows().decoded().filter(|(_, plan)| {
        filter.collection.is_none_or(|wanted| plan.task.collection == wanted.0)
            && filter.channel.as_ref().is_none_or(|wanted| plan.task.channel == *wanted)
            && filter.state_fits(plan_state(plan.task.state()))
    });
    let row = |(id, plan): (
        &statemachine::view::PlanId,
        &statemachine::coordinator::compaction::view::Plan,
    )| {
        let task = &plan.task;
        vec![
            id.to_string(),
            collection_name(views, statemachine::view::CollectionId(task.collection)),
            task.channel.clone(),
            plan_state(task.state()).to_owned(),
            task.inputs.len().to_string(),
            task.total_rows.to_string(),
            if task.node == 0 { "-".to_owned() } else { task.node.to_string() },
            if task.result == 0 { "-".to_owned() } else { task.result.to_string() },
            time(task.planned_at_ms),
            milli(task.priority_milli),
            if task.end_reason.is_empty() { task.reason.clone() } else { task.end_reason.clone() },
        ]
    };
    let rows: Vec<Vec<String>> = fitting.by_ref().take(filter.limit).map(row).collect();
    let more = fitting.next().is_some();
    let mut notes = more_note(more, filter);
    if views.plans().is_paused() {
        notes.push("compaction is paused; `quorate compactions resume` goes on".to_owned());
    }
    let columns = [
        "plan",
        "collection",
        "channel",
        "state",
        "inputs",
        "rows",
        "node",
        "result",
        "planned",
        "priority",
        "reason",
    ];
    sheet(&columns, rows, notes)
}

pub(super) fn milli(value: i64) -> String {
    format!("{}.{:03}", value / 1000, (value % 1000).abs())
}

/// As people write it: `queued`.
pub(super) fn plan_state(state: proto::quorate::CompactionState) -> &'static str {
    use proto::quorate::CompactionState;
    match state {
        CompactionState::Unspecified => "unspecified",
        CompactionState::Queued => "queued",
        CompactionState::Executing => "executing",
        CompactionState::Completed => "completed",
        CompactionState::Synced => "synced",
        CompactionState::Failed => "failed",
        CompactionState::TimedOut => "timed-out",
        CompactionState::Cancelled => "cancelled",
    }
}

fn indexes(views: &Views, filter: &Filter) -> Sheet {
    let mut builds: BTreeMap<IndexId, [usize; 4]> = BTreeMap::new();
    for (_, build) in views.indexes().builds().filter(|(_, build)| !build.is_deleted) {
        builds.entry(build.index).or_default()[place(build.state)] += 1;
    }
    let rows = views
        .indexes()
        .definitions()
        .decoded()
        .filter(|((collection, _), _)| filter.collection.is_none_or(|wanted| *collection == wanted))
        .take(filter.limit)
        .map(|((collection, id), definition)| {
            let [waiting, running, finished, failed] = builds.get(id).copied().unwrap_or_default();
            vec![
                id.to_string(),
                collection_name(views, *collection),
                definition.field.to_string(),
                definition.name.to_string(),
                definition.param("index_type").unwrap_or("").to_owned(),
                waiting.to_string(),
                running.to_string(),
                finished.to_string(),
                failed.to_string(),
                if definition.is_deleted { "dropped".to_owned() } else { String::new() },
            ]
        })
        .collect();
    let columns = [
        "index",
        "collection",
        "field",
        "name",
        "type",
        "waiting",
        "running",
        "finished",
        "failed",
        "note",
    ];
    sheet(&columns, rows, Vec::new())
}

fn place(state: IndexState) -> usize {
    match state {
        IndexState::None | IndexState::Unissued | IndexState::Retry => 0,
        IndexState::InProgress => 1,
        IndexState::Finished => 2,
        IndexState::Failed => 3,
    }
}

/// Import tasks are RootCoord's records; the segments that they fill are ours.
fn imports(view: &View, filter: &Filter) -> Result<Sheet, InspectError> {
    let rows = tasks(view)?
        .into_iter()
        .filter(|task| {
            let state = task.state.clone().unwrap_or_default().state_code();
            filter.collection.is_none_or(|wanted| task.collection_id == wanted.0)
                && filter.state_fits(state.as_str_name())
        })
        .take(filter.limit)
        .map(|task| {
            let state = task.state.clone().unwrap_or_default();
            vec![
                task.id.to_string(),
                task.collection_name.clone(),
                task.partition_name.clone(),
                state.state_code().as_str_name().to_owned(),
                task.datanode_id.to_string(),
                state.row_count.to_string(),
                state.segments.len().to_string(),
                time(u64::try_from(task.create_ts).unwrap_or(0).saturating_mul(1000)),
                task.files.join(", "),
            ]
        })
        .collect();
    let columns = [
        "task",
        "collection",
        "partition",
        "state",
        "node",
        "rows",
        "segments",
        "created",
        "files",
    ];
    let importing = view.read(|state| {
        use proto::milvus::common::SegmentState;
        let open = state.views().segments().open();
        open.filter(|(_, segment)| segment.state == SegmentState::Importing).count()
    });
    let notes = match importing {
        0 => Vec::new(),
        n => vec![format!(
            "{n} segments are being filled: `quorate segments list --state Importing`"
        )],
    };
    Ok(sheet(&columns, rows, notes))
}

/// All import tasks on record.
pub(super) fn tasks(view: &View) -> Result<Vec<ImportTaskInfo>, InspectError> {
    let (plan, store) = view.pin(|state| {
        let root_path = &state.settings().root_path;
        let prefix = match root_path.as_str() {
            "" => "meta/importtask/".to_owned(),
            root_path => format!("{root_path}/meta/importtask/"),
        };
        let mut end = prefix.clone().into_bytes();
        // The prefix ends in a slash.
        end.pop();
        end.push(b'/' + 1);
        state.plan_range(&etcd::RangeRequest {
            key: prefix.into(),
            range_end: end.into(),
            ..etcd::RangeRequest::default()
        })
    });
    let plan = plan.map_err(|rejection| InspectError::Store(rejection.to_string()))?;
    let found = plan.fetch(&store).map_err(|fault| InspectError::Store(fault.to_string()))?;
    // What is no task was written by somebody else and is none of ours.
    Ok(found.kvs.into_iter().filter_map(|kv| ImportTaskInfo::decode(kv.value).ok()).collect())
}

fn more_note(more: bool, filter: &Filter) -> Vec<String> {
    if more {
        vec![format!(
            "only the first {} are shown; --limit shows more, filters fewer",
            filter.limit
        )]
    } else {
        Vec::new()
    }
}
