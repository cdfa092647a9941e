//! The one binary. Everything it does is in the library.

use std::process::ExitCode;

/// jemalloc, built with background threads: they give freed memory back to the system also while
/// the process is idle. RocksDB uses it too, because it replaces `malloc` itself. Tune it with the
/// environment variable `MALLOC_CONF`, for example `MALLOC_CONF=dirty_decay_ms:1000`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    server::cli::main()
}
