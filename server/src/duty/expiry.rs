//! Expires leases whose time is up.

use std::sync::Arc;
use std::time::Duration;

use proto::quorate;
use proto::quorate::command::Kind;
use raft::{Node, Tenure};
use tokio::time::Instant;

use super::DutyOptions;
use super::driver::{Duty, DutyError};
use crate::lease_clock::Leases;

/// Leases in one command. With the period it bounds the rate: an expiry storm must not starve
/// clients.
const LEASES_PER_COMMAND_MAX: usize = 250;
const COMMANDS_PER_ROUND_MAX: usize = 2;
/// Fate unknown after this: the leases stay unrenewable, and are proposed again.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Expiry {
    node: Node,
    leases: Arc<Leases>,
    period: Duration,
    begun: bool,
}

impl Expiry {
    pub(super) fn new(node: Node, leases: Arc<Leases>, options: &DutyOptions) -> Expiry {
        Expiry { node, leases, period: options.expiry_period, begun: false }
    }
}

impl Duty for Expiry {
    const NAME: &'static str = "duty-expiry";

    fn period(&self) -> Duration {
        self.period
    }

    async fn round(&mut self, tenure: &Tenure) -> Result<(), DutyError> {
        if !self.begun {
            self.leases.begin(tenure);
            self.begun = true;
        }
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            let ids = self.leases.take_expired(tenure.term, LEASES_PER_COMMAND_MAX);
            if ids.is_empty() {
                return Ok(());
            }
            tracing::info!(leases = ids.len(), "leases expire");
            let command = quorate::Command {
                fence: None,
                kind: Some(Kind::ExpireLeases(quorate::ExpireLeases { ids: ids.clone() })),
            };
            let deadline = Instant::now() + PROPOSE_TIMEOUT;
            let committed = self.node.propose_fenced(tenure, command, deadline).await?;
            committed.outcome?;
            self.leases.forget(tenure.term, &ids);
        }
        Ok(())
    }

    fn end(&mut self, tenure: &Tenure) {
        self.leases.end(tenure);
    }
}
