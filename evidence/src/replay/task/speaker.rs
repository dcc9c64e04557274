//! The speaker of a statement, and the statement's place in their session.

use deed_proto::v1::Author;
use deed_tlog::{LeafIndex, leaf_hash};

use super::{Covered, Last, LeafStatement, RecordedLeaf, SeenBatch, Signed, TaskReplay, Unshown};
use crate::{
    KeyId, PayloadDigest, Sequence,
    assess::SKEW_US,
    entry::Entry,
    replay::{AuthoredStatement, Fault, speaker},
    session::{self, Binding},
    signature,
    statement::BodyKind,
    trust::{KeyRefusal, Speaker, SpeakerRefusal},
};

impl TaskReplay {
    /// Returns the speaker, with the signature verified, and in force at this leaf.
    pub(super) fn speaker(
        &mut self,
        statement: LeafStatement<'_>,
        batch: Option<&Covered>,
    ) -> Result<Speaker, Fault> {
        let (index, entry) = (statement.leaf, statement.entry);
        let (speaker, signed) = match entry.author {
            Author::Signed => {
                let key = self.verify(entry)?;
                (speaker(entry, Some(key)), Signed::Key(key))
            }
            Author::Batched => {
                let covered = batch.ok_or(Fault::NoManifest)?;
                let path = &covered.path;
                let here = (LeafIndex::new(index), leaf_hash(statement.bytes));
                if (path.statement_index, path.statement_hash) != here {
                    return Err(Fault::NoManifest);
                }
                let principal_leaf = entry.principal_leaf.map(LeafIndex::new);
                if principal_leaf != covered.principal_leaf {
                    return Err(Fault::PrincipalLeaf);
                }
                let key = path.key_id;
                let speaker = Speaker {
                    key: Some(key),
                    principal_leaf,
                };
                let manifest = path.manifest_index.get();
                (speaker, Signed::Batch { key, manifest })
            }
            Author::Unsigned => (speaker(entry, None), Signed::Nobody),
            Author::Ledger | Author::Unspecified => return Err(Fault::NotAnAuthor),
        };
        let may = self
            .trust()
            .may_speak(&speaker, statement.header.producer, self.at);
        match may {
            Ok(()) => {}
            // By then it may have been later than these entries show, but not by more than this.
            Err(SpeakerRefusal::Key(KeyRefusal::NotYet { valid_from, at, .. }))
                if valid_from.get().saturating_sub(at.get()) <= SKEW_US => {}
            Err(refusal) => return Err(refusal.into()),
        }
        self.signed.insert(index, signed);
        Ok(speaker)
    }

    fn verify(&mut self, entry: &Entry<'_>) -> Result<KeyId, Fault> {
        let signed = entry.signature.ok_or(Fault::SignatureMissing)?;
        let id = signed.key();
        let trust = self.chain.trust();
        let key = trust
            .was_authority(id)
            .or_else(|| trust.key(id).map(|record| &record.public_key))
            .ok_or(Fault::KeyUnknown { key: id })?;
        let (kind, payload) = (entry.payload_type, entry.payload);
        signature::verify_with(key, kind, payload, signed.signature, &mut self.buffer)?;
        Ok(id)
    }

    /// Compares a statement with the one before it in its session that is known. The leaf of the
    /// first statement at its place, if it is the second.
    pub(super) fn place(&mut self, authored: AuthoredStatement<'_>) -> Result<Option<u64>, Fault> {
        let header = authored.header;
        let digest = PayloadDigest::of(authored.entry.payload);
        let bound_to = self.bound(authored)?;
        let place = (header.session, header.sequence);
        let again = || Fault::Again {
            sequence: header.sequence,
        };
        let key = authored.speaker.key;
        let first = self.places.get(&place).copied();
        // A statement that another key signed, or nobody, contradicts nothing that this one says.
        if let Some(first) = first.filter(|first| first.key == key) {
            if first.payload == digest || key.is_none() {
                return Err(again());
            }
            if let Some((assessor, mut past, _)) = self.machine()
                && assessor.equivocated(&mut past, place.0, place.1)?.is_some()
            {
                return Err(again());
            }
            return Ok(Some(first.leaf));
        }
        if let Some(last) = self.sessions.get(&header.session) {
            if header.sequence <= last.sequence {
                return Err(again());
            }
            if last.closed {
                return Err(session::Refusal::SessionClosed.into());
            }
            let follows = last.sequence.get().checked_add(1) == Some(header.sequence.get());
            let other = |previous| previous != last.payload;
            if follows && header.previous.is_some_and(other) {
                let expected = header.sequence;
                return Err(session::Refusal::PreviousMismatch { expected }.into());
            }
        }
        let last = Last {
            producer: header.producer.to_owned(),
            bound_to,
            sequence: header.sequence,
            payload: digest,
            closed: header.body == BodyKind::SessionClosed,
        };
        self.sessions.insert(header.session, last);
        let recorded = RecordedLeaf {
            leaf: authored.leaf,
            payload: digest,
            key,
        };
        self.places.insert(place, recorded);
        Ok(None)
    }

    /// The one that speaks, to whom the session of a statement must belong, or it is refused.
    fn bound(&self, authored: AuthoredStatement<'_>) -> Result<Binding, Fault> {
        let header = authored.header;
        let bound_to = self.trust().session_binding(&authored.speaker);
        let taken = |last: &Last| last.bound_to != bound_to || last.producer != header.producer;
        if self.sessions.get(&header.session).is_some_and(taken) {
            return Err(session::Refusal::SessionTaken.into());
        }
        Ok(bound_to)
    }

    /// Notes the place in its session of a statement that is none of the task's. Only what was
    /// signed there, by a key that spoke for its producer, can show an equivocation.
    pub(super) fn elsewhere(&mut self, statement: LeafStatement<'_>, batch: Option<&Covered>) {
        let speaker = self.speaker(statement, batch);
        self.signed.remove(&statement.leaf);
        let Ok(Speaker { key: Some(key), .. }) = speaker else {
            return;
        };
        if self.is_evidence(batch) {
            // It took no place.
            return;
        }
        let recorded = RecordedLeaf {
            leaf: statement.leaf,
            payload: PayloadDigest::of(statement.entry.payload),
            key: Some(key),
        };
        let place = (statement.header.session, statement.header.sequence);
        self.places.entry(place).or_insert(recorded);
    }

    /// Looks whether the batch of the statement that comes next is kept as evidence of an
    /// equivocation: its first place was taken, as far as the entries show it, and so nothing in it
    /// says anything.
    pub(super) fn is_evidence(&mut self, batch: Option<&Covered>) -> bool {
        let Some(covered) = batch.filter(|_| self.assessor.is_some()) else {
            self.batch = None;
            return false;
        };
        let path = &covered.path;
        let manifest = path.manifest_index.get();
        if let Some(seen) = self.batch.filter(|seen| seen.manifest == manifest) {
            return seen.evidence;
        }
        let session = path.manifest.session;
        let first = path.manifest.first_sequence.get();
        let last = self.sessions.get(&session);
        let behind = last.is_some_and(|last| last.sequence.get() >= first);
        let end = first.saturating_add(path.manifest.count.get().into());
        let taken = |sequence| {
            let recorded = self.places.get(&(session, Sequence::new(sequence)));
            recorded.is_some_and(|recorded| recorded.key == Some(path.key_id))
        };
        let evidence = behind || (first..end).any(taken);
        self.batch = Some(SeenBatch {
            manifest,
            evidence,
            told: evidence || (path.position.get() == 0 && !covered.in_doubt),
        });
        evidence
    }

    /// Says of a batch that counts as said, once, if nothing shows that it does: its first statement
    /// was not given.
    pub(super) fn batch_is_shown(&mut self) {
        if let Some(seen) = &mut self.batch
            && !seen.told
        {
            seen.told = true;
            let manifest = seen.manifest;
            self.unshown.push(Unshown::Batch { manifest });
        }
    }

    /// The leaf of the first statement that one of a batch kept as evidence contradicts.
    pub(super) fn contradicted(
        &mut self,
        authored: AuthoredStatement<'_>,
    ) -> Result<Option<u64>, Fault> {
        self.bound(authored)?;
        let (session, sequence) = (authored.header.session, authored.header.sequence);
        let digest = PayloadDigest::of(authored.entry.payload);
        let key = authored.speaker.key;
        let first = self.places.get(&(session, sequence)).copied();
        let first = first.filter(|first| first.key == key && first.payload != digest);
        let Some(first) = first else {
            return Ok(None);
        };
        let Some((assessor, mut past, _)) = self.machine() else {
            return Ok(None);
        };
        let known = assessor.equivocated(&mut past, session, sequence)?;
        Ok(known.is_none().then_some(first.leaf))
    }
}
