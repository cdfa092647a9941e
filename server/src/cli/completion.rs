//! `quorate completion`: a script that teaches the shell our commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Ending, output};

#[derive(Debug, Args)]
#[command(after_help = "\
For this session:   source <(quorate completion bash)
For good:           quorate completion bash > /etc/bash_completion.d/quorate
                    quorate completion zsh > \"${fpath[1]}/_quorate\"")]
pub(super) struct CompletionArgs {
    /// The shell that will read it
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs) -> anyhow::Result<Ending> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quorate", &mut script);
    output::raw(&script);
    Ok(Ending::Good)
}
