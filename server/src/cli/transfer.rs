//! `quorate transfer`: a planned change of the leader, without a gap worth the name.

use clap::Args;
use proto::admin::TransferRequest;
use proto::client::{Repeat, To, admin_client};
use serde::Serialize;

use super::args::ClusterArgs;
use super::{Ending, output};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate transfer          to the follower that has caught up furthest
  quorate transfer n2")]
pub(super) struct TransferArgs {
    /// The next leader: name, or id in hexadecimal
    to: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct Transferred {
    leader: String,
    term: u64,
    took_ms: f64,
}

pub(super) async fn run(args: TransferArgs) -> anyhow::Result<Ending> {
    let request = TransferRequest { to: args.to.unwrap_or_default() };
    let reply = args
        .cluster
        .client()?
        .call(To::Any, Repeat::Never, async |channel| {
            admin_client(channel).transfer(request.clone()).await
        })
        .await?
        .into_inner();
    let took_ms = f64::from(u32::try_from(reply.took_us).unwrap_or(u32::MAX)) / 1000.0;
    let done = Transferred { leader: reply.leader_name, term: reply.term, took_ms };
    output::show(args.cluster.output.output, &done, |done| {
        format!("{} leads term {} after {:.1} ms", done.leader, done.term, done.took_ms)
    })?;
    Ok(Ending::Good)
}
