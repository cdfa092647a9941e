//! A generation: the tables of one image of the state, with the memory built from them.
//!
//! `sm/CURRENT` names the one that counts. A snapshot is staged as the next one and becomes
//! current by replacing that small file; whatever generation it does not name is deleted at start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use parking_lot::RwLock;
use statemachine::{Applied, Fault, Loading, Pairs, Prepared, State};

use crate::durable;
use crate::rocks::{StateMemory, StateOpenError, Tables};

const STATE_DIR: &str = "sm";
const CURRENT_FILE: &str = "CURRENT";
const GENERATION_PREFIX: &str = "gen-";

/// Which generation counts cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged (it holds {found:?}): replace this node with `quorate member replace`",
        path.display()
    )]
    Damaged { path: PathBuf, found: String },
    #[error(
        "{} belongs to node {found:x}, but this is node {expected:x}: the directory was copied or \
         mixed up; give each node its own",
        path.display()
    )]
    Node { path: PathBuf, found: u64, expected: u64 },
    #[error(
        "{} names generation {number}, which is not there: replace this node with `quorate member \
         replace`",
        path.display()
    )]
    Missing { path: PathBuf, number: u64 },
    #[error(
        "{} is missing although this node has a log: the state was removed or lost; replace this \
         node with `quorate member replace`",
        path.display()
    )]
    Lost { path: PathBuf },
    #[error(transparent)]
    Open(#[from] StateOpenError),
}

pub(crate) fn state_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(STATE_DIR)
}

pub(crate) fn path_of(sm_dir: &Path, number: u64) -> PathBuf {
    sm_dir.join(format!("{GENERATION_PREFIX}{number:06}"))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> GenerationError {
    let path = path.to_owned();
    move |source| GenerationError::Io { path, source }
}

/// Makes a generation the one that counts. It, and its files, must be durable already.
pub(crate) fn set_current(sm_dir: &Path, number: u64, node: u64) -> Result<(), GenerationError> {
    let path = sm_dir.join(CURRENT_FILE);
    let text = format!("{GENERATION_PREFIX}{number:06} {node:016x}");
    let line = format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()));
    durable::sync_dir(sm_dir)
        .and_then(|()| durable::replace_file(&path, line.as_bytes()))
        .map_err(io_error(&path))
}

/// Number of the generation that counts; `None` in a new directory.
pub(crate) fn current(sm_dir: &Path, node: u64) -> Result<Option<u64>, GenerationError> {
    let path = sm_dir.join(CURRENT_FILE);
    let line = match std::fs::read_to_string(&path) {
        Ok(line) => line,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(&path)(error)),
    };
    let Some((number, found)) = parse_current(line.trim_end()) else {
        return Err(GenerationError::Damaged { path, found: line });
    };
    if found != node {
        return Err(GenerationError::Node { path, found, expected: node });
    }
    if !path_of(sm_dir, number).is_dir() {
        return Err(GenerationError::Missing { path, number });
    }
    Ok(Some(number))
}

fn parse_current(line: &str) -> Option<(u64, u64)> {
    let (text, checksum) = line.rsplit_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32c::crc32c(text.as_bytes()) {
        return None;
    }
    let (name, node) = text.split_once(' ')?;
    let number = name.strip_prefix(GENERATION_PREFIX)?.parse().ok()?;
    Some((number, u64::from_str_radix(node, 16).ok()?))
}

/// Deletes every generation but `keep`, and says the highest number that was ever seen.
pub(crate) fn sweep(sm_dir: &Path, keep: Option<u64>) -> Result<(), GenerationError> {
    for entry in std::fs::read_dir(sm_dir).map_err(io_error(sm_dir))? {
        let entry = entry.map_err(io_error(sm_dir))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(GENERATION_PREFIX));
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
            continue;
        };
        if Some(number) != keep {
            tracing::info!(generation = number, "deleting a generation that is not current");
            durable::remove_dir(&entry.path()).map_err(io_error(&entry.path()))?;
        }
    }
    Ok(())
}

/// The tables and what was built from them.
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) tables: Arc<Tables>,
    pub(crate) state: RwLock<State>,
    /// The state's feature level, for those who must not wait for the lock of the state: a node
    /// whose apply hangs still has to follow a leader.
    level: AtomicU32,
}

impl Generation {
    /// Builds the memory from the tables: the slow part of a start and of a staged snapshot.
    pub(crate) fn load(number: u64, tables: Tables) -> Result<Generation, StateOpenError> {
        let state = load_state(&tables)
            .map_err(|source| StateOpenError::State { path: tables.path().to_owned(), source })?;
        let level = AtomicU32::new(state.level());
        Ok(Generation { number, tables: Arc::new(tables), state: RwLock::new(state), level })
    }

    /// Takes in what was prepared and is in the tables.
    pub(crate) fn commit(&self, prepared: Prepared) -> Applied {
        let mut state = self.state.write();
        let applied = state.commit(prepared);
        self.level.store(state.level(), Ordering::Release);
        applied
    }

    /// The state's feature level. Never waits.
    pub(crate) fn level(&self) -> u32 {
        self.level.load(Ordering::Acquire)
    }

    /// Opens the current generation, or makes the first one of a new node.
    ///
    /// # Errors
    /// It is damaged, lost, or another node's. `has_history` says whether this node has a log.
    pub(crate) fn open(
        data_dir: &Path,
        node: u64,
        memory: &StateMemory,
        has_history: bool,
    ) -> Result<Generation, GenerationError> {
        let sm_dir = state_dir(data_dir);
        std::fs::create_dir_all(&sm_dir).map_err(io_error(&sm_dir))?;
        if let Some(number) = current(&sm_dir, node)? {
            sweep(&sm_dir, Some(number))?;
            let tables = Tables::open(&path_of(&sm_dir, number), memory)?;
            return Ok(Generation::load(number, tables)?);
        }
        if has_history {
            return Err(GenerationError::Lost { path: sm_dir.join(CURRENT_FILE) });
        }
        // What a first start left behind before it was complete.
        sweep(&sm_dir, None)?;
        let tables = Tables::create(&path_of(&sm_dir, 1), memory)?;
        set_current(&sm_dir, 1, node)?;
        durable::sync_dir(data_dir).map_err(io_error(data_dir))?;
        Ok(Generation::load(1, tables)?)
    }
}

impl Generation {
    /// An empty one beside whatever is there; it never becomes the current one.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn open_beside(
        data_dir: &Path,
        memory: &StateMemory,
    ) -> Result<Generation, GenerationError> {
        let sm_dir = state_dir(data_dir);
        std::fs::create_dir_all(&sm_dir).map_err(io_error(&sm_dir))?;
        let number = highest(&sm_dir)? + 1;
        let tables = Tables::create(&path_of(&sm_dir, number), memory)?;
        tables.retire();
        Ok(Generation::load(number, tables)?)
    }
}

/// The highest number of a generation that is there.
fn highest(sm_dir: &Path) -> Result<u64, GenerationError> {
    let mut highest = 0;
    for entry in std::fs::read_dir(sm_dir).map_err(io_error(sm_dir))? {
        let name = entry.map_err(io_error(sm_dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(GENERATION_PREFIX));
        highest = highest.max(number.and_then(|number| number.parse().ok()).unwrap_or(0));
    }
    Ok(highest)
}

/// Batches of pairs that wait for the views to be built of them.
const BATCHES_AHEAD: usize = 4;

/// As `State::load`, with the views built beside the reading of what they are made of.
fn load_state(tables: &Tables) -> Result<State, Fault> {
    let began = Instant::now();
    let loading = Loading::begin(tables)?;
    let indexed = began.elapsed();
    let mut views = loading.views();
    let (sender, receiver) = mpsc::sync_channel::<Pairs>(BATCHES_AHEAD);
    let views = std::thread::scope(|scope| {
        let build = move || {
            receiver.into_iter().for_each(|pairs| pairs.load_into(&mut views));
            views
        };
        let building = std::thread::Builder::new()
            .name("load-views".into())
            .spawn_scoped(scope, build)
            .map_err(|error| Fault::Storage(error.to_string()))?;
        let read = loading.read(tables, &mut |pairs| {
            let gone = |_| Fault::Invariant("nobody builds the views".to_owned());
            sender.send(pairs).map_err(gone)
        });
        drop(sender);
        let views = building.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        read.map(|()| views)
    })?;
    let state = loading.finish(views);
    tracing::info!(keys = state.n_keys(), ?indexed, took = ?began.elapsed(), "state loaded");
    Ok(state)
}
