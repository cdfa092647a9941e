//! The text format of Prometheus.

use std::fmt::Write;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Page {
    text: String,
    /// The metric whose help was written last; its other label sets follow without one.
    last: &'static str,
}

impl Page {
    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: u64) {
        self.labelled(name, help, &[], value);
    }

    pub(super) fn labelled(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        value: u64,
    ) {
        self.head(name, help, "gauge");
        self.line(name, "", labels, value);
    }

    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        value: u64,
    ) {
        self.head(name, help, "counter");
        self.line(name, "", labels, value);
    }

    /// Buckets with their upper bounds; not cumulative yet.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        buckets: &[(Duration, u64)],
        sum: Duration,
    ) {
        self.head(name, help, "histogram");
        let mut total = 0;
        for (bound, count) in buckets {
            total += count;
            let bound = bound.as_secs_f64().to_string();
            self.line(name, "_bucket", &[labels, &[("le", bound.as_str())]].concat(), total);
        }
        self.line(name, "_bucket", &[labels, &[("le", "+Inf")]].concat(), total);
        self.line(name, "_sum", labels, sum.as_secs_f64());
        self.line(name, "_count", labels, total);
    }

    /// With Milvus's bounds: counts by upper bound, and how many were larger than all of them.
    pub(super) fn milvus_histogram(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        (bounded, larger): (Vec<(u64, u64)>, u64),
        sum: u64,
    ) {
        self.head(name, help, "histogram");
        let mut total = 0;
        for (bound, count) in bounded {
            total += count;
            let bound = bound.to_string();
            self.line(name, "_bucket", &[labels, &[("le", bound.as_str())]].concat(), total);
        }
        total += larger;
        self.line(name, "_bucket", &[labels, &[("le", "+Inf")]].concat(), total);
        self.line(name, "_sum", labels, sum);
        self.line(name, "_count", labels, total);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, name: &'static str, help: &str, kind: &str) {
        if self.last != name {
            self.last = name;
            self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
    }

    fn line(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{}\"", text.escape_default()))
            .collect();
        match labels.is_empty() {
            true => self.write(format_args!("{name}{suffix} {value}\n")),
            false => self.write(format_args!("{name}{suffix}{{{}}} {value}\n", labels.join(","))),
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_prometheus() {
        let mut page = Page::default();
        page.gauge("quorate_raft_term", "Term", 7);
        page.labelled("quorate_raft_peer_lag_entries", "Lag", &[("peer", "n\"2")], 1);
        page.labelled("quorate_raft_peer_lag_entries", "Lag", &[("peer", "n3")], 2);
        let buckets = [(Duration::from_micros(16), 2), (Duration::from_micros(32), 1)];
        page.histogram("quorate_fsync_seconds", "Fsync", &[], &buckets, Duration::from_millis(3));
        expect_test::expect![[r#"
            # HELP quorate_raft_term Term
            # TYPE quorate_raft_term gauge
            quorate_raft_term 7
            # HELP quorate_raft_peer_lag_entries Lag
            # TYPE quorate_raft_peer_lag_entries gauge
            quorate_raft_peer_lag_entries{peer="n\"2"} 1
            quorate_raft_peer_lag_entries{peer="n3"} 2
            # HELP quorate_fsync_seconds Fsync
            # TYPE quorate_fsync_seconds histogram
            quorate_fsync_seconds_bucket{le="0.000016"} 2
            quorate_fsync_seconds_bucket{le="0.000032"} 3
            quorate_fsync_seconds_bucket{le="+Inf"} 3
            quorate_fsync_seconds_sum 0.003
            quorate_fsync_seconds_count 3
        "#]]
        .assert_eq(&page.into_text());
    }
}
