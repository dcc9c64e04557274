//! What parses as an entry encodes to the same bytes, by hand and by the generated encoder.

use deed_evidence::entry::{Entry, EntryError};
use deed_proto::v1::{self, Author, PayloadType};
use prost::Message as _;

pub(crate) fn run(data: &[u8]) {
    check(data).ok();
}

pub(crate) fn check(data: &[u8]) -> Result<Entry<'_>, EntryError> {
    let canonical = v1::Entry::decode(data)
        .ok()
        .filter(|entry| entry.encode_to_vec() == data);
    let parsed = Entry::parse(data);
    match (&parsed, canonical) {
        (Ok(entry), Some(decoded)) => {
            assert!(keeps_rules(&decoded), "{decoded:?}");
            assert_eq!(entry.encode(), data);
            assert_eq!(message(entry), decoded);
        }
        (Ok(entry), None) => panic!("parsed, but not canonical: {entry:?}"),
        (Err(error), Some(decoded)) => {
            let too_long = data.len() > deed_evidence::ENTRY_BYTES_MAX;
            assert!(too_long || !keeps_rules(&decoded), "{error}: {decoded:?}");
        }
        (Err(_), None) => {}
    }
    parsed
}

/// The same fields as the generated message.
pub(crate) fn message(entry: &Entry<'_>) -> v1::Entry {
    let mut message = v1::Entry {
        payload: entry.payload.to_vec().into(),
        received_at_us: entry.received_at.get(),
        principal_leaf: entry.principal_leaf,
        previous_trust: entry.previous_trust.map(|link| link.to_message()),
        ..v1::Entry::default()
    };
    message.set_payload_type(entry.payload_type);
    message.set_author(entry.author);
    if let Some(signature) = &entry.signature {
        message.key_id = signature.key_id.to_vec().into();
        message.signature = signature.signature.to_vec().into();
    }
    message
}

/// The rules of `deed/v1/entry.proto`.
fn keeps_rules(entry: &v1::Entry) -> bool {
    let signed = entry.author == Author::Signed as i32;
    let lengths = if signed { (16, 64) } else { (0, 0) };
    let manifest = entry.payload_type == PayloadType::BatchManifest as i32;
    let link = entry.previous_trust.as_ref();
    (manifest || entry.payload_type == PayloadType::Statement as i32)
        && (signed || !manifest)
        && link.is_none_or(|link| signed && !manifest && link.leaf_hash.len() == 32)
        && (1..=60_000).contains(&entry.payload.len())
        && (entry.key_id.len(), entry.signature.len()) == lengths
        && (1..=4).contains(&entry.author)
        && entry.received_at_us > 0
}
