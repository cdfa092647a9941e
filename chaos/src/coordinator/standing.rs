//! Makes coordinators of nodes: a RootCoord, collections, the role, and data nodes that watch.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prost::Message;
use proto::etcd;
use proto::milvus::{common, data, etcd as meta, schema};
use tokio::task::JoinSet;

use super::data_nodes::DataNodes;
use super::target::{Place, Target};
use super::{Collection, PATIENCE, ROOT_PATH, root_coord};
use crate::cluster::Cluster;

/// Garbage collection looks at everything as often as compaction does by default. Segments have no
/// indexes and no files, so that nothing but the looking is done.
const CONFIG: &str = "\
[dataCoord.compaction]
indexBasedCompaction = false
[dataCoord.gc]
interval = 60
dryRun = true
[common]
storageType = 'local'
[localStorage]
";

/// A coordinator whose channels are all watched.
pub(super) struct Standing {
    pub(super) nodes: DataNodes,
    pub(super) target: Target,
    /// From the first request for a channel to the last acknowledgement.
    pub(super) watched: Duration,
    /// Serves until this is dropped.
    pub(super) root_coord: JoinSet<()>,
}

/// Gives the role to a cluster, and data nodes to its channels; rows go to the first collection.
///
/// # Errors
/// A node exited by itself, or channels are not watched within a while.
pub(super) async fn stand(
    cluster: &mut Cluster,
    collections: &[Collection],
    n_data_nodes: usize,
) -> Result<Standing> {
    let (address, root_coord) = root_coord::start().await?;
    prepare(cluster, &address, collections).await?;
    take_role(cluster).await?;

    let nodes = DataNodes::start(&cluster.endpoints(), n_data_nodes).await?;
    let main = &collections[0];
    let mut place = Place {
        collection: main.id,
        partition: main.partition,
        channels: main.channels.clone(),
        data_nodes: Vec::new(),
    };
    let target = Target::new(&cluster.endpoints(), ROOT_PATH, place.clone())?;
    let watching = Instant::now();
    for collection in collections {
        watch_channels(&target, collection).await?;
    }
    let n_channels = collections.iter().map(|it| it.channels.len()).sum();
    nodes.wait_watched(n_channels, PATIENCE).await?;
    let watched = watching.elapsed();
    place.data_nodes = main.channels.iter().filter_map(|channel| nodes.owner(channel)).collect();
    let target = Target::new(&cluster.endpoints(), ROOT_PATH, place)?;
    Ok(Standing { nodes, target, watched, root_coord })
}

fn physical(channel: &str) -> String {
    channel.rsplit_once('_').map_or(channel, |(physical, _)| physical).to_owned()
}

fn schema_of_four_fields() -> schema::CollectionSchema {
    let field = |field_id: i64, name: &str, kind: schema::DataType| schema::FieldSchema {
        field_id,
        name: name.to_owned(),
        data_type: kind.into(),
        is_primary_key: field_id == 100,
        ..Default::default()
    };
    let vector = schema::FieldSchema {
        type_params: vec![common::KeyValuePair { key: "dim".to_owned(), value: "128".to_owned() }],
        ..field(101, "vector", schema::DataType::FloatVector)
    };
    schema::CollectionSchema {
        name: "bench".to_owned(),
        fields: vec![
            field(0, "RowID", schema::DataType::Int64),
            field(1, "Timestamp", schema::DataType::Int64),
            field(100, "id", schema::DataType::Int64),
            vector,
        ],
        ..Default::default()
    }
}

/// Writes what a RootCoord would have: its session and the collections.
async fn prepare(cluster: &Cluster, root_coord: &str, collections: &[Collection]) -> Result<()> {
    let session = serde_json::json!({
        "ServerID": 1, "ServerName": "rootcoord", "Address": root_coord, "Exclusive": true,
        "TriggerKill": true, "Version": "2.3.5", "IndexEngineVersion": {}, "LeaseID": 0,
    });
    let mut pairs =
        vec![("by-dev/meta/session/rootcoord".to_owned(), session.to_string().into_bytes())];
    for Collection { id, channels, .. } in collections {
        let info = meta::CollectionInfo {
            id: *id,
            schema: Some(schema_of_four_fields()),
            virtual_channel_names: channels.clone(),
            physical_channel_names: channels.iter().map(|channel| physical(channel)).collect(),
            shards_num: i32::try_from(channels.len())?,
            state: meta::CollectionState::CollectionCreated.into(),
            ..Default::default()
        };
        let key = format!("by-dev/meta/root-coord/database/collection-info/1/{id}");
        pairs.push((key, info.encode_to_vec()));
    }
    for (key, value) in pairs {
        let put = etcd::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        cluster.nodes[0].client.kv().put(put).await?;
    }
    Ok(())
}

async fn watch_channels(target: &Target, collection: &Collection) -> Result<()> {
    let Collection { id, channels, .. } = collection;
    let start_positions = channels
        .iter()
        .map(|channel| common::KeyDataPair { key: physical(channel), data: vec![1; 8].into() })
        .collect();
    let request = data::WatchChannelsRequest {
        collection_id: *id,
        channel_names: channels.clone(),
        start_positions,
        schema: Some(schema_of_four_fields()),
        ..Default::default()
    };
    let answer: data::WatchChannelsResponse =
        target.call_until("WatchChannels", &request, PATIENCE).await?;
    let status = answer.status.unwrap_or_default();
    ensure!(status.code == 0, "WatchChannels: {}", status.reason);
    Ok(())
}

/// Starts all nodes again, as coordinators.
async fn take_role(cluster: &mut Cluster) -> Result<()> {
    cluster.kill_all()?;
    for node in &mut cluster.nodes {
        let address = node.ports.coordinator();
        let config = node.data_dir.with_extension("toml");
        let objects = node.data_dir.with_extension("objects");
        std::fs::create_dir_all(&objects)?;
        std::fs::write(&config, format!("{CONFIG}path = \"{}\"\n", objects.display()))?;
        let config = config.display().to_string();
        node.process.add_args(
            ["--coordinator", "datacoord", "--listen-coordinator", &address, "--config", &config]
                .map(str::to_owned),
        );
    }
    cluster.start_all()?;
    cluster.wait_ready(PATIENCE).await
}
