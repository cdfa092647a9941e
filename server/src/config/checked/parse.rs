//! From the text of one setting to its type. Every refusal says what would be right.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::LogFormat;

const NAME_CHARS_MAX: usize = 64;
const MEMBERS_MAX: usize = 9;

const UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

pub(super) fn member_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_CHARS_MAX || !text.chars().all(allowed) {
        return Err(format!(
            "a name has 1 to {NAME_CHARS_MAX} letters, digits, `-`, `_` or `.`, and no others"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("empty; give a directory".to_owned());
    }
    let path = PathBuf::from(text);
    if path.exists() && !path.is_dir() {
        return Err("exists and is not a directory; give another one".to_owned());
    }
    Ok(path)
}

pub(super) fn existing_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_file() { Ok(path) } else { Err("no such file; give the path of one".to_owned()) }
}

/// The only part of Milvus that a node can take over so far.
pub(super) fn role(text: &str) -> Result<(), String> {
    match text {
        "datacoord" => Ok(()),
        _ => Err("the only role is datacoord; leave it out for none".to_owned()),
    }
}

/// HOST:PORT that others can connect to.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    let (host, port) = split(text)?;
    if matches!(host, "0.0.0.0" | "[::]") {
        return Err("stands for every address of a machine, and nobody can connect to that; give \
                    the address that others use"
            .to_owned());
    }
    if port == 0 {
        return Err("port 0 is none that others can connect to; give 1 to 65535".to_owned());
    }
    Ok(text.to_owned())
}

/// HOST:PORT to listen on; `0.0.0.0` and `[::]` are allowed.
pub(super) fn listen_address(text: &str) -> Result<String, String> {
    let (_, port) = split(text)?;
    if port == 0 {
        return Err("port 0 would be another one at each start; give 1 to 65535".to_owned());
    }
    Ok(text.to_owned())
}

fn split(text: &str) -> Result<(&str, u16), String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("give HOST:PORT without `{scheme}://`, for example {rest}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("the port is missing; give HOST:PORT, for example {text}:2379"));
    };
    if host.is_empty() {
        return Err(format!("the host is missing; give HOST:PORT, for example 127.0.0.1:{port}"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("an IPv6 address stands in brackets; give [{host}]:{port}"));
    }
    if host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | ',' | '=' | '@')) {
        return Err(format!("`{host}` is not a host name; give HOST:PORT"));
    }
    match port.parse() {
        Ok(port) => Ok((host, port)),
        Err(_) => Err(format!("`{port}` is not a port; give 1 to 65535")),
    }
}

/// `n1=HOST:PORT,n2=HOST:PORT`, sorted by name.
pub(crate) fn cluster(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut members: Vec<(String, String)> = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let Some((name, address)) = entry.split_once('=') else {
            return Err(format!("`{entry}` lacks a name; write NAME=HOST:PORT for each member"));
        };
        let name = member_name(name).map_err(|reason| format!("`{name}`: {reason}"))?;
        let address = host_port(address).map_err(|reason| format!("{name}: {reason}"))?;
        if members.iter().any(|(known, _)| *known == name) {
            return Err(format!("`{name}` stands there twice; each member has its own name"));
        }
        if let Some((other, _)) = members.iter().find(|(_, known)| *known == address) {
            return Err(format!("{other} and {name} have the same address {address}"));
        }
        members.push((name, address));
    }
    if members.is_empty() {
        return Err("no member; write NAME=HOST:PORT for each, separated by commas".to_owned());
    }
    if members.len() > MEMBERS_MAX {
        return Err(format!(
            "{} members, at most {MEMBERS_MAX}; three or five vote best",
            members.len()
        ));
    }
    members.sort();
    Ok(members)
}

/// `500ms`, `2s`, `1m 30s` within bounds.
pub(super) fn time_span(bounds: (Duration, Duration)) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let value = parse_time(text)?;
        if value < bounds.0 || value > bounds.1 {
            return Err(format!(
                "out of bounds; from {} to {}",
                humantime::format_duration(bounds.0),
                humantime::format_duration(bounds.1)
            ));
        }
        Ok(value)
    }
}

/// `500ms` and the like, without bounds.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_misread| {
        "not a time; write a number with ms, s, m or h, for example 500ms".to_owned()
    })
}

/// `512KiB`, `1MiB`, `1000` (bytes) within bounds.
pub(super) fn size_bytes(bounds: (u64, u64)) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let value = parse_size(text)?;
        if value < bounds.0 || value > bounds.1 {
            return Err(format!(
                "out of bounds; from {} to {}",
                show_size(bounds.0),
                show_size(bounds.1)
            ));
        }
        Ok(value)
    }
}

/// Bytes of `64MiB` and the like, without bounds.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let names: Vec<&str> = UNITS.iter().map(|(name, _)| *name).collect();
    let wrong = || format!("not a size; write a whole number with one of {}", names.join(", "));
    let number: u64 = number.parse().map_err(|_too_large| wrong())?;
    let unit = unit.trim();
    let factor = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(|| "more bytes than can be counted".to_owned())
}

/// The largest binary unit that divides it, or the nearest with one decimal.
pub(crate) fn show_size(bytes: u64) -> String {
    let unit = UNITS[..5].iter().rev().find(|(_, factor)| bytes >= *factor).unwrap_or(&UNITS[0]);
    let (name, factor) = *unit;
    let tenths = u128::from(bytes) * 10 / u128::from(factor);
    match (factor, tenths % 10) {
        (1, _) | (_, 0) => format!("{} {name}", tenths / 10),
        (_, decimal) => format!("{}.{decimal} {name}", tenths / 10),
    }
}

pub(super) fn count(bounds: (u64, u64)) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match text.parse::<u64>() {
        Ok(value) if value >= bounds.0 && value <= bounds.1 => Ok(value),
        Ok(_) => Err(format!("out of bounds; from {} to {}", bounds.0, bounds.1)),
        Err(_) => Err(format!("not a whole number; from {} to {}", bounds.0, bounds.1)),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("neither `text` nor `json`".to_owned()),
    }
}

/// `info` or `info,raft=debug`. Stricter than the filter's own parser, which takes a misspelt level
/// for the name of a module.
pub(super) fn log_level(text: &str) -> Result<Targets, String> {
    const WRONG: &str =
        "not a level (error, warn, info, debug, trace) and not a list such as info,raft=debug";
    let mut targets = Targets::new();
    for part in text.split(',').map(str::trim) {
        let (module, level) = match part.split_once('=') {
            Some((module, level)) if !module.is_empty() => (Some(module), level),
            Some(_) => return Err(WRONG.to_owned()),
            None => (None, part),
        };
        let level: LevelFilter = level.parse().map_err(|_misspelt| WRONG.to_owned())?;
        targets = match module {
            Some(module) => targets.with_target(module, level),
            None => targets.with_default(level),
        };
    }
    Ok(targets)
}
