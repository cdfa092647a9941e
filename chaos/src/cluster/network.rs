//! The network between the nodes: every peer is reached through a proxy here, which can hold back
//! the bytes of one direction between two nodes, as a partition does, or let them through slowly.
//!
//! Nobody is told: connections stay open, and what was held back flows on when the cut heals.

use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The proxies of one cluster. Dropping it closes every connection between the nodes.
#[derive(Debug)]
pub struct Network {
    links: Arc<Links>,
    _proxies: JoinSet<()>,
}

/// `links[from][to]` is one direction between two nodes.
#[derive(Debug)]
struct Links {
    names: Vec<String>,
    links: Vec<Vec<watch::Sender<Link>>>,
}

/// What a direction does with the bytes that are sent.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// They wait until it is healed.
    is_cut: bool,
    /// Each piece of at most 64 KiB takes so long.
    delay: Duration,
}

/// The two ends of one node's proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub name: String,
    pub listen: String,
    pub node: String,
}

impl Network {
    /// Listens for every node.
    ///
    /// # Errors
    /// A port is taken.
    pub fn start(proxies: &[Proxy]) -> Result<Network> {
        let n_nodes = proxies.len();
        let link = |_| watch::channel(Link::default()).0;
        let row = || (0..n_nodes).map(link).collect::<Vec<_>>();
        let links = Arc::new(Links {
            names: proxies.iter().map(|proxy| proxy.name.clone()).collect(),
            links: (0..n_nodes).map(|_| row()).collect(),
        });
        let mut tasks = JoinSet::new();
        for (to, proxy) in proxies.iter().enumerate() {
            let listener = StdListener::bind(&proxy.listen)
                .with_context(|| format!("the proxy at {}", proxy.listen))?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(accept(listener, to, proxy.node.clone(), Arc::clone(&links)));
        }
        Ok(Network { links, _proxies: tasks })
    }

    /// Nothing reaches the node any more.
    pub fn cut_inbound(&self, node: usize) {
        self.links.links.iter().for_each(|row| cut(&row[node]));
    }

    /// Nothing that the node sends arrives any more.
    pub fn cut_outbound(&self, node: usize) {
        self.links.links[node].iter().for_each(cut);
    }

    /// All but `bridge` are cut from each other; each of them still reaches it.
    pub fn cut_all_but_bridge(&self, bridge: usize) {
        for (from, row) in self.links.links.iter().enumerate() {
            for (to, link) in row.iter().enumerate() {
                if from != bridge && to != bridge {
                    cut(link);
                }
            }
        }
    }

    /// What the node sends and what is sent to it takes longer.
    pub fn slow_down(&self, node: usize, delay: Duration) {
        let slow = |link: &watch::Sender<Link>| link.send_modify(|link| link.delay = delay);
        self.links.links[node].iter().for_each(slow);
        self.links.links.iter().for_each(|row| slow(&row[node]));
    }

    /// Everything flows.
    pub fn heal(&self) {
        for link in self.links.links.iter().flatten() {
            link.send_replace(Link::default());
        }
    }
}

fn cut(link: &watch::Sender<Link>) {
    link.send_modify(|link| link.is_cut = true);
}

async fn accept(listener: TcpListener, to: usize, node: String, links: Arc<Links>) {
    // Dropped with the listener: no connection outlives its proxy.
    let mut connections = JoinSet::new();
    loop {
        let Ok((incoming, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(incoming, peer, to, node.clone(), Arc::clone(&links)));
    }
}

async fn connect(
    incoming: TcpStream,
    peer: SocketAddr,
    to: usize,
    node: String,
    links: Arc<Links>,
) {
    let Some(from) = owner(peer.port(), &links.names) else {
        return;
    };
    let Ok(outgoing) = TcpStream::connect(&node).await else {
        return;
    };
    let _ = (incoming.set_nodelay(true), outgoing.set_nodelay(true));
    let (client_read, client_write) = incoming.into_split();
    let (server_read, server_write) = outgoing.into_split();
    // The end of either direction ends both: gRPC does not use half-closed connections.
    tokio::select! {
        () = pump(client_read, server_write, links.links[from][to].subscribe()) => {}
        () = pump(server_read, client_write, links.links[to][from].subscribe()) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(n_bytes @ 1..) = from.read(&mut buffer).await else {
            // The end of a connection is news too, and must not overtake the cut.
            let _ = link.wait_for(|link| !link.is_cut).await;
            return;
        };
        let delay = link.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if link.wait_for(|link| !link.is_cut).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..n_bytes]).await.is_err() {
            return;
        }
    }
}

/// Which of our nodes opened the connection that comes from `port`: the kernel knows its socket,
/// and the node's command line has its name.
fn owner(port: u16, names: &[String]) -> Option<usize> {
    let socket = format!("socket:[{}]", inode(port)?);
    let parent = std::process::id();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let process = entry.path();
        let Ok(stat) = fs::read_to_string(process.join("stat")) else {
            continue;
        };
        let is_child = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(1))
            .is_some_and(|it| it.parse() == Ok(parent));
        if !is_child {
            continue;
        }
        let Ok(files) = fs::read_dir(process.join("fd")) else {
            continue;
        };
        let owns = files
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|it| it.as_os_str() == &*socket));
        if owns {
            let line = fs::read(process.join("cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0);
            words.find(|word| *word == b"--name")?;
            let name = words.next()?;
            return names.iter().position(|it| it.as_bytes() == name);
        }
    }
    None
}

/// The inode of the socket whose local port on this machine is `port` and which is connected.
fn inode(port: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{port:04X}");
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        (fields.next()? == local).then(|| fields.nth(7).map(str::to_owned)).flatten()
    })
}
