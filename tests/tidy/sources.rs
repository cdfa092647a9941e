//! Reads the files of the repository, the same list for every rule.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One file that git tracks, or would track with the next `git add`.
pub(crate) struct Source {
    /// Relative to the top of the repository, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines with their number, without what a `//` comment holds.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, without_comment(line)))
    }
}

pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the top").into()
}

/// Every text file of the repository.
pub(crate) fn all() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .expect("git is installed");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let mut sources: Vec<Source> = listed
        .split_terminator('\0')
        .filter_map(|path| {
            // Deleted but not yet committed, or not text: nothing to read.
            let text = std::fs::read_to_string(top().join(path)).ok()?;
            Some(Source { path: path.to_owned(), text })
        })
        .collect();
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources.dedup_by(|one, other| one.path == other.path);
    assert!(sources.len() > 10, "git listed hardly anything");
    sources
}

/// Fails with every finding at once, so that one run is enough to mend them.
pub(crate) fn report(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

fn without_comment(line: &str) -> &str {
    // A `//` inside a string is nearly always an address; what follows it there is no code either.
    line.find("//").map_or(line, |at| &line[..at])
}
