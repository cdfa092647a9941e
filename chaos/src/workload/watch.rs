//! Watchers: one per node that follows everything from the beginning to the end, and some that hop
//! from node to node and look at a part.

use std::time::Duration;

use proto::etcd;
use proto::etcd::watch_request::RequestUnion;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{PATIENCE, Setting, any_node};
use crate::client::{Client, prefix_end, within};
use crate::history::{Change, REGISTERS, Recorder, WatchBatch, WatchRun};

const RETRY: Duration = Duration::from_millis(50);

/// Follows everything on one node, resumes after every break, and ends at the last revision.
pub async fn follow(mut setting: Setting, node: usize) {
    let mut next = 2;
    while !setting.phase.is_done(next - 1) {
        let mut run = WatchRun {
            watcher: format!("follower of node {node}"),
            node,
            prefix: String::new(),
            start_revision: next,
            with_previous: true,
            batches: Vec::new(),
        };
        if let Some(mut stream) = Stream::open(&setting.nodes[node], &run).await {
            loop {
                let done = setting.phase.is_done(next - 1);
                tokio::select! {
                    // Both arms may be dropped half way: a message is taken whole or not at all.
                    taken = stream.next(&setting.recorder, &mut run), if !done => {
                        if !taken { break }
                        next = run.batches.last().and_then(|it| it.changes.last())
                            .map_or(next, |it| it.revision + 1).max(next);
                        setting.recorder.follower_showed(node, next - 1);
                    }
                    () = setting.phase.changed(), if !done => {}
                    else => break,
                }
            }
        }
        if !run.batches.is_empty() {
            setting.recorder.watch(run);
        }
        if !setting.phase.is_done(next - 1) {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Watches a part from a revision of the near past on any node, for a few seconds, again and again.
pub async fn hop(mut setting: Setting, number: usize, mut random: StdRng) {
    let prefixes = [REGISTERS, "many/", "lease/", ""];
    let mut round = 0;
    while setting.phase.is_running() {
        round += 1;
        let node = any_node(&setting, &mut random);
        let back = random.random_range(0..400);
        let mut run = WatchRun {
            watcher: format!("hopper {number} round {round}"),
            node,
            prefix: prefixes[number % prefixes.len()].to_owned(),
            start_revision: (setting.recorder.revision() - back).max(2),
            with_previous: number.is_multiple_of(2),
            batches: Vec::new(),
        };
        let end =
            tokio::time::Instant::now() + Duration::from_millis(random.random_range(500..5000));
        if let Some(mut stream) = Stream::open(&setting.nodes[node], &run).await {
            let mut progress = tokio::time::interval(Duration::from_millis(400));
            while setting.phase.is_running() {
                tokio::select! {
                    taken = stream.next(&setting.recorder, &mut run) => if !taken { break },
                    _ = progress.tick() => stream.ask_progress(),
                    () = tokio::time::sleep_until(end) => break,
                    () = setting.phase.changed() => {}
                }
            }
        }
        if !run.batches.is_empty() {
            setting.recorder.watch(run);
        }
        setting.phase.pause(RETRY).await;
    }
}

/// One watch on a stream of its own.
struct Stream {
    requests: mpsc::Sender<etcd::WatchRequest>,
    answers: tonic::Streaming<etcd::WatchResponse>,
}

impl Stream {
    async fn open(client: &Client, run: &WatchRun) -> Option<Stream> {
        let (requests, receiver) = mpsc::channel(4);
        let all = bytes::Bytes::from_static(&[0]);
        let (key, range_end) = if run.prefix.is_empty() {
            (all.clone(), all)
        } else {
            (run.prefix.clone().into(), prefix_end(&run.prefix))
        };
        let create = etcd::WatchCreateRequest {
            key,
            range_end,
            start_revision: run.start_revision,
            prev_kv: run.with_previous,
            ..Default::default()
        };
        let create = RequestUnion::CreateRequest(create);
        requests.send(etcd::WatchRequest { request_union: Some(create) }).await.ok()?;
        let mut call = client.watch();
        let answers = within(PATIENCE, call.watch(ReceiverStream::new(receiver))).await.ok()?;
        Some(Stream { requests, answers })
    }

    fn ask_progress(&self) {
        let progress = RequestUnion::ProgressRequest(etcd::WatchProgressRequest {});
        // A full queue means that the server does not read; then there is no progress to ask for.
        let _ = self.requests.try_send(etcd::WatchRequest { request_union: Some(progress) });
    }

    /// Takes one answer into the run; false where the stream has ended.
    async fn next(&mut self, recorder: &Recorder, run: &mut WatchRun) -> bool {
        let Ok(Some(answer)) = self.answers.message().await else {
            return false;
        };
        if answer.canceled && run.is_compacted(answer.compact_revision, recorder.compacted()) {
            return false;
        }
        if answer.canceled {
            recorder.complain(format!(
                "{} from revision {} on node {} was cancelled: compact revision {}, reason {:?}",
                run.watcher,
                run.start_revision,
                run.node,
                answer.compact_revision,
                answer.cancel_reason
            ));
            return false;
        }
        if answer.created {
            return true;
        }
        run.batches.push(WatchBatch {
            at_us: recorder.now_us(),
            header_revision: answer.header.map_or(0, |header| header.revision),
            compaction_asked: recorder.compacted(),
            changes: answer.events.iter().map(Change::parse).collect(),
        });
        true
    }
}
