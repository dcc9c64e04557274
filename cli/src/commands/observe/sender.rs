//! Sends what an import has seen.
//!
//! Each record has a session of its own, which derives from what the record says. So a second
//! import, of the same file or of another that holds the record too, makes the same statement, which
//! the ledger knows already; in which order records come, and with which others, is all the same.

use std::collections::HashSet;

use deed_client::{Appended, Header, Ledger, Made, Session, Signing};
use deed_evidence::{LedgerId, Micros, Nonce, TaskId};
use deed_proto::v1::{self, rejection::Reason, statement::Body};
use prost::Message as _;

use super::mapping::Mapped;
use crate::{
    author::rejected,
    failure::CommandResult,
    render::{Tally, reason},
};

/// Statements of one request, and their bytes.
const REQUEST_STATEMENTS: usize = 256;
const REQUEST_BYTES: usize = 1 << 20;
/// Effects of one statement, and their bytes.
const EFFECTS: usize = 64;
const EFFECT_BYTES: usize = 48 * 1024;

/// Makes the statements of an import.
pub(super) struct Maker {
    pub(super) ledger_id: LedgerId,
    pub(super) producer: String,
    /// Says what must prove nothing, where the producer's word would.
    pub(super) claimant: Option<String>,
    pub(super) secret: [u8; 32],
    pub(super) task: Option<TaskId>,
}

/// A statement of a record.
pub(super) struct Sent {
    pub(super) made: Made,
    /// True if its producer can prove nothing.
    pub(super) is_claim: bool,
    /// True if the effects name no object, or the record leaves a doubt.
    pub(super) is_vague: bool,
    /// The place of the record.
    pub(super) place: String,
}

impl Maker {
    /// The statements of a record: effects that it shows, and those that are claims.
    ///
    /// `whole` is the record itself, by which it is known if it has no name.
    ///
    /// # Errors
    /// Statements that a ledger would not take.
    pub(super) fn make(
        &self,
        mapped: &Mapped,
        whole: &str,
        place: &str,
    ) -> Result<Vec<Sent>, String> {
        let claimant = self.claimant.as_deref();
        let of_claims = claimant.unwrap_or(&self.producer);
        let parts = [
            (&mapped.effects, self.producer.as_str(), false),
            (&mapped.claims, of_claims, true),
        ];
        let mut all = Vec::new();
        for (effects, producer, is_vague) in parts {
            for effects in portions(effects) {
                let made = self.statement(mapped, effects, whole, producer)?;
                all.push(Sent {
                    made,
                    is_claim: is_vague && claimant.is_some(),
                    is_vague,
                    place: place.to_owned(),
                });
            }
        }
        Ok(all)
    }

    fn statement(
        &self,
        mapped: &Mapped,
        effects: &[v1::Effect],
        whole: &str,
        producer: &str,
    ) -> Result<Made, String> {
        let observation = v1::Observation {
            intent: None,
            effects: effects.to_vec(),
            reference: mapped.reference.clone(),
            observed_at_us: mapped.observed_at_us,
        };
        let keys: Vec<_> = mapped
            .correlation_keys
            .iter()
            .map(|(kind, value)| (kind.as_str(), value.as_str()))
            .collect();
        let header = Header {
            task: self.task,
            // The time comes from the record, so that a second import makes the same bytes.
            occurred_at: Micros::new(mapped.observed_at_us),
            correlation_keys: &keys,
            ..Header::default()
        };
        let nonce = self.nonce(producer, &observation, &keys, whole);
        let mut session = Session::with_nonce(self.ledger_id, producer, nonce);
        session
            .make(&header, Body::Observation(observation))
            .map_err(|error| error.to_string())
    }

    /// Derives a nonce: the same for the same statement, another one for any other, so that no place in a session
    /// ever gets two. Nobody without the secret computes it.
    fn nonce(
        &self,
        producer: &str,
        observation: &v1::Observation,
        keys: &[(&str, &str)],
        whole: &str,
    ) -> Nonce {
        let key = blake3::derive_key("deed.v1 observe import record session nonce", &self.secret);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(self.ledger_id.as_bytes());
        part(producer.as_bytes());
        part(self.task.as_ref().map_or(&[][..], |task| task.as_bytes()));
        part(&observation.encode_to_vec());
        for (kind, value) in keys {
            part(kind.as_bytes());
            part(value.as_bytes());
        }
        if observation.reference.is_empty() {
            part(whole.as_bytes());
        }
        let mut nonce = [0; Nonce::LEN];
        hasher.finalize_xof().fill(&mut nonce);
        Nonce::new(nonce)
    }
}

/// Effects in portions that a statement holds. Their number is that of all, so the same record always
/// gives the same portions.
fn portions(mut effects: &[v1::Effect]) -> Vec<&[v1::Effect]> {
    let mut portions = Vec::new();
    while !effects.is_empty() {
        let mut bytes = 0;
        let fits = effects.iter().take(EFFECTS).take_while(|effect| {
            bytes += effect.encoded_len() + 4;
            bytes <= EFFECT_BYTES
        });
        // `Maker::make` refuses an effect that is too large by itself.
        let n = fits.count().max(1);
        let (portion, rest) = effects.split_at(n);
        portions.push(portion);
        effects = rest;
    }
    portions
}

/// Sends statements, some at a time.
pub(super) struct Sender {
    ledger: Ledger,
    signing: Signing,
    /// The signed statement, and the claim beside it.
    waiting: [Vec<Sent>; 2],
    bytes: usize,
    pub(super) tally: Tally,
}

impl Sender {
    pub(super) fn new(ledger: Ledger, signing: Signing) -> Self {
        Self {
            ledger,
            signing,
            waiting: [Vec::new(), Vec::new()],
            bytes: 0,
            tally: Tally::default(),
        }
    }

    /// Takes a statement, and says of those that are sent now which are rejected.
    pub(super) async fn take(&mut self, sent: Sent) -> CommandResult<Vec<String>> {
        self.bytes += sent.made.payload.len();
        self.waiting[usize::from(sent.is_claim)].push(sent);
        let waiting = self.waiting.iter().map(Vec::len).sum::<usize>();
        if waiting < REQUEST_STATEMENTS && self.bytes < REQUEST_BYTES {
            return Ok(Vec::new());
        }
        self.send().await
    }

    async fn send(&mut self) -> CommandResult<Vec<String>> {
        self.bytes = 0;
        let mut refused = Vec::new();
        for is_claim in [false, true] {
            let mut seen = HashSet::new();
            let mut sent = std::mem::take(&mut self.waiting[usize::from(is_claim)]);
            // A record that came twice is noticed here, without asking the ledger.
            let all = sent.len();
            sent.retain(|sent| seen.insert(sent.made.payload.clone()));
            self.tally.duplicates += (all - sent.len()) as u64;
            if sent.is_empty() {
                continue;
            }
            let signing = if is_claim {
                &Signing::None
            } else {
                &self.signing
            };
            let statements: Vec<_> = sent.iter().map(|sent| sent.made.clone().into()).collect();
            let answer = self.ledger.append_signed(&statements, signing).await?;
            for (item, sent) in answer.items.iter().zip(&sent) {
                self.tally.count(item);
                let Appended::Rejected(rejection) = item else {
                    continue;
                };
                if !is_claim && concerns_the_speaker(rejection.reason()) {
                    // The ledger would reject all later statements for the same reason.
                    return Err(rejected(rejection).context(sent.place.clone()));
                }
                let message = match rejection.message.is_empty() {
                    true => String::new(),
                    false => format!(": {}", rejection.message),
                };
                refused.push(format!(
                    "{}: rejected, {}{message}",
                    sent.place,
                    reason(rejection)
                ));
            }
        }
        Ok(refused)
    }

    pub(super) async fn finish(&mut self) -> CommandResult<Vec<String>> {
        let refused = self.send().await?;
        self.ledger.flush().await?;
        Ok(refused)
    }
}

/// Returns true if a rejection is about the producer, and not about one statement.
const fn concerns_the_speaker(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::WrongLedger
            | Reason::SignatureNotAccepted
            | Reason::SignatureInvalid
            | Reason::SignatureRequired
            | Reason::KeyUnknown
            | Reason::KeyNotInForce
            | Reason::KeyNotAllowed
            | Reason::PrincipalNotBound
            | Reason::RulesVersion
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(resource: String) -> v1::Effect {
        v1::Effect {
            kind: "k".to_owned(),
            resource,
            ..v1::Effect::default()
        }
    }

    fn maker(claimant: Option<&str>) -> Maker {
        Maker {
            ledger_id: LedgerId::new(deed_tlog::Hash::new([1; 32])),
            producer: "import:k8s".to_owned(),
            claimant: claimant.map(ToOwned::to_owned),
            secret: [7; 32],
            task: None,
        }
    }

    fn mapped(reference: &str) -> Mapped {
        Mapped {
            effects: vec![effect("k8s:a/pods/b".to_owned())],
            claims: vec![effect("vague".to_owned())],
            reference: reference.to_owned(),
            observed_at_us: 5,
            correlation_keys: Vec::new(),
            doubts: Vec::new(),
        }
    }

    #[test]
    fn what_names_no_object_is_said_by_somebody_who_proves_nothing() {
        let all = maker(Some("import:observe/unsigned"))
            .make(&mapped("r"), "", "")
            .unwrap();
        let who: Vec<_> = all.iter().map(|sent| sent.is_claim).collect();
        assert_eq!(who, [false, true]);
        let claim = deed_evidence::statement::decode(&all[1].made.payload).unwrap();
        assert_eq!(claim.producer, "import:observe/unsigned");
        // A producer that can prove nothing anyway makes both statements.
        let all = maker(None).make(&mapped("r"), "", "").unwrap();
        assert!(all.iter().all(|sent| !sent.is_claim));
    }

    #[test]
    fn a_record_has_one_session_wherever_it_comes_from() {
        let payload = |mapped: &Mapped, whole: &str, place: &str| {
            let all = maker(None).make(mapped, whole, place).unwrap();
            all[0].made.payload.clone()
        };
        let one = payload(&mapped("r"), "{1}", "a: line 1");
        // The name tells, not the place and not how it is written.
        assert_eq!(payload(&mapped("r"), "{2}", "b: line 9"), one);
        assert_ne!(payload(&mapped("s"), "{1}", ""), one);
        // A record without a reference is identified by all of its text.
        let nameless = payload(&mapped(""), "{1}", "");
        assert_eq!(payload(&mapped(""), "{1}", "x"), nameless);
        assert_ne!(payload(&mapped(""), "{2}", ""), nameless);
    }

    #[test]
    fn many_effects_are_several_statements() {
        let mut many = mapped("r");
        many.effects = (0..150).map(|n| effect(format!("r/{n}"))).collect();
        many.claims.clear();
        assert_eq!(maker(None).make(&many, "", "").unwrap().len(), 3);
        many.effects = (0..60)
            .map(|n| effect(format!("r/{n}/{}", "x".repeat(1_000))))
            .collect();
        assert_eq!(maker(None).make(&many, "", "").unwrap().len(), 2);
    }
}
