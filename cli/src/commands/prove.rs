//! `deed prove`

use std::path::PathBuf;

use clap::Args;
use deed_client::{Leaf, Ledger, ProvenTrust, key};
use deed_evidence::KeyId;
use deed_tlog::{LeafIndex, SignedNote, TlogProof, TreeSize};
use prost::Message as _;
use serde::Serialize;

use crate::{
    args::Global,
    failure::{CommandResult, Failure},
    files::write_file,
    render::printable,
};

/// Write a proof of inclusion that verifies offline
///
/// Writes the inclusion proof and the signed tree head of an entry to one text file, in C2SP's
/// tlog-proof format. Anybody can verify it offline. Everything is verified before it is written.
///
/// With --batch it is the proof of the author, for a statement of a signed batch: the signed manifest,
/// the statement's path to it, and the proof that both are in the log. (A statement that is signed by
/// itself has the signature in its entry.)
///
/// With --trust-out the ledger's trust statements are written too, each with the proof that it is in
/// the log: `deed verify --trust` then checks that the key of the signature was the producer's at that
/// leaf.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed prove --ledger payments --index 7 --out 7.tlog-proof \\
       --entry-out 7.entry --policy-out payments.policy
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy
  deed prove --ledger payments --index 7 --out 7.tlog-proof \\
       --entry-out 7.entry --policy-out payments.policy \\
       --trust-out payments.trust
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy \\
       --trust payments.trust
  deed prove --ledger payments --index 7 --batch --out 7.batch-proof \\
       --policy-out payments.policy --key-out agent.pub
  deed verify 7.batch-proof --batch --key agent.pub --policy payments.policy

The policy names the log key that this client trusts. Verifiers should get that
key from somebody they trust, not from the party that they check.")]
pub(crate) struct Prove {
    /// Leaf index of the entry
    #[arg(long, value_name = "N")]
    index: u64,
    /// Size of the tree to prove it in [default: the newest]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    size: Option<u64>,
    /// File for the proof
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the entry's bytes
    #[arg(long, value_name = "FILE")]
    entry_out: Option<PathBuf>,
    /// File for a trust policy (C2SP tlog-policy) with the trusted log key and no witnesses
    #[arg(long, value_name = "FILE")]
    policy_out: Option<PathBuf>,
    /// For a statement of a batch: prove its manifest and signature instead
    #[arg(long)]
    batch: bool,
    /// File for the public key that signed the batch
    #[arg(long, value_name = "FILE", requires = "batch")]
    key_out: Option<PathBuf>,
    /// File for the ledger's trust statements and their proofs. The proof of the entry is then made in
    /// the newest tree
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    trust_out: Option<PathBuf>,
}

#[derive(Serialize)]
struct ProvedJson {
    origin: String,
    leaf_index: u64,
    leaf_hash: String,
    tree_size: u64,
    root: String,
}

#[derive(Serialize)]
struct ProvedBatchJson {
    #[serde(flatten)]
    proved: ProvedJson,
    /// The place of the signature.
    manifest_leaf: u64,
    /// The position of the statement in the batch, from 0.
    position: u32,
    key_id: String,
    producer: String,
    registered_leaf: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_leaf: Option<u64>,
}

impl Prove {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        if self.size.is_some_and(|size| self.index >= size) {
            return Err(Failure::usage(format!(
                "leaf {} is not in a tree of {} leaves; the size must be larger than the index",
                self.index,
                self.size.unwrap_or_default()
            )));
        }
        let ledger = global.connect().await?;
        let (index, size) = (LeafIndex::new(self.index), self.size.map(TreeSize::new));
        if self.batch {
            return self.batched(global, &ledger, index, size).await;
        }
        // The trust statements first: the proof is made in the tree that these are proven in.
        let trust = match &self.trust_out {
            Some(_) => Some(ledger.trust_chain().await?),
            None => None,
        };
        let proven_in = trust.as_ref().map(|trust| trust.head.head.size);
        let size = proven_in.or(size);
        let (leaf, entry) = match &self.entry_out {
            Some(path) => {
                let proven = ledger.entry(index, size).await?;
                (proven.leaf, Some((path, proven.bytes)))
            }
            None => (ledger.prove_leaf(Leaf::Index(index), size).await?, None),
        };
        // Files are written only after all heads are proven to be of one history.
        ledger.flush().await?;
        let checkpoint = SignedNote::parse(&leaf.head.note)
            .map_err(|error| Failure::does_not_verify(error.to_string()))?;
        let proof = TlogProof {
            extra: None,
            index: leaf.index,
            proof: leaf.proof,
            checkpoint,
        };
        if let Some((path, bytes)) = entry {
            write_file(path, &bytes)?;
        }
        write_file(&self.out, proof.to_string().as_bytes())?;
        self.write_trust(&ledger, leaf.head.head.size, trust.as_ref())?;
        let json = ProvedJson {
            origin: ledger.pin().origin.to_string(),
            leaf_index: leaf.index.get(),
            leaf_hash: leaf.hash.to_string(),
            tree_size: leaf.head.head.size.get(),
            root: leaf.head.head.root.to_string(),
        };
        global.output().print(&json, |json| {
            format!(
                "leaf {} of {} is in its tree of {} leaves\nleaf hash  {}\nroot       {}\n\
                 proof      {}",
                json.leaf_index,
                json.origin,
                json.tree_size,
                json.leaf_hash,
                json.root,
                self.out.display()
            )
        })
    }

    /// The trust statements, and a policy: it names the key that signs trees of the proof's size,
    /// which is that of the trust statements' head too if these are written.
    fn write_trust(
        &self,
        ledger: &Ledger,
        size: TreeSize,
        trust: Option<&ProvenTrust>,
    ) -> CommandResult {
        let trust = trust.filter(|_| self.trust_out.is_some());
        if let (Some(path), Some(trust)) = (&self.trust_out, trust) {
            write_file(path, &trust.proof.encode_to_vec())?;
        }
        let Some(path) = &self.policy_out else {
            return Ok(());
        };
        let known = ledger.log_keys();
        let vkey = known.keys().at(size).key;
        let mut policy = format!("log {vkey}\n");
        if let Some(trust) = trust {
            let newer = known.keys().at(trust.head.head.size).key;
            if newer != vkey {
                policy += &format!("log {newer}\n");
            }
        }
        policy += "quorum none\n";
        write_file(path, policy.as_bytes())
    }

    async fn batched(
        &self,
        global: &Global,
        ledger: &Ledger,
        index: LeafIndex,
        size: Option<TreeSize>,
    ) -> CommandResult {
        let trust = ledger.trust_chain().await?;
        let size = match &self.trust_out {
            Some(_) => Some(trust.head.head.size),
            None => size,
        };
        let key = |id: KeyId| trust.state.key(id).map(|record| record.public_key.clone());
        let proven = ledger.prove_batched(Leaf::Index(index), size, key).await?;
        ledger.flush().await?;
        let path = &proven.path;
        let signer = trust.state.key(path.key_id).ok_or_else(|| {
            Failure::does_not_verify(format!("no key {} is registered", path.key_id))
        })?;
        if let Some(file) = &self.entry_out {
            write_file(file, &proven.proof.statement_entry)?;
        }
        write_file(&self.out, &proven.proof.encode_to_vec())?;
        if let Some(file) = &self.key_out {
            write_file(file, key::public_to_pem(&signer.public_key).as_bytes())?;
        }
        self.write_trust(ledger, proven.head.head.size, Some(&trust))?;
        let json = ProvedBatchJson {
            proved: ProvedJson {
                origin: ledger.pin().origin.to_string(),
                leaf_index: path.statement_index.get(),
                leaf_hash: path.statement_hash.to_string(),
                tree_size: proven.head.head.size.get(),
                root: proven.head.head.root.to_string(),
            },
            manifest_leaf: path.manifest_index.get(),
            position: path.position.get(),
            key_id: path.key_id.to_string(),
            producer: path.manifest.producer.clone(),
            registered_leaf: signer.registered_leaf.get(),
            revoked_leaf: signer.revoked_leaf.map(LeafIndex::get),
        };
        global.output().print(&json, |json| {
            let revoked = json
                .revoked_leaf
                .map(|leaf| format!(", revoked at leaf {leaf}"));
            format!(
                "leaf {} of {} is statement {} of the batch at leaf {}\nleaf hash  {}\n\
                 signed by  {} (registered at leaf {}{})\nproducer   {}\nroot       {} of {} \
                 leaves\nproof      {}",
                json.proved.leaf_index,
                json.proved.origin,
                json.position,
                json.manifest_leaf,
                json.proved.leaf_hash,
                json.key_id,
                json.registered_leaf,
                revoked.unwrap_or_default(),
                printable(&json.producer),
                json.proved.root,
                json.proved.tree_size,
                self.out.display()
            )
        })
    }
}
