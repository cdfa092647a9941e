//! Names, lengths and words that no file may have.

use crate::sources::{all, report};

/// A file that grew past this has more than one purpose. Reported from `LINES_READ_WELL` on.
const LINES_MAX: usize = 800;
const LINES_READ_WELL: usize = 400;

#[test]
fn modules_are_files_with_a_name_that_says_what_they_hold() {
    let vague = ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "manager.rs"];
    let findings: Vec<String> = all()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| vague.contains(&path.rsplit('/').next().expect("never empty")))
        .collect();
    report("foo.rs + foo/, never mod.rs; a name that says what is inside", &findings);
}

#[test]
fn files_stay_short_enough_to_have_one_purpose() {
    let mut long: Vec<(usize, String)> = all()
        .into_iter()
        .filter(|source| source.is_rust())
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > LINES_READ_WELL)
        .collect();
    long.sort();
    for (lines, path) in long.iter().rev() {
        println!("{lines:6} lines  {path}");
    }
    let findings: Vec<String> = long
        .into_iter()
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path} has {lines} lines"))
        .collect();
    report(&format!("more than {LINES_MAX} lines: split it by purpose"), &findings);
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    // Put together here, so that this file does not find itself.
    let places = [
        concat!("/wor", "k/"),
        concat!("/far", "m/"),
        concat!("/ro", "ot/"),
        concat!("/home", "/"),
        concat!("/tmp", "/mv"),
    ];
    let mut findings = Vec::new();
    for source in all().iter().filter(|source| !source.path.ends_with(".lock")) {
        for (at, line) in source.text.lines().enumerate() {
            for place in places.iter().filter(|place| stands_alone(line, place)) {
                findings.push(format!("{}:{} names {place}", source.path, at + 1));
            }
        }
    }
    report("a path that exists on one machine only", &findings);
}

#[test]
fn no_test_is_switched_off() {
    let ignored = concat!("#[ig", "nore");
    let mut findings = Vec::new();
    for source in all().iter().filter(|source| source.is_rust()) {
        for (number, line) in source.code_lines() {
            if line.trim_start().starts_with(ignored) {
                findings.push(format!("{}:{number}", source.path));
            }
        }
    }
    report("a test that does not run proves nothing: mend it or delete it", &findings);
}

#[test]
fn readme_and_docs_name_only_make_targets_that_exist() {
    let sources = all();
    let Some(makefile) = sources.iter().find(|source| source.path == "Makefile") else {
        panic!("there is no Makefile");
    };
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        for target in make_targets(&source.text) {
            if !defines(&makefile.text, &target) {
                findings.push(format!("{}: make {target}", source.path));
            }
        }
    }
    report("no such target in the Makefile", &findings);
}

#[test]
fn every_setting_is_documented() {
    let sources = all();
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    let (Some(config), Some(page)) = (find("server/src/config.rs"), find("docs/configuration.md"))
    else {
        panic!("server/src/config.rs or docs/configuration.md is missing");
    };
    // Lines of the table of settings: `HEADING: "name" "VALUE" default,`.
    let names = config.text.lines().filter_map(|line| {
        let (heading, rest) = line.trim().split_once(": \"")?;
        let is_heading = heading.chars().all(|c| c.is_ascii_uppercase());
        rest.split('"').next().filter(|_| is_heading && !heading.is_empty())
    });
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 10, "the table of settings was not found: {names:?}");
    let missing = names.iter().filter(|name| !page.text.contains(&format!("| `{name}` |")));
    let findings: Vec<String> = missing.map(|name| format!("--{name}")).collect();
    report("docs/configuration.md says nothing of a setting", &findings);
}

/// `make NAME` as it stands between backquotes or at the start of a line of a code block.
fn make_targets(text: &str) -> Vec<String> {
    let commands = text.lines().filter_map(|line| line.trim().strip_prefix("make "));
    let quoted = text.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("make "));
    commands
        .chain(quoted)
        .filter_map(|rest| rest.split_whitespace().next())
        .map(|target| target.trim_end_matches(['.', ',', ';', ':', '`', ')']).to_owned())
        .filter(|target| target.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
        .collect()
}

fn defines(makefile: &str, target: &str) -> bool {
    let numbered = |prefix: &str| {
        target
            .strip_prefix(prefix)
            .is_some_and(|n| n.chars().all(|c| c.is_ascii_digit() || c == '-'))
            && makefile.contains(&format!("{prefix}%"))
    };
    numbered("accept-")
        || makefile.lines().any(|line| {
            line.split_once(':').is_some_and(|(names, _)| {
                !line.starts_with('\t') && names.split_whitespace().any(|name| name == target)
            })
        })
}

/// Whether an absolute path begins at a match, not the middle of a longer one.
fn stands_alone(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '$' | '*'))
    })
}

#[test]
fn a_place_is_an_absolute_path() {
    let place = concat!("/wor", "k/");
    assert!(stands_alone(&format!("cd {place}main"), place));
    assert!(stands_alone(&format!("\"{place}main\""), place));
    assert!(!stands_alone(&format!("the.cluster{place}flow"), place));
}
