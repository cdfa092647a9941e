//! A cluster of real server processes on this machine.

pub mod command;
pub mod counters;
pub mod disks;
pub mod members;
pub mod network;
pub mod ports;
pub mod process;
pub mod usage;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::client::Client;
use crate::disk::driver::Disks;
use disks::Disk;
use network::{Network, Proxy};
use ports::{Ports, Reservation};
use process::Process;

/// Which server a cluster runs. The driver, the loads and the checkers treat them alike.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClusterKind {
    /// Quorate, by the path of its binary.
    Quorate(PathBuf),
    /// etcd 3.4 or newer, by the path of its binary.
    Etcd(PathBuf),
    /// Servers that answer at once without log, disk or peers: this program's `ceiling`.
    Ceiling(PathBuf),
}

impl ClusterKind {
    /// A word for tables and folders.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            ClusterKind::Quorate(_) => "quorate",
            ClusterKind::Etcd(_) => "etcd",
            ClusterKind::Ceiling(_) => "ceiling",
        }
    }

    /// The binary that is run.
    #[must_use]
    pub fn binary(&self) -> &Path {
        match self {
            ClusterKind::Quorate(binary)
            | ClusterKind::Etcd(binary)
            | ClusterKind::Ceiling(binary) => binary,
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub kind: ClusterKind,
    pub n_nodes: usize,
    /// Flags added to every node's command line.
    pub extra_args: Vec<String>,
    /// Peers reach each other through proxies that can be cut.
    pub proxied: bool,
    /// Each node has a disk of its own, which can be made to hang.
    pub own_disks: bool,
    /// Size in bytes of the FUSE disk of each node, if the run cuts their power.
    pub forgetful_disks: Option<u64>,
    /// The folder under which a temporary one is made; the system's own where `None`.
    pub work_dir: Option<PathBuf>,
}

impl ClusterOptions {
    /// Three nodes with no flags of their own.
    #[must_use]
    pub fn three(kind: ClusterKind) -> ClusterOptions {
        ClusterOptions {
            kind,
            n_nodes: 3,
            extra_args: Vec::new(),
            proxied: false,
            own_disks: false,
            forgetful_disks: None,
            work_dir: None,
        }
    }
}

/// One node: a process, its ports and its data.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub ports: Ports,
    /// `host:port` under which its peers reach it.
    pub peer: String,
    pub data_dir: PathBuf,
    pub process: Process,
    pub client: Client,
    // Kept while the node is down, too.
    _reservation: Reservation,
}

/// Running nodes. Dropping it kills every process and removes every file.
#[derive(Debug)]
pub struct Cluster {
    pub kind: ClusterKind,
    pub nodes: Vec<Node>,
    /// As every node's `--initial-cluster` has it.
    pub initial_cluster: String,
    /// The proxies between the peers, where there are any.
    pub network: Option<Network>,
    /// One of each node, where they have their own.
    pub disks: Vec<Disk>,
    /// The FUSE disks of the nodes; `None` if the nodes use the local file system.
    pub forgetful: Option<Disks>,
    // After `nodes`, so that the processes are gone before their folder is.
    folder: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts the nodes and waits until they have a leader and take a write.
    ///
    /// # Errors
    /// No free ports, a binary that does not run, or no leader within a minute.
    pub async fn start(options: &ClusterOptions) -> Result<Cluster> {
        let mut cluster = Cluster::prepare(options)?;
        cluster.start_all()?;
        if !matches!(cluster.kind, ClusterKind::Ceiling(_)) {
            cluster.wait_ready(Duration::from_secs(60)).await?;
        } else {
            cluster.wait_listening(Duration::from_secs(10)).await?;
        }
        Ok(cluster)
    }

    /// Draws folders and ports without starting anything.
    ///
    /// # Errors
    /// No free ports or no temporary folder.
    pub fn prepare(options: &ClusterOptions) -> Result<Cluster> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("quorate-chaos-");
        let folder = match &options.work_dir {
            Some(work_dir) => builder.tempdir_in(work_dir),
            None => builder.tempdir(),
        }
        .context("making a temporary folder")?;
        let reserved = ports::reserve(options.n_nodes)?;
        let ports: Vec<Ports> = reserved.iter().map(|reservation| reservation.ports).collect();
        let names: Vec<String> = (1..=options.n_nodes).map(|number| format!("n{number}")).collect();
        let peers: Vec<String> = ports
            .iter()
            .map(|ports| if options.proxied { ports.peer_proxy() } else { ports.peer() })
            .collect();
        let network = options.proxied.then(|| {
            let proxies = names.iter().zip(&ports).map(|(name, ports)| Proxy {
                name: name.clone(),
                listen: ports.peer_proxy(),
                node: ports.peer(),
            });
            Network::start(&proxies.collect::<Vec<_>>())
        });
        let initial_cluster = initial_cluster(&options.kind, &names, &peers);
        let (mut disks, mut nodes) = (Vec::new(), Vec::new());
        for ((name, reservation), peer) in names.iter().zip(reserved).zip(&peers) {
            let ports = reservation.ports;
            let mut data_dir = folder.path().join(name);
            if options.forgetful_disks.is_some() {
                data_dir.push("data");
            }
            if options.own_disks {
                disks.push(Disk::mount(&data_dir)?);
                // Beside what the file system keeps for itself.
                data_dir.push("data");
            }
            let mut args = node_args(&options.kind, name, ports, peer, &data_dir, &initial_cluster);
            args.extend(options.extra_args.iter().cloned());
            let log_path = folder.path().join(format!("{name}.log"));
            nodes.push(Node {
                name: name.clone(),
                ports,
                peer: peer.clone(),
                data_dir,
                process: Process::new(name, options.kind.binary(), args, log_path),
                client: Client::new(&ports.client())?,
                _reservation: reservation,
            });
        }
        let kind = options.kind.clone();
        let network = network.transpose()?;
        let forgetful = options.forgetful_disks.map(|n_bytes| {
            let mountpoints: Vec<PathBuf> =
                names.iter().map(|name| folder.path().join(name)).collect();
            Disks::start(&std::env::current_exe()?, n_bytes, &mountpoints)
        });
        let forgetful = forgetful.transpose()?;
        let folder = Some(folder);
        Ok(Cluster { kind, nodes, initial_cluster, network, disks, forgetful, folder })
    }

    /// The folder of this cluster's data and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("."), tempfile::TempDir::path)
    }

    /// Leaves the folder on disk, for a look at what went wrong.
    pub fn keep_folder(&mut self) -> PathBuf {
        if self.forgetful.is_some() {
            // The disks are in memory: what is on them is copied beside them.
            for node in &self.nodes {
                let kept = self.folder().join(format!("{}.kept", node.name));
                let _ = command::copy_folder(&node.data_dir, &kept);
            }
        }
        self.folder.take().map_or_else(PathBuf::new, tempfile::TempDir::keep)
    }

    /// `host:port` of every node's client listener.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.ports.client()).collect()
    }

    /// A client of every node.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Pids of the running nodes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.pid()).collect()
    }

    /// The node that says it leads, where one of the running ones does.
    pub async fn leader(&self) -> Option<usize> {
        let mut best: Option<(u64, usize)> = None;
        for (at, node) in self.nodes.iter().enumerate() {
            if !node.process.is_running() || node.process.is_stopped() {
                continue;
            }
            let Ok(status) = node.client.status(Duration::from_millis(500)).await else {
                continue;
            };
            let leads = status.header.as_ref().is_some_and(|it| it.member_id == status.leader);
            if leads && best.is_none_or(|(term, _)| term < status.raft_term) {
                best = Some((status.raft_term, at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// Waits until one node says it leads.
    ///
    /// # Errors
    /// None did within `patience`.
    pub async fn wait_leader(&mut self, patience: Duration) -> Result<usize> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            self.check_alive()?;
            if Instant::now() > deadline {
                bail!("no leader within {patience:?}; {}", self.log_tails());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until there is a leader and every running node answers a linearizable read.
    ///
    /// # Errors
    /// That did not happen within `patience`, or a node exited by itself.
    pub async fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        for at in 0..self.nodes.len() {
            while self.nodes[at].process.is_running() && !self.nodes[at].process.is_stopped() {
                let probe = self.nodes[at].client.get("health", Duration::from_secs(2)).await;
                let Err(error) = probe else { break };
                self.check_alive()?;
                if Instant::now() > deadline {
                    bail!(
                        "{} did not answer within {patience:?}: {error}; {}",
                        self.nodes[at].name,
                        self.log_tails()
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn wait_listening(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        for at in 0..self.nodes.len() {
            let address = self.nodes[at].ports.client();
            while tokio::net::TcpStream::connect(&address).await.is_err() {
                self.check_alive()?;
                if Instant::now() > deadline {
                    bail!("{address} did not listen within {patience:?}");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Fails where a node exited without being told to.
    ///
    /// # Errors
    /// Names the node, its status and the end of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.process.exited_by_itself() {
                bail!("{} exited by itself with {status}:\n{}", node.name, tail(&node.process));
            }
        }
        Ok(())
    }

    /// Kills every running node with SIGKILL, all signals first.
    ///
    /// # Errors
    /// One of them had exited by itself.
    pub fn kill_all(&mut self) -> Result<Instant> {
        let running = |node: &&mut Node| node.process.is_running();
        for node in self.nodes.iter_mut().filter(running) {
            node.process.send_kill()?;
        }
        let at = Instant::now();
        for node in self.nodes.iter_mut().filter(running) {
            node.process.reap()?;
        }
        Ok(at)
    }

    /// Starts every node that is not running.
    ///
    /// # Errors
    /// A binary could not be run.
    pub fn start_all(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if node.process.is_stopped() {
                node.process.resume()?;
            }
            if !node.process.is_running() {
                node.process.start()?;
            }
        }
        Ok(())
    }

    /// The last lines of every node's log.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let tails =
            self.nodes.iter().map(|node| format!("{}:\n{}", node.name, tail(&node.process)));
        tails.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A process that waits for its disk cannot be killed.
        for disk in &mut self.disks {
            let _ = disk.thaw();
        }
        if let Some(disks) = &self.forgetful {
            disks.abort();
        }
    }
}

fn tail(process: &Process) -> String {
    let text = std::fs::read(process.log_path()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn initial_cluster(kind: &ClusterKind, names: &[String], peers: &[String]) -> String {
    let scheme = match kind {
        ClusterKind::Etcd(_) => "http://",
        ClusterKind::Quorate(_) | ClusterKind::Ceiling(_) => "",
    };
    let members = names.iter().zip(peers).map(|(name, peer)| format!("{name}={scheme}{peer}"));
    members.collect::<Vec<_>>().join(",")
}

fn node_args(
    kind: &ClusterKind,
    name: &str,
    ports: Ports,
    advertised_peer: &str,
    data_dir: &Path,
    initial_cluster: &str,
) -> Vec<String> {
    let data_dir = data_dir.display();
    let text = match kind {
        ClusterKind::Quorate(_) => format!(
            "serve --name {name} --data-dir {data_dir} --listen-client {} --listen-peer {} \
             --advertise-peer {advertised_peer} --listen-http {} \
             --initial-cluster {initial_cluster} --log-format json",
            ports.client(),
            ports.peer(),
            ports.http(),
        ),
        ClusterKind::Etcd(_) => format!(
            "--name {name} --data-dir {data_dir} --listen-client-urls http://{client} \
             --advertise-client-urls http://{client} --listen-peer-urls http://{peer} \
             --initial-advertise-peer-urls http://{advertised_peer} --initial-cluster {initial_cluster} \
             --initial-cluster-state new --logger zap --log-level error",
            client = ports.client(),
            peer = ports.peer(),
        ),
        ClusterKind::Ceiling(_) => format!("ceiling --listen {}", ports.client()),
    };
    text.split_ascii_whitespace().map(str::to_owned).collect()
}
