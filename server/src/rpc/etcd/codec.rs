//! Protobuf messages with buffers that fit them.
//!
//! tonic's own codec takes 8 KiB for every message, and doubles its way up to a large one.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::error::EtcdError;
use crate::edge::elements;
use crate::edge::limits::CLIENT_ELEMENTS_MAX;

/// Most requests are a key and a small value.
const RECEIVE_BYTES: usize = 1024;
const SEND_BYTES: usize = 256;
/// From so many encoded bytes on a message is handed to the transport.
const YIELD_BYTES: usize = 32 * 1024;

/// Encodes `T`, decodes `U`.
pub(super) struct FittingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for FittingCodec<T, U> {
    fn default() -> Self {
        FittingCodec(PhantomData)
    }
}

pub(super) struct FittingEncoder<T>(PhantomData<T>);
pub(super) struct FittingDecoder<U>(PhantomData<U>);

impl<T, U> Codec for FittingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = FittingEncoder<T>;
    type Decoder = FittingDecoder<U>;

    fn encoder(&mut self) -> FittingEncoder<T> {
        FittingEncoder(PhantomData)
    }

    fn decoder(&mut self) -> FittingDecoder<U> {
        FittingDecoder(PhantomData)
    }
}

impl<T: Message> Encoder for FittingEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(SEND_BYTES, YIELD_BYTES)
    }
}

impl<U: Message + Default> Decoder for FittingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The whole message lies in one piece. A transaction is all that can hold much.
        elements::check(buffer.chunk(), CLIENT_ELEMENTS_MAX)
            .map_err(|error| EtcdError::TooManyOps.with_detail(&error.to_string()))?;
        U::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(RECEIVE_BYTES, YIELD_BYTES)
    }
}
