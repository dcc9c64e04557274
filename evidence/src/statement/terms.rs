//! Terms by which a statement can be found.

use super::fields::{Fields, texts};
use crate::schema::number;

/// One of the names that a statement can be found by, as it stands in the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Term<'a> {
    /// The header's task: 16 bytes.
    Task(&'a [u8]),
    /// The header's producer.
    Agent(&'a [u8]),
    /// The resource of an Intent, or of an effect of an Outcome or an Observation.
    Resource(&'a [u8]),
    /// The name of an Intent's action.
    Action(&'a [u8]),
    /// The trace: 16 bytes.
    Trace(&'a [u8]),
    /// A name that another system has for the same thing.
    Correlation {
        /// In which way.
        kind: &'a [u8],
        /// The name.
        value: &'a [u8],
    },
}

/// Hands every term of a statement to `visit`, in the order of their fields; one may come twice.
///
/// The payload is one that [`parse`](super::parse) has accepted, so nothing is checked again: an
/// index looks at every statement of a ledger. Other bytes give some terms or none.
pub fn terms<'a>(payload: &'a [u8], mut visit: impl FnMut(Term<'a>)) {
    for (field, value) in Fields(payload).texts() {
        match field {
            number::PRODUCER => visit(Term::Agent(value)),
            number::TASK => visit(Term::Task(value)),
            number::TRACE_ID => visit(Term::Trace(value)),
            number::CORRELATION_KEYS => {
                let [kind, value] = texts(value, [1, 2]);
                visit(Term::Correlation { kind, value });
            }
            number::INTENT => {
                let [action, resource] = texts(value, [1, 2]);
                visit(Term::Action(action));
                visit(Term::Resource(resource));
            }
            number::OUTCOME => effects(value, 3, &mut visit),
            number::OBSERVATION => effects(value, 2, &mut visit),
            _ => {}
        }
    }
}

/// The resources of the effects that stand under `field` of a body.
fn effects<'a>(body: &'a [u8], field: u32, visit: &mut impl FnMut(Term<'a>)) {
    for (_, effect) in Fields(body).texts().filter(|(number, _)| *number == field) {
        let [resource] = texts(effect, [2]);
        visit(Term::Resource(resource));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use deed_proto::v1::{self, statement::Body};
    use proptest::prelude::*;

    use super::*;
    use crate::statement::encode;

    fn statement(body: Body) -> v1::Statement {
        v1::Statement {
            ledger_id: Bytes::from_static(&[1; 32]),
            producer: "spiffe://example.org/agent".to_owned(),
            session: Bytes::from_static(&[2; 16]),
            sequence: 1 << 40,
            skipped_from: Some(0),
            occurred_at_us: i64::MAX,
            task: Bytes::from_static(&[9; 16]),
            trace_id: Bytes::from_static(&[5; 16]),
            span_id: Bytes::from_static(&[6; 8]),
            correlation_keys: [("order", "17"), ("txn", "a")]
                .map(|(kind, value)| v1::CorrelationKey {
                    kind: kind.to_owned(),
                    value: value.to_owned(),
                })
                .into(),
            body: Some(body),
            ..v1::Statement::default()
        }
    }

    /// The header's terms of such a statement, then these.
    fn expected<'a>(of_body: &[Term<'a>]) -> Vec<Term<'a>> {
        let correlation = |kind, value| Term::Correlation { kind, value };
        let header = [
            Term::Agent(b"spiffe://example.org/agent"),
            Term::Task(&[9; 16]),
            Term::Trace(&[5; 16]),
            correlation(b"order", b"17"),
            correlation(b"txn", b"a"),
        ];
        header.iter().chain(of_body).copied().collect()
    }

    fn found(payload: &[u8]) -> Vec<Term<'_>> {
        let mut found = Vec::new();
        terms(payload, |term| found.push(term));
        found
    }

    fn effect(resource: &str) -> v1::Effect {
        v1::Effect {
            kind: "changed".to_owned(),
            resource: resource.to_owned(),
            external_id: "x".to_owned(),
            ..v1::Effect::default()
        }
    }

    #[test]
    fn every_term_of_every_body_that_has_some() {
        let intent = v1::Intent {
            action: "pay".to_owned(),
            resource: "orders/17".to_owned(),
            deadline_us: 300,
            model: "m".to_owned(),
            ..v1::Intent::default()
        };
        let payload = encode(&statement(Body::Intent(intent))).unwrap();
        let of_intent = [Term::Action(b"pay"), Term::Resource(b"orders/17")];
        assert_eq!(found(&payload), expected(&of_intent));

        let outcome = v1::Outcome {
            intent: Some(v1::StatementRef {
                session: Bytes::new(),
                sequence: 3,
                payload_digest: Bytes::from_static(&[7; 32]),
            }),
            status: v1::OutcomeStatus::Succeeded.into(),
            effects: vec![effect("a"), effect("b")],
            ..v1::Outcome::default()
        };
        let payload = encode(&statement(Body::Outcome(outcome))).unwrap();
        let of_outcome = [Term::Resource(b"a"), Term::Resource(b"b")];
        assert_eq!(found(&payload), expected(&of_outcome));

        let observation = v1::Observation {
            effects: vec![effect("seen")],
            reference: "r".to_owned(),
            ..v1::Observation::default()
        };
        let payload = encode(&statement(Body::Observation(observation))).unwrap();
        assert_eq!(found(&payload), expected(&[Term::Resource(b"seen")]));

        let closed = v1::TaskClosed {
            end: v1::TaskEnd::Completed.into(),
            reason: "done".to_owned(),
        };
        let payload = encode(&statement(Body::TaskClosed(closed))).unwrap();
        assert_eq!(found(&payload), expected(&[]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            terms(&payload, |_| {});
        }
    }
}
