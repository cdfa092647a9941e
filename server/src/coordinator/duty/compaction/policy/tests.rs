use expect_test::{Expect, expect};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

fn segment(id: i64, rows: i64) -> Candidate {
    Candidate { id, rows, size_bytes: rows << 10, made_at_ms: NOW_MS, ..Candidate::default() }
}

/// Full segments have 1,000 rows.
fn plans(wish: Wish, candidates: Vec<Candidate>) -> String {
    let group = Group {
        collection: CollectionId(1),
        partition: PartitionId(2),
        channel: Name::from("dml_0_1v0"),
        rows_max: 1000,
        candidates,
    };
    let limits = Limits::of(&CoordinatorSettings::default());
    let plans = mix(&group, &limits, wish, NOW_MS);
    plans.iter().map(|plan| format!("{plan}\n")).collect()
}

fn check(candidates: Vec<Candidate>, expected: &Expect) {
    expected.assert_eq(&plans(Wish::Automatic, candidates));
}

fn rows_of(rows: &[i64]) -> Vec<Candidate> {
    rows.iter().zip(1..).map(|(rows, id)| segment(id, *rows)).collect()
}

#[test]
fn small_segments_are_merged_from_three_on_or_nearly_to_a_full_one() {
    check(rows_of(&[100, 100]), &expect![[""]]);
    check(
        rows_of(&[100, 200, 300]),
        &expect![[r#"
        mix 3 1 2, rows 600 of 1000, merge: priority 240 = 0.4 x 0 deleted + 0.3 x 800 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        rows_of(&[450, 449]),
        &expect![[r#"
        mix 1 2, rows 899 of 1000, merge: priority 165 = 0.4 x 0 deleted + 0.3 x 551 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        rows_of(&[490, 480, 470, 460]),
        &expect![[r#"
        mix 1 4, rows 950 of 1000, merge: priority 157 = 0.4 x 0 deleted + 0.3 x 525 fragmented + 0.2 x 0 age + 0.1 x 0 size
        mix 2 3, rows 950 of 1000, merge: priority 157 = 0.4 x 0 deleted + 0.3 x 525 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        rows_of(&[0, 0, 0]),
        &expect![[r#"
        mix 1 3 2, rows 0 of 1000, merge: priority 300 = 0.4 x 0 deleted + 0.3 x 1000 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
}

#[test]
fn a_plan_has_thirty_inputs_at_most() {
    check(
        rows_of(&[10; 65]),
        &expect![[r#"
        mix 1 65 64 63 62 61 60 59 58 57 56 55 54 53 52 51 50 49 48 47 46 45 44 43 42 41 40 39 38 37, rows 300 of 1000, merge: priority 297 = 0.4 x 0 deleted + 0.3 x 990 fragmented + 0.2 x 0 age + 0.1 x 0 size
        mix 2 36 35 34 33 32 31 30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8, rows 300 of 1000, merge: priority 297 = 0.4 x 0 deleted + 0.3 x 990 fragmented + 0.2 x 0 age + 0.1 x 0 size
        mix 3 7 6 5 4, rows 50 of 1000, merge: priority 297 = 0.4 x 0 deleted + 0.3 x 990 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
}

#[test]
fn fifty_small_segments_are_merged_by_hand_in_two_plans() {
    expect![[r#"
        mix 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30, rows 30 of 1000, by hand: priority 299 = 0.4 x 0 deleted + 0.3 x 999 fragmented + 0.2 x 0 age + 0.1 x 0 size
        mix 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50, rows 20 of 1000, by hand: priority 299 = 0.4 x 0 deleted + 0.3 x 999 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]].assert_eq(&plans(Wish::ByHand, rows_of(&[1; 50])));
}

#[test]
fn by_hand_every_segment_goes() {
    expect![[r#"
        mix 1, rows 1000 of 1000, by hand: priority 0 = 0.4 x 0 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
        mix 2 4 5, rows 950 of 1000, by hand: priority 204 = 0.4 x 0 deleted + 0.3 x 683 fragmented + 0.2 x 0 age + 0.1 x 0 size
        mix 3, rows 600 of 1000, by hand: priority 120 = 0.4 x 0 deleted + 0.3 x 400 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]].assert_eq(&plans(Wish::ByHand, rows_of(&[1000, 600, 600, 300, 50])));
    assert_eq!(plans(Wish::ByHand, vec![]), "");
}

#[test]
fn what_is_left_goes_along_with_others() {
    // With a plan that is made anyhow, beyond a full segment but not far.
    let deleted = Candidate { delta_rows: 500, ..segment(1, 1000) };
    check(
        vec![deleted, segment(2, 240), segment(3, 260)],
        &expect![[r#"
        mix 1 2, rows 1240 of 1000, deleted rows: priority 275 = 0.4 x 403 deleted + 0.3 x 380 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    // With a larger segment, the smallest that has room.
    check(
        rows_of(&[900, 700, 100]),
        &expect![[r#"
        mix 2 3, rows 800 of 1000, merge: priority 180 = 0.4 x 0 deleted + 0.3 x 600 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(rows_of(&[1200, 100]), &expect![[""]]);
}

#[test]
fn each_reason_of_a_single_segment_by_itself() {
    let full = || segment(1, 1000);
    check(vec![full()], &expect![[""]]);
    check(vec![Candidate { delta_rows: 199, ..full() }], &expect![[""]]);
    check(
        vec![Candidate { delta_rows: 200, ..full() }],
        &expect![[r#"
        mix 1, rows 1000 of 1000, deleted rows: priority 80 = 0.4 x 200 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        vec![Candidate { delta_bytes: (2 << 20) + 1, ..full() }],
        &expect![[r#"
        mix 1, rows 1000 of 1000, deleted rows: priority 0 = 0.4 x 0 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        vec![Candidate { delta_files: 201, ..full() }],
        &expect![[r#"
        mix 1, rows 1000 of 1000, many delta logs: priority 0 = 0.4 x 0 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        vec![Candidate { expired_rows: 200, ..full() }],
        &expect![[r#"
        mix 1, rows 1000 of 1000, expired rows: priority 0 = 0.4 x 0 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        vec![Candidate { expired_bytes: (10 << 20) + 1, ..full() }],
        &expect![[r#"
        mix 1, rows 1000 of 1000, expired rows: priority 0 = 0.4 x 0 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(
        vec![Candidate { stats_files: 17, ..full() }],
        &expect![[r#"
        mix 1, rows 1000 of 1000, many statistics logs: priority 0 = 0.4 x 0 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    check(vec![Candidate { stats_files: 17, is_result: true, ..full() }], &expect![[""]]);
    check(
        vec![Candidate { has_old_index: true, ..full() }],
        &expect![[r#"
        mix 1, rows 1000 of 1000, old index: priority 0 = 0.4 x 0 deleted + 0.3 x 0 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
    // Rows that nobody counted are no reason to divide by them.
    check(vec![segment(1, 0)], &expect![[""]]);
}

#[test]
fn a_segment_with_a_reason_takes_others_along() {
    let mut candidates = rows_of(&[500, 300, 100, 700]);
    candidates[0].delta_rows = 250;
    check(
        candidates,
        &expect![[r#"
        mix 1 2 3, rows 900 of 1000, deleted rows: priority 321 = 0.4 x 278 deleted + 0.3 x 700 fragmented + 0.2 x 0 age + 0.1 x 0 size
    "#]],
    );
}

#[test]
fn every_factor_of_the_priority_is_visible() {
    let old = NOW_MS - 15 * DAY_MS;
    let large =
        Candidate { delta_rows: 500, made_at_ms: old, size_bytes: 5 << 30, ..segment(1, 1000) };
    check(
        vec![large],
        &expect![[r#"
        mix 1, rows 1000 of 1000, deleted rows: priority 350 = 0.4 x 500 deleted + 0.3 x 0 fragmented + 0.2 x 500 age + 0.1 x 500 size
    "#]],
    );
    let beyond =
        Candidate { delta_rows: 5000, made_at_ms: 0, size_bytes: 50 << 30, ..segment(1, 1) };
    check(
        vec![beyond],
        &expect![[r#"
        mix 1, rows 1 of 1000, deleted rows: priority 999 = 0.4 x 1000 deleted + 0.3 x 999 fragmented + 0.2 x 1000 age + 0.1 x 1000 size
    "#]],
    );
}
