//! `deed keygen`

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use deed_client::key;
use deed_evidence::signature;
use deed_tlog::SigningKey;
use serde::Serialize;

use crate::cli::{Failure, Global, Outcome, Output, Readers, WholeFile};

/// Make an Ed25519 key pair
///
/// The private key is PKCS#8 in PEM, for its owner alone to read; the public key goes beside it
/// with the ending .pub. A file that is there is never replaced.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed keygen --out agent.pem
  deed key register agent.pem --role agent \\
       --producer spiffe://example.org/agent --controller https://example.org")]
pub(crate) struct Keygen {
    /// Where the private key goes
    #[arg(long, value_name = "FILE", default_value = "deed.pem")]
    out: PathBuf,
}

#[derive(Serialize)]
struct KeyJson {
    key_id: String,
    public_key: String,
    private_key_file: String,
    public_key_file: String,
}

impl Keygen {
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let made = key::generate().map_err(|error| Failure::Usage(error.into()))?;
        let public = public_path(&self.out);
        if public.exists() {
            return Err(there_already(&public));
        }
        write_private(&self.out, &made)?;
        let text = key::public_to_pem(made.public_key());
        write_new(&public, text.as_bytes(), Readers::All)?;
        let json = KeyJson {
            key_id: signature::key_id(made.public_key()).to_string(),
            public_key: hex::encode(made.public_key().as_bytes()),
            private_key_file: self.out.display().to_string(),
            public_key_file: public.display().to_string(),
        };
        Output::new(global).print(&json, |json| {
            format!(
                "key id       {}\npublic key   {}\nprivate key  {} (keep it secret)\n\
                 public file  {}",
                json.key_id, json.public_key, json.private_key_file, json.public_key_file
            )
        })
    }
}

/// Writes a private key where there is no file yet.
pub(super) fn write_private(path: &Path, key: &SigningKey) -> Outcome {
    let text = key::private_to_pem(key);
    write_new(path, text.as_bytes(), Readers::Owner)
}

fn write_new(path: &Path, bytes: &[u8], readers: Readers) -> Outcome {
    let written = WholeFile::create(path, readers).and_then(|mut file| {
        file.write_all(bytes)?;
        file.keep_new()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there_already(path),
        _ => Failure::Usage(
            anyhow::Error::new(error).context(format!("cannot write {}", path.display())),
        ),
    })
}

fn there_already(path: &Path) -> Failure {
    Failure::usage(format!(
        "{} is there already and keys are never replaced; choose another name with --out",
        path.display()
    ))
}

fn public_path(private: &Path) -> PathBuf {
    let mut name = private.file_stem().unwrap_or_default().to_owned();
    name.push(".pub");
    private.with_file_name(name)
}
