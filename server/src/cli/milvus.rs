//! Commands on Milvus's things: `quorate segments list`, `quorate explain`, `quorate compact`, …

use clap::{Args, Subcommand};
use proto::admin::act_request::Action;
use proto::admin::{ActRequest, InspectRequest, Question, Sheet, Subject};
use proto::client::{Repeat, To, admin_client};

use super::args::{ClusterArgs, OutputFormat};
use super::{Ending, output};
use crate::config::checked::parse_time;
use crate::inspect;

pub(super) const EXAMPLES_OF_SEGMENTS: &str = "Examples:
  quorate segments list --collection books --state Growing
  quorate segments show 445811557825249939
  quorate explain segment 445811557825249939    what it waits for, and who must act";
pub(super) const EXAMPLES_OF_INDEXES: &str = "Examples:
  quorate indexes list --collection books       how many builds wait, run, and are done
  quorate indexes show 445811557825249939
  quorate explain index 445811557825249939      what it waits for, and who must act";
pub(super) const EXAMPLES_OF_IMPORTS: &str = "Examples:
  quorate imports list --collection books
  quorate imports show 445811557825249939";

/// What can be done with every kind of thing.
#[derive(Debug, Args)]
pub(super) struct ThingsArgs {
    #[command(subcommand)]
    command: ThingsCommand,
}

#[derive(Debug, Subcommand)]
enum ThingsCommand {
    /// List them
    List(ListArgs),
    /// Show one in full
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Of this collection only: its name or id
    #[arg(long, default_value = "", hide_default_value = true, value_name = "COLLECTION")]
    collection: String,
    /// Of this virtual channel only
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CHANNEL")]
    channel: String,
    /// In this state only, such as Growing or executing
    #[arg(long, default_value = "", hide_default_value = true, value_name = "STATE")]
    state: String,
    /// Lines at most
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    limit: u32,
    #[command(flatten)]
    reading: ReadingArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Its id, or the name of a channel
    id: String,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// How a question is asked.
#[derive(Debug, Args)]
struct ReadingArgs {
    /// What the asked node has, without asking the others: works without a majority
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate channels list --collection books
  quorate channels drain 1000003            moves its channels to other data nodes, one by one")]
pub(super) struct ChannelsArgs {
    #[command(subcommand)]
    command: ChannelsCommand,
}

#[derive(Debug, Subcommand)]
enum ChannelsCommand {
    /// List them
    List(ListArgs),
    /// Show one in full
    Show(ShowArgs),
    /// Move all channels of a data node to others, and give it no new ones
    Drain {
        /// Server id of the data node
        node: i64,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Let a data node have channels again
    Undrain {
        /// Server id of the data node
        node: i64,
        #[command(flatten)]
        act: ActArgs,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate compactions list --state executing
  quorate compactions pause                 nothing is planned until `resume`
  quorate compactions cancel 445811557825249939")]
pub(super) struct CompactionsArgs {
    #[command(subcommand)]
    command: CompactionsCommand,
}

#[derive(Debug, Subcommand)]
enum CompactionsCommand {
    /// List them
    List(ListArgs),
    /// Show one in full
    Show(ShowArgs),
    /// Plan no more of them
    Pause(ActArgs),
    /// Plan them again
    Resume(ActArgs),
    /// End one; its inputs stay as they are
    Cancel {
        /// The plan
        plan: i64,
        #[command(flatten)]
        act: ActArgs,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate gc list                           what is dropped and not collected yet
  quorate gc dry-run                        what would be collected now
  quorate gc report                         what was collected
  quorate gc pause --for 1h
  quorate gc resume")]
pub(super) struct GarbageArgs {
    #[command(subcommand)]
    command: GarbageCommand,
}

#[derive(Debug, Subcommand)]
enum GarbageCommand {
    /// List what waits to be collected, by collection
    List(ListArgs),
    /// Show the settings of garbage collection
    Show(ReadingArgs),
    /// Collect nothing for a while
    Pause {
        /// How long
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = parse_time)]
        time: std::time::Duration,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Collect again
    Resume(ActArgs),
    /// Tell what would be collected now, and why the rest stays
    DryRun(ActArgs),
    /// Tell what the leader has collected
    Report(ActArgs),
}

#[derive(Debug, Args)]
struct ActArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate compact books
  quorate compact 445811557825249939")]
pub(super) struct CompactArgs {
    /// The collection: its name or id
    collection: String,
    #[command(flatten)]
    act: ActArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate explain segment 445811557825249939
  quorate explain channel by-dev-rootcoord-dml_0_445811557825249939v0

Every line is a condition: whether it holds, for how long it has been waited for, and who must act.")]
pub(super) struct ExplainArgs {
    /// What it is
    #[arg(value_parser = ["segment", "channel", "compaction", "index"])]
    subject: String,
    /// Its id (of an index or of a build), or the name of a channel
    id: String,
    #[command(flatten)]
    reading: ReadingArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate coordinator hand-over             a DataCoord of Milvus that stands by takes over
  quorate coordinator take-over             ours serves again")]
pub(super) struct CoordinatorArgs {
    #[command(subcommand)]
    command: CoordinatorCommand,
}

#[derive(Debug, Subcommand)]
enum CoordinatorCommand {
    /// Finish what must not be left, and let Milvus's own DataCoord take the role
    HandOver {
        /// How long that may take; after it the role stays here
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
        within: std::time::Duration,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Take the role back, or take it from a DataCoord that still has a session
    TakeOver(ActArgs),
}

pub(super) async fn things(subject: Subject, args: ThingsArgs) -> anyhow::Result<Ending> {
    match args.command {
        ThingsCommand::List(args) => list(subject, args).await,
        ThingsCommand::Show(args) => show(subject, args).await,
    }
}

pub(super) async fn channels(args: ChannelsArgs) -> anyhow::Result<Ending> {
    match args.command {
        ChannelsCommand::List(args) => list(Subject::Channel, args).await,
        ChannelsCommand::Show(args) => show(Subject::Channel, args).await,
        ChannelsCommand::Drain { node, act: args } => act(&args, Action::Drain(node)).await,
        ChannelsCommand::Undrain { node, act: args } => act(&args, Action::Undrain(node)).await,
    }
}

pub(super) async fn compactions(args: CompactionsArgs) -> anyhow::Result<Ending> {
    match args.command {
        CompactionsCommand::List(args) => list(Subject::Compaction, args).await,
        CompactionsCommand::Show(args) => show(Subject::Compaction, args).await,
        CompactionsCommand::Pause(args) => act(&args, Action::PauseCompaction(true)).await,
        CompactionsCommand::Resume(args) => act(&args, Action::PauseCompaction(false)).await,
        CompactionsCommand::Cancel { plan, act: args } => {
            act(&args, Action::CancelCompaction(plan)).await
        }
    }
}

pub(super) async fn garbage(args: GarbageArgs) -> anyhow::Result<Ending> {
    match args.command {
        GarbageCommand::List(args) => list(Subject::Garbage, args).await,
        GarbageCommand::Show(args) => {
            let request = InspectRequest {
                subject: Subject::Garbage.into(),
                question: Question::Show.into(),
                ..InspectRequest::default()
            };
            inspect(request, &args).await
        }
        GarbageCommand::Pause { time, act: args } => {
            act(&args, Action::PauseGarbageS(time.as_secs().max(1))).await
        }
        GarbageCommand::Resume(args) => act(&args, Action::PauseGarbageS(0)).await,
        GarbageCommand::DryRun(mut args) => {
            // It lists the whole object store.
            args.cluster.timeout = args.cluster.timeout.max(DRY_RUN_WITHIN);
            act(&args, Action::GarbageDryRun(true)).await
        }
        GarbageCommand::Report(args) => act(&args, Action::GarbageReport(true)).await,
    }
}

pub(super) async fn compact(args: CompactArgs) -> anyhow::Result<Ending> {
    act(&args.act, Action::Compact(args.collection)).await
}

pub(super) async fn explain(args: ExplainArgs) -> anyhow::Result<Ending> {
    let subject = inspect::subject(&args.subject).unwrap_or_default();
    let request = InspectRequest {
        subject: subject.into(),
        question: Question::Explain.into(),
        id: args.id,
        ..InspectRequest::default()
    };
    inspect(request, &args.reading).await
}

pub(super) async fn coordinator(args: CoordinatorArgs) -> anyhow::Result<Ending> {
    match args.command {
        CoordinatorCommand::HandOver { within, act: mut args } => {
            // The answer comes when it is done.
            args.cluster.timeout = args.cluster.timeout.max(within + HAND_OVER_MARGIN);
            let ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            act(&args, Action::HandOverMs(ms)).await
        }
        CoordinatorCommand::TakeOver(args) => act(&args, Action::TakeOver(true)).await,
    }
}

const DRY_RUN_WITHIN: std::time::Duration = std::time::Duration::from_secs(600);
const HAND_OVER_MARGIN: std::time::Duration = std::time::Duration::from_secs(10);

async fn list(subject: Subject, args: ListArgs) -> anyhow::Result<Ending> {
    let request = InspectRequest {
        subject: subject.into(),
        question: Question::List.into(),
        collection: args.collection,
        channel: args.channel,
        state: args.state,
        limit: args.limit,
        ..InspectRequest::default()
    };
    inspect(request, &args.reading).await
}

async fn show(subject: Subject, args: ShowArgs) -> anyhow::Result<Ending> {
    let request = InspectRequest {
        subject: subject.into(),
        question: Question::Show.into(),
        id: args.id,
        ..InspectRequest::default()
    };
    inspect(request, &args.reading).await
}

async fn inspect(request: InspectRequest, args: &ReadingArgs) -> anyhow::Result<Ending> {
    let request = InspectRequest { local: args.local, ..request };
    let sheet = args
        .cluster
        .client()?
        .call(To::Any, Repeat::Safe, async |channel| {
            admin_client(channel).inspect(request.clone()).await
        })
        .await?
        .into_inner();
    match args.cluster.output.output {
        OutputFormat::Json => {
            output::show(OutputFormat::Json, &inspect::json(&sheet), |_| String::new())?;
        }
        OutputFormat::Table => print(&sheet),
    }
    Ok(Ending::Good)
}

fn print(sheet: &Sheet) {
    let heads: Vec<&str> = sheet.columns.iter().map(String::as_str).collect();
    let rows = sheet.rows.iter().map(|row| row.cells.clone()).collect();
    output::line(&output::table(&heads, &[], rows));
    if sheet.stale {
        output::note(&format!(
            "STALE: this is what {} has at revision {}; newer may exist",
            sheet.node, sheet.revision
        ));
    }
    sheet.notes.iter().for_each(|note| output::note(note));
}

async fn act(args: &ActArgs, action: Action) -> anyhow::Result<Ending> {
    let request = ActRequest { action: Some(action) };
    let client = args.cluster.patient_client()?;
    let reply = client
        .call(To::Leader, Repeat::Never, async |channel| {
            admin_client(channel).act(request.clone()).await
        })
        .await?
        .into_inner();
    match args.cluster.output.output {
        OutputFormat::Json => output::show(OutputFormat::Json, &reply.told, |_| String::new())?,
        OutputFormat::Table => reply.told.iter().for_each(|line| output::line(line)),
    }
    Ok(Ending::Good)
}
