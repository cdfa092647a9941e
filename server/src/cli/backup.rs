//! `quorate backup …`: the whole state in one file, and a cluster out of it.

mod restore;
mod save;
mod verify;

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::admin::backup::image::BackupImage;
use crate::config::checked::show_size;
use crate::inspect::show_time;

use super::text::{full_digest, show_id};
use super::{Ending, block_on};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate backup save monday.qbk
  quorate backup verify monday.qbk
  quorate backup restore monday.qbk --name n1 --data-dir ./n1 \\
    --initial-cluster n1=10.0.0.1:2380,n2=10.0.0.2:2380,n3=10.0.0.3:2380

Restore runs once per member, with the same file and the same --initial-cluster; the members then
start with `quorate serve` and form a new cluster.")]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Save the state of a running cluster to a file while writes go on
    Save(save::SaveArgs),
    /// Check every byte of a backup and recompute its digest
    Verify(verify::VerifyArgs),
    /// Make the data directory of one member of a new cluster
    Restore(restore::RestoreArgs),
}

pub(super) fn run(args: BackupArgs) -> anyhow::Result<Ending> {
    match args.command {
        BackupCommand::Save(args) => block_on(save::run(args)),
        BackupCommand::Verify(args) => verify::run(&args),
        BackupCommand::Restore(args) => restore::run(&args),
    }
}

/// What a backup file says of itself.
#[derive(Serialize)]
struct Manifest {
    file: String,
    file_bytes: u64,
    format: u32,
    version: String,
    cluster_id: String,
    node: String,
    created: String,
    revision: i64,
    compacted_revision: i64,
    index: u64,
    term: u64,
    content_digest: String,
    chain_digest: String,
    keys: u64,
    leases: u64,
    rows: u64,
    raw_bytes: u64,
    blake3: String,
}

impl Manifest {
    fn of(path: &Path, image: &BackupImage) -> Manifest {
        let (header, trailer) = (&image.header, &image.trailer);
        Manifest {
            file: path.display().to_string(),
            file_bytes: image.file_bytes,
            format: header.format,
            version: header.version.clone(),
            cluster_id: show_id(header.cluster_id),
            node: header.node_name.clone(),
            created: show_time(header.created_at_ms),
            revision: header.revision,
            compacted_revision: header.compacted_revision,
            index: header.index,
            term: header.term,
            content_digest: full_digest(&header.content_digest),
            chain_digest: full_digest(&header.chain_digest),
            keys: header.keys,
            leases: header.leases,
            rows: trailer.rows.iter().sum(),
            raw_bytes: trailer.raw_bytes,
            blake3: full_digest(&trailer.blake3),
        }
    }

    fn table(&self) -> String {
        let pairs = [
            ("file", format!("{} ({})", self.file, show_size(self.file_bytes))),
            (
                "cluster",
                format!(
                    "{}, written by {} of version {}",
                    self.cluster_id, self.node, self.version
                ),
            ),
            ("created", self.created.clone()),
            ("revision", format!("{} (history from {})", self.revision, self.compacted_revision)),
            ("index", format!("{} of term {}", self.index, self.term)),
            ("content", self.content_digest.clone()),
            ("chain", self.chain_digest.clone()),
            ("keys", self.keys.to_string()),
            ("leases", self.leases.to_string()),
            ("rows", format!("{}, {} uncompressed", self.rows, show_size(self.raw_bytes))),
            ("blake3", self.blake3.clone()),
        ];
        let width = 10;
        pairs.map(|(name, value)| format!("{name:<width$}{value}")).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use crate::inspect::show_time;

    #[test]
    fn a_backup_that_says_it_was_made_in_the_year_ten_thousand_is_shown() {
        assert_eq!(show_time(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(show_time(u64::MAX), u64::MAX.to_string());
    }
}
