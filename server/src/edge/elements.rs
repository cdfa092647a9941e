//! Counts what a message holds before it is decoded.
//!
//! An empty element of a repeated message has two bytes on the wire and a hundred and more in
//! memory. So a message of a megabyte could take as much memory as all of a node. What a
//! message may hold is counted on its bytes, which costs no memory at all.

/// As deep as the decoder goes.
const DEPTH_MAX: u32 = 100;

/// A message that holds more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request has more than {max} elements, which is the limit: split it")]
pub(crate) struct TooMany {
    max: usize,
}

/// Counts the fields of a message that have a length: texts, bytes and messages. What such a field
/// holds is not known here. It is taken for a message wherever it can be read as one: a text
/// that happens to be readable so is counted too, which the bound has room for.
///
/// # Errors
/// There are more than `max`.
pub(crate) fn check(message: &[u8], max: usize) -> Result<(), TooMany> {
    // An element has two bytes or more.
    if message.len() / 2 <= max {
        return Ok(());
    }
    let mut left = max;
    count(message, &mut left, DEPTH_MAX).map(drop).map_err(|()| TooMany { max })
}

/// Whether the bytes can be read as a message; `Err` where `left` is used up.
fn count(mut bytes: &[u8], left: &mut usize, depth: u32) -> Result<bool, ()> {
    while !bytes.is_empty() {
        let Some(key) = varint(&mut bytes) else { return Ok(false) };
        if key >> 3 == 0 || key >> 32 != 0 {
            return Ok(false);
        }
        let skipped = match key & 7 {
            0 => varint(&mut bytes).map(drop),
            1 => skip(&mut bytes, 8),
            5 => skip(&mut bytes, 4),
            2 => {
                *left = left.checked_sub(1).ok_or(())?;
                let Some(length) = varint(&mut bytes) else { return Ok(false) };
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some((inner, rest)) = bytes.split_at_checked(length) else { return Ok(false) };
                bytes = rest;
                if depth > 0 {
                    // What cannot be read as a message has taken from `left` only what could.
                    count(inner, left, depth - 1)?;
                }
                Some(())
            }
            _ => None,
        };
        if skipped.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn skip(bytes: &mut &[u8], n_bytes: usize) -> Option<()> {
    *bytes = bytes.get(n_bytes..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcd;
    use proto::etcd::request_op::Request as Op;

    use super::*;

    #[test]
    fn empty_elements_are_counted_at_every_depth() {
        let compare = vec![etcd::Compare::default(); 600];
        let txn = etcd::TxnRequest { compare, ..Default::default() };
        assert_eq!(check(&txn.encode_to_vec(), 600), Ok(()));
        assert_eq!(check(&txn.encode_to_vec(), 599), Err(TooMany { max: 599 }));
        let mut nested = txn;
        for _ in 0..3 {
            let op = etcd::RequestOp { request: Some(Op::RequestTxn(nested)) };
            nested = etcd::TxnRequest { success: vec![op], ..Default::default() };
        }
        // Each level is an operation and the transaction in it.
        assert_eq!(check(&nested.encode_to_vec(), 606), Ok(()));
        assert_eq!(check(&nested.encode_to_vec(), 605), Err(TooMany { max: 605 }));
    }

    #[test]
    fn large_values_are_few_elements_whatever_they_hold() {
        let value: Vec<u8> =
            (0..1_000_000_u32).map(|i| i.wrapping_mul(i).to_le_bytes()[1]).collect();
        let put = etcd::PutRequest { key: "key".into(), value: value.into(), ..Default::default() };
        assert_eq!(check(&put.encode_to_vec(), 100_000), Ok(()));
    }

    #[test]
    fn bytes_that_are_no_message_do_not_matter() {
        for junk in [&[0xff; 100][..], &[0x0a; 100], &[0; 100], &[0x0a, 0xff, 0xff, 0xff]] {
            let _ = check(junk, 1);
        }
        // Depth without end, each in the one before.
        let mut deep = vec![0x0a, 0];
        while deep.len() < 60_000 {
            let mut next = vec![0x0a];
            prost::encoding::encode_varint(deep.len() as u64, &mut next);
            next.extend_from_slice(&deep);
            deep = next;
        }
        assert_eq!(check(&deep, 10_000), Ok(()));
    }
}
