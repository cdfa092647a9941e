//! How large a membership may be: each member of the cluster keeps it in every entry that changes
//! it, and whoever decodes one must know what it may take.

use prost::Message;

use crate::convert::member_to_proto;
use crate::types::NodeMeta;

/// Voters and learners together. etcd names no limit and advises seven.
pub(crate) const MEMBERS_MAX: usize = 16;
/// A name and four addresses, as they are stored.
pub(crate) const MEMBER_BYTES_MAX: usize = 1 << 10;
/// A stored membership: all members, and twice the ids of the voters while they change.
pub(crate) const MEMBERSHIP_BYTES_MAX: usize = 32 << 10;

const IDS_BYTES_MAX: usize = 2 * MEMBERS_MAX * 16;
const _: () = assert!(
    MEMBERS_MAX * (MEMBER_BYTES_MAX + 8) + IDS_BYTES_MAX <= MEMBERSHIP_BYTES_MAX,
    "what may be added must be readable"
);

/// Refuses a member whose name and addresses are too long.
///
/// # Errors
/// What it takes, and the limit, for an operator.
pub(crate) fn check_member(meta: &NodeMeta) -> Result<(), String> {
    let size_bytes = member_to_proto(u64::MAX, meta).encoded_len();
    if size_bytes <= MEMBER_BYTES_MAX {
        return Ok(());
    }
    let name: String = meta.name.chars().take(64).collect();
    Err(format!(
        "the name and the addresses of {name} take {size_bytes} bytes, the limit is {MEMBER_BYTES_MAX}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Endpoints;

    #[test]
    fn a_member_with_a_long_address_is_refused_with_its_size_and_the_limit() {
        let of_length = |length: usize| NodeMeta {
            name: "n1".into(),
            endpoints: Endpoints { peer: "p".repeat(length), ..Endpoints::default() },
        };
        assert_eq!(check_member(&of_length(1_000)), Ok(()));
        let reason = check_member(&of_length(1_025)).unwrap_err();
        assert!(reason.contains("of n1 take 1043 bytes, the limit is 1024"), "{reason}");
    }
}
