//! Forms that rules version 1 takes and later rules refuse.
//!
//! Statements that version 0.1 recorded stay readable, so [`parse`](super::parse) accepts these and
//! says so in the header. They are refused where it is known which rules are in force: in the
//! server's step and in a replay, at the leaf. Anything that was never released with another form
//! is refused by `parse`.

use std::fmt;

use super::{
    AUTHORITY_PRODUCER, BodyKind,
    fields::{Fields, Raw, texts},
};
use crate::{
    WireError,
    name::{self, Flaw},
    uri,
};

/// A form that is refused from rules version 2 on: which field, and what must hold for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Breach {
    field: Field,
    rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Field {
    Nonce,
    Producer,
    CorrelationKeys,
    TaskNonce,
    IntentAction,
    IntentResource,
    IntentDeadline,
    ExpectedKind,
    ExpectedResource,
    ExpectedExternalId,
    OutcomeEffects,
    OutcomeKind,
    OutcomeResource,
    OutcomeExternalId,
    KeyProducer,
    BoundProducer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    SessionNonce,
    TaskNonce,
    LedgersOwn,
    Canonical,
    LaterDeadline,
    NothingDone,
    EmptySegment,
    DotSegment,
    Encoding,
    Backslash,
    Unseen,
    Space,
}

impl Breach {
    /// The field.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self.field {
            Field::Nonce => "nonce",
            Field::Producer => "producer",
            Field::CorrelationKeys => "correlation_keys",
            Field::TaskNonce => "task_opened.nonce",
            Field::IntentAction => "intent.action",
            Field::IntentResource => "intent.resource",
            Field::IntentDeadline => "intent.deadline_us",
            Field::ExpectedKind => "intent.expected_effects.kind",
            Field::ExpectedResource => "intent.expected_effects.resource",
            Field::ExpectedExternalId => "intent.expected_effects.external_id",
            Field::OutcomeEffects => "outcome.effects",
            Field::OutcomeKind => "outcome.effects.kind",
            Field::OutcomeResource => "outcome.effects.resource",
            Field::OutcomeExternalId => "outcome.effects.external_id",
            Field::KeyProducer => "key_registered.producer",
            Field::BoundProducer => "principal_bound.producer",
        }
    }

    /// The rule that must hold for it.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self.rule {
            Rule::SessionNonce => {
                "is required in a session's first statement: choose 16 random bytes, and derive \
                 the session from them and the producer"
            }
            Rule::TaskNonce => {
                "is required: choose 16 random bytes, and derive the header's task from them and \
                 the producer"
            }
            Rule::LedgersOwn => "must not begin with deed:, which is the ledger's own",
            Rule::Canonical => {
                "must be in canonical form: scheme and host in lower case, no default port, user, \
                 query or fragment, no empty or dot segment, no `/` at the end, nothing encoded \
                 that need not be"
            }
            Rule::LaterDeadline => "must be later than occurred_at_us",
            Rule::NothingDone => "must be empty where the status says that the act was not done",
            Rule::EmptySegment => Flaw::EmptySegment.rule(),
            Rule::DotSegment => Flaw::DotSegment.rule(),
            Rule::Encoding => Flaw::Encoding.rule(),
            Rule::Backslash => Flaw::Backslash.rule(),
            Rule::Unseen => Flaw::Unseen.rule(),
            Rule::Space => Flaw::Space.rule(),
        }
    }

    const fn new(field: Field, rule: Rule) -> Self {
        Self { field, rule }
    }

    fn name(field: Field, text: &[u8]) -> Option<Self> {
        let rule = match name::flaw(text)? {
            Flaw::EmptySegment => Rule::EmptySegment,
            Flaw::DotSegment => Rule::DotSegment,
            Flaw::Encoding => Rule::Encoding,
            Flaw::Backslash => Rule::Backslash,
            Flaw::Unseen => Rule::Unseen,
            Flaw::Space => Rule::Space,
        };
        Some(Self::new(field, rule))
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field(), self.rule())
    }
}

impl From<Breach> for WireError {
    fn from(breach: Breach) -> Self {
        Self::rule(breach.field(), breach.rule())
    }
}

/// The parts of a header that can break a form.
pub(super) struct Head<'a> {
    pub(super) producer: &'a [u8],
    /// True if a session can begin with it.
    pub(super) is_first: bool,
    pub(super) has_nonce: bool,
    pub(super) unseen_correlation: bool,
    pub(super) occurred_at_us: u64,
}

/// The first form that is broken. The walk has been over everything.
pub(super) fn find(head: &Head<'_>, body: BodyKind, bytes: &[u8]) -> Option<Breach> {
    if head.is_first
        && let Some(breach) = first(head)
    {
        return Some(breach);
    }
    if head.unseen_correlation {
        return Some(Breach::new(Field::CorrelationKeys, Rule::Unseen));
    }
    match body {
        BodyKind::Intent => intent(bytes, head.occurred_at_us),
        BodyKind::Outcome => outcome(bytes),
        BodyKind::TaskOpened => {
            let [nonce] = texts(bytes, [6]);
            let missing = Breach::new(Field::TaskNonce, Rule::TaskNonce);
            nonce.is_empty().then_some(missing)
        }
        BodyKind::KeyRegistered => producer(Field::KeyProducer, texts(bytes, [3])),
        BodyKind::PrincipalBound => producer(Field::BoundProducer, texts(bytes, [2])),
        _ => None,
    }
}

/// A statement that opens a session names itself so that nobody can take one for the other.
#[cold]
fn first(head: &Head<'_>) -> Option<Breach> {
    if !head.has_nonce {
        return Some(Breach::new(Field::Nonce, Rule::SessionNonce));
    }
    if head.producer == AUTHORITY_PRODUCER.as_bytes() {
        return None;
    }
    if super::rules::is_the_ledgers(head.producer) {
        return Some(Breach::new(Field::Producer, Rule::LedgersOwn));
    }
    producer(Field::Producer, [head.producer])
}

fn producer(field: Field, [uri]: [&[u8]; 1]) -> Option<Breach> {
    let text = std::str::from_utf8(uri).unwrap_or_default();
    let is_canonical = uri::canonical(text).is_some_and(|form| form == text);
    (!is_canonical).then_some(Breach::new(field, Rule::Canonical))
}

fn intent(bytes: &[u8], occurred_at_us: u64) -> Option<Breach> {
    for (field, value) in Fields(bytes) {
        let breach = match (field, value) {
            (1, Raw::Text(action)) => Breach::name(Field::IntentAction, action),
            (2, Raw::Text(resource)) => Breach::name(Field::IntentResource, resource),
            (5, Raw::Number(deadline)) => (deadline <= occurred_at_us)
                .then_some(Breach::new(Field::IntentDeadline, Rule::LaterDeadline)),
            (12, Raw::Text(effect)) => effect_breach(
                effect,
                [
                    Field::ExpectedKind,
                    Field::ExpectedResource,
                    Field::ExpectedExternalId,
                ],
            ),
            _ => None,
        };
        if breach.is_some() {
            return breach;
        }
    }
    None
}

/// Finds a breach in the texts of an effect: its kind, its resource, its external id.
fn effect_breach(effect: &[u8], [kind, resource, external_id]: [Field; 3]) -> Option<Breach> {
    let [its_kind, its_resource, its_id] = texts(effect, [1, 2, 3]);
    let unseen = Breach::new(external_id, Rule::Unseen);
    Breach::name(kind, its_kind)
        .or_else(|| Breach::name(resource, its_resource))
        .or_else(|| name::has_unseen_bytes(its_id).then_some(unseen))
}

fn outcome(bytes: &[u8]) -> Option<Breach> {
    let mut not_done = false;
    for (field, value) in Fields(bytes) {
        let breach = match (field, value) {
            (2, Raw::Number(status)) => {
                not_done = status == NOT_DONE;
                None
            }
            (3, Raw::Text(_)) if not_done => {
                Some(Breach::new(Field::OutcomeEffects, Rule::NothingDone))
            }
            (3, Raw::Text(effect)) => effect_breach(
                effect,
                [
                    Field::OutcomeKind,
                    Field::OutcomeResource,
                    Field::OutcomeExternalId,
                ],
            ),
            (4.., _) => return None,
            _ => None,
        };
        if breach.is_some() {
            return breach;
        }
    }
    None
}

const NOT_DONE: u64 = deed_proto::v1::OutcomeStatus::NotDone as u64;
