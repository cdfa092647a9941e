//! Gathers what flags, environment, file and defaults say, and keeps the first of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{ConfigError, Given, SETTINGS, Source, setting, variable};
use crate::coordinator::milvus_yaml::{SECTIONS, Value, Values};

/// How alike a wrong name must be to a right one to be offered in its place.
const LIKENESS_MIN: f64 = 0.8;

/// Every setting that has a value, by name.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    values: BTreeMap<&'static str, Given>,
    /// Keys of Milvus that stand in the file as tables.
    pub(crate) milvus: Values,
    /// What a person should know though it does not stop the start.
    pub(crate) warnings: Vec<String>,
}

impl Raw {
    pub(crate) fn get(&self, name: &str) -> Option<&Given> {
        self.values.get(name)
    }

    /// Only the first value of a setting counts.
    fn offer(&mut self, name: &'static str, given: Given) {
        self.values.entry(name).or_insert(given);
    }
}

/// A configuration file that was read.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Flags win over the environment, that over the file, that over the defaults.
///
/// # Errors
/// The file is not TOML, or holds a key that is not a setting.
pub(crate) fn load(
    flags: &BTreeMap<&'static str, String>,
    environment: impl Iterator<Item = (String, String)>,
    file: Option<&File>,
) -> Result<Raw, ConfigError> {
    let mut raw = Raw::default();
    for (name, text) in flags {
        raw.offer(name, Given { text: text.clone(), source: Source::Flag });
    }
    let mut variables: BTreeMap<String, String> =
        environment.filter(|(name, _)| name.starts_with("QUORATE_")).collect();
    for setting in SETTINGS {
        if let Some(text) = variables.remove(&variable(setting.name)) {
            raw.offer(setting.name, Given { text, source: Source::Environment });
        }
    }
    for name in variables.keys() {
        if let Some(meant) = alike(name, SETTINGS.iter().map(|s| variable(s.name))) {
            raw.warnings.push(format!("{name} is not read, did you mean {meant}?"));
        }
    }
    if let Some(file) = file {
        take_file(&mut raw, file)?;
    }
    for setting in SETTINGS {
        if let Some(text) = setting.default {
            raw.offer(setting.name, Given { text: text.to_owned(), source: Source::Default });
        }
    }
    Ok(raw)
}

impl File {
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(path: &Path) -> Result<File, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(File { path: path.to_owned(), text }),
            Err(error) => Err(ConfigError::Unreadable { path: path.to_owned(), error }),
        }
    }

    /// The line on which a key stands. TOML keeps no places of keys, but keys here are flat.
    fn line_of(&self, key: &str) -> usize {
        let starts = |line: &str| {
            let rest = line.trim_start().trim_start_matches(['"', '\'', '[']);
            rest.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(['"', '\'', ' ', '\t', '=', '.', ']']))
        };
        self.text.lines().position(starts).map_or(1, |index| index + 1)
    }
}

fn take_file(raw: &mut Raw, file: &File) -> Result<(), ConfigError> {
    let table: toml::Table = file.text.parse().map_err(|error| syntax(file, &error))?;
    for (key, value) in table {
        let line = file.line_of(&key);
        let path = file.path.clone();
        if SECTIONS.contains(&key.as_str())
            && let toml::Value::Table(section) = value
        {
            let origin = format!("{}:{line}", path.display());
            take_section(&mut raw.milvus, &key, section, &origin)?;
            continue;
        }
        let Some(setting) = setting(&key) else {
            let meant = alike(&key, SETTINGS.iter().map(|s| s.name.to_owned()))
                .and_then(|name| super::setting(&name))
                .map(|setting| setting.name);
            return Err(ConfigError::UnknownKey { path, line, key, meant });
        };
        let text = match text_of(value) {
            Ok(text) => text,
            Err(found) => return Err(ConfigError::NotAValue { path, line, key, found }),
        };
        raw.offer(setting.name, Given { text, source: Source::File { path, line } });
    }
    Ok(())
}

/// Tables of Milvus's names, such as `[dataCoord.segment]`.
fn take_section(
    values: &mut Values,
    prefix: &str,
    section: toml::Table,
    origin: &str,
) -> Result<(), ConfigError> {
    for (name, value) in section {
        let key = format!("{prefix}.{name}");
        let text = match value {
            toml::Value::Table(section) => {
                take_section(values, &key, section, origin)?;
                continue;
            }
            toml::Value::Boolean(truth) => truth.to_string(),
            toml::Value::Float(number) => number.to_string(),
            other @ (toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)) => text_of(other)
                .map_err(|found| ConfigError::Milvus(format!("{origin}: {key} is {found}")))?,
        };
        values.insert(key, Value { text, origin: origin.to_owned() });
    }
    Ok(())
}

fn syntax(file: &File, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start.min(file.text.len()));
    let before = file.text.get(..start).unwrap_or_default();
    ConfigError::Syntax {
        path: file.path.clone(),
        line: before.matches('\n').count() + 1,
        column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
        reason: error.message().replace('\n', ", "),
    }
}

/// The text that a flag would have for the value, or what it is instead.
fn text_of(value: toml::Value) -> Result<String, &'static str> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Array(items) => {
            let mut texts = Vec::new();
            for item in items {
                let toml::Value::String(text) = item else {
                    return Err("a list that holds something else than texts");
                };
                texts.push(text);
            }
            Ok(texts.join(","))
        }
        toml::Value::Float(_) => Err("a number with a fraction"),
        toml::Value::Boolean(_) => Err("true or false"),
        toml::Value::Datetime(_) => Err("a date"),
        toml::Value::Table(_) => Err("a table"),
    }
}

fn alike(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    // Without the prefix: it is the same in all variables and would make any two look alike.
    let fold =
        |name: &str| name.trim_start_matches("QUORATE_").replace('_', "-").to_ascii_lowercase();
    let folded = fold(name);
    let likeness = |candidate: &str| strsim::jaro_winkler(&folded, &fold(candidate));
    known
        .map(|candidate| (likeness(&candidate), candidate))
        .filter(|(score, _)| *score >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
