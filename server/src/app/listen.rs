//! Binds every address before anything else happens: a taken port must leave no trace on disk.

use std::io;

use tokio::net::TcpListener;

use crate::config::checked::Config;

pub(super) struct Listeners {
    pub(super) client: TcpListener,
    pub(super) peer: TcpListener,
    pub(super) http: TcpListener,
    /// Present where the coordinator API is served.
    pub(super) coordinator: Option<TcpListener>,
}

impl Listeners {
    /// # Errors
    /// An address cannot be bound; the message names the setting, the reason and who has it.
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Listeners> {
        let addresses = &config.listen;
        let coordinator = match (&config.coordinator, &addresses.coordinator) {
            (Some(_), Some(address)) => Some(bind("listen-coordinator", address).await?),
            (Some(_) | None, _) => None,
        };
        Ok(Listeners {
            client: bind("listen-client", &addresses.client).await?,
            peer: bind("listen-peer", &addresses.peer).await?,
            http: bind("listen-http", &addresses.http).await?,
            coordinator,
        })
    }
}

async fn bind(name: &'static str, address: &str) -> anyhow::Result<TcpListener> {
    let error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    match error.kind() == io::ErrorKind::AddrInUse {
        true => {
            let holder = holder::of_port(port).unwrap_or_else(|| "another process".to_owned());
            anyhow::bail!(
                "{name} = `{address}`: port {port} is in use by {holder}: stop it, or give \
                 --{name} another port"
            )
        }
        false => anyhow::bail!(
            "{name} = `{address}`: cannot listen there: {error}; give an address of this machine"
        ),
    }
}

/// Finds out who listens on a port, from what the kernel shows. Best effort: other users'
/// processes do not show their files.
mod holder {
    use std::fs;

    const LISTENING: &str = "0A";

    pub(super) fn of_port(port: &str) -> Option<String> {
        let port: u16 = port.parse().ok()?;
        let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .find_map(|table| inode_of(&fs::read_to_string(table).ok()?, port))?;
        let socket = format!("socket:[{inode}]");
        fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let files = fs::read_dir(process.path().join("fd")).ok()?;
            let holds = files
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket));
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            holds.then(|| format!("{} (pid {pid})", name.trim()))
        })
    }

    fn inode_of(table: &str, port: u16) -> Option<String> {
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            let matches =
                u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTENING;
            matches.then(|| fields.get(9).map(ToString::to_string))?
        })
    }
}
