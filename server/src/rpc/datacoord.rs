//! Milvus's coordinator API: `milvus.proto.data.DataCoord`, and the index part of it once more as
//! `milvus.proto.index.IndexCoord`.
//!
//! `service` lists the methods; each area has a module of functions that take the lead and a
//! request. Wire types stop here.

mod admission;
mod answer;
mod channels;
mod compaction;
mod control;
mod flush;
mod garbage;
mod import;
mod index;
mod info;
mod ingest;
mod service;

use std::sync::Arc;

use proto::milvus::data::data_coord_server;
use proto::milvus::index::index_coord_server::IndexCoordServer;

use crate::coordinator::{Coordinator, Failure, Lead};
use crate::edge::limits::COORDINATOR_MESSAGE_BYTES_MAX;
use proto::milvus::{common, data, milvus};

pub(crate) use admission::refusal;

/// Paths of the calls of [`DataCoordServer`].
pub(crate) const DATA_COORD_PREFIX: &str = "/milvus.proto.data.DataCoord/";

/// Milvus expects messages up to this size.
const ANSWER_BYTES_MAX: usize = 512 << 20;

#[derive(Clone)]
pub(crate) struct DataCoordService {
    coordinator: Arc<Coordinator>,
}

pub(crate) type DataCoordServer = data_coord_server::DataCoordServer<DataCoordService>;

/// Answers `milvus.proto.data.DataCoord`.
pub(crate) fn data_coord(coordinator: &Arc<Coordinator>) -> DataCoordServer {
    DataCoordServer::new(DataCoordService { coordinator: Arc::clone(coordinator) })
        .max_decoding_message_size(COORDINATOR_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX)
}

/// The other services of the coordinator port.
pub(crate) fn routes(coordinator: &Arc<Coordinator>) -> tonic::service::Routes {
    let service = DataCoordService { coordinator: Arc::clone(coordinator) };
    let index_coord = IndexCoordServer::new(service)
        .max_decoding_message_size(COORDINATOR_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    tonic::service::Routes::new(index_coord)
}

/// As Milvus's call of that name, for our own commands.
pub(crate) async fn flush(
    lead: &Arc<Lead>,
    request: data::FlushRequest,
) -> Result<data::FlushResponse, Failure> {
    flush::flush(lead, request).await
}

/// As Milvus's call of that name, for our own commands.
pub(crate) async fn manual_compaction(
    lead: &Arc<Lead>,
    request: milvus::ManualCompactionRequest,
) -> Result<milvus::ManualCompactionResponse, Failure> {
    compaction::manual_compaction(lead, request).await
}

/// As Milvus's call of that name, for our own commands.
pub(crate) async fn gc_control(
    lead: &Arc<Lead>,
    request: data::GcControlRequest,
) -> Result<common::Status, Failure> {
    garbage::gc_control(lead, request).await
}
