//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets this process, and returns it.
pub(crate) fn raise_limit() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
    // `None` is no limit at all.
    let after = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    tracing::info!(before = before.current, after, "limit of open files");
    if after < super::limits::FILES_RESERVED * 2 {
        tracing::warn!(
            after,
            "few files may be open, so few connections are taken: raise LimitNOFILE or ulimit -n"
        );
    }
    after
}
