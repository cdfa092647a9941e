//! A small right history, for tests that spoil it in one place.

use crate::history::{
    Answer, Asked, Change, History, LeaseRun, NEVER_US, Operation, Seen, WatchBatch, WatchRun,
};

pub(crate) fn seen(key: &str, serial: u64, create: i64, modified: i64, version: i64) -> Seen {
    Seen {
        key: key.to_owned(),
        serial,
        create_revision: create,
        mod_revision: modified,
        version,
        lease: 0,
    }
}

pub(crate) fn operation(call_us: u64, return_us: u64, asked: Asked, answer: Answer) -> Operation {
    Operation { node: 0, call_us, return_us, asked, answer: Some(answer) }
}

pub(crate) fn unknown(call_us: u64, asked: Asked) -> Operation {
    Operation { node: 0, call_us, return_us: NEVER_US, asked, answer: None }
}

pub(crate) fn put(key: &str, serial: u64) -> Asked {
    Asked::Put { key: key.to_owned(), serial, lease: 0 }
}

pub(crate) fn read(key: &str) -> Asked {
    Asked::Read { key: key.to_owned(), prefix: false, serializable: false }
}

fn batch(at_us: u64, changes: Vec<Change>) -> WatchBatch {
    let header_revision = changes.last().map_or(0, |change| change.revision);
    WatchBatch { at_us, header_revision, compaction_asked: 0, changes }
}

/// ```text
/// revision 2: reg/a = 1        3: reg/a = 2 (swap)      4: m/x = 3, m/y = 4
///          5: reg/a deleted    6: l/k = 6, lease 7      7: l/k gone with its lease
/// ```
/// and a put of reg/a = 5 whose fate is unknown and that did not happen.
pub(crate) fn right() -> (History, Vec<Seen>, i64) {
    let a1 = seen("reg/a", 1, 2, 2, 1);
    let a2 = seen("reg/a", 2, 2, 3, 2);
    let (x, y) = (seen("m/x", 3, 4, 4, 1), seen("m/y", 4, 4, 4, 1));
    let leased = Seen { lease: 7, ..seen("l/k", 6, 6, 6, 1) };
    let swap = Asked::Swap { key: "reg/a".into(), expected: Some(1), serial: 2 };
    let swap_failed = Asked::Swap { key: "reg/a".into(), expected: Some(1), serial: 8 };
    let put_leased = Asked::Put { key: "l/k".into(), serial: 6, lease: 7 };
    let puts = Asked::PutMany { puts: vec![("m/x".into(), 3), ("m/y".into(), 4)] };
    let list = Asked::Read { key: "m/".into(), prefix: true, serializable: true };
    let operations = vec![
        operation(10, 20, put("reg/a", 1), Answer::Written { revision: 2 }),
        operation(30, 40, read("reg/a"), Answer::Read { revision: 2, found: vec![a1.clone()] }),
        operation(50, 60, swap, Answer::Swapped { revision: 3, succeeded: true, found: None }),
        operation(
            61,
            65,
            swap_failed,
            Answer::Swapped { revision: 3, succeeded: false, found: Some(a2.clone()) },
        ),
        operation(70, 80, puts, Answer::Written { revision: 4 }),
        operation(85, 90, list, Answer::Read { revision: 4, found: vec![x.clone(), y.clone()] }),
        unknown(91, put("reg/a", 5)),
        operation(
            100,
            110,
            Asked::Delete { key: "reg/a".into() },
            Answer::Deleted { revision: 5, n_deleted: 1 },
        ),
        operation(120, 130, read("reg/a"), Answer::Read { revision: 5, found: vec![] }),
        operation(140, 150, put_leased, Answer::Written { revision: 6 }),
    ];
    let change = |revision: i64, key: &str, put: Option<&Seen>, previous: Option<&Seen>| Change {
        revision,
        key: key.to_owned(),
        put: put.cloned(),
        previous: previous.cloned(),
    };
    let batches = vec![
        batch(25, vec![change(2, "reg/a", Some(&a1), None)]),
        batch(66, vec![change(3, "reg/a", Some(&a2), Some(&a1))]),
        batch(85, vec![change(4, "m/x", Some(&x), None), change(4, "m/y", Some(&y), None)]),
        WatchBatch { at_us: 86, header_revision: 4, compaction_asked: 0, changes: vec![] },
        batch(111, vec![change(5, "reg/a", None, Some(&a2))]),
        batch(151, vec![change(6, "l/k", Some(&leased), None)]),
        batch(2_000_200, vec![change(7, "l/k", None, Some(&leased))]),
    ];
    let watches = vec![WatchRun {
        watcher: "all".into(),
        node: 0,
        prefix: String::new(),
        start_revision: 2,
        with_previous: true,
        batches,
    }];
    let leases = vec![LeaseRun {
        lease: 7,
        ttl_s: 2,
        renewed_us: 145,
        revoke_asked: false,
        denied_us: None,
    }];
    (History { operations, watches, leases, complaints: vec![] }, vec![x, y], 7)
}
