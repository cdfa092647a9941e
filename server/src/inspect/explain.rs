//! What a thing waits for, since when, and who has to act.

mod channel;
mod compaction;
mod index;
mod segment;

use proto::admin::{Sheet, Subject};
use statemachine::session::Role;
use statemachine::view::{BuildId, PlanId, SegmentId, ServerId};
use statemachine::{State, Views};

use super::{InspectError, Known, ago, parse_id, sheet};
use crate::coordinator::objects::StoreHealth;
use crate::coordinator::settings::CoordinatorSettings;

/// A condition on the way of a thing.
struct Line {
    condition: String,
    verdict: Verdict,
    /// Unix milliseconds; 0 where nobody knows.
    since_ms: u64,
    who: String,
}

enum Verdict {
    /// It holds.
    Met,
    /// The thing waits for it.
    Waits,
    /// Nothing is ever to happen any more.
    Done,
}

impl Line {
    fn met(condition: impl Into<String>) -> Line {
        Line { condition: condition.into(), verdict: Verdict::Met, since_ms: 0, who: String::new() }
    }

    fn done(condition: impl Into<String>) -> Line {
        Line { verdict: Verdict::Done, ..Line::met(condition) }
    }

    fn waits(condition: impl Into<String>, since_ms: u64, who: impl Into<String>) -> Line {
        Line { condition: condition.into(), verdict: Verdict::Waits, since_ms, who: who.into() }
    }

    /// Met, or waited for.
    fn judge(met: bool, condition: impl Into<String>, since_ms: u64, who: &str) -> Line {
        match met {
            true => Line::met(condition),
            false => Line::waits(condition, since_ms, who),
        }
    }
}

/// What an explanation is made of.
struct Scene<'a> {
    views: &'a Views,
    settings: &'a CoordinatorSettings,
    now_ms: u64,
}

pub(super) fn of(
    state: &State,
    settings: &CoordinatorSettings,
    known: &Known,
    (subject, id): (Subject, &str),
    now_ms: u64,
) -> Result<Sheet, InspectError> {
    let scene = Scene { views: state.views(), settings, now_ms };
    let mut lines = role(state);
    lines.extend(known.store.as_ref().and_then(|store| object_store(store, now_ms)));
    lines.extend(match subject {
        Subject::Segment => segment::of(&scene, SegmentId(parse_id(id)?))?,
        Subject::Channel => channel::of(&scene, id, known.silence)?,
        Subject::Compaction => compaction::of(&scene, PlanId(parse_id(id)?))?,
        Subject::Index => index::of(&scene, parse_id(id)?)?,
        Subject::Import | Subject::Garbage | Subject::Unspecified => {
            return Err(InspectError::Invalid(
                "segments, channels, compactions and indexes can be explained".to_owned(),
            ));
        }
    });
    let rows = lines
        .into_iter()
        .map(|line| {
            let verdict = match line.verdict {
                Verdict::Met => "met",
                Verdict::Waits => "WAITS",
                Verdict::Done => "done",
            };
            let who = if line.who.is_empty() { "-".to_owned() } else { line.who };
            vec![verdict.to_owned(), line.condition, ago(line.since_ms, now_ms), who]
        })
        .collect();
    Ok(sheet(&["verdict", "condition", "for", "who must act"], rows, Vec::new()))
}

/// Nothing moves while nobody coordinates.
fn role(state: &State) -> Vec<Line> {
    if !state.settings().coordinator {
        let who = "an operator: `--coordinator datacoord`, or the DataCoord of Milvus";
        return vec![Line::waits("our coordinator's role is on", 0, who)];
    }
    Vec::new()
}

/// Files are where everything of Milvus's ends.
fn object_store(store: &StoreHealth, now_ms: u64) -> Option<Line> {
    let (failing, reason) = store.failing.as_ref()?;
    let failing_ms = u64::try_from(failing.as_millis()).unwrap_or(u64::MAX);
    Some(Line::waits(
        "the object store answers",
        now_ms.saturating_sub(failing_ms),
        format!("an operator: the object store ({reason})"),
    ))
}

/// RootCoord gives the ids and timestamps that everything new needs.
fn rootcoord(views: &Views) -> Line {
    let there = views.sessions().active(Role::RootCoord).is_some();
    Line::judge(there, "RootCoord has a session", 0, "an operator: start RootCoord")
}

fn is_alive(views: &Views, node: ServerId) -> bool {
    views.sessions().node(Role::DataNode, node).is_some()
}

/// The moment that a Milvus id carries in it.
fn born_ms(id: i64) -> u64 {
    crate::coordinator::tso::physical_ms(id.unsigned_abs())
}

/// State of one build, and who works on it.
fn build(scene: &Scene<'_>, id: BuildId) -> Vec<Line> {
    use proto::milvus::common::IndexState;
    let Some(build) = scene.views.indexes().build(id) else { return Vec::new() };
    let born = born_ms(id.0);
    let what = format!("index {} is built (build {id})", build.index);
    if build.is_deleted {
        return vec![Line::done(format!(
            "build {id} is marked deleted; garbage collection removes it"
        ))];
    }
    match build.state {
        IndexState::Finished => vec![Line::met(what)],
        IndexState::Failed => {
            let why = build.failure.as_deref().unwrap_or("the index node did not say why");
            let who = format!("the user: drop the index and create it again ({why})");
            vec![Line::waits(what, born, who)]
        }
        IndexState::InProgress => {
            let who = format!("index node {}, attempt {}", build.node, build.version);
            let alive = scene.views.sessions().node(Role::IndexNode, build.node).is_some();
            let mut lines = vec![Line::waits(what, born, who)];
            if !alive && scene.settings.bound_index_node.is_none() {
                lines.push(Line::waits(
                    format!("index node {} has a session", build.node),
                    0,
                    "the coordinator gives the build to another node",
                ));
            }
            lines
        }
        IndexState::None | IndexState::Unissued | IndexState::Retry => {
            let allowed = &scene.settings.allowed_index_nodes;
            let nodes = scene.views.sessions().nodes(Role::IndexNode);
            let (usable, refused): (Vec<_>, Vec<_>) =
                nodes.partition(|(_, session)| allowed.permits(&session.address));
            let is_bound = scene.settings.bound_index_node.is_some();
            let mut lines = vec![Line::judge(
                !usable.is_empty() || is_bound,
                format!("an index node is there ({})", usable.len()),
                born,
                "an operator: start an index node",
            )];
            for (node, session) in refused.iter().filter(|_| !is_bound) {
                lines.push(Line::waits(
                    format!("index node {node} at {} is allowed", session.address),
                    0,
                    "an operator: indexCoord.allowedNodes",
                ));
            }
            let mut who = "an index node with a free slot".to_owned();
            if let Some(failure) = &build.failure {
                who.push_str(&format!("; the last attempt: {failure}"));
            }
            lines.push(Line::waits(what, born, who));
            lines
        }
    }
}
