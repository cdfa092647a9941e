//! Keeps a second process off a data directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::durable;
use crate::error::StartError;

const FILE: &str = "LOCK";

/// Held as long as the directory is in use; the system lets go of it when the process ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: Flock<File>,
}

/// What others may not open they cannot read, whatever the modes of the files in it are.
fn close_to_others(data_dir: &Path) -> io::Result<()> {
    let mut permissions = std::fs::metadata(data_dir)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o700);
        std::fs::set_permissions(data_dir, permissions)?;
        tracing::info!(path = %data_dir.display(), "the data directory is closed to other users");
    }
    Ok(())
}

impl DirLock {
    /// # Errors
    /// Another process, or another node in this one, uses the directory.
    pub(crate) fn take(data_dir: &Path) -> Result<DirLock, StartError> {
        let open = || -> io::Result<File> {
            durable::create_dir(data_dir)?;
            close_to_others(data_dir)?;
            OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join(FILE))
        };
        let unusable = |reason: String| StartError::DataDir { path: data_dir.to_owned(), reason };
        let file = open().map_err(|error| unusable(error.to_string()))?;
        DirLock::lock(file, &unusable)
    }

    /// As [`DirLock::take`], and changes nothing in the directory; `None` where no node ever used
    /// it.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub(crate) fn take_existing(data_dir: &Path) -> Result<Option<DirLock>, StartError> {
        let unusable = |reason: String| StartError::DataDir { path: data_dir.to_owned(), reason };
        match File::open(data_dir.join(FILE)) {
            Ok(file) => DirLock::lock(file, &unusable).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(error.to_string())),
        }
    }

    fn lock(file: File, unusable: &dyn Fn(String) -> StartError) -> Result<DirLock, StartError> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(DirLock { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(unusable(
                "another process uses it: stop that one, or give this node its own directory"
                    .to_owned(),
            )),
            Err((_, error)) => Err(unusable(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let _lock = DirLock::take(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
    }
}
