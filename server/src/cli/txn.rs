//! `quorate txn`: a transaction in the notation of etcdctl.

mod parse;

use std::io::Read;

use clap::Args;
use proto::client::{Repeat, To, kv_client};
use proto::etcd;
use serde::Serialize;

use super::args::ClusterArgs;
use super::keys::{Pair, revision};
use super::{Ending, output};

#[derive(Debug, Args)]
#[command(after_help = "\
Three groups of lines, separated by empty lines: compares, operations when all of them hold, and
operations otherwise. As in etcdctl:

  quorate txn <<'END'
  mod(\"flag\") > \"0\"
  value(\"owner\") = \"n1\"

  put flag off
  get owner

  get flag
  END

Compares: value, version, create, mod, lease; with =, !=, < or >. Exit code 3: they did not hold.")]
pub(super) struct TxnArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct Done {
    succeeded: bool,
    revision: i64,
    results: Vec<Step>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Put,
    Deleted(i64),
    Found(Vec<Pair>),
}

pub(super) async fn run(args: TxnArgs) -> anyhow::Result<Ending> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let request = parse::transaction(&text)?;
    let reply = args
        .cluster
        .client()?
        .call(To::Any, Repeat::Never, async |channel| kv_client(channel).txn(request.clone()).await)
        .await?
        .into_inner();
    let done = Done {
        succeeded: reply.succeeded,
        revision: revision(reply.header.as_ref()),
        results: reply.responses.iter().filter_map(step).collect(),
    };
    output::show(args.cluster.output.output, &done, |done| {
        let mut lines = vec![match done.succeeded {
            true => format!("the compares held, revision {}", done.revision),
            false => format!("the compares did not hold, revision {}", done.revision),
        }];
        for step in &done.results {
            lines.push(match step {
                Step::Put => "put".to_owned(),
                Step::Deleted(keys) => format!("deleted {keys}"),
                Step::Found(pairs) => pairs.iter().map(Pair::line).collect::<Vec<_>>().join("\n"),
            });
        }
        lines.join("\n")
    })?;
    Ok(if reply.succeeded { Ending::Good } else { Ending::Bad })
}

fn step(response: &etcd::ResponseOp) -> Option<Step> {
    use etcd::response_op::Response;

    match response.response.as_ref()? {
        Response::ResponsePut(_) => Some(Step::Put),
        Response::ResponseDeleteRange(reply) => Some(Step::Deleted(reply.deleted)),
        Response::ResponseRange(reply) => {
            Some(Step::Found(reply.kvs.iter().map(Pair::of).collect()))
        }
        // The notation has no nested transactions.
        Response::ResponseTxn(_) => None,
    }
}
