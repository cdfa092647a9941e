//! `quorate get`, `put`, `del`: the keyspace by hand, over the etcd API.

use std::io::Read;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use proto::client::{Repeat, To, kv_client};
use proto::etcd;
use serde::Serialize;

use super::args::ClusterArgs;
use super::text::{full_digest, prefix_end, show_bytes};
use super::{Ending, output};

/// Which keys a command is about.
#[derive(Clone, Debug, Args)]
pub(super) struct KeysArgs {
    /// The key, or the first one of a range
    key: String,
    /// End of the range, not included
    end: Option<String>,
    /// All keys that start with KEY; an empty KEY means all keys
    #[arg(long, conflicts_with = "end")]
    prefix: bool,
}

impl KeysArgs {
    /// First key and end of the range as the etcd API has them.
    pub(super) fn range(&self) -> (Bytes, Bytes) {
        let key = Bytes::from(self.key.clone());
        match (&self.end, self.prefix) {
            (Some(end), _) => (key, Bytes::from(end.clone())),
            (None, false) => (key, Bytes::new()),
            (None, true) if key.is_empty() => {
                (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"))
            }
            (None, true) => {
                let end = prefix_end(&key);
                (key, end)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate get by-dev/meta/session/rootcoord
  quorate get by-dev/meta/ --prefix --keys-only --limit 20
  quorate get key --rev 42           as it was at revision 42
  quorate get key --value            only the bytes of the value

Exit code 3: no such key.")]
pub(super) struct GetArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// At most so many keys; 0 for all
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    limit: u32,
    /// The keyspace as it was at that revision
    #[arg(long, default_value_t = 0, value_name = "REVISION")]
    rev: i64,
    /// Only how many keys there are
    #[arg(long)]
    count_only: bool,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    /// Only the bytes of the values, as they are
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    value: bool,
    /// What the asked node has, without asking the leader: works without a majority
    #[arg(long)]
    serializable: bool,
    /// Order of the keys
    #[arg(long, value_enum, default_value = "ascend")]
    order: Order,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate put greeting hello
  quorate put config - < file        the value from standard input")]
pub(super) struct PutArgs {
    key: String,
    /// The value; `-` reads it from standard input
    value: String,
    /// Lease that the key goes with, in hexadecimal
    #[arg(long, value_parser = parse_lease, default_value = "0", value_name = "ID")]
    lease: i64,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate del greeting
  quorate del by-dev/tmp/ --prefix

Exit code 3: there was nothing to delete.")]
pub(super) struct DelArgs {
    #[command(flatten)]
    keys: KeysArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A pair for the screen. Bytes that are no text also come in hexadecimal.
#[derive(Debug, Serialize)]
pub(super) struct Pair {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

#[derive(Serialize)]
struct Found {
    revision: i64,
    count: i64,
    more: bool,
    kvs: Vec<Pair>,
}

#[derive(Serialize)]
struct Written {
    revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<i64>,
}

pub(super) async fn get(args: GetArgs) -> anyhow::Result<Ending> {
    let (key, range_end) = args.keys.range();
    let order = match args.order {
        Order::Ascend => etcd::range_request::SortOrder::None,
        Order::Descend => etcd::range_request::SortOrder::Descend,
    };
    let request = etcd::RangeRequest {
        key,
        range_end,
        limit: i64::from(args.limit),
        revision: args.rev,
        sort_order: order.into(),
        serializable: args.serializable,
        keys_only: args.keys_only,
        count_only: args.count_only,
        ..etcd::RangeRequest::default()
    };
    let reply = args
        .cluster
        .client()?
        .call(To::Any, Repeat::Safe, async |channel| {
            kv_client(channel).range(request.clone()).await
        })
        .await?
        .into_inner();
    if args.value {
        for pair in &reply.kvs {
            output::raw(&pair.value);
            output::line("");
        }
    } else {
        let found = Found {
            revision: revision(reply.header.as_ref()),
            count: reply.count,
            more: reply.more,
            kvs: reply.kvs.iter().map(Pair::of).collect(),
        };
        output::show(args.cluster.output.output, &found, found_table)?;
    }
    Ok(if reply.count == 0 { Ending::Bad } else { Ending::Good })
}

pub(super) async fn put(args: PutArgs) -> anyhow::Result<Ending> {
    let value = match args.value.as_str() {
        "-" => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value)?;
            value
        }
        text => text.as_bytes().to_vec(),
    };
    let request = etcd::PutRequest {
        key: Bytes::from(args.key),
        value: Bytes::from(value),
        lease: args.lease,
        ..etcd::PutRequest::default()
    };
    let reply = args
        .cluster
        .client()?
        .call(To::Any, Repeat::Never, async |channel| kv_client(channel).put(request.clone()).await)
        .await?
        .into_inner();
    let written = Written { revision: revision(reply.header.as_ref()), deleted: None };
    output::show(args.cluster.output.output, &written, |written| {
        format!("written at revision {}", written.revision)
    })?;
    Ok(Ending::Good)
}

pub(super) async fn del(args: DelArgs) -> anyhow::Result<Ending> {
    let (key, range_end) = args.keys.range();
    let request = etcd::DeleteRangeRequest { key, range_end, prev_kv: false };
    let reply = args
        .cluster
        .client()?
        .call(To::Any, Repeat::Never, async |channel| {
            kv_client(channel).delete_range(request.clone()).await
        })
        .await?
        .into_inner();
    let written =
        Written { revision: revision(reply.header.as_ref()), deleted: Some(reply.deleted) };
    output::show(args.cluster.output.output, &written, |written| {
        match written.deleted.unwrap_or_default() {
            1 => format!("1 key deleted at revision {}", written.revision),
            keys => format!("{keys} keys deleted at revision {}", written.revision),
        }
    })?;
    Ok(if reply.deleted == 0 { Ending::Bad } else { Ending::Good })
}

pub(super) fn revision(header: Option<&etcd::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

impl Pair {
    pub(super) fn of(pair: &etcd::KeyValue) -> Pair {
        let hex = |bytes: &Bytes| std::str::from_utf8(bytes).is_err().then(|| full_digest(bytes));
        Pair {
            key: show_bytes(&pair.key),
            key_hex: hex(&pair.key),
            value: show_bytes(&pair.value),
            value_hex: hex(&pair.value),
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            version: pair.version,
            lease: (pair.lease != 0).then(|| format!("{:x}", pair.lease)),
        }
    }

    /// The pair in one line.
    pub(super) fn line(&self) -> String {
        format!("{}  {}  {}", self.mod_revision, self.key, self.value)
    }
}

fn found_table(found: &Found) -> String {
    if found.kvs.is_empty() {
        return format!("{} keys at revision {}", found.count, found.revision);
    }
    let rows = found
        .kvs
        .iter()
        .map(|pair| {
            vec![
                pair.key.clone(),
                pair.mod_revision.to_string(),
                pair.version.to_string(),
                pair.lease.clone().unwrap_or_else(|| "-".to_owned()),
                pair.value.clone(),
            ]
        })
        .collect();
    let mut text = output::table(&["key", "revision", "version", "lease", "value"], &[1, 2], rows);
    if found.more {
        text.push_str(&format!("\n\n{} of {} keys", found.kvs.len(), found.count));
    }
    text
}

pub(super) fn parse_lease(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_not_hex| "not a lease id; they are hexadecimal, see `etcdctl lease list`".into())
}
