//! Precedence of the sources, and the message of every bad value.

use std::collections::BTreeMap;
use std::path::PathBuf;

use expect_test::{Expect, expect};

use super::checked::Config;
use super::sources::File;
use super::{ConfigError, load};

const NAMED: [(&str, &str); 2] = [("name", "n1"), ("data-dir", "/nonexistent/n1")];

fn config(
    flags: &[(&'static str, &str)],
    environment: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Config, ConfigError> {
    let flags: BTreeMap<&'static str, String> =
        flags.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    let environment =
        environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let file = file.map(|text| File { path: PathBuf::from("quorate.toml"), text: text.to_owned() });
    Config::check(&load(&flags, environment, file.as_ref())?)
}

/// The message when these flags are added to a name and a directory.
fn refuse(flags: &[(&'static str, &str)], expected: Expect) {
    let all = [NAMED.as_slice(), flags].concat();
    expected.assert_eq(&config(&all, &[], None).expect_err("must be refused").to_string());
}

fn refuse_file(text: &str, expected: Expect) {
    let error = config(&NAMED, &[], Some(text)).expect_err("must be refused");
    expected.assert_eq(&error.to_string());
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "listen-client = \"127.0.0.1:1001\"\nlisten-peer = \"127.0.0.1:1002\"\n\
                listen-http = \"127.0.0.1:1003\"\nworker-threads = 2\n";
    let environment =
        [("QUORATE_LISTEN_CLIENT", "127.0.0.1:2001"), ("QUORATE_LISTEN_PEER", "127.0.0.1:2002")];
    let flags = [NAMED.as_slice(), &[("listen-client", "127.0.0.1:3001")]].concat();
    let config = config(&flags, &environment, Some(file)).expect("all is well formed");
    let lines: Vec<String> = config
        .effective
        .iter()
        .map(|line| format!("{} = {} ({})", line.name, line.value, line.source))
        .collect();
    expect![[r#"
        name = n1 (flag)
        data-dir = /nonexistent/n1 (flag)
        initial-cluster = n1=127.0.0.1:2002 (from advertise-peer)
        listen-client = 127.0.0.1:3001 (flag)
        listen-peer = 127.0.0.1:2002 (environment)
        listen-http = 127.0.0.1:1003 (quorate.toml:3)
        advertise-client = 127.0.0.1:3001 (from listen-client)
        advertise-peer = 127.0.0.1:2002 (from listen-peer)
        advertise-http = 127.0.0.1:1003 (from listen-http)
        heartbeat-interval = 50ms (default)
        election-timeout-min = 250ms (default)
        election-timeout-max = 400ms (default)
        request-timeout = 7s (default)
        shutdown-timeout = 10s (default)
        max-request-bytes = 1536KiB (default)
        snapshot-log-bytes = 256MiB (default)
        log-kept-bytes = 256MiB (default)
        snapshot-send-rate = 64MiB (default)
        disk-low-mark = 512MiB (default)
        disk-ballast = 64MiB (default)
        worker-threads = 2 (quorate.toml:4)
        log-level = info (default)
        log-format = text (default)"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn missing_settings_say_how_to_give_them() {
    expect!["name is not set: give every node its own, for example --name n1 (or QUORATE_NAME or `name` in the file)"]
        .assert_eq(&config(&[], &[], None).expect_err("no name").to_string());
    expect!["data-dir is not set: say where the node may keep its data, --data-dir DIR (or QUORATE_DATA_DIR or `data-dir` in the file)"]
        .assert_eq(&config(&NAMED[..1], &[], None).expect_err("no directory").to_string());
}

#[test]
fn bad_addresses_are_named_with_what_is_wrong() {
    refuse(
        &[("listen-client", "127.0.0.1")],
        expect![
            "listen-client = `127.0.0.1` (flag --listen-client): the port is missing; give HOST:PORT, for example 127.0.0.1:2379"
        ],
    );
    refuse(
        &[("listen-client", "http://127.0.0.1:2379")],
        expect![
            "listen-client = `http://127.0.0.1:2379` (flag --listen-client): give HOST:PORT without `http://`, for example 127.0.0.1:2379"
        ],
    );
    refuse(
        &[("listen-client", "127.0.0.1:99999")],
        expect![
            "listen-client = `127.0.0.1:99999` (flag --listen-client): `99999` is not a port; give 1 to 65535"
        ],
    );
    refuse(
        &[("listen-client", ":2379")],
        expect![
            "listen-client = `:2379` (flag --listen-client): the host is missing; give HOST:PORT, for example 127.0.0.1:2379"
        ],
    );
    refuse(
        &[("listen-client", "127.0.0.1:0")],
        expect![
            "listen-client = `127.0.0.1:0` (flag --listen-client): port 0 would be another one at each start; give 1 to 65535"
        ],
    );
    refuse(
        &[("listen-peer", "::1:2380")],
        expect![
            "listen-peer = `::1:2380` (flag --listen-peer): an IPv6 address stands in brackets; give [::1]:2380"
        ],
    );
    refuse(
        &[("listen-peer", "a b:2380")],
        expect![
            "listen-peer = `a b:2380` (flag --listen-peer): `a b` is not a host name; give HOST:PORT"
        ],
    );
    refuse(
        &[("listen-peer", "127.0.0.1:2379")],
        expect![
            "listen-peer = `127.0.0.1:2379` (flag --listen-peer): listen-client has it already; choose another port"
        ],
    );
    refuse(
        &[("listen-client", "0.0.0.0:2379")],
        expect![
            "advertise-client is not set: listen-client is 0.0.0.0:2379, which stands for every address of this machine and tells others none; set --advertise-client HOST:PORT to one that they can reach"
        ],
    );
    refuse(
        &[("advertise-client", "0.0.0.0:2379")],
        expect![
            "advertise-client = `0.0.0.0:2379` (flag --advertise-client): stands for every address of a machine, and nobody can connect to that; give the address that others use"
        ],
    );
}

#[test]
fn bad_members_are_named_with_what_is_wrong() {
    refuse(
        &[("name", "a b")],
        expect![
            "name = `a b` (flag --name): a name has 1 to 64 letters, digits, `-`, `_` or `.`, and no others"
        ],
    );
    refuse(
        &[("initial-cluster", "127.0.0.1:2380")],
        expect![
            "initial-cluster = `127.0.0.1:2380` (flag --initial-cluster): `127.0.0.1:2380` lacks a name; write NAME=HOST:PORT for each member"
        ],
    );
    refuse(
        &[("initial-cluster", "n2=127.0.0.1:2380")],
        expect![
            "initial-cluster = `n2=127.0.0.1:2380` (flag --initial-cluster): this node's name `n1` is not among n2; add n1=HOST:PEERPORT, the same list on every node"
        ],
    );
    refuse(
        &[("initial-cluster", "n1=127.0.0.1:2380,n1=127.0.0.1:2390")],
        expect![
            "initial-cluster = `n1=127.0.0.1:2380,n1=127.0.0.1:2390` (flag --initial-cluster): `n1` stands there twice; each member has its own name"
        ],
    );
    refuse(
        &[("initial-cluster", "n1=127.0.0.1:2380,n2=127.0.0.1:2380")],
        expect![
            "initial-cluster = `n1=127.0.0.1:2380,n2=127.0.0.1:2380` (flag --initial-cluster): n1 and n2 have the same address 127.0.0.1:2380"
        ],
    );
    refuse(
        &[("initial-cluster", "n1=127.0.0.1")],
        expect![
            "initial-cluster = `n1=127.0.0.1` (flag --initial-cluster): n1: the port is missing; give HOST:PORT, for example 127.0.0.1:2379"
        ],
    );
    refuse(
        &[("initial-cluster", " , ")],
        expect![
            "initial-cluster = ` , ` (flag --initial-cluster): no member; write NAME=HOST:PORT for each, separated by commas"
        ],
    );
}

#[test]
fn bad_units_and_bounds_are_named_with_what_is_right() {
    refuse(
        &[("heartbeat-interval", "50")],
        expect![
            "heartbeat-interval = `50` (flag --heartbeat-interval): not a time; write a number with ms, s, m or h, for example 500ms"
        ],
    );
    refuse(
        &[("heartbeat-interval", "50 parsecs")],
        expect![
            "heartbeat-interval = `50 parsecs` (flag --heartbeat-interval): not a time; write a number with ms, s, m or h, for example 500ms"
        ],
    );
    refuse(
        &[("heartbeat-interval", "1ms")],
        expect![
            "heartbeat-interval = `1ms` (flag --heartbeat-interval): out of bounds; from 10ms to 5s"
        ],
    );
    refuse(
        &[("election-timeout-min", "100ms")],
        expect![
            "election-timeout-min = `100ms` (flag --election-timeout-min): at least 3 heartbeats of 50ms must fit into it; the least is 150ms"
        ],
    );
    refuse(
        &[("election-timeout-max", "200ms")],
        expect![
            "election-timeout-max = `200ms` (flag --election-timeout-max): must be above election-timeout-min, 250ms"
        ],
    );
    refuse(
        &[("max-request-bytes", "1.5MB")],
        expect![
            "max-request-bytes = `1.5MB` (flag --max-request-bytes): not a size; write a whole number with one of B, KiB, MiB, GiB, TiB, KB, MB, GB"
        ],
    );
    refuse(
        &[("max-request-bytes", "2 furlongs")],
        expect![
            "max-request-bytes = `2 furlongs` (flag --max-request-bytes): not a size; write a whole number with one of B, KiB, MiB, GiB, TiB, KB, MB, GB"
        ],
    );
    refuse(
        &[("max-request-bytes", "1GiB")],
        expect![
            "max-request-bytes = `1GiB` (flag --max-request-bytes): out of bounds; from 4 KiB to 64 MiB"
        ],
    );
    refuse(
        &[("max-request-bytes", "99999999999TiB")],
        expect![
            "max-request-bytes = `99999999999TiB` (flag --max-request-bytes): more bytes than can be counted"
        ],
    );
    refuse(
        &[("worker-threads", "many")],
        expect![
            "worker-threads = `many` (flag --worker-threads): not a whole number; from 0 to 1024"
        ],
    );
    refuse(
        &[("worker-threads", "5000")],
        expect!["worker-threads = `5000` (flag --worker-threads): out of bounds; from 0 to 1024"],
    );
    refuse(
        &[("log-format", "xml")],
        expect!["log-format = `xml` (flag --log-format): neither `text` nor `json`"],
    );
    refuse(
        &[("log-level", "loud,=")],
        expect![
            "log-level = `loud,=` (flag --log-level): not a level (error, warn, info, debug, trace) and not a list such as info,raft=debug"
        ],
    );
    refuse(
        &[("data-dir", "/dev/null")],
        expect![
            "data-dir = `/dev/null` (flag --data-dir): exists and is not a directory; give another one"
        ],
    );
}

#[test]
fn a_bad_value_names_where_it_came_from() {
    refuse_file(
        "\n# comment\nworker-threads = 5000\n",
        expect!["worker-threads = `5000` (quorate.toml:3): out of bounds; from 0 to 1024"],
    );
    let error = config(&NAMED, &[("QUORATE_WORKER_THREADS", "5000")], None).expect_err("too few");
    expect!["worker-threads = `5000` (QUORATE_WORKER_THREADS): out of bounds; from 0 to 1024"]
        .assert_eq(&error.to_string());
}

#[test]
fn a_bad_file_is_refused_with_the_line() {
    refuse_file(
        "name = \n",
        expect![[r#"quorate.toml:1:8: not valid TOML: invalid string, expected `"`, `'`"#]],
    );
    refuse_file(
        "\nlisten-clients = \"127.0.0.1:1\"\n",
        expect!["quorate.toml:2: unknown key `listen-clients`, did you mean `listen-client`?"],
    );
    refuse_file(
        "listen_client = \"127.0.0.1:1\"\n",
        expect!["quorate.toml:1: unknown key `listen_client`, did you mean `listen-client`?"],
    );
    refuse_file(
        "colour = \"blue\"\n",
        expect!["quorate.toml:1: unknown key `colour`, see `quorate serve --help` for all of them"],
    );
    refuse_file(
        "[storage]\npath = \"x\"\n",
        expect![
            "quorate.toml:1: unknown key `storage`, see `quorate serve --help` for all of them"
        ],
    );
    refuse_file(
        "worker-threads = 1.5\n",
        expect![
            "quorate.toml:1: `worker-threads` is a number with a fraction: write it as text, a whole number or a list of texts"
        ],
    );
    refuse_file(
        "initial-cluster = [1, 2]\n",
        expect![
            "quorate.toml:1: `initial-cluster` is a list that holds something else than texts: write it as text, a whole number or a list of texts"
        ],
    );
    refuse_file(
        "worker-threads = true\n",
        expect![
            "quorate.toml:1: `worker-threads` is true or false: write it as text, a whole number or a list of texts"
        ],
    );
}

#[test]
fn a_list_of_members_may_be_a_list_in_the_file() {
    let file = "initial-cluster = [\"n2=10.0.0.2:2380\", \"n1=10.0.0.1:2380\"]\n";
    let config = config(&NAMED, &[], Some(file)).expect("all is well formed");
    let members: Vec<String> =
        config.initial_cluster.iter().map(|(name, address)| format!("{name}={address}")).collect();
    assert_eq!(members, ["n1=10.0.0.1:2380", "n2=10.0.0.2:2380"]);
}

#[test]
fn a_misspelt_variable_is_reported_and_others_are_left_alone() {
    let environment =
        [("QUORATE_LISTEN_CLIENTS", "127.0.0.1:1"), ("QUORATE_UNRELATED", "x"), ("HOME", "/")];
    let environment = environment.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let raw = load(&BTreeMap::new(), environment.into_iter(), None).expect("warnings only");
    expect!["QUORATE_LISTEN_CLIENTS is not read, did you mean QUORATE_LISTEN_CLIENT?"]
        .assert_eq(&raw.warnings.join("\n"));
}
