//! AssignSegmentID in a closed loop, by clients that follow the session key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use prost::Message;
use proto::etcd;
use proto::milvus::data;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::load::wire::{Connection, encode};
use crate::numbers::{float, micros};

/// As a proxy asks for a small insert.
const ROWS: u32 = 100;
const WARM_UP: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before the session key is read again.
const PAUSE: Duration = Duration::from_millis(5);

/// Where rows go.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) collection: i64,
    pub(super) partition: i64,
    pub(super) channels: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AssignReport {
    pub n_clients: usize,
    pub per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub n_errors: u64,
}

impl AssignReport {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "AssignSegmentID, {} clients: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} errors",
            self.n_clients, self.per_s, self.p50_ms, self.p99_ms, self.n_errors
        )
    }
}

/// The coordinator, wherever its session says that it is.
#[derive(Clone, Debug)]
pub(super) struct Target {
    nodes: Vec<Client>,
    session_key: String,
    place: Arc<Place>,
}

impl Target {
    pub(super) fn new(endpoints: &[String], root_path: &str, place: Place) -> Result<Target> {
        let nodes = endpoints.iter().map(|endpoint| Client::new(endpoint));
        Ok(Target {
            nodes: nodes.collect::<Result<_>>()?,
            session_key: format!("{root_path}/meta/session/datacoord"),
            place: Arc::new(place),
        })
    }

    /// Reads the session key, of whichever node answers first, and connects.
    async fn connect(&self) -> Result<Connection> {
        let mut asked = JoinSet::new();
        for node in &self.nodes {
            let (client, key) = (node.clone(), self.session_key.clone());
            asked.spawn(async move {
                let request = etcd::RangeRequest {
                    key: key.into(),
                    serializable: true,
                    ..Default::default()
                };
                let answer = client.range(request, Duration::from_millis(500)).await.ok()?;
                let session = answer.kvs.into_iter().next()?;
                let text: serde_json::Value = serde_json::from_slice(&session.value).ok()?;
                Some((session.mod_revision, text.get("Address")?.as_str()?.to_owned()))
            });
        }
        let mut newest: Option<(i64, String)> = None;
        while let Some(found) = asked.join_next().await {
            newest = newest.max(found.ok().flatten());
        }
        let (_, address) = newest.context("nobody has the session of a DataCoord")?;
        let connecting = Connection::open(&address);
        tokio::time::timeout(Duration::from_millis(500), connecting).await?
    }

    /// Calls until it is answered.
    pub(super) async fn call_until<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        patience: Duration,
    ) -> Result<A> {
        let deadline = Instant::now() + patience;
        let path = format!("/milvus.proto.data.DataCoord/{method}");
        loop {
            let attempt = async {
                let connection = self.connect().await?;
                let head = connection.head(&path)?;
                let answer =
                    tokio::time::timeout(CALL_TIMEOUT, connection.call(&head, encode(request)));
                Ok::<A, anyhow::Error>(A::decode(answer.await??)?)
            };
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_not_yet) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Asks for one assignment until one is given.
    pub(super) async fn assign_until(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let answer: data::AssignSegmentIdResponse =
                self.call_until("AssignSegmentID", &self.request(0), patience).await?;
            match check(&answer) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_not_yet) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn request(&self, nth: usize) -> data::AssignSegmentIdRequest {
        let Place { collection, partition, channels } = &*self.place;
        data::AssignSegmentIdRequest {
            node_id: 1,
            peer_role: "proxy".to_owned(),
            segment_id_requests: vec![data::SegmentIdRequest {
                count: ROWS,
                channel_name: channels[nth % channels.len()].clone(),
                collection_id: *collection,
                partition_id: *partition,
                ..Default::default()
            }],
        }
    }
}

fn check(answer: &data::AssignSegmentIdResponse) -> Result<()> {
    let status = answer.status.clone().unwrap_or_default();
    ensure!(status.code == 0 && status.error_code == 0, "refused: {}", status.reason);
    let mut rows = 0;
    for assignment in &answer.seg_id_assignments {
        let status = assignment.status.clone().unwrap_or_default();
        ensure!(status.code == 0 && status.error_code == 0, "refused: {}", status.reason);
        rows += assignment.count;
    }
    ensure!(rows == ROWS, "{rows} rows were assigned, not {ROWS}");
    Ok(())
}

/// Runs clients for some time.
///
/// # Errors
/// Nobody was ever answered.
pub(super) async fn run(
    target: &Target,
    n_clients: usize,
    duration: Duration,
) -> Result<AssignReport> {
    target.assign_until(Duration::from_secs(60)).await?;
    let from = Instant::now() + WARM_UP;
    let until = from + duration;
    let mut clients = JoinSet::new();
    for nth in 0..n_clients {
        clients.spawn(client(target.clone(), nth, from, until));
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
        bail!("no assignment: {}", first_error.unwrap_or_default());
    }
    Ok(AssignReport {
        n_clients,
        per_s: float(all.len()) / duration.as_secs_f64(),
        p50_ms: float(all.value_at_quantile(0.5)) / 1000.0,
        p99_ms: float(all.value_at_quantile(0.99)) / 1000.0,
        n_errors,
    })
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000, 2)?)
}

async fn client(
    target: Target,
    first: usize,
    from: Instant,
    until: Instant,
) -> Result<(Histogram<u64>, u64, Option<String>)> {
    let mut latencies = histogram()?;
    let (mut n_errors, mut first_error) = (0, None);
    let mut nth = first;
    'connect: while Instant::now() < until {
        let Ok(connection) = target.connect().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let head = connection.head("/milvus.proto.data.DataCoord/AssignSegmentID")?;
        while Instant::now() < until {
            nth += 1;
            let message = encode(&target.request(nth));
            let began = Instant::now();
            let answer = tokio::time::timeout(CALL_TIMEOUT, connection.call(&head, message));
            let checked = match answer.await {
                Ok(Ok(answer)) => data::AssignSegmentIdResponse::decode(answer)
                    .map_err(anyhow::Error::from)
                    .and_then(|answer| check(&answer)),
                Ok(Err(error)) => Err(error),
                Err(late) => Err(late.into()),
            };
            let now = Instant::now();
            match checked {
                Ok(()) if now >= from && now < until => {
                    latencies.saturating_record(micros(now - began).max(1));
                }
                Ok(()) => {}
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
