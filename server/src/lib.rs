//! The edges of a node: its binary, configuration, gRPC and HTTP services, and leader duties.

pub mod cli;
pub mod duty;
pub mod foreign;
pub mod lease_clock;
pub mod rpc;
pub mod watch_hub;

mod admin;
mod app;
mod config;
mod coordinator;
mod edge;
mod http;
mod inspect;
mod metrics;
mod tasks;
mod telemetry;
