//! One method of the coordinator under load: clients in a closed loop, or at a given rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use prost::Message;
use proto::milvus::{common, data, msg};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::target::{PAUSE, Place, ROWS, Target, check_assigned};
use crate::load::wire::{Connection, Head, encode};
use crate::numbers::{float, micros};
use crate::report;

const WARM_UP: Duration = Duration::from_secs(2);
/// A stock coordinator with many segments takes that long.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Fits into an empty segment of 512 MB, and into no other: each request is given a new one.
const ROWS_OF_SEGMENT: u32 = 890_000;
/// How often one segment is written before the next one is asked for.
const SAVES_OF_SEGMENT: u64 = 20;
/// RowID, timestamp, primary key and vector.
const FIELDS: [i64; 4] = [0, 1, 100, 101];

/// What is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, ValueEnum)]
pub enum Method {
    /// A hundred rows, as a proxy asks for them.
    AssignSegmentId,
    /// One more log of each field and a checkpoint, as a data node tells after a sync.
    SaveBinlogPaths,
    /// The second version, as a query coordinator asks.
    GetRecoveryInfo,
}

impl Method {
    /// As Milvus calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::AssignSegmentId => "AssignSegmentID",
            Method::SaveBinlogPaths => "SaveBinlogPaths",
            Method::GetRecoveryInfo => "GetRecoveryInfoV2",
        }
    }

    fn path(self) -> String {
        format!("/milvus.proto.data.DataCoord/{}", self.name())
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub method: Method,
    pub n_clients: usize,
    /// Calls a second of all clients together; as fast as answers come where `None`.
    pub rate: Option<u32>,
    pub duration: Duration,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallReport {
    pub method: Method,
    pub n_clients: usize,
    pub rate: Option<u32>,
    pub per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub n_errors: u64,
}

impl CallReport {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let paced = self.rate.map_or(String::new(), |rate| format!(" at {rate}/s"));
        format!(
            "{}, {} clients{paced}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} errors",
            self.method.name(),
            self.n_clients,
            self.per_s,
            self.p50_ms,
            self.p99_ms,
            self.n_errors
        )
    }
}

/// Runs clients for some time.
///
/// # Errors
/// Nobody was ever answered.
pub(super) async fn run(target: &Target, load: Load) -> Result<CallReport> {
    target.assign_until(Duration::from_secs(60)).await?;
    let from = Instant::now() + WARM_UP;
    let span = Span { from, until: from + load.duration };
    let pace = load.rate.map(|rate| Arc::new(Pace::new(rate)));
    let mut clients = JoinSet::new();
    for nth in 0..load.n_clients {
        let caller = Caller { target: target.clone(), method: load.method, nth, open: None };
        clients.spawn(client(caller, span, pace.clone()));
    }
    let mut all = histogram()?;
    let mut n_errors = 0;
    let mut first_error = None;
    while let Some(ended) = clients.join_next().await {
        let (latencies, errors, why) = ended.context("a client panicked")??;
        all.add(latencies)?;
        n_errors += errors;
        first_error = first_error.or(why);
    }
    if all.is_empty() {
        bail!("{} was never answered: {}", load.method.name(), first_error.unwrap_or_default());
    }
    if let Some(why) = first_error {
        report::progress(format!("{} was refused: {why}", load.method.name()));
    }
    Ok(CallReport {
        method: load.method,
        n_clients: load.n_clients,
        rate: load.rate,
        per_s: float(all.len()) / load.duration.as_secs_f64(),
        p50_ms: float(all.value_at_quantile(0.5)) / 1000.0,
        p99_ms: float(all.value_at_quantile(0.99)) / 1000.0,
        n_errors,
    })
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000, 2)?)
}

/// What is measured; calls before and after it only keep the load up.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Instant,
    until: Instant,
}

/// When calls are due. A late one counts from when it was due.
struct Pace {
    began: Instant,
    between: Duration,
    next: AtomicU64,
}

impl Pace {
    fn new(rate: u32) -> Pace {
        let between = Duration::from_secs(1) / rate.max(1);
        Pace { began: Instant::now(), between, next: AtomicU64::new(0) }
    }

    async fn due(&self) -> Instant {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.began + self.between.mul_f64(float(nth));
        tokio::time::sleep_until(due.into()).await;
        due
    }
}

async fn client(
    mut caller: Caller,
    span: Span,
    pace: Option<Arc<Pace>>,
) -> Result<(Histogram<u64>, u64, Option<String>)> {
    let mut latencies = histogram()?;
    let (mut n_errors, mut first_error) = (0, None);
    'connect: while Instant::now() < span.until {
        let Ok(connection) = caller.target.connect().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let head = connection.head(&caller.method.path())?;
        while Instant::now() < span.until {
            let due = match &pace {
                Some(pace) => Some(pace.due().await),
                None => None,
            };
            let called = caller.once(&connection, &head).await;
            let now = Instant::now();
            match called {
                Ok(began) if now >= span.from && now < span.until => {
                    let took = now - due.unwrap_or(began);
                    latencies.saturating_record(micros(took).max(1));
                }
                Ok(_not_measured) => {}
                Err(error) => {
                    n_errors += 1;
                    first_error.get_or_insert_with(|| format!("{error:#}"));
                    tokio::time::sleep(PAUSE).await;
                    continue 'connect;
                }
            }
        }
    }
    Ok((latencies, n_errors, first_error))
}

/// One client.
struct Caller {
    target: Target,
    method: Method,
    nth: usize,
    open: Option<OpenSegment>,
}

/// A segment that a client of `SaveBinlogPaths` fills.
#[derive(Clone, Debug)]
struct OpenSegment {
    id: i64,
    channel: String,
    n_saves: u64,
}

impl Caller {
    /// One call; when it began. What prepares it is not measured.
    async fn once(&mut self, connection: &Connection, head: &Head) -> Result<Instant> {
        self.nth += 1;
        match self.method {
            Method::AssignSegmentId => {
                let request = encode(&self.target.assignment(self.nth, ROWS));
                let began = Instant::now();
                let answer: data::AssignSegmentIdResponse = call(connection, head, request).await?;
                check_assigned(&answer, ROWS)?;
                Ok(began)
            }
            Method::SaveBinlogPaths => {
                let segment = match self.open.take() {
                    Some(segment) if segment.n_saves < SAVES_OF_SEGMENT => segment,
                    Some(_) | None => self.open_segment(connection).await?,
                };
                let request = encode(&save(&self.target.place, &segment));
                let began = Instant::now();
                let status: common::Status = call(connection, head, request).await?;
                check_status(Some(&status))?;
                self.open = Some(OpenSegment { n_saves: segment.n_saves + 1, ..segment });
                Ok(began)
            }
            Method::GetRecoveryInfo => {
                let Place { collection, .. } = *self.target.place;
                let request = data::GetRecoveryInfoRequestV2 {
                    collection_id: collection,
                    ..Default::default()
                };
                let request = encode(&request);
                let began = Instant::now();
                let answer: data::GetRecoveryInfoResponseV2 =
                    call(connection, head, request).await?;
                check_status(answer.status.as_ref())?;
                ensure!(!answer.channels.is_empty(), "no channel in the answer");
                Ok(began)
            }
        }
    }

    async fn open_segment(&self, connection: &Connection) -> Result<OpenSegment> {
        let head = connection.head(&Method::AssignSegmentId.path())?;
        let request = encode(&self.target.assignment(self.nth, ROWS_OF_SEGMENT));
        let answer: data::AssignSegmentIdResponse = call(connection, &head, request).await?;
        check_assigned(&answer, ROWS_OF_SEGMENT)?;
        let given = answer.seg_id_assignments.first().context("no segment was given")?;
        Ok(OpenSegment { id: given.seg_id, channel: given.channel_name.clone(), n_saves: 0 })
    }
}

async fn call<A: Message + Default>(
    connection: &Connection,
    head: &Head,
    request: bytes::Bytes,
) -> Result<A> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, connection.call(head, request)).await??;
    Ok(A::decode(answer)?)
}

fn check_status(status: Option<&common::Status>) -> Result<()> {
    if let Some(status) = status {
        ensure!(status.code == 0 && status.error_code == 0, "refused: {}", status.reason);
    }
    Ok(())
}

/// One log of each field, a statistics log, rows and a position.
fn save(place: &Place, segment: &OpenSegment) -> data::SaveBinlogPathsRequest {
    static NEXT_LOG: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started_ms = u64::try_from(since.as_millis()).unwrap_or_default();
    let timestamp = started_ms << 18;
    // Above all ids that a RootCoord gives: the physical part of those is of today.
    let base = (started_ms + 1_000_000_000) << 18;
    let rows = 100 * (i64::try_from(segment.n_saves).unwrap_or_default() + 1);
    let log = |folder: &str, field: i64| {
        let log_id = base.cast_signed() + NEXT_LOG.fetch_add(1, Ordering::Relaxed).cast_signed();
        let Place { collection, partition, .. } = place;
        let binlog = data::Binlog {
            entries_num: 100,
            timestamp_from: timestamp,
            timestamp_to: timestamp,
            log_path: format!(
                "files/{folder}/{collection}/{partition}/{}/{field}/{log_id}",
                segment.id
            ),
            log_size: 51_200,
            log_id: 0,
        };
        data::FieldBinlog { field_id: field, binlogs: vec![binlog] }
    };
    let owners = place.channels.iter().zip(&place.data_nodes);
    let mut owners = owners.filter(|(channel, _)| **channel == segment.channel);
    let source_id = owners.next().map_or(0, |(_, node)| *node);
    let position = msg::MsgPosition {
        channel_name: segment.channel.clone(),
        msg_id: vec![1; 8].into(),
        msg_group: "bench".to_owned(),
        timestamp,
    };
    data::SaveBinlogPathsRequest {
        base: Some(common::MsgBase { source_id, ..Default::default() }),
        segment_id: segment.id,
        collection_id: place.collection,
        field2_binlog_paths: FIELDS.iter().map(|field| log("insert_log", *field)).collect(),
        field2_statslog_paths: vec![log("stats_log", 100)],
        check_points: vec![data::CheckPoint {
            segment_id: segment.id,
            position: Some(position.clone()),
            num_of_rows: rows,
        }],
        start_positions: vec![data::SegmentStartPosition {
            segment_id: segment.id,
            start_position: Some(position),
        }],
        channel: segment.channel.clone(),
        ..Default::default()
    }
}
