//! Speakers: who may speak in a producer's name.

use deed_tlog::LeafIndex;
use thiserror::Error;

use super::{KeyRefusal, TrustState};
use crate::{KeyId, Micros, PrincipalHash, session::Binding, statement::AUTHORITY_PRODUCER};

/// The key and the principal behind a statement, as its entry names them. The trust state says
/// whether they may speak for its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaker {
    /// The key that signed it, or the batch manifest over it.
    pub key: Option<KeyId>,
    /// The leaf that lets the authenticated principal deliver it; `None` where the ledger's server
    /// asked nobody who they are.
    pub principal_leaf: Option<LeafIndex>,
}

/// The reason why a statement is not taken from this speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SpeakerRefusal {
    /// The key does not speak for the producer.
    #[error(transparent)]
    Key(#[from] KeyRefusal),
    /// The producer was given a key: what names it unsigned may be anybody's.
    #[error("a key was registered for this producer, so its statements must be signed")]
    SignatureRequired,
    /// The binding that its principal was admitted by is not in force.
    #[error(
        "the caller's principal is not bound to this producer any more; an authority binds it with \
         `deed principal bind`"
    )]
    PrincipalNotBound,
}

impl TrustState {
    /// Checks that `speaker` may speak for `producer` at effective time `at`.
    ///
    /// Not for trust statements, which [`TrustState::judge`] judges.
    ///
    /// # Errors
    /// [`SpeakerRefusal`] if not.
    pub fn may_speak(
        &self,
        speaker: &Speaker,
        producer: &str,
        at: Micros,
    ) -> Result<(), SpeakerRefusal> {
        match speaker.key {
            Some(key_id) if producer == AUTHORITY_PRODUCER => {
                return match self.is_authority(key_id) {
                    Some(_) => Ok(()),
                    None => Err(KeyRefusal::NoAuthority { key_id }.into()),
                };
            }
            None if producer == AUTHORITY_PRODUCER => {
                return Err(SpeakerRefusal::SignatureRequired);
            }
            Some(key) => {
                self.speaks(key, producer, at)?;
            }
            None if self.has_had_key(producer) => {
                return Err(SpeakerRefusal::SignatureRequired);
            }
            None => {}
        }
        let Some(leaf) = speaker.principal_leaf else {
            return Ok(());
        };
        let (principal, bound) = self
            .bound_at(leaf)
            .ok_or(SpeakerRefusal::PrincipalNotBound)?;
        if bound == producer && self.binding(principal, producer, at) == Some(leaf) {
            Ok(())
        } else {
            Err(SpeakerRefusal::PrincipalNotBound)
        }
    }

    /// The owner of a session that this speaker begins.
    #[must_use]
    pub fn session_binding(&self, speaker: &Speaker) -> Binding {
        if let Some(key) = speaker.key {
            return Binding::Key(key);
        }
        let bound = speaker.principal_leaf.and_then(|leaf| self.bound_at(leaf));
        bound.map_or(Binding::Nobody, |(principal, _)| {
            Binding::Principal(PrincipalHash::of(principal))
        })
    }
}
