//! A ledger that a test makes entry by entry, with the log's own key.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, PayloadDigest,
    assess::digest,
    batch::Manifest,
    entry::{Entry, KeyedSignature, TrustLink},
    genesis::Genesis,
    signature,
    statement::{self, LEDGER_PRODUCER},
};
use deed_proto::v1::{self, Author, PayloadType, RiskTier, statement::Body};
use deed_tlog::{
    Checkpoint, Hash, LeafIndex, NoteSigner, Origin, SignedNote, TlogProof, TreeHead, TreeSize,
    leaf_hash,
};

use super::{
    cast::{Voice, task_id, task_opened},
    serve::ForgedServer,
};
use crate::{
    forgery::write_mirror,
    keys::authority,
    oracle::{consistency, inclusion, root},
    rpc::inclusion_proof,
};

/// Age of a forged ledger when a test makes it, in microseconds.
const AGE_US: i64 = 3_600_000_000;

/// Time between two entries, unless the test sets another one, in microseconds.
const STEP_US: i64 = 1_000_000;

/// A ledger with any entries that a test puts into it.
///
/// Whatever the entries contain, they are leaves of a tree whose heads the log's key signs. Every
/// method that adds an entry takes the next receive time, which is a second later than the one
/// before; [`ForgedLedger::at`] sets another one.
#[derive(Debug, Clone)]
pub struct ForgedLedger {
    name: String,
    id: LedgerId,
    origin: Origin,
    signer: NoteSigner,
    pub(super) entries: Vec<Bytes>,
    pub(super) leaves: Vec<Hash>,
    /// Leaves of the trust statements, the genesis entry's first.
    pub(super) trust: Vec<u64>,
    /// Leaves of each session's statements, by sequence.
    pub(super) sessions: HashMap<Bytes, Vec<u64>>,
    /// Receive time of the next entry.
    now: i64,
    tasks: u8,
}

/// The position of an entry in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Leaf index.
    pub leaf: u64,
    /// Leaf hash.
    pub hash: Hash,
    /// Payload of the entry.
    pub payload: Bytes,
}

impl Place {
    /// Returns a reference by index and hash.
    #[must_use]
    pub fn leaf_ref(&self) -> v1::LeafRef {
        v1::LeafRef {
            leaf_index: self.leaf,
            leaf_hash: Bytes::copy_from_slice(self.hash.as_bytes()),
        }
    }

    /// Returns a reference by the statement's position in its session.
    ///
    /// # Panics
    /// If the entry is not a statement.
    #[must_use]
    pub fn statement_ref(&self) -> v1::StatementRef {
        let said = statement::decode(&self.payload).expect("a statement");
        let digest = PayloadDigest::of(&self.payload);
        v1::StatementRef {
            session: said.session,
            sequence: said.sequence,
            payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
        }
    }
}

/// The files that `deed verify` reads.
#[derive(Debug, Clone)]
pub struct ProofFiles {
    /// File with the inclusion proof and the head.
    pub proof: PathBuf,
    /// File with the entry's bytes.
    pub entry: PathBuf,
    /// File with the policy that trusts the log key.
    pub policy: PathBuf,
}

impl ForgedLedger {
    /// Makes a ledger of rules version 2 that began an hour ago, with the authority of
    /// [`authority`].
    ///
    /// # Panics
    /// If the name is invalid.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_rules(name, 2)
    }

    /// Makes a ledger with another rules version.
    ///
    /// # Panics
    /// If the name is invalid.
    #[must_use]
    pub fn with_rules(name: &str, rules_version: u32) -> Self {
        let origin = Origin::new(format!("forged.example/logs/{name}")).expect("an origin");
        let signer = NoteSigner::from_seed(origin.key_name().clone(), &[0x66; 32]);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(since.expect("a clock").as_micros()).expect("a time");
        let genesis = Genesis {
            log_key: signer.verifier_key().clone(),
            origin: origin.clone(),
            authority_keys: vec![*authority().public_key().as_bytes()],
            created_at: Micros::new(now - AGE_US),
            nonce: [0x67; 32],
            rules_version,
        };
        let genesis = genesis.to_entry().expect("a genesis entry");
        Self::over(name, origin, signer, vec![genesis])
    }

    /// Continues a log with these entries, the genesis entry first: those of a real ledger, for
    /// example, with the key that signs its heads ([`log_signer`](crate::forgery::log_signer)).
    ///
    /// # Panics
    /// If there are no entries, or one is malformed.
    #[must_use]
    pub fn over(name: &str, origin: Origin, signer: NoteSigner, entries: Vec<Bytes>) -> Self {
        let genesis = entries.first().expect("a genesis entry");
        let mut ledger = Self {
            name: name.to_owned(),
            id: LedgerId::new(leaf_hash(genesis)),
            origin,
            signer,
            entries: Vec::new(),
            leaves: Vec::new(),
            trust: vec![0],
            sessions: HashMap::new(),
            now: 0,
            tasks: 0,
        };
        for entry in entries {
            ledger.push(entry);
        }
        ledger
    }

    /// Returns the ledger's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the ledger's id.
    #[must_use]
    pub const fn id(&self) -> LedgerId {
        self.id
    }

    /// Returns the first line of its checkpoints.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the key that signs its heads.
    #[must_use]
    pub fn vkey(&self) -> String {
        self.signer.verifier_key().to_string()
    }

    /// Returns its entries.
    #[must_use]
    pub fn entries(&self) -> &[Bytes] {
        &self.entries
    }

    /// Returns the number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Returns the receive time of the next entry, in microseconds since 1970.
    #[must_use]
    pub const fn now(&self) -> i64 {
        self.now
    }

    /// Sets the receive time of the next entry to any time, also an earlier one.
    pub const fn at(&mut self, micros: i64) {
        self.now = micros;
    }

    /// Appends any bytes to the log, and returns their leaf index.
    pub fn push(&mut self, entry: Bytes) -> u64 {
        let leaf = self.size();
        self.leaves.push(leaf_hash(&entry));
        if let Ok(parsed) = Entry::parse(&entry) {
            self.now = parsed.received_at.get().saturating_add(STEP_US);
            let said = statement::parse(parsed.payload);
            if let (PayloadType::Statement, Ok(said)) = (parsed.payload_type, said) {
                let session = Bytes::copy_from_slice(said.session.as_bytes());
                self.sessions.entry(session).or_default().push(leaf);
                if said.body.is_trust() {
                    self.trust.push(leaf);
                }
            }
        }
        self.entries.push(entry);
        leaf
    }

    fn put(&mut self, payload: Bytes, entry: Bytes) -> Place {
        let leaf = self.push(entry);
        Place {
            leaf,
            hash: self.leaves[index(leaf)],
            payload,
        }
    }

    /// Appends a statement without a signature of its own, as an entry of this author.
    fn put_by(&mut self, author: Author, payload: Bytes) -> Place {
        let unsigned = Entry::unsigned(&payload, Micros::new(self.now));
        let entry = Entry { author, ..unsigned }.encode();
        self.put(payload, entry)
    }

    /// Appends a statement, of a task or of none, that a party signs. A trust statement is linked
    /// to the one before it.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn says(&mut self, voice: &mut Voice, task: Option<[u8; 16]>, body: Body) -> Place {
        let payload = voice.payload(task, body);
        self.takes(&payload, voice)
    }

    /// Appends a statement with other bytes in place of the signature.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn says_signed_so(
        &mut self,
        voice: &mut Voice,
        task: Option<[u8; 16]>,
        body: Body,
        signature: [u8; 64],
    ) -> Place {
        let payload = voice.payload(task, body);
        let key_id = *signature::key_id(voice.key.public_key()).as_bytes();
        self.takes_signed(&payload, &key_id, &signature)
    }

    /// Appends an unsigned statement.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn says_unsigned(
        &mut self,
        voice: &mut Voice,
        task: Option<[u8; 16]>,
        body: Body,
    ) -> Place {
        self.put_by(Author::Unsigned, voice.payload(task, body))
    }

    /// Appends a party's statement with the ledger as its author.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn says_by_ledger(
        &mut self,
        voice: &mut Voice,
        task: Option<[u8; 16]>,
        body: Body,
    ) -> Place {
        self.put_by(Author::Ledger, voice.payload(task, body))
    }

    /// Appends a signed manifest and several statements of a task under it.
    ///
    /// # Panics
    /// If they cannot be a batch.
    pub fn says_batch(
        &mut self,
        voice: &mut Voice,
        task: [u8; 16],
        bodies: impl IntoIterator<Item = Body>,
    ) -> Vec<Place> {
        let bodies = bodies.into_iter();
        let payloads: Vec<_> = bodies.map(|body| voice.payload(Some(task), body)).collect();
        let manifest = Manifest::over(&payloads).expect("a batch").encode();
        let signed = signature::sign(&voice.key, PayloadType::BatchManifest, &manifest);
        let at = self.now;
        let key_id = *signature::key_id(voice.key.public_key()).as_bytes();
        let keyed = KeyedSignature {
            key_id: &key_id,
            signature: &signed,
        };
        self.push(Entry::manifest(&manifest, keyed, Micros::new(at)).encode());
        let mut places = Vec::with_capacity(payloads.len());
        for payload in payloads {
            let entry = Entry::batched(&payload, Micros::new(at)).encode();
            places.push(self.put(payload, entry));
        }
        places
    }

    /// Appends a statement that is marked as part of a batch, without any manifest.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn says_batched_without_manifest(
        &mut self,
        voice: &mut Voice,
        task: Option<[u8; 16]>,
        body: Body,
    ) -> Place {
        self.put_by(Author::Batched, voice.payload(task, body))
    }

    /// Appends a payload of any producer, signed by a party.
    ///
    /// # Panics
    /// If the payload is not a statement.
    pub fn takes(&mut self, payload: &Bytes, voice: &Voice) -> Place {
        let key_id = *signature::key_id(voice.key.public_key()).as_bytes();
        let signed = signature::sign(&voice.key, PayloadType::Statement, payload);
        self.takes_signed(payload, &key_id, &signed)
    }

    /// Appends a payload with the given signature.
    ///
    /// # Panics
    /// If the payload is not a statement.
    pub fn takes_signed(
        &mut self,
        payload: &Bytes,
        key_id: &[u8; 16],
        signature: &[u8; 64],
    ) -> Place {
        let keyed = KeyedSignature { key_id, signature };
        let at = Micros::new(self.now);
        let said = statement::parse(payload).expect("a statement");
        let entry = if said.body.is_trust() {
            Entry::trust(payload, keyed, at, self.trust_head())
        } else {
            Entry::signed(payload, keyed, at)
        };
        self.put(payload.clone(), entry.encode())
    }

    /// Appends a statement of the ledger itself.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn writes(&mut self, task: [u8; 16], body: Body) -> Place {
        self.put_by(Author::Ledger, self.ledgers_word(task, body))
    }

    /// Appends a statement of the ledger itself, as an unsigned one.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn writes_unsigned(&mut self, task: [u8; 16], body: Body) -> Place {
        self.put_by(Author::Unsigned, self.ledgers_word(task, body))
    }

    fn ledgers_word(&self, task: [u8; 16], body: Body) -> Bytes {
        let said = v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.id.as_bytes()),
            producer: LEDGER_PRODUCER.to_owned(),
            occurred_at_us: self.now,
            task: Bytes::copy_from_slice(&task),
            body: Some(body),
            ..v1::Statement::default()
        };
        statement::encode(&said).expect("a statement by the rules")
    }

    /// Appends a statement that opens a new task.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    pub fn opens(&mut self, voice: &mut Voice, tier: RiskTier) -> ([u8; 16], Place) {
        self.tasks += 1;
        let nonce = [self.tasks; 16];
        let task = task_id(self.id, voice.producer.name(), nonce);
        let place = self.says(voice, Some(task), task_opened(nonce, tier));
        (task, place)
    }

    /// Returns the true receipt of a task as it is now, except for the assessment's digest, which
    /// is not computed.
    #[must_use]
    pub fn receipt(&self, task: [u8; 16]) -> v1::TaskReceipt {
        let (count, digest, last) = self.running(&task);
        let head = self.trust_head().to_message();
        v1::TaskReceipt {
            through_leaf: last,
            count,
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            trust_head: Some(v1::LeafRef {
                leaf_index: head.leaf_index,
                leaf_hash: head.leaf_hash,
            }),
            assessment_digest: Bytes::from_static(&[0x68; 32]),
            requested: false,
        }
    }

    /// Returns number, digest and last leaf of a task's entries.
    pub(super) fn running(&self, task: &[u8]) -> (u64, Hash, u64) {
        let of_task = self.of_task(task);
        let hashes = of_task.iter().map(|(leaf, _)| &self.leaves[index(*leaf)]);
        let running = hashes.fold(digest::START, |digest, hash| digest::entries(&digest, hash));
        let last = of_task.last().map_or(0, |(leaf, _)| *leaf);
        (of_task.len() as u64, running, last)
    }

    /// Returns a task's statements, with their leaves.
    pub(super) fn of_task(&self, task: &[u8]) -> Vec<(u64, v1::Statement)> {
        let read = |(leaf, bytes): (u64, &Bytes)| {
            let entry = Entry::parse(bytes).ok()?;
            if entry.payload_type != PayloadType::Statement {
                return None;
            }
            let said = statement::decode(&bytes.slice_ref(entry.payload)).ok()?;
            (said.task == task).then_some((leaf, said))
        };
        (0..).zip(&self.entries).filter_map(read).collect()
    }

    /// Returns the newest trust statement.
    #[must_use]
    pub fn trust_head(&self) -> TrustLink {
        let leaf = self.trust[self.trust.len() - 1];
        TrustLink {
            leaf_index: LeafIndex::new(leaf),
            leaf_hash: self.leaves[index(leaf)],
        }
    }

    /// Returns the signed head of the first `size` leaves.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn checkpoint(&self, size: u64) -> SignedNote {
        let root = root(&self.leaves[..index(size)]);
        let head = TreeHead::new(TreeSize::new(size), root);
        let signed = Checkpoint::new(self.origin.clone(), head).sign(&self.signer);
        signed.expect("a note")
    }

    /// Returns the inclusion proof of a leaf in the tree of `size` leaves, as bytes.
    ///
    /// # Panics
    /// If the tree does not have the leaf.
    #[must_use]
    pub fn inclusion(&self, leaf: u64, size: u64) -> Vec<Bytes> {
        as_bytes(&inclusion(index(leaf), &self.leaves[..index(size)]))
    }

    /// Returns the consistency proof between the trees of `old` and `new` leaves, as bytes.
    ///
    /// # Panics
    /// If there are fewer leaves.
    #[must_use]
    pub fn consistency(&self, old: u64, new: u64) -> Vec<Bytes> {
        as_bytes(&consistency(index(old), &self.leaves[..index(new)]))
    }

    /// Writes the ledger as a mirror does, for `deed audit --dir`, and the policy that trusts its
    /// log; returns the policy's path.
    ///
    /// # Panics
    /// If a file cannot be written.
    #[must_use]
    pub fn write_mirror(&self, dir: &Path) -> PathBuf {
        write_mirror(dir, self.origin.as_str(), &self.entries, &self.signer);
        self.write_policy(dir)
    }

    /// Writes the files that `deed verify` needs for a leaf into a directory.
    ///
    /// # Panics
    /// If a file cannot be written.
    #[must_use]
    pub fn write_proof(&self, dir: &Path, leaf: u64) -> ProofFiles {
        fs::create_dir_all(dir).expect("a directory");
        let proof = TlogProof {
            extra: None,
            index: LeafIndex::new(leaf),
            proof: inclusion_proof(&self.inclusion(leaf, self.size())),
            checkpoint: self.checkpoint(self.size()),
        };
        let files = ProofFiles {
            proof: dir.join(format!("{leaf}.tlog-proof")),
            entry: dir.join(format!("{leaf}.entry")),
            policy: self.write_policy(dir),
        };
        fs::write(&files.proof, proof.to_string()).expect("a proof's file");
        fs::write(&files.entry, &self.entries[index(leaf)]).expect("an entry's file");
        files
    }

    fn write_policy(&self, dir: &Path) -> PathBuf {
        let policy = dir.join("policy");
        fs::write(&policy, format!("log {}\nquorum none\n", self.vkey())).expect("a policy");
        policy
    }

    /// Serves the ledger.
    pub async fn serve(self) -> ForgedServer {
        ForgedServer::of(self).await
    }
}

/// Returns the ledger's Clearance of an Intent, by the policy at a leaf and with its evidence.
#[must_use]
pub fn clearance(intent: &Place, policy_leaf: u64, evidence: &[&Place]) -> Body {
    Body::Clearance(v1::Clearance {
        intent: Some(intent.leaf_ref()),
        policy_leaf,
        evidence: evidence.iter().map(|place| place.leaf_ref()).collect(),
    })
}

fn as_bytes(hashes: &[Hash]) -> Vec<Bytes> {
    let copied = |hash: &Hash| Bytes::copy_from_slice(hash.as_bytes());
    hashes.iter().map(copied).collect()
}

/// Returns the index of a leaf in memory.
pub(super) fn index(leaf: u64) -> usize {
    usize::try_from(leaf).expect("it fits into memory")
}
