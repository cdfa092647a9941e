//! Virtual channels of new and altered collections.

use std::sync::Arc;

use proto::milvus::{common, data};
use proto::quorate::channel_command::Kind;
use proto::quorate::{NewChannel, WatchChannels};
use statemachine::coordinator::Refusal;
use statemachine::view::ServerId;

use crate::coordinator::{Code, Failure, Lead, data_nodes};

/// Called by RootCoord inside the creation of a collection: calling it back would block both.
pub(super) async fn watch_channels(
    lead: &Arc<Lead>,
    request: data::WatchChannelsRequest,
) -> Result<data::WatchChannelsResponse, Failure> {
    let targets = targets(lead, request.channel_names.len());
    let channels = request
        .channel_names
        .into_iter()
        .zip(targets)
        .map(|(channel, node)| NewChannel { channel, node: node.0 })
        .collect();
    let watch = WatchChannels {
        collection: request.collection_id,
        channels,
        start_positions: request.start_positions,
        create_ts: request.create_timestamp,
        schema: request.schema,
    };
    let outcome = lead.propose_channel(Kind::Watch(watch)).await?;
    if let Some(item) = outcome.refused.first() {
        return Err(match Refusal::of_item(item) {
            Some(refusal) => refusal.into(),
            None => Failure::refused(Code::Unexpected, item.text.clone()),
        });
    }
    for channel in &outcome.changed_names {
        tracing::info!(channel, collection = request.collection_id, "channel is new");
    }
    Ok(data::WatchChannelsResponse::default())
}

/// The data nodes with the fewest channels, in turn; nobody where there is none.
fn targets(lead: &Lead, n_channels: usize) -> Vec<ServerId> {
    let mut nodes: Vec<(usize, ServerId)> = lead.local().read(|state| {
        let assignments = state.views().assignments();
        let usable = data_nodes::usable(state.views());
        usable.into_iter().map(|node| (assignments.n_of_node(node), node)).collect()
    });
    if nodes.is_empty() {
        return vec![ServerId::NOBODY; n_channels];
    }
    nodes.sort_unstable();
    nodes.iter().map(|(_, node)| *node).cycle().take(n_channels).collect()
}

/// What changed is in RootCoord's records before it calls, and read from there.
#[allow(clippy::unused_async, reason = "all methods are called the same way")]
pub(super) async fn broadcast_altered_collection(
    _lead: &Arc<Lead>,
    _request: data::AlterCollectionRequest,
) -> Result<common::Status, Failure> {
    Ok(common::Status::default())
}
