//! Files, directories and their names: what a reader sees, and what is durable of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use super::content::{Allocation, Content};

/// Names a file or a directory for as long as the disk lives.
pub type Ino = u64;

/// The directory that is mounted.
pub const ROOT: Ino = 1;

/// Why a call is refused, as the kernel numbers it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    NotFound,
    Exists,
    NotADirectory,
    IsADirectory,
    NotEmpty,
    NoSpace,
    Invalid,
}

/// Mode, owner and times. Durable at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Meta {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub modified: SystemTime,
    pub changed: SystemTime,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Body {
    File(Content),
    Folder(Folder),
    Symlink(OsString),
}

/// Names in a directory.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    pub(super) now: BTreeMap<OsString, Ino>,
    pub(super) durable: BTreeMap<OsString, Ino>,
}

/// One file or directory.
#[derive(Clone, Debug)]
pub struct Node {
    pub meta: Meta,
    pub body: Body,
    pub n_names: u32,
    /// Durable names, and unsynced changes that give it a name: the cut may bring it back.
    n_claims: u32,
    n_opens: u32,
    n_lookups: u64,
}

/// A place for a name.
pub(super) type Slot = (Ino, OsString);

/// Slots that change together, in one step of the file system.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) sets: Vec<(Slot, Option<Ino>)>,
}

/// A file system in memory.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) nodes: BTreeMap<Ino, Node>,
    next: Ino,
    /// Changes of names that no sync made durable, in order.
    pub(super) unsynced: Vec<Change>,
    capacity_pages: u64,
    pub(super) used_pages: u64,
    /// Room that somebody else has taken.
    pub taken_pages: u64,
}

impl Tree {
    /// An empty one with room for so many pages.
    #[must_use]
    pub fn new(capacity_pages: u64, meta: Meta) -> Tree {
        let root = Node::new(meta, Body::Folder(Folder::default()));
        Tree {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            unsynced: Vec::new(),
            capacity_pages,
            used_pages: 0,
            taken_pages: 0,
        }
    }

    /// # Errors
    /// There is no such node.
    pub fn node(&self, ino: Ino) -> Result<&Node, Refusal> {
        self.nodes.get(&ino).ok_or(Refusal::NotFound)
    }

    /// # Errors
    /// There is no such node.
    pub fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Refusal> {
        self.nodes.get_mut(&ino).ok_or(Refusal::NotFound)
    }

    fn folder(&self, ino: Ino) -> Result<&Folder, Refusal> {
        match &self.node(ino)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) | Body::Symlink(_) => Err(Refusal::NotADirectory),
        }
    }

    fn content_mut(&mut self, ino: Ino) -> Result<&mut Content, Refusal> {
        match &mut self.node_mut(ino)?.body {
            Body::File(content) => Ok(content),
            Body::Folder(_) => Err(Refusal::IsADirectory),
            Body::Symlink(_) => Err(Refusal::Invalid),
        }
    }

    /// # Errors
    /// No such name, or `parent` is none that holds names.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Ino, Refusal> {
        self.folder(parent)?.now.get(name).copied().ok_or(Refusal::NotFound)
    }

    /// Names of a directory, in order.
    ///
    /// # Errors
    /// It is none.
    pub fn names(&self, ino: Ino) -> Result<Vec<(OsString, Ino)>, Refusal> {
        let folder = self.folder(ino)?;
        Ok(folder.now.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    /// # Errors
    /// The name is taken, or `parent` is none that holds names.
    pub fn create(
        &mut self,
        parent: Ino,
        name: &OsStr,
        meta: Meta,
        body: Body,
    ) -> Result<Ino, Refusal> {
        if self.folder(parent)?.now.contains_key(name) {
            return Err(Refusal::Exists);
        }
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, Node::new(meta, body));
        self.change(vec![((parent, name.to_owned()), Some(ino))]);
        Ok(ino)
    }

    /// Another name of a file.
    ///
    /// # Errors
    /// The name is taken, or the node is a directory.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &OsStr) -> Result<(), Refusal> {
        if matches!(self.node(ino)?.body, Body::Folder(_)) {
            return Err(Refusal::IsADirectory);
        }
        if self.folder(parent)?.now.contains_key(name) {
            return Err(Refusal::Exists);
        }
        self.change(vec![((parent, name.to_owned()), Some(ino))]);
        Ok(())
    }

    /// Removes a name of a file.
    ///
    /// # Errors
    /// No such name, or it is a directory's.
    pub fn unlink(&mut self, parent: Ino, name: &OsStr) -> Result<(), Refusal> {
        let ino = self.lookup(parent, name)?;
        if matches!(self.node(ino)?.body, Body::Folder(_)) {
            return Err(Refusal::IsADirectory);
        }
        self.change(vec![((parent, name.to_owned()), None)]);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// No such name, or not an empty directory's.
    pub fn rmdir(&mut self, parent: Ino, name: &OsStr) -> Result<(), Refusal> {
        let ino = self.lookup(parent, name)?;
        if !self.folder(ino)?.now.is_empty() {
            return Err(Refusal::NotEmpty);
        }
        self.change(vec![((parent, name.to_owned()), None)]);
        Ok(())
    }

    /// Moves a name in one step, over another one if that may be.
    ///
    /// # Errors
    /// No such name, or what is at the target must not be replaced.
    pub fn rename(
        &mut self,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr),
        how: Rename,
    ) -> Result<(), Refusal> {
        let ino = self.lookup(from.0, from.1)?;
        let replaced = self.folder(to.0)?.now.get(to.1).copied();
        let slot = |(parent, name): (Ino, &OsStr)| (parent, name.to_owned());
        match (how, replaced) {
            (Rename::NoReplace, Some(_)) => return Err(Refusal::Exists),
            (Rename::Exchange, None) => return Err(Refusal::NotFound),
            (Rename::Exchange, Some(other)) => {
                self.change(vec![(slot(from), Some(other)), (slot(to), Some(ino))]);
                return Ok(());
            }
            // Two names of one file: the call does nothing.
            (_, Some(other)) if other == ino => return Ok(()),
            (Rename::Replace, Some(other)) => self.may_replace(ino, other)?,
            (Rename::Replace | Rename::NoReplace, None) => {}
        }
        self.change(vec![(slot(from), None), (slot(to), Some(ino))]);
        Ok(())
    }

    fn may_replace(&self, ino: Ino, other: Ino) -> Result<(), Refusal> {
        match (&self.node(ino)?.body, &self.node(other)?.body) {
            (Body::Folder(_), Body::Folder(folder)) if folder.now.is_empty() => Ok(()),
            (Body::Folder(_), Body::Folder(_)) => Err(Refusal::NotEmpty),
            (Body::Folder(_), _) => Err(Refusal::NotADirectory),
            (_, Body::Folder(_)) => Err(Refusal::IsADirectory),
            _ => Ok(()),
        }
    }

    /// Pages that can still be allocated.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.capacity_pages.saturating_sub(self.used_pages + self.taken_pages)
    }

    #[must_use]
    pub fn capacity_pages(&self) -> u64 {
        self.capacity_pages
    }

    /// Writes what there is room for, and gives its length.
    ///
    /// # Errors
    /// Not a file, or room for nothing.
    pub fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<usize, Refusal> {
        let free = self.free_pages();
        let content = self.content_mut(ino)?;
        let mut fits = bytes.len();
        while fits > 0 && content.n_new_pages(offset, length(fits)) > free {
            // To the beginning of the last page that it touches.
            let over = (offset + length(fits) - 1) % length(super::content::PAGE_BYTES) + 1;
            fits = fits.saturating_sub(usize::try_from(over).unwrap_or(fits));
        }
        if fits == 0 && !bytes.is_empty() {
            return Err(Refusal::NoSpace);
        }
        self.with_content(ino, now, |content| content.write(offset, &bytes[..fits]))?;
        Ok(fits)
    }

    /// # Errors
    /// Not a file.
    pub fn truncate(&mut self, ino: Ino, size: u64, now: SystemTime) -> Result<(), Refusal> {
        self.with_content(ino, now, |content| content.truncate(size))
    }

    /// # Errors
    /// Not a file, or too little room.
    pub fn allocate(
        &mut self,
        ino: Ino,
        offset: u64,
        n_bytes: u64,
        allocation: Allocation,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        if self.content_mut(ino)?.n_new_pages(offset, n_bytes) > self.free_pages() {
            return Err(Refusal::NoSpace);
        }
        self.with_content(ino, now, |content| content.allocate(offset, n_bytes, allocation))
    }

    /// # Errors
    /// Not a file.
    pub fn punch(
        &mut self,
        ino: Ino,
        offset: u64,
        n_bytes: u64,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        self.with_content(ino, now, |content| content.punch(offset, n_bytes))
    }

    fn with_content(
        &mut self,
        ino: Ino,
        now: SystemTime,
        change: impl FnOnce(&mut Content),
    ) -> Result<(), Refusal> {
        let node = self.node_mut(ino)?;
        node.meta.modified = now;
        let takes_room = node.takes_room();
        let content = self.content_mut(ino)?;
        let n_before = content.n_pages();
        change(content);
        let n_after = content.n_pages();
        if takes_room {
            self.used_pages = self.used_pages + n_after - n_before;
        }
        Ok(())
    }

    /// Makes the bytes of a file durable; the number of pages that were not.
    ///
    /// # Errors
    /// Not a file.
    pub fn sync_file(&mut self, ino: Ino) -> Result<u64, Refusal> {
        Ok(self.content_mut(ino)?.sync())
    }

    /// Makes the names in a directory durable, with those elsewhere that changed in the same steps
    /// and with the earlier steps that these rest on.
    ///
    /// # Errors
    /// Not a directory.
    pub fn sync_folder(&mut self, ino: Ino) -> Result<(), Refusal> {
        self.folder(ino)?;
        let mut wanted: BTreeSet<Slot> = BTreeSet::new();
        let (mut synced, mut rest) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if change.sets.iter().any(|(slot, _)| slot.0 == ino || wanted.contains(slot)) {
                wanted.extend(change.sets.iter().map(|(slot, _)| slot.clone()));
                synced.push(change);
            } else {
                rest.push(change);
            }
        }
        rest.reverse();
        self.unsynced = rest;
        synced.into_iter().rev().for_each(|change| self.make_durable(change));
        Ok(())
    }

    fn change(&mut self, sets: Vec<(Slot, Option<Ino>)>) {
        // New names first: a file that moves is never without one, and keeps its room.
        for ino in sets.iter().filter_map(|(_, ino)| *ino) {
            if let Some(node) = self.nodes.get_mut(&ino) {
                node.n_names += 1;
                node.n_claims += 1;
            }
        }
        for ((parent, name), ino) in &sets {
            let Some(Node { body: Body::Folder(folder), .. }) = self.nodes.get_mut(parent) else {
                continue;
            };
            let previous = match ino {
                Some(ino) => folder.now.insert(name.clone(), *ino),
                None => folder.now.remove(name),
            };
            if let Some(previous) = previous {
                self.unname(previous);
            }
        }
        self.unsynced.push(Change { sets });
    }

    pub(super) fn make_durable(&mut self, change: Change) {
        for ((parent, name), ino) in change.sets {
            let Some(Node { body: Body::Folder(folder), .. }) = self.nodes.get_mut(&parent) else {
                // The directory is gone, and the claim with it.
                self.release_claim(ino);
                continue;
            };
            let previous = match ino {
                // The claim of the change becomes that of the name.
                Some(ino) => folder.durable.insert(name, ino),
                None => folder.durable.remove(&name),
            };
            self.release_claim(previous);
        }
    }

    fn release_claim(&mut self, ino: Option<Ino>) {
        if let Some(ino) = ino
            && let Some(node) = self.nodes.get_mut(&ino)
        {
            node.n_claims = node.n_claims.saturating_sub(1);
            self.forget_unused(ino);
        }
    }

    fn unname(&mut self, ino: Ino) {
        self.release_room(ino, |node| node.n_names = node.n_names.saturating_sub(1));
        self.forget_unused(ino);
    }

    /// A file that has neither a name nor a reader gives its room back, as on any file system.
    fn release_room(&mut self, ino: Ino, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let took_room = node.takes_room();
        change(node);
        if took_room && !node.takes_room() {
            self.used_pages = self.used_pages.saturating_sub(node.n_pages());
        }
    }

    fn forget_unused(&mut self, ino: Ino) {
        let unused = self.nodes.get(&ino).is_some_and(|node| {
            node.n_names == 0 && node.n_opens == 0 && node.n_lookups == 0 && node.n_claims == 0
        });
        if unused && ino != ROOT {
            self.nodes.remove(&ino);
        }
    }

    /// The kernel opened it.
    pub fn opened(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.n_opens += 1;
        }
    }

    /// The kernel closed it.
    pub fn closed(&mut self, ino: Ino) {
        self.release_room(ino, |node| node.n_opens = node.n_opens.saturating_sub(1));
        self.forget_unused(ino);
    }

    /// The kernel knows it by one answer more.
    pub fn looked_up(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.n_lookups += 1;
        }
    }

    /// The kernel forgot so many answers.
    pub fn forgotten(&mut self, ino: Ino, n_lookups: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.n_lookups = node.n_lookups.saturating_sub(n_lookups);
        }
        self.forget_unused(ino);
    }

    /// What is durable becomes all that there is; nodes without a durable name are gone.
    pub(super) fn fall_back(&mut self) {
        self.unsynced.clear();
        for node in self.nodes.values_mut() {
            (node.n_names, node.n_claims, node.n_opens, node.n_lookups) = (0, 0, 0, 0);
            if let Body::Folder(folder) = &mut node.body {
                folder.now.clone_from(&folder.durable);
            }
        }
        let (mut reached, mut left) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(ino) = left.pop() {
            let Ok(folder) = self.folder(ino) else { continue };
            for child in folder.now.values().copied().collect::<Vec<_>>() {
                if let Some(node) = self.nodes.get_mut(&child) {
                    node.n_names += 1;
                    node.n_claims += 1;
                }
                if reached.insert(child) {
                    left.push(child);
                }
            }
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
        self.used_pages = self.nodes.values().map(Node::n_pages).sum();
    }
}

/// What a rename does with a name that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

impl Node {
    fn new(meta: Meta, body: Body) -> Node {
        Node { meta, body, n_names: 0, n_claims: 0, n_opens: 0, n_lookups: 0 }
    }

    fn takes_room(&self) -> bool {
        self.n_names > 0 || self.n_opens > 0
    }

    /// Pages that it takes.
    #[must_use]
    pub fn n_pages(&self) -> u64 {
        match &self.body {
            Body::File(content) => content.n_pages(),
            Body::Folder(_) | Body::Symlink(_) => 0,
        }
    }
}

fn length(n_bytes: usize) -> u64 {
    u64::try_from(n_bytes).unwrap_or(u64::MAX)
}
