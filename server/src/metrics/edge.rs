//! What the edge lets in and what it turns away.

use raft::{Node, PlacesCount};

use super::page::Page;
use crate::edge::doors::Doors;
use crate::edge::outflow::{Outflow, OutflowCount};

/// Why a connection was ended or not taken, and its count.
type Ended = (&'static str, fn(&PlacesCount) -> u64);

const ENDED: [Ended; 3] = [
    ("refused", |count| count.refused),
    ("displaced", |count| count.displaced),
    ("silent", |count| count.silent),
];

pub(super) fn write(page: &mut Page, node: &Node, doors: &Doors, outflow: &Outflow) {
    let mut places: Vec<_> =
        doors.all().map(|door| (door.name, door.places.count())).into_iter().collect();
    places.push(("peer", node.metrics().peer_connections));
    for (listener, count) in &places {
        page.labelled(
            "quorate_edge_connections_count",
            "Connections that are open",
            &[("listener", listener)],
            count.taken as u64,
        );
    }
    for (listener, count) in &places {
        page.labelled(
            "quorate_edge_connections_max_count",
            "Connections that may be open",
            &[("listener", listener)],
            count.max as u64,
        );
    }
    for (listener, count) in &places {
        for (reason, of) in ENDED {
            page.counter(
                "quorate_edge_connections_ended_total",
                "Connections that were refused because all places were taken, displaced by newer \
                 ones before they asked for anything, or silent for too long",
                &[("listener", listener), ("reason", reason)],
                of(count),
            );
        }
    }
    intakes(page, doors);
    answers(page, outflow.count());
}

fn answers(page: &mut Page, count: OutflowCount) {
    page.gauge(
        "quorate_edge_outflow_bytes",
        "Bytes of large answers of the etcd API that are being read or sent",
        count.held_bytes,
    );
    page.gauge(
        "quorate_edge_outflow_max_bytes",
        "Bytes of large answers of the etcd API that may be held",
        count.bytes_max,
    );
    for (reason, value) in [("too_many_bytes", count.refused), ("unread", count.unread)] {
        page.counter(
            "quorate_edge_answers_refused_total",
            "Large answers that found no room, or whose clients did not take them while others \
             waited for room and whose connections were ended for it",
            &[("reason", reason)],
            value,
        );
    }
}

fn intakes(page: &mut Page, doors: &Doors) {
    let intakes = doors.all().map(|door| (door.name, door.intake.count()));
    for (listener, count) in intakes {
        page.labelled(
            "quorate_edge_intake_bytes",
            "Bytes of requests that are being received",
            &[("listener", listener)],
            count.held_bytes as u64,
        );
    }
    for (listener, count) in intakes {
        page.labelled(
            "quorate_edge_intake_max_bytes",
            "Bytes of requests that may be held while they are received",
            &[("listener", listener)],
            count.bytes_max as u64,
        );
    }
    for (listener, count) in intakes {
        for (reason, value) in [("too_many_bytes", count.refused), ("overdue", count.overdue)] {
            page.counter(
                "quorate_edge_requests_refused_total",
                "Requests that were refused while they were received",
                &[("listener", listener), ("reason", reason)],
                value,
            );
        }
    }
}
