//! What this node knows that its peers have promised, so that it sees when one has forgotten.
//!
//! A directory that was put back to an earlier state, or a disk that lost synced bytes, makes a
//! node forget entries that it acknowledged and votes that it gave. Raft counts on both. What a
//! node cannot know of itself its peers can: they note how often it was started, its vote and the
//! committed entries that it acknowledged, and compare them with what it says later.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::durable;
use crate::types::LeaderId;

const FILE: &str = "PEERS";
const FORMAT: u32 = 1;

/// What a node says of itself, or what is noted of it: each part only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// How often it was started on its directory.
    pub(crate) starts: u64,
    /// Drawn at that start: no two have the same number and the same draw.
    pub(crate) run: u64,
    /// Term and node of the vote that it gave.
    pub(crate) vote: (u64, u64),
    /// In a note: the last committed entry that it acknowledged. Of itself: its last entry.
    pub(crate) last_index: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    noted: Promise,
    /// The last entry that it acknowledged under one leadership of this node. Nothing of it may be
    /// missing while that lasts, committed or not.
    acknowledged: Option<(LeaderId, u64)>,
    forgot: bool,
}

#[derive(Default)]
struct Known {
    peers: BTreeMap<u64, Peer>,
    /// Something that should survive a restart of this node has changed since it was written.
    unsaved: bool,
}

pub(crate) struct PeerNotes {
    data_dir: PathBuf,
    cluster: u64,
    known: Mutex<Known>,
    /// Held while the file is written: a caller for each peer may come at once.
    writing: Mutex<()>,
}

impl PeerNotes {
    /// Reads what was noted before. A file that cannot be read, or of another cluster, is as good
    /// as none: notes only add to what Raft checks by itself.
    pub(crate) fn open(data_dir: &Path, cluster: u64) -> PeerNotes {
        let text = fs::read_to_string(data_dir.join(FILE)).unwrap_or_default();
        let noted = from_text(&text, cluster).unwrap_or_default();
        let peers = noted.into_iter().map(|(id, noted)| (id, Peer { noted, ..Peer::default() }));
        let known = Mutex::new(Known { peers: peers.collect(), unsaved: false });
        PeerNotes { data_dir: data_dir.to_owned(), cluster, known, writing: Mutex::new(()) }
    }

    /// `peer` has everything up to `index` on its disk. `committed` is what is known to be so.
    pub(crate) fn acknowledged(
        &self,
        peer: u64,
        leader: LeaderId,
        index: u64,
        committed: Option<u64>,
    ) {
        let mut known = self.known.lock();
        let entry = known.peers.entry(peer).or_default();
        entry.acknowledged = match entry.acknowledged {
            Some((before, highest)) if before == leader => Some((leader, highest.max(index))),
            Some(_) | None => Some((leader, index)),
        };
        let last_index = entry.noted.last_index.max(committed.map_or(0, |end| end.min(index)));
        let vote = entry.noted.vote.max((leader.term, leader.node_id));
        if (last_index, vote) != (entry.noted.last_index, entry.noted.vote) {
            entry.noted.last_index = last_index;
            entry.noted.vote = vote;
            known.unsaved = true;
        }
    }

    /// `peer` does not have the entry at `index`. Whether it had acknowledged that one; true the first
    /// time only.
    pub(crate) fn lacks(&self, peer: u64, leader: LeaderId, index: u64) -> bool {
        let mut known = self.known.lock();
        let entry = known.peers.entry(peer).or_default();
        let in_tenure = entry
            .acknowledged
            .is_some_and(|(before, highest)| before == leader && index <= highest);
        let is_lost = in_tenure || (entry.noted.last_index > 0 && index <= entry.noted.last_index);
        let is_news = is_lost && !entry.forgot;
        entry.forgot |= is_lost;
        is_news
    }

    /// `peer` has this vote on its disk.
    pub(crate) fn voted(&self, peer: u64, vote: LeaderId) {
        let mut known = self.known.lock();
        let entry = known.peers.entry(peer).or_default();
        let vote = (vote.term, vote.node_id);
        if vote > entry.noted.vote {
            entry.noted.vote = vote;
            known.unsaved = true;
        }
    }

    /// Whether `peer` was seen to lack what it had acknowledged. Stays until this node restarts or
    /// the peer is replaced.
    pub(crate) fn has_forgotten(&self, peer: u64) -> bool {
        self.known.lock().peers.get(&peer).is_some_and(|peer| peer.forgot)
    }

    /// Compares what `peer` says of itself with what is noted, and notes its starts. Whether that
    /// is new, and has to be saved before the peer counts on it.
    ///
    /// # Errors
    /// What it has forgotten.
    pub(crate) fn compare(&self, peer: u64, claimed: Promise) -> Result<bool, String> {
        let mut known = self.known.lock();
        let entry = known.peers.entry(peer).or_default();
        let noted = entry.noted;
        let forgotten = if claimed.starts < noted.starts {
            format!("its directory knows of {} starts, {} were seen", claimed.starts, noted.starts)
        } else if claimed.starts == noted.starts && claimed.run != noted.run {
            format!("its directory knows of {} starts, another such start was seen", claimed.starts)
        } else if claimed.vote < noted.vote {
            let ((term, node), (seen_term, seen_node)) = (claimed.vote, noted.vote);
            format!(
                "its last vote is for {node:016x} in term {term}, one for {seen_node:016x} in term \
                 {seen_term} was seen"
            )
        } else if claimed.last_index < noted.last_index {
            format!(
                "its log ends at entry {}, it had acknowledged entry {}",
                claimed.last_index, noted.last_index
            )
        } else {
            (entry.noted.starts, entry.noted.run) = (claimed.starts, claimed.run);
            let is_new = claimed.starts > noted.starts;
            known.unsaved |= is_new;
            return Ok(is_new);
        };
        entry.forgot = true;
        Err(forgotten)
    }

    /// Whether there is something to save.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.known.lock().unsaved
    }

    /// Makes the notes durable. Blocks.
    ///
    /// # Errors
    /// The disk fails; the notes stay unsaved.
    pub(crate) fn save(&self) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock();
        let text = {
            let mut known = self.known.lock();
            known.unsaved = false;
            to_text(&known.peers, self.cluster)
        };
        let written = durable::replace_file(&self.data_dir.join(FILE), text.as_bytes());
        if written.is_err() {
            self.known.lock().unsaved = true;
        }
        written
    }
}

/// Drops what a directory has noted: its peers are others from now on.
///
/// # Errors
/// The disk fails.
pub(crate) fn forget(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn to_text(peers: &BTreeMap<u64, Peer>, cluster: u64) -> String {
    let mut body = format!("quorate-peers {FORMAT} {cluster:016x}\n");
    for (id, peer) in peers {
        let Promise { starts, run, vote: (term, node), last_index } = peer.noted;
        body += &format!("{id:016x} {starts} {run:016x} {term} {node:016x} {last_index}\n");
    }
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{body}crc32c {crc:08x}\n")
}

fn from_text(text: &str, cluster: u64) -> Option<BTreeMap<u64, Promise>> {
    let (body, crc) = text.rsplit_once("crc32c ")?;
    if u32::from_str_radix(crc.trim_end(), 16).ok()? != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != format!("quorate-peers {FORMAT} {cluster:016x}") {
        return None;
    }
    lines.map(peer_from_line).collect()
}

fn peer_from_line(line: &str) -> Option<(u64, Promise)> {
    let mut words = line.split(' ');
    let id = u64::from_str_radix(words.next()?, 16).ok()?;
    let starts = words.next()?.parse().ok()?;
    let run = u64::from_str_radix(words.next()?, 16).ok()?;
    let term = words.next()?.parse().ok()?;
    let node = u64::from_str_radix(words.next()?, 16).ok()?;
    let last_index = words.next()?.parse().ok()?;
    Some((id, Promise { starts, run, vote: (term, node), last_index }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: u64 = 5;

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: 1 }
    }

    #[test]
    fn a_peer_that_lacks_what_it_acknowledged_has_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let notes = PeerNotes::open(dir.path(), 7);
        assert!(!notes.lacks(PEER, leader(1), 10), "it has acknowledged nothing yet");
        notes.acknowledged(PEER, leader(1), 20, Some(15));
        assert!(!notes.lacks(PEER, leader(1), 21));
        assert!(!notes.lacks(PEER, leader(2), 18), "another leader may have taken that back");
        assert!(!notes.has_forgotten(PEER));
        assert!(notes.lacks(PEER, leader(2), 15), "no leader takes back what is committed");
        assert!(!notes.lacks(PEER, leader(2), 15), "it is reported once");
        assert!(notes.has_forgotten(PEER));

        let other = PEER + 1;
        notes.acknowledged(other, leader(2), 20, None);
        assert!(notes.lacks(other, leader(2), 20), "nothing is taken back within a leadership");
    }

    #[test]
    fn a_directory_that_went_back_is_found_by_what_was_noted_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let notes = PeerNotes::open(dir.path(), 7);
        let claimed = Promise { starts: 3, run: 77, vote: (2, 1), last_index: 20 };
        assert!(notes.compare(PEER, claimed).unwrap());
        notes.acknowledged(PEER, leader(2), 20, Some(20));
        assert!(!notes.compare(PEER, claimed).unwrap());
        notes.save().unwrap();

        let notes = PeerNotes::open(dir.path(), 7);
        assert!(!notes.is_unsaved());
        notes.compare(PEER, Promise { starts: 4, last_index: 25, ..claimed }).unwrap();
        assert!(notes.is_unsaved());
        let refused = |claimed| notes.compare(PEER, claimed).unwrap_err();
        let starts = refused(Promise { starts: 3, ..claimed });
        assert!(starts.contains("knows of 3 starts, 4 were seen"), "{starts}");
        let run = refused(Promise { starts: 4, run: 78, ..claimed });
        assert!(run.contains("another such start was seen"), "{run}");
        let vote = refused(Promise { starts: 5, vote: (1, 9), ..claimed });
        assert!(vote.contains("in term 1, one for 0000000000000001 in term 2"), "{vote}");
        let log = refused(Promise { starts: 5, last_index: 19, ..claimed });
        assert!(log.contains("ends at entry 19, it had acknowledged entry 20"), "{log}");
        assert!(notes.has_forgotten(PEER));
        assert_eq!(
            PeerNotes::open(dir.path(), 8).compare(PEER, Promise::default()),
            Ok(false),
            "notes of another cluster do not count"
        );
    }
}
