//! The bytes that are hashed never change: files of them, as `tests/golden/README.md` tells.
//!
//! With `DEED_WRITE_GOLDEN=1` the files are written, and the test fails nevertheless: new ones
//! are to be looked at, not to slip in.

use std::{collections::BTreeMap, fs, path::PathBuf};

use deed_evidence::{
    KeyId, Micros,
    batch::Manifest,
    entry::{self, Entry, KeyedSignature},
    genesis::Genesis,
    signature::{self, Possession},
    statement,
    trust::{TrustLink, TrustStatement},
};
use deed_proto::v1::{Author, KeyRole, PayloadType};
use deed_tlog::{Hash, LeafIndex};

use crate::fixtures::{self, TIME_US};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every golden file's name and contents, in hex.
fn made() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (name, made) in fixtures::all() {
        let payload = statement::encode(&made).unwrap();
        files.insert(format!("statement-{name}.hex"), hex::encode(&payload));
    }
    let payload = statement::encode(&fixtures::intent()).unwrap();
    for (name, made) in entries(&payload) {
        files.insert(format!("entry-{name}.hex"), hex::encode(made.encode()));
        let hash = entry::hash(&made);
        let name = format!("entry-{name}.leaf-hash.hex");
        files.insert(name, hex::encode(hash.as_bytes()));
    }
    let manifest = fixtures::manifest().encode();
    files.insert("manifest.hex".into(), hex::encode(&manifest));
    let pae = signature::pae(PayloadType::BatchManifest, &manifest);
    files.insert("manifest.pae.hex".into(), hex::encode(pae));
    let trust = statement::encode(&fixtures::key_registered()).unwrap();
    let pae = signature::pae(PayloadType::Statement, &trust);
    files.insert("statement.pae.hex".into(), hex::encode(pae));
    let signatures = signatures(&manifest, &trust);
    for (name, made) in signed_entries(&manifest, &trust, &signatures) {
        files.insert(format!("entry-{name}.hex"), hex::encode(made.encode()));
        let hash = entry::hash(&made);
        let name = format!("entry-{name}.leaf-hash.hex");
        files.insert(name, hex::encode(hash.as_bytes()));
    }
    let key = fixtures::public_key(5);
    let possession = possession(&key).message();
    files.insert("possession.message.hex".into(), hex::encode(possession));

    for (name, made) in geneses() {
        let entry = made.to_entry().unwrap();
        files.insert(format!("{name}.hex"), hex::encode(&entry));
        let (_, id) = Genesis::from_entry(&entry).unwrap();
        let name = format!("{name}.ledger-id.hex");
        files.insert(name, hex::encode(id.as_bytes()));
    }
    files
}

fn geneses() -> [(&'static str, Genesis); 2] {
    [
        ("genesis-entry", fixtures::genesis()),
        ("genesis-entry-rules-2", fixtures::genesis_of_rules_2()),
    ]
}

/// One entry of each author, around the same payload.
fn entries(payload: &[u8]) -> Vec<(&'static str, Entry<'_>)> {
    let time = Micros::new(TIME_US + 1_234_567);
    let unsigned = Entry::unsigned(payload, time);
    let signature = KeyedSignature {
        key_id: &[0xd0; 16],
        signature: &[0xd1; 64],
    };
    vec![
        (
            "signed",
            Entry {
                signature: Some(signature),
                author: Author::Signed,
                principal_leaf: Some(300),
                ..unsigned
            },
        ),
        (
            "batched",
            Entry {
                author: Author::Batched,
                principal_leaf: Some(0),
                ..unsigned
            },
        ),
        ("unsigned", unsigned),
        ("ledger", Entry::by_ledger(payload, time)),
    ]
}

fn possession(key: &[u8; 32]) -> Possession<'_> {
    Possession {
        ledger_id: fixtures::LEDGER,
        public_key: key,
        role: KeyRole::Agent,
        producer: "spiffe://example.org/agent/refunds",
        controller: "https://example.org/teams/payments",
    }
}

/// Key id and signature of the manifest, by the key of seed 5, and of the trust statement, by the
/// authority of seed 2.
fn signatures(manifest: &[u8], trust: &[u8]) -> [(KeyId, [u8; 64]); 2] {
    let (producer, authority) = (fixtures::signing_key(5), fixtures::signing_key(2));
    [
        (
            signature::key_id(producer.public_key()),
            signature::sign(&producer, PayloadType::BatchManifest, manifest),
        ),
        (
            signature::key_id(authority.public_key()),
            signature::sign(&authority, PayloadType::Statement, trust),
        ),
    ]
}

fn signed_entries<'a>(
    manifest: &'a [u8],
    trust: &'a [u8],
    signatures: &'a [(KeyId, [u8; 64]); 2],
) -> [(&'static str, Entry<'a>); 2] {
    let time = Micros::new(TIME_US + 1_234_567);
    let [by_producer, by_authority] =
        signatures
            .each_ref()
            .map(|(key_id, signature)| KeyedSignature {
                key_id: key_id.as_bytes(),
                signature,
            });
    let link = TrustLink {
        leaf_index: LeafIndex::new(300),
        leaf_hash: Hash::new([0x12; 32]),
    };
    [
        ("manifest", Entry::manifest(manifest, by_producer, time)),
        ("trust", Entry::trust(trust, by_authority, time, link)),
    ]
}

#[test]
fn golden_files_hold() {
    let made = made();
    if std::env::var("DEED_WRITE_GOLDEN").is_ok_and(|value| value == "1") {
        for (name, contents) in &made {
            fs::write(folder().join(name), format!("{contents}\n")).unwrap();
        }
        panic!(
            "{} golden files were written: look at them, then test again",
            made.len()
        );
    }
    let mut kept = BTreeMap::new();
    for file in fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "hex") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let contents = fs::read_to_string(&path).unwrap().trim_end().to_owned();
            kept.insert(name, contents);
        }
    }
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        made.keys().collect::<Vec<_>>()
    );
    for (name, contents) in &made {
        assert_eq!(&kept[name], contents, "{name}");
    }
}

/// The files are read, too, not only written: from bytes to fields.
#[test]
fn golden_files_are_read() {
    let read = |name: &str| {
        let text = fs::read_to_string(folder().join(name)).unwrap();
        hex::decode(text.trim_end()).unwrap()
    };
    for (name, made) in fixtures::all() {
        let payload = read(&format!("statement-{name}.hex"));
        assert_eq!(statement::decode(&payload.into()).unwrap(), made, "{name}");
    }
    let payload = read("statement-intent.hex");
    for (name, made) in entries(&payload) {
        let bytes = read(&format!("entry-{name}.hex"));
        assert_eq!(Entry::parse(&bytes).unwrap(), made, "{name}");
    }
    let manifest = read("manifest.hex");
    assert_eq!(Manifest::parse(&manifest).unwrap(), fixtures::manifest());
    let trust = read("statement-key_registered.hex");
    let signatures = signatures(&manifest, &trust);
    for (seed, (name, made)) in
        [5, 2]
            .into_iter()
            .zip(signed_entries(&manifest, &trust, &signatures))
    {
        let bytes = read(&format!("entry-{name}.hex"));
        let parsed = Entry::parse(&bytes).unwrap();
        assert_eq!(parsed, made, "{name}");
        let key = fixtures::signing_key(seed);
        let signed = parsed.signature.unwrap().signature;
        signature::verify(
            key.public_key(),
            parsed.payload_type,
            parsed.payload,
            signed,
        )
        .unwrap();
    }
    let key = fixtures::signing_key(5);
    let message = read("possession.message.hex");
    let Ok(Some(TrustStatement::KeyRegistered(registered))) = TrustStatement::parse(&trust) else {
        panic!("registers a key");
    };
    let possession = registered.possession;
    key.public_key()
        .verify_strict(&message, &possession)
        .unwrap();
    for (name, made) in geneses() {
        let (genesis, id) = Genesis::from_entry(&read(&format!("{name}.hex"))).unwrap();
        assert_eq!(genesis, made);
        let wanted = read(&format!("{name}.ledger-id.hex"));
        assert_eq!(&id.as_bytes()[..], wanted);
    }
}
