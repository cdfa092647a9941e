//! `quorate backup verify`: every byte, and the digest of what they mean.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::admin::backup::content::ContentCheck;
use crate::admin::backup::reader::Reader;

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
    let file =
        File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
    let length = file.metadata()?.len();
    let bar = output::progress(length, "verifying", true);
    let mut reader = Reader::open(BufReader::with_capacity(1 << 20, file))?;
    let mut content = ContentCheck::new(reader.header())?;
    while let Some(rows) = reader.next_block()? {
        bar.set_position(reader.position());
        for row in &rows {
            content.take(row)?;
        }
    }
    bar.finish_and_clear();
    let digest = content.finish()?;
    anyhow::ensure!(
        digest.as_slice() == reader.header().content_digest.as_ref(),
        "every byte is as it was written, but the rows have the digest {}, and the manifest says \
         {}: the node that wrote it held damaged data; do not restore it, keep it and report it",
        full_digest(&digest),
        full_digest(&reader.header().content_digest)
    );
    let trailer = reader.trailer().context("a backup ends with its trailer")?;
    let manifest = Manifest::of(&args.file, length, reader.header(), trailer);
    output::show(args.output.output, &manifest, |manifest| {
        format!(
            "{}\n\nGOOD: every byte checked, the digest of the content recomputed",
            manifest.table()
        )
    })?;
    Ok(Ending::Good)
}
