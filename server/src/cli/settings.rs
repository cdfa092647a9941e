//! `quorate settings`: what is the same on every node because it is replicated.

use std::time::Duration;

use clap::Args;
use proto::admin::{ChangeSettingsRequest, SettingsReply, SettingsRequest};
use proto::client::{Repeat, To, admin_client};
use serde::Serialize;

use crate::config::checked::{parse_size, parse_time, show_size};

use super::args::ClusterArgs;
use super::{Ending, output};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate settings
  quorate settings --quota 16GiB
  quorate settings --retention-revisions 1000000 --retention-time 1h")]
pub(super) struct SettingsArgs {
    /// Prefix of everything that Milvus stores
    #[arg(long, value_name = "PREFIX")]
    root_path: Option<String>,
    /// Bound on the logical size of all keys and values; 0 for none
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    quota: Option<u64>,
    /// Revisions that automatic compaction keeps at least
    #[arg(long, value_name = "COUNT")]
    retention_revisions: Option<u64>,
    /// Age of what automatic compaction keeps at least
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    retention_time: Option<Duration>,
    /// Most operations in one transaction; etcd's bound is 128
    #[arg(long, value_name = "COUNT")]
    txn_ops_max: Option<u32>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct SettingsView {
    root_path: String,
    quota_bytes: u64,
    retention_revisions: u64,
    retention_ms: u64,
    txn_ops_max: u32,
    feature_level: u32,
    revision: i64,
}

pub(super) async fn run(args: SettingsArgs) -> anyhow::Result<Ending> {
    let client = args.cluster.client()?;
    let change = ChangeSettingsRequest {
        root_path: args.root_path,
        quota_bytes: args.quota,
        retention_revisions: args.retention_revisions,
        retention_ms: args
            .retention_time
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        txn_ops_max: args.txn_ops_max,
    };
    let reply = match change == ChangeSettingsRequest::default() {
        true => {
            client
                .call(To::Any, Repeat::Safe, async |channel| {
                    admin_client(channel).settings(SettingsRequest {}).await
                })
                .await?
        }
        // Setting the same value twice is as good as once.
        false => {
            client
                .call(To::Any, Repeat::Safe, async |channel| {
                    admin_client(channel).change_settings(change.clone()).await
                })
                .await?
        }
    };
    output::show(args.cluster.output.output, &SettingsView::of(reply.into_inner()), |view| {
        let quota = match view.quota_bytes {
            0 => "none".to_owned(),
            bytes => show_size(bytes),
        };
        let retention = humantime::format_duration(Duration::from_millis(view.retention_ms));
        output::table(
            &["setting", "value"],
            &[],
            vec![
                vec!["root-path".to_owned(), view.root_path.clone()],
                vec!["quota".to_owned(), quota],
                vec!["retention-revisions".to_owned(), view.retention_revisions.to_string()],
                vec!["retention-time".to_owned(), retention.to_string()],
                vec!["txn-ops-max".to_owned(), view.txn_ops_max.to_string()],
                vec!["feature-level".to_owned(), view.feature_level.to_string()],
            ],
        )
    })?;
    Ok(Ending::Good)
}

impl SettingsView {
    fn of(reply: SettingsReply) -> SettingsView {
        SettingsView {
            root_path: reply.root_path,
            quota_bytes: reply.quota_bytes,
            retention_revisions: reply.retention_revisions,
            retention_ms: reply.retention_ms,
            txn_ops_max: reply.txn_ops_max,
            feature_level: reply.feature_level,
            revision: reply.revision,
        }
    }
}
