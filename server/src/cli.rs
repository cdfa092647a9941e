//! The command line: what a person types, and what comes back on the screen.

mod args;
mod backup;
mod completion;
mod dev;
mod digest;
mod keys;
mod member;
mod milvus;
mod output;
mod recover;
mod serve;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod text;
mod transfer;
mod txn;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::stat::Mode;
use proto::admin::Subject;

/// Replicated coordinator for Milvus that also speaks the etcd v3 API.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "\
Three nodes on this machine:      quorate dev
How the cluster is:               quorate status
One node of a real cluster:       quorate serve --help

Any etcd v3 client works against the client port, etcdctl among them."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node
    Serve(serve::ServeArgs),
    /// Run a whole cluster on this machine, for trying things out
    Dev(dev::DevArgs),
    /// Show every node; the exit code is the health
    Status(status::StatusArgs),
    /// List, add, promote, remove, replace or update members
    Member(member::MemberArgs),
    /// Hand the leadership over to another node
    Transfer(transfer::TransferArgs),
    /// Show the digest of every node's state
    Digest(digest::DigestArgs),
    /// Show or change the replicated settings
    Settings(settings::SettingsArgs),
    /// Save, verify or restore a backup
    Backup(backup::BackupArgs),
    /// Last resort when a majority of the nodes is lost for good
    Recover(recover::RecoverArgs),
    /// Read a key or a range of keys
    Get(keys::GetArgs),
    /// Write a key
    Put(keys::PutArgs),
    /// Delete a key or a range of keys
    Del(keys::DelArgs),
    /// Print the changes of keys as they happen
    Watch(watch::WatchArgs),
    /// Run a transaction read from standard input
    Txn(txn::TxnArgs),
    /// Segments of Milvus's collections
    #[command(after_help = milvus::EXAMPLES_OF_SEGMENTS)]
    Segments(milvus::ThingsArgs),
    /// Virtual channels and their data nodes
    Channels(milvus::ChannelsArgs),
    /// Compaction plans; pause, resume and cancel them
    Compactions(milvus::CompactionsArgs),
    /// Indexes and their builds
    #[command(after_help = milvus::EXAMPLES_OF_INDEXES)]
    Indexes(milvus::ThingsArgs),
    /// Tasks of bulk imports
    #[command(after_help = milvus::EXAMPLES_OF_IMPORTS)]
    Imports(milvus::ThingsArgs),
    /// What waits to be collected; pause and resume garbage collection
    Gc(milvus::GarbageArgs),
    /// Compact a collection
    Compact(milvus::CompactArgs),
    /// Tell what a segment, channel, compaction or index waits for, and who must act
    Explain(milvus::ExplainArgs),
    /// Hand the coordinator's role to Milvus's own DataCoord, or take it back
    Coordinator(milvus::CoordinatorArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// How a command ended, besides an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Good,
    /// It works, and something is wrong.
    Degraded,
    /// There is no leader, or the keys asked for are not there.
    Bad,
}

/// A node that must not be started again before a person has looked; the unit file names it.
const EXIT_STAYS_DOWN: u8 = 78;

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    // Keys, values and the secrets of Milvus's object store are in the files that are made here:
    // they are their owner's alone, whatever the shell or the unit says.
    nix::sys::stat::umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(Ending::Good) => ExitCode::SUCCESS,
        Ok(Ending::Degraded) => ExitCode::from(1),
        Ok(Ending::Bad) => ExitCode::from(3),
        Err(error) => {
            output::error(&error);
            let is_final = error.downcast_ref().is_some_and(raft::StartError::is_final);
            ExitCode::from(if is_final { EXIT_STAYS_DOWN } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Completion(args) => completion::run(&args),
        Command::Recover(args) => recover::run(args),
        Command::Dev(args) => block_on(dev::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Member(args) => block_on(member::run(args)),
        Command::Transfer(args) => block_on(transfer::run(args)),
        Command::Digest(args) => block_on(digest::run(args)),
        Command::Settings(args) => block_on(settings::run(args)),
        Command::Backup(args) => backup::run(args),
        Command::Get(args) => block_on(keys::get(args)),
        Command::Put(args) => block_on(keys::put(args)),
        Command::Del(args) => block_on(keys::del(args)),
        Command::Watch(args) => block_on(watch::run(args)),
        Command::Txn(args) => block_on(txn::run(args)),
        Command::Segments(args) => block_on(milvus::things(Subject::Segment, args)),
        Command::Channels(args) => block_on(milvus::channels(args)),
        Command::Compactions(args) => block_on(milvus::compactions(args)),
        Command::Indexes(args) => block_on(milvus::things(Subject::Index, args)),
        Command::Imports(args) => block_on(milvus::things(Subject::Import, args)),
        Command::Gc(args) => block_on(milvus::garbage(args)),
        Command::Compact(args) => block_on(milvus::compact(args)),
        Command::Explain(args) => block_on(milvus::explain(args)),
        Command::Coordinator(args) => block_on(milvus::coordinator(args)),
    }
}

/// Client commands need no more than one thread.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
