use proptest::prelude::*;

use super::*;

/// Few different bytes, so that escapes and ends meet.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0_u8), Just(1), Just(0xfe), Just(0xff), any::<u8>()];
    prop::collection::vec(byte, 0..6)
}

fn encoded(key: &[u8], revision: i64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(key, revision, &mut out);
    out
}

proptest! {
    #[test]
    fn rows_stand_in_the_order_of_key_and_revision(
        one in (keys(), 0..4_i64),
        other in (keys(), 0..4_i64),
    ) {
        prop_assert_eq!(encoded(&one.0, one.1).cmp(&encoded(&other.0, other.1)), one.cmp(&other));
    }

    #[test]
    fn a_row_key_gives_key_and_revision_back(key in keys(), revision in 0..i64::MAX) {
        let row_key = encoded(&key, revision);
        let (prefix, found) = split_key(&row_key).unwrap();
        let mut decoded = Vec::new();
        decode_prefix(prefix, &mut decoded).unwrap();
        prop_assert_eq!((decoded, found), (key, revision));
    }

    #[test]
    fn scan_bounds_hold_the_versions_of_the_range_and_no_others(
        start in keys(),
        end in prop_oneof![Just(None), keys().prop_map(Some)],
        key in keys(),
        revision in 0..i64::MAX,
    ) {
        let ends = [
            End::Single,
            end.as_deref().map_or(End::Unbounded, End::Before),
        ];
        for end in ends {
            let range = KeyRange { start: &start, end };
            let (from, to) = scan_bounds(&range);
            let row_key = encoded(&key, revision);
            let scanned = row_key >= from && to.is_none_or(|to| row_key < to);
            prop_assert_eq!(scanned, range.contains(&key), "{:?}", range);
        }
    }

    #[test]
    fn a_row_gives_its_version_back(
        revision in 0..i64::MAX,
        numbers in (any::<u32>(), 0..i64::MAX, 0..i64::MAX, any::<i64>(), any::<u32>()),
        hash in any::<u128>(),
        tombstone in any::<bool>(),
    ) {
        let (sub, create_revision, version, lease, value_bytes) = numbers;
        let version = Version {
            meta: KeyMeta {
                mod_revision: revision,
                create_revision,
                version,
                lease,
                hash: hash.into(),
                sub,
                value_bytes,
            },
            tombstone,
        };
        let mut row = Vec::new();
        version.encode(&mut row);
        prop_assert_eq!(Version::decode(revision, &row).unwrap(), version);
        prop_assert!(Version::decode(revision, &row[1..]).is_err());
    }
}

#[test]
fn damaged_row_keys_are_faults() {
    for row_key in [&b""[..], b"short", b"key without end....", &[0; 8]] {
        assert!(split_key(row_key).is_err(), "{row_key:?}");
    }
    assert!(decode_prefix(b"a\0b\0\0", &mut Vec::new()).is_err());
}
