//! What a person types, and what comes of it.

use clap::{CommandFactory, Parser};
use expect_test::{Expect, expect};

use super::Cli;

/// The parsed command, or the first lines of the refusal.
fn parse(line: &str, expected: Expect) {
    let words = std::iter::once("quorate").chain(line.split_whitespace());
    let text = match Cli::try_parse_from(words) {
        Ok(cli) => format!("{:?}", cli.command),
        Err(error) => error.to_string().lines().take(4).collect::<Vec<_>>().join("\n"),
    };
    expected.assert_eq(&text);
}

#[test]
fn the_definition_of_the_commands_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_setting_can_be_given_in_all_three_ways() {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("there is one");
    for setting in crate::config::SETTINGS {
        let flag = serve.get_arguments().find(|arg| arg.get_long() == Some(setting.name));
        assert!(flag.is_some(), "--{} is missing", setting.name);
        assert!(crate::config::setting(setting.name).is_some(), "{} in the file", setting.name);
        let variable = crate::config::variable(setting.name);
        let wanted = format!("QUORATE_{}", setting.name.to_uppercase().replace('-', "_"));
        assert_eq!(variable, wanted);
    }
}

#[test]
fn every_command_shows_an_example_or_says_what_it_is_for() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{} has no description", command.get_name());
    }
}

#[test]
fn commands_take_endpoints_and_an_output_format() {
    parse(
        "status -e 10.0.0.1:2379,10.0.0.2:2379 -o json",
        expect![[
            r#"Status(StatusArgs { cluster: ClusterArgs { endpoints: ["10.0.0.1:2379", "10.0.0.2:2379"], timeout: 10s, output: OutputArgs { output: Json } } })"#
        ]],
    );
    parse(
        "get by-dev/ --prefix --limit 5 --rev 7 --keys-only",
        expect![[
            r#"Get(GetArgs { keys: KeysArgs { key: "by-dev/", end: None, prefix: true }, limit: 5, rev: 7, count_only: false, keys_only: true, value: false, serializable: false, order: Ascend, cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } })"#
        ]],
    );
    parse(
        "del a b",
        expect![[
            r#"Del(DelArgs { keys: KeysArgs { key: "a", end: Some("b"), prefix: false }, cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } })"#
        ]],
    );
    parse(
        "put k v --lease 0x1a",
        expect![[
            r#"Put(PutArgs { key: "k", value: "v", lease: 26, cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } })"#
        ]],
    );
    parse(
        "watch k --rev 3",
        expect![[
            r#"Watch(WatchArgs { keys: KeysArgs { key: "k", end: None, prefix: false }, rev: 3, cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } })"#
        ]],
    );
    parse(
        "transfer n2 --timeout 3s",
        expect![[
            r#"Transfer(TransferArgs { to: Some("n2"), cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 3s, output: OutputArgs { output: Table } } })"#
        ]],
    );
    parse(
        "member replace n3 --with 10.0.0.3:2380",
        expect![[
            r#"Member(MemberArgs { command: Replace(ReplaceArgs { member: "n3", with: "10.0.0.3:2380", catch_up: 600s, cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } }) })"#
        ]],
    );
    parse(
        "member add 10.0.0.2:2380",
        expect![[
            r#"Member(MemberArgs { command: Add(AddArgs { peer: "10.0.0.2:2380", cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } }) })"#
        ]],
    );
    parse(
        "backup save monday.qbk",
        expect![[
            r#"Backup(BackupArgs { command: Save(SaveArgs { file: "monday.qbk", local: false, cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } }) })"#
        ]],
    );
    parse(
        "settings --quota 16GiB --retention-time 1h",
        expect![[
            r#"Settings(SettingsArgs { root_path: None, quota: Some(17179869184), retention_revisions: None, retention_time: Some(3600s), txn_ops_max: None, cluster: ClusterArgs { endpoints: ["127.0.0.1:2379"], timeout: 10s, output: OutputArgs { output: Table } } })"#
        ]],
    );
    parse(
        "dev --nodes 5 --base-port 3000 -- --log-level debug",
        expect![[
            r#"Dev(DevArgs { nodes: 5, data_dir: "quorate-dev", base_port: 3000, settings: ["--log-level", "debug"] })"#
        ]],
    );
}

#[test]
fn mistakes_are_named() {
    parse(
        "statsu",
        expect![[r#"
        error: unrecognized subcommand 'statsu'

          tip: some similar subcommands exist: 'settings', 'status'
    "#]],
    );
    parse(
        "get",
        expect![[r#"
        error: the following required arguments were not provided:
          <KEY>

        Usage: quorate get <KEY> [END]"#]],
    );
    parse(
        "get a b --prefix",
        expect![[r#"
        error: the argument '[END]' cannot be used with '--prefix'

        Usage: quorate get <KEY> <END>
    "#]],
    );
    parse(
        "put k v --lease nothex",
        expect![[r#"
        error: invalid value 'nothex' for '--lease <ID>': not a lease id; they are hexadecimal, see `etcdctl lease list`

        For more information, try '--help'."#]],
    );
    parse(
        "status -o xml",
        expect![[r#"
        error: invalid value 'xml' for '--output <FORMAT>'
          [possible values: table, json]

        For more information, try '--help'."#]],
    );
    parse(
        "dev --nodes 10",
        expect![[r#"
        error: invalid value '10' for '--nodes <NODES>': 10 is not in 1..=9

        For more information, try '--help'."#]],
    );
    parse(
        "serve --nmae n1",
        expect![[r#"
        error: unexpected argument '--nmae' found

          tip: a similar argument exists: '--name'
    "#]],
    );
    parse(
        "settings --quota much",
        expect![[r#"
        error: invalid value 'much' for '--quota <SIZE>': not a size; write a whole number with one of B, KiB, MiB, GiB, TiB, KB, MB, GB

        For more information, try '--help'."#]],
    );
    parse(
        "transfer --timeout soon",
        expect![[r#"
        error: invalid value 'soon' for '--timeout <TIME>': not a time; write a number with ms, s, m or h, for example 500ms

        For more information, try '--help'."#]],
    );
}
