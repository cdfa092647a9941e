//! `quorate dev`: a whole cluster on this machine, as processes of their own.

mod node;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use proto::admin::Stage;
use proto::client::{Client, Options};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Ending;
use super::output::{self, note};
use node::{DevNode, Exit};

/// A node that ends this often within a minute is not started again.
const RESTARTS_PER_MINUTE_MAX: usize = 5;

const READY_WITHIN: Duration = Duration::from_secs(60);
const PORTS_PER_NODE: u16 = 10;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate dev                              three nodes, data in ./quorate-dev
  quorate dev --nodes 1 --base-port 3379
  quorate dev -- --log-level debug         what follows -- goes to every node

Ctrl-C stops all nodes and keeps the data; the same command goes on with it.")]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Directory of the data and the log files of all nodes
    #[arg(long, default_value = "quorate-dev", value_name = "DIR")]
    data_dir: PathBuf,
    /// Client port of the first node; each node takes ten ports
    #[arg(long, default_value_t = 2379, value_name = "PORT")]
    base_port: u16,
    /// Settings for every node, as for `quorate serve`
    #[arg(last = true)]
    settings: Vec<String>,
}

pub(super) async fn run(args: DevArgs) -> anyhow::Result<Ending> {
    let last_port = u32::from(args.base_port) + u32::from(args.nodes * PORTS_PER_NODE);
    anyhow::ensure!(
        args.base_port > 0 && last_port <= 65_535,
        "--base-port {} leaves no room for {} nodes with {PORTS_PER_NODE} ports each",
        args.base_port,
        args.nodes
    );
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot create {}", args.data_dir.display()))?;
    let mut interrupts = Interrupts::listen()?;
    let mut nodes = launch(&args)?;
    let endpoints: Vec<String> = nodes.iter().map(DevNode::client_address).collect();

    let ready = tokio::select! {
        // Cancel-safe: it only asks.
        ready = wait_ready(&endpoints, &mut nodes) => ready,
        () = interrupts.next() => {
            stop(nodes).await;
            return Ok(Ending::Good);
        }
    };
    if let Err(error) = ready {
        stop(nodes).await;
        return Err(error);
    }
    let leader = leader_of(&endpoints).await;
    print_table(&args.data_dir, &nodes, leader.as_deref());

    let gave_up = supervise(&mut nodes, &mut interrupts).await;
    note("");
    stop(nodes).await;
    match gave_up {
        Some(error) => Err(error),
        None => Ok(Ending::Good),
    }
}

fn launch(args: &DevArgs) -> anyhow::Result<Vec<DevNode>> {
    let mut nodes: Vec<DevNode> = (0..args.nodes)
        .map(|place| {
            DevNode::new(
                format!("n{}", place + 1),
                args.base_port + place * PORTS_PER_NODE,
                &args.data_dir,
            )
        })
        .collect();
    let cluster: Vec<String> =
        nodes.iter().map(|node| format!("{}={}", node.name, node.peer_address())).collect();
    let cluster = cluster.join(",");
    for node in &mut nodes {
        node.use_settings(&cluster, &args.settings);
        node.start()?;
    }
    Ok(nodes)
}

/// Every node serves the keyspace and all name the same leader.
async fn wait_ready(endpoints: &[String], nodes: &mut [DevNode]) -> anyhow::Result<()> {
    let client = Client::new(endpoints, quick())?;
    let started = Instant::now();
    loop {
        for node in nodes.iter_mut() {
            if let Some(exit) = node.exited()? {
                anyhow::bail!("{}", node.why_it_ended(&exit));
            }
        }
        let mut ready = 0;
        let mut leaders = Vec::new();
        for endpoint in endpoints {
            let Ok(status) = client.status_of(endpoint).await else { continue };
            if matches!(status.stage(), Stage::Keyspace | Stage::Hot) && status.leader_id != 0 {
                ready += 1;
                leaders.push(status.leader_id);
            }
        }
        leaders.dedup();
        if ready == endpoints.len() && leaders.len() == 1 {
            return Ok(());
        }
        anyhow::ensure!(
            started.elapsed() < READY_WITHIN,
            "{ready} of {} nodes are ready after {} s: look into the log files beside the data",
            endpoints.len(),
            READY_WITHIN.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn leader_of(endpoints: &[String]) -> Option<String> {
    let client = Client::new(endpoints, quick()).ok()?;
    client.discover().await.ok().map(|status| status.leader_name)
}

fn quick() -> Options {
    Options {
        timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_millis(300),
        nobody_timeout: Duration::from_secs(1),
    }
}

fn print_table(data_dir: &Path, nodes: &[DevNode], leader: Option<&str>) {
    let rows = nodes
        .iter()
        .map(|node| {
            let role = if leader == Some(node.name.as_str()) { "leader" } else { "follower" };
            vec![
                node.name.clone(),
                node.pid().map_or("-".to_owned(), |pid| pid.to_string()),
                role.to_owned(),
                node.client_address(),
                node.peer_address(),
                format!("http://{}", node.http_address()),
                node.log_path().display().to_string(),
            ]
        })
        .collect();
    let heads = ["node", "pid", "role", "client", "peer", "http", "log"];
    output::line(&output::table(&heads, &[1], rows));
    let endpoints: Vec<String> = nodes.iter().map(DevNode::client_address).collect();
    let endpoints = endpoints.join(",");
    output::line(&format!(
        "\n\
         status     quorate status -e {endpoints}\n\
         etcdctl    ETCDCTL_API=3 etcdctl --endpoints {endpoints} put hello world\n\
         data       {}\n\
         \n\
         Ctrl-C stops all nodes. Kill one to see the others go on: it is started again.",
        data_dir.display()
    ));
}

/// Starts nodes again that end, until a person stops it or a node keeps ending.
async fn supervise(nodes: &mut [DevNode], interrupts: &mut Interrupts) -> Option<anyhow::Error> {
    loop {
        tokio::select! {
            // Cancel-safe: signals are kept until they are read.
            () = interrupts.next() => return None,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        for node in nodes.iter_mut() {
            let exit = match node.exited() {
                Ok(None) => continue,
                Ok(Some(exit)) => exit,
                Err(error) => return Some(error),
            };
            note(&node.why_it_ended(&exit));
            if node.recent_ends() > RESTARTS_PER_MINUTE_MAX {
                return Some(anyhow::anyhow!(
                    "{} ended {RESTARTS_PER_MINUTE_MAX} times within a minute, giving up",
                    node.name
                ));
            }
            if let Err(error) = node.start() {
                return Some(error);
            }
            let pid = node.pid().unwrap_or_default();
            note(&format!("{} started again as pid {pid}", node.name));
        }
    }
}

/// Followers first: the leader then has nobody to hand over to and need not try.
async fn stop(nodes: Vec<DevNode>) {
    let n_nodes = nodes.len();
    note(&format!("stopping {n_nodes} nodes"));
    let ends = futures::future::join_all(nodes.into_iter().map(DevNode::stop)).await;
    let killed: Vec<String> = ends
        .into_iter()
        .filter_map(|(name, exit)| match exit {
            Exit::Killed => Some(name),
            Exit::Code(_) | Exit::Signal(_) => None,
        })
        .collect();
    match killed.is_empty() {
        true => note("all nodes stopped, the data is kept"),
        false => note(&format!("had to be killed: {}", killed.join(", "))),
    }
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> anyhow::Result<Interrupts> {
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            // Both are cancel-safe.
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
