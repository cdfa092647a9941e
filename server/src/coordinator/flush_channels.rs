//! Tells data nodes to write what they hold of channels, and learns of channels that they do not serve.
//!
//! A data node writes once that it watches a channel. When the reply to that is lost, because the node
//! of the cluster that it talked to was killed, it lets go of the channel: what it wrote may be on
//! record all the same. Nothing but its answer to a call tells then.

use std::collections::BTreeMap;

use statemachine::channel::ChannelState;
use statemachine::view::ServerId;

use super::Lead;
use super::clients::CallError;

/// Has a data node write whatever of these channels is older than `flush_ts`, a hybrid timestamp.
///
/// # Errors
/// The data node is gone, does not answer, or does not know one of the channels; it has heard of the
/// others then.
pub(crate) async fn flush_channels(
    lead: &Lead,
    node: ServerId,
    channels: &[String],
    flush_ts: u64,
) -> Result<(), CallError> {
    // Before the call: what is answered to a later command is not of this one.
    let watched = watched(lead, node, channels);
    let mut client = lead.clients().data_node(node)?;
    let told = client.flush_channels(flush_ts, channels.to_vec()).await;
    if !told.as_ref().is_err_and(CallError::is_channel_not_found) {
        return told;
    }
    for channel in channels {
        // It stops at the first one that it does not know.
        let told = client.flush_channels(flush_ts, vec![channel.clone()]).await;
        match told {
            Err(error) if error.is_channel_not_found() => {
                if let Some(revision) = watched.get(channel.as_str())
                    && lead.observed.note_unserved(channel, *revision)
                {
                    tracing::warn!(channel, node = node.0, "its data node does not know a channel");
                }
            }
            told => told?,
        }
    }
    told
}

/// Revisions of the keys that say that the node watches a channel.
fn watched<'a>(lead: &Lead, node: ServerId, channels: &'a [String]) -> BTreeMap<&'a str, i64> {
    lead.local().read(|state| {
        let views = state.views();
        let revision = |channel: &'a String| {
            let watch = views.channels().get(node, channel)?;
            (watch.state == ChannelState::WatchSuccess).then_some((&**channel, watch.revision))
        };
        channels.iter().filter_map(revision).collect()
    })
}
