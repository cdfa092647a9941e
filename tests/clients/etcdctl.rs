//! Debian's `etcdctl` 3.4. The expected texts are what stock etcd 3.4.23 answers.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use expect_test::{Expect, expect};
use tests::clients::{etcdctl, run};
use tests::fixture::Fixture;
use tests::transcript::transcript;

fn check(script: &str, expected: Expect) {
    let fixture = Fixture::start();
    expected.assert_eq(&transcript(&fixture, script));
}

#[test]
fn keys_are_put_read_and_deleted() {
    check(
        r"
        put a 1
        put b '2 and more'
        put a 11 --prev-kv
        put empty ''
        get a
        get a -w json
        get a --print-value-only
        get --prefix '' --keys-only
        get a c --limit 1 -w json
        get a --rev 2
        get --prefix '' --order DESCEND --sort-by MODIFY
        get --from-key b
        get missing
        get a --consistency s
        put a --ignore-value
        put fresh --ignore-value
        put b x --lease 1234abcd
        del b --prev-kv
        del missing
        del --prefix ''
        get --prefix '' -w json
        get a --rev 99
        ",
        expect![[r#"
            $ put a 1
            OK
            $ put b '2 and more'
            OK
            $ put a 11 --prev-kv
            OK
            a
            1
            $ put empty ''
            OK
            $ get a
            a
            11
            $ get a -w json
            {"header":{"cluster_id":<cluster_id>,"member_id":<member_id>,"revision":5,"raft_term":<raft_term>},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":4,"version":2,"value":"MTE="}],"count":1}
            $ get a --print-value-only
            11
            $ get --prefix '' --keys-only
            a

            b

            empty

            $ get a c --limit 1 -w json
            {"header":{"cluster_id":<cluster_id>,"member_id":<member_id>,"revision":5,"raft_term":<raft_term>},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":4,"version":2,"value":"MTE="}],"more":true,"count":2}
            $ get a --rev 2
            a
            1
            $ get --prefix '' --order DESCEND --sort-by MODIFY
            empty

            a
            11
            b
            2 and more
            $ get --from-key b
            b
            2 and more
            empty

            $ get missing
            $ get a --consistency s
            a
            11
            $ put a --ignore-value
            OK
            $ put fresh --ignore-value
            log: "rpc error: code = InvalidArgument desc = etcdserver: key not found"}
            Error: etcdserver: key not found
            $ put b x --lease 1234abcd
            log: "rpc error: code = NotFound desc = etcdserver: requested lease not found"}
            Error: etcdserver: requested lease not found
            $ del b --prev-kv
            1
            b
            2 and more
            $ del missing
            0
            $ del --prefix ''
            2
            $ get --prefix '' -w json
            {"header":{"cluster_id":<cluster_id>,"member_id":<member_id>,"revision":8,"raft_term":<raft_term>}}
            $ get a --rev 99
            log: "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision is a future revision"}
            Error: etcdserver: mvcc: required revision is a future revision
        "#]],
    );
}

#[test]
fn transactions_compare_and_nest_in_revisions() {
    check(
        r#"
        put x 1
        txn << 'value("x") = "1"\n\nput x 2\nget x\nput y 1\n\nget x\n\n'
        txn << 'value("x") = "1"\n\nput x 3\n\nget x\ndel y\n\n'
        txn -w json << 'ver("x") > "1"\ncreate("nope") = "0"\nmod("x") = "3"\n\nput z 1\ndel x\n\nput never 1\n\n'
        txn << '\nput twice 1\nput twice 2\n\n\n'
        get --prefix '' -w json
        "#,
        expect![[r#"
            $ put x 1
            OK
            $ txn << 'value("x") = "1"\n\nput x 2\nget x\nput y 1\n\nget x\n\n'
            SUCCESS

            OK

            x
            2

            OK
            $ txn << 'value("x") = "1"\n\nput x 3\n\nget x\ndel y\n\n'
            FAILURE

            x
            2

            1
            $ txn -w json << 'ver("x") > "1"\ncreate("nope") = "0"\nmod("x") = "3"\n\nput z 1\ndel x\n\nput never 1\n\n'
            {"header":{"cluster_id":<cluster_id>,"member_id":<member_id>,"revision":5,"raft_term":<raft_term>},"succeeded":true,"responses":[{"Response":{"ResponsePut":{"header":{"revision":5}}}},{"Response":{"ResponseDeleteRange":{"header":{"revision":5},"deleted":1}}}]}
            $ txn << '\nput twice 1\nput twice 2\n\n\n'
            log: "rpc error: code = InvalidArgument desc = etcdserver: duplicate key given in txn request"}
            Error: etcdserver: duplicate key given in txn request
            $ get --prefix '' -w json
            {"header":{"cluster_id":<cluster_id>,"member_id":<member_id>,"revision":5,"raft_term":<raft_term>},"kvs":[{"key":"eg==","create_revision":5,"mod_revision":5,"version":1,"value":"MQ=="}],"count":1}
        "#]],
    );
}

#[test]
fn old_revisions_are_compacted_away() {
    check(
        r"
        put k 1
        put k 2
        put k 3
        compaction 3
        get k --rev 2
        get k --rev 3
        get k
        compaction 3
        compaction 99
        compaction 4 --physical
        get k --rev 4
        ",
        expect![[r#"
            $ put k 1
            OK
            $ put k 2
            OK
            $ put k 3
            OK
            $ compaction 3
            compacted revision 3
            $ get k --rev 2
            log: "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision has been compacted"}
            Error: etcdserver: mvcc: required revision has been compacted
            $ get k --rev 3
            k
            2
            $ get k
            k
            3
            $ compaction 3
            log: "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision has been compacted"}
            Error: etcdserver: mvcc: required revision has been compacted
            $ compaction 99
            log: "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision is a future revision"}
            Error: etcdserver: mvcc: required revision is a future revision
            $ compaction 4 --physical
            compacted revision 4
            $ get k --rev 4
            k
            3
        "#]],
    );
}

#[test]
fn leases_hold_keys_and_take_them_along() {
    check(
        r"
        lease grant 300
        lease list
        put a 1 --lease <id1>
        put b 2 --lease <id1>
        put a 11
        get b -w json
        lease keep-alive --once <id1>
        lease revoke <id1>
        get --prefix '' --keys-only
        lease revoke <id1>
        lease timetolive <id1>
        lease list
        ",
        expect![[r#"
            $ lease grant 300
            lease <id1> granted with TTL(300s)
            $ lease list
            found 1 leases
            <id1>
            $ put a 1 --lease <id1>
            OK
            $ put b 2 --lease <id1>
            OK
            $ put a 11
            OK
            $ get b -w json
            {"header":{"cluster_id":<cluster_id>,"member_id":<member_id>,"revision":4,"raft_term":<raft_term>},"kvs":[{"key":"Yg==","create_revision":3,"mod_revision":3,"version":1,"value":"Mg==","lease":<id1>}],"count":1}
            $ lease keep-alive --once <id1>
            lease <id1> keepalived with TTL(300)
            $ lease revoke <id1>
            lease <id1> revoked
            $ get --prefix '' --keys-only
            a

            $ lease revoke <id1>
            log: "rpc error: code = NotFound desc = etcdserver: requested lease not found"}
            Error: failed to revoke lease (etcdserver: requested lease not found)
            $ lease timetolive <id1>
            lease <id1> already expired
            $ lease list
            found 0 leases
        "#]],
    );
}

#[test]
fn a_lease_tells_its_time_and_keys_on_every_node() {
    let fixture = Fixture::start();
    let granted = ctl(&fixture, &["lease", "grant", "120", "-w", "json"]);
    let id = granted["ID"].as_i64().expect("an id");
    assert_eq!(granted["TTL"], 120);
    let hex = format!("{id:x}");
    let _put = ctl(&fixture, &["put", "held", "1", "--lease", &hex, "-w", "json"]);
    for endpoint in fixture.cluster.endpoints() {
        let told = ctl_at(&endpoint, &["lease", "timetolive", &hex, "--keys", "-w", "json"]);
        assert_eq!(told["id"].as_i64(), Some(id));
        assert_eq!(told["granted-ttl"], 120);
        let left = told["ttl"].as_i64().expect("a number");
        assert!((110..=120).contains(&left), "{left} s of 120 are left");
        assert_eq!(told["keys"][0], "aGVsZA==", "held");
    }
}

#[test]
fn an_expired_lease_takes_its_keys_along() {
    let fixture = Fixture::start();
    let id = ctl(&fixture, &["lease", "grant", "2", "-w", "json"])["ID"].as_i64().expect("an id");
    let mut watch = Background::start(&fixture, &["watch", "gone", "--rev", "2"]);
    let _put = ctl(&fixture, &["put", "gone", "1", "--lease", &format!("{id:x}"), "-w", "json"]);
    assert_eq!(watch.lines(3), ["PUT", "gone", "1"]);
    assert_eq!(watch.lines(3), ["DELETE", "gone", ""]);
    let left = ctl(&fixture, &["get", "gone", "-w", "json"]);
    assert!(left.get("kvs").is_none(), "{left}");
}

#[test]
fn watches_see_history_and_what_follows_on_every_node() {
    let fixture = Fixture::start();
    let _done = transcript(&fixture, "put w/a 1\nput w/b 2\ndel w/a\nput other 1");
    let history = ["PUT", "w/a", "1", "PUT", "w/b", "2", "DELETE", "w/a", "1", "w/a", ""];
    let mut expected = history.map(str::to_owned).to_vec();
    for endpoint in fixture.cluster.endpoints() {
        let mut watch =
            Background::at(&endpoint, &["watch", "--prefix", "w/", "--rev", "2", "--prev-kv"]);
        assert_eq!(watch.lines(expected.len()), expected);
        let key = format!("w/{endpoint}");
        let _put = ctl(&fixture, &["put", &key, "new", "-w", "json"]);
        assert_eq!(watch.lines(3), ["PUT", &key, "new"]);
        expected.extend(["PUT".to_owned(), key, "new".to_owned()]);
    }
}

#[test]
fn a_watch_below_the_compacted_revision_says_so() {
    // On one node: as in etcd, another may not have heard of the compaction when the watch comes.
    check(
        r"
        put k 1
        put k 2
        put k 3
        @1 compaction 4
        @1 watch k --rev 2
        ",
        expect![[r#"
            $ put k 1
            OK
            $ put k 2
            OK
            $ put k 3
            OK
            $ @1 compaction 4
            compacted revision 4
            $ @1 watch k --rev 2
            watch was canceled (etcdserver: mvcc: required revision has been compacted)
            Error: watch is canceled by the server
        "#]],
    );
}

#[test]
fn locks_are_held_by_one_at_a_time() {
    let fixture = Fixture::start();
    let mut first = Background::start(&fixture, &["lock", "mutex"]);
    let held = first.lines(1);
    assert!(held[0].starts_with("mutex/"), "{held:?}");
    let mut second = Background::start(&fixture, &["lock", "mutex"]);
    second.nothing_for(Duration::from_millis(700));
    first.interrupt();
    assert!(second.lines(1)[0].starts_with("mutex/"));
    second.interrupt();
    let script = "lock mutex echo held";
    assert_eq!(transcript(&fixture, script), "$ lock mutex echo held\nheld\n");
}

#[test]
fn elections_have_one_leader_and_a_successor() {
    let fixture = Fixture::start();
    let mut first = Background::start(&fixture, &["elect", "office", "one"]);
    assert_eq!(first.lines(2)[1], "one");
    let mut second = Background::start(&fixture, &["elect", "office", "two"]);
    let mut observer = Background::start(&fixture, &["elect", "-l", "office"]);
    assert_eq!(observer.lines(2)[1], "one");
    first.interrupt();
    assert_eq!(second.lines(2)[1], "two");
    assert_eq!(observer.lines(2)[1], "two");
}

#[test]
fn members_are_listed_with_addresses_that_answer() {
    let fixture = Fixture::start();
    let listed = ctl(&fixture, &["member", "list", "-w", "json"]);
    let members = listed["members"].as_array().expect("members");
    let mut names: Vec<&str> = members.iter().filter_map(|it| it["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["n1", "n2", "n3"]);
    for member in members {
        let url = member["clientURLs"][0].as_str().expect("at least one client URL");
        let endpoint = url.strip_prefix("http://").expect("a URL with a scheme");
        let answer = ctl_at(endpoint, &["endpoint", "status", "-w", "json"]);
        assert_eq!(answer[0]["Status"]["header"]["member_id"], member["ID"]);
        assert!(member["peerURLs"][0].as_str().is_some_and(|url| url.starts_with("http://")));
    }
}

#[test]
fn every_endpoint_tells_its_status_health_and_hash() {
    let fixture = Fixture::start();
    let _done = transcript(&fixture, "put a 1\nput b 2\ndel a\nput c 3");
    let status = ctl(&fixture, &["endpoint", "status", "-w", "json"]);
    let rows = status.as_array().expect("one row an endpoint");
    assert_eq!(rows.len(), 3);
    let leader = &rows[0]["Status"]["leader"];
    let leading =
        rows.iter().filter(|row| row["Status"]["header"]["member_id"] == row["Status"]["leader"]);
    assert_eq!(leading.count(), 1, "{status}");
    for row in rows {
        let status = &row["Status"];
        assert_eq!(&status["leader"], leader);
        assert_eq!(status["header"]["revision"], 5);
        assert!(status["version"].as_str().is_some_and(|it| it.starts_with("3.")), "{status}");
        assert!(status["dbSize"].as_i64().is_some_and(|bytes| bytes > 0), "{status}");
        assert!(status["raftIndex"].as_u64() >= status["raftAppliedIndex"].as_u64(), "{status}");
        assert!(status["raftTerm"].as_u64() > Some(0), "{status}");
    }
    let health = ctl(&fixture, &["endpoint", "health", "-w", "json"]);
    let healthy = health.as_array().expect("one row an endpoint");
    assert!(healthy.iter().all(|row| row["health"] == true), "{health}");
    let hashes = ctl(&fixture, &["endpoint", "hashkv", "-w", "json"]);
    let hashes = hashes.as_array().expect("one row an endpoint");
    assert_eq!(hashes.len(), 3);
    assert!(hashes.iter().all(|row| row["HashKV"]["hash"] == hashes[0]["HashKV"]["hash"]));
    assert!(hashes[0]["HashKV"]["hash"].as_u64() > Some(0));
}

#[test]
fn leadership_moves_where_it_is_told_to() {
    let fixture = Fixture::start();
    let status = ctl(&fixture, &["endpoint", "status", "-w", "json"]);
    let rows = status.as_array().expect("one row an endpoint");
    let id_of = |row: &serde_json::Value| row["Status"]["header"]["member_id"].as_u64();
    let leads = |row: &&serde_json::Value| id_of(row) == row["Status"]["leader"].as_u64();
    let leader = rows.iter().find(leads).expect("one leads");
    let target = rows.iter().find(|row| !leads(row)).and_then(id_of).expect("one follows");
    let endpoint = leader["Endpoint"].as_str().expect("text");
    let moved = run(
        etcdctl(&fixture.endpoints()).args(["move-leader", &format!("{target:x}")]),
        "",
        Duration::from_secs(20),
    );
    assert!(moved.success, "{moved:?}");
    let after = ctl_at(endpoint, &["endpoint", "status", "-w", "json"]);
    assert_eq!(after[0]["Status"]["leader"].as_u64(), Some(target));
    // A leader cannot be told to move to nobody that it knows.
    let wrong = run(
        etcdctl(&fixture.endpoints()).args(["move-leader", "123456789abcdef0"]),
        "",
        Duration::from_secs(20),
    );
    assert!(!wrong.success, "{wrong:?}");
}

#[test]
fn alarms_defragmentation_and_auth_answer_as_an_idle_etcd() {
    let fixture = Fixture::start();
    assert_eq!(transcript(&fixture, "alarm list\nalarm disarm"), "$ alarm list\n$ alarm disarm\n");
    let defrag = run(etcdctl(&fixture.endpoints()).args(["defrag"]), "", Duration::from_secs(30));
    assert!(defrag.success, "{defrag:?}");
    assert_eq!(defrag.stdout.lines().count(), 3, "{defrag:?}");
    let disabled = transcript(&fixture, "auth disable\nuser list\nrole list");
    assert!(!disabled.contains("panic"), "{disabled}");
}

#[test]
fn limits_are_those_of_etcd() {
    let fixture = Fixture::start();
    let puts = |n_ops: usize| {
        let ops: String = (0..n_ops).map(|n| format!("put k{n} v\n")).collect();
        let input = format!("\n{ops}\n\n");
        run(etcdctl(&fixture.endpoints()).arg("txn"), &input, Duration::from_secs(30))
    };
    assert!(puts(128).success);
    let refused = puts(129);
    assert!(!refused.success);
    let wanted = "etcdserver: too many operations in txn request";
    assert!(refused.stderr.contains(wanted), "{refused:?}");
    let large = run(
        etcdctl(&fixture.endpoints()).args(["put", "large"]),
        &"x".repeat(1_400_000),
        Duration::from_secs(30),
    );
    assert!(large.success, "{large:?}");
}

fn ctl(fixture: &Fixture, arguments: &[&str]) -> serde_json::Value {
    ctl_at(&fixture.endpoints(), arguments)
}

fn ctl_at(endpoints: &str, arguments: &[&str]) -> serde_json::Value {
    let said = run(etcdctl(endpoints).args(arguments), "", Duration::from_secs(30));
    assert!(said.success, "{arguments:?}: {said:?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// A command that goes on until it is told to stop; killed when dropped.
struct Background {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Background {
    fn start(fixture: &Fixture, arguments: &[&str]) -> Background {
        Background::at(&fixture.endpoints(), arguments)
    }

    fn at(endpoints: &str, arguments: &[&str]) -> Background {
        let mut command: Command = etcdctl(endpoints);
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcdctl is installed: `make setup`");
        let stdout = child.stdout.take().expect("piped above");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Background { child, lines }
    }

    /// The next lines that it prints.
    fn lines(&mut self, n_lines: usize) -> Vec<String> {
        let next = |_| self.lines.recv_timeout(Duration::from_secs(20));
        let lines: Vec<String> = (0..n_lines).map_while(|at| next(at).ok()).collect();
        assert_eq!(lines.len(), n_lines, "it printed only {lines:?}");
        lines
    }

    fn nothing_for(&mut self, time: Duration) {
        let line = self.lines.recv_timeout(time);
        assert!(line.is_err(), "it printed {line:?}");
    }

    /// Ends it as Ctrl-C would, so that it gives back what it holds.
    fn interrupt(&mut self) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-INT", &pid]).status().expect("kill exists");
        assert!(told.success());
        let _ = self.child.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
