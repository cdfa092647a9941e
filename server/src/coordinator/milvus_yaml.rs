//! What an operator's milvus.yaml says that concerns us: the keys of its DataCoord, and those that
//! all of Milvus shares. The same names stand in our own configuration file as tables.
//!
//! Addresses and ports of `dataCoord` are not ours: they belong to the DataCoord that stands by in
//! a Milvus process, perhaps on this very machine.

mod keys;
mod parse;
mod remote;

use std::collections::BTreeMap;
use std::fmt;

use super::settings::CoordinatorSettings;
use keys::{Draft, FALLBACKS, HIDDEN, KEYS, Key, NOTED};

pub(crate) use parse::parse;

/// Top-level keys of milvus.yaml that our own configuration file may have as tables.
pub(crate) const SECTIONS: [&str; 9] = [
    "dataCoord",
    "indexCoord",
    "dataNode",
    "rootCoord",
    "common",
    "msgChannel",
    "minio",
    "localStorage",
    "etcd",
];

/// Sections that belong to DataCoord alone: what we do not know in them is worth a line.
const OWN_SECTIONS: [&str; 2] = ["dataCoord", "indexCoord"];

/// A value as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) text: String,
    /// FILE:LINE.
    pub(crate) origin: String,
}

/// Values by key, such as `dataCoord.segment.maxSize`.
pub(crate) type Values = BTreeMap<String, Value>;

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Taken,
    /// It has no meaning here.
    Left(&'static str),
    /// It has none either, and somebody should look at it.
    Warned(&'static str),
}

impl fmt::Display for Fate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Taken => out.write_str("taken"),
            Fate::Left(reason) => write!(out, "no meaning here: {reason}"),
            Fate::Warned(reason) => write!(out, "LOOK: {reason}"),
        }
    }
}

/// The settings that the values give, and what became of each key that concerns us.
///
/// # Errors
/// A value that cannot be what its key says.
pub(crate) fn settings(values: &Values) -> Result<(CoordinatorSettings, Vec<Line>), String> {
    let mut draft = Draft::default();
    if !values.is_empty() {
        // Milvus's own default; ours is for whoever gives no configuration of Milvus at all.
        draft.remote = true;
    }
    let mut report = Vec::new();
    for (key, value) in values {
        let fate = match known(key) {
            Some(Known::ByFallback(known)) if is_given(values, known.name) => {
                Fate::Left("the key of msgChannel wins")
            }
            Some(Known::ByName(known) | Known::ByFallback(known)) => {
                take(&mut draft, known, key, value)?;
                Fate::Taken
            }
            None => match left(key, &value.text) {
                Some(fate) => fate,
                None => continue,
            },
        };
        let secret = key.to_ascii_lowercase().contains("secret");
        let shown = if secret { HIDDEN.to_owned() } else { value.text.clone() };
        report.push(Line { key: key.clone(), value: shown, fate });
    }
    Ok((draft.finish()?, report))
}

enum Known {
    ByName(&'static Key),
    /// An older name of the key.
    ByFallback(&'static Key),
}

fn known(key: &str) -> Option<Known> {
    let by_name = |name: &str| KEYS.iter().find(|known| known.name.eq_ignore_ascii_case(name));
    if let Some(known) = by_name(key) {
        return Some(Known::ByName(known));
    }
    let (_, name) = FALLBACKS.iter().find(|(older, _)| older.eq_ignore_ascii_case(key))?;
    by_name(name).map(Known::ByFallback)
}

fn is_given(values: &Values, name: &str) -> bool {
    let is_given =
        |(key, value): (&String, &Value)| key.eq_ignore_ascii_case(name) && !value.text.is_empty();
    values.iter().any(is_given)
}

/// An empty value counts as none, but for the few keys of which Milvus takes it as it is.
fn take(draft: &mut Draft, known: &Key, key: &str, value: &Value) -> Result<(), String> {
    if value.text.is_empty() && !known.may_be_empty() {
        return Ok(());
    }
    (known.take)(draft, &value.text)
        .map_err(|expected| format!("{}: {key} = `{}`: {expected}", value.origin, value.text))
}

/// Why a key that we do not take is worth a line; `None` for those of other components.
fn left(key: &str, text: &str) -> Option<Fate> {
    let noted = NOTED.iter().find(|noted| noted.name.eq_ignore_ascii_case(key));
    if let Some(noted) = noted {
        return Some((noted.fate)(text));
    }
    let section = key.split('.').next().unwrap_or_default();
    let own = OWN_SECTIONS.iter().any(|own| own.eq_ignore_ascii_case(section));
    own.then_some(Fate::Left("not a key of DataCoord that decides anything here"))
}

#[cfg(test)]
mod tests;
