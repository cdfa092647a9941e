//! Checks what every call of Milvus says of whom it means: the cluster, and the very server whose
//! session was read when the connection was made.
//!
//! A client that is told "node not match" reads the session again at once. A node that does not
//! lead matches nobody: else one that asks only for the state of the component would stay with a
//! deposed leader for ever.

use http::HeaderMap;
use tonic::Status;

use crate::coordinator::Coordinator;

/// Why a call is not for this node, if it is not.
pub(crate) fn refusal(coordinator: &Coordinator, headers: &HeaderMap) -> Option<Status> {
    let server = coordinator.lead().map_or(NO_SERVER, |lead| lead.server.0);
    judge(headers, &coordinator.settings.cluster, server)
}

/// Of a node that does not lead.
const NO_SERVER: i64 = -1;

fn judge(headers: &HeaderMap, cluster: &str, server: i64) -> Option<Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(meant) = text("cluster").filter(|meant| !meant.is_empty() && *meant != cluster) {
        return Some(Status::unknown(format!(
            "cross cluster routing[expectedCluster={cluster}][actualCluster={meant}]"
        )));
    }
    let meant: i64 = text("serverid")?.parse().ok()?;
    (meant != server).then(|| {
        Status::unknown(format!("node not match[expectedNodeID={meant}][actualNodeID={server}]"))
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(headers: &[(&'static str, &'static str)], expected: Expect) {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            })
            .collect();
        let refusal = judge(&headers, "by-dev", 7);
        let shown = refusal.map(|status| format!("{:?} {}", status.code(), status.message()));
        expected.assert_eq(&shown.unwrap_or_else(|| "accepted".to_owned()));
    }

    #[test]
    fn a_call_that_means_another_cluster_or_server_is_refused() {
        check(&[], expect!["accepted"]);
        check(&[("cluster", ""), ("serverid", "seven")], expect!["accepted"]);
        check(&[("cluster", "by-dev"), ("serverid", "7")], expect!["accepted"]);
        check(
            &[("cluster", "by-dev"), ("serverid", "6")],
            expect!["Unknown node not match[expectedNodeID=6][actualNodeID=7]"],
        );
        check(
            &[("cluster", "prod"), ("serverid", "7")],
            expect!["Unknown cross cluster routing[expectedCluster=by-dev][actualCluster=prod]"],
        );
    }
}
