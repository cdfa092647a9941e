//! `quorate recover`: what remains when a majority is lost for good.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Ending;
use super::output::{line, note};

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(subcommand)]
    command: RecoverCommand,
}

#[derive(Debug, Subcommand)]
enum RecoverCommand {
    /// Make the data directory of one stopped survivor a cluster of its own
    ForceNewCluster(ForceArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Only when a majority of the nodes is lost for good. Take the survivor with the highest index
(`quorate status` and the log files show it). What the lost nodes acknowledged and this one never
received is gone. The old nodes can never come back into the new cluster.

  systemctl stop quorate
  quorate recover force-new-cluster --data-dir /var/lib/quorate
  systemctl start quorate        then grow it again: quorate member add …")]
struct ForceArgs {
    /// Data directory of the stopped node
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The phrase that the command asks for, for scripts
    #[arg(long, value_name = "PHRASE")]
    confirm: Option<String>,
}

pub(super) fn run(args: RecoverArgs) -> anyhow::Result<Ending> {
    let RecoverCommand::ForceNewCluster(args) = args.command;
    let facts = raft::recover::inspect(&args.data_dir)?;
    let phrase = format!("force new cluster of {}", facts.name);
    note(&format!(
        "\n  !!  FORCE A NEW CLUSTER OUT OF ONE NODE  !!\n\n\
         \x20 data directory  {}\n\
         \x20 node            {}\n\
         \x20 cluster         {:016x}\n\
         \x20 last entry      {} (term {})\n\n\
         \x20 Every write that this node never received is lost.\n\
         \x20 The other members are shut out for good, also when their machines come back.\n\
         \x20 If a majority of them can still be started, stop here and start them instead.\n",
        args.data_dir.display(),
        facts.name,
        facts.cluster,
        facts.last_log_index,
        facts.term,
    ));
    confirm(args.confirm.as_deref(), &phrase)?;
    let cluster_id = raft::recover::force_new_cluster(&args.data_dir)?;
    line(&format!(
        "{} is now the only member of cluster {cluster_id:016x}; start it, then add members",
        facts.name
    ));
    Ok(Ending::Good)
}

fn confirm(given: Option<&str>, phrase: &str) -> anyhow::Result<()> {
    let answer = match given {
        Some(answer) => answer.to_owned(),
        None if io::stdin().is_terminal() => {
            let mut err = io::stderr().lock();
            write!(err, "  Type `{phrase}` to go on: ")?;
            err.flush()?;
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer)?;
            answer
        }
        None => anyhow::bail!(
            "nothing was changed: standard input is no terminal, so pass --confirm '{phrase}'"
        ),
    };
    anyhow::ensure!(
        answer.trim() == phrase,
        "nothing was changed: `{}` is not `{phrase}`",
        answer.trim()
    );
    Ok(())
}
