//! Byte fields as lower hex.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that are written as lower hex. Upper-case digits are read as well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HexBytes(Bytes);

impl From<Bytes> for HexBytes {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<HexBytes> for Bytes {
    fn from(hex: HexBytes) -> Self {
        hex.0
    }
}

impl Serialize for HexBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = HexBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in hex")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HexBytes, E> {
                match hex::decode(text) {
                    Ok(bytes) => Ok(HexBytes(bytes.into())),
                    Err(error) => Err(E::custom(format_args!("not bytes in hex: {error}"))),
                }
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}
