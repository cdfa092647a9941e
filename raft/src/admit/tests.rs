//! What reaches a leader of three nodes, and its log, beside what nodes send.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message;
use proto::etcd;
use proto::quorate::command::Kind;
use proto::quorate::{self, ForwardRequest, ForwardResult, ForwardVerdict};
use statemachine::{Alarm, AlarmKind};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::NodeOptions;
use crate::inbound::{Answer, InboundRun};
use crate::node::{Node, PeerHandler};
use crate::status::NodeState;
use crate::types::Endpoints;

struct Silent;

impl PeerHandler for Silent {
    fn ask(&self, _: u64, _: u32, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nothing is known here".to_owned()) })
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn three_nodes(dir: &tempfile::TempDir) -> Vec<Node> {
    let mut listeners = Vec::new();
    let mut initial = Vec::new();
    for n in 1..=3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        initial.push((format!("n{n}"), listener.local_addr().unwrap().to_string()));
        listeners.push(listener);
    }
    let mut nodes = Vec::new();
    for (listener, (name, peer)) in listeners.into_iter().zip(initial.clone()) {
        let endpoints = Endpoints { peer, ..Endpoints::default() };
        let mut options = NodeOptions::new(dir.path().join(&name), &name, listener, endpoints);
        options.initial_cluster = initial.clone();
        options.on_fatal = Arc::new(|message| panic!("node failed: {message}"));
        nodes.push(Node::start(options, Arc::new(Silent)).await.unwrap());
    }
    for node in &nodes {
        node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
        node.inner.proposer.wait_registered().await;
    }
    nodes
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "not within the time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The leader and a node that does not lead.
async fn leader_and_follower(nodes: &[Node]) -> (&Node, &Node) {
    let leads = |node: &&Node| node.tenure().borrow().is_some();
    until("somebody leads", || nodes.iter().any(|node| leads(&node))).await;
    let leader = nodes.iter().find(leads).unwrap();
    (leader, nodes.iter().find(|node| node.id() != leader.id()).unwrap())
}

fn put(key: &str) -> quorate::Command {
    let put = etcd::PutRequest { key: key.to_owned().into(), ..Default::default() };
    quorate::Command { fence: None, kind: Some(Kind::Put(put)) }
}

/// A put through every node succeeds, and all states are equal then.
async fn assert_all_serve(nodes: &[Node]) {
    let mut last = 0;
    for node in nodes {
        let committed = node.propose(put("after"), soon()).await.unwrap();
        committed.outcome.unwrap();
        last = last.max(committed.index);
    }
    let digests = |node: &Node| {
        node.local_view().read(|state| (state.last_index(), state.digests(), state.revision()))
    };
    until("all have applied", || nodes.iter().all(|node| digests(node).0 >= last)).await;
    assert!(nodes.iter().all(|node| digests(node) == digests(&nodes[0])));
}

/// A run of one put of `origin`, under a number that its clients do not use.
fn run_of(origin: u64) -> Bytes {
    let commands = vec![put("forged")];
    quorate::Run { origin, epoch: 1, first_seq: 1 << 40, settled_below: 0, commands }
        .encode_to_vec()
        .into()
}

/// What the leader answers to one forwarded run.
async fn forward(from: &Node, to: &Node, run: Bytes, run_crc32c: u32) -> ForwardResult {
    let peer = from.inner.peers.get(to.id()).unwrap();
    let request = ForwardRequest { id: 1, run, n_commands: 1, run_crc32c };
    let requests =
        futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut client = peer.control();
    let call = client.forward(peer.request(requests));
    let mut replies = call.await.unwrap().into_inner();
    let reply = tokio::time::timeout(Duration::from_secs(10), replies.message()).await;
    reply.unwrap().unwrap().expect("an answer").results.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_appends_no_run_that_is_damaged_foreign_or_not_understood() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_nodes(&dir).await;
    let (leader, follower) = leader_and_follower(&nodes).await;
    let sound = run_of(follower.id());
    let checksum = crc32c::crc32c(&sound);
    // Each bit in turn would do; a few at both ends and in the middle are enough here.
    for bit in [0, 7, 8 * (sound.len() / 2), 8 * sound.len() - 1] {
        let mut flipped = sound.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let result = forward(follower, leader, flipped.into(), checksum).await;
        assert_eq!(result.verdict(), ForwardVerdict::Damaged, "bit {bit}");
    }
    let mut unknown_field = sound.to_vec();
    unknown_field.extend_from_slice(&[0xf8, 0x07, 0x01]);
    for (run, reason) in [
        (Bytes::from_static(b"not a run"), "cannot be decoded"),
        (unknown_field.into(), "of which this binary understands"),
        (run_of(leader.id()), "as its origin and came from node"),
    ] {
        let checksum = crc32c::crc32c(&run);
        let result = forward(follower, leader, run, checksum).await;
        assert_eq!(result.verdict(), ForwardVerdict::Refused, "{}", result.reason);
        assert!(result.reason.contains(reason), "{}", result.reason);
    }
    assert_all_serve(&nodes).await;
    assert_eq!(leader.local_view().read(|state| state.alarms().count()), 0, "nothing was logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_the_log_is_refused_alike_by_all_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_nodes(&dir).await;
    let (leader, _) = leader_and_follower(&nodes).await;
    let (sender, mut verdicts) = mpsc::unbounded_channel();
    let garbage = [&b"\xff\xff\xff"[..], b"not a run", b"\x2a\x7f", b"\x2a\x00\x2a\x00"];
    for (id, bytes) in (1..).zip(garbage) {
        // Behind the check of what is forwarded.
        let bytes = Bytes::from_static(bytes);
        let answer = Answer::new(id, sender.clone());
        leader.inner.inbound.push(InboundRun { bytes, n_commands: 1, answer });
        let verdict = tokio::time::timeout(Duration::from_secs(10), verdicts.recv()).await;
        assert_eq!(verdict.unwrap().unwrap().verdict(), ForwardVerdict::Appended);
    }
    assert_all_serve(&nodes).await;
    let alarm = Alarm { kind: AlarmKind::Unreadable, member: leader.id() };
    for node in &nodes {
        let alarms: Vec<Alarm> = node.local_view().read(|state| state.alarms().collect());
        assert_eq!(alarms, [alarm]);
    }
}
