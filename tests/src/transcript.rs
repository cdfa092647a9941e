//! A session of `etcdctl` as text: commands in, commands with their answers out.
//!
//! What differs from run to run is replaced: ids by `<id1>`, `<id2>`… in the order in which they
//! appear, those of a header by their name. So the text that stock etcd gave is the text that Quorate must give.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::clients::{etcdctl, run};
use crate::fixture::Fixture;

const ONE_COMMAND: Duration = Duration::from_secs(30);

/// Runs one command a line and returns the whole transcript.
///
/// A line is what follows `etcdctl`, with single quotes around words that hold spaces, and `\n` for
/// a line break inside them. Text after `<<` is the command's input. `<id1>` in a line stands for
/// the id that an earlier answer held; `@2` at its start sends it to the second node alone.
#[must_use]
pub fn transcript(fixture: &Fixture, script: &str) -> String {
    let mut ids = Ids::default();
    let mut text = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (endpoints, command) = endpoints_of(fixture, line);
        let (command, stdin) = command.split_once("<<").unwrap_or((command, ""));
        let arguments = words(&ids.put_back(command));
        let stdin = words(stdin).join(" ");
        let said = run(etcdctl(&endpoints).args(&arguments), &stdin, ONE_COMMAND);
        let _ = writeln!(text, "$ {line}");
        for output in [said.stdout.as_str(), said.stderr.as_str()] {
            for line in ids.replace(output).lines() {
                let _ = writeln!(text, "{}", without_clock(line));
            }
        }
    }
    text
}

fn endpoints_of<'a>(fixture: &Fixture, line: &'a str) -> (String, &'a str) {
    let Some((node, rest)) = line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) else {
        return (fixture.endpoints(), line);
    };
    let number: usize = node.parse().expect("@ is followed by the number of a node");
    (fixture.cluster.endpoints()[number - 1].clone(), rest)
}

/// Splits at spaces outside of single quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in text.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.replace("\\n", "\n"));
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// The log line of a failed command begins with the time of day; the error itself stays.
fn without_clock(line: &str) -> String {
    let Some((before, rest)) = line.split_once("{\"level\":") else { return line.to_owned() };
    let message = rest.split_once("\"error\":").map_or(rest, |(_, error)| error);
    format!("{before}log: {message}")
}

/// Ids that were seen, in the order in which they appeared.
#[derive(Default)]
struct Ids {
    number_of: BTreeMap<u64, usize>,
    shown: Vec<String>,
}

impl Ids {
    fn replace(&mut self, text: &str) -> String {
        let json = text.starts_with(['{', '[']);
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            let named = ["cluster_id", "member_id", "raft_term"];
            let field = named.iter().find(|name| out.ends_with(&format!("\"{name}\":")));
            if let Some(name) = field {
                let _ = write!(out, "<{name}>");
            } else if let Some(id) = id_of(word, json) {
                let _ = write!(out, "<id{}>", self.number(id, word));
            } else {
                out.push_str(word);
            }
            rest = behind;
        }
        out.push_str(rest);
        out
    }

    fn number(&mut self, id: u64, word: &str) -> usize {
        let next = self.shown.len() + 1;
        let number = *self.number_of.entry(id).or_insert(next);
        if number == next {
            self.shown.push(word.to_owned());
        }
        number
    }

    fn put_back(&self, command: &str) -> String {
        let mut command = command.to_owned();
        for (at, word) in self.shown.iter().enumerate() {
            command = command.replace(&format!("<id{}>", at + 1), word);
        }
        command
    }
}

/// Ids are drawn from 63 or 64 bits: at least 13 hex digits in text, 15 decimal ones in JSON.
fn id_of(word: &str, json: bool) -> Option<u64> {
    if json {
        let decimal = word.len() >= 15 && word.bytes().all(|byte| byte.is_ascii_digit());
        return word.parse().ok().filter(|_| decimal);
    }
    let hex = word.len() >= 13 && word.len() <= 16;
    u64::from_str_radix(word, 16).ok().filter(|_| hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_has_one_number_in_hex_and_decimal() {
        let mut ids = Ids::default();
        assert_eq!(ids.replace("lease 694d77aa9e38260f granted\n"), "lease <id1> granted\n");
        assert_eq!(ids.replace("{\"ID\":7587852521871779343}"), "{\"ID\":<id1>}");
        assert_eq!(ids.put_back("lease revoke <id1>"), "lease revoke 694d77aa9e38260f");
        assert_eq!(
            ids.replace("{\"raft_term\":12,\"n\":12}"),
            "{\"raft_term\":<raft_term>,\"n\":12}"
        );
    }

    #[test]
    fn words_keep_what_quotes_hold() {
        assert_eq!(words("put 'a b' c"), ["put", "a b", "c"]);
        assert_eq!(words("txn"), ["txn"]);
        assert_eq!(words("'x = \"1\"\\n\\nget x'"), ["x = \"1\"\n\nget x"]);
    }
}
