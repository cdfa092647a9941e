//! Virtual channels of new and altered collections.

use std::sync::Arc;

use proto::milvus::{common, data};

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn watch_channels(
    _lead: &Arc<Lead>,
    _request: data::WatchChannelsRequest,
) -> Result<data::WatchChannelsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "WatchChannels is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn broadcast_altered_collection(
    _lead: &Arc<Lead>,
    _request: data::AlterCollectionRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "BroadcastAlteredCollection is not served yet"))
}
