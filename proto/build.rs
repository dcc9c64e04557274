//! Compiles the protos with protox (no protoc needed) and keeps the descriptors for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 7] = [
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
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("deed.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Payloads, entries and checkpoints are slices of the message's own buffer. (Short fields
        // of fixed size are, too: that is one representation, and costs less than a Vec each.)
        .bytes(".")
        .codec_path("crate::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
