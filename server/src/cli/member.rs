//! `quorate member …`: who belongs to the cluster.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::admin::{self, Addresses, MembersReply};
use proto::client::{Client, Repeat, To, admin_client};
use serde::Serialize;

use crate::config::checked::parse_time;

use super::args::ClusterArgs;
use super::text::show_id;
use super::{Ending, output};

#[derive(Debug, Args)]
#[command(after_help = "\
A dead or wiped node comes back in two steps:
  1. start it on an empty data directory with its old name and flags (it waits, and says so)
  2. quorate member replace n3 --with HOST:PEERPORT

Growing from one node to three, one after the other:
  1. on its machine: quorate serve --name n2 … \
       --initial-cluster n1=10.0.0.1:2380,n2=10.0.0.2:2380,n3=10.0.0.3:2380
     (it finds that the cluster exists without it, waits, and says so)
  2. quorate member add 10.0.0.2:2380
  3. quorate member promote n2")]
pub(super) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Show all members with their addresses
    List(ListArgs),
    /// Add a learner: it receives everything and does not vote yet
    Add(AddArgs),
    /// Give a learner that has caught up its vote
    Promote(NamedArgs),
    /// Remove a member for good
    Remove(NamedArgs),
    /// Put a new node in the place of a dead or wiped one
    Replace(ReplaceArgs),
    /// Tell other addresses of a member
    Update(UpdateArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// Name, or id in hexadecimal
    member: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Peer address of the new node, which runs already and waits
    #[arg(value_name = "HOST:PORT")]
    peer: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
struct ReplaceArgs {
    /// The member that is gone: name, or id in hexadecimal
    member: String,
    /// Peer address of the new node, which runs already and waits
    #[arg(long, value_name = "HOST:PORT")]
    with: String,
    /// Time that the new node may take to receive the state
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    catch_up: Duration,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
struct UpdateArgs {
    /// Name, or id in hexadecimal
    member: String,
    #[command(flatten)]
    addresses: AddressArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
struct AddressArgs {
    /// Address for the other nodes
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    peer: String,
    /// Address for clients; a running node tells its own
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    client: String,
    /// Address of its HTTP pages
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    http: String,
    /// Address of the coordinator API
    #[arg(long, value_name = "HOST:PORT", default_value = "")]
    coordinator: String,
}

impl AddressArgs {
    fn into_addresses(self) -> Addresses {
        Addresses {
            peer: self.peer,
            client: self.client,
            http: self.http,
            coordinator: self.coordinator,
        }
    }
}

#[derive(Serialize)]
struct MemberLine {
    name: String,
    id: String,
    role: &'static str,
    peer: String,
    client: String,
    http: String,
}

pub(super) async fn run(args: MemberArgs) -> anyhow::Result<Ending> {
    match args.command {
        MemberCommand::List(args) => {
            let status = args.cluster.client()?.discover().await?;
            show(&args.cluster, &status.members)
        }
        MemberCommand::Add(args) => {
            let request = admin::MemberAddRequest { peer: args.peer };
            change(&args.cluster, &args.cluster.client()?, request, async |mut client, request| {
                client.member_add(request).await
            })
            .await
        }
        MemberCommand::Promote(args) => {
            let request = admin::MemberPromoteRequest { member: args.member };
            change(&args.cluster, &args.cluster.client()?, request, async |mut client, request| {
                client.member_promote(request).await
            })
            .await
        }
        MemberCommand::Remove(args) => {
            let request = admin::MemberRemoveRequest { member: args.member };
            change(&args.cluster, &args.cluster.client()?, request, async |mut client, request| {
                client.member_remove(request).await
            })
            .await
        }
        MemberCommand::Replace(args) => replace(args).await,
        MemberCommand::Update(args) => {
            let request = admin::MemberUpdateRequest {
                member: args.member,
                addresses: Some(args.addresses.into_addresses()),
            };
            change(&args.cluster, &args.cluster.client()?, request, async |mut client, request| {
                client.member_update(request).await
            })
            .await
        }
    }
}

/// Takes as long as the new node needs to receive the state.
async fn replace(args: ReplaceArgs) -> anyhow::Result<Ending> {
    let mut cluster = args.cluster.clone();
    cluster.timeout = cluster.timeout.max(args.catch_up + Duration::from_secs(10));
    let mut options = cluster.client()?.options().clone();
    options.attempt_timeout = cluster.timeout;
    let client = Client::new(&cluster.endpoints, options)?;
    output::note(&format!(
        "replacing {}: the new node at {} receives the state, then the votes are swapped",
        args.member, args.with
    ));
    let request = admin::MemberReplaceRequest {
        member: args.member,
        with_peer: args.with,
        catch_up_timeout_ms: u64::try_from(args.catch_up.as_millis()).unwrap_or(u64::MAX),
    };
    change(&cluster, &client, request, async |mut client, request| {
        client.member_replace(request).await
    })
    .await
}

type AdminClient = admin::admin_client::AdminClient<tonic::transport::Channel>;

/// Any node passes a change on to the leader. One whose fate is unclear is not repeated: `member list`
/// shows what became of it.
async fn change<Request, Call>(
    cluster: &ClusterArgs,
    client: &Client,
    request: Request,
    call: Call,
) -> anyhow::Result<Ending>
where
    Request: Clone,
    Call: AsyncFn(AdminClient, Request) -> Result<tonic::Response<MembersReply>, tonic::Status>,
{
    let reply = client
        .call(To::Any, Repeat::Never, async |channel| {
            call(admin_client(channel), request.clone()).await
        })
        .await?
        .into_inner();
    show(cluster, &reply.members)
}

fn show(cluster: &ClusterArgs, members: &[admin::Member]) -> anyhow::Result<Ending> {
    let lines: Vec<MemberLine> = members.iter().map(MemberLine::of).collect();
    output::show(cluster.output.output, &lines, |lines| {
        let rows = lines.iter().map(MemberLine::row).collect();
        output::table(&["node", "id", "role", "peer", "client", "http"], &[], rows)
    })?;
    Ok(Ending::Good)
}

impl MemberLine {
    fn of(member: &admin::Member) -> MemberLine {
        let addresses = member.addresses.clone().unwrap_or_default();
        MemberLine {
            name: member.name.clone(),
            id: show_id(member.id),
            role: if member.voter { "voter" } else { "learner" },
            peer: addresses.peer,
            client: addresses.client,
            http: addresses.http,
        }
    }

    fn row(&self) -> Vec<String> {
        let shown = |address: &String| match address.is_empty() {
            true => "-".to_owned(),
            false => address.clone(),
        };
        vec![
            self.name.clone(),
            self.id.clone(),
            self.role.to_owned(),
            shown(&self.peer),
            shown(&self.client),
            shown(&self.http),
        ]
    }
}
