//! Whether a server was built with the debug assertions of its consensus engine.
//!
//! A configuration that openraft was compiled with cannot be asked for: it is not part of any
//! interface. But an assertion that is compiled in has its text in the binary, and one that is not
//! has none. So the binary itself is read.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Texts of debug assertions of openraft, each in another of its modules.
const TEXTS: [&str; 3] = [
    "read log ID must belong to the producing leadership",
    "the same log id implies the same membership",
    "must be >= current accepted.committed_vote: ",
];

/// Refuses a server without them.
///
/// # Errors
/// The binary cannot be read, or lacks the assertions.
pub fn require(binary: &Path) -> Result<()> {
    let bytes = std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let missing: Vec<&str> = TEXTS.into_iter().filter(|text| !holds(&bytes, text)).collect();
    ensure!(
        missing.is_empty(),
        "{} was built without the debug assertions of openraft ({missing:?} are not in it): \
         `make build-asserting` builds one with them",
        binary.display()
    );
    Ok(())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let first = text.as_bytes()[0];
    let mut left = bytes;
    while let Some(at) = left.iter().position(|byte| *byte == first) {
        if left[at..].starts_with(text.as_bytes()) {
            return true;
        }
        left = &left[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{TEXTS, require};

    #[test]
    fn a_binary_without_one_of_the_assertions_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("quorate");
        std::fs::write(&binary, TEXTS.join("\0")).unwrap();
        require(&binary).unwrap();
        std::fs::write(&binary, TEXTS[1..].join("\0")).unwrap();
        let error = require(&binary).unwrap_err().to_string();
        assert!(error.contains(TEXTS[0]), "{error}");
    }
}
