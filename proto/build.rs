//! Compiles the protos with protox (no protoc needed), keeps the descriptors for reflection, and
//! writes the tables of [`deed_proto::rules`](src/rules.rs) from the options in them.

use std::{env, error::Error, fs, path::PathBuf};

#[path = "build/tables.rs"]
mod tables;

const FILES: [&str; 8] = [
    "deed/v1/rules.proto",
    "deed/v1/statement.proto",
    "deed/v1/entry.proto",
    "deed/v1/ledger.proto",
    "deed/v1/log.proto",
    "deed/v1/content.proto",
    "deed/v1/assessment.proto",
    "deed/v1/actions.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // With the options, which the messages of prost-types have no place for.
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(out.join("deed.v1.bin"), descriptors)?;
    let tables = tables::generate(&compiler.descriptor_pool())?;
    fs::write(out.join("rules.rs"), tables.rules)?;
    fs::write(out.join("bodies.rs"), tables.bodies)?;
    tonic_prost_build::configure()
        // Payloads, entries and checkpoints are slices of the message's own buffer. (Short fields
        // of fixed size are, too: that is one representation, and costs less than a Vec each.)
        .bytes(".")
        .codec_path("crate::BoundedCodec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
