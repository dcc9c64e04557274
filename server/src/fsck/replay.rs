//! A ledger's entries judged again, one after the other, by the functions that judged them first.

use std::collections::BTreeMap;

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest, KeyId, LedgerId, Micros, PayloadDigest, SessionId,
    batch::{self, Manifest},
    entry::{Entry, KeyedSignature},
    genesis::Genesis,
    session::{self, Judgement, Session},
    signature,
    statement::{self, BodyKind, Header},
    trust::{Registry, Speaker, TrustStatement},
};
use deed_proto::v1::{Author, PayloadType};
use deed_tlog::{LeafIndex, leaf_hash};

use crate::store::read::Run;

/// What the entries so far say together.
pub(super) struct Replay {
    id: LedgerId,
    pub(super) effective_time: Micros,
    pub(super) sessions: BTreeMap<SessionId, (Session, Vec<Run>)>,
    /// Leaves of trust statements, each with the effective time at it.
    pub(super) trust_leaves: Vec<(u64, Micros)>,
    /// What was erased, by the leaf of the first Erasure that names it.
    pub(super) erased: BTreeMap<CommitmentDigest, u64>,
    /// `None` before the genesis entry.
    trust: Option<Registry>,
    /// A manifest whose statements are not all there yet.
    open: Option<OpenBatch>,
    /// Signatures' inputs are written here.
    buffer: Vec<u8>,
}

struct OpenBatch {
    manifest: Manifest,
    leaf: u64,
    speaker: Speaker,
    payloads: Vec<Bytes>,
}

impl Replay {
    pub(super) fn new(id: LedgerId) -> Self {
        Self {
            id,
            effective_time: Micros::new(0),
            sessions: BTreeMap::new(),
            trust_leaves: Vec::new(),
            erased: BTreeMap::new(),
            trust: None,
            open: None,
            buffer: Vec::new(),
        }
    }

    /// The genesis entry, which its own checks have found to be this ledger's.
    pub(super) fn begin(&mut self, genesis: &Genesis) {
        self.effective_time = genesis.created_at;
        self.trust = Some(Registry::genesis(self.id, genesis));
    }

    /// One entry after the genesis entry: its form, its author, its session.
    pub(super) fn leaf(&mut self, index: u64, bytes: &Bytes) -> Result<(), String> {
        let entry = Entry::parse(bytes).map_err(|error| error.to_string())?;
        self.effective_time = self.effective_time.max(entry.received_at);
        if entry.payload_type == PayloadType::BatchManifest {
            return self.manifest(index, &entry);
        }
        let header = entry.statement().map_err(|error| error.to_string())?;
        if header.body == BodyKind::Genesis {
            return Err("a second genesis entry".to_owned());
        }
        if header.ledger_id != Some(self.id) {
            return Err("a statement of another ledger".to_owned());
        }
        let payload = bytes.slice_ref(entry.payload);
        match entry.author {
            Author::Batched => self.batched(index, &entry, payload),
            _ if self.open.is_some() => Err("stands between a manifest and its batch".to_owned()),
            Author::Signed if header.body.is_trust() => self.trust(index, bytes, &entry, &header),
            Author::Signed | Author::Unsigned => self.single(index, &entry, &header),
            Author::Ledger | Author::Unspecified => {
                Err("an author that this version does not record".to_owned())
            }
        }
    }

    /// No batch may be open at the end.
    pub(super) fn end(&self) -> Result<(), String> {
        match &self.open {
            None => Ok(()),
            Some(open) => Err(format!(
                "the batch of leaf {} has {} statements, {} are there",
                open.leaf,
                open.manifest.count.get(),
                open.payloads.len()
            )),
        }
    }

    fn registry(&self) -> Result<&Registry, String> {
        let missing = || "stands before the genesis entry".to_owned();
        self.trust.as_ref().ok_or_else(missing)
    }

    /// Verifies a signature under a key of the registry, whether that is in force or not.
    fn verify(&mut self, entry: &Entry<'_>) -> Result<KeyId, String> {
        let KeyedSignature { signature, .. } = entry
            .signature
            .ok_or_else(|| "the signature is missing".to_owned())?;
        let id = entry.signature.map_or(KeyId::new([0; 16]), |s| s.key());
        let registry = self
            .trust
            .as_ref()
            .ok_or_else(|| "stands before the genesis entry".to_owned())?;
        let key = registry
            .was_authority(id)
            .or_else(|| registry.key(id).map(|record| &record.public_key))
            .ok_or_else(|| format!("key {id} is not registered"))?;
        let buffer = &mut self.buffer;
        signature::verify_with(key, entry.payload_type, entry.payload, signature, buffer)
            .map_err(|error| error.to_string())?;
        Ok(id)
    }

    fn speaker(entry: &Entry<'_>, key: Option<KeyId>) -> Speaker {
        Speaker {
            key,
            principal_leaf: entry.principal_leaf.map(LeafIndex::new),
        }
    }

    fn manifest(&mut self, index: u64, entry: &Entry<'_>) -> Result<(), String> {
        if self.open.is_some() {
            return Err("stands between a manifest and its batch".to_owned());
        }
        let key = self.verify(entry)?;
        let manifest = Manifest::parse(entry.payload).map_err(|error| error.to_string())?;
        if manifest.ledger_id != self.id {
            return Err("a batch of another ledger".to_owned());
        }
        self.open = Some(OpenBatch {
            payloads: Vec::with_capacity(manifest.count.get() as usize),
            speaker: Self::speaker(entry, Some(key)),
            leaf: index,
            manifest,
        });
        Ok(())
    }

    fn batched(&mut self, index: u64, entry: &Entry<'_>, payload: Bytes) -> Result<(), String> {
        let open = self
            .open
            .as_mut()
            .ok_or_else(|| "no manifest covers it".to_owned())?;
        if entry.principal_leaf.map(LeafIndex::new) != open.speaker.principal_leaf {
            return Err("another principal leaf than its manifest's".to_owned());
        }
        open.payloads.push(payload);
        if open.payloads.len() < open.manifest.count.get() as usize {
            return Ok(());
        }
        let Some(batch) = self.open.take() else {
            return Ok(());
        };
        let headers = batch
            .payloads
            .iter()
            .map(|payload| Ok((statement::parse(payload)?, &payload[..])))
            .collect::<Result<Vec<_>, deed_evidence::WireError>>()
            .map_err(|error| error.to_string())?;
        let step = batch::check(&batch.manifest, headers.iter().copied())
            .map_err(|error| error.to_string())?;
        let first = &headers[0].0;
        self.may_be_recorded(first, &batch.speaker)?;
        let binding = self.registry()?.session_binding(&batch.speaker);
        let (session, runs) = self
            .sessions
            .entry(first.session)
            .and_modify(|(session, _)| session.advance_over(&step))
            .or_insert_with(|| {
                let session = Session::opened_over(first.producer, &step, binding);
                (session, Vec::new())
            });
        debug_assert_eq!(session.last_payload, step.last_payload);
        let first_leaf = index + 1 - headers.len() as u64;
        for (leaf, (header, _)) in (first_leaf..).zip(&headers) {
            Run::extend(runs, header.sequence, leaf);
        }
        Ok(())
    }

    fn single(&mut self, index: u64, entry: &Entry<'_>, header: &Header<'_>) -> Result<(), String> {
        let key = match entry.author {
            Author::Signed => Some(self.verify(entry)?),
            _ => None,
        };
        let speaker = Self::speaker(entry, key);
        self.may_be_recorded(header, &speaker)?;
        self.record(index, entry, header, &speaker)
    }

    fn trust(
        &mut self,
        index: u64,
        bytes: &Bytes,
        entry: &Entry<'_>,
        header: &Header<'_>,
    ) -> Result<(), String> {
        let signer = self.verify(entry)?;
        let said = TrustStatement::parse(entry.payload)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| "is no trust statement".to_owned())?;
        said.verify_possession(self.id)
            .map_err(|error| error.to_string())?;
        let speaker = Self::speaker(entry, Some(signer));
        self.is_next(header, &speaker)?;
        let at = self.effective_time;
        let registry = self
            .trust
            .as_mut()
            .ok_or_else(|| "stands before the genesis entry".to_owned())?;
        registry
            .judge(&said, signer, at)
            .map_err(|refusal| refusal.to_string())?;
        if entry.previous_trust != Some(registry.head()) {
            return Err("does not link to the trust statement before it".to_owned());
        }
        registry.apply(&said, at, LeafIndex::new(index), leaf_hash(bytes));
        self.trust_leaves.push((index, at));
        if let TrustStatement::Erasure(contents) = &said {
            for content in contents {
                self.erased.entry(*content).or_insert(index);
            }
        }
        self.record(index, entry, header, &speaker)
    }

    fn may_be_recorded(&self, header: &Header<'_>, speaker: &Speaker) -> Result<(), String> {
        self.registry()?
            .may_speak(speaker, header.producer, self.effective_time)
            .map_err(|refusal| refusal.to_string())?;
        self.is_next(header, speaker)
    }

    fn is_next(&self, header: &Header<'_>, speaker: &Speaker) -> Result<(), String> {
        let known = self.sessions.get(&header.session);
        let binding = self.registry()?.session_binding(speaker);
        match session::judge(known.map(|(session, _)| session), header, binding) {
            Ok(Judgement::Next) => Ok(()),
            Ok(Judgement::Behind) => Err(format!("sequence {} again", header.sequence)),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    fn record(
        &mut self,
        index: u64,
        entry: &Entry<'_>,
        header: &Header<'_>,
        speaker: &Speaker,
    ) -> Result<(), String> {
        let digest = PayloadDigest::of(entry.payload);
        let binding = self.registry()?.session_binding(speaker);
        let (_, runs) = self
            .sessions
            .entry(header.session)
            .and_modify(|(session, _)| session.advance(header, digest))
            .or_insert_with(|| (Session::opened(header, digest, binding), Vec::new()));
        Run::extend(runs, header.sequence, index);
        Ok(())
    }
}
