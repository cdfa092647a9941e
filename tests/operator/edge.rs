//! What meets a client at the door: paths that are not there, probes with wishes, errors that fit
//! their headers, connections that say nothing.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use chaos::load::wire::{Connection, encode};
use proto::etcd;
use proto::etcd::request_op::Request as Op;
use tests::clients::run;
use tonic::Code;

use crate::three_nodes;

const PATIENCE: Duration = Duration::from_secs(10);

/// Body and code of an HTTP answer.
fn curl(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "5", "-w", "\n%{http_code}"]).args(arguments);
    let said = run(&mut command, "", PATIENCE).stdout;
    let (body, code) = said.rsplit_once('\n').expect("the code comes last");
    (body.to_owned(), code.to_owned())
}

#[test]
fn paths_that_are_not_there_are_404_and_methods_unimplemented() {
    let fixture = three_nodes();
    let node = &fixture.cluster.nodes[0];
    for port in [node.ports.client(), node.ports.http()] {
        for path in ["nonsense", "v3/kv/put", "etcdserverpb.KV/Nonsense", "livez/nonsense", ""] {
            if path.is_empty() && port == node.ports.http() {
                // The index.
                continue;
            }
            for method in ["GET", "POST"] {
                let url = format!("http://{port}/{path}");
                let (body, code) = curl(&["-X", method, "-d", "{}", &url]);
                assert_eq!(code, "404", "{method} {url}: {body}");
            }
        }
    }
    // A call of gRPC without gRPC does not succeed either.
    let put = format!("http://{}/etcdserverpb.KV/Put", node.ports.client());
    assert_eq!(curl(&["-d", "{}", &put]).1, "404");

    let call = |path: &str| -> String {
        fixture.runtime.block_on(async {
            let connection = Connection::open(&node.ports.client()).await.expect("it listens");
            let head = connection.head(path).expect("it is a path");
            let (answer, mut body) = connection.begin(&head).await.expect("it is open");
            // The answer may come before the message.
            let _ = body.send_data(encode(&etcd::PutRequest::default()), true);
            let answer = answer.await.expect("it is answered");
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            // As it travels: spaces and quotes are written as %XX.
            let message = header("grpc-message").unwrap_or_default();
            let message = message.replace("%20", " ").replace("%60", "`");
            format!("status {}: {message}", header("grpc-status").unwrap_or_default())
        })
    };
    for path in ["/etcdserverpb.KV/Nonsense", "/etcdserverpb.Lease/Nonsense", "/no.Such/Method"] {
        let refused = call(path);
        assert!(refused.contains("status 12") && refused.contains("unknown method"), "{refused}");
    }
    let lock = call("/v3lockpb.Lock/Lock");
    assert!(lock.contains("status 12") && lock.contains("`etcdctl lock`"), "{lock}");
    let campaign = call("/v3electionpb.Election/Campaign");
    assert!(campaign.contains("`etcdctl elect`"), "{campaign}");
}

#[test]
fn probes_have_etcds_wishes() {
    let fixture = three_nodes();
    let node = &fixture.cluster.nodes[0];
    let get = |path: &str| curl(&[&format!("http://{}/{path}", node.ports.client())]);
    let healthy = (r#"{"health":"true","reason":""}"#.to_owned(), "200".to_owned());
    assert_eq!(get("health"), healthy);
    assert_eq!(get("health?serializable=true"), healthy);
    let alarm = etcd::AlarmRequest {
        action: etcd::alarm_request::AlarmAction::Activate.into(),
        member_id: 0,
        alarm: etcd::AlarmType::Nospace.into(),
    };
    let raised = fixture.runtime.block_on(node.client.maintenance().alarm(alarm));
    raised.expect("a client may raise it");
    let ill = (r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned(), "503".to_owned());
    assert_eq!(get("health"), ill);
    assert_eq!(get("health?exclude=CORRUPT"), ill);
    assert_eq!(get("health?exclude=NOSPACE"), healthy);
    assert_eq!(get("health?exclude=&exclude=NOSPACE&serializable=true"), healthy);
    let ok = |body: &str| (body.to_owned(), "200".to_owned());
    assert_eq!(get("livez"), ok("ok\n"));
    assert_eq!(get("livez?verbose"), ok("[+]serializable_read ok\nok\n"));
    assert_eq!(
        get("readyz?verbose"),
        ok("[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n")
    );
    assert_eq!(
        get("readyz?verbose&exclude=linearizable_read&exclude=data_corruption"),
        ok("[+]serializable_read ok\nok\n")
    );
    assert_eq!(get("readyz/linearizable_read?verbose"), ok("[+]linearizable_read ok\nok\n"));
}

#[test]
fn refusals_fit_their_headers_and_name_what_to_do() {
    let fixture = three_nodes();
    let node = &fixture.cluster.nodes[0];
    let op = |request| etcd::RequestOp { request: Some(request) };
    let put = etcd::PutRequest { key: "k".repeat(100_000).into(), ..Default::default() };
    let twice = vec![op(Op::RequestPut(put)); 2];
    let txn = etcd::TxnRequest { success: twice, ..Default::default() };
    let refused = fixture.runtime.block_on(node.client.kv().txn(txn)).expect_err("it is twice");
    assert_eq!(refused.message(), "etcdserver: duplicate key given in txn request");
    let detail = refused.metadata().get("quorate-detail").expect("it says which").to_str();
    let detail = detail.expect("it is printable");
    assert!(detail.len() < 1100 && detail.contains("bytes)"), "{detail}");

    let compare = vec![etcd::Compare::default(); 500_000];
    let bomb = etcd::TxnRequest { compare, ..Default::default() };
    let refused = fixture.runtime.block_on(node.client.kv().txn(bomb)).expect_err("it is a bomb");
    assert_eq!(refused.message(), "etcdserver: too many operations in txn request");

    let alarm = etcd::AlarmRequest {
        action: etcd::alarm_request::AlarmAction::Activate.into(),
        member_id: 12_345,
        alarm: etcd::AlarmType::Nospace.into(),
    };
    let refused = fixture.runtime.block_on(node.client.maintenance().alarm(alarm));
    assert_eq!(refused.expect_err("no member").message(), "etcdserver: member not found");

    let nobody = "http://127.0.0.1:1".to_owned();
    let add = etcd::MemberAddRequest { peer_ur_ls: vec![nobody], is_learner: true };
    let refused = fixture.runtime.block_on(node.client.cluster().member_add(add));
    let refused = refused.expect_err("nothing listens there");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("127.0.0.1:1"), "{refused:?}");
}

#[test]
fn a_connection_that_says_nothing_ends_and_is_counted() {
    let fixture = three_nodes();
    let node = &fixture.cluster.nodes[0];
    let ports = [node.ports.client(), node.ports.http(), node.ports.peer()];
    let silent = ports.map(|port| TcpStream::connect(port).expect("it listens"));
    let begun = Instant::now();
    for mut socket in silent {
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("it is above zero");
        // A server may speak first. Then comes the end, or a reset.
        let ended = socket.read_to_end(&mut Vec::new());
        let timed_out = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!timed_out, "{socket:?} is still open");
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let (metrics, _) = curl(&[&format!("http://{}/metrics", node.ports.http())]);
    for listener in ["client", "http", "peer"] {
        let counted = format!(
            "quorate_edge_connections_ended_total{{listener=\"{listener}\",reason=\"silent\"}} 1"
        );
        assert!(metrics.contains(&counted), "{counted}: {metrics}");
    }
}

#[test]
fn a_data_directory_is_its_owners_alone() {
    let fixture = three_nodes();
    let mut folders = vec![fixture.cluster.folder().join("n1")];
    let mut n_files = 0;
    while let Some(folder) = folders.pop() {
        let mode = folder.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        for entry in folder.read_dir().expect("we own it").flatten() {
            // RocksDB may delete a file in this moment.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
                continue;
            }
            n_files += 1;
            let mode = meta.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
        }
    }
    assert!(n_files > 0, "the node has files");
}
