//! Every crate has an OVERVIEW.md, and every *Invariant* line in one names what guards it.
//!
//! A line reads `Invariant: what always holds. Guard: test NAME.` It may run on over several lines
//! up to an empty one. A guard is a `test` (a function of that name), a `type` (struct, enum or
//! trait), a `lint` (named in a manifest, a clippy.toml or a crate attribute); several are
//! separated by commas. The name may stand in backquotes.

use crate::sources::{Source, all, report};

const CRATES: [&str; 4] = ["statemachine", "raft", "server", "chaos"];

#[test]
fn every_invariant_names_a_guard_that_exists() {
    let sources = all();
    let mut findings = Vec::new();
    for overview in sources.iter().filter(|source| source.path.ends_with("OVERVIEW.md")) {
        for invariant in invariants(&overview.text) {
            let guards = guards(&invariant);
            if guards.is_empty() {
                findings.push(format!("{}: no guard: {invariant}", overview.path));
            }
            for (kind, name) in guards {
                if !exists(&sources, &kind, &name) {
                    findings.push(format!("{}: no {kind} `{name}`", overview.path));
                }
            }
        }
    }
    report("an invariant without a guard is a wish", &findings);
}

#[test]
fn crates_that_hold_code_have_an_overview() {
    let sources = all();
    let has = |path: &str| sources.iter().any(|source| source.path == path);
    let findings: Vec<String> = CRATES
        .iter()
        .filter(|krate| lines_of_code(&sources, krate) > 500)
        .map(|krate| format!("{krate}/OVERVIEW.md"))
        .filter(|path| !has(path))
        .collect();
    report("missing: says what the crate holds, and what is absent on purpose", &findings);
}

fn lines_of_code(sources: &[Source], krate: &str) -> usize {
    let folder = format!("{krate}/src/");
    let inside = sources.iter().filter(|source| source.path.starts_with(&folder));
    inside.map(|source| source.text.lines().count()).sum()
}

/// The paragraphs that begin with the word, each on one line.
fn invariants(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let bare = line.trim_start_matches(['-', '*', '_', ' ', '>']);
        if bare.starts_with("Invariant") {
            found.push(bare.to_owned());
            inside = true;
        } else if line.trim().is_empty() || line.trim_start().starts_with("- ") {
            inside = false;
        } else if inside {
            let last = found.last_mut().expect("one was begun");
            last.push(' ');
            last.push_str(line.trim());
        }
    }
    found
}

/// Kind and name of each guard that a paragraph names.
fn guards(invariant: &str) -> Vec<(String, String)> {
    let Some((_, named)) = invariant.split_once("Guard: ") else { return Vec::new() };
    let mut kind = String::new();
    let mut guards = Vec::new();
    for word in named.split([' ', ',']).filter(|word| !word.is_empty()) {
        let bare = word.trim_matches(['`', '.', ';', '(', ')', '*']);
        match bare {
            "test" | "type" | "lint" => bare.clone_into(&mut kind),
            "tests" | "types" | "lints" => bare.trim_end_matches('s').clone_into(&mut kind),
            "" | "and" => {}
            name if kind.is_empty() => {
                guards.push(("test, type or lint before".into(), name.into()));
            }
            name => guards.push((kind.clone(), name.rsplit("::").next().expect("split").into())),
        }
    }
    guards
}

fn exists(sources: &[Source], kind: &str, name: &str) -> bool {
    let anywhere = |path_ends: &[&str], needles: &[String]| {
        sources.iter().filter(|source| path_ends.iter().any(|end| source.path.ends_with(end))).any(
            |source| {
                needles.iter().any(|needle| {
                    source.text.match_indices(needle).any(|(at, _)| {
                        let behind = source.text[at + needle.len()..].chars().next();
                        !behind.is_some_and(|c| c.is_alphanumeric() || c == '_')
                    })
                })
            },
        )
    };
    match kind {
        "test" => anywhere(&[".rs", ".py"], &[format!("fn {name}"), format!("def {name}")]),
        "type" => {
            let declared = ["struct", "enum", "trait", "type"].map(|word| format!("{word} {name}"));
            anywhere(&[".rs"], &declared)
        }
        "lint" => anywhere(&["Cargo.toml", "clippy.toml", "/lib.rs"], &[name.to_owned()]),
        _ => false,
    }
}

#[test]
fn guards_are_read_from_a_paragraph() {
    let text =
        "- Invariant: rows are whole.\n  Guard: test `laws::rows_are_whole`, type Row.\n\nno";
    let found = invariants(text);
    assert_eq!(found.len(), 1);
    assert_eq!(
        guards(&found[0]),
        [("test".into(), "rows_are_whole".into()), ("type".into(), "Row".into())]
    );
}
