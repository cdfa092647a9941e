//! The measurements as a page for people.

use std::fmt::Write as _;

use super::{Measured, Results};
use crate::load::LoadReport;
use crate::million::MillionReport;
use crate::numbers::{grouped, median};
use crate::past::PastReport;

/// A row's name and how to read it off a report.
type Row = (&'static str, fn(&MillionReport) -> f64);

/// The whole page.
#[must_use]
pub(super) fn render(results: &Results) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        page,
        "Written by `make bench`. Three nodes of each server on one machine, with the client on the \
         same cores, in turn; medians over the rounds.\n\n\
         - machine: {}\n- Quorate: {}\n- etcd: {}\n- ceiling: three servers that answer at once, \
         without log, disk or peers\n",
        results.machine, results.quorate_version, results.etcd_version
    );
    rates(&mut page, results);
    failovers(&mut page, results);
    millions(&mut page, results);
    pasts(&mut page, results);
    page.push_str("## Commands\n\n```\n");
    for command in &results.commands {
        let _ = writeln!(page, "{}", without_folders(command));
    }
    page.push_str("```\n");
    page
}

/// Temporary folders and the place of the binaries differ from run to run.
fn without_folders(command: &str) -> String {
    command
        .split(' ')
        .map(|word| match word.rsplit_once('/') {
            Some((_, last)) if word.starts_with('/') => last,
            _ => word,
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn rates(page: &mut String, results: &Results) {
    page.push_str(
        "## Operations\n\nRates are per second. CPU is that of all three nodes for one operation, \
         in microseconds; the client's own is beside it.\n\n\
         | operation | clients | Quorate | etcd | ratio | ceiling | p99 ms Quorate / etcd \
         | server CPU Quorate / etcd | ratio | client CPU |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut cases: Vec<(&str, usize)> = Vec::new();
    for measured in &results.loads {
        let case = (measured.report.op.as_str(), measured.report.n_clients);
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    for (op, n_clients) in cases {
        let of = |kind: &str, read: fn(&LoadReport) -> f64| {
            let matches = |it: &&Measured| {
                it.kind == kind && it.report.op == op && it.report.n_clients == n_clients
            };
            let values: Vec<f64> =
                results.loads.iter().filter(matches).map(|it| read(&it.report)).collect();
            (!values.is_empty()).then(|| median(&values))
        };
        let rate = |kind| of(kind, |report| report.per_second);
        let p99 = |kind| of(kind, |report| crate::numbers::float(report.p99_us) / 1e3);
        let cpu = |kind| of(kind, |report| report.server_cpu_us.unwrap_or(0.0));
        let client = of("quorate", |report| report.client_cpu_us);
        let _ = writeln!(
            page,
            "| {op} | {n_clients} | {} | {} | {} | {} | {} / {} | {} / {} | {} | {} |",
            whole(rate("quorate")),
            whole(rate("etcd")),
            ratio(rate("quorate"), rate("etcd")),
            whole(rate("ceiling")),
            tenth(p99("quorate")),
            tenth(p99("etcd")),
            tenth(cpu("quorate")),
            tenth(cpu("etcd")),
            ratio(cpu("quorate"), cpu("etcd")),
            tenth(client),
        );
    }
    let n_errors: u64 = results.loads.iter().map(|it| it.report.n_errors).sum();
    let _ = writeln!(page, "\nFailed calls in all of it: {n_errors}.\n");
}

fn failovers(page: &mut String, results: &Results) {
    if results.failovers.is_empty() {
        return;
    }
    page.push_str(
        "## Failover\n\nSIGKILL of the leader to the first acknowledgement, by another node and in a \
         later term, of a write that was sent after it.\n\n\
         | server | runs | median ms | max ms |\n|---|---|---|---|\n",
    );
    for (kind, median_ms, max_ms, n_runs) in &results.failovers {
        let _ = writeln!(page, "| {kind} | {n_runs} | {median_ms:.0} | {max_ms:.0} |");
    }
    page.push('\n');
}

fn pasts(page: &mut String, results: &Results) {
    let Some((_, any)) = results.pasts.first() else { return };
    let _ = writeln!(
        page,
        "## Reads of the past, under writes\n\nA list of {} keys in pages of 500 at the revision of \
         its first page, each page from another node; {} watches of a key each from {} revisions \
         back, on all nodes. 16 clients write meanwhile.\n\n\
         | server | versions of each key | list s | slowest put ms | watches s | puts p99 ms | \
         slowest put ms | failed puts | terms |\n|---|---|---|---|---|---|---|---|---|",
        grouped(any.n_keys),
        any.n_watchers,
        any.n_revisions,
    );
    for (kind, it) in &results.pasts {
        let PastReport { n_versions, pages_s, pages_put_max_ms, watch_s, .. } = it;
        let _ = writeln!(
            page,
            "| {kind} | {n_versions} | {pages_s:.2} | {pages_put_max_ms:.0} | {watch_s:.2} | \
             {:.1} | {:.0} | {} | {} |",
            it.watch_put_p99_ms, it.watch_put_max_ms, it.n_put_errors, it.terms,
        );
    }
    page.push('\n');
}

fn millions(page: &mut String, results: &Results) {
    let of = |kind: &str| results.millions.iter().find(|(it, _)| it == kind).map(|(_, it)| it);
    let (quorate, etcd) = (of("quorate"), of("etcd"));
    let Some(any) = quorate.or(etcd) else {
        return;
    };
    let _ = writeln!(
        page,
        "## {} keys of 300 bytes\n\n| | Quorate | etcd | ratio |\n|---|---|---|---|",
        grouped(any.n_keys)
    );
    let rows: [Row; 9] = [
        ("load, 24 clients with transactions of 50 puts, s", |it| it.load_s),
        ("memory of the largest node, MB", MillionReport::memory_max_mb),
        ("full list in pages of 2,000, s", |it| it.list_s),
        ("whole cluster killed to first linearizable read, s", |it| it.restart_s),
        ("the same, every node, s", |it| it.restart_all_s),
        ("backup while writing, s", |it| it.backup_s),
        ("size of the backup, MB", |it| it.backup_mb),
        ("p99 of writes before the backup, ms", |it| it.p99_before_backup_ms),
        ("p99 of writes during the backup, ms", |it| it.p99_during_backup_ms),
    ];
    for (name, read) in rows {
        let (ours, theirs) = (quorate.map(read), etcd.map(read));
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {} |",
            hundredth(ours),
            hundredth(theirs),
            ratio(ours, theirs)
        );
    }
    page.push('\n');
}

fn whole(value: Option<f64>) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are small")]
    value.map_or("-".to_owned(), |it| grouped(it.round().max(0.0) as u64))
}

fn tenth(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |it| format!("{it:.1}"))
}

fn hundredth(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |it| format!("{it:.2}"))
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => format!("{:.2}x", ours / theirs),
        _ => "-".to_owned(),
    }
}
