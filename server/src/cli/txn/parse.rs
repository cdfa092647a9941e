//! From the notation to a request. Errors name the line.

use bytes::Bytes;
use proto::etcd;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};

use super::super::keys::parse_lease;

#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(super) struct ParseError {
    line: usize,
    reason: String,
}

/// Compares, then operations, then operations otherwise; an empty line ends a group.
pub(super) fn transaction(text: &str) -> Result<etcd::TxnRequest, ParseError> {
    let mut request = etcd::TxnRequest::default();
    let mut group = 0;
    for (index, line) in text.lines().enumerate() {
        let fail = |reason: String| ParseError { line: index + 1, reason };
        let line = line.trim();
        match (line.is_empty(), group) {
            (true, _) => group += 1,
            (false, 0) => request.compare.push(compare(line).map_err(fail)?),
            (false, 1) => request.success.push(operation(line).map_err(fail)?),
            (false, 2) => request.failure.push(operation(line).map_err(fail)?),
            (false, _) => {
                return Err(fail(
                    "a fourth group; there are three, each ended by one empty line".to_owned(),
                ));
            }
        }
    }
    Ok(request)
}

/// `target("key") = "value"`.
fn compare(line: &str) -> Result<etcd::Compare, String> {
    let shape = "write a compare as mod(\"key\") > \"0\"";
    let (target, rest) = line.split_once('(').ok_or(shape)?;
    let (key, rest) = word(rest)?;
    let rest = rest.trim_start().strip_prefix(')').ok_or(shape)?.trim_start();
    let (result, rest) = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        (">", CompareResult::Greater),
        ("<", CompareResult::Less),
    ]
    .into_iter()
    .find_map(|(sign, result)| Some((result, rest.strip_prefix(sign)?)))
    .ok_or("after the key comes one of = != > <")?;
    let (value, rest) = word(rest)?;
    if !rest.trim().is_empty() {
        return Err(format!("`{}` stands behind the compare", rest.trim()));
    }
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_not_a_number| format!("`{text}` is not a whole number"))
    };
    let (target, union) = match target.trim() {
        "value" | "val" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value))),
        "version" | "ver" => (CompareTarget::Version, TargetUnion::Version(number(&value)?)),
        "create" | "c" => (CompareTarget::Create, TargetUnion::CreateRevision(number(&value)?)),
        "mod" | "m" => (CompareTarget::Mod, TargetUnion::ModRevision(number(&value)?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(parse_lease(&value)?)),
        other => {
            return Err(format!("`{other}` is none of value, version, create, mod, lease"));
        }
    };
    Ok(etcd::Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::from(key),
        target_union: Some(union),
        ..etcd::Compare::default()
    })
}

/// `put KEY VALUE`, `get KEY [END]` or `del KEY [END]`.
fn operation(line: &str) -> Result<etcd::RequestOp, String> {
    use etcd::request_op::Request;

    let mut words = Vec::new();
    let mut rest = line;
    while !rest.trim().is_empty() {
        let (next, after) = word(rest)?;
        words.push(next);
        rest = after;
    }
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let request = match texts.as_slice() {
        ["put", key, value] => Request::RequestPut(etcd::PutRequest {
            key: bytes(key),
            value: bytes(value),
            ..etcd::PutRequest::default()
        }),
        ["get", key, end @ ..] if end.len() < 2 => Request::RequestRange(etcd::RangeRequest {
            key: bytes(key),
            range_end: end.first().map(|end| bytes(end)).unwrap_or_default(),
            ..etcd::RangeRequest::default()
        }),
        ["del", key, end @ ..] if end.len() < 2 => {
            Request::RequestDeleteRange(etcd::DeleteRangeRequest {
                key: bytes(key),
                range_end: end.first().map(|end| bytes(end)).unwrap_or_default(),
                prev_kv: false,
            })
        }
        _ => return Err("write put KEY VALUE, get KEY [END] or del KEY [END]".to_owned()),
    };
    Ok(etcd::RequestOp { request: Some(request) })
}

/// The next word, in quotes or up to white space or a parenthesis, and what follows it.
fn word(text: &str) -> Result<(String, &str), String> {
    let text = text.trim_start();
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let end = text.find(|c: char| c.is_whitespace() || c == ')').unwrap_or(text.len());
        return match end {
            0 => Err("a word is missing".to_owned()),
            _ => Ok((text[..end].to_owned(), &text[end..])),
        };
    };
    let mut taken = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((place, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => taken.push('\n'),
                Some((_, 't')) => taken.push('\t'),
                Some((_, other)) => taken.push(other),
                None => return Err("the line ends behind a backslash".to_owned()),
            },
            c if c == quote => return Ok((taken, &text[place + 1..])),
            c => taken.push(c),
        }
    }
    Err(format!("a closing {quote} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_transaction_in_the_notation_of_etcdctl() {
        let text = "mod(\"k 1\") > \"0\"\nvalue(k2) = \"a\\\"b\"\n\nput k1 'new value'\ndel a b\n\nget k1\n";
        let request = transaction(text).expect("it is well formed");
        assert_eq!(request.compare.len(), 2);
        assert_eq!(request.compare[0].key.as_ref(), b"k 1");
        assert_eq!(
            request.compare[1].target_union,
            Some(TargetUnion::Value(Bytes::from_static(b"a\"b")))
        );
        assert_eq!((request.success.len(), request.failure.len()), (2, 1));
    }

    #[test]
    fn every_mistake_names_its_line() {
        let check = |text: &str, message: &str| {
            assert_eq!(transaction(text).expect_err("malformed").to_string(), message);
        };
        check("mod(k) ~ 0", "line 1: after the key comes one of = != > <");
        check("mod(k) = x", "line 1: `x` is not a whole number");
        check("age(k) = 1", "line 1: `age` is none of value, version, create, mod, lease");
        check("\nput k", "line 2: write put KEY VALUE, get KEY [END] or del KEY [END]");
        check("\nput k \"v", "line 2: a closing \" is missing");
        check("mod k", "line 1: write a compare as mod(\"key\") > \"0\"");
    }
}
