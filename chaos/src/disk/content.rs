//! The bytes of one file: what a reader sees, and what a cut of power leaves of it.

use std::collections::BTreeMap;

/// The unit in which an unsynced write is kept or lost.
pub const PAGE_BYTES: usize = 4096;
/// The unit within which a disk tears no write.
pub const SECTOR_BYTES: usize = 512;
const PAGE_U64: u64 = 4096;

/// A page that takes room. `None`: allocated, and zero.
type Page = Option<Box<[u8; PAGE_BYTES]>>;

/// The pages of a file. Volatile pages lie over the durable ones until the file is synced.
#[derive(Clone, Debug, Default)]
pub struct Content {
    size: u64,
    /// A page that is not here is a hole: it takes no room and reads as zeros.
    pages: BTreeMap<u64, Page>,
    durable_size: u64,
    /// The durable form of each page that changed since the last sync; `None` was a hole.
    before: BTreeMap<u64, Option<Page>>,
}

/// Whether an allocation beyond the end of a file moves the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allocation {
    Extends,
    KeepsSize,
}

/// Which part of the unsynced pages of a file a cut keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    All,
    None,
    /// Pages in order up to one, of which the first sectors are kept.
    Prefix,
    /// Any pages, some of them torn.
    Subset,
}

/// What a cut dropped of one file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Loss {
    pub n_pages: u64,
    pub n_torn: u64,
    /// The end of the file went back to where it was when it was synced.
    pub end_moved: bool,
}

impl Loss {
    /// True where something was dropped.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.n_pages + self.n_torn > 0 || self.end_moved
    }
}

impl Content {
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Pages that take room.
    #[must_use]
    pub fn n_pages(&self) -> u64 {
        count(self.pages.len())
    }

    /// Pages that the range would allocate.
    #[must_use]
    pub fn n_new_pages(&self, offset: u64, n_bytes: u64) -> u64 {
        let Some(pages) = pages_of(offset, n_bytes) else {
            return 0;
        };
        let known = count(self.pages.range(pages.clone()).count());
        pages.end() - pages.start() + 1 - known
    }

    #[must_use]
    pub fn read(&self, offset: u64, n_bytes: usize) -> Vec<u8> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; n_bytes.min(left)];
        let mut at = 0;
        while at < bytes.len() {
            let (page, within) = place(offset + count(at));
            let n_here = (PAGE_BYTES - within).min(bytes.len() - at);
            if let Some(Some(page)) = self.pages.get(&page) {
                bytes[at..at + n_here].copy_from_slice(&page[within..within + n_here]);
            }
            at += n_here;
        }
        bytes
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let (page, within) = place(offset + count(at));
            let n_here = (PAGE_BYTES - within).min(bytes.len() - at);
            let page = self.changed(page).get_or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[within..within + n_here].copy_from_slice(&bytes[at..at + n_here]);
            at += n_here;
        }
        self.size = self.size.max(offset + count(bytes.len()));
    }

    /// Moves the end of the file. What lies behind it is gone.
    pub fn truncate(&mut self, size: u64) {
        self.clear_from(size);
        self.size = size;
    }

    /// Takes room for a range; its bytes read as zeros where they were a hole.
    pub fn allocate(&mut self, offset: u64, n_bytes: u64, allocation: Allocation) {
        for page in pages_of(offset, n_bytes).into_iter().flatten() {
            if !self.pages.contains_key(&page) {
                self.changed(page);
            }
        }
        if allocation == Allocation::Extends {
            self.size = self.size.max(offset.saturating_add(n_bytes));
        }
    }

    /// Makes a range read as zeros; whole pages of it give their room back.
    pub fn punch(&mut self, offset: u64, n_bytes: u64) {
        let touched: Vec<u64> = match pages_of(offset, n_bytes) {
            Some(pages) => self.pages.range(pages).map(|(page, _)| *page).collect(),
            None => return,
        };
        let end = offset + n_bytes;
        for page in touched {
            let (first, last) = (page * PAGE_U64, (page + 1) * PAGE_U64);
            self.remember(page);
            if offset <= first && last <= end {
                self.pages.remove(&page);
            } else if let Some(Some(bytes)) = self.pages.get_mut(&page) {
                bytes[within(offset.max(first) - first)..within(end.min(last) - first)].fill(0);
            }
        }
    }

    /// Makes everything durable. The number of pages that were not.
    pub fn sync(&mut self) -> u64 {
        let n_pages = count(self.before.len());
        self.before.clear();
        self.durable_size = self.size;
        n_pages
    }

    /// True where a sync would do nothing.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.before.is_empty() && self.durable_size == self.size
    }

    /// Flips one bit of what is durable and of what is read. False beyond the end of the file.
    pub fn flip(&mut self, bit: u64) -> bool {
        let (page, within) = place(bit / 8);
        if bit / 8 >= self.size {
            return false;
        }
        let mask = 1_u8 << (bit % 8);
        let page_now = self.pages.entry(page).or_default();
        page_now.get_or_insert_with(|| Box::new([0; PAGE_BYTES]))[within] ^= mask;
        if let Some(Some(Some(before))) = self.before.get_mut(&page) {
            before[within] ^= mask;
        }
        true
    }

    /// What a cut of power leaves. `draw(n)` gives a number below n.
    pub fn cut(&mut self, kept: Kept, draw: &mut dyn FnMut(u64) -> u64) -> Loss {
        let mut loss = Loss::default();
        if self.is_durable() || kept == Kept::All {
            self.sync();
            return loss;
        }
        let (size_now, size_before) = (self.size, self.durable_size);
        // A truncation is one step of the file system: it is kept with all that it removed, or not.
        let shrunk = size_now < size_before;
        let undone = shrunk && (kept == Kept::None || draw(2) == 0);
        let before = std::mem::take(&mut self.before);
        let end = draw(count(before.len()) + 1);
        // Of the pages that are kept, the last byte that they hold.
        let mut kept_until = 0;
        for (number, (page, old)) in before.into_iter().enumerate() {
            let n_sectors = count(PAGE_BYTES / SECTOR_BYTES);
            let choice = match kept {
                _ if shrunk && page >= size_now / PAGE_U64 => {
                    if undone {
                        Choice::Drop
                    } else {
                        Choice::Keep
                    }
                }
                Kept::All => Choice::Keep,
                Kept::None => Choice::Drop,
                Kept::Prefix if count(number) < end => Choice::Keep,
                Kept::Prefix if count(number) == end => {
                    Choice::Tear((1_u64 << draw(n_sectors)) - 1)
                }
                Kept::Prefix => Choice::Drop,
                Kept::Subset => match draw(4) {
                    0 | 1 => Choice::Keep,
                    2 => Choice::Drop,
                    _ => Choice::Tear(draw(1 << n_sectors)),
                },
            };
            kept_until =
                kept_until.max(self.settle(page, old, choice, &mut loss) + page * PAGE_U64);
        }
        self.size = match kept {
            _ if shrunk => {
                if undone {
                    size_before
                } else {
                    size_now
                }
            }
            Kept::None => size_before,
            Kept::Prefix => kept_until.clamp(size_before, size_now),
            Kept::Subset if draw(4) == 0 => size_before,
            // Pages that were lost before the end are zeros: a hole.
            Kept::All | Kept::Subset => size_now,
        };
        loss.end_moved = self.size != size_now;
        self.clear_from(self.size);
        self.sync();
        loss
    }

    /// The number of bytes of the page that are as they were written last.
    fn settle(&mut self, page: u64, old: Option<Page>, choice: Choice, loss: &mut Loss) -> u64 {
        let new = self.pages.get(&page).cloned();
        let is_zero = |page: &Option<Page>| !matches!(page, Some(Some(_)));
        if choice == Choice::Keep || new == old || (is_zero(&new) && is_zero(&old)) {
            return PAGE_U64;
        }
        let Choice::Tear(sectors) = choice else {
            loss.n_pages += 1;
            self.put(page, old);
            return 0;
        };
        let bytes_of = |page: &Option<Page>| match page {
            Some(Some(bytes)) => bytes.clone(),
            Some(None) | None => Box::new([0; PAGE_BYTES]),
        };
        let (mut torn, now) = (bytes_of(&old), bytes_of(&new));
        let mut kept_until = 0;
        for sector in 0..PAGE_BYTES / SECTOR_BYTES {
            if sectors >> sector & 1 == 1 {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                kept_until = count(range.end);
                torn[range.clone()].copy_from_slice(&now[range]);
            }
        }
        loss.n_torn += u64::from(torn != now);
        self.put(page, Some(Some(torn)));
        kept_until
    }

    fn put(&mut self, page: u64, content: Option<Page>) {
        match content {
            Some(content) => drop(self.pages.insert(page, content)),
            None => drop(self.pages.remove(&page)),
        }
    }

    fn clear_from(&mut self, size: u64) {
        let (page, within) = place(size);
        let first_gone = if within == 0 { page } else { page + 1 };
        let gone: Vec<u64> = self.pages.range(first_gone..).map(|(page, _)| *page).collect();
        for page in gone {
            self.remember(page);
            self.pages.remove(&page);
        }
        if within > 0 && matches!(self.pages.get(&page), Some(Some(_))) {
            self.remember(page);
            if let Some(Some(bytes)) = self.pages.get_mut(&page) {
                bytes[within..].fill(0);
            }
        }
    }

    fn remember(&mut self, page: u64) {
        if !self.before.contains_key(&page) {
            self.before.insert(page, self.pages.get(&page).cloned());
        }
    }

    fn changed(&mut self, page: u64) -> &mut Page {
        self.remember(page);
        self.pages.entry(page).or_default()
    }
}

/// What becomes of one unsynced page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Choice {
    Keep,
    Drop,
    /// These sectors are kept, one bit each.
    Tear(u64),
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn within(n_bytes: u64) -> usize {
    usize::try_from(n_bytes).unwrap_or(PAGE_BYTES).min(PAGE_BYTES)
}

/// The page of an offset, and the place in it.
fn place(offset: u64) -> (u64, usize) {
    (offset / PAGE_U64, within(offset % PAGE_U64))
}

fn pages_of(offset: u64, n_bytes: u64) -> Option<std::ops::RangeInclusive<u64>> {
    let last = n_bytes.checked_sub(1)?;
    Some(offset / PAGE_U64..=offset.saturating_add(last) / PAGE_U64)
}
