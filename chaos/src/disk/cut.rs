//! A cut of power: what is durable stays, and of the rest a part that is drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::content::Kept;
use super::tree::{Body, Ino, ROOT, Slot, Tree};

/// What a cut dropped of one disk.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Dropped {
    pub files: Vec<DroppedBytes>,
    /// Slots that fell back to what they held, in the order of the changes.
    pub names: Vec<PathBuf>,
}

/// What a cut dropped of one file, by the path that it had.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DroppedBytes {
    pub path: PathBuf,
    pub n_pages: u64,
    pub n_torn: u64,
    pub end_moved: bool,
}

impl Tree {
    /// Cuts the power: the tree is what a machine finds that comes back.
    pub fn cut(&mut self, random: &mut StdRng) -> Dropped {
        let paths = self.paths();
        let mut dropped = Dropped { files: Vec::new(), names: self.cut_names(random, &paths) };
        for (ino, node) in &mut self.nodes {
            let Body::File(content) = &mut node.body else { continue };
            let kept = match random.random_range(0..8) {
                0 => Kept::All,
                1 | 2 => Kept::None,
                3..=5 => Kept::Prefix,
                _ => Kept::Subset,
            };
            let loss = content.cut(kept, &mut |below| random.random_range(0..below.max(1)));
            if loss.is_loss()
                && let Some(path) = paths.get(ino)
            {
                dropped.files.push(DroppedBytes {
                    path: path.clone(),
                    n_pages: loss.n_pages,
                    n_torn: loss.n_torn,
                    end_moved: loss.end_moved,
                });
            }
        }
        self.fall_back();
        dropped
    }

    /// A change is kept only with all earlier ones of the same names.
    fn cut_names(&mut self, random: &mut StdRng, paths: &BTreeMap<Ino, PathBuf>) -> Vec<PathBuf> {
        // Nothing, everything, or any part of it.
        let (of, below) = [(0, 1), (1, 1), (1, 2), (3, 4)][random.random_range(0..4)];
        let mut blocked: BTreeSet<Slot> = BTreeSet::new();
        let mut names = Vec::new();
        for change in std::mem::take(&mut self.unsynced) {
            let free = change.sets.iter().all(|(slot, _)| !blocked.contains(slot));
            if free && random.random_range(0..below) < of {
                self.make_durable(change);
                continue;
            }
            for (slot, _) in change.sets {
                if let Some(folder) = paths.get(&slot.0) {
                    names.push(folder.join(&slot.1));
                }
                blocked.insert(slot);
            }
        }
        names
    }

    /// A path of each node that has one.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<Ino, PathBuf> {
        let mut paths = BTreeMap::from([(ROOT, PathBuf::new())]);
        let mut left = vec![ROOT];
        while let Some(ino) = left.pop() {
            let Ok(names) = self.names(ino) else { continue };
            for (name, child) in names {
                let path = paths[&ino].join(name);
                if paths.insert(child, path).is_none() {
                    left.push(child);
                }
            }
        }
        paths
    }
}
