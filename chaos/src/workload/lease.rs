//! Owners of leases: they attach keys, prolong for a while, then let go or revoke.

use std::time::Duration;

use proto::etcd;
use rand::Rng;
use rand::rngs::StdRng;

use super::kv::perform;
use super::{PATIENCE, Setting, any_node};
use crate::client::within;
use crate::history::{Asked, LeaseRun, NEVER_US, Operation};

/// One owner until the run drains.
pub async fn run(mut setting: Setting, mut random: StdRng) {
    while setting.phase.is_running() {
        match grant(&setting, &mut random).await {
            Some(mut lease) => {
                live(&mut setting, &mut lease, &mut random).await;
                setting.recorder.lease(lease);
            }
            None => setting.phase.pause(Duration::from_millis(100)).await,
        }
    }
}

async fn grant(setting: &Setting, random: &mut StdRng) -> Option<LeaseRun> {
    let node = any_node(setting, random);
    let request = etcd::LeaseGrantRequest { ttl: random.random_range(3..6), id: 0 };
    let renewed_us = setting.recorder.now_us();
    let response = within(PATIENCE, setting.nodes[node].lease().lease_grant(request)).await.ok()?;
    Some(LeaseRun {
        lease: response.id,
        ttl_s: response.ttl,
        renewed_us,
        revoke_asked: false,
        denied_us: None,
    })
}

async fn live(setting: &mut Setting, lease: &mut LeaseRun, random: &mut StdRng) {
    for number in 0..random.random_range(1..4) {
        let key = format!("lease/{:016x}/{number}", lease.lease);
        let serial = setting.recorder.serial();
        record(setting, Asked::Put { key, serial, lease: lease.lease }, random).await;
    }
    for _ in 0..random.random_range(0..6) {
        if !setting.phase.is_running() {
            return;
        }
        setting.phase.pause(Duration::from_millis(random.random_range(300..1500))).await;
        keep_alive(setting, lease, random).await;
        if lease.denied_us.is_some() {
            return;
        }
    }
    if random.random_ratio(1, 4) {
        lease.revoke_asked = true;
        record(setting, Asked::Revoke { lease: lease.lease }, random).await;
    }
}

/// A revoke that is answered `NotFound` did nothing: the lease had ended. Nothing is recorded.
async fn record(setting: &Setting, asked: Asked, random: &mut StdRng) {
    let node = any_node(setting, random);
    let call_us = setting.recorder.now_us();
    match perform(&setting.nodes[node], &asked, random.random_range(10..100)).await {
        Ok(answer) => {
            let return_us = setting.recorder.now_us();
            let answer = Some(answer);
            setting.recorder.operation(Operation { node, call_us, return_us, asked, answer });
        }
        Err(status) if status.code() == tonic::Code::NotFound => {}
        Err(_status) => {
            let return_us = NEVER_US;
            setting.recorder.operation(Operation { node, call_us, return_us, asked, answer: None });
        }
    }
}

async fn keep_alive(setting: &Setting, lease: &mut LeaseRun, random: &mut StdRng) {
    let node = any_node(setting, random);
    let sent_us = setting.recorder.now_us();
    let request = tokio_stream::once(etcd::LeaseKeepAliveRequest { id: lease.lease });
    let mut client = setting.nodes[node].lease();
    let Ok(mut answers) = within(PATIENCE, client.lease_keep_alive(request)).await else {
        return;
    };
    match tokio::time::timeout(PATIENCE, answers.message()).await {
        Ok(Ok(Some(answer))) if answer.ttl > 0 => lease.renewed_us = sent_us,
        Ok(Ok(Some(_gone))) => lease.denied_us = Some(setting.recorder.now_us()),
        Ok(Ok(None) | Err(_)) | Err(_) => {}
    }
}
