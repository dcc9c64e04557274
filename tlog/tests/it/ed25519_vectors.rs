//! The edge cases of Ed25519 that C2SP/CCTV collects, with this crate's answers pinned for
//! every set of flags that occurs.

use std::collections::{BTreeMap, BTreeSet};

use deed_tlog::verify_strict;
use serde::Deserialize;

use crate::shared;

#[derive(Deserialize)]
struct Vector {
    number: u32,
    key: String,
    sig: String,
    msg: String,
    flags: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accepted,
    Rejected,
}

use Answer::{Accepted, Rejected};

#[test]
fn edge_cases_by_flag_set() {
    let Some(folder) = shared::vectors("ed25519") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("ed25519vectors.json")).unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap();
    assert_eq!(vectors.len(), 914);

    let table: BTreeMap<&str, Answer> = TABLE
        .iter()
        .map(|(_, answer, flags)| (*flags, *answer))
        .collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for vector in vectors {
        let flags = vector
            .flags
            .unwrap_or_default()
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ");
        let wanted = *table
            .get(flags.as_str())
            .unwrap_or_else(|| panic!("new flags: {flags}"));

        let key = hex::decode(&vector.key).unwrap().try_into().unwrap();
        let signature = hex::decode(&vector.sig).unwrap().try_into().unwrap();
        let found = verify_strict(&key, vector.msg.as_bytes(), &signature);
        let answer = if found.is_ok() { Accepted } else { Rejected };
        assert_eq!(
            answer, wanted,
            "vector {} [{flags}]: {found:?}",
            vector.number
        );
        *counts.entry(flags).or_default() += 1;
    }
    for (count, _, flags) in TABLE {
        assert_eq!(counts.remove(flags), Some(count), "[{flags}]");
    }
    assert_eq!(counts.len(), 0);
}

/// The rule behind the table: a component of low order does not matter as long as key and R
/// have large order and the equation without the cofactor holds (no residue); everything
/// else is fatal.
#[test]
fn the_table_has_a_rule() {
    let fatal = [
        "low_order_A",
        "low_order_R",
        "low_order_residue",
        "non_canonical_A",
        "non_canonical_R",
    ];
    let mut accepted = 0;
    for (count, answer, flags) in TABLE {
        let is_fatal = flags.split(' ').any(|flag| fatal.contains(&flag));
        assert_eq!(answer == Rejected, is_fatal, "[{flags}]");
        accepted += usize::from(answer == Accepted) * count;
    }
    assert_eq!(accepted, 43);
    assert_eq!(TABLE.iter().map(|(count, ..)| count).sum::<usize>(), 914);
}

/// Number of vectors, answer, flags in alphabetical order.
#[rustfmt::skip]
const TABLE: [(usize, Answer, &str); 66] = [
    (1, Accepted, ""),
    (1, Rejected, "low_order_A"),
    (1, Rejected, "low_order_R"),
    (7, Accepted, "low_order_component_A"),
    (1, Rejected, "low_order_A low_order_R"),
    (7, Rejected, "low_order_A low_order_component_A"),
    (3, Rejected, "low_order_A non_canonical_A"),
    (7, Rejected, "low_order_R low_order_component_A"),
    (3, Rejected, "low_order_R non_canonical_R"),
    (35, Accepted, "low_order_component_A low_order_component_R"),
    (7, Rejected, "low_order_component_A low_order_residue"),
    (7, Rejected, "low_order_component_R low_order_residue"),
    (7, Rejected, "low_order_A low_order_R low_order_component_A"),
    (3, Rejected, "low_order_A low_order_R non_canonical_A"),
    (3, Rejected, "low_order_A low_order_R non_canonical_R"),
    (35, Rejected, "low_order_A low_order_component_A low_order_component_R"),
    (7, Rejected, "low_order_A low_order_component_A low_order_residue"),
    (3, Rejected, "low_order_A low_order_component_A non_canonical_A"),
    (7, Rejected, "low_order_A low_order_component_R low_order_residue"),
    (3, Rejected, "low_order_A non_canonical_A reencoded_k"),
    (35, Rejected, "low_order_R low_order_component_A low_order_component_R"),
    (7, Rejected, "low_order_R low_order_component_A low_order_residue"),
    (21, Rejected, "low_order_R low_order_component_A non_canonical_R"),
    (7, Rejected, "low_order_R low_order_component_R low_order_residue"),
    (3, Rejected, "low_order_R non_canonical_R reencoded_k"),
    (49, Rejected, "low_order_component_A low_order_component_R low_order_residue"),
    (35, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R"),
    (7, Rejected, "low_order_A low_order_R low_order_component_A low_order_residue"),
    (3, Rejected, "low_order_A low_order_R low_order_component_A non_canonical_A"),
    (21, Rejected, "low_order_A low_order_R low_order_component_A non_canonical_R"),
    (7, Rejected, "low_order_A low_order_R low_order_component_R low_order_residue"),
    (9, Rejected, "low_order_A low_order_R non_canonical_A non_canonical_R"),
    (49, Rejected, "low_order_A low_order_component_A low_order_component_R low_order_residue"),
    (7, Rejected, "low_order_A low_order_component_A low_order_component_R non_canonical_A"),
    (3, Rejected, "low_order_A low_order_component_A low_order_residue non_canonical_A"),
    (2, Rejected, "low_order_A low_order_component_A non_canonical_A reencoded_k"),
    (21, Rejected, "low_order_A low_order_component_R low_order_residue non_canonical_A"),
    (49, Rejected, "low_order_R low_order_component_A low_order_component_R low_order_residue"),
    (19, Rejected, "low_order_R low_order_component_A low_order_component_R non_canonical_R"),
    (21, Rejected, "low_order_R low_order_component_A low_order_residue non_canonical_R"),
    (3, Rejected, "low_order_R low_order_component_A non_canonical_R reencoded_k"),
    (3, Rejected, "low_order_R low_order_component_R low_order_residue non_canonical_R"),
    (49, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R low_order_residue"),
    (7, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R non_canonical_A"),
    (19, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R non_canonical_R"),
    (3, Rejected, "low_order_A low_order_R low_order_component_A low_order_residue non_canonical_A"),
    (21, Rejected, "low_order_A low_order_R low_order_component_A low_order_residue non_canonical_R"),
    (9, Rejected, "low_order_A low_order_R low_order_component_A non_canonical_A non_canonical_R"),
    (21, Rejected, "low_order_A low_order_R low_order_component_R low_order_residue non_canonical_A"),
    (3, Rejected, "low_order_A low_order_R low_order_component_R low_order_residue non_canonical_R"),
    (21, Rejected, "low_order_A low_order_component_A low_order_component_R low_order_residue non_canonical_A"),
    (5, Rejected, "low_order_A low_order_component_A low_order_component_R non_canonical_A reencoded_k"),
    (4, Rejected, "low_order_A low_order_component_A low_order_residue non_canonical_A reencoded_k"),
    (21, Rejected, "low_order_A low_order_component_R low_order_residue non_canonical_A reencoded_k"),
    (21, Rejected, "low_order_R low_order_component_A low_order_component_R low_order_residue non_canonical_R"),
    (6, Rejected, "low_order_R low_order_component_A low_order_component_R non_canonical_R reencoded_k"),
    (39, Rejected, "low_order_R low_order_component_A low_order_residue non_canonical_R reencoded_k"),
    (3, Rejected, "low_order_R low_order_component_R low_order_residue non_canonical_R reencoded_k"),
    (21, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R low_order_residue non_canonical_A"),
    (21, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R low_order_residue non_canonical_R"),
    (7, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R non_canonical_A non_canonical_R"),
    (9, Rejected, "low_order_A low_order_R low_order_component_A low_order_residue non_canonical_A non_canonical_R"),
    (9, Rejected, "low_order_A low_order_R low_order_component_R low_order_residue non_canonical_A non_canonical_R"),
    (23, Rejected, "low_order_A low_order_component_A low_order_component_R low_order_residue non_canonical_A reencoded_k"),
    (34, Rejected, "low_order_R low_order_component_A low_order_component_R low_order_residue non_canonical_R reencoded_k"),
    (9, Rejected, "low_order_A low_order_R low_order_component_A low_order_component_R low_order_residue non_canonical_A non_canonical_R"),
];
