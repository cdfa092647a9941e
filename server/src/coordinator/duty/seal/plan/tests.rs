use expect_test::{Expect, expect};
use statemachine::view::{CollectionId, PartitionId, ServerId};

use super::*;

/// Hybrid timestamp of a second.
fn at(seconds: u64) -> u64 {
    tso::later(0, seconds * 1000)
}

fn segment(state: SegmentState) -> Segment {
    Segment {
        collection: CollectionId(1),
        partition: PartitionId(2),
        channel: "dml_0_1v0".into(),
        state,
        rows: 0,
        rows_max: 1000,
        last_expire_ts: at(100),
        start_ts: None,
        dml_ts: None,
        dropped_at_ns: 0,
        is_importing: false,
        is_compacted: false,
        is_compaction_result: false,
        is_fake: false,
        level: 0,
        parents: Box::default(),
        revision: 1,
    }
}

fn growth(has_rows: HasRows) -> Option<Growth> {
    Some(Growth {
        has_rows,
        window_rows: 0,
        window_expire_ts: at(100),
        window_at_ms: 0,
        sealed_at_ms: 0,
    })
}

fn tick(seconds: u64) -> Option<Tick> {
    Some(Tick { ts: at(seconds), node: ServerId(5), epoch: 1 })
}

/// Settings of the shipped milvus.yaml; nothing is due.
fn facts(settings: &CoordinatorSettings) -> Facts<'_> {
    Facts {
        settings,
        growth: growth(HasRows::Yes),
        tick: tick(101),
        rows: 100,
        idle: Duration::ZERO,
        n_stats_logs: 0,
        is_partition_dropped: false,
        is_early: false,
        is_seal_undecided: false,
    }
}

/// A name, and what is otherwise than in [`facts`].
type Case = (&'static str, fn(&mut Facts<'_>));

fn check(state: SegmentState, cases: &[Case], expected: &Expect) {
    let settings = CoordinatorSettings::default();
    let mut told = String::new();
    for (name, change) in cases {
        let mut facts = facts(&settings);
        change(&mut facts);
        told.push_str(&format!("{name}: {:?}\n", due(&segment(state), &facts)));
    }
    expected.assert_eq(&told);
}

#[test]
fn a_growing_segment_is_sealed_when_it_is_full_old_idle_or_in_too_many_files() {
    check(
        SegmentState::Growing,
        &[
            ("nothing", |_| {}),
            ("below 0.23 of its rows", |facts| facts.rows = 229),
            ("0.23 of its rows", |facts| facts.rows = 230),
            ("a day after its window", |facts| facts.tick = tick(100 + 86_400)),
            ("no tick", |facts| facts.tick = None),
            ("idle", |facts| facts.idle = Duration::from_secs(601)),
            ("idle with few rows", |facts| {
                facts.idle = Duration::from_secs(601);
                facts.rows = 10;
            }),
            ("32 files", |facts| facts.n_stats_logs = 32),
            ("a seal whose outcome is not known", |facts| facts.is_seal_undecided = true),
            ("dropped with rows", |facts| facts.is_partition_dropped = true),
            ("dropped without rows", |facts| {
                facts.is_partition_dropped = true;
                facts.rows = 0;
            }),
        ],
        &expect![[r#"
            nothing: None
            below 0.23 of its rows: None
            0.23 of its rows: Some(Seal(Rows))
            a day after its window: Some(Seal(Lifetime))
            no tick: None
            idle: Some(Seal(Idle))
            idle with few rows: None
            32 files: Some(Seal(LogFiles))
            a seal whose outcome is not known: Some(Seal(Again))
            dropped with rows: None
            dropped without rows: Some(Seal(PartitionDropped))
        "#]],
    );
}

#[test]
fn with_too_few_data_nodes_half_of_each_limit_counts() {
    check(
        SegmentState::Growing,
        &[
            ("0.115 of its rows", |facts| (facts.is_early, facts.rows) = (true, 115)),
            ("fewer", |facts| (facts.is_early, facts.rows) = (true, 114)),
            ("half a day", |facts| {
                (facts.is_early, facts.tick) = (true, tick(100 + 43_200));
            }),
            ("idle", |facts| {
                (facts.is_early, facts.idle) = (true, Duration::from_secs(301));
            }),
        ],
        &expect![[r#"
            0.115 of its rows: Some(Seal(Rows))
            fewer: None
            half a day: Some(Seal(Lifetime))
            idle: Some(Seal(Idle))
        "#]],
    );
}

#[test]
fn a_sealed_segment_waits_for_a_tick_past_its_last_assignment() {
    check(
        SegmentState::Sealed,
        &[
            ("an earlier tick", |facts| facts.tick = tick(99)),
            ("that very tick", |facts| facts.tick = tick(100)),
            ("no tick", |facts| facts.tick = None),
            ("reported rows alone", |facts| facts.growth = growth(HasRows::No)),
            ("no rows", |facts| (facts.rows, facts.growth) = (0, growth(HasRows::No))),
            ("perhaps rows", |facts| (facts.rows, facts.growth) = (0, growth(HasRows::Unknown))),
            ("nothing on record", |facts| (facts.rows, facts.growth) = (0, None)),
        ],
        &expect![[r#"
            an earlier tick: None
            that very tick: Some(Flush)
            no tick: None
            reported rows alone: Some(Flush)
            no rows: Some(DropEmpty)
            perhaps rows: Some(Probe)
            nothing on record: Some(Probe)
        "#]],
    );
}

#[test]
fn the_largest_segments_of_a_channel_go_until_the_rest_is_small_enough() {
    let settings = CoordinatorSettings { channel_growing_max_mb: 512, ..Default::default() };
    let mut told = String::new();
    // A thousand rows are 512 MB.
    for (rows, is_early) in [
        (&[500, 500][..], false),
        (&[500, 400, 200], false),
        (&[500, 500, 500, 500], false),
        (&[500, 400], true),
        (&[], false),
    ] {
        let growing = rows.iter().zip(1..);
        let growing =
            growing.map(|(rows, id)| (*rows, SegmentId(id), segment(SegmentState::Growing)));
        let pressed = under_pressure(growing.collect(), &settings, is_early);
        let ids: Vec<i64> = pressed.iter().map(|(_, id, _)| id.0).collect();
        told.push_str(&format!("{rows:?} early {is_early}: {ids:?}\n"));
    }
    expect![[r#"
        [500, 500] early false: []
        [500, 400, 200] early false: [1]
        [500, 500, 500, 500] early false: [1, 2]
        [500, 400] early true: [1]
        [] early false: []
    "#]]
    .assert_eq(&told);
}
