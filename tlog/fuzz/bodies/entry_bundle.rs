//! What decodes as a bundle encodes to the same bytes.

use deed_tlog::{decode_entry_bundle, encode_entry_bundle};

pub(crate) fn run(data: &[u8]) {
    if let Ok(entries) = decode_entry_bundle(data) {
        assert!(entries.len() <= 256);
        assert_eq!(encode_entry_bundle(entries).unwrap(), data);
    }
}
