//! How soon a data node hears of a flush: from the call to its receipt, once no row can arrive any
//! more.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use proto::milvus::{common, data, msg};
use tokio::task::JoinSet;

use super::data_nodes::DataNodes;
use super::target::{Follower, ROWS, Target, check_assigned};
use super::{Collection, PATIENCE};
use crate::numbers::millis;

/// As data nodes send them.
const TICK_EVERY: Duration = Duration::from_millis(200);
/// Longer than any assignment lives.
const EXPIRED_AFTER: Duration = Duration::from_secs(4);
const BETWEEN: Duration = Duration::from_millis(20);

/// A growing segment with rows, and who writes it.
#[derive(Clone, Debug)]
struct Opened {
    collection: i64,
    segment: i64,
    channel: String,
    node: i64,
}

/// Milliseconds of each flush, in no order.
///
/// # Errors
/// A flush was refused, or its data node never heard of it.
pub(super) async fn run(
    target: &Target,
    nodes: &DataNodes,
    collections: &[Collection],
) -> Result<Vec<f64>> {
    let mut segments = Vec::new();
    for collection in collections {
        let channel = collection.channels.first().context("a collection without channels")?;
        let node = nodes.owner(channel).context("a channel without an owner")?;
        let of = target.elsewhere(collection);
        let request = of.assignment(0, ROWS);
        let answer: data::AssignSegmentIdResponse =
            of.call_until("AssignSegmentID", &request, PATIENCE).await?;
        check_assigned(&answer, ROWS)?;
        let given = answer.seg_id_assignments.first().context("no segment was given")?;
        segments.push(Opened {
            collection: collection.id,
            segment: given.seg_id,
            channel: channel.clone(),
            node,
        });
    }
    let mut ticking = JoinSet::new();
    ticking.spawn(tick_all(target.clone(), segments.clone()));
    tokio::time::sleep(EXPIRED_AFTER).await;
    let mut took_ms = Vec::new();
    let mut follower = Follower::of(target);
    for opened in &segments {
        let request = data::FlushRequest { collection_id: opened.collection, ..Default::default() };
        let began = Instant::now();
        let answer: data::FlushResponse = follower.call("Flush", &request).await?;
        let status = answer.status.unwrap_or_default();
        ensure!(status.code == 0, "flush: {}", status.reason);
        let told = nodes.wait_flush(opened.segment, PATIENCE).await?;
        took_ms.push(millis(told.saturating_duration_since(began)));
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(took_ms)
}

/// Tells how far each channel is consumed, one after the other and again, until it is dropped.
async fn tick_all(target: Target, segments: Vec<Opened>) {
    let mut follower = Follower::of(&target);
    let between = TICK_EVERY / u32::try_from(segments.len().max(1)).unwrap_or(u32::MAX);
    loop {
        for opened in &segments {
            let tick = tick(&opened.channel, opened.segment, opened.node);
            // A lost one is made good by the next.
            drop(follower.call::<common::Status>("ReportDataNodeTtMsgs", &tick).await);
            tokio::time::sleep(between).await;
        }
    }
}

fn tick(channel: &str, segment: i64, node: i64) -> data::ReportDataNodeTtMsgsRequest {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = u64::try_from(since.as_millis()).unwrap_or_default() << 18;
    let base = common::MsgBase { source_id: node, timestamp, ..Default::default() };
    let tick = msg::DataNodeTtMsg {
        base: Some(base.clone()),
        channel_name: channel.to_owned(),
        timestamp,
        segments_stats: vec![common::SegmentStats {
            segment_id: segment,
            num_rows: i64::from(ROWS),
        }],
    };
    data::ReportDataNodeTtMsgsRequest { base: Some(base), msgs: vec![tick] }
}
