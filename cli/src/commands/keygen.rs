//! `deed keygen`

use std::path::{Path, PathBuf};

use clap::Args;
use deed_client::key;
use deed_evidence::signature;
use serde::Serialize;

use crate::{
    args::Global,
    author::{already_exists, write_new, write_private},
    failure::{CommandResult, Failure},
    files::Readers,
};

/// Make an Ed25519 key pair
///
/// The private key is PKCS#8 in PEM, readable by its owner alone. The public key is written beside it,
/// with the ending .pub. An existing file is never replaced.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed keygen --out agent.pem
  deed key register agent.pem --role agent \\
       --producer spiffe://example.org/agent --controller https://example.org")]
pub(crate) struct Keygen {
    /// File for the private key
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
    pub(crate) fn run(&self, global: &Global) -> CommandResult {
        let made = key::generate().map_err(|error| Failure::Usage(error.into()))?;
        let public = public_path(&self.out);
        if public.exists() {
            return Err(already_exists(&public));
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
        global.output().print(&json, |json| {
            format!(
                "key id       {}\npublic key   {}\nprivate key  {} (keep it secret)\n\
                 public file  {}",
                json.key_id, json.public_key, json.private_key_file, json.public_key_file
            )
        })
    }
}

fn public_path(private: &Path) -> PathBuf {
    let mut name = private.file_stem().unwrap_or_default().to_owned();
    name.push(".pub");
    private.with_file_name(name)
}
