//! `quorate serve`: one node, from its settings to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::checked::{Config, LogFormat};
use crate::config::{File, Raw, SETTINGS, Setting, load};
use crate::coordinator::milvus_yaml::Line;

use super::{Ending, output};

const EXAMPLES: &str = "\
Every setting can stand in the file under the same name (listen-client = \"10.0.0.1:2379\") and in
the environment (QUORATE_LISTEN_CLIENT). A flag wins over the environment, that over the file.

One node, for trying things out:
  quorate serve --name n1 --data-dir ./n1

One of three, the same on each machine but for the name and the addresses:
  quorate serve --name n1 --data-dir /var/lib/quorate \\
    --listen-client 10.0.0.1:2379 --listen-peer 10.0.0.1:2380 --listen-http 10.0.0.1:2381 \\
    --initial-cluster n1=10.0.0.1:2380,n2=10.0.0.2:2380,n3=10.0.0.3:2380

With Milvus's DataCoord replaced, add on each of them:
    --coordinator datacoord --listen-coordinator 10.0.0.1:13333 --milvus-config milvus.yaml";

/// Made from the table of settings, so that no flag can lack its key or its variable.
#[derive(Debug)]
pub(super) struct ServeArgs {
    config: Option<PathBuf>,
    values: BTreeMap<&'static str, String>,
    check: bool,
    /// Set by `quorate dev`: a node must not outlive the process that started it.
    stop_with_stdin: bool,
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .short('c')
            .env("QUORATE_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file with any of the settings below");
        let check = Arg::new("check")
            .long("check")
            .action(ArgAction::SetTrue)
            .help("Print the effective configuration and exit");
        let stop_with_stdin = Arg::new("stop-with-stdin")
            .long("stop-with-stdin")
            .action(ArgAction::SetTrue)
            .hide(true);
        command
            .arg(config)
            .arg(check)
            .arg(stop_with_stdin)
            .args(SETTINGS.iter().map(flag))
            .after_help(EXAMPLES)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let help = match setting.default {
        Some(default) => format!("{} [default: {default}]", setting.help),
        None => setting.help.to_owned(),
    };
    Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value_name)
        .help(help)
        .help_heading(setting.heading)
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |setting: &'static Setting| {
            matches.get_one::<String>(setting.name).map(|text| (setting.name, text.clone()))
        };
        Ok(ServeArgs {
            config: matches.get_one::<PathBuf>("config").cloned(),
            values: SETTINGS.iter().filter_map(value).collect(),
            check: matches.get_flag("check"),
            stop_with_stdin: matches.get_flag("stop-with-stdin"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub(super) fn run(args: ServeArgs) -> anyhow::Result<Ending> {
    let file = args.config.as_deref().map(File::read).transpose()?;
    let raw = load(&args.values, std::env::vars(), file.as_ref())?;
    let config = Config::check(&raw)?;
    if args.check {
        show_effective(&config, &raw);
        return Ok(Ending::Good);
    }
    crate::telemetry::start(config.log_format, config.log_filter.clone());
    crate::telemetry::abort_on_panic(config.data_dir.clone());
    show_effective(&config, &raw);
    crate::app::run(config, args.stop_with_stdin)?;
    Ok(Ending::Good)
}

/// What was taken of Milvus's configuration, and what has no meaning here.
fn milvus_keys(lines: &[Line]) -> String {
    let rows =
        lines.iter().map(|line| vec![line.key.clone(), line.value.clone(), line.fate.to_string()]);
    output::table(&["key of Milvus", "value", "here"], &[], rows.collect())
}

/// People read a table once at the start; machines get the same as one log record.
fn show_effective(config: &Config, raw: &Raw) {
    match config.log_format {
        LogFormat::Text => {
            let rows = config
                .effective
                .iter()
                .map(|line| vec![line.name.to_owned(), line.value.clone(), line.source.clone()]);
            output::note(&output::table(&["setting", "value", "source"], &[], rows.collect()));
            if let Some(coordinator) = &config.coordinator
                && !coordinator.milvus.is_empty()
            {
                output::note(&milvus_keys(&coordinator.milvus));
            }
        }
        LogFormat::Json => {
            for line in config.coordinator.iter().flat_map(|coordinator| &coordinator.milvus) {
                let fate = line.fate.to_string();
                tracing::info!(key = line.key, value = line.value, fate, "key of Milvus");
            }
            let settings = serde_json::to_string(&config.effective).unwrap_or_default();
            tracing::info!(settings, "effective configuration");
        }
    }
    for warning in &raw.warnings {
        tracing::warn!(warning, "unread environment variable");
    }
}
