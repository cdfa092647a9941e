//! Every decoder that meets bytes from outside: what it is called, how it is run, and what it may
//! take in memory.

mod log;
mod requests;
mod state;

/// Memory that a decoder may take for each byte of its input.
pub(crate) const BYTES_FOR_A_BYTE_MAX: u64 = 64;

/// An empty element has two bytes in a request and much more in memory, so the edge counts elements
/// before a request is decoded: 65,536 of up to 192 bytes each for clients of etcd.
const CLIENT_ELEMENTS_BYTES: u64 = 13 << 20;
/// 262,144 for nodes of Milvus, of which the longest input here can hold half.
const MILVUS_ELEMENTS_BYTES: u64 = 128 << 20;
/// Members are not counted: what they send is what they appended or took from a client.
const MEMBER_ELEMENTS_BYTES: u64 = 32 << 20;

/// An empty run has two bytes in an entry and 160 in memory. Only a leader can append one.
const RUNS_BYTES: u64 = 8 << 20;

/// A backup is read block by block. A block is compressed, so what it takes does not follow from
/// the length of its bytes; the reader refuses one that takes more than 96 MiB.
const BACKUP_BLOCK_BYTES: u64 = 97 << 20;

/// One way in for foreign bytes.
pub(crate) struct Decoder {
    /// Names its folder in the corpus.
    pub(crate) name: &'static str,
    pub(crate) read: fn(&[u8]),
    /// Memory that it takes whatever the input is, bytes.
    pub(crate) base_bytes: u64,
    /// Inputs that are right, for the mutations to begin with, beside those of the corpus.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

impl Decoder {
    /// Reads one input. It may panic: the caller knows what to do then.
    ///
    /// # Errors
    /// It takes more memory than its input allows; the text names both.
    pub(crate) fn check(&self, input: &[u8]) -> Result<(), String> {
        let used = allocation_counter::measure(|| (self.read)(input)).bytes_max;
        let limit = self.base_bytes + BYTES_FOR_A_BYTE_MAX * input.len() as u64;
        if used <= limit {
            return Ok(());
        }
        Err(format!("{used} bytes of memory, the limit is {limit}"))
    }
}

/// Where there is nothing to begin with but the corpus.
fn no_seeds() -> Vec<Vec<u8>> {
    Vec::new()
}

/// All of them.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "client-request",
        read: requests::of_clients,
        base_bytes: CLIENT_ELEMENTS_BYTES,
        seeds: requests::seeds,
    },
    Decoder {
        name: "milvus-request",
        read: requests::of_milvus,
        base_bytes: MILVUS_ELEMENTS_BYTES,
        seeds: no_seeds,
    },
    Decoder {
        name: "member-request",
        read: requests::of_members,
        base_bytes: MEMBER_ELEMENTS_BYTES,
        seeds: no_seeds,
    },
    Decoder { name: "log-entry", read: log::entry, base_bytes: 1 << 20, seeds: log::entries },
    Decoder {
        name: "log-entry-sealed",
        read: log::sealed_entry,
        base_bytes: 1 << 20,
        seeds: log::unsealed_entries,
    },
    Decoder { name: "batch", read: state::batch, base_bytes: RUNS_BYTES, seeds: state::batches },
    Decoder { name: "record", read: state::record, base_bytes: 1 << 20, seeds: state::records },
    Decoder {
        name: "backup",
        read: server::foreign::backup,
        base_bytes: BACKUP_BLOCK_BYTES,
        seeds: no_seeds,
    },
    Decoder {
        name: "backup-frames",
        read: server::foreign::backup_frames,
        base_bytes: BACKUP_BLOCK_BYTES,
        seeds: no_seeds,
    },
    Decoder {
        name: "configuration",
        read: server::foreign::configuration,
        base_bytes: 1 << 20,
        seeds: configurations,
    },
    Decoder {
        name: "milvus-configuration",
        read: server::foreign::milvus_configuration,
        base_bytes: 1 << 20,
        seeds: milvus_configurations,
    },
];

fn configurations() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../deploy/quorate.toml").to_vec()]
}

fn milvus_configurations() -> Vec<Vec<u8>> {
    vec![
        b"minio:\n  address: 127.0.0.1\n  port: 9000\n  rootPath: files\n".to_vec(),
        b"dataCoord:\n  segment:\n    maxSize: 512\n    sealProportion: 0.23\ncommon:\n  \
          retentionDuration: 432000\n  chanNamePrefix:\n    cluster: by-dev\n"
            .to_vec(),
    ]
}
