use std::fmt::Write;

use expect_test::expect;

use super::*;
use crate::coordinator::duty::channels::seen::{SeenKey, StrayKey};

const SETTINGS: Settings = Settings {
    watch_timeout: Duration::from_secs(300),
    balance_silent: Duration::from_secs(300),
    balance_interval: Duration::from_secs(360),
    auto_balance: true,
};

/// Runs rounds of the duty on what a script says, and tells what each decided.
///
/// ```text
/// nodes ID..              data nodes that are alive; `ID!` is stopping, `ID~` to be emptied
/// CHANNEL NODE STATE REV  a channel, its owner (`-`: nobody), the state of its key (`none`: no key,
///                         `to-watch:N`: with N segments to load);
///                         with a star before its name it is marked removed, with a plus it compacts
/// gone CHANNEL            it has ended
/// stray CHANNEL NODE REV [foreign]
/// rate CHANNEL ROWS
/// after SECONDS           the clock goes on
/// plan                    one round
/// ```
fn check(script: &str) -> String {
    let (mut seen, mut memory, mut rates) = (Seen::default(), Memory::default(), BTreeMap::new());
    let start = Instant::now();
    let mut now = start;
    let mut told = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["nodes", ref ids @ ..] => nodes(&mut seen, ids),
            ["gone", name] => seen.channels.retain(|channel| &*channel.channel != name),
            ["stray", name, node, revision, ref foreign @ ..] => seen.strays.push(StrayKey {
                channel: Name::from(name),
                node: owner(node),
                revision: revision.parse().expect("a number"),
                epoch: 1,
                is_foreign: !foreign.is_empty(),
            }),
            ["rate", name, rows] => {
                rates.insert(Name::from(name), rows.parse().expect("a number"));
            }
            ["after", seconds] => {
                now += Duration::from_secs(seconds.parse().expect("a number"));
            }
            ["plan"] => {
                let plan = plan(&seen, &mut memory, &rates, &SETTINGS, now);
                let at = now.duration_since(start).as_secs();
                write!(told, "at {at}:\n{plan}").expect("a string grows");
                seen.strays.clear();
            }
            [name, node, state, revision] => {
                put(&mut seen, name, node, state, revision.parse().expect("a number"));
            }
            _ => panic!("no line of a script: {line}"),
        }
    }
    told
}

fn nodes(seen: &mut Seen, ids: &[&str]) {
    seen.alive.clear();
    seen.usable.clear();
    seen.draining.clear();
    for id in ids {
        let node = owner(id.trim_end_matches(['!', '~']));
        seen.alive.insert(node);
        if !id.ends_with('!') {
            seen.usable.insert(node);
        }
        if id.ends_with('~') {
            seen.draining.insert(node);
        }
    }
}

fn owner(word: &str) -> ServerId {
    if word == "-" { ServerId::NOBODY } else { ServerId(word.parse().expect("a number")) }
}

fn put(seen: &mut Seen, name: &str, node: &str, state: &str, revision: i64) {
    let channel = Name::from(name.trim_start_matches(['*', '+']));
    if name.starts_with('+') {
        seen.occupied.insert(channel.clone());
    } else {
        seen.occupied.remove(&channel);
    }
    let is_unserved = state == "unserved";
    let (state, n_segments) = match state.split_once(':') {
        Some((state, n_segments)) => (state, n_segments.parse().expect("a number")),
        None => (state, 0),
    };
    let state = match state {
        "none" => None,
        "broken" => Some(None),
        "to-watch" => Some(Some(ChannelState::ToWatch)),
        "watched" | "unserved" => Some(Some(ChannelState::WatchSuccess)),
        "failed" => Some(Some(ChannelState::WatchFailure)),
        "to-release" => Some(Some(ChannelState::ToRelease)),
        "released" => Some(Some(ChannelState::ReleaseSuccess)),
        "unreleased" => Some(Some(ChannelState::ReleaseFailure)),
        other => panic!("no state {other}"),
    };
    let row = SeenChannel {
        channel: channel.clone(),
        node: owner(node),
        epoch: 1,
        is_removed: name.starts_with('*'),
        is_unserved,
        key: state.map(|state| SeenKey { state, revision, n_segments }),
    };
    match seen.channels.binary_search_by(|known| known.channel.cmp(&channel)) {
        Ok(nth) => seen.channels[nth] = row,
        Err(nth) => seen.channels.insert(nth, row),
    }
}

#[test]
fn a_lost_node_gives_its_channels_to_the_others_at_once() {
    expect![[r#"
        at 0:
        d: release (the channel is removed)
        at 0:
        a: assign to 7 (its data node is gone)
        b: assign to 6 (its data node is gone)
        c: assign to 7 (its data node is gone)
        d: assign to nobody (the channel is removed)
        at 0:
        a: assign to nobody (its data node is gone)
        b: assign to nobody (its data node is gone)
        c: assign to nobody (its data node is gone)
        d: assign to nobody (the channel is removed)
        e: assign to nobody (its data node is gone)
    "#]]
    .assert_eq(&check(
        "nodes 5 6 7
         a 5 watched 1
         b 5 to-watch 1
         c 5 watched 1
         *d 5 watched 1
         e 6 watched 1
         plan
         nodes 6 7
         plan
         nodes
         plan",
    ));
}

#[test]
fn channels_that_nobody_has_go_to_the_first_node_that_can_take_them() {
    expect![[r#"
        at 0:
        b: assign to nobody (the channel is removed)
        at 0:
        b: assign to nobody (the channel is removed)
        at 0:
        a: assign to 6 (nobody has it)
        b: assign to nobody (the channel is removed)
    "#]]
    .assert_eq(&check(
        "a - to-watch 1
         *b - to-watch 1
         plan
         nodes 5!
         plan
         nodes 5! 6
         plan",
    ));
}

#[test]
fn an_answer_is_followed_by_the_next_step() {
    expect![[r#"
        at 0:
        a: release (its data node could not watch)
        b: assign to 6 (its data node has let go)
        c: assign to 6 (its data node could not let go)
        d: assign to nobody (the channel is removed)
        e: release (the channel is removed)
        f: assign to 6 (its key is gone)
        g: release (its key says nothing)
        i: release (its data node does not know it)
    "#]]
    .assert_eq(&check(
        "nodes 5 6
         a 5 failed 1
         b 5 released 1
         c 5 unreleased 1
         *d 5 released 1
         *e 5 watched 1
         f 5 none 0
         g 5 broken 1
         *h 5 to-release 1
         i 5 unserved 1
         plan",
    ));
}

#[test]
fn a_command_that_is_not_answered_is_told_again_ever_more_slowly_and_then_given_up() {
    expect![[r#"
        at 0:
        at 29:
        at 58:
        at 88:
        a: release (its data node does not begin to watch)
        at 88:
        at 207:
        at 208:
        a: release (its data node has not answered)
        at 208:
        a: release (its data node has not answered)
        at 208:
        at 507:
        at 508:
        a: assign to 6 (its data node does not let go)
        at 508:
        at 508:
        at 508:
        at 538:
        a: release (its data node has not answered)
    "#]]
    .assert_eq(&check(
        "nodes 5 6
         a 5 to-watch 1
         plan
         after 29
         plan
         a 5 to-watch 2
         after 29
         plan
         after 30
         plan
         a 5 to-release 3
         plan
         after 119
         plan
         after 1
         plan
         plan
         a 5 to-release 4
         plan
         after 299
         plan
         after 1
         plan
         a 6 to-watch 5
         plan
         a 6 watched 6
         plan
         a 6 to-release 7
         plan
         after 30
         plan",
    ));
}

#[test]
fn a_data_node_has_more_time_for_many_segments() {
    expect![[r#"
        at 0:
        at 49:
        at 50:
        a: release (its data node does not begin to watch)
    "#]]
    .assert_eq(&check(
        "nodes 5
         a 5 to-watch:10000 1
         plan
         after 49
         plan
         after 1
         plan",
    ));
}

#[test]
fn a_data_node_that_answers_has_more_time_for_each_of_many_commands() {
    expect![[r#"
        at 0:
        at 29:
        at 30:
        a: release (its data node does not begin to watch)
        b: release (its data node has not answered)
        at 59:
        e: assign to 5 (its data node has let go)
        at 60:
        at 60:
        c: release (its data node does not begin to watch)
        d: release (its data node does not begin to watch)
    "#]]
    .assert_eq(&check(
        "nodes 5 6
         a 5 to-watch 1
         b 5 to-release 2
         c 6 to-watch 3
         d 6 to-watch 4
         e 6 watched 5
         plan
         after 29
         e 6 to-release 6
         plan
         after 1
         plan
         a 5 to-release 7
         b 5 to-release 8
         e 6 released 9
         after 29
         plan
         e 6 to-watch 10
         after 1
         plan
         e 6 watched 11
         plan",
    ));
}

#[test]
fn a_channel_that_cannot_be_watched_is_tried_ever_more_slowly() {
    expect![[r#"
        at 0:
        a: release (its data node could not watch)
        at 0:
        a: assign to 5 (its data node has let go)
        at 0:
        at 1:
        a: release (its data node could not watch)
        at 1:
        at 2:
        a: release (its data node could not watch)
        at 2:
        at 2:
        a: release (its data node could not watch)
    "#]]
    .assert_eq(&check(
        "nodes 5
         a 5 failed 1
         plan
         a 5 released 2
         plan
         a 5 failed 3
         plan
         after 1
         plan
         a 5 failed 4
         plan
         after 1
         plan
         a 5 watched 5
         plan
         a 5 failed 6
         plan",
    ));
}

#[test]
fn keys_of_others_are_deleted_or_taken_over() {
    expect![[r#"
        at 0:
        adopt b
        a: delete the key of 6 (it does not own the channel)
        at 0:
    "#]]
    .assert_eq(&check(
        "nodes 5 6
         a 5 watched 1
         stray a 6 7
         stray b 6 8 foreign
         plan
         plan",
    ));
}

#[test]
fn a_node_that_joins_gets_its_part_one_channel_at_a_time() {
    expect![[r#"
        at 0:
        at 0:
        e: release (a new data node takes a part)
        at 0:
        at 0:
        e: assign to 7 (its data node has let go)
        at 0:
        at 0:
        f: release (a new data node takes a part)
        at 0:
        at 1000:
    "#]]
    .assert_eq(&check(
        "nodes 5 6
         a 5 watched 1
         b 5 watched 1
         +c 6 watched 1
         d 6 watched 1
         e 5 watched 1
         f 6 watched 1
         plan
         nodes 5 6 7
         plan
         e 5 to-release 2
         plan
         e 5 released 3
         plan
         e 7 to-watch 4
         plan
         e 7 watched 5
         plan
         f 7 watched 6
         plan
         after 1000
         plan",
    ));
}

#[test]
fn the_usual_balance_waits_for_silence_and_goes_on_until_it_is_even() {
    expect![[r#"
        at 0:
        at 299:
        at 300:
        f: release (its data node has too many)
        at 301:
        e: release (its data node has too many)
        at 302:
    "#]]
    .assert_eq(&check(
        "nodes 5 6
         a 5 watched 1
         b 5 watched 1
         c 5 watched 1
         d 5 watched 1
         e 5 watched 1
         f 5 watched 1
         plan
         after 299
         plan
         after 1
         plan
         f 6 watched 2
         after 1
         plan
         e 6 watched 2
         after 1
         plan",
    ));
}

#[test]
fn the_node_with_most_of_the_rows_gives_away_what_evens_it_out() {
    expect![[r#"
        at 0:
        at 300:
        b: release (its data node gets too many rows)
        at 660:
    "#]]
    .assert_eq(&check(
        "nodes 5 6
         a 5 watched 1
         b 5 watched 1
         c 6 watched 1
         d 6 watched 1
         rate a 9000
         rate b 4000
         rate c 100
         plan
         after 300
         plan
         rate b 0
         after 360
         plan",
    ));
}

#[test]
fn a_node_that_is_to_be_empty_gives_one_channel_after_the_other() {
    expect![[r#"
        at 0:
        at 0:
        a: release (its data node is to be empty)
        at 0:
        a: assign to 6 (its data node has let go)
        at 0:
        at 0:
        b: release (its data node is to be empty)
    "#]]
    .assert_eq(&check(
        "nodes 5~
         a 5 watched 1
         +b 5 watched 1
         plan
         nodes 5~ 6
         plan
         a 5 released 2
         plan
         a 6 watched 3
         plan
         b 5 watched 1
         plan",
    ));
}
