//! A small language for tests: one command a line in, one answer a line out.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//! del KEY [END] [prev]
//! get KEY [END] [rev=N] [limit=N] [keys] [count] [sort=mod|create|version|value|key] [desc]
//!     [minmod=N] [maxmod=N] [mincreate=N] [maxcreate=N]
//! txn IF.. then OP.. else OP..     conditions and operations are separated by `;`
//!     IF: value|version|create|mod|lease KEY [END] =|!=|<|> X
//!     OP: put …, del …, get … as above, or txn in brackets: [ txn … ]
//! grant ID TTL / revoke ID / expire ID.. / compact REVISION
//! ```
//! A key or end `*` stands for a zero byte, so `get * *` is everything. Quotes are not known.

use std::fmt::Write;

use bytes::Bytes;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcd::request_op::Request;
use proto::quorate::command::Kind;
use proto::{etcd, quorate};

use crate::response::{Rejection, Response};
use crate::testkit::Machine;

/// Runs a script on a machine; each line of it stands above its answer.
pub fn run(machine: &mut Machine, script: &str) -> String {
    let mut told = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let answer = answer(machine, line);
        writeln!(told, "{line}\n  {answer}").expect("a string grows as needed");
    }
    told
}

fn answer(machine: &mut Machine, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words[0] == "get" {
        let plan = match machine.state.plan_range(&get(&words)) {
            Ok(plan) => plan,
            Err(rejection) => return refused(&rejection),
        };
        return range(&plan.fetch(&machine.store).expect("the store does not fail"));
    }
    match machine.run(command(&words)) {
        Ok(response) => show(&response),
        Err(rejection) => refused(&rejection),
    }
}

/// Parses one command.
pub fn command(words: &[&str]) -> Kind {
    let number = |nth: usize| words[nth].parse::<i64>().expect("a number");
    match words[0] {
        "put" => Kind::Put(put(words)),
        "del" => Kind::DeleteRange(del(words)),
        "txn" => Kind::Txn(txn(words)),
        "grant" => Kind::LeaseGrant(etcd::LeaseGrantRequest { id: number(1), ttl: number(2) }),
        "revoke" => Kind::LeaseRevoke(etcd::LeaseRevokeRequest { id: number(1) }),
        "expire" => Kind::ExpireLeases(quorate::ExpireLeases {
            ids: (1..words.len()).map(number).collect(),
        }),
        "compact" => {
            Kind::Compact(etcd::CompactionRequest { revision: number(1), physical: false })
        }
        other => panic!("script knows no {other}"),
    }
}

fn text(word: &str) -> Bytes {
    if word == "*" { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(word.as_bytes()) }
}

/// Words that are neither `name=value` nor flags.
fn plain<'a>(words: &[&'a str]) -> Vec<&'a str> {
    const FLAGS: [&str; 6] = ["prev", "keys", "count", "desc", "ignore_value", "ignore_lease"];
    let is_plain = |word: &&&str| !word.contains('=') && !FLAGS.contains(*word);
    words[1..].iter().filter(is_plain).copied().collect()
}

fn option(words: &[&str], name: &str) -> i64 {
    let value = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.map_or(0, |value| value.parse().expect("a number"))
}

fn put(words: &[&str]) -> etcd::PutRequest {
    let plain = plain(words);
    etcd::PutRequest {
        key: text(plain[0]),
        value: plain.get(1).map(|word| text(word)).unwrap_or_default(),
        lease: option(words, "lease"),
        prev_kv: words.contains(&"prev"),
        ignore_value: words.contains(&"ignore_value"),
        ignore_lease: words.contains(&"ignore_lease"),
    }
}

fn del(words: &[&str]) -> etcd::DeleteRangeRequest {
    let plain = plain(words);
    etcd::DeleteRangeRequest {
        key: text(plain[0]),
        range_end: plain.get(1).map(|word| text(word)).unwrap_or_default(),
        prev_kv: words.contains(&"prev"),
    }
}

fn get(words: &[&str]) -> etcd::RangeRequest {
    use etcd::range_request::{SortOrder, SortTarget};
    let plain = plain(words);
    let sort = words.iter().find_map(|word| word.strip_prefix("sort="));
    let target = match sort {
        None | Some("key") => SortTarget::Key,
        Some("version") => SortTarget::Version,
        Some("create") => SortTarget::Create,
        Some("mod") => SortTarget::Mod,
        Some("value") => SortTarget::Value,
        Some(other) => panic!("script cannot sort by {other}"),
    };
    let order = match (words.contains(&"desc"), sort) {
        (true, _) => SortOrder::Descend,
        (false, Some(_)) => SortOrder::Ascend,
        (false, None) => SortOrder::None,
    };
    etcd::RangeRequest {
        key: text(plain[0]),
        range_end: plain.get(1).map(|word| text(word)).unwrap_or_default(),
        limit: option(words, "limit"),
        revision: option(words, "rev"),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: false,
        keys_only: words.contains(&"keys"),
        count_only: words.contains(&"count"),
        min_mod_revision: option(words, "minmod"),
        max_mod_revision: option(words, "maxmod"),
        min_create_revision: option(words, "mincreate"),
        max_create_revision: option(words, "maxcreate"),
    }
}

fn txn(words: &[&str]) -> etcd::TxnRequest {
    let mut request = etcd::TxnRequest::default();
    // Splits by `;` and the branch words, but not inside brackets.
    let (mut part, mut depth, mut piece) = (0, 0, Vec::new());
    for word in words[1..].iter().chain(&[";"]) {
        match (*word, depth) {
            ("then" | "else" | ";", 0) => {
                if !piece.is_empty() {
                    add_piece(&mut request, part, &std::mem::take(&mut piece));
                }
                part = match *word {
                    "then" => 1,
                    "else" => 2,
                    _ => part,
                };
            }
            ("[", _) => {
                depth += 1;
                piece.push(*word);
            }
            ("]", _) => {
                depth -= 1;
                piece.push(*word);
            }
            _ => piece.push(*word),
        }
    }
    request
}

fn add_piece(request: &mut etcd::TxnRequest, part: usize, words: &[&str]) {
    if part == 0 {
        request.compare.push(compare(words));
        return;
    }
    let op = match words[0] {
        "put" => Request::RequestPut(put(words)),
        "del" => Request::RequestDeleteRange(del(words)),
        "get" => Request::RequestRange(get(words)),
        "[" => Request::RequestTxn(txn(&words[1..words.len() - 1])),
        other => panic!("script knows no operation {other}"),
    };
    let branch = if part == 1 { &mut request.success } else { &mut request.failure };
    branch.push(etcd::RequestOp { request: Some(op) });
}

fn compare(words: &[&str]) -> etcd::Compare {
    let (end, sign, wanted) = match words {
        [_, _, sign, wanted] => ("", *sign, *wanted),
        [_, _, end, sign, wanted] => (*end, *sign, *wanted),
        other => panic!("script cannot read the comparison {other:?}"),
    };
    let number = || wanted.parse::<i64>().expect("a number");
    let (target, union) = match words[0] {
        "value" => (CompareTarget::Value, TargetUnion::Value(text(wanted))),
        "version" => (CompareTarget::Version, TargetUnion::Version(number())),
        "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number())),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number())),
        other => panic!("script cannot compare {other}"),
    };
    let result = match sign {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        other => panic!("script knows no {other}"),
    };
    etcd::Compare {
        result: result.into(),
        target: target.into(),
        key: text(words[1]),
        target_union: Some(union),
        range_end: text(end),
    }
}

fn refused(rejection: &Rejection) -> String {
    format!("refused: {rejection}")
}

fn show(response: &Response) -> String {
    match response {
        Response::Put(response) => put_text(response),
        Response::DeleteRange(response) => del_text(response),
        Response::Txn(response) => txn_text(response),
        Response::LeaseGrant(response) => {
            format!("{} lease {} for {} s", at(&response.header), response.id, response.ttl)
        }
        Response::LeaseRevoke(response) => format!("{} revoked", at(&response.header)),
        Response::Compact(response) => format!("{} compacted", at(&response.header)),
        Response::LeasesExpired { ids, revision } => format!("r{revision} expired {ids:?}"),
        Response::Alarm(_)
        | Response::OriginRegistered { .. }
        | Response::SettingsChanged(_)
        | Response::LevelRaised { .. }
        | Response::DigestChecked { .. }
        | Response::TimeSet { .. }
        | Response::Coordinator(_)
        | Response::Deferred(_) => format!("{response:?}"),
    }
}

fn at(header: &Option<etcd::ResponseHeader>) -> String {
    header.as_ref().map_or("no header".to_owned(), |header| format!("r{}", header.revision))
}

fn pair(kv: &etcd::KeyValue) -> String {
    let (key, value) = (kv.key.escape_ascii(), kv.value.escape_ascii());
    let lease = if kv.lease == 0 { String::new() } else { format!(" l{}", kv.lease) };
    let (create, modified, version) = (kv.create_revision, kv.mod_revision, kv.version);
    format!("{key}={value} (c{create} m{modified} v{version}{lease})")
}

fn put_text(response: &etcd::PutResponse) -> String {
    let before = response.prev_kv.as_ref().map(|kv| format!(" before: {}", pair(kv)));
    format!("{}{}", at(&response.header), before.unwrap_or_default())
}

fn del_text(response: &etcd::DeleteRangeResponse) -> String {
    let before: String = response.prev_kvs.iter().map(|kv| format!(" {}", pair(kv))).collect();
    format!("{} deleted {}{before}", at(&response.header), response.deleted)
}

fn range(response: &etcd::RangeResponse) -> String {
    let pairs: String = response.kvs.iter().map(|kv| format!(" {}", pair(kv))).collect();
    let more = if response.more { " more" } else { "" };
    format!("{} count {}{more}{pairs}", at(&response.header), response.count)
}

fn txn_text(response: &etcd::TxnResponse) -> String {
    use etcd::response_op::Response;
    let ops = response.responses.iter().map(|op| match &op.response {
        Some(Response::ResponseRange(response)) => range(response),
        Some(Response::ResponsePut(response)) => put_text(response),
        Some(Response::ResponseDeleteRange(response)) => del_text(response),
        Some(Response::ResponseTxn(response)) => format!("[{}]", txn_text(response)),
        None => "nothing".to_owned(),
    });
    let branch = if response.succeeded { "then" } else { "else" };
    let ops: Vec<String> = ops.collect();
    format!("{} {branch}: {}", at(&response.header), ops.join("; "))
}
