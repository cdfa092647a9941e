//! Makes the data directory of one member of a new cluster out of a backup.
//!
//! Each member is restored on its own machine, from the same file. So that they agree without
//! talking, all ids are drawn from the file, the members and the token.

use std::path::PathBuf;

use proto::admin::{BackupHeader, BackupTrailer};
use raft::recover::{RestoreMember, RestorePlan};

use super::image::BackupImage;

pub(crate) struct Plan {
    pub(crate) file: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) name: String,
    /// Name and peer address of every member, sorted by name.
    pub(crate) members: Vec<(String, String)>,
    /// Makes the cluster id another one.
    pub(crate) token: String,
    /// How much further revisions go on than the backup.
    pub(crate) revision_bump: i64,
}

pub(crate) struct Done {
    pub(crate) node_id: u64,
    pub(crate) cluster_id: u64,
    pub(crate) revision: i64,
    pub(crate) rows: u64,
}

/// Steps that a person may want to see.
pub(crate) enum Step {
    /// So many bytes of the file were checked.
    Checked(u64),
    /// So many rows were written.
    Written(u64),
}

/// Checks the whole file before it writes anything.
///
/// # Errors
/// The file is damaged, the directory is not empty, or the disk fails.
pub(crate) fn restore(plan: &Plan, progress: &dyn Fn(Step)) -> anyhow::Result<Done> {
    refuse_used_directory(plan)?;
    let image = BackupImage::open(&plan.file, &|bytes| progress(Step::Checked(bytes)))?;
    let ids = Ids::new(&image.header, &image.trailer, plan);
    let members: Vec<RestoreMember> = plan
        .members
        .iter()
        .map(|(name, peer)| RestoreMember {
            id: ids.node(name),
            name: name.clone(),
            peer: peer.clone(),
        })
        .collect();
    let node_id = ids.node(&plan.name);
    let cluster_id = ids.cluster();
    raft::recover::restore(
        &RestorePlan {
            data_dir: plan.data_dir.clone(),
            node: node_id,
            cluster: cluster_id,
            members,
            index: image.header.index,
            term: image.header.term,
            revision_bump: plan.revision_bump,
        },
        &mut |put| image.rows(put, &|rows| progress(Step::Written(rows))),
    )?;
    let revision = image.header.revision + plan.revision_bump;
    Ok(Done { node_id, cluster_id, revision, rows: image.trailer.rows.iter().sum() })
}

fn refuse_used_directory(plan: &Plan) -> anyhow::Result<()> {
    let Ok(mut entries) = std::fs::read_dir(&plan.data_dir) else { return Ok(()) };
    anyhow::ensure!(
        entries.next().is_none(),
        "{} is not empty: nothing is overwritten; give a directory that does not exist yet",
        plan.data_dir.display()
    );
    Ok(())
}

/// Draws ids that every member of the same restore draws too, and no other cluster.
struct Ids {
    seed: blake3::Hash,
}

impl Ids {
    fn new(header: &BackupHeader, trailer: &BackupTrailer, plan: &Plan) -> Ids {
        let mut seed = blake3::Hasher::new();
        seed.update(&header.cluster_id.to_be_bytes());
        seed.update(&trailer.blake3);
        for (name, peer) in &plan.members {
            for text in [name, peer] {
                seed.update(&(text.len() as u64).to_be_bytes());
                seed.update(text.as_bytes());
            }
        }
        // Members with other revisions would be another state under the same names.
        seed.update(&plan.revision_bump.to_be_bytes());
        seed.update(plan.token.as_bytes());
        Ids { seed: seed.finalize() }
    }

    fn cluster(&self) -> u64 {
        self.draw("cluster")
    }

    fn node(&self, name: &str) -> u64 {
        self.draw(&format!("node {name}"))
    }

    /// Never 0, which stands for none.
    fn draw(&self, what: &str) -> u64 {
        let hash = blake3::keyed_hash(self.seed.as_bytes(), what.as_bytes());
        let first = hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes");
        u64::from_be_bytes(first).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(token: &str, peer: &str) -> Ids {
        ids_with_bump(token, peer, 0)
    }

    fn ids_with_bump(token: &str, peer: &str, revision_bump: i64) -> Ids {
        let plan = Plan {
            file: PathBuf::new(),
            data_dir: PathBuf::new(),
            name: "n1".to_owned(),
            members: vec![("n1".to_owned(), peer.to_owned()), ("n2".to_owned(), "b:1".to_owned())],
            token: token.to_owned(),
            revision_bump,
        };
        Ids::new(&BackupHeader::default(), &BackupTrailer::default(), &plan)
    }

    #[test]
    fn members_of_one_restore_draw_the_same_ids_and_others_do_not() {
        let (one, same) = (ids("", "a:1"), ids("", "a:1"));
        assert_eq!((one.cluster(), one.node("n2")), (same.cluster(), same.node("n2")));
        assert_ne!(one.node("n1"), one.node("n2"));
        assert_ne!(one.cluster(), ids("again", "a:1").cluster());
        assert_ne!(one.cluster(), ids("", "c:1").cluster());
        assert_ne!(one.cluster(), ids_with_bump("", "a:1", 1).cluster());
    }
}
