//! The outgoing half of a watch stream, pulled by the transport.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use proto::etcd;
use tonic::Status;

use super::codec::Message;
use crate::rpc::etcd::Etcd;
use crate::watch_hub::{Outgoing, Part, StreamQueue};

pub(super) struct Responses {
    api: Arc<Etcd>,
    stream: Arc<StreamQueue>,
    /// What is left of a response that was split.
    parts: VecDeque<Message>,
}

impl Responses {
    pub(super) fn new(api: Arc<Etcd>, stream: Arc<StreamQueue>) -> Responses {
        Responses { api, stream, parts: VecDeque::new() }
    }

    fn message(&mut self, outgoing: Outgoing) -> Message {
        match outgoing {
            Outgoing::Control(mut head) => {
                head.header = Some(self.api.headers.complete(head.header.as_ref()));
                Message { head, events: Bytes::new() }
            }
            Outgoing::Progress { watch_id, revision } => {
                let header = Some(self.api.headers.at(revision));
                let head = etcd::WatchResponse { header, watch_id, ..Default::default() };
                Message { head, events: Bytes::new() }
            }
            Outgoing::Events { watcher, batch, from } => {
                let header = self.api.headers.at(batch.through());
                let message = |part: Part| Message {
                    head: etcd::WatchResponse {
                        header: Some(header),
                        watch_id: watcher.id,
                        fragment: part.fragment,
                        ..Default::default()
                    },
                    events: part.events,
                };
                if !watcher.fragment {
                    return message(batch.whole(from));
                }
                let bytes_max = self.api.limits.message_bytes_max();
                let mut parts = batch.parts(from, bytes_max).into_iter().map(message);
                let first = parts.next().expect("a batch has at least one part");
                self.parts.extend(parts);
                first
            }
        }
    }
}

impl Stream for Responses {
    type Item = Result<Message, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(part) = self.parts.pop_front() {
            return Poll::Ready(Some(Ok(part)));
        }
        match ready!(self.stream.poll_next(context)) {
            Some(Ok(outgoing)) => Poll::Ready(Some(Ok(self.message(outgoing)))),
            Some(Err(status)) => Poll::Ready(Some(Err(status))),
            None => Poll::Ready(None),
        }
    }
}

/// The client is gone, whatever the reason: its watches go too.
impl Drop for Responses {
    fn drop(&mut self) {
        self.api.hub.close(&self.stream, None);
    }
}
