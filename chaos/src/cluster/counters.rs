//! What the nodes count about themselves, added up over their restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Cluster;

/// Between two looks at a node: what it counts between the last look and its end is lost.
const EVERY: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the metrics of every node until it is dropped.
#[derive(Debug)]
pub struct Counters {
    totals: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    _tasks: JoinSet<()>,
}

/// How a metric is added up.
#[derive(Clone, Copy, Debug)]
pub enum Sum {
    /// It counts up from 0 at each start.
    Counter,
    /// Each time that it is higher than before counts as one.
    Rises,
}

impl Counters {
    /// Begins to look at these metrics.
    #[must_use]
    pub fn start(cluster: &Cluster, metrics: &'static [(&'static str, Sum)]) -> Counters {
        let totals = Arc::new(Mutex::new(BTreeMap::new()));
        let mut tasks = JoinSet::new();
        for node in &cluster.nodes {
            tasks.spawn(look(node.ports.http(), metrics, Arc::clone(&totals)));
        }
        Counters { totals, _tasks: tasks }
    }

    /// Of all nodes since the start.
    #[must_use]
    pub fn total(&self, metric: &str) -> u64 {
        self.totals.lock().get(metric).copied().unwrap_or(0)
    }
}

async fn look(
    address: String,
    metrics: &'static [(&'static str, Sum)],
    totals: Arc<Mutex<BTreeMap<&'static str, u64>>>,
) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut interval = tokio::time::interval(EVERY);
    loop {
        interval.tick().await;
        let Ok(Ok(page)) = tokio::time::timeout(PATIENCE, page(&address)).await else { continue };
        for (metric, sum) in metrics {
            let Some(value) = value(&page, metric) else { continue };
            let before = last.insert(metric, value);
            let more = match (sum, before) {
                (Sum::Counter, Some(before)) if value >= before => value - before,
                (Sum::Counter, _) => value,
                (Sum::Rises, before) => u64::from(before.is_some_and(|before| value > before)),
            };
            *totals.lock().entry(metric).or_default() += more;
        }
    }
}

/// The metrics of a node as text.
///
/// # Errors
/// It does not answer.
pub async fn page(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.context("the metrics of a node")?;
    let request = "GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The value of a metric without labels.
fn value(page: &str, metric: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '))?;
    let whole = line.trim().split('.').next()?;
    whole.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# HELP a_total x\na_total_more 3\na_total 17\nb 2.5\n";
        assert_eq!(value(page, "a_total"), Some(17));
        assert_eq!(value(page, "b"), Some(2));
        assert_eq!(value(page, "c"), None);
    }
}
