//! A cluster of three real nodes for one test.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use chaos::cluster::{Cluster, ClusterKind, ClusterOptions};

/// Free ports are drawn and then listened on; two starts at once could draw the same.
static STARTING: Mutex<()> = Mutex::new(());

/// Three nodes, and a runtime for the driver, whose calls are async.
pub struct Fixture {
    pub cluster: Cluster,
    pub runtime: tokio::runtime::Runtime,
}

impl Fixture {
    /// Starts three nodes of the kind that `QUORATE_TEST_KIND` names.
    ///
    /// # Panics
    /// They do not start, or the server is not built.
    #[must_use]
    pub fn start() -> Fixture {
        Fixture::start_kind(kind())
    }

    /// Starts three nodes of one kind.
    ///
    /// # Panics
    /// They do not start.
    #[must_use]
    pub fn start_kind(kind: ClusterKind) -> Fixture {
        let runtime = runtime();
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster: Result<Cluster> =
            runtime.block_on(async { Cluster::start(&ClusterOptions::three(kind)).await });
        let cluster = cluster.unwrap_or_else(|error| panic!("{error:#}"));
        Fixture { cluster, runtime }
    }

    /// Draws ports and folders for nodes of ours that the test starts itself.
    ///
    /// # Panics
    /// There are no free ports.
    #[must_use]
    pub fn not_started(n_nodes: usize) -> Fixture {
        let runtime = runtime();
        let options = ClusterOptions {
            n_nodes,
            ..ClusterOptions::three(ClusterKind::Quorate(binary("quorate")))
        };
        let cluster = {
            // The clients of the nodes belong to the runtime.
            let _inside = runtime.enter();
            Cluster::prepare(&options).unwrap_or_else(|error| panic!("{error:#}"))
        };
        Fixture { cluster, runtime }
    }

    /// All three client endpoints, separated by commas.
    #[must_use]
    pub fn endpoints(&self) -> String {
        self.cluster.endpoints().join(",")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs no more than threads")
}

/// What the tests run on.
///
/// # Panics
/// `QUORATE_TEST_KIND` is neither `quorate` nor `etcd`.
#[must_use]
pub fn kind() -> ClusterKind {
    match std::env::var("QUORATE_TEST_KIND").as_deref() {
        Ok("etcd") => oracle(),
        Ok("quorate") | Err(_) => ClusterKind::Quorate(binary("quorate")),
        Ok(other) => panic!("QUORATE_TEST_KIND is quorate or etcd, not {other}"),
    }
}

/// Stock etcd: Debian's 3.4.23 (package `etcd-server`).
///
/// # Panics
/// It is not installed.
#[must_use]
pub fn oracle() -> ClusterKind {
    let path = PathBuf::from("/usr/bin/etcd");
    assert!(path.exists(), "stock etcd is missing: `make setup` installs etcd-server");
    ClusterKind::Etcd(path)
}

/// One of our binaries, built beside the test that asks.
///
/// # Panics
/// It is not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let built = target_dir().join("release").join(name);
    assert!(built.exists(), "{} is missing: run `make build` first", built.display());
    built
}

/// Where everything is built; a test lies in `release/deps` of it.
///
/// # Panics
/// Never while cargo lays its folders so.
#[must_use]
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.ancestors().nth(3).expect("it lies in release/deps").into()
}
