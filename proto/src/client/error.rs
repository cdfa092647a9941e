//! What a caller learns when a call did not succeed, and what to do about it.

use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no endpoint given: pass at least one HOST:PORT of a node's client address")]
    NoEndpoint,
    #[error("endpoint `{given}`: {reason}; give HOST:PORT, for example 127.0.0.1:2379")]
    BadEndpoint { given: String, reason: String },
    #[error(
        "no node answered within {}: {tried}; check that nodes run there and that the endpoints \
         are their client addresses",
        seconds(.timeout)
    )]
    Unreachable { timeout: Duration, tried: String },
    #[error("{address} refused: {} ({:?})", .status.message(), .status.code())]
    Refused { address: String, status: tonic::Status },
    #[error(
        "{address} did not say whether it was done{}: look before you repeat it",
        .status.as_ref().map(|s| format!(" ({})", s.message())).unwrap_or_default()
    )]
    Unclear { address: String, status: Option<tonic::Status> },
}

impl ClientError {
    /// Without advice, for lists of several.
    pub fn brief(&self) -> String {
        match self {
            ClientError::Unreachable { tried, .. } => tried.clone(),
            ClientError::Refused { status, .. } => status.message().to_owned(),
            ClientError::NoEndpoint
            | ClientError::BadEndpoint { .. }
            | ClientError::Unclear { .. } => self.to_string(),
        }
    }

    /// The refusal of a node, where it was one.
    pub fn status(&self) -> Option<&tonic::Status> {
        match self {
            ClientError::Refused { status, .. } => Some(status),
            ClientError::Unclear { status, .. } => status.as_ref(),
            ClientError::NoEndpoint
            | ClientError::BadEndpoint { .. }
            | ClientError::Unreachable { .. } => None,
        }
    }

    pub(super) fn from_status(address: &str, status: tonic::Status) -> ClientError {
        match status.code() == tonic::Code::Unavailable {
            true => ClientError::unreachable(address, &plain(status.message())),
            false => ClientError::Refused { address: address.to_owned(), status },
        }
    }

    pub(super) fn unreachable(address: &str, reason: &str) -> ClientError {
        ClientError::Unreachable { timeout: Duration::ZERO, tried: format!("{address}: {reason}") }
    }
}

/// tonic calls every failed connection `tcp connect error`; people know it by other words.
fn plain(message: &str) -> String {
    match message {
        "tcp connect error" | "transport error" => "cannot connect".to_owned(),
        other => other.to_owned(),
    }
}

fn seconds(time: &Duration) -> String {
    match time.is_zero() {
        true => "the time given".to_owned(),
        false => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// Addresses that were tried, with what each last said.
#[derive(Default)]
pub(super) struct Tried {
    answers: Vec<(String, String)>,
    /// Addresses that did not even take a connection.
    unconnected: Vec<String>,
}

impl Tried {
    pub(super) fn note(&mut self, address: &str, answer: &str) {
        let answer = plain(answer);
        match self.answers.iter_mut().find(|(known, _)| known == address) {
            Some((_, last)) => *last = answer,
            None => self.answers.push((address.to_owned(), answer)),
        }
    }

    pub(super) fn note_no_connection(&mut self, address: &str) {
        if !self.never_connected(address) {
            self.unconnected.push(address.to_owned());
        }
    }

    pub(super) fn never_connected(&self, address: &str) -> bool {
        self.unconnected.iter().any(|known| known == address)
    }

    pub(super) fn contains(&self, address: &str) -> bool {
        self.answers.iter().any(|(known, _)| known == address)
    }

    pub(super) fn into_error(self, timeout: Duration) -> ClientError {
        let tried: Vec<String> =
            self.answers.iter().map(|(address, answer)| format!("{address}: {answer}")).collect();
        ClientError::Unreachable { timeout, tried: tried.join("; ") }
    }
}
