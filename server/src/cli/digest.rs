//! `quorate digest`: whether all nodes hold the same data.

use clap::Args;
use futures::future::join_all;
use proto::admin::{DigestReply, DigestRequest};
use proto::client::{Client, admin_client};
use serde::Serialize;

use super::args::ClusterArgs;
use super::text::{full_digest, show_id};
use super::{Ending, output};

#[derive(Debug, Args)]
#[command(after_help = "\
Digests of two nodes can be compared where the index is the same: stop the writes, or ask again.
Exit code: 0 all equal or not comparable, 1 a node does not answer, 3 they differ.")]
pub(super) struct DigestArgs {
    /// Read all rows again instead of trusting the digest that is kept as entries apply
    #[arg(long)]
    scan: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct DigestLine {
    name: String,
    id: String,
    index: u64,
    revision: i64,
    content: String,
    chain: String,
    scanned: Option<String>,
    error: Option<String>,
}

pub(super) async fn run(args: DigestArgs) -> anyhow::Result<Ending> {
    let client = args.cluster.client()?;
    let status = client.discover().await?;
    let lines = join_all(status.members.iter().map(async |member| {
        let address = member.addresses.as_ref().map(|a| a.client.as_str()).unwrap_or_default();
        match ask(&client, address, args.scan).await {
            Ok(reply) => DigestLine::of(&reply),
            Err(error) => DigestLine {
                error: Some(error.to_string()),
                ..DigestLine::of(&DigestReply {
                    name: member.name.clone(),
                    node_id: member.id,
                    ..DigestReply::default()
                })
            },
        }
    }))
    .await;
    output::show(args.cluster.output.output, &lines, |lines| table(lines))?;
    Ok(judge(&lines))
}

async fn ask(client: &Client, address: &str, scan: bool) -> anyhow::Result<DigestReply> {
    anyhow::ensure!(!address.is_empty(), "has told no client address yet");
    let call = async {
        let mut admin = admin_client(client.channel(address)?);
        anyhow::Ok(admin.digest(DigestRequest { scan }).await?.into_inner())
    };
    tokio::time::timeout(client.options().timeout, call).await?
}

fn judge(lines: &[DigestLine]) -> Ending {
    let differ = |one: &DigestLine, other: &DigestLine| {
        one.index == other.index && (&one.content, &one.chain) != (&other.content, &other.chain)
    };
    let answered: Vec<&DigestLine> = lines.iter().filter(|line| line.error.is_none()).collect();
    let scan_differs =
        |line: &&DigestLine| line.scanned.as_ref().is_some_and(|scanned| *scanned != line.content);
    let pairs = answered.iter().flat_map(|one| answered.iter().map(move |other| (one, other)));
    if answered.iter().any(scan_differs) || pairs.into_iter().any(|(one, other)| differ(one, other))
    {
        return Ending::Bad;
    }
    match answered.len() == lines.len() {
        true => Ending::Good,
        false => Ending::Degraded,
    }
}

fn table(lines: &[DigestLine]) -> String {
    let rows = lines
        .iter()
        .map(|line| match &line.error {
            Some(error) => vec![line.name.clone(), "-".into(), "-".into(), error.clone()],
            None => vec![
                line.name.clone(),
                line.index.to_string(),
                line.revision.to_string(),
                line.content.clone(),
                line.chain.clone(),
                match &line.scanned {
                    Some(scanned) if *scanned == line.content => "as kept".to_owned(),
                    Some(scanned) => format!("DIFFERS: {scanned}"),
                    None => "-".to_owned(),
                },
            ],
        })
        .collect();
    let heads = ["node", "index", "revision", "content", "chain", "scan"];
    let mut text = output::table(&heads, &[1, 2], rows);
    let verdict = match judge(lines) {
        Ending::Bad => "The nodes DIFFER: stop writing, keep every data directory, report it.",
        Ending::Degraded => "Not every node answered.",
        Ending::Good if lines.windows(2).all(|pair| pair[0].index == pair[1].index) => "All equal.",
        Ending::Good => "Taken at different entries; ask again while nobody writes to compare all.",
    };
    text.push_str("\n\n");
    text.push_str(verdict);
    text
}

impl DigestLine {
    fn of(reply: &DigestReply) -> DigestLine {
        DigestLine {
            name: reply.name.clone(),
            id: show_id(reply.node_id),
            index: reply.index,
            revision: reply.revision,
            content: full_digest(&reply.content),
            chain: full_digest(&reply.chain),
            scanned: (!reply.scanned.is_empty()).then(|| full_digest(&reply.scanned)),
            error: None,
        }
    }
}
