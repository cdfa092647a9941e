//! Questions about single segments, as operators ask them, of one node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use prost::Message;
use proto::admin::{InspectRequest, Question, Sheet, Subject};
use tokio::task::JoinSet;

use crate::load::wire::{Connection, encode};
use crate::numbers::float;

const N_CLIENTS: usize = 32;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const PATH: &str = "/quorate.admin.v1.Admin/Inspect";

/// Answers a second of one node; `local` ones are not confirmed with the others.
///
/// # Errors
/// A question had no answer.
pub(super) async fn run(
    endpoint: &str,
    segments: &[i64],
    local: bool,
    duration: Duration,
) -> Result<f64> {
    let until = Instant::now() + duration;
    let mut clients = JoinSet::new();
    for nth in 0..N_CLIENTS {
        let (endpoint, segments) = (endpoint.to_owned(), segments.to_vec());
        clients.spawn(async move {
            let connection = Connection::open(&endpoint).await?;
            let head = connection.head(PATH)?;
            let mut n_answers = 0u64;
            for segment in segments.iter().cycle().skip(nth) {
                if Instant::now() >= until {
                    break;
                }
                let request = InspectRequest {
                    subject: Subject::Segment.into(),
                    question: Question::Show.into(),
                    id: segment.to_string(),
                    local,
                    ..Default::default()
                };
                let calling = connection.call(&head, encode(&request));
                let answer = tokio::time::timeout(CALL_TIMEOUT, calling).await??;
                Sheet::decode(answer)?;
                n_answers += 1;
            }
            Ok::<u64, anyhow::Error>(n_answers)
        });
    }
    let mut total = 0;
    while let Some(ended) = clients.join_next().await {
        total += ended.context("a client panicked")?.context("asking about a segment")?;
    }
    Ok(float(total) / duration.as_secs_f64())
}
