//! How the tables are kept, and how much memory that may take.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, Options,
    WriteBufferManager,
};
use statemachine::Table;

use super::FAMILY_RAFT;

#[derive(Clone, Debug)]
pub struct RocksMemory {
    pub block_cache_bytes: usize,
    /// Events that were read lately, of each generation.
    pub recent_bytes: usize,
    /// Of all tables of all generations together.
    pub memtable_bytes: usize,
}

impl Default for RocksMemory {
    fn default() -> RocksMemory {
        RocksMemory { block_cache_bytes: 24 << 20, recent_bytes: 8 << 20, memtable_bytes: 32 << 20 }
    }
}

/// What all generations share: a staged one costs no second cache.
#[derive(Clone)]
pub struct StateMemory {
    cache: Cache,
    buffers: WriteBufferManager,
    memtable_bytes: usize,
    recent_bytes: usize,
}

impl StateMemory {
    pub fn new(memory: &RocksMemory) -> StateMemory {
        StateMemory {
            cache: Cache::new_lru_cache(memory.block_cache_bytes),
            buffers: WriteBufferManager::new_write_buffer_manager(memory.memtable_bytes, false),
            memtable_bytes: memory.memtable_bytes,
            recent_bytes: memory.recent_bytes,
        }
    }

    pub(super) fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    pub fn block_cache_bytes(&self) -> usize {
        self.cache.get_usage()
    }
}

pub(super) fn database(memory: &StateMemory) -> Options {
    let mut options = Options::default();
    // Without a write-ahead log only this keeps the families at one point after a crash.
    options.set_atomic_flush(true);
    options.set_write_buffer_manager(&memory.buffers);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options
}

pub(super) fn families(memory: &StateMemory) -> Vec<ColumnFamilyDescriptor> {
    let descriptor = |name: &str| ColumnFamilyDescriptor::new(name, family(memory, name));
    let mut families =
        vec![descriptor(rocksdb::DEFAULT_COLUMN_FAMILY_NAME), descriptor(FAMILY_RAFT)];
    families.extend(Table::ALL.iter().map(|table| descriptor(table.name())));
    families
}

pub(super) fn family(memory: &StateMemory, name: &str) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    if name == Table::Domain.name() || name == Table::Lease.name() {
        // Asked for single keys that are often absent. Events are asked for by ids that exist,
        // versions are sought: a filter would only take memory there.
        table.set_bloom_filter(10.0, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(memory.memtable_bytes / 2);
    options.set_max_write_buffer_number(3);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(32 << 20);
    options
}
