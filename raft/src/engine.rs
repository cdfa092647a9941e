//! The consensus engine with our types filled in.

use crate::apply::StateMachine;
use crate::types::TypeConfig;

pub(crate) type Engine = openraft::Raft<TypeConfig, StateMachine>;
