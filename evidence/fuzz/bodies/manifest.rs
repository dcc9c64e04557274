//! A payload is a manifest if and only if it is what a Protobuf library writes for one that keeps
//! every rule; and no payload is both a manifest and a statement.

use deed_evidence::{WireError, batch::Manifest, statement};
use deed_proto::v1;
use prost::Message as _;

use crate::oracle;

pub(crate) fn run(data: &[u8]) {
    check(data).ok();
}

pub(crate) fn check(data: &[u8]) -> Result<Manifest, WireError> {
    let canonical = v1::BatchManifest::decode(data)
        .ok()
        .filter(|manifest| manifest.encode_to_vec() == data);
    let parsed = Manifest::parse(data);
    match (&parsed, canonical) {
        (Ok(manifest), Some(decoded)) => {
            if let Err(rule) = oracle::manifest_rules(&decoded) {
                panic!("parsed, but breaks the rule of {rule}: {decoded:?}");
            }
            assert_eq!(manifest.encode(), data);
            assert_eq!(manifest.first_sequence.get(), decoded.first_sequence);
            assert!(
                statement::parse(data).is_err(),
                "a manifest and a statement"
            );
        }
        (Ok(manifest), None) => panic!("parsed, but not canonical: {manifest:?}"),
        (Err(error), Some(decoded)) => {
            let kept = oracle::manifest_rules(&decoded).is_ok();
            assert!(!kept, "keeps every rule, but refused: {error}");
        }
        (Err(_), None) => {}
    }
    parsed
}
