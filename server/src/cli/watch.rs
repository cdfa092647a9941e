//! `quorate watch`: changes as they happen, also across the death of the node that is asked.

use clap::Args;
use proto::client::{Repeat, To, watch_client};
use proto::etcd;
use proto::etcd::watch_request::RequestUnion;
use serde::Serialize;

use super::args::{ClusterArgs, OutputFormat};
use super::keys::{KeysArgs, Pair, revision};
use super::{Ending, output};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate watch by-dev/meta/ --prefix
  quorate watch key --rev 1          all that is kept, then what comes
  quorate watch key -o json | jq .   one object per line")]
pub(super) struct WatchArgs {
    #[command(flatten)]
    keys: KeysArgs,
    /// Start with the changes of that revision
    #[arg(long, default_value_t = 0, value_name = "REVISION")]
    rev: i64,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct Change {
    event: &'static str,
    #[serde(flatten)]
    pair: Pair,
}

pub(super) async fn run(args: WatchArgs) -> anyhow::Result<Ending> {
    let client = args.cluster.client()?;
    let (key, range_end) = args.keys.range();
    let mut next_revision = args.rev;
    loop {
        let create = etcd::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(etcd::WatchCreateRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                start_revision: next_revision,
                ..etcd::WatchCreateRequest::default()
            })),
        };
        let mut stream = client
            .call(To::Any, Repeat::Safe, async |channel| {
                // The stream must stay open behind its first request.
                let requests = tokio_stream::StreamExt::chain(
                    tokio_stream::once(create.clone()),
                    tokio_stream::pending(),
                );
                watch_client(channel).watch(requests).await
            })
            .await?
            .into_inner();
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => break,
                Err(status) => {
                    output::note(&format!("quorate: {}; asking another node", status.message()));
                    break;
                }
            };
            if response.canceled {
                anyhow::bail!("{}", cancelled(&response));
            }
            // From where a next stream must start so that nothing is missed or shown twice.
            if response.created && next_revision == 0 {
                next_revision = revision(response.header.as_ref()) + 1;
            }
            for event in &response.events {
                let at = event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
                next_revision = next_revision.max(at + 1);
                show(args.cluster.output.output, event)?;
            }
        }
    }
}

fn cancelled(response: &etcd::WatchResponse) -> String {
    match response.compact_revision {
        0 => format!("the watch was cancelled: {}", response.cancel_reason),
        revision => format!(
            "the changes before revision {revision} are compacted; read the keys, then watch \
             with --rev {revision} or later"
        ),
    }
}

fn show(format: OutputFormat, event: &etcd::Event) -> anyhow::Result<()> {
    let Some(pair) = &event.kv else { return Ok(()) };
    let event = match event.r#type() {
        etcd::event::EventType::Put => "put",
        etcd::event::EventType::Delete => "delete",
    };
    let change = Change { event, pair: Pair::of(pair) };
    match format {
        OutputFormat::Json => output::line(&serde_json::to_string(&change)?),
        OutputFormat::Table => output::line(&format!("{event:<6}  {}", change.pair.line())),
    }
    Ok(())
}
