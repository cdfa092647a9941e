//! Virtual channels of new and altered collections.

use std::sync::Arc;

use proto::milvus::{common, data};
use proto::quorate::channel_command::Kind;
use proto::quorate::{AlterCollection, NewChannel, WatchChannels, compaction_command};
use statemachine::coordinator::Refusal;
use statemachine::view::{CollectionId, ServerId};

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
        let taking = data_nodes::taking(state.views());
        taking.into_iter().map(|node| (assignments.n_of_node(node), node)).collect()
    });
    if nodes.is_empty() {
        return vec![ServerId::NOBODY; n_channels];
    }
    nodes.sort_unstable();
    nodes.iter().map(|(_, node)| *node).cycle().take(n_channels).collect()
}

/// RootCoord tells of changed properties once; in 2.3 its own records do not have them.
pub(super) async fn broadcast_altered_collection(
    lead: &Arc<Lead>,
    request: data::AlterCollectionRequest,
) -> Result<common::Status, Failure> {
    let data::AlterCollectionRequest { collection_id, properties, .. } = request;
    let view = lead.view().await?;
    let is_known = view
        .read(|state| state.views().catalog().collection(CollectionId(collection_id)).is_some());
    if !is_known {
        // Stock takes it, and nobody ever asks for it.
        tracing::warn!(collection = collection_id, "properties of an unknown collection");
        return Ok(common::Status::default());
    }
    let alter = AlterCollection { collection: collection_id, properties };
    lead.propose_compaction(compaction_command::Kind::Alter(alter)).await?;
    Ok(common::Status::default())
}
