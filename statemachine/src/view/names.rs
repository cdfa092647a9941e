//! Names that many rows share.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A text of which all rows of the views share one copy: ten thousand collections have a field
/// `RowID` and a few hundred physical channels between them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Names are ordered as their texts are.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

/// The copies that are in use.
#[derive(Debug, Default)]
pub struct Names {
    texts: BTreeSet<Arc<str>>,
    /// How many texts survived the last sweep.
    kept: usize,
}

/// Below this many texts a sweep is not worth its time.
const SWEEP_MIN: usize = 1024;

impl Names {
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(known) = self.texts.get(text) {
            return Name(Arc::clone(known));
        }
        if self.texts.len() >= SWEEP_MIN.max(self.kept.saturating_mul(2)) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.kept = self.texts.len();
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        Name(text)
    }
}

/// A copy of its own, for look-ups.
impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_share_one_copy_and_unused_ones_go() {
        let mut names = Names::default();
        let kept = names.intern("kept");
        assert!(Arc::ptr_eq(&kept.0, &names.intern("kept").0));
        for number in 0..10 * SWEEP_MIN {
            names.intern(&number.to_string());
        }
        assert!(names.texts.len() <= SWEEP_MIN + 1);
        assert!(Arc::ptr_eq(&kept.0, &names.intern("kept").0));
    }
}
