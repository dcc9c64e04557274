//! The proofs, good and corrupted, that transparency-dev/merkle publishes.

use std::fs;
use std::path::{Path, PathBuf};

use deed_tlog::{
    ConsistencyProof, Hash, InclusionProof, LeafIndex, TreeHead, TreeSize, verify_consistency,
    verify_inclusion,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::shared;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inclusion {
    leaf_idx: u64,
    tree_size: u64,
    root: String,
    leaf_hash: String,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    size1: u64,
    size2: u64,
    root1: String,
    root2: String,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[test]
fn inclusion() {
    let Some(folder) = shared::vectors("merkle/inclusion") else {
        return;
    };
    let cases = read_all::<Inclusion>(&folder);
    for (file, case) in &cases {
        let holds = check_inclusion(case).is_some();
        assert_eq!(holds, !case.want_err, "{}", file.display());
    }
    let good = cases.iter().filter(|(_, case)| !case.want_err).count();
    assert_eq!((cases.len(), good), (INCLUSION_FILES, 4));
}

#[test]
fn consistency() {
    let Some(folder) = shared::vectors("merkle/consistency") else {
        return;
    };
    let cases = read_all::<Consistency>(&folder);
    for (file, case) in &cases {
        let holds = check_consistency(case).is_some();
        assert_eq!(holds, !case.want_err, "{}", file.display());
    }
    let good = cases.iter().filter(|(_, case)| !case.want_err).count();
    assert_eq!((cases.len(), good), (CONSISTENCY_FILES, 3));
}

const INCLUSION_FILES: usize = 53;
const CONSISTENCY_FILES: usize = 43;

/// Some vectors have hashes of the wrong length, which are no hashes here at all.
fn check_inclusion(case: &Inclusion) -> Option<()> {
    let head = TreeHead::new(TreeSize::new(case.tree_size), hash(&case.root)?);
    let proof = InclusionProof::from_hashes(hashes(case.proof.as_deref())?).ok()?;
    verify_inclusion(
        &proof,
        &hash(&case.leaf_hash)?,
        LeafIndex::new(case.leaf_idx),
        &head,
    )
    .ok()
}

fn check_consistency(case: &Consistency) -> Option<()> {
    let old = TreeHead::new(TreeSize::new(case.size1), hash(&case.root1)?);
    let new = TreeHead::new(TreeSize::new(case.size2), hash(&case.root2)?);
    let proof = ConsistencyProof::from_hashes(hashes(case.proof.as_deref())?).ok()?;
    verify_consistency(&proof, &old, &new).ok()
}

fn hash(base64: &str) -> Option<Hash> {
    Hash::from_base64(base64).ok()
}

fn hashes(proof: Option<&[String]>) -> Option<Vec<Hash>> {
    proof
        .unwrap_or_default()
        .iter()
        .map(|base64| hash(base64))
        .collect()
}

fn read_all<T: DeserializeOwned>(folder: &Path) -> Vec<(PathBuf, T)> {
    let mut cases = Vec::new();
    for group in fs::read_dir(folder).unwrap() {
        for file in fs::read_dir(group.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            let case = serde_json::from_slice(&fs::read(&file).unwrap());
            cases.push((
                file.clone(),
                case.unwrap_or_else(|e| panic!("{}: {e}", file.display())),
            ));
        }
    }
    cases
}
