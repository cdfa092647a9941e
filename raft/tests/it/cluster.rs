//! Starts, stops and asks nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use proto::{etcd, quorate};
use raft::{
    Clock, Committed, Consistency, Endpoints, Node, NodeOptions, NodeState, PeerHandler,
    ProposeError, ReadError, StartError,
};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::net::{Net, TestDialer};

pub(crate) fn within(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Enough for anything that should happen, on a busy machine.
pub(crate) fn soon() -> Instant {
    within(20_000)
}

/// Repeats `what` until it holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "not within the time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Says who asked what.
pub(crate) struct Echo;

impl PeerHandler for Echo {
    fn ask(&self, from: u64, topic: u32, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            match topic {
                0 => Err("topic 0 is refused".to_owned()),
                topic => Ok(format!("{from} {topic} {}", body.len()).into()),
            }
        })
    }
}

/// Changes the options of the node at a position.
type Tune = dyn Fn(usize, &mut NodeOptions) + Send + Sync;

/// Nodes that found one cluster, by position.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    pub(crate) net: Net,
    /// Name and peer address.
    pub(crate) initial: Vec<(String, String)>,
    pub(crate) nodes: BTreeMap<usize, Node>,
    /// Called for each node before it starts.
    pub(crate) tune: Arc<Tune>,
    /// Of nodes that have another one than the machine.
    pub(crate) clocks: BTreeMap<usize, Arc<dyn Clock>>,
}

impl Cluster {
    /// Addresses for `n_nodes`; none of them runs.
    pub(crate) async fn plan(n_nodes: usize) -> Cluster {
        Cluster::plan_on("127.0.0.1", n_nodes).await
    }

    /// As [`Cluster::plan`], with addresses of `host`, which may be a name.
    pub(crate) async fn plan_on(host: &str, n_nodes: usize) -> Cluster {
        // Only the first test of the process gets to set it.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
        let mut initial = Vec::new();
        let mut listeners = Vec::new();
        for n in 1..=n_nodes {
            let listener = TcpListener::bind(format!("{host}:0")).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            initial.push((format!("n{n}"), format!("{host}:{port}")));
            listeners.push(listener);
        }
        let dir = tempfile::tempdir().unwrap();
        let (net, nodes) = (Net::default(), BTreeMap::new());
        Cluster { dir, net, initial, nodes, tune: Arc::new(|_, _| {}), clocks: BTreeMap::new() }
    }

    /// All of `initial`, started and ready.
    pub(crate) async fn start_all(mut self) -> Cluster {
        for n in 0..self.initial.len() {
            self.run(n).await.unwrap();
        }
        self.wait_ready().await;
        self
    }

    /// `n_nodes` that run and are ready.
    pub(crate) async fn start(n_nodes: usize) -> Cluster {
        Cluster::plan(n_nodes).await.start_all().await
    }

    pub(crate) async fn wait_ready(&self) {
        for node in self.nodes.values() {
            node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
        }
    }

    pub(crate) fn data_dir(&self, n: usize) -> PathBuf {
        self.dir.path().join(&self.initial[n].0)
    }

    pub(crate) fn wipe(&self, n: usize) {
        std::fs::remove_dir_all(self.data_dir(n)).unwrap();
    }

    pub(crate) fn address(&self, n: usize) -> &str {
        &self.initial[n].1
    }

    /// Adds a node that is not in anybody's initial cluster; returns its position.
    pub(crate) async fn plan_another(&mut self, name: &str) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.initial.push((name.to_owned(), listener.local_addr().unwrap().to_string()));
        self.initial.len() - 1
    }

    /// Starts node `n` on its directory, with all of `initial` as the initial cluster.
    pub(crate) async fn run(&mut self, n: usize) -> Result<Node, StartError> {
        self.run_with(n, self.initial.clone()).await
    }

    pub(crate) async fn run_with(
        &mut self,
        n: usize,
        initial: Vec<(String, String)>,
    ) -> Result<Node, StartError> {
        self.run_changed(n, |options| options.initial_cluster = initial).await
    }

    pub(crate) async fn run_changed(
        &mut self,
        n: usize,
        change: impl FnOnce(&mut NodeOptions),
    ) -> Result<Node, StartError> {
        let (name, address) = self.initial[n].clone();
        let listener = listen(&address).await;
        let endpoints = Endpoints { peer: address.clone(), ..Endpoints::default() };
        let mut options = NodeOptions::new(self.data_dir(n), &name, listener, endpoints);
        options.initial_cluster = self.initial.clone();
        options.dialer = Arc::new(TestDialer { net: self.net.clone(), from: address });
        options.on_fatal = Arc::new(|message| panic!("node failed: {message}"));
        (self.tune)(n, &mut options);
        if let Some(clock) = self.clocks.get(&n) {
            options.clock = Arc::clone(clock);
        }
        change(&mut options);
        let node = Node::start(options, Arc::new(Echo)).await?;
        self.nodes.insert(n, node.clone());
        Ok(node)
    }

    /// Ends node `n` as a crash would.
    pub(crate) async fn crash(&mut self, n: usize) {
        let node = self.nodes.remove(&n).unwrap();
        node.stop().await;
        drop(node);
        // Its files are free once its threads let go of them.
        let dir = self.data_dir(n);
        until("files of a stopped node are free", || is_free(&dir)).await;
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.nodes.iter().find(|(_, node)| node.tenure().borrow().is_some()).map(|(n, _)| *n)
    }

    pub(crate) async fn wait_leader(&self) -> usize {
        until("somebody leads", || self.leader().is_some()).await;
        self.leader().unwrap()
    }

    /// A leader other than `not`.
    pub(crate) async fn wait_other_leader(&self, not: usize) -> usize {
        let other = || {
            self.nodes
                .iter()
                .find(|(n, node)| **n != not && node.tenure().borrow().is_some())
                .map(|(n, _)| *n)
        };
        until("somebody else leads", || other().is_some()).await;
        other().unwrap()
    }

    pub(crate) fn node(&self, n: usize) -> &Node {
        &self.nodes[&n]
    }

    pub(crate) fn others(&self, not: usize) -> Vec<usize> {
        self.nodes.keys().copied().filter(|n| *n != not).collect()
    }

    pub(crate) fn isolate(&self, n: usize) {
        let others: Vec<String> = self
            .initial
            .iter()
            .map(|(_, address)| address.clone())
            .filter(|address| address != self.address(n))
            .collect();
        self.net.isolate(self.address(n), &others);
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes.values() {
            node.stop().await;
        }
    }
}

async fn listen(address: &str) -> TcpListener {
    let deadline = soon();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether this process has no file of `dir` open any more.
fn is_free(dir: &Path) -> bool {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    !files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file.starts_with(dir))
}

pub(crate) fn put(key: &str, value: &str) -> quorate::Command {
    let put = etcd::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    quorate::Command { fence: None, kind: Some(quorate::command::Kind::Put(put)) }
}

pub(crate) async fn write(node: &Node, key: &str, value: &str) -> Result<Committed, ProposeError> {
    let committed = node.propose(put(key, value), soon()).await?;
    committed.outcome.as_ref().unwrap();
    Ok(committed)
}

/// Value and version of a key.
pub(crate) async fn read(
    node: &Node,
    key: &str,
    consistency: Consistency,
    deadline: Instant,
) -> Result<Option<(String, i64)>, ReadError> {
    let view = node.view(consistency, deadline).await?;
    let request = etcd::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let (plan, pinned) = view.pin(|state| state.plan_range(&request).unwrap());
    let response = plan.fetch(&pinned).unwrap();
    Ok(response
        .kvs
        .into_iter()
        .next()
        .map(|kv| (String::from_utf8(kv.value.to_vec()).unwrap(), kv.version)))
}

pub(crate) async fn value(node: &Node, key: &str) -> Option<String> {
    read(node, key, Consistency::Linearizable, soon()).await.unwrap().map(|(value, _)| value)
}
