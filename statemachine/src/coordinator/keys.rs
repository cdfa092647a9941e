//! Key layouts of the coordinator's records, all of them. Milvus's are below `<root path>/meta/`,
//! ours below `<root path>/quorate/`. Keys are made of parts without a trailing slash; scans use
//! prefixes with one, because `datacoord-meta/s` is also a prefix of `datacoord-meta/statslog`.

use proto::quorate::SegmentRef;

use crate::view::canonical_i64;

/// Kinds of logs, with the name of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogKind {
    Insert,
    Delta,
    Stats,
}

impl LogKind {
    pub const ALL: [LogKind; 3] = [LogKind::Insert, LogKind::Delta, LogKind::Stats];

    /// As keys below `datacoord-meta/` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogKind::Insert => "binlog",
            LogKind::Delta => "deltalog",
            LogKind::Stats => "statslog",
        }
    }
}

/// Makes keys below one root path.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    pub root_path: &'a str,
}

impl Keys<'_> {
    fn at(self, rest: std::fmt::Arguments<'_>) -> String {
        if self.root_path.is_empty() {
            rest.to_string()
        } else {
            format!("{}/{rest}", self.root_path)
        }
    }

    /// `data.SegmentInfo` without its logs.
    pub fn segment(self, of: SegmentRef) -> String {
        let SegmentRef { collection, partition, segment } = of;
        self.at(format_args!("meta/datacoord-meta/s/{collection}/{partition}/{segment}"))
    }

    /// All segments of a collection: the records' keys begin with it.
    pub fn segments_of(self, collection: i64) -> String {
        self.at(format_args!("meta/datacoord-meta/s/{collection}/"))
    }

    /// All segments: the records' keys begin with it.
    pub fn all_segments(self) -> String {
        self.at(format_args!("meta/datacoord-meta/s/"))
    }

    /// What a key names, if it is one of those below `datacoord-meta/`.
    pub(crate) fn data_key<'k>(self, key: &'k [u8]) -> Option<DataKey<'k>> {
        let prefix = self.at(format_args!("meta/datacoord-meta/"));
        DataKey::parse(key.strip_prefix(prefix.as_bytes())?)
    }

    /// `data.FieldBinlog`, one a field.
    pub fn log(self, kind: LogKind, of: SegmentRef, field: i64) -> String {
        format!("{}{field}", self.logs(kind, of))
    }

    /// All logs of one kind of a segment: keys begin with it.
    pub fn logs(self, kind: LogKind, of: SegmentRef) -> String {
        let SegmentRef { collection, partition, segment } = of;
        let kind = kind.as_str();
        self.at(format_args!("meta/datacoord-meta/{kind}/{collection}/{partition}/{segment}/"))
    }

    /// `msg.MsgPosition`.
    pub fn checkpoint(self, channel: &str) -> String {
        self.at(format_args!("meta/datacoord-meta/channel-cp/{channel}"))
    }

    /// `removed` or `non-removed`.
    pub fn removal(self, channel: &str) -> String {
        self.at(format_args!("meta/datacoord-meta/channel-removal/{channel}"))
    }

    /// `data.ChannelWatchInfo`: a command to a data node, and its acknowledgement.
    pub fn channel_watch(self, node: i64, channel: &str) -> String {
        self.at(format_args!("meta/channelwatch/{node}/{channel}"))
    }

    /// All of them: keys begin with it.
    pub fn channel_watches(self) -> String {
        self.at(format_args!("meta/channelwatch/"))
    }

    /// Alive as long as the data node is.
    pub fn data_node_session(self, node: i64) -> String {
        self.at(format_args!("meta/session/datanode-{node}"))
    }

    /// `index.FieldIndex`.
    pub fn field_index(self, collection: i64, index: i64) -> String {
        self.at(format_args!("meta/field-index/{collection}/{index}"))
    }

    /// All definitions of a collection: keys begin with it.
    pub fn field_indexes(self, collection: i64) -> String {
        self.at(format_args!("meta/field-index/{collection}/"))
    }

    /// `index.SegmentIndex`.
    pub fn segment_index(self, of: SegmentRef, build: i64) -> String {
        format!("{}{build}", self.segment_indexes(of))
    }

    /// All builds of a segment: keys begin with it.
    pub fn segment_indexes(self, of: SegmentRef) -> String {
        let SegmentRef { collection, partition, segment } = of;
        self.at(format_args!("meta/segment-index/{collection}/{partition}/{segment}/"))
    }

    /// JSON of the process that has a role.
    pub fn session(self, name: &str) -> String {
        self.at(format_args!("meta/session/{name}"))
    }

    /// `quorate.Growth`.
    pub fn growth(self, segment: i64) -> String {
        self.at(format_args!("quorate/growing/{segment}"))
    }

    /// All growths: keys begin with it.
    pub(crate) fn growths(self) -> String {
        self.at(format_args!("quorate/growing/"))
    }

    /// `quorate.ChannelRecord`.
    pub fn channel(self, channel: &str) -> String {
        self.at(format_args!("quorate/channel/{channel}"))
    }

    /// Without a value, while the data node is to be empty.
    pub fn drain(self, node: i64) -> String {
        self.at(format_args!("quorate/drain/{node}"))
    }

    /// `quorate.CompactionTask`.
    pub fn compaction(self, plan: i64) -> String {
        self.at(format_args!("quorate/compaction/{plan}"))
    }

    /// All plans: keys begin with it.
    pub fn compactions(self) -> String {
        self.at(format_args!("quorate/compaction/"))
    }

    /// `quorate.AlteredCollection`.
    pub fn altered(self, collection: i64) -> String {
        self.at(format_args!("quorate/altered/{collection}"))
    }

    /// `quorate.GarbageControl`.
    pub fn garbage_control(self) -> String {
        self.at(format_args!("quorate/garbage-control"))
    }

    /// `quorate.ControlCompaction`.
    pub fn compaction_control(self) -> String {
        self.at(format_args!("quorate/compaction-control"))
    }
}

/// Names of the sessions that the leading coordinator writes.
pub const COORDINATOR_SESSIONS: [&str; 2] = ["datacoord", "indexcoord"];

/// Prefixes that only commands of the coordinator write while its role is on.
pub fn owned_prefixes(root_path: &str) -> impl Iterator<Item = String> {
    const OWNED: [&str; 4] =
        ["meta/datacoord-meta/", "meta/field-index/", "meta/segment-index/", "quorate/"];
    OWNED.into_iter().map(move |prefix| {
        if root_path.is_empty() { prefix.to_owned() } else { format!("{root_path}/{prefix}") }
    })
}

/// What a key below `datacoord-meta/` names; `None` where Milvus writes no such key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataKey<'a> {
    Segment(SegmentRef),
    Log { kind: LogKind, of: SegmentRef, field: i64 },
    Checkpoint(&'a str),
    Removal(&'a str),
}

impl<'a> DataKey<'a> {
    /// Reads what follows `datacoord-meta/`.
    pub(crate) fn parse(key: &'a [u8]) -> Option<DataKey<'a>> {
        let (area, rest) = std::str::from_utf8(key).ok()?.split_once('/')?;
        match area {
            "s" => {
                let [collection, partition, segment] = numbers(rest)?;
                Some(DataKey::Segment(SegmentRef { collection, partition, segment }))
            }
            "channel-cp" if is_name(rest) => Some(DataKey::Checkpoint(rest)),
            "channel-removal" if is_name(rest) => Some(DataKey::Removal(rest)),
            area => {
                let kind = LogKind::ALL.into_iter().find(|kind| kind.as_str() == area)?;
                let [collection, partition, segment, field] = numbers(rest)?;
                let of = SegmentRef { collection, partition, segment };
                Some(DataKey::Log { kind, of, field })
            }
        }
    }
}

/// Reads `a/b/c` of exactly `N` canonical numbers.
pub(crate) fn numbers<const N: usize>(text: &str) -> Option<[i64; N]> {
    let mut parts = text.split('/');
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = canonical_i64(parts.next()?)?;
    }
    parts.next().is_none().then_some(numbers)
}

pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_made_are_read_back() {
        let keys = Keys { root_path: "by-dev" };
        let of = SegmentRef { collection: 1, partition: 2, segment: 3 };
        let data = |key: &str| {
            let key = key.strip_prefix("by-dev/meta/datacoord-meta/").expect("a data key");
            DataKey::parse(key.as_bytes()).map(|key| format!("{key:?}"))
        };
        assert_eq!(data(&keys.segment(of)), Some(format!("{:?}", DataKey::Segment(of))));
        for kind in LogKind::ALL {
            let expected = DataKey::Log { kind, of, field: 100 };
            assert_eq!(data(&keys.log(kind, of, 100)), Some(format!("{expected:?}")));
        }
        let channel = "by-dev-rootcoord-dml_0_1v0";
        assert_eq!(
            data(&keys.checkpoint(channel)),
            Some(format!("{:?}", DataKey::Checkpoint(channel)))
        );
        assert_eq!(data("by-dev/meta/datacoord-meta/s/1/2/03"), None);
        assert_eq!(data("by-dev/meta/datacoord-meta/binlog/1/2/3"), None);
    }

    #[test]
    fn statistics_logs_are_no_segments() {
        assert_eq!(DataKey::parse(b"statslog/1/2/3"), None);
    }
}
