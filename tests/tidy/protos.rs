//! Our own `.proto` files are the contract between nodes and versions: each message says what it
//! is for.

use crate::sources::{all, report};

#[test]
fn messages_of_ours_say_what_they_are_for() {
    let mut findings = Vec::new();
    for source in all() {
        if !source.path.starts_with("proto/quorate/") || !source.path.ends_with(".proto") {
            continue;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let declares = ["message ", "service ", "enum "].iter().any(|it| line.starts_with(it));
            // What a call takes and gives is explained at the call.
            let of_call = ["Request", "Reply", "Response"]
                .iter()
                .any(|it| line.split([' ', '{']).nth(1).is_some_and(|name| name.ends_with(it)));
            let explained = at > 0 && lines[at - 1].starts_with("//");
            if declares && !explained && !of_call {
                findings.push(format!("{}:{}: {line}", source.path, at + 1));
            }
        }
    }
    report("a comment above it says what it is and why", &findings);
}

#[test]
fn proto_files_have_names_of_their_own() {
    let mut names: Vec<String> = all()
        .into_iter()
        .filter(|source| source.path.ends_with(".proto") && source.path.starts_with("proto/"))
        .map(|source| source.path.rsplit('/').next().expect("never empty").to_owned())
        .collect();
    names.sort();
    let doubled: Vec<String> =
        names.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0].clone()).collect();
    report("every folder is an import root, so a name may stand once only", &doubled);
}
