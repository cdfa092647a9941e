//! How Milvus finds the leading coordinator: its session keys. And whether the role is on at all.
//!
//! The session is always overwritten by one put and never deleted first: while the key is gone, a
//! DataCoord that stands by in a Milvus process takes over.

use std::time::Duration;

use bytes::Bytes;
use proto::quorate::command::Kind;
use proto::{etcd, quorate};
use raft::Tenure;
use rand::Rng;
use statemachine::session::Role;
use statemachine::versions;
use statemachine::view::{Area, ServerId};
use statemachine::{Response, Settings};
use tokio::time::Instant;

use super::{Failure, Lead};

/// Session keys of the active coordinator. Nothing in 2.3 needs the second; older tools do.
const SESSIONS: [(&str, Role); 2] =
    [("datacoord", Role::DataCoord), ("indexcoord", Role::IndexCoord)];

/// What `session/id` starts from where no Milvus process has counted yet: ids of equal length are
/// not prefixes of each other, which data nodes take for equal.
const FIRST_ID: &str = "1000000";

/// The release whose behaviour we have. Milvus compares it with its own.
const VERSION: &str = "2.3.5";

const CALL_WITHIN: Duration = Duration::from_secs(3);
/// Pause after something went wrong.
const PAUSE: Duration = Duration::from_millis(50);

/// Under which Milvus knows a tenure: far above the ids that Milvus counts up, always of sixteen
/// digits, and below 2^53, so that no JSON reader rounds it. Two tenures differ in the term, or, in
/// one term, in 24 bits of the node.
pub(crate) fn server_id(tenure: &Tenure) -> ServerId {
    const BASE: i64 = 3_000_000_000_000_000;
    let node = (tenure.node ^ (tenure.node >> 24) ^ (tenure.node >> 48)) & 0xff_ffff;
    let tail = ((tenure.term & 0xfff_ffff) << 24) | node;
    ServerId(BASE + tail.cast_signed())
}

/// Waits until the role is on, and switches it on where nobody has ever said anything about it.
///
/// The replicated settings decide. Off with raw writes closed is how every cluster begins: then the
/// flag of this node switches it on. Off with raw writes open is what a hand-over to a stock
/// coordinator leaves behind: then it stays off, whatever the flags say, until somebody takes over
/// with the command for it.
///
/// # Errors
/// The state machine refused; the tenure's end is noticed by the caller.
pub(super) async fn wait_for_role(lead: &Lead) -> Result<(), Failure> {
    let mut told = false;
    let changed = lead.wakes.on_settings();
    let sessions = lead.wakes.on(&[Area::Session]);
    loop {
        let settings = settings(lead);
        if settings.coordinator {
            note_root_path(lead, &settings);
            return Ok(());
        }
        if settings.raw_writes {
            if !told {
                tracing::warn!(
                    "the coordinator's role was handed over and stays off; \
                     `quorate coordinator take-over` switches it on again"
                );
                told = true;
            }
            changed.notified().await;
            continue;
        }
        if let Some(other) = other_coordinator(lead) {
            if !told {
                tracing::warn!(
                    address = other,
                    "another DataCoord serves: stop it; the role is taken over when its session \
                     ends, or at once by `quorate coordinator take-over`"
                );
                told = true;
            }
            tokio::select! {
                () = sessions.notified() => {}
                () = changed.notified() => {}
            }
            continue;
        }
        switch_on(lead, &settings).await?;
    }
}

/// Address of a DataCoord that has a session while our role was never on.
fn other_coordinator(lead: &Lead) -> Option<String> {
    lead.local().read(|state| {
        let session = state.views().sessions().active(Role::DataCoord)?;
        Some(session.address.to_string())
    })
}

/// Prepares the keyspace and tells all nodes that the role is on.
async fn switch_on(lead: &Lead, settings: &Settings) -> Result<(), Failure> {
    raise_level(lead).await?;
    if let Some(root_path) =
        lead.settings().root_path.clone().filter(|root_path| *root_path != settings.root_path)
    {
        tracing::info!(root_path, "root path of Milvus's records set from the configuration");
        let change = quorate::ChangeSettings { root_path: Some(root_path), ..Default::default() };
        command(lead, Kind::ChangeSettings(change)).await?;
    }
    let role = quorate::SetRole { on: true, raw_writes: false };
    lead.propose_channel(quorate::channel_command::Kind::SetRole(role)).await?;
    tracing::info!("the coordinator's role is on");
    Ok(())
}

/// Commands of the coordinator may stand in the log from here on.
pub(crate) async fn raise_level(lead: &Lead) -> Result<(), Failure> {
    let level = lead.local().read(statemachine::State::level);
    if level < versions::COORDINATOR {
        let raise = quorate::RaiseLevel { level: versions::COORDINATOR };
        command(lead, Kind::RaiseLevel(raise)).await?;
        tracing::info!(from = level, to = versions::COORDINATOR, "feature level raised");
    }
    Ok(())
}

fn note_root_path(lead: &Lead, settings: &Settings) {
    if let Some(given) = &lead.settings().root_path
        && *given != settings.root_path
    {
        tracing::error!(
            given,
            replicated = settings.root_path,
            "etcd.rootPath differs from the replicated root path, which is used"
        );
    }
}

fn settings(lead: &Lead) -> Settings {
    lead.local().read(|state| state.settings().clone())
}

/// Writes the session keys and keeps their lease alive, until the role is switched off. The end of
/// the tenure is noticed by the caller.
pub(super) async fn hold_sessions(lead: &Lead) {
    let sessions_changed = lead.wakes.on(&[Area::Session]);
    let settings_changed = lead.wakes.on_settings();
    // A third of it, so that two renewals in a row may fail.
    let period = lead.settings().session_ttl / 3;
    let mut held: Option<i64> = None;
    while settings(lead).coordinator {
        let lease = match held {
            Some(lease) => lease,
            None => match register(lead).await {
                Ok(lease) => {
                    tracing::info!(
                        server = lead.server.0,
                        lease,
                        "session of the coordinator written"
                    );
                    lease
                }
                Err(error) => {
                    tracing::warn!(%error, "the session of the coordinator is not written yet");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        held = Some(lease);
        let renew_at = Instant::now() + period;
        let due = loop {
            if !is_ours(lead, lease) {
                break false;
            }
            tokio::select! {
                // All are cancel-safe: a permit that was not taken stays.
                () = sessions_changed.notified() => {}
                () = settings_changed.notified() => if !settings(lead).coordinator { break true },
                () = tokio::time::sleep_until(renew_at) => break true,
            }
        };
        if !settings(lead).coordinator {
            break;
        }
        if !due {
            lead.coordinator.counts.session_lost();
            tracing::error!(
                server = lead.server.0,
                lease,
                "the coordinator's session was lost or overwritten by somebody else; writing it again"
            );
            held = None;
            continue;
        }
        let renewed = lead.coordinator.leases.renew(&[lease], Instant::now() + CALL_WITHIN).await;
        match renewed.as_deref() {
            Ok([0]) => {
                tracing::error!(lease, "the lease of the coordinator's session is gone");
                held = None;
            }
            Ok(_) => {}
            // The end of the tenure is near, or the quorum does not answer: the next round tells.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Whether both keys are ours, under our lease.
fn is_ours(lead: &Lead, lease: i64) -> bool {
    lead.local().read(|state| {
        let sessions = state.views().sessions();
        SESSIONS.iter().all(|(_, role)| {
            sessions
                .active(role.clone())
                .is_some_and(|session| session.server == lead.server && session.lease == lease)
        })
    })
}

/// Grants a lease and puts the keys under it; returns the lease.
async fn register(lead: &Lead) -> Result<i64, Failure> {
    create_counter(lead).await?;
    let lease = rand::rng().random_range(1..=i64::MAX);
    let ttl = i64::try_from(lead.settings().session_ttl.as_secs()).unwrap_or(30).max(1);
    let grant = Kind::LeaseGrant(etcd::LeaseGrantRequest { id: lease, ttl });
    let puts = SESSIONS.iter().map(|(name, _)| {
        let key = session_key(lead, name);
        put(key, Bytes::from(session_json(lead, name, lease)), lease)
    });
    let txn = Kind::Txn(etcd::TxnRequest { success: puts.collect(), ..Default::default() });
    // One after the other in the log, and one round of the quorum for both.
    let (granted, written) = tokio::join!(command(lead, grant), command(lead, txn));
    granted?;
    written?;
    Ok(lease)
}

/// The counter that Milvus's processes take their ids from, where there is none yet.
async fn create_counter(lead: &Lead) -> Result<(), Failure> {
    let exists = lead.local().read(|state| state.views().sessions().next_id().is_some());
    if exists {
        return Ok(());
    }
    let key = session_key(lead, "id");
    let absent = etcd::Compare {
        result: etcd::compare::CompareResult::Equal.into(),
        target: etcd::compare::CompareTarget::Version.into(),
        key: key.clone(),
        target_union: Some(etcd::compare::TargetUnion::Version(0)),
        ..Default::default()
    };
    let txn = etcd::TxnRequest {
        compare: vec![absent],
        success: vec![put(key, Bytes::from_static(FIRST_ID.as_bytes()), 0)],
        failure: vec![],
    };
    command(lead, Kind::Txn(txn)).await?;
    Ok(())
}

fn put(key: Bytes, value: Bytes, lease: i64) -> etcd::RequestOp {
    let put = etcd::PutRequest { key, value, lease, ..Default::default() };
    etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(put)) }
}

fn session_key(lead: &Lead, name: &str) -> Bytes {
    match settings(lead).root_path.as_str() {
        "" => format!("meta/session/{name}"),
        root_path => format!("{root_path}/meta/session/{name}"),
    }
    .into()
}

/// As Milvus writes it, field by field and in its order.
fn session_json(lead: &Lead, name: &str, lease: i64) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let session = SessionJson {
        server_id: lead.server.0,
        server_name: name,
        address: &lead.settings().address,
        exclusive: true,
        trigger_kill: true,
        version: VERSION,
        index_engine_version: IndexEngineVersionJson {},
        lease_id: lease,
        host_name: host.trim(),
    };
    serde_json::to_string(&session).expect("plain text and numbers")
}

#[derive(serde::Serialize)]
struct SessionJson<'a> {
    #[serde(rename = "ServerID")]
    server_id: i64,
    #[serde(rename = "ServerName")]
    server_name: &'a str,
    #[serde(rename = "Address")]
    address: &'a str,
    #[serde(rename = "Exclusive")]
    exclusive: bool,
    #[serde(rename = "TriggerKill")]
    trigger_kill: bool,
    #[serde(rename = "Version")]
    version: &'a str,
    #[serde(rename = "IndexEngineVersion")]
    index_engine_version: IndexEngineVersionJson,
    #[serde(rename = "LeaseID")]
    lease_id: i64,
    #[serde(rename = "HostName", skip_serializing_if = "str::is_empty")]
    host_name: &'a str,
}

#[derive(serde::Serialize)]
struct IndexEngineVersionJson {}

/// A command of another area than the coordinator's, under the fence of the tenure.
async fn command(lead: &Lead, kind: Kind) -> Result<Response, Failure> {
    let command = quorate::Command { fence: None, kind: Some(kind) };
    let deadline = Instant::now() + CALL_WITHIN;
    let committed = lead.node().propose_fenced(&lead.tenure, command, deadline).await?;
    Ok(committed.outcome?)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn ids_of_tenures_differ_and_are_of_one_length() {
        let of = |term, node| server_id(&Tenure { term, node, cancel: CancellationToken::new() }).0;
        let nodes = [1, 2, 0x0123_4567_89ab_cdef, u64::MAX];
        let mut ids: Vec<i64> = Vec::new();
        for term in [1, 2, 77, (1 << 28) - 1] {
            ids.extend(nodes.iter().map(|node| of(term, *node)));
        }
        assert!(ids.iter().all(|id| *id > 1 << 40 && *id < 1 << 53), "{ids:?}");
        assert!(ids.iter().all(|id| id.to_string().len() == 16), "{ids:?}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 16);
    }
}
