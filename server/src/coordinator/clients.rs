//! Connections to Milvus's own processes: RootCoord, data nodes, index nodes.

use std::sync::Arc;

use super::settings::CoordinatorSettings;

pub(crate) struct Clients {
    _settings: Arc<CoordinatorSettings>,
}

impl Clients {
    pub(crate) fn new(settings: Arc<CoordinatorSettings>) -> Clients {
        Clients { _settings: settings }
    }
}
