//! A client of a whole cluster: give it any of the endpoints, it learns the others, finds the
//! leader, follows it through elections and repeats what is safe to repeat.
//!
//! Any node takes any call of the etcd API, so [`To::Any`] is right for it: the node forwards.
//! [`To::Leader`] is for what only a leader answers.

mod error;
mod retry;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

pub use error::ClientError;
use error::Tried;
use retry::{Advice, Backoff, advice};
pub use retry::{LEADER_METADATA, NOT_LEADER_METADATA};

use crate::admin;

/// Answers are at most this large: a range of many keys is.
const DECODED_BYTES_MAX: usize = 1 << 31;

/// Which node must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Any,
    Leader,
}

/// What may happen when the fate of an attempt is unclear: it was sent, and no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Doing it twice is as good as once.
    Safe,
    /// It may have been done: the caller learns that. (What certainly was not done, because no
    /// connection stood or a node refused it, is repeated all the same.)
    Never,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// For one call, with all its attempts.
    pub timeout: Duration,
    /// For one attempt: a node that hangs must not use up the whole time.
    pub attempt_timeout: Duration,
    pub connect_timeout: Duration,
    /// When every known address has refused to connect for so long, there is nobody to wait for.
    pub nobody_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(1),
            nobody_timeout: Duration::from_secs(10),
        }
    }
}

/// Cheap to clone; clones share connections and what was learned.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    book: Mutex<Book>,
}

/// What is known of the cluster.
struct Book {
    /// HOST:PORT of every node, as given and as learned.
    addresses: Vec<String>,
    channels: BTreeMap<String, Channel>,
    leader: Option<String>,
    /// The address that answered last is asked first.
    preferred: usize,
}

impl Client {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// No endpoint, or one that is not `HOST:PORT` (`http://` before it is allowed).
    pub fn new<S: AsRef<str>>(endpoints: &[S], options: Options) -> Result<Client, ClientError> {
        let mut addresses: Vec<String> = Vec::new();
        for endpoint in endpoints {
            let address = endpoint.as_ref().trim();
            let address = address.strip_prefix("http://").unwrap_or(address);
            let address = address.strip_suffix('/').unwrap_or(address);
            if address.is_empty() {
                continue;
            }
            check_address(address)?;
            if !addresses.iter().any(|known| known == address) {
                addresses.push(address.to_owned());
            }
        }
        if addresses.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        let book = Book { addresses, channels: BTreeMap::new(), leader: None, preferred: 0 };
        Ok(Client { shared: Arc::new(Shared { options, book: Mutex::new(book) }) })
    }

    /// Every address that is known by now.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.book.lock().addresses.clone()
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// A connection to one node, made on first use and kept.
    ///
    /// # Errors
    /// The address is not `HOST:PORT`.
    pub fn channel(&self, address: &str) -> Result<Channel, ClientError> {
        if let Some(channel) = self.shared.book.lock().channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = check_address(address)?
            .connect_timeout(self.shared.options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .connect_lazy();
        self.shared.book.lock().channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// What one node says of itself, without help of others.
    ///
    /// # Errors
    /// It cannot be reached in time or refuses.
    pub async fn status_of(&self, address: &str) -> Result<admin::NodeStatus, ClientError> {
        let mut client = admin_client(self.channel(address)?);
        let answer = tokio::time::timeout(
            self.shared.options.attempt_timeout.min(self.shared.options.timeout),
            client.status(admin::StatusRequest {}),
        );
        match answer.await {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(address, status)),
            Err(_) => Err(ClientError::unreachable(address, "no answer in time")),
        }
    }

    /// Asks known nodes until one answers, and learns members and leader from it.
    ///
    /// # Errors
    /// None of them answered in time.
    pub async fn discover(&self) -> Result<admin::NodeStatus, ClientError> {
        let status = self
            .call(To::Any, Repeat::Safe, |channel| async move {
                let answer = admin_client(channel).status(admin::StatusRequest {}).await?;
                Ok(answer.into_inner())
            })
            .await?;
        self.learn(&status);
        Ok(status)
    }

    /// Remembers the addresses that a status tells.
    fn learn(&self, status: &admin::NodeStatus) {
        let mut book = self.shared.book.lock();
        for member in &status.members {
            let Some(addresses) = &member.addresses else { continue };
            let client = &addresses.client;
            if !client.is_empty() && !book.addresses.contains(client) {
                book.addresses.push(client.clone());
            }
            if member.id == status.leader_id && !client.is_empty() {
                book.leader = Some(client.clone());
            }
        }
        if status.leader_id == 0 {
            book.leader = None;
        }
    }

    /// Makes attempts until one succeeds, a node refuses for good, or the time is over.
    ///
    /// # Errors
    /// What the last attempt met; [`ClientError::Unclear`] where the call may have been done.
    pub async fn call<T, F, Attempt>(
        &self,
        to: To,
        repeat: Repeat,
        attempt: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Channel) -> Attempt,
        Attempt: Future<Output = Result<T, tonic::Status>>,
    {
        let deadline = Instant::now() + self.shared.options.timeout;
        let mut backoff = Backoff::default();
        let mut tried = Tried::default();
        let began = Instant::now();
        loop {
            let address = self.target(to, &tried, deadline).await;
            let channel = self.channel(&address)?;
            let until = deadline.min(Instant::now() + self.shared.options.attempt_timeout);
            let outcome = tokio::time::timeout_at(until, attempt(channel)).await;
            let advice = match outcome {
                Ok(Ok(answer)) => {
                    self.prefer(&address);
                    return Ok(answer);
                }
                Ok(Err(status)) => {
                    tried.note(&address, status.message());
                    advice(status)
                }
                Err(_) => {
                    tried.note(&address, "no answer in time");
                    Advice::Unclear(None)
                }
            };
            match advice {
                Advice::Refused(status) => return Err(ClientError::Refused { address, status }),
                Advice::NotLeader(leader) => self.follow(leader),
                Advice::NotDone => self.avoid(&address),
                Advice::NoConnection => {
                    tried.note_no_connection(&address);
                    self.avoid(&address);
                }
                Advice::Unclear(status) => {
                    self.avoid(&address);
                    if repeat == Repeat::Never {
                        return Err(ClientError::Unclear { address, status });
                    }
                }
            }
            if began.elapsed() >= self.shared.options.nobody_timeout
                && self.addresses().iter().all(|address| tried.never_connected(address))
            {
                return Err(tried.into_error(began.elapsed()));
            }
            let pause = backoff.next_pause();
            if Instant::now() + pause >= deadline {
                return Err(tried.into_error(self.shared.options.timeout));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The address to try next; looks for the leader when only it will do and none is known.
    async fn target(&self, to: To, tried: &Tried, deadline: Instant) -> String {
        if to == To::Leader {
            if let Some(leader) = self.shared.book.lock().leader.clone() {
                return leader;
            }
            let addresses = self.addresses();
            let first = self.shared.book.lock().preferred;
            for offset in 0..addresses.len() {
                if Instant::now() >= deadline {
                    break;
                }
                let address = &addresses[(first + offset) % addresses.len()];
                if let Ok(status) = self.status_of(address).await {
                    self.learn(&status);
                    if let Some(leader) = self.shared.book.lock().leader.clone() {
                        return leader;
                    }
                }
            }
        }
        let book = self.shared.book.lock();
        let untried = (0..book.addresses.len())
            .map(|offset| &book.addresses[(book.preferred + offset) % book.addresses.len()])
            .find(|address| !tried.contains(address));
        untried.unwrap_or(&book.addresses[book.preferred % book.addresses.len()]).clone()
    }

    fn prefer(&self, address: &str) {
        let mut book = self.shared.book.lock();
        if let Some(place) = book.addresses.iter().position(|known| known == address) {
            book.preferred = place;
        }
    }

    fn avoid(&self, address: &str) {
        let mut book = self.shared.book.lock();
        if book.leader.as_deref() == Some(address) {
            book.leader = None;
        }
        if book.addresses.iter().position(|known| known == address) == Some(book.preferred) {
            book.preferred = (book.preferred + 1) % book.addresses.len();
        }
    }

    fn follow(&self, leader: Option<String>) {
        let mut book = self.shared.book.lock();
        if let Some(leader) = &leader
            && !book.addresses.contains(leader)
        {
            book.addresses.push(leader.clone());
        }
        book.leader = leader;
    }
}

fn check_address(address: &str) -> Result<Endpoint, ClientError> {
    let bad = |reason: &str| ClientError::BadEndpoint {
        given: address.to_owned(),
        reason: reason.to_owned(),
    };
    if address.contains("://") {
        return Err(bad("only http:// or no scheme at all"));
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(bad("the port is missing"));
    };
    if host.is_empty() {
        return Err(bad("the host is missing"));
    }
    if port.parse::<u16>().is_err() {
        return Err(bad("the port is not a number from 1 to 65535"));
    }
    match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => Ok(endpoint),
        Err(error) => Err(bad(&error.to_string())),
    }
}

/// Client stubs that take answers of any size: the server bounds them.
macro_rules! stubs {
    ($($name:ident -> $stub:ty, $what:literal;)*) => {
        $(
            #[doc = $what]
            pub fn $name(channel: Channel) -> $stub {
                <$stub>::new(channel)
                    .max_decoding_message_size(DECODED_BYTES_MAX)
                    .max_encoding_message_size(DECODED_BYTES_MAX)
            }
        )*
    };
}

stubs! {
    admin_client -> admin::admin_client::AdminClient<Channel>, "Administration of a node.";
    kv_client -> crate::etcd::kv_client::KvClient<Channel>, "The etcd KV service.";
    watch_client -> crate::etcd::watch_client::WatchClient<Channel>, "The etcd Watch service.";
    lease_client -> crate::etcd::lease_client::LeaseClient<Channel>, "The etcd Lease service.";
    cluster_client -> crate::etcd::cluster_client::ClusterClient<Channel>,
        "The etcd Cluster service.";
    maintenance_client -> crate::etcd::maintenance_client::MaintenanceClient<Channel>,
        "The etcd Maintenance service.";
}
