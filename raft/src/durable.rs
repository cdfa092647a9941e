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
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Creates a directory with all that is missing above it, and makes their names durable: else a cut
/// of power takes the directory with everything that was synced below it.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    std::fs::create_dir_all(path)?;
    for made in &missing {
        sync_parent(made)?;
    }
    if missing.is_empty() {
        // Made by a start that was killed before it got here, or by an administrator, whose parent
        // directory may not be ours to open.
        let _ = sync_parent(path);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::create_dir;

    #[test]
    fn a_directory_is_made_with_what_is_missing_above_it_and_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        create_dir(&path).unwrap();
        create_dir(&path).unwrap();
        assert!(path.is_dir());
    }
}
