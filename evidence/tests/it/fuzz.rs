//! The bodies of the fuzz targets, run over their committed seeds and a fixed number of
//! mutations of each. The same bodies run for hours under `cargo fuzz`.

use std::{collections::BTreeSet, fs, path::Path};

use deed_evidence::{assess::finding::KINDS, entry::Entry};
use deed_proto::v1::FindingKind;

#[path = "../../../tlog/fuzz/driver/mod.rs"]
mod driver;

#[path = "../../fuzz/bodies/assess.rs"]
pub(crate) mod assess;
#[path = "../../fuzz/bodies/entry.rs"]
pub(crate) mod entry;
#[path = "../../fuzz/bodies/genesis.rs"]
pub(crate) mod genesis;
#[path = "../../fuzz/bodies/manifest.rs"]
pub(crate) mod manifest;
#[path = "../../fuzz/bodies/statement.rs"]
pub(crate) mod statement;
#[path = "../../fuzz/bodies/trust.rs"]
pub(crate) mod trust;

const TARGETS: [driver::Target<'_>; 6] = [
    ("assess", assess::run_short, 500),
    ("entry", entry::run, driver::MANY),
    ("genesis", genesis::run, driver::MANY),
    ("manifest", manifest::run, driver::MANY),
    ("statement", statement::run, driver::MANY),
    ("trust", trust::run, driver::MANY),
];

/// Without this a change of how scripts are read would leave seeds that say nothing.
#[test]
fn the_seeds_of_assess_meet_every_finding_and_every_entry_of_the_ledger() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/assess");
    let (mut kinds, mut bodies) = (BTreeSet::new(), BTreeSet::new());
    for seed in fs::read_dir(seeds).unwrap() {
        let ledger = assess::told(&fs::read(seed.unwrap().path()).unwrap());
        assess::replays(&ledger);
        kinds.extend(ledger.findings().map(|finding| finding.kind));
        bodies.extend(ledger.entries().iter().filter_map(|entry| {
            let entry = Entry::parse(entry).unwrap();
            Some(entry.statement().ok()?.body.name())
        }));
    }
    let missing: Vec<_> = KINDS
        .iter()
        // It takes more than 64 of something, which is as long as a script may be.
        .filter(|kind| **kind != FindingKind::NotCompared)
        .filter(|kind| !kinds.contains(&i32::from(**kind)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for body in ["clearance", "task_receipt", "tick"] {
        assert!(bodies.contains(body), "{body}");
    }
}

#[test]
fn every_target_has_a_body_seeds_and_survives_mutations() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    driver::run_all(
        &fuzz,
        &TARGETS,
        b"\x00\x01\x08\x0a\x10\x12\x18\x1a\x20\x22\x38\x7f\x80\xff:/",
    );
}
