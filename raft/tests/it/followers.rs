//! Followers that are slow, and what a leader and they themselves keep for that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use raft::log_store::{DiskSeam, Fact, LogBatch, LogDisk, VisitRow};

use crate::cluster::{Cluster, until, value, write};
use crate::net::Pace;

const MIB: u64 = 1 << 20;

/// A disk whose writes wait while it hangs.
struct HangingDisk {
    disk: Arc<dyn LogDisk>,
    hangs: Arc<Hang>,
}

#[derive(Default)]
struct Hang {
    hangs: Mutex<bool>,
    goes_on: Condvar,
}

impl Hang {
    fn set(&self, hangs: bool) {
        *self.hangs.lock() = hangs;
        self.goes_on.notify_all();
    }

    fn wait(&self) {
        let mut hangs = self.hangs.lock();
        while *hangs {
            self.goes_on.wait(&mut hangs);
        }
    }
}

impl LogDisk for HangingDisk {
    fn write(&self, batch: LogBatch, sync: bool) -> io::Result<()> {
        self.hangs.wait();
        self.disk.write(batch, sync)
    }

    fn scan(&self, start: u64, end: u64, visit: &mut VisitRow<'_>) -> io::Result<()> {
        self.disk.scan(start, end, visit)
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        self.disk.last_index()
    }

    fn fact(&self, fact: Fact) -> io::Result<Option<Vec<u8>>> {
        self.disk.fact(fact)
    }

    fn reclaim(&self, below: u64) -> io::Result<()> {
        self.disk.reclaim(below)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_hangs_holds_little_of_what_is_sent_again_and_again() {
    let hangs: Arc<[Arc<Hang>; 3]> = Arc::default();
    let mut cluster = Cluster::plan(3).await;
    let seams = Arc::clone(&hangs);
    cluster.tune = Arc::new(move |n, options| {
        let hangs = Arc::clone(&seams[n]);
        options.storage.log_disk = DiskSeam::wrap(move |disk| {
            Arc::new(HangingDisk { disk, hangs: Arc::clone(&hangs) }) as Arc<dyn LogDisk>
        });
        options.timers.ack_watchdog = Duration::from_millis(500);
    });
    let cluster = cluster.start_all().await;
    let leader = cluster.wait_leader().await;
    let slow = cluster.others(leader)[0];
    hangs[slow].set(true);
    let value_of_64_kib = "x".repeat(64 << 10);
    let storage = Arc::clone(&cluster.node(slow).metrics().storage);
    let mut most = 0;
    // Twenty streams or so are given up meanwhile.
    for n in 0..320 {
        write(cluster.node(leader), &format!("key-{n}"), &value_of_64_kib).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        most = most.max(storage.append_held_bytes.get());
    }
    assert!(most > 0, "the follower was sent nothing");
    assert!(most <= 10 * MIB, "{most} B of 20 MiB that were sent again are held");
    hangs[slow].set(false);
    write(cluster.node(slow), "key", "after").await.unwrap();
    assert_eq!(value(cluster.node(slow), "key-319").await.unwrap(), value_of_64_kib);
    until("nothing is held", || storage.append_held_bytes.get() == 0).await;
    cluster.stop().await;
}

/// A cluster with a small log, of which one follower takes 2 MiB a second; leader and follower.
async fn with_slow_follower(lagging_log_bytes_max: u64) -> (Cluster, usize, usize) {
    let mut cluster = Cluster::plan(3).await;
    cluster.tune = Arc::new(move |_, options| {
        let retention = &mut options.storage.retention;
        retention.snapshot_log_bytes = MIB;
        retention.keep_log_bytes = MIB;
        retention.lagging_log_bytes_max = lagging_log_bytes_max;
        options.timers.ack_watchdog = Duration::from_secs(10);
    });
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: None });
    let cluster = cluster.start_all().await;
    let leader = cluster.wait_leader().await;
    let slow = cluster.others(leader)[0];
    let address = cluster.address(slow).parse().unwrap();
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: Some((address, 2 * MIB)) });
    (cluster, leader, slow)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_behind_a_slow_follower_is_bounded_and_the_follower_gets_a_snapshot() {
    let (cluster, leader, slow) = with_slow_follower(6 * MIB).await;
    let value_of_256_kib = "x".repeat(256 << 10);
    for n in 0..160 {
        let key = format!("key-{}", n % 8);
        write(cluster.node(leader), &key, &value_of_256_kib).await.unwrap();
    }
    // The follower needs twenty seconds for all of it.
    let small =
        until("the log is small again", || cluster.node(leader).metrics().log_bytes <= 8 * MIB);
    tokio::time::timeout(Duration::from_secs(8), small).await.unwrap();
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: None });
    write(cluster.node(leader), "key", "after").await.unwrap();
    assert_eq!(value(cluster.node(slow), "key").await.unwrap(), "after");
    assert!(received_bytes(&cluster, slow) > 0, "it got no snapshot");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_takes_no_log_away_that_its_follower_needs() {
    let (cluster, leader, slow) = with_slow_follower(64 * MIB).await;
    let value_of_256_kib = "x".repeat(256 << 10);
    let id = cluster.node(slow).id();
    for n in 0..64 {
        let key = format!("key-{}", n % 8);
        write(cluster.node(leader), &key, &value_of_256_kib).await.unwrap();
    }
    // The leader has looked for what it may purge.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for _ in 0..3 {
        cluster.net.cut(cluster.address(leader), cluster.address(slow));
        cluster.net.heal();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: None });
    write(cluster.node(leader), "key", "after").await.unwrap();
    assert_eq!(value(cluster.node(slow), "key").await.unwrap(), "after");
    assert_eq!(received_bytes(&cluster, slow), 0, "the log that it needed was gone");
    let matched = || cluster.node(leader).status().borrow().peers[&id].matched;
    let purged = || cluster.node(leader).status().borrow().purged_index;
    until("the log goes once no follower needs it", || purged() + 32 > matched()).await;
    cluster.stop().await;
}

fn received_bytes(cluster: &Cluster, n: usize) -> u64 {
    cluster.node(n).metrics().storage.snapshot_received_bytes.get()
}
