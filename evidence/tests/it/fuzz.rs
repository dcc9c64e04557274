//! The bodies of the fuzz targets, run over their committed seeds and a fixed number of
//! mutations of each. The same bodies run for hours under `cargo fuzz`.

use std::path::Path;

#[path = "../../../tlog/fuzz/driver/mod.rs"]
mod driver;

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

const TARGETS: [(&str, driver::Body); 5] = [
    ("entry", entry::run),
    ("genesis", genesis::run),
    ("manifest", manifest::run),
    ("statement", statement::run),
    ("trust", trust::run),
];

#[test]
fn every_target_has_a_body_seeds_and_survives_mutations() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    driver::run_all(
        &fuzz,
        &TARGETS,
        b"\x00\x01\x08\x0a\x10\x12\x18\x1a\x20\x22\x38\x7f\x80\xff:/",
    );
}
