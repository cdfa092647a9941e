//! The Rust client `etcd-client` against the nodes of `QUORATE_ENDPOINTS`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, LeaseGrantOptions, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, WatchOptions,
};
use tokio_stream::StreamExt;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let endpoints = std::env::var("QUORATE_ENDPOINTS").context("QUORATE_ENDPOINTS")?;
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let mut all = Client::connect(&endpoints, None).await?;
    let mut each = Vec::new();
    for endpoint in &endpoints {
        each.push(Client::connect([endpoint], None).await?);
    }
    step("keys", keys(&mut all, &mut each)).await?;
    step("transactions", transactions(&mut all)).await?;
    step("watches", watches(&mut all, &mut each)).await?;
    step("leases", leases(&mut all, &mut each)).await?;
    step("compaction", compaction(&mut all)).await?;
    step("errors", errors(&mut all)).await?;
    step("maintenance", maintenance(&mut all, &mut each)).await?;
    Ok(())
}

async fn step(name: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(PATIENCE, work).await.context("took too long").flatten_in(name)?;
    println!("{name}: ok");
    Ok(())
}

trait FlattenIn {
    fn flatten_in(self, name: &str) -> Result<()>;
}

impl FlattenIn for Result<Result<()>> {
    fn flatten_in(self, name: &str) -> Result<()> {
        self.and_then(|inner| inner).with_context(|| name.to_owned())
    }
}

async fn keys(all: &mut Client, each: &mut [Client]) -> Result<()> {
    for number in 0..100 {
        all.put(format!("rust/{number:03}"), number.to_string(), None).await?;
    }
    for client in each {
        let options = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_limit(10);
        let found = client.get("rust/", Some(options)).await?;
        ensure!(found.count() == 100 && found.more() && found.kvs().len() == 10);
        ensure!(found.kvs()[0].key_str()? == "rust/099" && found.kvs()[0].version() == 1);
        let only = GetOptions::new().with_prefix().with_count_only();
        ensure!(client.get("rust/", Some(only)).await?.count() == 100);
        let local = GetOptions::new().with_serializable();
        ensure!(client.get("rust/000", Some(local)).await?.count() <= 1);
    }
    let replaced = all.put("rust/000", "new", Some(PutOptions::new().with_prev_key())).await?;
    ensure!(replaced.prev_key().context("the old pair")?.value() == b"0");
    let old = replaced.header().context("a header")?.revision() - 1;
    let past = all.get("rust/000", Some(GetOptions::new().with_revision(old))).await?;
    ensure!(past.kvs()[0].value() == b"0");
    Ok(())
}

async fn transactions(all: &mut Client) -> Result<()> {
    let claim = |owner: &str| {
        Txn::new()
            .when([Compare::create_revision("rust-owner", CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put("rust-owner", owner, None),
                TxnOp::get("rust-owner", Some(GetOptions::new())),
            ])
            .or_else([TxnOp::get("rust-owner", None)])
    };
    let first = all.txn(claim("one")).await?;
    ensure!(first.succeeded() && first.op_responses().len() == 2);
    let second = all.txn(claim("two")).await?;
    ensure!(!second.succeeded());
    let nested = Txn::new().and_then([TxnOp::txn(claim("three"))]);
    ensure!(all.txn(nested).await?.succeeded());
    ensure!(all.get("rust-owner", None).await?.kvs()[0].value() == b"one");
    Ok(())
}

async fn watches(all: &mut Client, each: &mut [Client]) -> Result<()> {
    let start = all.get("none", None).await?.header().context("a header")?.revision() + 1;
    for number in 0..50 {
        all.put("rust-watched", number.to_string(), None).await?;
    }
    all.delete("rust-watched", None).await?;
    for client in each {
        let options = WatchOptions::new().with_start_revision(start).with_prev_key();
        let mut stream = client.watch("rust-watched", Some(options)).await?;
        let mut seen = 0;
        while seen < 51 {
            let response = stream.message().await?.context("the stream ended")?;
            for event in response.events() {
                let kv = event.kv().context("every event has a pair")?;
                ensure!(kv.mod_revision() == start + seen);
                if seen > 0 {
                    let before = event.prev_kv().context("the pair before")?;
                    ensure!(before.value() == (seen - 1).to_string().as_bytes());
                }
                ensure!((event.event_type() == EventType::Delete) == (seen == 50));
                seen += 1;
            }
        }
        stream.request_progress().await?;
        let progress = stream.message().await?.context("progress")?;
        ensure!(progress.events().is_empty());
        stream.cancel(progress.watch_id().max(0)).await?;
        let cancelled = stream.message().await?.context("an answer to the cancel")?;
        ensure!(cancelled.canceled());
    }
    Ok(())
}

async fn leases(all: &mut Client, each: &mut [Client]) -> Result<()> {
    let granted =
        all.lease_grant(45, Some(LeaseGrantOptions::new().with_id(8_150_000_001))).await?;
    ensure!(granted.ttl() == 45 && granted.id() == 8_150_000_001);
    let leased = PutOptions::new().with_lease(granted.id());
    all.put("rust-held", "1", Some(leased)).await?;
    for client in each {
        let (mut keeper, mut answers) = client.lease_keep_alive(granted.id()).await?;
        for _ in 0..3 {
            keeper.keep_alive().await?;
            ensure!(answers.next().await.context("an answer")??.ttl() == 45);
        }
        ensure!(client.leases().await?.leases().iter().any(|lease| lease.id() == granted.id()));
    }
    all.lease_revoke(granted.id()).await?;
    ensure!(all.get("rust-held", None).await?.count() == 0);
    Ok(())
}

async fn compaction(all: &mut Client) -> Result<()> {
    let first = all.put("rust-compacted", "1", None).await?;
    let first = first.header().context("a header")?.revision();
    all.put("rust-compacted", "2", None).await?;
    all.compact(first + 1, None).await?;
    let old = GetOptions::new().with_revision(first);
    let refused = all.get("rust-compacted", Some(old)).await;
    refuses(refused.map(drop), "etcdserver: mvcc: required revision has been compacted")?;
    let mut stream =
        all.watch("rust-compacted", Some(WatchOptions::new().with_start_revision(first))).await?;
    loop {
        // The first may be the one that says that the watch was created.
        let answer = stream.message().await?.context("the stream ended")?;
        if answer.canceled() {
            ensure!(answer.compact_revision() == first + 1, "{answer:?}");
            return Ok(());
        }
    }
}

async fn errors(all: &mut Client) -> Result<()> {
    refuses(all.put("", "x", None).await.map(drop), "etcdserver: key is not provided")?;
    let leased = Some(PutOptions::new().with_lease(77));
    refuses(all.put("x", "x", leased).await.map(drop), "etcdserver: requested lease not found")?;
    refuses(
        all.lease_grant(9_000_000_001, None).await.map(drop),
        "etcdserver: too large lease TTL",
    )?;
    let future = GetOptions::new().with_revision(1 << 40);
    refuses(
        all.get("x", Some(future)).await.map(drop),
        "etcdserver: mvcc: required revision is a future revision",
    )?;
    let twice = Txn::new().and_then([TxnOp::put("d", "1", None), TxnOp::put("d", "2", None)]);
    refuses(all.txn(twice).await.map(drop), "etcdserver: duplicate key given in txn request")
}

fn refuses(answer: Result<(), etcd_client::Error>, text: &str) -> Result<()> {
    match answer {
        Ok(()) => bail!("was not refused: {text}"),
        Err(etcd_client::Error::GRpcStatus(status)) => {
            ensure!(status.message() == text, "said {status:?} instead of {text}");
            Ok(())
        }
        Err(other) => bail!("{other} instead of {text}"),
    }
}

async fn maintenance(all: &mut Client, each: &mut [Client]) -> Result<()> {
    let members = all.member_list().await?;
    let mut names: Vec<&str> = members.members().iter().map(|member| member.name()).collect();
    names.sort_unstable();
    ensure!(names == ["n1", "n2", "n3"], "{names:?}");
    ensure!(members.members().iter().all(|member| !member.client_urls().is_empty()));
    let mut hashes = Vec::new();
    // Above what was compacted: etcd 3.4 tells no hash of the compacted revision itself.
    let revision = all.put("x", "1", None).await?.header().context("a header")?.revision();
    for client in each.iter_mut() {
        // A linearizable read first: afterwards this node has all that was written.
        client.get("x", None).await?;
        ensure!(client.status().await?.leader() != 0);
        hashes.push(client.hash_kv(revision).await?.hash());
    }
    ensure!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let mut snapshot = each[0].snapshot().await?;
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await? {
        bytes += part.blob().len();
        if part.remaining_bytes() == 0 {
            break;
        }
    }
    ensure!(bytes > 0);
    Ok(())
}
