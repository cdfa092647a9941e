//! The disk that forgets, mounted: as a local file system but for what it is made to do. Needs root
//! and `/dev/fuse`, and fails where they are missing.

#![allow(clippy::unwrap_used, reason = "a step of a test that fails ends the test")]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chaos::disk::driver::Disks;
use chaos::disk::fault::{Call, Faults};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

const MIB: u64 = 1 << 20;

struct Bench {
    disks: Disks,
    mountpoints: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

fn bench(n_disks: usize, n_bytes: u64) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let mountpoints: Vec<PathBuf> =
        (0..n_disks).map(|number| folder.path().join(number.to_string())).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_quorate-chaos"));
    let disks = Disks::start(program, n_bytes, &mountpoints).expect("root and /dev/fuse");
    Bench { disks, mountpoints, _folder: folder }
}

fn synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

#[test]
fn names_links_locks_and_allocation_are_those_of_a_local_file_system() {
    let bench = bench(1, 8 * MIB);
    let root = bench.mountpoints[0].clone();
    let (one, other) = (root.join("one"), root.join("other"));
    fs::write(&one, b"some bytes").unwrap();
    fs::hard_link(&one, &other).unwrap();
    assert_eq!(fs::metadata(&one).unwrap().nlink(), 2);
    OpenOptions::new().append(true).open(&other).unwrap().write_all(b" more").unwrap();
    assert_eq!(fs::read(&one).unwrap(), b"some bytes more");
    fs::rename(&one, root.join("moved")).unwrap();
    assert_eq!(fs::metadata(&one).unwrap_err().kind(), ErrorKind::NotFound);
    fs::remove_file(&other).unwrap();
    assert_eq!(fs::metadata(root.join("moved")).unwrap().nlink(), 1);

    let open = || File::open(root.join("moved")).unwrap();
    let held = Flock::lock(open(), FlockArg::LockExclusiveNonblock).unwrap();
    assert!(Flock::lock(open(), FlockArg::LockExclusiveNonblock).is_err(), "the lock is held");
    drop(held);
    assert!(Flock::lock(open(), FlockArg::LockExclusiveNonblock).is_ok());

    let reserved = root.join("reserved");
    fs::write(&reserved, b"").unwrap();
    assert!(run("fallocate", &["--keep-size", "-l", "1048576", reserved.to_str().unwrap()]));
    let metadata = fs::metadata(&reserved).unwrap();
    assert_eq!((metadata.len(), metadata.blocks() * 512), (0, MIB));

    let n_free = || statvfs(&root).unwrap().blocks_available();
    let before = n_free();
    fs::write(root.join("ten pages"), vec![1; 40_960]).unwrap();
    assert_eq!(before - n_free(), 10);

    let folder = root.join("folder");
    fs::create_dir(&folder).unwrap();
    for number in 0..500 {
        fs::write(folder.join(number.to_string()), b"x").unwrap();
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 500);
    assert_eq!(fs::remove_dir(&folder).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    fs::remove_dir_all(&folder).unwrap();

    let error = fs::write(root.join("large"), vec![1; 9 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    fs::remove_file(root.join("large")).unwrap();
    fs::write(root.join("large"), vec![1; 5 << 20]).unwrap();
}

#[test]
fn a_cut_keeps_what_was_synced_and_drops_the_rest() {
    let mut bench = bench(2, 64 * MIB);
    let (mut n_lost, mut n_dropped) = (0, 0);
    for seed in 0..12 {
        for root in &bench.mountpoints {
            synced(&root.join(format!("synced-{seed}")), &[1; 10_000]);
            fs::write(root.join(format!("unsynced-{seed}")), vec![2; 10_000]).unwrap();
        }
        let all = bench.disks.all();
        bench.disks.freeze(&all).unwrap();
        let dropped = bench.disks.cut(&all, seed).unwrap();
        n_dropped += dropped.iter().map(|it| it.files.len() + it.names.len()).sum::<usize>();
        bench.disks.remount(&all).unwrap();
        for root in &bench.mountpoints {
            for before in 0..=seed {
                let bytes = fs::read(root.join(format!("synced-{before}"))).unwrap();
                assert_eq!(bytes, vec![1; 10_000]);
            }
            let bytes = fs::read(root.join(format!("unsynced-{seed}"))).unwrap_or_default();
            n_lost += usize::from(bytes != vec![2; 10_000]);
        }
    }
    assert!(n_lost > 6, "{n_lost} of 24 unsynced files were lost");
    assert!(n_dropped >= n_lost, "each loss is reported");
}

#[test]
fn a_frozen_disk_answers_nothing_and_a_cut_ends_what_waits() {
    let mut bench = bench(1, MIB);
    let path = bench.mountpoints[0].join("a");
    synced(&path, b"old");
    bench.disks.freeze(&[0]).unwrap();
    let waiting = {
        let path = path.clone();
        std::thread::spawn(move || fs::write(path, b"new"))
    };
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        assert!(!waiting.is_finished(), "a frozen disk answered");
        std::thread::yield_now();
    }
    bench.disks.cut(&[0], 1).unwrap();
    assert!(waiting.join().unwrap().is_err());
    bench.disks.remount(&[0]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn faults_are_those_that_were_asked_for() {
    let mut bench = bench(1, 16 * MIB);
    let (bad, good) = (bench.mountpoints[0].join("bad"), bench.mountpoints[0].join("good"));
    synced(&bad, &[1; 5000]);
    synced(&good, &[1; 5000]);
    let fails = |fails: Vec<Call>| Faults { fails, fails_below: "bad".into(), ..Faults::default() };
    bench.disks.set_faults(0, &fails(vec![Call::Read])).unwrap();
    assert_eq!(fs::read(&bad).unwrap_err().raw_os_error(), Some(5));
    assert!(fs::read(&good).is_ok());
    bench.disks.set_faults(0, &fails(vec![Call::Sync])).unwrap();
    assert_eq!(File::open(&bad).unwrap().sync_all().unwrap_err().raw_os_error(), Some(5));
    bench.disks.set_faults(0, &fails(vec![Call::Write])).unwrap();
    let mut file = OpenOptions::new().append(true).open(&bad).unwrap();
    assert_eq!(file.write_all(b"x").unwrap_err().raw_os_error(), Some(5));

    let delay = Duration::from_millis(60);
    bench.disks.set_faults(0, &Faults { delay, ..Faults::default() }).unwrap();
    let began = Instant::now();
    File::open(&good).unwrap().sync_all().unwrap();
    assert!(began.elapsed() >= 2 * delay, "two calls, each delayed");

    let taken_bytes = 16 * MIB;
    bench.disks.set_faults(0, &Faults { taken_bytes, ..Faults::default() }).unwrap();
    let error = fs::write(bench.mountpoints[0].join("c"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    bench.disks.set_faults(0, &Faults::default()).unwrap();

    bench.disks.flip(0, "good", 1, 7).unwrap();
    let mut bytes = Vec::new();
    File::open(&good).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.iter().map(|byte| (byte ^ 1).count_ones()).sum::<u32>(), 1);
}
