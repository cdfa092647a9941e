//! The file that says who a node is: its id, its name, its cluster.
//!
//! A node id belongs to one log for ever. The file is what tells a wiped directory from a node
//! that comes back, so it is written before anything else and never guessed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use statemachine::versions::IDENTITY;

use crate::error::StartError;

const FILE: &str = "IDENT";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIdentity {
    pub node: u64,
    pub name: String,
    /// Zero while the node has none.
    pub cluster: u64,
    /// This node draws the cluster's identity and has not seen all others take it.
    pub founding: bool,
    /// This node has voted or stored entries. One whose log is gone after that must not go on.
    pub used: bool,
    /// How often a node was started on this directory. Others note it: a directory that knows of
    /// fewer starts than they do was put back to an earlier state.
    pub starts: u64,
    /// Tells directories apart that were restored from the same backup, whose ids are equal; zero
    /// in one that was not restored.
    pub nonce: u64,
    /// Of a restored cluster: the nonce of each member's directory with which it was founded.
    /// Empty until then.
    pub roster: BTreeMap<u64, u64>,
}

impl StoredIdentity {
    /// A new node without a cluster.
    pub(crate) fn draw(name: &str) -> StoredIdentity {
        StoredIdentity {
            node: random_id(),
            name: name.to_owned(),
            cluster: 0,
            founding: false,
            used: false,
            starts: 0,
            nonce: 0,
            roster: BTreeMap::new(),
        }
    }

    /// Restored, and the members do not know the nonces of each other yet: it takes no part.
    pub(crate) fn awaits_founding(&self) -> bool {
        self.nonce != 0 && self.roster.is_empty()
    }

    fn to_text(&self) -> String {
        let body = format!(
            "quorate-identity {}\nnode {:016x}\nname {}\ncluster {:016x}\nfounding {}\n\
             used {}\nstarts {}\nnonce {:016x}\nroster{}\n",
            IDENTITY.newest,
            self.node,
            self.name,
            self.cluster,
            self.founding,
            self.used,
            self.starts,
            self.nonce,
            roster_text(&self.roster),
        );
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c {crc:08x}\n")
    }

    fn from_text(text: &str) -> Result<StoredIdentity, String> {
        let (body, crc) = text.rsplit_once("crc32c ").ok_or("it has no checksum")?;
        let expected = u32::from_str_radix(crc.trim_end(), 16)
            .map_err(|error| format!("its checksum is no number: {error}"))?;
        if crc32c::crc32c(body.as_bytes()) != expected {
            return Err("its checksum does not fit: it was edited or damaged".to_owned());
        }
        let mut lines = body.lines();
        let format = field(lines.next(), "quorate-identity")?;
        if !format.parse().is_ok_and(|format| IDENTITY.contains(format)) {
            return Err(format!(
                "it has format {format}, this release reads {IDENTITY}: the directory was written \
                 by another version"
            ));
        }
        let number = |text: &str| {
            u64::from_str_radix(text, 16).map_err(|error| format!("{text} is no id: {error}"))
        };
        Ok(StoredIdentity {
            node: number(field(lines.next(), "node")?)?,
            name: field(lines.next(), "name")?.to_owned(),
            cluster: number(field(lines.next(), "cluster")?)?,
            founding: field(lines.next(), "founding")? == "true",
            used: field(lines.next(), "used")? == "true",
            starts: {
                let text = field(lines.next(), "starts")?;
                text.parse().map_err(|error| format!("{text} is no number of starts: {error}"))?
            },
            nonce: number(field(lines.next(), "nonce")?)?,
            roster: roster_from_text(lines.next())?,
        })
    }
}

fn roster_text(roster: &BTreeMap<u64, u64>) -> String {
    roster.iter().map(|(node, nonce)| format!(" {node:016x}={nonce:016x}")).collect()
}

fn roster_from_text(line: Option<&str>) -> Result<BTreeMap<u64, u64>, String> {
    let rest =
        line.and_then(|line| line.strip_prefix("roster")).ok_or("line `roster` is missing")?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    rest.split_whitespace()
        .map(|pair| {
            let (node, nonce) = pair.split_once('=')?;
            Some((number(node)?, number(nonce)?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("line `{rest}` is no roster"))
}

fn field<'a>(line: Option<&'a str>, key: &str) -> Result<&'a str, String> {
    line.and_then(|line| line.strip_prefix(key))
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or_else(|| format!("line `{key}` is missing"))
}

/// An id that nobody else draws. Never zero, which means "none" on the wire.
pub(crate) fn random_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}

/// Reads the identity of `data_dir`; `None` where there is none yet.
///
/// # Errors
/// The file cannot be read or trusted.
pub(crate) fn read(data_dir: &Path) -> Result<Option<StoredIdentity>, StartError> {
    let path = data_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StartError::Identity { path, reason: error.to_string() }),
    };
    StoredIdentity::from_text(&text)
        .map(Some)
        .map_err(|reason| StartError::Identity { path, reason })
}

/// Reads the identity of `data_dir`, or gives it one if it is empty.
pub(crate) fn read_or_draw(data_dir: &Path, name: &str) -> Result<StoredIdentity, StartError> {
    if let Some(identity) = read(data_dir)? {
        if identity.name != name {
            let path = data_dir.join(FILE);
            let reason = format!(
                "the directory belongs to node {}, this node is called {name}: point each node \
                 to its own directory",
                identity.name
            );
            return Err(StartError::Identity { path, reason });
        }
        return Ok(identity);
    }
    if data_dir.join("raftlog").exists() || data_dir.join("sm").exists() {
        let reason = "the directory holds a log or a state, and no identity: it is not complete";
        return Err(StartError::Identity { path: data_dir.join(FILE), reason: reason.to_owned() });
    }
    let identity = StoredIdentity::draw(name);
    write(data_dir, &identity)?;
    Ok(identity)
}

/// Replaces the identity of `data_dir`; on disk when this returns.
///
/// # Errors
/// The directory cannot be written.
pub(crate) fn write(data_dir: &Path, identity: &StoredIdentity) -> Result<(), StartError> {
    let path = data_dir.join(FILE);
    write_file(data_dir, &path, &identity.to_text())
        .map_err(|error| StartError::Identity { path, reason: error.to_string() })
}

fn write_file(data_dir: &Path, path: &PathBuf, text: &str) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    let next = data_dir.join(format!("{FILE}.next"));
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_as_it_was_written_and_not_when_it_was_edited() {
        let dir = tempfile::tempdir().unwrap();
        let drawn = read_or_draw(dir.path(), "n1").unwrap();
        assert_eq!(read_or_draw(dir.path(), "n1").unwrap(), drawn);
        let founded = StoredIdentity {
            cluster: 7,
            founding: true,
            starts: 12,
            nonce: 9,
            roster: BTreeMap::from([(drawn.node, 9), (3, 4)]),
            ..drawn
        };
        write(dir.path(), &founded).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(founded.clone()));

        let other_name = read_or_draw(dir.path(), "n2").unwrap_err().to_string();
        assert!(other_name.contains("belongs to node n1"), "{other_name}");

        let edited = founded.to_text().replace("name n1", "name n9");
        fs::write(dir.path().join(FILE), edited).unwrap();
        let edited = read(dir.path()).unwrap_err().to_string();
        assert!(edited.contains("edited or damaged"), "{edited}");
    }

    #[test]
    fn a_log_without_an_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("raftlog")).unwrap();
        let refused = read_or_draw(dir.path(), "n1").unwrap_err().to_string();
        assert!(refused.contains("not complete"), "{refused}");
    }
}
