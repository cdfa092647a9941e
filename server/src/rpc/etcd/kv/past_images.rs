//! Images of past revisions that clients read page by page.
//!
//! An image shares its blocks with the newest index until writes change them, so it costs memory in
//! proportion to what is written while it is kept. It is dropped soon after its last use.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use statemachine::PastImage;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::tasks;

/// Revisions of which images are kept. Few, because blocks that two images share and the newest
/// index has not any more are not counted.
const IMAGES_MAX: usize = 4;
/// Memory of all images but the one used last.
const BYTES_MAX: usize = 64 << 20;
/// An image that was not used for so long is dropped.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// How often age and memory are looked at while there are images.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Of one revision: made once, by whoever asks first. `None`: too much has changed since.
type Cell = Arc<OnceCell<Option<Arc<PastImage>>>>;

pub(crate) struct PastImages {
    stop: CancellationToken,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Used last comes last.
    entries: Vec<Entry>,
    is_watched: bool,
    counts: Counts,
}

struct Entry {
    revision: i64,
    cell: Cell,
    used: Instant,
}

/// What the metrics show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) kept: usize,
    pub(crate) bytes: usize,
    pub(crate) made: u64,
    pub(crate) used: u64,
}

impl PastImages {
    pub(crate) fn new(stop: CancellationToken) -> Arc<PastImages> {
        Arc::new(PastImages { stop, inner: Mutex::default() })
    }

    /// The image of a revision, if it is at hand.
    pub(crate) fn get(&self, revision: i64) -> Option<Arc<PastImage>> {
        let image = self.cell(revision)?.get()?.clone();
        if image.is_some() {
            self.inner.lock().counts.used += 1;
        }
        image
    }

    /// The image of a revision, made by `make` where it is not at hand. Several that ask at once
    /// wait for one making. `None` where too much has changed since the revision.
    ///
    /// # Errors
    /// Those of `make`; then the next one that asks makes it again.
    pub(crate) async fn get_or_make<E, F>(
        self: &Arc<Self>,
        revision: i64,
        make: impl FnOnce() -> F,
    ) -> Result<Option<Arc<PastImage>>, E>
    where
        F: Future<Output = Result<Option<PastImage>, E>>,
    {
        let cell = self.cell_or_new(revision);
        let made = || async {
            let image = make().await?;
            self.inner.lock().counts.made += 1;
            Ok(image.map(Arc::new))
        };
        cell.get_or_try_init(made).await.cloned()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.inner.lock().counts()
    }

    fn cell(&self, revision: i64) -> Option<Cell> {
        self.inner.lock().touch(revision)
    }

    fn cell_or_new(self: &Arc<Self>, revision: i64) -> Cell {
        let mut inner = self.inner.lock();
        if let Some(cell) = inner.touch(revision) {
            return cell;
        }
        let cell = Cell::default();
        inner.entries.push(Entry { revision, cell: Arc::clone(&cell), used: Instant::now() });
        let surplus = inner.take_surplus();
        if !std::mem::replace(&mut inner.is_watched, true) {
            let images = Arc::clone(self);
            tasks::spawn("past-images", async move { images.watch().await });
        }
        drop(inner);
        release(surplus);
        cell
    }

    /// Drops what is old or too large, until nothing is left.
    async fn watch(&self) {
        let mut period = tokio::time::interval(LOOK_PERIOD);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = period.tick() => {}
            }
            let mut inner = self.inner.lock();
            let mut surplus = inner.take_idle(Instant::now());
            surplus.extend(inner.take_surplus());
            let is_over = inner.entries.is_empty();
            inner.is_watched = !is_over;
            drop(inner);
            release(surplus);
            if is_over {
                return;
            }
        }
    }
}

impl Inner {
    fn touch(&mut self, revision: i64) -> Option<Cell> {
        let at = self.entries.iter().position(|entry| entry.revision == revision)?;
        let mut entry = self.entries.remove(at);
        entry.used = Instant::now();
        let cell = Arc::clone(&entry.cell);
        self.entries.push(entry);
        Some(cell)
    }

    fn take_idle(&mut self, now: Instant) -> Vec<Entry> {
        let n_idle = self.entries.partition_point(|entry| entry.used + IDLE_MAX <= now);
        self.entries.drain(..n_idle).collect()
    }

    /// The entries used longest ago that are more than the bounds allow.
    fn take_surplus(&mut self) -> Vec<Entry> {
        self.take_surplus_of(BYTES_MAX)
    }

    fn take_surplus_of(&mut self, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let mut n_kept = 0;
        for (age, entry) in self.entries.iter().rev().enumerate() {
            bytes += if age == 0 { 0 } else { entry.bytes() };
            if age >= IMAGES_MAX || bytes > bytes_max {
                break;
            }
            n_kept += 1;
        }
        let n_surplus = self.entries.len() - n_kept;
        self.entries.drain(..n_surplus).collect()
    }

    fn counts(&self) -> Counts {
        let bytes = self.entries.iter().map(Entry::bytes).sum();
        Counts { kept: self.entries.len(), bytes, ..self.counts }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.cell.get().and_then(Option::as_ref).map_or(0, |image| image.unshared_bytes())
    }
}

/// An image may be large, and to free it takes its time.
fn release(surplus: Vec<Entry>) {
    if !surplus.is_empty() {
        drop(tasks::spawn_blocking(move || drop(surplus)));
    }
}

#[cfg(test)]
mod tests {
    use statemachine::Fault;
    use statemachine::testkit::Machine;

    use super::*;

    fn image(machine: &Machine, revision: i64) -> PastImage {
        let newest = machine.state.copy_index();
        let image = PastImage::build(newest, revision, &machine.store).unwrap();
        image.expect("little has changed since")
    }

    fn images() -> Arc<PastImages> {
        PastImages::new(CancellationToken::new())
    }

    async fn make(images: &Arc<PastImages>, machine: &Machine, revision: i64) {
        let made = images.get_or_make(revision, || async { Ok(Some(image(machine, revision))) });
        let made: Result<_, Fault> = made.await;
        assert_eq!(made.unwrap().unwrap().revision(), revision);
    }

    #[tokio::test]
    async fn images_are_few_and_are_dropped_after_their_last_use() {
        let mut machine = Machine::new();
        for nth in 0..30 {
            machine.script(&format!("put k{nth} v"));
        }
        let images = images();
        for revision in 2..20 {
            make(&images, &machine, revision).await;
        }
        assert_eq!(images.counts().kept, IMAGES_MAX);
        assert!(images.get(15).is_none(), "the ones used longest ago went");
        assert!(images.inner.lock().is_watched);
        let soon = Instant::now() + IDLE_MAX / 2;
        assert!(images.inner.lock().take_idle(soon).is_empty());
        let before = Instant::now();
        assert!(images.get(19).is_some());
        let idle = images.inner.lock().take_idle(before + IDLE_MAX);
        assert_eq!((idle.len(), images.counts().kept), (IMAGES_MAX - 1, 1), "one was used since");
        let idle = images.inner.lock().take_idle(Instant::now() + IDLE_MAX);
        assert_eq!((idle.len(), images.counts().kept), (1, 0));
        make(&images, &machine, 5).await;
        assert_eq!(images.counts().kept, 1);
    }

    #[tokio::test]
    async fn memory_is_bounded_but_for_the_image_used_last() {
        let mut machine = Machine::new();
        let images = images();
        let value = "v".repeat(10);
        let load: String = (0..3_000).map(|nth| format!("put key{nth:06} {value}\n")).collect();
        machine.script(&load);
        make(&images, &machine, 2_999).await;
        assert_eq!(images.inner.lock().take_surplus_of(0).len(), 0);
        make(&images, &machine, 2_998).await;
        // Nothing was written since: both share all but a block with the newest index.
        let bytes = images.counts().bytes;
        assert!((1..100_000).contains(&bytes), "{bytes}");
        assert_eq!(images.inner.lock().take_surplus_of(0).len(), 1);
        assert!(images.get(2_998).is_some());
    }

    #[tokio::test]
    async fn those_that_ask_at_once_wait_for_one_making() {
        let mut machine = Machine::new();
        machine.script("put a 1\nput a 2\nput a 3");
        let images = images();
        let (open, opened) = tokio::sync::oneshot::channel();
        let slow = images.get_or_make(2, || async {
            opened.await.expect("it is opened");
            Ok::<_, Fault>(Some(image(&machine, 2)))
        });
        let fast =
            images.get_or_make(2, || async { Err(Fault::Invariant("it is made once".to_owned())) });
        let both = async { tokio::join!(slow, fast) };
        let (both, ()) = tokio::join!(both, async move {
            tokio::task::yield_now().await;
            open.send(()).expect("the maker waits");
        });
        assert!(both.0.unwrap().is_some() && both.1.unwrap().is_some());
        assert_eq!(images.counts().made, 1);
    }

    #[tokio::test]
    async fn a_making_that_failed_is_tried_again() {
        let mut machine = Machine::new();
        machine.script("put a 1\nput a 2");
        let images = images();
        let failed = images.get_or_make(2, || async {
            Err::<Option<PastImage>, _>(Fault::Invariant("no".to_owned()))
        });
        assert!(failed.await.is_err());
        assert!(images.get(2).is_none());
        make(&images, &machine, 2).await;
        assert!(images.get(2).is_some());
    }
}
