//! Files and directories that are there for certain once a call returns.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Makes names that were created, renamed or removed in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces a file so that, whatever happens, the old or the new content is there.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    sync_parent(path)
}

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Moves a directory whose files are durable to its place.
pub(crate) fn rename_dir(from: &Path, to: &Path) -> io::Result<()> {
    sync_dir(from)?;
    std::fs::rename(from, to)?;
    sync_parent(to)?;
    sync_parent(from)
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
