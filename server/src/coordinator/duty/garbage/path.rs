//! What the name of an object file says, read as numbers: names are never compared as text, since
//! a root that is spelled in another way would make every file an orphan.

use statemachine::coordinator::keys::LogKind;

/// A file of a segment, or of an index over one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParsedPath<'p> {
    Log(LogPath),
    Index(IndexPath<'p>),
}

/// `insert_log/{collection}/{partition}/{segment}/{field}/{log}`, the same below `stats_log`, and
/// `delta_log/{collection}/{partition}/{segment}/{log}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogPath {
    pub(super) kind: LogKind,
    pub(super) collection: i64,
    pub(super) partition: i64,
    pub(super) segment: i64,
    /// 0 for delta logs.
    pub(super) field: i64,
    pub(super) log: i64,
}

/// `index_files/{build}/{version}/{partition}/{segment}/{key}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexPath<'p> {
    pub(super) build: i64,
    pub(super) version: i64,
    pub(super) partition: i64,
    pub(super) segment: i64,
    pub(super) key: &'p str,
}

pub(super) const INDEX_AREA: &str = "index_files";

/// Folder of one kind of logs.
pub(in super::super) fn area(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Insert => "insert_log",
        LogKind::Stats => "stats_log",
        LogKind::Delta => "delta_log",
    }
}

/// How many folders above a log are of its segment alone. Those of the partition stay: somebody may
/// be about to write into them.
pub(super) fn folders_of_segment(kind: LogKind) -> usize {
    match kind {
        LogKind::Insert | LogKind::Stats => 2,
        LogKind::Delta => 1,
    }
}

/// Reads a name below a prefix, which ends in a slash or is empty. `None` for a shape that Milvus does
/// not write: such a file is somebody else's.
pub(super) fn parse<'p>(prefix: &str, path: &'p str) -> Option<ParsedPath<'p>> {
    let below = path.strip_prefix(prefix)?;
    let (name, rest) = below.split_once('/')?;
    if name == INDEX_AREA {
        let mut parts = rest.splitn(5, '/');
        let index = IndexPath {
            build: number(parts.next()?)?,
            version: number(parts.next()?)?,
            partition: number(parts.next()?)?,
            segment: number(parts.next()?)?,
            key: parts.next().filter(|key| !key.is_empty() && !key.contains('/'))?,
        };
        return Some(ParsedPath::Index(index));
    }
    let kind = LogKind::ALL.into_iter().find(|kind| area(*kind) == name)?;
    let mut parts = rest.split('/');
    let mut next = || number(parts.next()?);
    let (collection, partition, segment) = (next()?, next()?, next()?);
    let field = if kind == LogKind::Delta { 0 } else { next()? };
    let log = next()?;
    if parts.next().is_some() {
        return None;
    }
    Some(ParsedPath::Log(LogPath { kind, collection, partition, segment, field, log }))
}

/// Only as Milvus writes it: no sign, no zeros in front.
fn number(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number >= 0 && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_milvus_writes_are_read() {
        let read = |path: &str| match parse("files/", path) {
            Some(ParsedPath::Log(log)) => format!("{log:?}").replace("LogPath ", ""),
            Some(ParsedPath::Index(index)) => format!("{index:?}").replace("IndexPath ", ""),
            None => "none".to_owned(),
        };
        let told: Vec<String> = [
            "files/insert_log/1/2/3/100/7",
            "files/stats_log/1/2/3/100/1",
            "files/delta_log/1/2/3/7",
            "files/index_files/9/1/2/3/HNSW_0",
            "files/insert_log/1/2/3/100",
            "files/insert_log/1/2/3/100/7/8",
            "files/insert_log/1/2/3/100/07",
            "files/insert_log/1/2/-3/100/7",
            "files/delta_log/1/2/3/0/7",
            "files/index_files/9/1/2/3",
            "files/index_files/9/1/2/3/a/b",
            "files/other/1/2/3/7",
            "filesystem/insert_log/1/2/3/100/7",
        ]
        .into_iter()
        .map(|path| format!("{path}: {}\n", read(path)))
        .collect();
        expect_test::expect![[r#"
            files/insert_log/1/2/3/100/7: { kind: Insert, collection: 1, partition: 2, segment: 3, field: 100, log: 7 }
            files/stats_log/1/2/3/100/1: { kind: Stats, collection: 1, partition: 2, segment: 3, field: 100, log: 1 }
            files/delta_log/1/2/3/7: { kind: Delta, collection: 1, partition: 2, segment: 3, field: 0, log: 7 }
            files/index_files/9/1/2/3/HNSW_0: { build: 9, version: 1, partition: 2, segment: 3, key: "HNSW_0" }
            files/insert_log/1/2/3/100: none
            files/insert_log/1/2/3/100/7/8: none
            files/insert_log/1/2/3/100/07: none
            files/insert_log/1/2/-3/100/7: none
            files/delta_log/1/2/3/0/7: none
            files/index_files/9/1/2/3: none
            files/index_files/9/1/2/3/a/b: none
            files/other/1/2/3/7: none
            filesystem/insert_log/1/2/3/100/7: none
        "#]].assert_eq(&told.concat());
    }
}
