//! The configuration as types: whoever holds a [`Config`] need not check it again.

mod parse;

use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, Given, Raw, Source, variable};
use crate::coordinator::milvus_yaml::{self, Line, Values};
use crate::coordinator::settings::CoordinatorSettings;
pub(crate) use parse::{cluster, host_port, parse_size, parse_time, show_size};
use parse::{
    count, directory, existing_file, listen_address, log_format, log_level, member_name, role,
    size_bytes, time_span,
};

/// Where Milvus's own DataCoord listens by default.
const LISTEN_COORDINATOR: &str = "127.0.0.1:13333";

/// Bounds of single settings. Relations between two are checked in [`Config::check`].
mod bound {
    use std::time::Duration;

    pub(super) const HEARTBEAT: (Duration, Duration) =
        (Duration::from_millis(10), Duration::from_secs(5));
    pub(super) const ELECTION: (Duration, Duration) =
        (Duration::from_millis(50), Duration::from_secs(60));
    pub(super) const REQUEST: (Duration, Duration) =
        (Duration::from_millis(100), Duration::from_secs(600));
    pub(super) const SHUTDOWN: (Duration, Duration) =
        (Duration::from_millis(100), Duration::from_secs(600));
    pub(super) const REQUEST_BYTES: (u64, u64) = (4 << 10, 64 << 20);
    pub(super) const LOG_BYTES: (u64, u64) = (64 << 10, 1 << 40);
    pub(super) const SEND_RATE: (u64, u64) = (1 << 20, 1 << 40);
    pub(super) const DISK_LOW: (u64, u64) = (0, 1 << 40);
    pub(super) const DISK_BALLAST: (u64, u64) = (0, 64 << 30);
    pub(super) const THREADS: (u64, u64) = (0, 1024);
    /// Heartbeats that must fit into the shortest election timeout.
    pub(super) const HEARTBEATS_PER_ELECTION: u32 = 3;
}

/// Addresses of the four listeners as HOST:PORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) http: String,
    /// `None`: the coordinator API is not served.
    pub(crate) coordinator: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What this node brings to the coordinator's role.
#[derive(Clone, Debug)]
pub(crate) struct CoordinatorConfig {
    pub(crate) settings: CoordinatorSettings,
    /// What became of each key of Milvus.
    pub(crate) milvus: Vec<Line>,
}

/// What `serve` runs with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    /// Name and peer address of every first member, sorted by name; this node is among them.
    pub(crate) initial_cluster: Vec<(String, String)>,
    pub(crate) listen: Addresses,
    pub(crate) advertise: Addresses,
    /// `None`: this node has no part in the coordinator's role.
    pub(crate) coordinator: Option<CoordinatorConfig>,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) election_timeout_min: Duration,
    pub(crate) election_timeout_max: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) request_bytes_max: usize,
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) log_kept_bytes: u64,
    pub(crate) snapshot_bytes_per_s: u64,
    pub(crate) disk_low_bytes: u64,
    pub(crate) disk_ballast_bytes: u64,
    pub(crate) worker_threads: usize,
    pub(crate) log_filter: tracing_subscriber::filter::Targets,
    pub(crate) log_format: LogFormat,
    /// Every setting with its text and source, for people.
    pub(crate) effective: Vec<Effective>,
}

/// One line of the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Effective {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: String,
}

impl Config {
    /// # Errors
    /// The first setting that cannot be used.
    pub(crate) fn check(raw: &Raw) -> Result<Config, ConfigError> {
        let mut reader = Reader { raw, effective: Vec::new() };
        let name = reader.need("name", "give every node its own, for example --name n1")?;
        let name = reader.parse("name", &name, member_name)?;
        let data_dir =
            reader.need("data-dir", "say where the node may keep its data, --data-dir DIR")?;
        let data_dir = reader.parse("data-dir", &data_dir, directory)?;

        let has_role = reader.optional("coordinator", role)?.is_some();
        let listen = Addresses {
            client: reader.required("listen-client", listen_address)?,
            peer: reader.required("listen-peer", listen_address)?,
            http: reader.required("listen-http", listen_address)?,
            coordinator: reader.listen_coordinator(has_role)?,
        };
        reject_shared_addresses(raw, &listen)?;
        let advertise = Addresses {
            client: reader.advertised("advertise-client", "listen-client", &listen.client)?,
            peer: reader.advertised("advertise-peer", "listen-peer", &listen.peer)?,
            http: reader.advertised("advertise-http", "listen-http", &listen.http)?,
            coordinator: match &listen.coordinator {
                Some(address) => Some(reader.advertised(
                    "advertise-coordinator",
                    "listen-coordinator",
                    address,
                )?),
                None => reader.optional("advertise-coordinator", host_port)?,
            },
        };
        let coordinator = match has_role {
            true => Some(reader.coordinator(advertise.coordinator.as_deref())?),
            false => None,
        };
        let initial_cluster = match reader.optional("initial-cluster", cluster)? {
            Some(members) => {
                check_own_entry(raw, &members, &name)?;
                members
            }
            None => {
                let alone = format!("{name}={}", advertise.peer);
                reader.note("initial-cluster", alone, &Source::From("advertise-peer"));
                vec![(name.clone(), advertise.peer.clone())]
            }
        };

        let config = Config {
            name,
            data_dir,
            initial_cluster,
            listen,
            advertise,
            coordinator,
            heartbeat_interval: reader
                .required("heartbeat-interval", time_span(bound::HEARTBEAT))?,
            election_timeout_min: reader
                .required("election-timeout-min", time_span(bound::ELECTION))?,
            election_timeout_max: reader
                .required("election-timeout-max", time_span(bound::ELECTION))?,
            request_timeout: reader.required("request-timeout", time_span(bound::REQUEST))?,
            shutdown_timeout: reader.required("shutdown-timeout", time_span(bound::SHUTDOWN))?,
            request_bytes_max: narrow(
                reader.required("max-request-bytes", size_bytes(bound::REQUEST_BYTES))?,
            ),
            snapshot_log_bytes: reader
                .required("snapshot-log-bytes", size_bytes(bound::LOG_BYTES))?,
            log_kept_bytes: reader.required("log-kept-bytes", size_bytes(bound::LOG_BYTES))?,
            snapshot_bytes_per_s: reader
                .required("snapshot-send-rate", size_bytes(bound::SEND_RATE))?,
            disk_low_bytes: reader.required("disk-low-mark", size_bytes(bound::DISK_LOW))?,
            disk_ballast_bytes: reader.required("disk-ballast", size_bytes(bound::DISK_BALLAST))?,
            worker_threads: narrow(reader.required("worker-threads", count(bound::THREADS))?),
            log_filter: reader.required("log-level", log_level)?,
            log_format: reader.required("log-format", log_format)?,
            effective: Vec::new(),
        };
        check_timers(raw, &config)?;
        Ok(Config { effective: reader.in_order(), ..config })
    }
}

/// Looks settings up, parses them and remembers what came out.
struct Reader<'a> {
    raw: &'a Raw,
    effective: Vec<Effective>,
}

impl Reader<'_> {
    fn need(&self, name: &'static str, hint: &str) -> Result<Given, ConfigError> {
        self.raw.get(name).cloned().ok_or_else(|| ConfigError::Missing {
            name,
            hint: format!("{hint} (or {} or `{name}` in the file)", variable(name)),
        })
    }

    fn parse<T>(
        &mut self,
        name: &'static str,
        given: &Given,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let value = parse(&given.text).map_err(|reason| invalid(name, given, reason))?;
        self.note(name, given.text.clone(), &given.source);
        Ok(value)
    }

    fn optional<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        match self.raw.get(name).cloned() {
            Some(given) => self.parse(name, &given, parse).map(Some),
            None => Ok(None),
        }
    }

    /// For settings that have a default.
    fn required<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let given = self.need(name, "it has a default")?;
        self.parse(name, &given, parse)
    }

    /// The coordinator API needs an address where the role is on, and none elsewhere.
    fn listen_coordinator(&mut self, has_role: bool) -> Result<Option<String>, ConfigError> {
        const NAME: &str = "listen-coordinator";
        let given = self.optional(NAME, listen_address)?;
        if given.is_none() && has_role {
            self.note(NAME, LISTEN_COORDINATOR.to_owned(), &Source::Default);
            return Ok(Some(LISTEN_COORDINATOR.to_owned()));
        }
        Ok(given)
    }

    /// Our own file wins over Milvus's, key by key.
    fn coordinator(&mut self, address: Option<&str>) -> Result<CoordinatorConfig, ConfigError> {
        let mut values = Values::new();
        if let Some(path) = self.optional("milvus-config", existing_file)? {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| ConfigError::Unreadable { path: path.clone(), error })?;
            let file = path.display().to_string();
            values = milvus_yaml::parse(&file, &text).map_err(ConfigError::Milvus)?;
        }
        for (key, value) in &self.raw.milvus {
            values.retain(|known, _| !known.eq_ignore_ascii_case(key));
            values.insert(key.clone(), value.clone());
        }
        let (mut settings, milvus) = milvus_yaml::settings(&values).map_err(ConfigError::Milvus)?;
        address.unwrap_or(LISTEN_COORDINATOR).clone_into(&mut settings.address);
        Ok(CoordinatorConfig { settings, milvus })
    }

    fn advertised(
        &mut self,
        name: &'static str,
        listen_name: &'static str,
        listen: &str,
    ) -> Result<String, ConfigError> {
        if let Some(address) = self.optional(name, host_port)? {
            return Ok(address);
        }
        let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
        if matches!(host, "0.0.0.0" | "[::]") {
            return Err(ConfigError::Missing {
                name,
                hint: format!(
                    "{listen_name} is {listen}, which stands for every address of this machine \
                     and tells others none; set --{name} HOST:PORT to one that they can reach"
                ),
            });
        }
        self.note(name, listen.to_owned(), &Source::From(listen_name));
        Ok(listen.to_owned())
    }

    fn note(&mut self, name: &'static str, value: String, source: &Source) {
        self.effective.push(Effective { name, value, source: source.to_string() });
    }

    fn in_order(mut self) -> Vec<Effective> {
        let place = |name: &str| super::SETTINGS.iter().position(|setting| setting.name == name);
        self.effective.sort_by_key(|line| place(line.name));
        self.effective
    }
}

fn invalid(name: &'static str, given: &Given, reason: String) -> ConfigError {
    let origin = match &given.source {
        Source::Flag => format!("flag --{name}"),
        Source::Environment => variable(name),
        Source::File { .. } | Source::Default | Source::From(_) => given.source.to_string(),
    };
    ConfigError::Invalid { name, given: given.text.clone(), origin, reason }
}

/// The error of a setting whose text is fine alone but does not fit the others.
fn unfit(raw: &Raw, name: &'static str, reason: String) -> ConfigError {
    match raw.get(name) {
        Some(given) => invalid(name, given, reason),
        None => ConfigError::Missing { name, hint: reason },
    }
}

fn reject_shared_addresses(raw: &Raw, listen: &Addresses) -> Result<(), ConfigError> {
    let mut seen: Vec<(&'static str, &str)> = vec![("listen-client", &listen.client)];
    let others = [
        ("listen-peer", Some(&listen.peer)),
        ("listen-http", Some(&listen.http)),
        ("listen-coordinator", listen.coordinator.as_ref()),
    ];
    for (name, address) in others {
        let Some(address) = address else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, taken)| taken == address) {
            return Err(unfit(raw, name, format!("{other} has it already; choose another port")));
        }
        seen.push((name, address));
    }
    Ok(())
}

fn check_own_entry(raw: &Raw, members: &[(String, String)], name: &str) -> Result<(), ConfigError> {
    if members.iter().any(|(member, _)| member == name) {
        return Ok(());
    }
    let names: Vec<&str> = members.iter().map(|(member, _)| member.as_str()).collect();
    let reason = format!(
        "this node's name `{name}` is not among {}; add {name}=HOST:PEERPORT, the same list on \
         every node",
        names.join(", ")
    );
    Err(unfit(raw, "initial-cluster", reason))
}

fn check_timers(raw: &Raw, config: &Config) -> Result<(), ConfigError> {
    let least = config.heartbeat_interval * bound::HEARTBEATS_PER_ELECTION;
    if config.election_timeout_min < least {
        let reason = format!(
            "at least {} heartbeats of {} must fit into it; the least is {}",
            bound::HEARTBEATS_PER_ELECTION,
            humantime::format_duration(config.heartbeat_interval),
            humantime::format_duration(least),
        );
        return Err(unfit(raw, "election-timeout-min", reason));
    }
    if config.election_timeout_max <= config.election_timeout_min {
        let reason = format!(
            "must be above election-timeout-min, {}",
            humantime::format_duration(config.election_timeout_min)
        );
        return Err(unfit(raw, "election-timeout-max", reason));
    }
    Ok(())
}

/// Values whose bound fits every machine that this runs on.
fn narrow(value: u64) -> usize {
    usize::try_from(value).expect("bounded far below the size of an address")
}
