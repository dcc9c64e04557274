//! Who speaks, and at which place in their session.

use bytes::Bytes;
use deed_proto::v1::Author;
use deed_tlog::{LeafIndex, leaf_hash};

use super::{Covered, Last, Saying, Signed, TaskReplay};
use crate::{
    KeyId, PayloadDigest,
    entry::Entry,
    replay::{Fault, speaker},
    session, signature,
    statement::{BodyKind, Header},
    trust::{KeyRefusal, Speaker, SpeakerRefusal},
};

impl TaskReplay {
    /// Who speaks, with the signature verified, and in force at this leaf.
    pub(super) fn speaker(
        &mut self,
        index: u64,
        bytes: &Bytes,
        entry: &Entry<'_>,
        header: &Header<'_>,
        batch: Option<&Covered>,
    ) -> Result<Speaker, Fault> {
        let (speaker, signed) = match entry.author {
            Author::Signed => {
                let key = self.verify(entry)?;
                (speaker(entry, Some(key)), Signed::Key(key))
            }
            Author::Batched => {
                let covered = batch.ok_or(Fault::NoManifest)?;
                let path = &covered.path;
                let here = (LeafIndex::new(index), leaf_hash(bytes));
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
            .registry()
            .may_speak(&speaker, header.producer, self.at);
        match may {
            // By then it may have been later than these entries show.
            Ok(()) | Err(SpeakerRefusal::Key(KeyRefusal::NotYet { .. })) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        self.signed.insert(index, signed);
        Ok(speaker)
    }

    fn verify(&mut self, entry: &Entry<'_>) -> Result<KeyId, Fault> {
        let signed = entry.signature.ok_or(Fault::SignatureMissing)?;
        let id = signed.key();
        let registry = self.chain.registry();
        let key = registry
            .was_authority(id)
            .or_else(|| registry.key(id).map(|record| &record.public_key))
            .ok_or(Fault::KeyUnknown { key: id })?;
        let (kind, payload) = (entry.payload_type, entry.payload);
        signature::verify_with(key, kind, payload, signed.signature, &mut self.buffer)?;
        Ok(id)
    }

    /// Compares a statement with the one before it in its session that is known. The leaf of the
    /// first statement at its place, if it is the second.
    pub(super) fn place(&mut self, saying: Saying<'_>) -> Result<Option<u64>, Fault> {
        let header = saying.header;
        let digest = PayloadDigest::of(saying.entry.payload);
        let bound_to = self.registry().session_binding(&saying.speaker);
        let place = (header.session, header.sequence);
        let again = || Fault::Again {
            sequence: header.sequence,
        };
        let taken = |last: &Last| last.bound_to != bound_to || last.producer != header.producer;
        if self.sessions.get(&header.session).is_some_and(taken) {
            return Err(session::Refusal::SessionTaken.into());
        }
        if let Some((first, before)) = self.places.get(&place).copied() {
            if before == digest || saying.speaker.key.is_none() {
                return Err(again());
            }
            if let Some((book, mut past, _)) = self.machine()
                && book.equivocated(&mut past, place.0, place.1)?.is_some()
            {
                return Err(again());
            }
            return Ok(Some(first));
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
        self.places.insert(place, (saying.leaf, digest));
        Ok(None)
    }
}
