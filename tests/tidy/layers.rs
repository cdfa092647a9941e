//! Which crate may know which: the directions and the words of ARCHITECTURE.md.

use crate::sources::{Source, all, report};

/// Crate, the crates of ours that it may use (tests excepted), words that its sources never name.
struct Layer {
    krate: &'static str,
    uses: &'static [&'static str],
    folder: &'static str,
    never: &'static [&'static str],
    because: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer {
        krate: "proto",
        uses: &[],
        folder: "proto/src/",
        never: &["openraft", "rocksdb", "statemachine::", "raft::", "server::"],
        because: "the wire knows nobody",
    },
    Layer {
        krate: "statemachine",
        uses: &["proto"],
        folder: "statemachine/src/",
        never: &[
            "tokio",
            "tonic::",
            "openraft",
            "rocksdb",
            "rand::",
            "SystemTime",
            "Instant",
            "std::env",
            "std::fs",
            "std::thread",
            "HashMap",
            "HashSet",
            "f32",
            "f64",
        ],
        because: "apply is pure: same log, same bytes",
    },
    Layer {
        krate: "raft",
        uses: &["proto", "statemachine"],
        folder: "raft/src/",
        never: &["etcd::", "milvus::", "etcdserverpb"],
        because: "it moves commands, it does not read them",
    },
    Layer {
        krate: "server",
        uses: &["proto", "statemachine", "raft"],
        folder: "server/src/",
        never: &["openraft", "rocksdb"],
        because: "the engine and the storage are behind `raft`",
    },
    Layer {
        krate: "chaos",
        uses: &["proto", "server"],
        folder: "chaos/src/",
        never: &["statemachine::", "openraft", "rocksdb"],
        because: "a reference that shares code shares bugs",
    },
];

#[test]
fn crates_depend_in_one_direction() {
    let ours: Vec<&str> = LAYERS.iter().map(|layer| layer.krate).collect();
    let sources = all();
    let mut findings = Vec::new();
    for layer in LAYERS {
        let manifest = find(&sources, &format!("{}/Cargo.toml", layer.krate));
        for used in dependencies(&manifest.text) {
            if ours.contains(&used) && !layer.uses.contains(&used) {
                findings.push(format!("{} uses {used}; {}", manifest.path, layer.because));
            }
        }
    }
    report("a crate uses one that it must not know", &findings);
}

#[test]
fn sources_name_no_layer_that_they_must_not_know() {
    let mut findings = Vec::new();
    // A file of tests may build the commands that its layer only moves.
    let is_product = |source: &&Source| source.is_rust() && !source.path.ends_with("/tests.rs");
    for source in all().iter().filter(is_product) {
        let Some(layer) = LAYERS.iter().find(|layer| source.path.starts_with(layer.folder)) else {
            continue;
        };
        for (number, line) in source.code_lines() {
            let code = without_texts(line);
            for word in layer.never.iter().filter(|word| names(&code, word)) {
                let path = &source.path;
                findings.push(format!("{path}:{number} names `{word}`; {}", layer.because));
            }
        }
    }
    report("a source names what its layer must not know", &findings);
}

#[test]
fn third_party_crates_stand_once_in_the_workspace() {
    let mut findings = Vec::new();
    for source in all().iter().filter(|source| is_member_manifest(&source.path)) {
        for (number, line) in dependency_lines(&source.text) {
            if !line.contains("workspace = true") && !line.contains(".workspace") {
                findings.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    report("a version outside [workspace.dependencies] of Cargo.toml", &findings);
}

fn is_member_manifest(path: &str) -> bool {
    // One level down; deeper ones are packages of their own, outside the workspace.
    path.ends_with("/Cargo.toml") && path.matches('/').count() == 1
}

fn find<'a>(sources: &'a [Source], path: &str) -> &'a Source {
    let found = sources.iter().find(|source| source.path == path);
    found.unwrap_or_else(|| panic!("{path} is missing"))
}

/// Names in `[dependencies]`; what only tests and build scripts use is left out.
fn dependencies(manifest: &str) -> Vec<&str> {
    section_lines(manifest, |name| name == "dependencies")
        .into_iter()
        .filter_map(|(_, line)| line.split(['.', ' ', '=']).next())
        .collect()
}

fn dependency_lines(manifest: &str) -> Vec<(usize, &str)> {
    section_lines(manifest, |name| name.ends_with("dependencies"))
}

fn section_lines(manifest: &str, wanted: impl Fn(&str) -> bool) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (at, line) in manifest.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            inside = wanted(section.trim_end_matches(']'));
        } else if inside && !line.trim().is_empty() && !line.starts_with('#') {
            lines.push((at + 1, line));
        }
    }
    lines
}

/// The line without what stands between quotes: a log filter may name a crate.
fn without_texts(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// Whether `word` stands in `line` with no letter, digit or underscore before it or, unless the
/// word itself ends in a sign, behind it.
fn names(line: &str, word: &str) -> bool {
    let part_of_name = |found: Option<char>| found.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let behind = line[at + word.len()..].chars().next();
        let open_end = word.ends_with(':');
        !part_of_name(before) && (open_end || !part_of_name(behind))
    })
}

#[test]
fn a_word_is_found_whole_only() {
    assert!(names("use openraft::Raft;", "openraft"));
    assert!(names("let at: Instant = now;", "Instant"));
    assert!(!names("fn instant_noodles()", "instant"));
    assert!(!names("my_openraft_adapter", "openraft"));
    assert!(names("proto::etcd::PutRequest", "etcd::"));
    assert!(!names("an_etcd::thing", "etcd::"));
}
