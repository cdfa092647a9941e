//! Arguments that several commands share.

use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::client::{Client, ClientError, Options};

use crate::config::checked::parse_time;

pub(super) const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

/// A person who mistyped an address should not wait for the whole timeout.
const NOBODY_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    #[default]
    Table,
    Json,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// A table for people or JSON for programs
    #[arg(long, short = 'o', value_enum, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
}

/// How a cluster is reached.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Client addresses of any nodes of the cluster; the others are learned from them
    #[arg(
        long,
        short = 'e',
        env = "QUORATE_ENDPOINTS",
        value_delimiter = ',',
        value_name = "HOST:PORT,…",
        default_value = DEFAULT_ENDPOINT
    )]
    pub(crate) endpoints: Vec<String>,
    /// Time for the whole command
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl ClusterArgs {
    /// For calls that answer when something is done: one attempt may take the whole time.
    ///
    /// # Errors
    /// An endpoint is not an address.
    pub(crate) fn patient_client(&self) -> Result<Client, ClientError> {
        let options = Options {
            timeout: self.timeout,
            attempt_timeout: self.timeout,
            nobody_timeout: NOBODY_TIMEOUT,
            ..Options::default()
        };
        Client::new(&self.endpoints, options)
    }

    /// # Errors
    /// An endpoint is not an address.
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let options = Options {
            timeout: self.timeout,
            attempt_timeout: self.timeout.min(Options::default().attempt_timeout),
            nobody_timeout: NOBODY_TIMEOUT,
            ..Options::default()
        };
        Client::new(&self.endpoints, options)
    }
}
