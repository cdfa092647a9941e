//! `quorate backup restore`: the data directory of one member of a new cluster.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::admin::backup::restore::{Plan, Step, restore};
use crate::config::checked::cluster;

use super::super::args::OutputArgs;
use super::super::text::show_id;
use super::super::{Ending, output};

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Name of this member
    #[arg(long)]
    name: String,
    /// Data directory to make; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// All members of the new cluster with their peer addresses, equal for each of them
    #[arg(long, value_name = "NAME=HOST:PORT,…")]
    initial_cluster: String,
    /// Makes another cluster id out of the same file and members, to tell two copies apart
    #[arg(long, value_name = "TEXT", default_value = "")]
    cluster_token: String,
    /// How many revisions to leave out, so that the new cluster never gives out one that clients of
    /// the old one have seen; everything up to there is compacted, and watchers and caches have
    /// to read again. More than the old cluster can have written since the backup. 0 goes on where the
    /// backup was
    #[arg(
        long,
        value_name = "N",
        default_value_t = REVISION_BUMP,
        value_parser = clap::value_parser!(i64).range(0..=REVISION_BUMP_MAX)
    )]
    bump_revision: i64,
    #[command(flatten)]
    output: OutputArgs,
}

/// A week of 1,500 writes a second, as etcd's guide to restores advises.
const REVISION_BUMP: i64 = 1_000_000_000;
/// So many restores fit into a revision, each with the largest bump.
const REVISION_BUMP_MAX: i64 = 1_000_000_000_000;

#[derive(Serialize)]
struct Restored {
    data_dir: String,
    name: String,
    node_id: String,
    cluster_id: String,
    revision: i64,
    rows: u64,
    members: Vec<String>,
}

pub(super) fn run(args: &RestoreArgs) -> anyhow::Result<Ending> {
    let members = cluster(&args.initial_cluster)
        .map_err(|reason| anyhow::anyhow!("--initial-cluster: {reason}"))?;
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    anyhow::ensure!(
        names.contains(&args.name.as_str()),
        "--name {} is not among the members of --initial-cluster: {}",
        args.name,
        names.join(", ")
    );
    let length = std::fs::metadata(&args.file).map_or(0, |file| file.len());
    let bar = output::progress(length, "checking", true);
    let plan = Plan {
        file: args.file.clone(),
        data_dir: args.data_dir.clone(),
        name: args.name.clone(),
        members: members.clone(),
        token: args.cluster_token.clone(),
        revision_bump: args.bump_revision,
    };
    let rows = output::progress(0, "writing", false);
    let done = restore(&plan, &|step| match step {
        Step::Checked(bytes) => bar.set_position(bytes),
        Step::Written(count) => {
            bar.finish_and_clear();
            rows.set_length(rows.length().unwrap_or_default().max(count));
            rows.set_position(count);
        }
    });
    bar.finish_and_clear();
    rows.finish_and_clear();
    let done = done?;
    let restored = Restored {
        data_dir: args.data_dir.display().to_string(),
        name: args.name.clone(),
        node_id: show_id(done.node_id),
        cluster_id: show_id(done.cluster_id),
        revision: done.revision,
        rows: done.rows,
        members: members.into_iter().map(|(name, _)| name).collect(),
    };
    output::show(args.output.output, &restored, |restored| {
        format!(
            "{} holds revision {} ({} rows) for {} of the new cluster {}\n\n\
             Restore the other members ({}) with the same file and --initial-cluster, then start \
             all with `quorate serve`: the cluster begins once all of them run. Garbage collection \
             of the coordinator waits until an operator runs `quorate gc resume`.",
            restored.data_dir,
            restored.revision,
            restored.rows,
            restored.name,
            restored.cluster_id,
            restored.members.join(", ")
        )
    })?;
    Ok(Ending::Good)
}
