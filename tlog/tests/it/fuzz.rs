//! The bodies of the fuzz targets, run over their committed seeds and a fixed number of
//! mutations of each. The same bodies run for hours under `cargo fuzz`.

use std::path::Path;

#[path = "../../fuzz/driver/mod.rs"]
mod driver;

#[path = "../../fuzz/bodies/checkpoint.rs"]
mod checkpoint;
#[path = "../../fuzz/bodies/consistency_verify.rs"]
mod consistency_verify;
#[path = "../../fuzz/bodies/entry_bundle.rs"]
mod entry_bundle;
#[path = "../../fuzz/bodies/inclusion_verify.rs"]
mod inclusion_verify;
#[path = "../../fuzz/bodies/note.rs"]
mod note;
#[path = "../../fuzz/bodies/policy.rs"]
mod policy;
#[path = "../../fuzz/bodies/tile_path.rs"]
mod tile_path;
#[path = "../../fuzz/bodies/tlog_proof.rs"]
mod tlog_proof;

const TARGETS: [driver::Target<'_>; 8] = [
    ("checkpoint", checkpoint::run, driver::MANY),
    ("consistency_verify", consistency_verify::run, driver::MANY),
    ("entry_bundle", entry_bundle::run, driver::MANY),
    ("inclusion_verify", inclusion_verify::run, driver::MANY),
    ("note", note::run, driver::MANY),
    ("policy", policy::run, driver::MANY),
    ("tile_path", tile_path::run, driver::MANY),
    ("tlog_proof", tlog_proof::run, driver::MANY),
];

#[test]
fn every_target_has_a_body_seeds_and_survives_mutations() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    driver::run_all(&fuzz, &TARGETS, b"\n\n \t+/=x09.p#\0\x7f\x80\xff");
}
