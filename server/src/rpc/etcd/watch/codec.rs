//! Puts a watch response together from its own few fields and events that are encoded already.

use bytes::{BufMut, Bytes};
use prost::Message as _;
use proto::etcd;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

/// A response in two pieces; protobuf reads them as one message.
#[derive(Debug)]
pub(crate) struct Message {
    /// Without events.
    pub(super) head: etcd::WatchResponse,
    /// Encoded field `events`, any number of times.
    pub(super) events: Bytes,
}

#[derive(Clone, Copy, Default)]
pub(super) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Message;
    type Decode = etcd::WatchRequest;
    type Encoder = WatchEncoder;
    type Decoder = <ProstCodec<etcd::WatchResponse, etcd::WatchRequest> as Codec>::Decoder;

    fn encoder(&mut self) -> WatchEncoder {
        WatchEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<etcd::WatchResponse, etcd::WatchRequest>::default().decoder()
    }
}

pub(super) struct WatchEncoder;

impl Encoder for WatchEncoder {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.head.encoded_len() + message.events.len());
        message.head.encode_raw(buffer);
        buffer.put_slice(&message.events);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_pieces_are_one_response() {
        let event = etcd::Event {
            kv: Some(etcd::KeyValue { key: Bytes::from_static(b"k"), ..Default::default() }),
            ..Default::default()
        };
        let whole = etcd::WatchResponse {
            header: Some(etcd::ResponseHeader { revision: 9, ..Default::default() }),
            watch_id: 3,
            fragment: true,
            events: vec![event.clone(), event],
            ..Default::default()
        };
        let events = etcd::WatchResponse { events: whole.events.clone(), ..Default::default() };
        let mut head = whole.clone();
        head.events.clear();
        let mut bytes = head.encode_to_vec();
        bytes.extend_from_slice(&events.encode_to_vec());
        assert_eq!(etcd::WatchResponse::decode(bytes.as_slice()).unwrap(), whole);
    }
}
