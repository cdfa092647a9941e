//! The coordinator, stock or ours, wherever its session key says that it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prost::Message;
use proto::etcd;
use proto::milvus::data;
use tokio::task::JoinSet;

use super::Collection;
use crate::client::Client;
use crate::load::wire::{Connection, encode};

/// As a proxy asks for a small insert.
pub(super) const ROWS: u32 = 100;
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before the session key is read again.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Where rows go, and which data nodes have the channels.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) collection: i64,
    pub(super) partition: i64,
    pub(super) channels: Vec<String>,
    /// Of each channel; nobody's where it does not matter.
    pub(super) data_nodes: Vec<i64>,
}

/// Follows the session key.
#[derive(Clone, Debug)]
pub(super) struct Target {
    nodes: Vec<Client>,
    session_key: String,
    pub(super) place: Arc<Place>,
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
    pub(super) async fn connect(&self) -> Result<Connection> {
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
                self.call_until("AssignSegmentID", &self.assignment(0, ROWS), patience).await?;
            match check_assigned(&answer, ROWS) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_not_yet) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The same coordinator, for another collection.
    pub(super) fn elsewhere(&self, collection: &Collection) -> Target {
        let place = Place {
            collection: collection.id,
            partition: collection.partition,
            channels: collection.channels.clone(),
            data_nodes: Vec::new(),
        };
        Target { place: Arc::new(place), ..self.clone() }
    }

    /// A request for rows on one of the channels.
    pub(super) fn assignment(&self, nth: usize, count: u32) -> data::AssignSegmentIdRequest {
        let Place { collection, partition, channels, .. } = &*self.place;
        data::AssignSegmentIdRequest {
            node_id: 1,
            peer_role: "proxy".to_owned(),
            segment_id_requests: vec![data::SegmentIdRequest {
                count,
                channel_name: channels[nth % channels.len()].clone(),
                collection_id: *collection,
                partition_id: *partition,
                ..Default::default()
            }],
        }
    }
}

/// Calls the coordinator on one connection, as long as it holds.
pub(super) struct Follower {
    target: Target,
    connection: Option<Connection>,
}

impl Follower {
    pub(super) fn of(target: &Target) -> Follower {
        Follower { target: target.clone(), connection: None }
    }

    /// # Errors
    /// The call was not answered; the next one looks for the coordinator again.
    pub(super) async fn call<A: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<A> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect().await?,
        };
        let head = connection.head(&format!("/milvus.proto.data.DataCoord/{method}"))?;
        let calling = connection.call(&head, encode(request));
        let answer = tokio::time::timeout(CALL_TIMEOUT, calling).await??;
        self.connection = Some(connection);
        Ok(A::decode(answer)?)
    }
}

/// Whether all of the rows were assigned.
pub(super) fn check_assigned(answer: &data::AssignSegmentIdResponse, wanted: u32) -> Result<()> {
    let status = answer.status.clone().unwrap_or_default();
    ensure!(status.code == 0 && status.error_code == 0, "refused: {}", status.reason);
    let mut rows = 0;
    for assignment in &answer.seg_id_assignments {
        let status = assignment.status.clone().unwrap_or_default();
        ensure!(status.code == 0 && status.error_code == 0, "refused: {}", status.reason);
        rows += assignment.count;
    }
    ensure!(rows == wanted, "{rows} rows were assigned, not {wanted}");
    Ok(())
}
