//! Forgery by a ledger's owner: other entries, under heads that the real log key signs.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use deed_tlog::{
    Checkpoint, EntryBundleId, NoteSigner, Origin, TILE_WIDTH, TreeHead, TreeSize,
    encode_entry_bundle, leaf_hash,
};

use crate::oracle::root;

/// Returns the key that signs a ledger's heads, from the secret in a server's data directory.
///
/// # Panics
/// If there is no such secret.
#[must_use]
pub fn log_signer(data_dir: &Path, origin: &str) -> NoteSigner {
    let file = fs::read_to_string(data_dir.join("server.key")).expect("the server's secret");
    let secret = file.lines().find_map(|line| line.strip_prefix("secret "));
    let secret = BASE64.decode(secret.expect("a secret")).expect("base64");
    let mut hasher = blake3::Hasher::new_derive_key("deed.v1 log key");
    hasher.update(&secret);
    hasher.update(&0_u32.to_be_bytes());
    hasher.update(origin.as_bytes());
    let origin: Origin = origin.parse().expect("an origin");
    NoteSigner::from_seed(origin.key_name().clone(), hasher.finalize().as_bytes())
}

/// Writes a log of these entries as a mirror does (C2SP tlog-tiles), without the tiles of hashes:
/// `checkpoint` and `tile/entries`.
///
/// # Panics
/// If a file cannot be written.
pub fn write_mirror(dir: &Path, origin: &str, entries: &[Bytes], signer: &NoteSigner) {
    let origin: Origin = origin.parse().expect("an origin");
    let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let head = TreeHead::new(TreeSize::new(leaves.len() as u64), root(&leaves));
    let note = Checkpoint::new(origin, head).sign(signer).expect("a note");
    fs::create_dir_all(dir).expect("a directory");
    fs::write(dir.join("checkpoint"), note.to_string()).expect("a checkpoint");
    for (index, bundle) in (0..).zip(entries.chunks(TILE_WIDTH.into())) {
        let width = u16::try_from(bundle.len()).expect("a bundle");
        let path = EntryBundleId::new(index, width).expect("a bundle").path();
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        let bytes = encode_entry_bundle(bundle).expect("entries of a bundle");
        fs::write(path, bytes).expect("a bundle");
    }
}
