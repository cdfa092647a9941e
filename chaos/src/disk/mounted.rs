//! One disk as the kernel sees it: the calls of FUSE onto a [`Tree`](super::tree::Tree).
//!
//! Locks (flock and fcntl) are the kernel's own, as on a local file system. Nothing is cached beside
//! names and attributes, which only the kernel changes: each read comes here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::content::{Allocation, PAGE_BYTES};
use super::fault::Call;
use super::shelf::{Access, Failure, Shelf};
use super::tree::{Body, Folder, Ino, Meta, Node, Refusal, Rename};

/// Only the kernel changes what it caches.
const TTL: Duration = Duration::from_secs(3600);
const BLOCK_BYTES: u32 = 4096;
const NAME_BYTES_MAX: u32 = 255;
const FALLOC_KEEP_SIZE: i32 = 1;
const FALLOC_PUNCH_HOLE: i32 = 2;

/// Names of a directory, with what is there.
type Listing = Vec<(OsString, Ino, FileType)>;

/// A disk of a shelf, for as long as its power is not cut.
#[derive(Debug)]
pub struct Mounted {
    shelf: Shelf,
    disk: usize,
    epoch: u64,
    /// Names of the directories that are being listed, as they were when each was opened.
    listings: Mutex<BTreeMap<u64, Listing>>,
    next_listing: AtomicU64,
}

impl Mounted {
    #[must_use]
    pub fn new(shelf: Shelf, disk: usize) -> Mounted {
        let epoch = shelf.epoch(disk);
        let listings = Mutex::new(BTreeMap::new());
        Mounted { shelf, disk, epoch, listings, next_listing: AtomicU64::new(1) }
    }

    fn access(&self, call: Call, ino: INodeNo) -> Result<Access<'_>, Failure> {
        self.shelf.access(self.disk, self.epoch, call, Some(ino.0))
    }

    fn named(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Failure> {
        let mut disk = self.access(Call::Other, parent)?;
        let ino = disk.tree.lookup(parent.0, name)?;
        disk.tree.looked_up(ino);
        Ok(attributes(ino, disk.tree.node(ino)?))
    }

    fn made(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        body: Body,
    ) -> Result<FileAttr, Failure> {
        let now = SystemTime::now();
        let (uid, gid) = (request.uid(), request.gid());
        let mode = u16::try_from(mode & 0o7777).unwrap_or(0o600);
        let meta = Meta { mode, uid, gid, modified: now, changed: now };
        let mut disk = self.access(Call::Other, parent)?;
        let ino = disk.tree.create(parent.0, name, meta, body)?;
        disk.tree.looked_up(ino);
        Ok(attributes(ino, disk.tree.node(ino)?))
    }

    fn moved(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Failure> {
        let how = if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            Rename::Exchange
        } else if flags.contains(RenameFlags::RENAME_NOREPLACE) {
            Rename::NoReplace
        } else {
            Rename::Replace
        };
        let mut disk = self.access(Call::Other, from.0)?;
        Ok(disk.tree.rename((from.0.0, from.1), (to.0.0, to.1), how)?)
    }

    fn listing(&self, ino: INodeNo) -> Result<u64, Failure> {
        let disk = self.access(Call::Other, ino)?;
        let mut names = vec![(OsString::from("."), ino.0, FileType::Directory)];
        names.push((OsString::from(".."), ino.0, FileType::Directory));
        for (name, child) in disk.tree.names(ino.0)? {
            names.push((name, child, kind(disk.tree.node(child)?)));
        }
        let handle = self.next_listing.fetch_add(1, Ordering::Relaxed);
        self.listings.lock().insert(handle, names);
        Ok(handle)
    }

    fn allocated(&self, ino: INodeNo, offset: u64, length: u64, mode: i32) -> Result<(), Failure> {
        let now = SystemTime::now();
        let mut disk = self.access(Call::Write, ino)?;
        let tree = &mut disk.tree;
        match mode {
            0 => tree.allocate(ino.0, offset, length, Allocation::Extends, now)?,
            FALLOC_KEEP_SIZE => {
                tree.allocate(ino.0, offset, length, Allocation::KeepsSize, now)?;
            }
            mode if mode == FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE => {
                tree.punch(ino.0, offset, length, now)?;
            }
            _ => return Err(Refusal::Invalid.into()),
        }
        Ok(())
    }
}

/// A call onto the kernel's answer.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $good:expr) => {
        match $result {
            Ok($value) => $good,
            Err(failure) => $reply.error(errno(failure)),
        }
    };
}

impl Filesystem for Mounted {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.named(parent, name), attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, n_lookups: u64) {
        self.shelf.note(self.disk, self.epoch, |tree| tree.forgotten(ino.0, n_lookups));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = self.access(Call::Other, ino).and_then(|disk| {
            let node = disk.tree.node(ino.0)?;
            Ok(attributes(ino.0, node))
        });
        answer!(reply, attr, attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _change_time: Option<SystemTime>,
        _backup_time: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let now = SystemTime::now();
        let set = || -> Result<FileAttr, Failure> {
            let call = if size.is_some() { Call::Write } else { Call::Other };
            let mut disk = self.access(call, ino)?;
            if let Some(size) = size {
                disk.tree.truncate(ino.0, size, now)?;
            }
            let node = disk.tree.node_mut(ino.0)?;
            let meta = &mut node.meta;
            meta.mode =
                mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()).unwrap_or(meta.mode);
            (meta.uid, meta.gid) = (uid.unwrap_or(meta.uid), gid.unwrap_or(meta.gid));
            meta.changed = now;
            match modified {
                Some(TimeOrNow::SpecificTime(time)) => meta.modified = time,
                Some(TimeOrNow::Now) => meta.modified = now,
                None => {}
            }
            Ok(attributes(ino.0, node))
        };
        answer!(reply, set(), attr => reply.attr(&TTL, &attr));
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let target =
            self.access(Call::Other, ino).and_then(|disk| match &disk.tree.node(ino.0)?.body {
                Body::Symlink(target) => Ok(target.clone()),
                Body::File(_) | Body::Folder(_) => Err(Refusal::Invalid.into()),
            });
        answer!(reply, target, target => reply.data(target.as_encoded_bytes()));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        let made = self.made(request, parent, name, mode & !umask, file());
        answer!(reply, made, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let body = Body::Folder(Folder::default());
        let made = self.made(request, parent, name, mode & !umask, body);
        answer!(reply, made, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self
            .access(Call::Other, parent)
            .and_then(|mut disk| Ok(disk.tree.unlink(parent.0, name)?));
        answer!(reply, gone, () => reply.ok());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self
            .access(Call::Other, parent)
            .and_then(|mut disk| Ok(disk.tree.rmdir(parent.0, name)?));
        answer!(reply, gone, () => reply.ok());
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let body = Body::Symlink(target.as_os_str().to_owned());
        let made = self.made(request, parent, name, 0o777, body);
        answer!(reply, made, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let moved = self.moved((parent, name), (new_parent, new_name), flags);
        answer!(reply, moved, () => reply.ok());
    }

    fn link(
        &self,
        _request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.access(Call::Other, parent).and_then(|mut disk| {
            disk.tree.link(ino.0, parent.0, name)?;
            disk.tree.looked_up(ino.0);
            Ok(attributes(ino.0, disk.tree.node(ino.0)?))
        });
        answer!(reply, linked, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.access(Call::Other, ino).map(|mut disk| disk.tree.opened(ino.0));
        answer!(reply, opened, () => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.made(request, parent, name, mode & !umask, file());
        answer!(reply, made, attr => {
            self.shelf.note(self.disk, self.epoch, |tree| tree.opened(attr.ino.0));
            let flags = FopenFlags::FOPEN_DIRECT_IO;
            reply.created(&TTL, &attr, Generation(0), FileHandle(0), flags);
        });
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes =
            self.access(Call::Read, ino).and_then(|disk| match &disk.tree.node(ino.0)?.body {
                Body::File(content) => {
                    Ok(content.read(offset, usize::try_from(size).unwrap_or(PAGE_BYTES)))
                }
                Body::Folder(_) | Body::Symlink(_) => Err(Refusal::IsADirectory.into()),
            });
        answer!(reply, bytes, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .access(Call::Write, ino)
            .and_then(|mut disk| Ok(disk.tree.write(ino.0, offset, data, SystemTime::now())?));
        answer!(reply, written, n_bytes => reply.written(u32::try_from(n_bytes).unwrap_or(0)));
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.shelf.note(self.disk, self.epoch, |tree| tree.closed(ino.0));
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let synced =
            self.access(Call::Sync, ino).and_then(|mut disk| Ok(disk.tree.sync_file(ino.0)?));
        answer!(reply, synced, _n_pages => reply.ok());
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.listing(ino);
        answer!(reply, handle, handle => reply.opened(FileHandle(handle), FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listings = self.listings.lock();
        let names = listings.get(&handle.0).map_or(&[][..], Vec::as_slice);
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (name, ino, kind)) in (1_u64..).zip(names).skip(skipped) {
            if reply.add(INodeNo(*ino), next, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.lock().remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let synced =
            self.access(Call::Sync, ino).and_then(|mut disk| Ok(disk.tree.sync_folder(ino.0)?));
        answer!(reply, synced, () => reply.ok());
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let room = self
            .access(Call::Other, ino)
            .map(|disk| (disk.tree.capacity_pages(), disk.tree.free_pages()));
        answer!(reply, room, (all, free) => {
            let (n_files, n_free) = (1 << 20, 1 << 20);
            reply.statfs(all, free, free, n_files, n_free, BLOCK_BYTES, NAME_BYTES_MAX, BLOCK_BYTES);
        });
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.allocated(ino, offset, length, mode), () => reply.ok());
    }
}

fn file() -> Body {
    Body::File(super::content::Content::default())
}

fn errno(failure: Failure) -> Errno {
    match failure {
        Failure::Io => Errno::EIO,
        Failure::Refused(Refusal::NotFound) => Errno::ENOENT,
        Failure::Refused(Refusal::Exists) => Errno::EEXIST,
        Failure::Refused(Refusal::NotADirectory) => Errno::ENOTDIR,
        Failure::Refused(Refusal::IsADirectory) => Errno::EISDIR,
        Failure::Refused(Refusal::NotEmpty) => Errno::ENOTEMPTY,
        Failure::Refused(Refusal::NoSpace) => Errno::ENOSPC,
        Failure::Refused(Refusal::Invalid) => Errno::EINVAL,
    }
}

fn kind(node: &Node) -> FileType {
    match node.body {
        Body::File(_) => FileType::RegularFile,
        Body::Folder(_) => FileType::Directory,
        Body::Symlink(_) => FileType::Symlink,
    }
}

fn attributes(ino: Ino, node: &Node) -> FileAttr {
    let (size, n_links) = match &node.body {
        Body::File(content) => (content.size(), node.n_names),
        Body::Folder(_) => (u64::from(BLOCK_BYTES), 2),
        Body::Symlink(target) => (u64::try_from(target.len()).unwrap_or(0), node.n_names),
    };
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: node.n_pages() * u64::from(BLOCK_BYTES / 512),
        atime: node.meta.modified,
        mtime: node.meta.modified,
        ctime: node.meta.changed,
        crtime: node.meta.changed,
        kind: kind(node),
        perm: node.meta.mode,
        nlink: n_links,
        uid: node.meta.uid,
        gid: node.meta.gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}
