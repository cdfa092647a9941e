//! Questions to a peer over a stream that stays open: a call for each costs several times as much.

use std::collections::BTreeMap;
use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

/// One question is under way at a time.
const QUESTIONS_MAX: usize = 1;

/// An open stream on which every question so far was answered.
struct Line<Q, A> {
    questions: mpsc::Sender<Q>,
    answers: Streaming<A>,
}

/// The lines that are free, by peer.
pub(crate) struct Lines<Q, A> {
    free: Mutex<BTreeMap<u64, Line<Q, A>>>,
}

impl<Q, A> Default for Lines<Q, A> {
    fn default() -> Lines<Q, A> {
        Lines { free: Mutex::default() }
    }
}

impl<Q: Send + 'static, A> Lines<Q, A> {
    /// Asks `peer`, on a line that `open` opens where none is free. A line whose question is given
    /// up, or fails, is closed: no later question can get its answer.
    ///
    /// # Errors
    /// The peer is not reached, or refuses.
    pub(crate) async fn ask<F>(
        &self,
        peer: u64,
        question: Q,
        open: impl FnOnce(ReceiverStream<Q>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<Streaming<A>>, Status>>,
    {
        let free = self.free.lock().remove(&peer);
        let mut line = match free {
            Some(line) => line,
            None => {
                let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
                let answers = open(ReceiverStream::new(asked)).await?.into_inner();
                Line { questions, answers }
            }
        };
        let ended = || Status::unavailable("the peer has closed the stream");
        line.questions.send(question).await.map_err(|_closed| ended())?;
        let answer = line.answers.message().await?.ok_or_else(ended)?;
        self.free.lock().insert(peer, line);
        Ok(answer)
    }
}
