//! The JSON of `GetMetrics`, name by name as Milvus's own components write and read it.

use std::collections::BTreeMap;

use raft::View;
use serde_json::{Value, json};
use statemachine::view::ServerId;

use crate::coordinator::Lead;
use crate::coordinator::clients::CallError;

pub(super) fn own_name(lead: &Lead) -> String {
    format!("datacoord{}", lead.server)
}

pub(super) fn of_cluster(
    lead: &Lead,
    view: &View,
    data_nodes: Vec<Value>,
    index_nodes: Vec<Value>,
) -> Value {
    let mut own = base("datacoord", lead.server, "");
    own["hardware_infos"]["ip"] = json!(lead.settings().address);
    own["system_info"]["system_version"] = json!(env!("CARGO_PKG_VERSION"));
    own["system_configurations"] =
        json!({ "segment_max_size": lead.settings().segment_max_size_mb });
    own["quota_metrics"] = quota(view);
    json!({
        "cluster": {
            "self": own,
            "connected_data_nodes": data_nodes,
            "connected_index_nodes": index_nodes,
        },
        "connections": { "name": own_name(lead), "connected_components": [] },
    })
}

/// Bytes of the logs of all segments that are not dropped.
fn quota(view: &View) -> Value {
    let mut total: i64 = 0;
    let mut of_collection: BTreeMap<String, i64> = BTreeMap::new();
    view.read(|state| {
        for (collection, segments, tally) in state.views().segments().tallies() {
            if statemachine::coordinator::segment::view::is_healthy(segments) {
                total += tally.size_bytes;
                *of_collection.entry(collection.to_string()).or_default() += tally.size_bytes;
            }
        }
    });
    json!({ "TotalBinlogSize": total, "CollectionBinlogSize": of_collection })
}

/// What a node said of itself, or that it did not.
pub(super) fn of_node(role: &str, id: ServerId, answer: Result<String, CallError>) -> Value {
    let said = answer
        .map_err(|error| error.to_string())
        .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    said.unwrap_or_else(|reason| base(role, id, &reason))
}

/// What every component has in common.
fn base(role: &str, id: ServerId, error: &str) -> Value {
    json!({
        "has_error": !error.is_empty(),
        "error_reason": error,
        "name": format!("{role}{id}"),
        "hardware_infos": {
            "ip": "",
            "cpu_core_count": 0,
            "cpu_core_usage": 0,
            "memory": 0,
            "memory_usage": 0,
            "disk": 0,
            "disk_usage": 0,
        },
        "system_info": {
            "system_version": "",
            "deploy_mode": "",
            "build_version": "",
            "build_time": "",
            "used_go_version": "",
        },
        "created_time": "",
        "updated_time": "",
        "type": role,
        "id": id.0,
    })
}
