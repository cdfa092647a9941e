//! What people ask about Milvus's things: lists, one thing in full, and what it waits for.
//!
//! Answered on any node, from its views. Where the node cannot confirm that nothing newer exists,
//! the answer says so.

mod explain;
mod garbage;
mod list;
mod show;
mod states;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::admin::{InspectRequest, Question, Sheet, SheetRow, Subject};
use raft::{Consistency, Node, View};
use statemachine::view::CollectionId;
use statemachine::{State, Views};
use tokio::time::Instant;

use crate::coordinator::Coordinator;
use crate::coordinator::objects::StoreHealth;
use crate::coordinator::settings::CoordinatorSettings;
use crate::tasks;

/// How long a node tries to confirm that it is up to date before it answers as it is.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
const ROWS_DEFAULT: usize = 1000;
/// A list is made under the lock of the state, which apply waits for.
const ROWS_MAX: usize = 20_000;

/// Why a question has no answer; the text is for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Store(String),
}

/// What a node knows beside the state, for an explanation. The leader knows most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// How its calls on the object store go.
    store: Option<StoreHealth>,
    /// For how long no data node has reported of the channel that is asked for.
    silence: Option<Duration>,
}

impl Known {
    pub(crate) fn by(coordinator: Option<&Arc<Coordinator>>, request: &InspectRequest) -> Known {
        let Some(coordinator) = coordinator else { return Known::default() };
        let lead = coordinator.lead().ok().filter(|_| request.subject() == Subject::Channel);
        Known {
            store: Some(coordinator.objects().health()),
            silence: lead.map(|lead| lead.observed.silence(&request.id)),
        }
    }
}

/// # Errors
/// The question makes no sense, or is about a thing that is not there.
pub(crate) async fn answer(
    node: &Node,
    settings: &Arc<CoordinatorSettings>,
    known: Known,
    request: &InspectRequest,
) -> Result<Sheet, InspectError> {
    let confirmed = match request.local {
        true => None,
        false => {
            let deadline = Instant::now() + CONFIRM_WITHIN;
            node.view(Consistency::Linearizable, deadline).await.ok()
        }
    };
    let stale = confirmed.is_none();
    let view = confirmed.unwrap_or_else(|| node.local_view());
    let (settings, request) = (Arc::clone(settings), request.clone());
    let now_ms = node.now_ms();
    // Among a million records that is no work for the threads that serve calls.
    let looked = tasks::spawn_blocking(move || {
        let sheet = look(&view, &settings, &known, &request, now_ms)?;
        Ok((sheet, view.read(State::revision)))
    });
    let ended_early = |error| InspectError::Store(format!("the look ended early: {error}"));
    let (mut sheet, revision) = looked.await.map_err(ended_early)??;
    sheet.stale = stale;
    sheet.node = node.name().to_owned();
    sheet.revision = revision;
    Ok(sheet)
}

fn look(
    view: &View,
    settings: &CoordinatorSettings,
    known: &Known,
    request: &InspectRequest,
    now_ms: u64,
) -> Result<Sheet, InspectError> {
    let subject = request.subject();
    match request.question() {
        Question::List => {
            let filter = view.read(|state| Filter::of(state.views(), request))?;
            list::of(view, subject, &filter)
        }
        Question::Show => show::of(view, settings, subject, &request.id),
        Question::Explain => {
            view.read(|state| explain::of(state, settings, known, (subject, &request.id), now_ms))
        }
        Question::Unspecified => {
            Err(InspectError::Invalid("list, show or explain is expected".to_owned()))
        }
    }
}

/// What a list lets through.
struct Filter {
    collection: Option<CollectionId>,
    channel: Option<String>,
    /// Lower case.
    state: Option<String>,
    limit: usize,
}

impl Filter {
    fn of(views: &Views, request: &InspectRequest) -> Result<Filter, InspectError> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        if let Some(state) = given(&request.state) {
            states::check(request.subject(), &state)?;
        }
        let limit = usize::try_from(request.limit).unwrap_or(ROWS_MAX);
        Ok(Filter {
            collection: match given(&request.collection) {
                Some(text) => Some(collection(views, &text)?),
                None => None,
            },
            channel: given(&request.channel),
            state: given(&request.state).map(|state| state.to_ascii_lowercase()),
            limit: if limit == 0 { ROWS_DEFAULT } else { limit.min(ROWS_MAX) },
        })
    }

    fn state_fits(&self, state: &str) -> bool {
        self.state.as_ref().is_none_or(|wanted| state.eq_ignore_ascii_case(wanted))
    }
}

/// A collection by its id, or by its name in any database.
///
/// # Errors
/// No collection has that name, or several do.
pub(crate) fn collection(views: &Views, text: &str) -> Result<CollectionId, InspectError> {
    if let Ok(id) = text.parse() {
        return Ok(CollectionId(id));
    }
    let mut named = views.catalog().collections().decoded().filter(|(_, one)| &*one.name == text);
    match (named.next(), named.next()) {
        (Some((key, _)), None) => Ok(key.collection),
        (Some(_), Some(_)) => Err(InspectError::Invalid(format!(
            "several databases have a collection `{text}`; give its id"
        ))),
        (None, _) => Err(InspectError::NotFound(format!("no collection has the name `{text}`"))),
    }
}

fn collection_name(views: &Views, id: CollectionId) -> String {
    match views.catalog().collection(id) {
        Some((_, collection)) => collection.name.to_string(),
        None => "(gone)".to_owned(),
    }
}

fn parse_id(text: &str) -> Result<i64, InspectError> {
    text.parse().map_err(|_not_one| InspectError::Invalid(format!("`{text}` is no id")))
}

fn sheet(columns: &[&str], rows: Vec<Vec<String>>, notes: Vec<String>) -> Sheet {
    Sheet {
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        rows: rows.into_iter().map(|cells| SheetRow { cells }).collect(),
        notes,
        ..Sheet::default()
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// 31 December 9999: later ones cannot be written as dates.
const LAST_TIME_MS: u64 = 253_402_214_400_000;

/// Unix milliseconds as a date, and the number itself where it is none: records and files are
/// written by others, too.
pub(crate) fn show_time(ms: u64) -> String {
    if ms > LAST_TIME_MS {
        return ms.to_string();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// Unix milliseconds for people; `-` for none.
fn time(ms: u64) -> String {
    if ms == 0 { "-".to_owned() } else { show_time(ms) }
}

/// A hybrid timestamp for people.
fn hybrid_time(ts: u64) -> String {
    time(crate::coordinator::tso::physical_ms(ts))
}

fn ago(ms: u64, now_ms: u64) -> String {
    if ms == 0 {
        return "-".to_owned();
    }
    let age = Duration::from_secs(now_ms.saturating_sub(ms) / 1000);
    humantime::format_duration(age).to_string()
}

/// A sheet as JSON: one object a row, numbers as numbers.
pub(crate) fn json(sheet: &Sheet) -> serde_json::Value {
    let cell = |text: &String| match text.parse::<i64>() {
        Ok(number) if number.to_string() == *text => serde_json::Value::from(number),
        Ok(_) | Err(_) => serde_json::Value::from(text.clone()),
    };
    let rows = sheet.rows.iter().map(|row| {
        let pairs = sheet.columns.iter().zip(&row.cells);
        pairs.map(|(column, text)| (column.clone(), cell(text))).collect()
    });
    serde_json::json!({
        "node": sheet.node,
        "revision": sheet.revision,
        "stale": sheet.stale,
        "rows": rows.collect::<Vec<serde_json::Map<_, _>>>(),
        "notes": sheet.notes,
    })
}

/// The kind of thing that a word of a path or command names.
pub(crate) fn subject(word: &str) -> Option<Subject> {
    match word {
        "segment" | "segments" => Some(Subject::Segment),
        "channel" | "channels" => Some(Subject::Channel),
        "compaction" | "compactions" => Some(Subject::Compaction),
        "index" | "indexes" => Some(Subject::Index),
        "import" | "imports" => Some(Subject::Import),
        "gc" | "garbage" => Some(Subject::Garbage),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_no_dates_are_told_as_they_are() {
        assert_eq!(time(0), "-");
        assert_eq!(time(1_700_000_000_000), "2023-11-14T22:13:20Z");
        // A record that took milliseconds for seconds.
        assert_eq!(time(1_700_000_000_000_000), "1700000000000000");
        assert_eq!(time(LAST_TIME_MS).len(), "9999-12-31T00:00:00Z".len());
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
        assert!(!hybrid_time(u64::MAX).is_empty());
    }
}
