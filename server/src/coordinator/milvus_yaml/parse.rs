//! From YAML to flat keys. Values stay text: a secret such as `0123` is no number.

use saphyr_parser::{Event, Parser};

use super::{Value, Values};

/// Mappings and lists inside each other; Milvus's own file has five.
const LEVELS_MAX: usize = 32;

/// Reads a YAML document; `file` names it in messages.
///
/// # Errors
/// It is not YAML, no mapping, or has more than [`LEVELS_MAX`] levels.
pub(crate) fn parse(file: &str, text: &str) -> Result<Values, String> {
    let mut values = Values::new();
    let mut path: Vec<Level> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| format!("{file}:{}: {}", error.marker().line(), error.info()))?;
        let origin = || format!("{file}:{}", span.start.line());
        if path.len() > LEVELS_MAX {
            return Err(format!("{}: at most {LEVELS_MAX} levels are expected", origin()));
        }
        match event {
            Event::Scalar(text, ..) => match path.last_mut() {
                Some(Level::Mapping { key: Some(_) }) => {
                    let key = key_of(&path);
                    let text = if text == "~" || text == "null" {
                        String::new()
                    } else {
                        text.into_owned()
                    };
                    values.insert(key, Value { text, origin: origin() });
                    value_ended(&mut path);
                }
                Some(Level::Mapping { key }) => *key = Some(text.into_owned()),
                Some(Level::Sequence) => {}
                None => return Err(format!("{}: a mapping of keys is expected", origin())),
            },
            Event::MappingStart(..) => path.push(Level::Mapping { key: None }),
            Event::SequenceStart(..) => path.push(Level::Sequence),
            Event::MappingEnd | Event::SequenceEnd => {
                path.pop();
                value_ended(&mut path);
            }
            Event::Alias(_) => return Err(format!("{}: aliases are not read", origin())),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
    Ok(values)
}

enum Level {
    /// `key` is there while its value is awaited.
    Mapping { key: Option<String> },
    /// No key that we take is a list.
    Sequence,
}

fn value_ended(path: &mut [Level]) {
    if let Some(Level::Mapping { key }) = path.last_mut() {
        *key = None;
    }
}

fn key_of(path: &[Level]) -> String {
    let names: Vec<&str> = path
        .iter()
        .filter_map(|level| match level {
            Level::Mapping { key } => key.as_deref(),
            Level::Sequence => None,
        })
        .collect();
    names.join(".")
}
