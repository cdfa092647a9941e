//! What the disk promises to those who sync, and what it takes from those who do not.

use std::ffi::OsStr;
use std::time::SystemTime;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::content::{Allocation, Content, Kept, PAGE_BYTES, SECTOR_BYTES};
use super::tree::{Body, Folder, Ino, Meta, ROOT, Refusal, Rename, Tree};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const N_SEEDS: u64 = 200;

fn meta() -> Meta {
    Meta { mode: 0o755, uid: 0, gid: 0, modified: NOW, changed: NOW }
}

fn tree() -> Tree {
    Tree::new(1000, meta())
}

fn file(tree: &mut Tree, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
    let body = Body::File(Content::default());
    let ino = tree.create(parent, OsStr::new(name), meta(), body).unwrap();
    tree.write(ino, 0, bytes, NOW).unwrap();
    ino
}

fn folder(tree: &mut Tree, name: &str) -> Ino {
    tree.create(ROOT, OsStr::new(name), meta(), Body::Folder(Folder::default())).unwrap()
}

fn read(tree: &Tree, parent: Ino, name: &str) -> Option<Vec<u8>> {
    let ino = tree.lookup(parent, OsStr::new(name)).ok()?;
    match &tree.node(ino).unwrap().body {
        Body::File(content) => Some(content.read(0, 1 << 20)),
        Body::Folder(_) | Body::Symlink(_) => None,
    }
}

/// What drawn cuts of copies of a tree leave.
fn after_cuts<T>(tree: &Tree, look: impl Fn(&Tree) -> T) -> Vec<T> {
    let cut = |seed| {
        let mut tree = tree.clone();
        tree.cut(&mut StdRng::seed_from_u64(seed));
        look(&tree)
    };
    (0..N_SEEDS).map(cut).collect()
}

#[test]
fn synced_bytes_under_a_synced_name_survive_every_cut() {
    let mut tree = tree();
    let bytes = vec![7; 3 * PAGE_BYTES + 100];
    let ino = file(&mut tree, ROOT, "a", &bytes);
    tree.sync_file(ino).unwrap();
    tree.sync_folder(ROOT).unwrap();
    for found in after_cuts(&tree, |tree| read(tree, ROOT, "a")) {
        assert_eq!(found.as_deref(), Some(&bytes[..]));
    }
}

#[test]
fn without_a_sync_bytes_are_lost_kept_and_torn() {
    let mut tree = tree();
    let ino = file(&mut tree, ROOT, "a", &[1; 2 * PAGE_BYTES]);
    tree.sync_file(ino).unwrap();
    tree.sync_folder(ROOT).unwrap();
    tree.write(ino, 0, &[2; 4 * PAGE_BYTES], NOW).unwrap();
    let found = after_cuts(&tree, |tree| read(tree, ROOT, "a").expect("its name was synced"));
    let has = |wanted: &dyn Fn(&Vec<u8>) -> bool| found.iter().any(wanted);
    assert!(has(&|bytes| bytes[..] == [1; 2 * PAGE_BYTES]), "all of it was lost");
    assert!(has(&|bytes| bytes[..] == [2; 4 * PAGE_BYTES]), "all of it was kept");
    assert!(has(&|bytes| bytes.len() > 2 * PAGE_BYTES && bytes[0] == 1), "a later page alone");
    assert!(
        has(&|bytes| bytes[..PAGE_BYTES].windows(2).any(|two| two[0] != two[1])),
        "a torn page"
    );
    assert!(has(&|bytes| bytes.len() == 4 * PAGE_BYTES && bytes.contains(&0)), "a hole");
    for bytes in &found {
        for sector in bytes.chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
        }
    }
}

#[test]
fn a_synced_file_without_a_synced_name_may_be_gone() {
    let mut tree = tree();
    let ino = file(&mut tree, ROOT, "a", b"bytes");
    tree.sync_file(ino).unwrap();
    let found = after_cuts(&tree, |tree| read(tree, ROOT, "a"));
    assert!(found.contains(&None));
    assert!(found.contains(&Some(b"bytes".to_vec())));
}

#[test]
fn a_rename_is_never_half_done_and_holds_after_a_sync_of_its_directory() {
    let mut tree = tree();
    for (name, bytes) in [("current", b"old"), ("new", b"new")] {
        let ino = file(&mut tree, ROOT, name, bytes);
        tree.sync_file(ino).unwrap();
    }
    tree.sync_folder(ROOT).unwrap();
    let (from, to) = (OsStr::new("new"), OsStr::new("current"));
    tree.rename((ROOT, from), (ROOT, to), Rename::Replace).unwrap();
    let state = |tree: &Tree| (read(tree, ROOT, "current"), read(tree, ROOT, "new"));
    let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    let found = after_cuts(&tree, state);
    assert!(found.iter().all(|it| *it == (old.clone(), new.clone()) || *it == (new.clone(), None)));
    assert!(found.contains(&(old, new.clone())));
    tree.sync_folder(ROOT).unwrap();
    assert!(after_cuts(&tree, state).iter().all(|it| *it == (new.clone(), None)));
}

#[test]
fn names_of_other_directories_are_not_synced_along() {
    let mut tree = tree();
    let (one, other) = (folder(&mut tree, "one"), folder(&mut tree, "other"));
    tree.sync_folder(ROOT).unwrap();
    for parent in [one, other] {
        let ino = file(&mut tree, parent, "a", b"bytes");
        tree.sync_file(ino).unwrap();
    }
    tree.sync_folder(one).unwrap();
    let found = after_cuts(&tree, |tree| (read(tree, one, "a"), read(tree, other, "a")));
    assert!(found.iter().all(|(synced, _)| synced.is_some()));
    assert!(found.iter().any(|(_, unsynced)| unsynced.is_none()));
}

#[test]
fn an_unlinked_name_comes_back_with_its_bytes() {
    let mut tree = tree();
    let ino = file(&mut tree, ROOT, "a", b"bytes");
    tree.sync_file(ino).unwrap();
    tree.sync_folder(ROOT).unwrap();
    tree.unlink(ROOT, OsStr::new("a")).unwrap();
    let found = after_cuts(&tree, |tree| read(tree, ROOT, "a"));
    assert!(found.contains(&None));
    assert!(found.contains(&Some(b"bytes".to_vec())));
    tree.sync_folder(ROOT).unwrap();
    assert!(after_cuts(&tree, |tree| read(tree, ROOT, "a")).iter().all(Option::is_none));
    assert!(tree.node(ino).is_err(), "nothing can bring it back any more");
}

#[test]
fn a_truncation_is_kept_whole_or_undone_whole() {
    let mut tree = tree();
    let bytes = vec![3; 2 * PAGE_BYTES + 7];
    let ino = file(&mut tree, ROOT, "a", &bytes);
    tree.sync_file(ino).unwrap();
    tree.sync_folder(ROOT).unwrap();
    tree.truncate(ino, 5, NOW).unwrap();
    let found = after_cuts(&tree, |tree| read(tree, ROOT, "a").expect("its name was synced"));
    assert!(found.iter().all(|it| *it == bytes || *it == [3; 5]));
    assert!(found.contains(&bytes) && found.contains(&vec![3; 5]));
}

#[test]
fn the_same_seed_cuts_alike() {
    let mut tree = tree();
    for number in 0..9 {
        file(&mut tree, ROOT, &number.to_string(), &[number; 9000]);
    }
    let cut = |seed| {
        let mut tree = tree.clone();
        let dropped = tree.cut(&mut StdRng::seed_from_u64(seed));
        format!("{dropped:?} {:?}", tree.paths())
    };
    assert_eq!(cut(5), cut(5));
    assert_ne!(cut(5), cut(6));
}

#[test]
fn room_is_counted_as_it_is_taken_and_given_back() {
    let mut tree = tree();
    let ino = file(&mut tree, ROOT, "a", &[1; PAGE_BYTES]);
    assert_eq!(tree.free_pages(), 999);
    let bytes = 998 * u64::try_from(PAGE_BYTES).unwrap();
    tree.allocate(ino, 0, bytes, Allocation::KeepsSize, NOW).unwrap();
    assert_eq!(tree.free_pages(), 2);
    let other = file(&mut tree, ROOT, "b", &[]);
    let n_written = tree.write(other, 0, &[1; 3 * PAGE_BYTES], NOW).unwrap();
    assert_eq!(n_written, 2 * PAGE_BYTES, "what there is room for");
    assert_eq!(tree.write(other, 1 << 20, &[1], NOW), Err(Refusal::NoSpace));
    assert_eq!(tree.write(ino, 0, &[2; PAGE_BYTES], NOW), Ok(PAGE_BYTES), "its room was taken");
    tree.opened(ino);
    tree.unlink(ROOT, OsStr::new("a")).unwrap();
    assert_eq!(tree.free_pages(), 0, "an open file keeps its room");
    tree.closed(ino);
    assert_eq!(tree.free_pages(), 998);
    tree.rename((ROOT, OsStr::new("b")), (ROOT, OsStr::new("c")), Rename::Replace).unwrap();
    assert_eq!(tree.free_pages(), 998, "a name that moves changes nothing");
    tree.cut(&mut StdRng::seed_from_u64(1));
    assert_eq!(tree.free_pages() + tree.used_pages, 1000);
}

#[test]
fn bytes_are_read_as_they_were_written() {
    let mut random = StdRng::seed_from_u64(9);
    let (mut content, mut expected) = (Content::default(), Vec::new());
    let mut draw = |below: usize| rand::Rng::random_range(&mut random, 0..below);
    for round in 0..500_usize {
        let (offset, length) = (draw(20_000), draw(9000));
        let end = offset + length;
        let (at, n_bytes) = (u64::try_from(offset).unwrap(), u64::try_from(length).unwrap());
        match draw(10) {
            0 => {
                content.truncate(at);
                expected.resize(offset, 0);
            }
            1 => {
                content.punch(at, n_bytes);
                let end = end.min(expected.len());
                expected[offset.min(end)..end].fill(0);
            }
            2 => content.allocate(at, n_bytes, Allocation::KeepsSize),
            3 => drop(content.sync()),
            _ => {
                let byte = u8::try_from(round % 251).unwrap();
                content.write(at, &vec![byte; length]);
                expected.resize(expected.len().max(end), 0);
                expected[offset..end].fill(byte);
            }
        }
        assert!(content.read(0, 1 << 20) == expected, "after round {round}");
    }
    let durable = expected.clone();
    content.sync();
    content.write(17, &[9; 5000]);
    content.cut(Kept::None, &mut |_| 0);
    assert!(content.read(0, 1 << 20) == durable);
}
