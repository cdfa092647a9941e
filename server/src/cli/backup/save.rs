//! `quorate backup save`: streams the file, checks it, and only then gives it its name.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use nix::fcntl::OFlag;
use proto::admin::BackupRequest;
use proto::client::{Repeat, To, admin_client};

use crate::admin::backup::image::BackupImage;

use super::super::args::ClusterArgs;
use super::super::{Ending, output};
use super::Manifest;

#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// File to write; must not exist
    file: PathBuf,
    /// What the asked node has, without asking the leader: works without a majority
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(args: SaveArgs) -> anyhow::Result<Ending> {
    anyhow::ensure!(
        !args.file.exists(),
        "{} exists: nothing is overwritten, choose another name",
        args.file.display()
    );
    let part = PathBuf::from(format!("{}.part", args.file.display()));
    let received = receive(&args, &part).await.and_then(|()| checked(&args.file, &part));
    let manifest = match received {
        Ok(manifest) => manifest,
        Err(error) => {
            // What is left of it could be taken for a backup.
            let _ = std::fs::remove_file(&part);
            return Err(error.context("no backup was written"));
        }
    };
    std::fs::hard_link(&part, &args.file)
        .with_context(|| format!("cannot create {}", args.file.display()))?;
    std::fs::remove_file(&part)?;
    let folder = args.file.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    output::show(args.cluster.output.output, &manifest, Manifest::table)?;
    Ok(Ending::Good)
}

async fn receive(args: &SaveArgs, part: &Path) -> anyhow::Result<()> {
    let mut file = create(part).with_context(|| format!("cannot write {}", part.display()))?;
    let client = args.cluster.client()?;
    let request = BackupRequest { local: args.local };
    let mut stream = client
        .call(To::Any, Repeat::Safe, async |channel| admin_client(channel).backup(request).await)
        .await?
        .into_inner();
    let bar = output::progress(0, "saving", false);
    // A node that is busy may pause, one that is gone must not hang us: the time bounds each step.
    let silence = args.cluster.timeout;
    loop {
        let chunk = tokio::time::timeout(silence, stream.message())
            .await
            .with_context(|| format!("the node was silent for {} s", silence.as_secs()))?
            .map_err(|status| anyhow::anyhow!("the node ended the stream: {}", status.message()))?;
        let Some(chunk) = chunk else { break };
        file.write_all(&chunk.data).with_context(|| format!("cannot write {}", part.display()))?;
        bar.set_length(chunk.rows_estimate.max(chunk.rows));
        bar.set_position(chunk.rows);
    }
    file.sync_all()?;
    bar.finish_and_clear();
    Ok(())
}

/// Makes the file, readable by its owner alone: it holds all that the cluster does. A symbolic
/// link is not followed: in a directory that others may write, it could lead anywhere.
fn create(part: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(part)
}

/// Reads back what is on the disk now.
fn checked(name: &Path, part: &Path) -> anyhow::Result<Manifest> {
    let length = std::fs::metadata(part)?.len();
    let bar = output::progress(length, "checking", true);
    let image = BackupImage::open(part, &|position| bar.set_position(position))?;
    bar.finish_and_clear();
    Ok(Manifest::of(name, &image))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_backup_is_its_owners_alone_and_does_not_follow_links() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("monday.qbk.part");
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, &part).unwrap();
        create(&part).unwrap_err();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        std::fs::remove_file(&part).unwrap();
        let mode = create(&part).unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What an earlier attempt left is written over.
        create(&part).unwrap();
    }
}
