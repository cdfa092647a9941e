//! Every command: accepted, refused for each reason, repeated. Data in, text out.

use expect_test::{Expect, expect};
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcd::request_op::Request;
use proto::quorate::command::Kind;
use proto::{etcd, quorate};
use statemachine::testkit::Machine;
use statemachine::{LogEntry, Outcome, Response};

/// Runs a script line by line and compares what each line answers.
///
/// ```text
/// put KEY VALUE [lease=N] [prev] [keep-value] [keep-lease]
/// del KEY [END] [prev]            END `*` is everything from KEY on
/// get KEY [END] [rev=N] [limit=N] [by=TARGET] [desc] [keys] [count]
/// txn COMPARE, … ? OP, … : OP, …   COMPARE is TARGET KEY = VALUE; nested: { … } in an OP
/// compact N | grant ID TTL | revoke ID | expire ID … | digest | level N
/// set root=… quota=… ops=… | alarm raise|clear|show nospace|corrupt|none
/// fenced TERM NODE LINE           any of the above under a fence
/// again                           the last entry once more, under the same request ids
/// ```
fn check(script: &str, expected: Expect) {
    let mut session = Session { machine: Machine::new(), last: None };
    let mut text = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        text += &format!("{line}\n    {}\n", session.line(line));
    }
    expected.assert_eq(&text);
}

struct Session {
    machine: Machine,
    last: Option<LogEntry>,
}

impl Session {
    fn line(&mut self, line: &str) -> String {
        if line.starts_with("get ") {
            let request = range(&line.split_whitespace().collect::<Vec<_>>());
            return match self.machine.state.plan_range(&request) {
                Ok(plan) => show_range(&plan.fetch(&self.machine.store).unwrap()),
                Err(rejection) => format!("refused: {rejection}"),
            };
        }
        let entry = if line == "again" {
            let mut entry = self.last.clone().expect("there was an entry");
            entry.meta.index = self.machine.index;
            self.machine.index += 1;
            entry
        } else {
            let command = command(line);
            self.machine.entry_of(vec![command])
        };
        self.last = Some(entry.clone());
        let before = self.machine.state.revision();
        let applied = self.machine.apply(&[entry]).unwrap();
        let changed = self.machine.state.revision() - before;
        let (_, outcome) = applied.outcomes.into_iter().next().unwrap();
        format!("{} (+{changed} revision, {} events)", show(&outcome), applied.events.len())
    }
}

fn command(line: &str) -> quorate::Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words[0] == "fenced" {
        let fence =
            quorate::Fence { term: words[1].parse().unwrap(), node: words[2].parse().unwrap() };
        return quorate::Command { fence: Some(fence), ..command(&words[3..].join(" ")) };
    }
    quorate::Command { fence: None, kind: Some(kind(line, &words)) }
}

fn kind(line: &str, words: &[&str]) -> Kind {
    let number = |nth: usize| words[nth].parse().unwrap();
    match words[0] {
        "put" => Kind::Put(put(words)),
        "del" => Kind::DeleteRange(delete(words)),
        "txn" => Kind::Txn(txn(line.strip_prefix("txn").unwrap())),
        "compact" => {
            Kind::Compact(etcd::CompactionRequest { revision: number(1), physical: false })
        }
        "grant" => Kind::LeaseGrant(etcd::LeaseGrantRequest { id: number(1), ttl: number(2) }),
        "revoke" => Kind::LeaseRevoke(etcd::LeaseRevokeRequest { id: number(1) }),
        "expire" => {
            let ids = words[1..].iter().map(|id| id.parse().unwrap()).collect();
            Kind::ExpireLeases(quorate::ExpireLeases { ids })
        }
        "digest" => Kind::CheckDigest(quorate::CheckDigest {}),
        "level" => Kind::RaiseLevel(quorate::RaiseLevel { level: words[1].parse().unwrap() }),
        "set" => Kind::ChangeSettings(quorate::ChangeSettings {
            root_path: option(words, "root").map(str::to_owned),
            quota_bytes: option(words, "quota").map(|text| text.parse().unwrap()),
            txn_ops_max: option(words, "ops").map(|text| text.parse().unwrap()),
            ..Default::default()
        }),
        "alarm" => {
            let action = match words[1] {
                "raise" => etcd::alarm_request::AlarmAction::Activate,
                "clear" => etcd::alarm_request::AlarmAction::Deactivate,
                _ => etcd::alarm_request::AlarmAction::Get,
            };
            let alarm = match words[2] {
                "nospace" => etcd::AlarmType::Nospace,
                "corrupt" => etcd::AlarmType::Corrupt,
                _ => etcd::AlarmType::None,
            };
            let (action, alarm) = (action.into(), alarm.into());
            Kind::Alarm(etcd::AlarmRequest { action, member_id: 1, alarm })
        }
        other => panic!("unknown command {other}"),
    }
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Words of an operation that are no options.
fn plain<'a>(words: &[&'a str], nth: usize) -> Option<&'a str> {
    let flags = ["prev", "keep-value", "keep-lease", "desc", "keys", "count"];
    let is_option = |word: &str| flags.contains(&word) || word.contains('=');
    words.iter().copied().filter(|word| !is_option(word)).nth(nth)
}

fn bytes(word: Option<&str>) -> bytes::Bytes {
    let text = match word {
        None | Some("''") => "",
        Some("*") => "\0",
        Some(text) => text,
    };
    text.to_owned().into()
}

fn put(words: &[&str]) -> etcd::PutRequest {
    etcd::PutRequest {
        key: bytes(plain(words, 1)),
        value: bytes(plain(words, 2)),
        lease: option(words, "lease").map_or(0, |id| id.parse().unwrap()),
        prev_kv: words.contains(&"prev"),
        ignore_value: words.contains(&"keep-value"),
        ignore_lease: words.contains(&"keep-lease"),
    }
}

fn delete(words: &[&str]) -> etcd::DeleteRangeRequest {
    etcd::DeleteRangeRequest {
        key: bytes(plain(words, 1)),
        range_end: bytes(plain(words, 2)),
        prev_kv: words.contains(&"prev"),
    }
}

fn range(words: &[&str]) -> etcd::RangeRequest {
    use etcd::range_request::{SortOrder, SortTarget};
    let target = match option(words, "by") {
        Some("version") => SortTarget::Version,
        Some("create") => SortTarget::Create,
        Some("mod") => SortTarget::Mod,
        Some("value") => SortTarget::Value,
        Some(_) | None => SortTarget::Key,
    };
    let number = |name| option(words, name).map_or(0, |text| text.parse().unwrap());
    etcd::RangeRequest {
        key: bytes(plain(words, 1)),
        range_end: bytes(plain(words, 2)),
        revision: number("rev"),
        limit: number("limit"),
        min_mod_revision: number("min-mod"),
        max_mod_revision: number("max-mod"),
        min_create_revision: number("min-create"),
        max_create_revision: number("max-create"),
        sort_target: target.into(),
        sort_order: if words.contains(&"desc") { SortOrder::Descend.into() } else { 0 },
        keys_only: words.contains(&"keys"),
        count_only: words.contains(&"count"),
        serializable: false,
    }
}

/// Splits at a separator that stands outside of braces.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (position, found) in text.char_indices() {
        match found {
            '{' => depth += 1,
            '}' => depth -= 1,
            found if found == separator && depth == 0 => {
                parts.push(text[start..position].trim());
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn txn(text: &str) -> etcd::TxnRequest {
    let [compares, branches] = split(text, '?')[..] else { panic!("no ? in {text}") };
    let [success, failure] = split(branches, ':')[..] else { panic!("no : in {text}") };
    let parts = |text| split(text, ',').into_iter().filter(|part| !part.is_empty());
    etcd::TxnRequest {
        compare: parts(compares).map(compare).collect(),
        success: parts(success).map(operation).collect(),
        failure: parts(failure).map(operation).collect(),
    }
}

fn compare(text: &str) -> etcd::Compare {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [target, key, result, value] = words[..] else { panic!("comparison {text}") };
    let number = || value.parse().unwrap();
    let (target, union) = match target {
        "version" => (CompareTarget::Version, TargetUnion::Version(number())),
        "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number())),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number())),
        _ => (CompareTarget::Value, TargetUnion::Value(bytes(Some(value)))),
    };
    let result = match result {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        _ => CompareResult::Less,
    };
    let (key, range_end) = key.split_once("..").map_or((key, None), |(key, end)| (key, Some(end)));
    etcd::Compare {
        result: result.into(),
        target: target.into(),
        key: bytes(Some(key)),
        range_end: bytes(range_end),
        target_union: Some(union),
    }
}

fn operation(text: &str) -> etcd::RequestOp {
    let words: Vec<&str> = text.split_whitespace().collect();
    let request = match words[0] {
        "put" => Request::RequestPut(put(&words)),
        "del" => Request::RequestDeleteRange(delete(&words)),
        "get" => Request::RequestRange(range(&words)),
        "nothing" => return etcd::RequestOp { request: None },
        _ => {
            let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            Request::RequestTxn(txn(inner.expect("an operation")))
        }
    };
    etcd::RequestOp { request: Some(request) }
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Err(rejection) => format!("refused: {rejection}"),
        Ok(Response::Put(response)) => show_put(response),
        Ok(Response::DeleteRange(response)) => show_delete(response),
        Ok(Response::Txn(response)) => {
            format!("{} rev {}", show_txn(response), revision(response.header.as_ref()))
        }
        Ok(other) => format!("{other:?}"),
    }
}

fn revision(header: Option<&etcd::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn show_pair(kv: &etcd::KeyValue) -> String {
    let etcd::KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
    let lease = if *lease == 0 { String::new() } else { format!(" lease {lease}") };
    let (key, value) = (key.escape_ascii(), value.escape_ascii());
    format!("[{key}={value} {create_revision}..{mod_revision} v{version}{lease}]")
}

fn show_pairs(kvs: &[etcd::KeyValue]) -> String {
    kvs.iter().map(show_pair).collect::<Vec<_>>().join(" ")
}

fn show_put(response: &etcd::PutResponse) -> String {
    let previous = response.prev_kv.as_ref().map(|kv| format!(" over {}", show_pair(kv)));
    format!("put rev {}{}", revision(response.header.as_ref()), previous.unwrap_or_default())
}

fn show_delete(response: &etcd::DeleteRangeResponse) -> String {
    let etcd::DeleteRangeResponse { header, deleted, prev_kvs } = response;
    format!("deleted {deleted} rev {} {}", revision(header.as_ref()), show_pairs(prev_kvs))
}

fn show_range(response: &etcd::RangeResponse) -> String {
    let etcd::RangeResponse { header, kvs, more, count } = response;
    let more = if *more { " and more" } else { "" };
    format!("count {count} rev {}: {}{more}", revision(header.as_ref()), show_pairs(kvs))
}

fn show_txn(response: &etcd::TxnResponse) -> String {
    use etcd::response_op::Response as Op;
    let shown = response.responses.iter().map(|operation| match operation.response.as_ref() {
        Some(Op::ResponsePut(response)) => show_put(response),
        Some(Op::ResponseDeleteRange(response)) => show_delete(response),
        Some(Op::ResponseRange(response)) => show_range(response),
        Some(Op::ResponseTxn(response)) => show_txn(response),
        None => "nothing".to_owned(),
    });
    format!("{} {{ {} }}", response.succeeded, shown.collect::<Vec<_>>().join("; "))
}

#[test]
fn put_and_its_refusals() {
    check(
        "put a 1
         put a 2 prev
         put a '' prev
         put '' 1
         put a 1 lease=9
         grant 9 60
         put a 1 lease=9
         put a keep-value
         put a 2 keep-lease
         put a 2 keep-value
         put a 2 lease=9 keep-lease
         put nobody keep-value
         get a
         again",
        expect![[r#"
            put a 1
                put rev 2 (+1 revision, 1 events)
            put a 2 prev
                put rev 3 over [a=1 2..2 v1] (+1 revision, 1 events)
            put a '' prev
                put rev 4 over [a=2 2..3 v2] (+1 revision, 1 events)
            put '' 1
                refused: key is not provided (+0 revision, 0 events)
            put a 1 lease=9
                refused: lease 9 does not exist (+0 revision, 0 events)
            grant 9 60
                LeaseGrant(LeaseGrantResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 4, raft_term: 0 }), id: 9, ttl: 60, error: "" }) (+0 revision, 0 events)
            put a 1 lease=9
                put rev 5 (+1 revision, 1 events)
            put a keep-value
                put rev 6 (+1 revision, 1 events)
            put a 2 keep-lease
                put rev 7 (+1 revision, 1 events)
            put a 2 keep-value
                refused: value is provided together with ignore_value (+0 revision, 0 events)
            put a 2 lease=9 keep-lease
                refused: lease 9 is provided together with ignore_lease (+0 revision, 0 events)
            put nobody keep-value
                refused: key does not exist, so its value or lease cannot stay (+0 revision, 0 events)
            get a
                count 1 rev 7: [a=2 2..7 v6]
            again
                refused: key does not exist, so its value or lease cannot stay (+0 revision, 0 events)
        "#]],
    );
}

#[test]
fn delete_and_its_refusals() {
    check(
        "put a 1
         put b 2
         put c 3
         del b prev
         del b
         del c a
         del ''
         del a * prev
         again
         get a *
         put a 4
         get a",
        expect![[r#"
            put a 1
                put rev 2 (+1 revision, 1 events)
            put b 2
                put rev 3 (+1 revision, 1 events)
            put c 3
                put rev 4 (+1 revision, 1 events)
            del b prev
                deleted 1 rev 5 [b=2 3..3 v1] (+1 revision, 1 events)
            del b
                deleted 0 rev 5  (+0 revision, 0 events)
            del c a
                deleted 0 rev 5  (+0 revision, 0 events)
            del ''
                refused: key is not provided (+0 revision, 0 events)
            del a * prev
                deleted 2 rev 6 [a=1 2..2 v1] [c=3 4..4 v1] (+1 revision, 2 events)
            again
                deleted 2 rev 6 [a=1 2..2 v1] [c=3 4..4 v1] (+0 revision, 0 events)
            get a *
                count 0 rev 6: 
            put a 4
                put rev 7 (+1 revision, 1 events)
            get a
                count 1 rev 7: [a=4 7..7 v1]
        "#]],
    );
}

#[test]
fn get_with_every_option() {
    check(
        "put a 3
         put b 2
         put c 1
         put b 2
         del c
         get a *
         get a c
         get a * limit=1
         get a * rev=4
         get a * rev=4 limit=2
         get a * rev=4 by=value
         get a * rev=4 by=value desc limit=1
         get a * by=mod desc
         get a * by=version limit=1
         get a * keys
         get a * count
         get a * min-mod=5
         get a * max-create=2
         get a * max-create=2 limit=1
         get '' *
         get a rev=99
         compact 4
         get a rev=3
         get a rev=4",
        expect![[r#"
            put a 3
                put rev 2 (+1 revision, 1 events)
            put b 2
                put rev 3 (+1 revision, 1 events)
            put c 1
                put rev 4 (+1 revision, 1 events)
            put b 2
                put rev 5 (+1 revision, 1 events)
            del c
                deleted 1 rev 6  (+1 revision, 1 events)
            get a *
                count 2 rev 6: [a=3 2..2 v1] [b=2 3..5 v2]
            get a c
                count 2 rev 6: [a=3 2..2 v1] [b=2 3..5 v2]
            get a * limit=1
                count 2 rev 6: [a=3 2..2 v1] and more
            get a * rev=4
                count 3 rev 6: [a=3 2..2 v1] [b=2 3..3 v1] [c=1 4..4 v1]
            get a * rev=4 limit=2
                count 3 rev 6: [a=3 2..2 v1] [b=2 3..3 v1] and more
            get a * rev=4 by=value
                count 3 rev 6: [c=1 4..4 v1] [b=2 3..3 v1] [a=3 2..2 v1]
            get a * rev=4 by=value desc limit=1
                count 3 rev 6: [a=3 2..2 v1] and more
            get a * by=mod desc
                count 2 rev 6: [b=2 3..5 v2] [a=3 2..2 v1]
            get a * by=version limit=1
                count 2 rev 6: [a=3 2..2 v1] and more
            get a * keys
                count 2 rev 6: [a= 2..2 v1] [b= 3..5 v2]
            get a * count
                count 2 rev 6: 
            get a * min-mod=5
                count 2 rev 6: [b=2 3..5 v2]
            get a * max-create=2
                count 2 rev 6: [a=3 2..2 v1]
            get a * max-create=2 limit=1
                count 2 rev 6: [a=3 2..2 v1]
            get '' *
                refused: key is not provided
            get a rev=99
                refused: revision 99 is in the future, the newest is 6
            compact 4
                Compact(CompactionResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 6, raft_term: 0 }) }) (+0 revision, 0 events)
            get a rev=3
                refused: revision 3 is compacted, the oldest is 4
            get a rev=4
                count 1 rev 6: [a=3 2..2 v1]
        "#]],
    );
}

#[test]
fn a_transaction_compares_before_it_acts_and_reads_what_it_wrote() {
    check(
        "put a 1
         txn version a = 1, value a = 1 ? put a 2, get a * : put a 3
         txn mod a > 99 ? : get a
         txn version a > 0 ? put b 1, { version b = 0 ? put c then, get b : put c else } :
         txn version nobody = 0, create nobody = 0, mod nobody = 0, lease nobody = 0 ? get a :
         txn value nobody != x ? get a : get b
         txn version a..z > 0 ? get a count : get b
         txn version x..z > 0 ? get a count : get b count
         txn ? get a rev=2, del a prev, get a : get b
         txn ? :
         again",
        expect![[r#"
            put a 1
                put rev 2 (+1 revision, 1 events)
            txn version a = 1, value a = 1 ? put a 2, get a * : put a 3
                true { put rev 3; count 1 rev 3: [a=2 2..3 v2] } rev 3 (+1 revision, 1 events)
            txn mod a > 99 ? : get a
                false { count 1 rev 3: [a=2 2..3 v2] } rev 3 (+0 revision, 0 events)
            txn version a > 0 ? put b 1, { version b = 0 ? put c then, get b : put c else } :
                true { put rev 4; true { put rev 4; count 1 rev 4: [b=1 4..4 v1] } } rev 4 (+1 revision, 2 events)
            txn version nobody = 0, create nobody = 0, mod nobody = 0, lease nobody = 0 ? get a :
                true { count 1 rev 4: [a=2 2..3 v2] } rev 4 (+0 revision, 0 events)
            txn value nobody != x ? get a : get b
                false { count 1 rev 4: [b=1 4..4 v1] } rev 4 (+0 revision, 0 events)
            txn version a..z > 0 ? get a count : get b
                true { count 1 rev 4:  } rev 4 (+0 revision, 0 events)
            txn version x..z > 0 ? get a count : get b count
                false { count 1 rev 4:  } rev 4 (+0 revision, 0 events)
            txn ? get a rev=2, del a prev, get a : get b
                true { count 1 rev 4: [a=1 2..2 v1]; deleted 1 rev 5 [a=2 2..3 v2]; count 0 rev 5:  } rev 5 (+1 revision, 1 events)
            txn ? :
                true {  } rev 5 (+0 revision, 0 events)
            again
                true {  } rev 5 (+0 revision, 0 events)
        "#]],
    );
}

#[test]
fn a_transaction_that_is_refused_does_nothing() {
    check(
        "put a 1
         txn ? put b 1, put b 2 :
         txn ? put b 1, del a c :
         txn ? { ? put b 1 : put b 2 }, put b 3 :
         txn ? { ? put b 1 : put b 2 } :
         txn ? put c 1, put d 1 lease=5 :
         txn ? put c 1, put nobody keep-value :
         txn ? put c 1, get a rev=99 :
         txn ? put '' 1 :
         txn version '' = 0 ? :
         txn ? nothing :
         txn version a = 99 ? put c 1, get a rev=99 : get a count
         get a *",
        expect![[r#"
            put a 1
                put rev 2 (+1 revision, 1 events)
            txn ? put b 1, put b 2 :
                refused: transaction names key b twice (+0 revision, 0 events)
            txn ? put b 1, del a c :
                refused: transaction names key b twice (+0 revision, 0 events)
            txn ? { ? put b 1 : put b 2 }, put b 3 :
                refused: transaction names key b twice (+0 revision, 0 events)
            txn ? { ? put b 1 : put b 2 } :
                true { true { put rev 3 } } rev 3 (+1 revision, 1 events)
            txn ? put c 1, put d 1 lease=5 :
                refused: lease 5 does not exist (+0 revision, 0 events)
            txn ? put c 1, put nobody keep-value :
                refused: key does not exist, so its value or lease cannot stay (+0 revision, 0 events)
            txn ? put c 1, get a rev=99 :
                refused: revision 99 is in the future, the newest is 3 (+0 revision, 0 events)
            txn ? put '' 1 :
                refused: key is not provided (+0 revision, 0 events)
            txn version '' = 0 ? :
                refused: key is not provided (+0 revision, 0 events)
            txn ? nothing :
                refused: operation of a transaction is empty (+0 revision, 0 events)
            txn version a = 99 ? put c 1, get a rev=99 : get a count
                false { count 1 rev 3:  } rev 3 (+0 revision, 0 events)
            get a *
                count 2 rev 3: [a=1 2..2 v1] [b=1 3..3 v1]
        "#]],
    );
}

#[test]
fn leases_take_their_keys_with_them() {
    check(
        "grant 1 60
         grant 1 60
         grant 0 60
         grant 2 9000000001
         grant 2 60
         put b 1 lease=1
         put a 1 lease=1
         put c 1 lease=1
         put c 1 lease=2
         revoke 1
         again
         revoke 1
         get a *
         expire 2 3
         again
         get a *
         put a 1 lease=2",
        expect![[r#"
            grant 1 60
                LeaseGrant(LeaseGrantResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 1, raft_term: 0 }), id: 1, ttl: 60, error: "" }) (+0 revision, 0 events)
            grant 1 60
                refused: lease 1 exists already (+0 revision, 0 events)
            grant 0 60
                refused: lease has no id (+0 revision, 0 events)
            grant 2 9000000001
                refused: time to live of 9000000001 s is above 9000000000 s (+0 revision, 0 events)
            grant 2 60
                LeaseGrant(LeaseGrantResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 1, raft_term: 0 }), id: 2, ttl: 60, error: "" }) (+0 revision, 0 events)
            put b 1 lease=1
                put rev 2 (+1 revision, 1 events)
            put a 1 lease=1
                put rev 3 (+1 revision, 1 events)
            put c 1 lease=1
                put rev 4 (+1 revision, 1 events)
            put c 1 lease=2
                put rev 5 (+1 revision, 1 events)
            revoke 1
                LeaseRevoke(LeaseRevokeResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 6, raft_term: 0 }) }) (+1 revision, 2 events)
            again
                LeaseRevoke(LeaseRevokeResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 6, raft_term: 0 }) }) (+0 revision, 0 events)
            revoke 1
                refused: lease 1 does not exist (+0 revision, 0 events)
            get a *
                count 1 rev 6: [c=1 4..5 v2 lease 2]
            expire 2 3
                LeasesExpired { ids: [2], revision: 7 } (+1 revision, 1 events)
            again
                LeasesExpired { ids: [2], revision: 7 } (+0 revision, 0 events)
            get a *
                count 0 rev 7: 
            put a 1 lease=2
                refused: lease 2 does not exist (+0 revision, 0 events)
        "#]],
    );
}

#[test]
fn compaction_refuses_what_is_gone_and_what_is_not_yet() {
    check(
        "put a 1
         put a 2
         compact 2
         again
         compact 2
         compact 4
         compact 3
         get a rev=2
         txn ? get a rev=2 :
         get a rev=3",
        expect![[r#"
            put a 1
                put rev 2 (+1 revision, 1 events)
            put a 2
                put rev 3 (+1 revision, 1 events)
            compact 2
                Compact(CompactionResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 3, raft_term: 0 }) }) (+0 revision, 0 events)
            again
                Compact(CompactionResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 3, raft_term: 0 }) }) (+0 revision, 0 events)
            compact 2
                refused: revision 2 is compacted, the oldest is 2 (+0 revision, 0 events)
            compact 4
                refused: revision 4 is in the future, the newest is 3 (+0 revision, 0 events)
            compact 3
                Compact(CompactionResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 3, raft_term: 0 }) }) (+0 revision, 0 events)
            get a rev=2
                refused: revision 2 is compacted, the oldest is 3
            txn ? get a rev=2 :
                refused: revision 2 is compacted, the oldest is 3 (+0 revision, 0 events)
            get a rev=3
                count 1 rev 3: [a=2 2..3 v2]
        "#]],
    );
}

#[test]
fn settings_levels_alarms_and_fences() {
    check(
        "set root=other ops=2
         txn ? put a 1, put b 1, put c 1 :
         set ops=0
         set root=a//b
         set quota=600
         put a 1
         put b 2
         put c 3
         get a * count
         del a
         alarm raise nospace
         put a 1
         alarm show none
         alarm clear nospace
         alarm raise corrupt
         put x y
         del b
         alarm clear corrupt
         set quota=0
         put x y
         level 1
         level 0
         fenced 1 1 put f 1
         fenced 2 1 put f 2
         fenced 1 2 put f 3
         get f",
        expect![[r#"
            set root=other ops=2
                SettingsChanged(Settings { root_path: "other", quota_bytes: 8589934592, retention_revisions: 100000, retention_ms: 600000, txn_ops_max: 2 }) (+0 revision, 0 events)
            txn ? put a 1, put b 1, put c 1 :
                refused: transaction has 3 operations, the limit is 2 (+0 revision, 0 events)
            set ops=0
                refused: setting txn_ops_max cannot be 0 (+0 revision, 0 events)
            set root=a//b
                SettingsChanged(Settings { root_path: "a//b", quota_bytes: 8589934592, retention_revisions: 100000, retention_ms: 600000, txn_ops_max: 2 }) (+0 revision, 0 events)
            set quota=600
                SettingsChanged(Settings { root_path: "a//b", quota_bytes: 600, retention_revisions: 100000, retention_ms: 600000, txn_ops_max: 2 }) (+0 revision, 0 events)
            put a 1
                put rev 2 (+1 revision, 1 events)
            put b 2
                put rev 3 (+1 revision, 1 events)
            put c 3
                refused: keyspace of 516 bytes is at its quota of 600 bytes (+0 revision, 0 events)
            get a * count
                count 2 rev 3: 
            del a
                deleted 1 rev 4  (+1 revision, 1 events)
            alarm raise nospace
                Alarm(AlarmResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 4, raft_term: 0 }), alarms: [AlarmMember { member_id: 1, alarm: Nospace }] }) (+0 revision, 0 events)
            put a 1
                refused: keyspace of 773 bytes is at its quota of 600 bytes (+0 revision, 0 events)
            alarm show none
                Alarm(AlarmResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 4, raft_term: 0 }), alarms: [AlarmMember { member_id: 1, alarm: Nospace }] }) (+0 revision, 0 events)
            alarm clear nospace
                Alarm(AlarmResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 4, raft_term: 0 }), alarms: [AlarmMember { member_id: 1, alarm: Nospace }] }) (+0 revision, 0 events)
            alarm raise corrupt
                Alarm(AlarmResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 4, raft_term: 0 }), alarms: [AlarmMember { member_id: 1, alarm: Corrupt }] }) (+0 revision, 0 events)
            put x y
                refused: replicas differ: writes are refused until the alarm is cleared (+0 revision, 0 events)
            del b
                refused: replicas differ: writes are refused until the alarm is cleared (+0 revision, 0 events)
            alarm clear corrupt
                Alarm(AlarmResponse { header: Some(ResponseHeader { cluster_id: 0, member_id: 0, revision: 4, raft_term: 0 }), alarms: [AlarmMember { member_id: 1, alarm: Corrupt }] }) (+0 revision, 0 events)
            set quota=0
                SettingsChanged(Settings { root_path: "a//b", quota_bytes: 0, retention_revisions: 100000, retention_ms: 600000, txn_ops_max: 2 }) (+0 revision, 0 events)
            put x y
                put rev 5 (+1 revision, 1 events)
            level 1
                LevelRaised { level: 1 } (+0 revision, 0 events)
            level 0
                LevelRaised { level: 1 } (+0 revision, 0 events)
            fenced 1 1 put f 1
                put rev 6 (+1 revision, 1 events)
            fenced 2 1 put f 2
                refused: proposed under term 2 of node 1, which is over (+0 revision, 0 events)
            fenced 1 2 put f 3
                refused: proposed under term 1 of node 2, which is over (+0 revision, 0 events)
            get f
                count 1 rev 6: [f=1 6..6 v1]
        "#]],
    );
}
