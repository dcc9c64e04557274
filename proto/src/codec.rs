//! The codec of the services: Protobuf, with a bound on the cost of decoding.
//!
//! An empty embedded message is two bytes on the wire and a hundred in memory, so with a limit on a
//! message's bytes alone a small request could take fifty times its size. No valid message of this
//! protocol has more than [`FIELDS_MAX`] fields on its first level, repeated ones counted one by
//! one, so a message with more is refused before it is decoded.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, encoding};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

/// Most fields on the first level of a message: twice the most envelopes of a request.
pub const FIELDS_MAX: usize = 8192;

/// A Protobuf codec that encodes `T` and decodes `U`.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(tonic::codec::BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes messages that are within the bound.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        check_fields(buf.chunk())?;
        let message = U::decode(buf)
            .map_err(|error| Status::invalid_argument(format!("the message: {error}")))?;
        Ok(Some(message))
    }
}

/// Counts the fields of the first level. The decoder refuses bytes that cannot be read here.
fn check_fields(mut bytes: &[u8]) -> Result<(), Status> {
    let mut fields = 0;
    while !bytes.is_empty() {
        fields += 1;
        if fields > FIELDS_MAX {
            return Err(Status::invalid_argument(format!(
                "the message has more than {FIELDS_MAX} fields; send fewer envelopes in a request"
            )));
        }
        let Ok((tag, wire_type)) = encoding::decode_key(&mut bytes) else {
            return Ok(());
        };
        let skipped = encoding::skip_field(
            wire_type,
            tag,
            &mut bytes,
            encoding::DecodeContext::default(),
        );
        if skipped.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn request(envelopes: usize) -> Vec<u8> {
        v1::AppendRequest {
            envelopes: vec![v1::Envelope::default(); envelopes],
            ..v1::AppendRequest::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn many_tiny_fields_are_refused_before_they_are_decoded() {
        assert!(check_fields(&request(FIELDS_MAX)).is_ok());
        let status = check_fields(&request(FIELDS_MAX + 1)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn what_is_not_protobuf_is_left_to_the_decoder() {
        assert!(check_fields(&[0xff; 64]).is_ok());
        assert!(check_fields(&[0x12, 0x7f, 1, 2]).is_ok());
    }
}
