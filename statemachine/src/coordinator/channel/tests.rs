mod stage;

use expect_test::expect;
use prost::Message;
use proto::milvus::common::{KeyDataPair, SegmentState};
use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState, SegmentInfo};
use proto::milvus::msg::MsgPosition;
use proto::quorate::channel_command::Kind;
use proto::quorate::channel_move::Step;
use proto::quorate::coordinator_command::Area;
use proto::quorate::{
    AdoptChannels, ChannelMove, ChannelRecord, CollectionStart, CompactionState, CompactionTask,
    DrainNode, MoveChannels, ReleaseReason,
};
use proto::{etcd, quorate};

use crate::view::ServerId;
use stage::{CHANNEL, NOBODY, Story, channel, position, segment, segment_key, watch, watch_named};

#[test]
fn a_new_channel_is_watched_from_the_start_of_its_collection() {
    let mut story = Story::new();
    story.run(watch_named(&[CHANNEL, "dml_2_1v2", "a/b", ""], 5));
    story.show();
    // A repetition, after the node has answered.
    story.acknowledge(5, ChannelWatchState::WatchSuccess);
    story.run(watch(6));
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0", "dml_2_1v2"]; a/b: channel cannot be a/b: it is no name of a channel; : channel cannot be : it is no name of a channel
        dml_0_1v0 of 5 epoch 1 removed Some(false)
        dml_2_1v2 of 5 epoch 1 removed Some(false)
          5/dml_0_1v0: ToWatch unflushed [] flushed [] dropped [] seek start@77
          5/dml_2_1v2: ToWatch unflushed [] flushed [] dropped [] seek 
        changed []
        dml_0_1v0 of 5 epoch 1 removed Some(false)
        dml_2_1v2 of 5 epoch 1 removed Some(false)
          5/dml_0_1v0: WatchSuccess unflushed [] flushed [] dropped [] seek start@77
          5/dml_2_1v2: ToWatch unflushed [] flushed [] dropped [] seek 
    "#]]);
}

#[test]
fn without_data_nodes_channels_wait_with_nobody_and_go_to_the_first() {
    let mut story = Story::new();
    story.run(watch(NOBODY));
    story.show();
    story.release(ReleaseReason::Balance);
    story.assign(5);
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        dml_0_1v0 of nobody epoch 1 removed Some(false)
          nobody/dml_0_1v0: ToWatch unflushed [] flushed [] dropped [] seek start@77
        changed []; dml_0_1v0: step cannot be release: nobody has it
        changed ["dml_0_1v0"]
        dml_0_1v0 of 5 epoch 2 removed Some(false)
          5/dml_0_1v0: ToWatch unflushed [] flushed [] dropped [] seek start@77
    "#]]);
}

#[test]
fn the_lists_of_a_command_are_made_from_the_records_of_its_moment() {
    let mut story = Story::new();
    story.session(5);
    story.run(watch(5));
    let segments = [
        segment(10, SegmentState::Growing, None),
        segment(11, SegmentState::Growing, Some(300)),
        segment(12, SegmentState::Sealed, Some(200)),
        segment(13, SegmentState::Flushed, Some(400)),
        segment(14, SegmentState::Flushing, Some(400)),
        segment(15, SegmentState::Dropped, Some(100)),
        SegmentInfo { is_importing: true, ..segment(16, SegmentState::Sealed, Some(50)) },
        SegmentInfo { is_fake: true, ..segment(17, SegmentState::Flushed, Some(350)) },
        SegmentInfo { insert_channel: "x".into(), ..segment(18, SegmentState::Flushed, Some(1)) },
        SegmentInfo {
            start_position: Some(position(250)),
            ..segment(19, SegmentState::Growing, None)
        },
    ];
    for info in segments {
        let put = story.put(&segment_key(info.id), info.encode_to_vec());
        story.run(put);
    }
    story.acknowledge(5, ChannelWatchState::WatchFailure);
    story.release(ReleaseReason::Failed);
    story.show();
    let checkpoint = story
        .put(&format!("meta/datacoord-meta/channel-cp/{CHANNEL}"), position(500).encode_to_vec());
    story.run(checkpoint);
    story.acknowledge(5, ChannelWatchState::ReleaseSuccess);
    story.assign(6);
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        changed ["dml_0_1v0"]
        dml_0_1v0 of 5 epoch 1 removed Some(false)
          5/dml_0_1v0: ToRelease unflushed [11, 12, 19] flushed [13, 14] dropped [15] seek m200@200
        changed ["dml_0_1v0"]
        dml_0_1v0 of 6 epoch 2 removed Some(false)
          6/dml_0_1v0: ToWatch unflushed [11, 12, 19] flushed [13, 14] dropped [15] seek m500@500
    "#]]);
}

#[test]
fn a_command_sees_what_came_before_it_in_the_same_chunk() {
    let mut story = Story::new();
    let flushed = segment(11, SegmentState::Flushed, Some(300));
    let put = story.put(&segment_key(11), flushed.encode_to_vec());
    story.run(put);
    let dropped = segment(11, SegmentState::Dropped, Some(300));
    let fresh = segment(12, SegmentState::Growing, Some(350));
    let checkpoint = format!("meta/datacoord-meta/channel-cp/{CHANNEL}");
    story.run_all(vec![
        story.put(&segment_key(11), dropped.encode_to_vec()),
        story.put(&segment_key(12), fresh.encode_to_vec()),
        story.put(&checkpoint, position(320).encode_to_vec()),
        watch(5),
        // Of the watch, the views know nothing yet.
        watch(6),
    ]);
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        changed []
        dml_0_1v0 of 5 epoch 1 removed Some(false)
          5/dml_0_1v0: ToWatch unflushed [12] flushed [] dropped [11] seek m320@320
    "#]]);
}

#[test]
fn a_move_goes_by_release_and_every_watch_is_an_epoch() {
    let mut story = Story::new();
    story.session(5);
    story.session(6);
    story.run(watch(5));
    story.assign(6);
    story.acknowledge(5, ChannelWatchState::WatchSuccess);
    story.assign(6);
    story.release(ReleaseReason::Balance);
    story.show();
    story.acknowledge(5, ChannelWatchState::ReleaseSuccess);
    story.assign(6);
    story.show();
    // Nobody else is there: the same node once more.
    story.acknowledge(6, ChannelWatchState::WatchFailure);
    story.release(ReleaseReason::Failed);
    story.acknowledge(6, ChannelWatchState::ReleaseSuccess);
    story.assign(6);
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        changed []; dml_0_1v0: step cannot be assign: its owner has it
        changed []; dml_0_1v0: step cannot be assign: its owner has it
        changed ["dml_0_1v0"]
        dml_0_1v0 of 5 epoch 1 removed Some(false)
          5/dml_0_1v0: ToRelease unflushed [] flushed [] dropped [] seek start@77
        changed ["dml_0_1v0"]
        dml_0_1v0 of 6 epoch 2 removed Some(false)
          6/dml_0_1v0: ToWatch unflushed [] flushed [] dropped [] seek start@77
        changed ["dml_0_1v0"]
        changed ["dml_0_1v0"]
        dml_0_1v0 of 6 epoch 3 removed Some(false)
          6/dml_0_1v0: ToWatch unflushed [] flushed [] dropped [] seek start@77
    "#]]);
}

#[test]
fn a_step_that_saw_something_older_is_refused() {
    let mut story = Story::new();
    story.session(5);
    story.run(watch(5));
    let before_the_answer = story.step(Step::Release(ReleaseReason::Failed.into()));
    story.acknowledge(5, ChannelWatchState::WatchSuccess);
    story.run(before_the_answer);
    let release = story.step(Step::Release(ReleaseReason::Balance.into()));
    let assign = story.step(Step::AssignTo(6));
    story.run_all(vec![release.clone(), assign, release]);
    let unknown = channel(Kind::Move(MoveChannels {
        moves: vec![
            ChannelMove {
                channel: "x".to_owned(),
                step: Some(Step::AssignTo(6)),
                ..Default::default()
            },
            ChannelMove { channel: CHANNEL.to_owned(), ..Default::default() },
        ],
    }));
    story.run(unknown);
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        changed []; dml_0_1v0: channel dml_0_1v0 changed meanwhile: epoch 1, key revision 4
        changed ["dml_0_1v0"]
        changed []; dml_0_1v0: channel dml_0_1v0 changed meanwhile: epoch 1, key revision 5
        changed []; dml_0_1v0: channel dml_0_1v0 changed meanwhile: epoch 1, key revision 5
        changed []; x: channel x is not known; dml_0_1v0: step cannot be no command: this version does not know it
        dml_0_1v0 of 5 epoch 1 removed Some(false)
          5/dml_0_1v0: ToRelease unflushed [] flushed [] dropped [] seek start@77
    "#]]);
}

#[test]
fn the_channels_of_a_lost_node_go_at_once() {
    let mut story = Story::new();
    story.session(5);
    story.run(watch(5));
    story.acknowledge(5, ChannelWatchState::WatchSuccess);
    let gone = quorate::command::Kind::DeleteRange(etcd::DeleteRangeRequest {
        key: format!("{}meta/session/datanode-5", story.root()).into(),
        ..etcd::DeleteRangeRequest::default()
    });
    story.run(gone);
    let assign = story.step(Step::AssignTo(6));
    story.run(assign.clone());
    story.show();
    // The entry comes again after a failover.
    story.run(assign);
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        changed ["dml_0_1v0"]
        dml_0_1v0 of 6 epoch 2 removed Some(false)
          6/dml_0_1v0: ToWatch unflushed [] flushed [] dropped [] seek start@77
        changed []; dml_0_1v0: channel dml_0_1v0 changed meanwhile: epoch 2, key revision 6
        dml_0_1v0 of 6 epoch 2 removed Some(false)
          6/dml_0_1v0: ToWatch unflushed [] flushed [] dropped [] seek start@77
    "#]]);
}

#[test]
fn a_channel_whose_segments_are_being_compacted_stays_unless_its_node_fails() {
    let mut story = Story::new();
    story.run(watch(5));
    story.acknowledge(5, ChannelWatchState::WatchSuccess);
    let plan = |state: CompactionState| CompactionTask {
        plan: 9,
        channel: CHANNEL.to_owned(),
        state: state.into(),
        ..CompactionTask::default()
    };
    let put = |story: &Story, state| story.put("quorate/compaction/9", plan(state).encode_to_vec());
    story.run(put(&story, CompactionState::Executing));
    story.release(ReleaseReason::Balance);
    story.release(ReleaseReason::Drain);
    story.run(put(&story, CompactionState::Synced));
    // Committed views say that it is over; an earlier command of the chunk says that it is not.
    let release = story.step(Step::Release(ReleaseReason::Balance.into()));
    story.run_all(vec![put(&story, CompactionState::Executing), release]);
    story.release(ReleaseReason::Failed);
    story.show();
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        changed []; dml_0_1v0: compaction plan 9 is in state 2, which does not allow that
        changed []; dml_0_1v0: compaction plan 9 is in state 2, which does not allow that
        changed []; dml_0_1v0: compaction plan 9 is in state 2, which does not allow that
        changed ["dml_0_1v0"]
        dml_0_1v0 of 5 epoch 1 removed Some(false)
          5/dml_0_1v0: ToRelease unflushed [] flushed [] dropped [] seek start@77
    "#]]);
}

#[test]
fn a_removed_channel_ends_when_its_node_has_let_go() {
    let mut story = Story::new();
    story.session(5);
    story.run(watch(5));
    story.acknowledge(5, ChannelWatchState::WatchSuccess);
    let mark = story.put(&format!("meta/datacoord-meta/channel-removal/{CHANNEL}"), "removed");
    story.run(mark);
    story.release(ReleaseReason::Removed);
    story.show();
    // A repetition of the call that created it does not bring it back.
    story.run(watch(6));
    story.acknowledge(5, ChannelWatchState::ReleaseSuccess);
    story.assign(6);
    story.show();
    story.assign(6);
    story.expect(&expect![[r#"
        changed ["dml_0_1v0"]
        changed ["dml_0_1v0"]
        dml_0_1v0 of 5 epoch 1 removed Some(true)
          5/dml_0_1v0: ToRelease unflushed [] flushed [] dropped [] seek start@77
        changed []
        changed ["dml_0_1v0"]
        changed []; dml_0_1v0: channel dml_0_1v0 is not known
    "#]]);
}

#[test]
fn keys_that_a_stock_coordinator_left_are_taken_over_once() {
    let mut story = Story::new();
    story.session(7);
    let info = ChannelWatchInfo {
        vchan: Some(proto::milvus::data::VchannelInfo {
            collection_id: 1,
            channel_name: CHANNEL.to_owned(),
            ..Default::default()
        }),
        state: ChannelWatchState::WatchSuccess.into(),
        ..ChannelWatchInfo::default()
    };
    for node in [5, 7, NOBODY] {
        let put = story.put(&format!("meta/channelwatch/{node}/{CHANNEL}"), info.encode_to_vec());
        story.run(put);
    }
    let adopt = |names: &[&str]| {
        let channels = names.iter().map(|name| (*name).to_owned()).collect();
        let start = |collection, create_ts| CollectionStart {
            collection,
            create_ts,
            start_positions: vec![KeyDataPair { key: "dml_0".to_owned(), data: "start".into() }],
        };
        let starts = vec![start(2, 22), start(1, 11)];
        channel(Kind::Adopt(AdoptChannels { channels, starts }))
    };
    // Whoever creates the collection again does not take it away from its node.
    story.run(watch(9));
    story.run(adopt(&[CHANNEL, "x"]));
    story.run(adopt(&[CHANNEL]));
    story.show();
    let value = story.value(&format!("quorate/channel/{CHANNEL}")).expect("a record");
    let record = ChannelRecord::decode(value).expect("a record");
    assert_eq!((record.create_ts, record.start_positions.len()), (11, 1));
    let delete = |story: &Story, node: i64, epoch: u64| {
        channel(Kind::Move(MoveChannels {
            moves: vec![ChannelMove {
                channel: CHANNEL.to_owned(),
                epoch,
                key_revision: story.revision(&format!("meta/channelwatch/{node}/{CHANNEL}")),
                step: Some(Step::DeleteKeyOf(node)),
            }],
        }))
    };
    story.run(delete(&story, 7, 1));
    story.run(delete(&story, 5, 3));
    story.run(delete(&story, 5, 1));
    story.run(delete(&story, NOBODY, 1));
    story.show();
    story.expect(&expect![[r#"
        changed []
        changed ["dml_0_1v0"]; x: channel x is not known
        changed ["dml_0_1v0"]
        dml_0_1v0 of 7 epoch 1 removed Some(false)
          nobody/dml_0_1v0: WatchSuccess unflushed [] flushed [] dropped [] seek 
          5/dml_0_1v0: WatchSuccess unflushed [] flushed [] dropped [] seek 
          7/dml_0_1v0: WatchSuccess unflushed [] flushed [] dropped [] seek 
        changed []; dml_0_1v0: channel dml_0_1v0 changed meanwhile: epoch 1, key revision 4
        changed []; dml_0_1v0: channel dml_0_1v0 changed meanwhile: epoch 1, key revision 3
        changed ["dml_0_1v0"]
        changed ["dml_0_1v0"]
        dml_0_1v0 of 7 epoch 1 removed Some(false)
          7/dml_0_1v0: WatchSuccess unflushed [] flushed [] dropped [] seek 
    "#]]);
}

#[test]
fn the_record_keeps_what_a_new_watch_needs() {
    let mut story = Story::new();
    story.run(watch(5));
    let value = story.value(&format!("quorate/channel/{CHANNEL}")).expect("a record");
    let record = ChannelRecord::decode(value).expect("a record");
    assert_eq!(record.schema.map(|schema| schema.name), Some("c".to_owned()));
    assert_eq!((record.create_ts, record.start_positions.len()), (77, 2));
}

#[test]
fn the_views_know_from_where_a_channel_is_read() {
    let mut story = Story::new();
    story.run(watch_named(&[CHANNEL, "dml_2_1v2"], 5));
    // Milvus's own record does not name the channel, or names the physical one.
    let checkpoint = MsgPosition { channel_name: "dml_0".to_owned(), ..position(500) };
    let put =
        story.put(&format!("meta/datacoord-meta/channel-cp/{CHANNEL}"), checkpoint.encode_to_vec());
    story.run(put);
    let assignments = story.machine.state.views().assignments();
    let named = |position| MsgPosition { channel_name: CHANNEL.to_owned(), ..position };
    let start = MsgPosition { msg_id: "start".into(), timestamp: 77, ..MsgPosition::default() };
    let beginning = |channel| assignments.get(channel).expect("assigned").beginning.clone();
    assert_eq!(beginning(CHANNEL), Some(named(start)));
    // Its physical channel has no start.
    assert_eq!(beginning("dml_2_1v2"), None);
    let known = assignments.checkpoint(CHANNEL).map(|known| known.position.clone());
    assert_eq!(known, Some(named(position(500))));
}

#[test]
fn a_data_node_is_drained_while_it_is_alive() {
    let mut story = Story::new();
    let drain = |node, on| channel(Kind::Drain(DrainNode { node, on }));
    story.run(drain(5, true));
    story.session(5);
    story.run(drain(5, true));
    story.run(drain(5, true));
    assert!(story.machine.state.views().assignments().draining().contains(&ServerId(5)));
    story.run(drain(5, false));
    story.run(drain(5, false));
    assert!(story.machine.state.views().assignments().draining().is_empty());
    assert_eq!(story.machine.state.views().undecodable(), 0);
    story.expect(&expect![[r#"
        node cannot be 5: no data node of that id is alive
        changed []
        changed []
        changed []
        changed []
    "#]]);
}

#[test]
fn a_command_without_a_kind_is_refused() {
    let mut story = Story::new();
    story.run(quorate::command::Kind::Coordinator(quorate::CoordinatorCommand {
        area: Some(Area::Channel(quorate::ChannelCommand { kind: None })),
    }));
    story.expect(&expect![[r#"
        channel cannot be no command: this version does not know it
    "#]]);
}
