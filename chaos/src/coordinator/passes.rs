//! How long the leader's looks at all records take, from its metrics.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(10);
const PASSES: [(&str, &str); 2] = [
    ("compactions", "quorate_coordinator_compaction_planning_latency"),
    ("garbage", "quorate_coordinator_garbage_planning_latency"),
];

/// Looks at everything for one purpose.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PassReport {
    pub what: String,
    pub n_passes: f64,
    pub mean_ms: f64,
}

/// # Errors
/// The node does not answer, or has no such metric.
pub(super) async fn read(http: &str) -> Result<Vec<PassReport>> {
    let page = tokio::time::timeout(WITHIN, metrics(http)).await.context("reading metrics")??;
    let value = |name: String| -> Result<f64> {
        let line = page.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse()?)
    };
    let pass = |(what, name): (&str, &str)| -> Result<PassReport> {
        let n_passes = value(format!("{name}_count"))?;
        let mean_ms = value(format!("{name}_sum"))? / n_passes.max(1.0);
        Ok(PassReport { what: what.to_owned(), n_passes, mean_ms })
    };
    PASSES.into_iter().map(pass).collect()
}

/// Those of `all` that came after `earlier`, where it is the same leader that counted.
pub(super) fn since(all: &[PassReport], earlier: &[PassReport]) -> Vec<PassReport> {
    let later = all.iter().zip(earlier).filter_map(|(all, earlier)| {
        let n_passes = all.n_passes - earlier.n_passes;
        let sum_ms = all.n_passes * all.mean_ms - earlier.n_passes * earlier.mean_ms;
        let mean_ms = sum_ms / n_passes;
        (n_passes > 0.0).then(|| PassReport { what: all.what.clone(), n_passes, mean_ms })
    });
    later.collect()
}

async fn metrics(http: &str) -> Result<String> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {http}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}
