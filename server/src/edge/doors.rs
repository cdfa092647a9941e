//! The listeners of this node that clients reach, and what each of them holds at most.

use std::sync::Arc;

use raft::Places;

use super::intake::Intake;
use super::limits::{
    CLIENT_INTAKE_BYTES_MAX, COORDINATOR_INTAKE_BYTES_MAX, Connections, HTTP_INTAKE_BYTES_MAX,
    INTAKE_WITHIN,
};

/// The bounds of one listener.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) name: &'static str,
    pub(crate) places: Arc<Places>,
    pub(crate) intake: Arc<Intake>,
}

impl Door {
    fn new(name: &'static str, n_connections: usize, intake_bytes: usize) -> Door {
        let intake = Intake::new(intake_bytes, INTAKE_WITHIN);
        Door { name, places: Places::new(n_connections), intake }
    }
}

/// The bounds of all listeners.
pub(crate) struct Doors {
    pub(crate) client: Door,
    pub(crate) coordinator: Door,
    pub(crate) http: Door,
}

impl Doors {
    pub(crate) fn new(connections: Connections) -> Doors {
        Doors {
            client: Door::new("client", connections.client, CLIENT_INTAKE_BYTES_MAX),
            coordinator: Door::new(
                "coordinator",
                connections.coordinator,
                COORDINATOR_INTAKE_BYTES_MAX,
            ),
            http: Door::new("http", connections.http, HTTP_INTAKE_BYTES_MAX),
        }
    }

    pub(crate) fn all(&self) -> [&Door; 3] {
        [&self.client, &self.coordinator, &self.http]
    }
}
