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
    check(rows_of(&[100, 200, 300]), &expect![[""]]);
    check(rows_of(&[450, 449]), &expect![[""]]);
    check(rows_of(&[490, 480, 470, 460]), &expect![[""]]);
    check(rows_of(&[0, 0, 0]), &expect![[""]]);
}

#[test]
fn a_plan_has_thirty_inputs_at_most() {
    check(rows_of(&[10; 65]), &expect![[""]]);
}

#[test]
fn fifty_small_segments_are_merged_by_hand_in_two_plans() {
    expect![[""]].assert_eq(&plans(Wish::ByHand, rows_of(&[1; 50])));
}

#[test]
fn by_hand_every_segment_goes() {
    expect![[""]].assert_eq(&plans(Wish::ByHand, rows_of(&[1000, 600, 600, 300, 50])));
    assert_eq!(plans(Wish::ByHand, vec![]), "");
}

#[test]
fn what_is_left_goes_along_with_others() {
    // With a plan that is made anyhow, beyond a full segment but not far.
    check(rows_of(&[400, 400, 190, 200, 100, 100]), &expect![[""]]);
    // With a larger segment, the smallest that has room.
    check(rows_of(&[900, 700, 100]), &expect![[""]]);
    check(rows_of(&[1200, 100]), &expect![[""]]);
}

#[test]
fn each_reason_of_a_single_segment_by_itself() {
    let full = || segment(1, 1000);
    check(vec![full()], &expect![[""]]);
    check(vec![Candidate { delta_rows: 199, ..full() }], &expect![[""]]);
    check(vec![Candidate { delta_rows: 200, ..full() }], &expect![[""]]);
    check(vec![Candidate { delta_bytes: (2 << 20) + 1, ..full() }], &expect![[""]]);
    check(vec![Candidate { delta_files: 201, ..full() }], &expect![[""]]);
    check(vec![Candidate { expired_rows: 200, ..full() }], &expect![[""]]);
    check(vec![Candidate { expired_bytes: (10 << 20) + 1, ..full() }], &expect![[""]]);
    check(vec![Candidate { stats_files: 17, ..full() }], &expect![[""]]);
    check(vec![Candidate { stats_files: 17, is_result: true, ..full() }], &expect![[""]]);
    check(vec![Candidate { has_old_index: true, ..full() }], &expect![[""]]);
    // Rows that nobody counted are no reason to divide by them.
    check(vec![segment(1, 0)], &expect![[""]]);
}

#[test]
fn a_segment_with_a_reason_takes_others_along() {
    let mut candidates = rows_of(&[500, 300, 100, 700]);
    candidates[0].delta_rows = 250;
    check(candidates, &expect![[""]]);
}

#[test]
fn every_factor_of_the_priority_is_visible() {
    let old = NOW_MS - 15 * DAY_MS;
    let large =
        Candidate { delta_rows: 500, made_at_ms: old, size_bytes: 5 << 30, ..segment(1, 1000) };
    check(vec![large], &expect![[""]]);
    let beyond =
        Candidate { delta_rows: 5000, made_at_ms: 0, size_bytes: 50 << 30, ..segment(1, 1) };
    check(vec![beyond], &expect![[""]]);
}
