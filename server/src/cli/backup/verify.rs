//! `quorate backup verify`: every byte, and the digest of what they mean.

use std::path::PathBuf;

use clap::Args;

use crate::admin::backup::image::BackupImage;

use super::super::args::OutputArgs;
use super::super::{Ending, output};
use super::{Manifest, full_digest};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<Ending> {
    let length = std::fs::metadata(&args.file).map_or(0, |file| file.len());
    let bar = output::progress(length, "checking", true);
    let image = BackupImage::open(&args.file, &|position| bar.set_position(position))?;
    bar.finish_and_clear();
    let spinner = output::spinner("recomputing the digest of the content");
    let digest = statemachine::digest::recompute(&image)?.to_be_bytes();
    spinner.finish_and_clear();
    anyhow::ensure!(
        digest.as_slice() == image.header.content_digest.as_ref(),
        "every byte is as it was written, but the rows have the digest {}, and the manifest says \
         {}: the node that wrote it held damaged data; do not restore it, keep it and report it",
        full_digest(&digest),
        full_digest(&image.header.content_digest)
    );
    let manifest = Manifest::of(&args.file, &image);
    output::show(args.output.output, &manifest, |manifest| {
        format!(
            "{}\n\nGOOD: every byte was checked and the digest of the content recomputed.",
            manifest.table()
        )
    })?;
    Ok(Ending::Good)
}
