//! Helpers for the benches: statements to append, and a server to append them to.
//!
//! Run them with `make bench-criterion`. Figures belong into docs/performance.md with machine, method and date.

mod keys;

use std::cmp::Ordering;

use bytes::Bytes;
use deed_evidence::{LedgerId, Nonce, SessionId, TaskId, statement};
use deed_proto::v1;

pub use keys::Keys;

/// The producer of all [`Statements`].
pub const PRODUCER: &str = "spiffe://example.org/agent";

/// Payload size of most benches, in bytes: what the figures in docs/performance.md are about.
pub const PAYLOAD_BYTES: usize = 256;

/// Statements of one session, in order, each of exactly the same size.
pub struct Statements {
    statement: v1::Statement,
    /// Nonce of the first statement.
    nonce: Bytes,
}

/// The producer of the statement that opens the task.
const PLATFORM: &str = "https://example.org/platform";
const TASK_NONCE: [u8; 16] = [7; 16];

fn task(ledger_id: LedgerId) -> TaskId {
    TaskId::derive(ledger_id, PLATFORM, &Nonce::new(TASK_NONCE))
}

const OCCURRED_AT_US: i64 = 1_700_000_000_000_000;
/// A time before 1987, whose encoding is a byte shorter.
const EARLIER_US: i64 = 500_000_000_000_000;

impl Statements {
    /// Makes a session of Intents whose payloads have [`PAYLOAD_BYTES`].
    #[must_use]
    pub fn new(ledger_id: LedgerId, nonce: [u8; 16]) -> Self {
        Self::of(ledger_id, PRODUCER, nonce)
    }

    fn of(ledger_id: LedgerId, producer: &str, nonce: [u8; 16]) -> Self {
        let session = SessionId::derive(ledger_id, producer, &Nonce::new(nonce));
        Self {
            nonce: Bytes::copy_from_slice(&nonce),
            statement: v1::Statement {
                ledger_id: Bytes::copy_from_slice(ledger_id.as_bytes()),
                producer: producer.to_owned(),
                session: Bytes::copy_from_slice(session.as_bytes()),
                task: Bytes::copy_from_slice(task(ledger_id).as_bytes()),
                body: Some(v1::statement::Body::Intent(v1::Intent {
                    action: "payments.refund".to_owned(),
                    ..v1::Intent::default()
                })),
                ..v1::Statement::default()
            },
        }
    }

    /// Makes the statement that opens the task of all the others, in a session of its own.
    ///
    /// # Panics
    /// Never: it is valid.
    #[must_use]
    pub fn opening(ledger_id: LedgerId) -> v1::Envelope {
        let Self {
            mut statement,
            nonce,
        } = Self::of(ledger_id, PLATFORM, [0xfe; 16]);
        statement.nonce = nonce;
        statement.occurred_at_us = OCCURRED_AT_US;
        statement.body = Some(v1::statement::Body::TaskOpened(v1::TaskOpened {
            requested_by: "https://example.org/people/dee".to_owned(),
            risk_tier: v1::RiskTier::Low.into(),
            nonce: Bytes::from_static(&TASK_NONCE),
            ..v1::TaskOpened::default()
        }));
        v1::Envelope {
            payload_type: v1::PayloadType::Statement.into(),
            payload: statement::encode(&statement).expect("a valid statement"),
            ..v1::Envelope::default()
        }
    }

    /// Returns the payload of one sequence.
    ///
    /// # Panics
    /// Never: every sequence leaves room for padding.
    #[must_use]
    pub fn payload(&mut self, sequence: u64) -> Bytes {
        self.statement.sequence = sequence;
        self.statement.nonce = match sequence {
            0 => self.nonce.clone(),
            _ => Bytes::new(),
        };
        // A length of 128 or more takes a second byte, here and in the body around it, so some
        // sizes cannot be reached. With the earlier time they can.
        for occurred_at_us in [OCCURRED_AT_US, EARLIER_US] {
            self.statement.occurred_at_us = occurred_at_us;
            let bare = self.padded(0).len();
            for padding in (0..=PAYLOAD_BYTES - bare).rev() {
                let payload = self.padded(padding);
                match payload.len().cmp(&PAYLOAD_BYTES) {
                    Ordering::Greater => {}
                    Ordering::Equal => return payload,
                    Ordering::Less => break,
                }
            }
        }
        unreachable!("one of the times reaches every size")
    }

    fn padded(&mut self, bytes: usize) -> Bytes {
        if let Some(v1::statement::Body::Intent(intent)) = &mut self.statement.body {
            intent.resource = format!("orders/{}", "1".repeat(bytes));
        }
        statement::encode(&self.statement).expect("a valid statement")
    }

    /// Returns the envelopes of the sequences `first..first + count`.
    #[must_use]
    pub fn envelopes(&mut self, first: u64, count: u64) -> Vec<v1::Envelope> {
        (first..first + count)
            .map(|sequence| v1::Envelope {
                payload_type: v1::PayloadType::Statement.into(),
                payload: self.payload(sequence),
                ..v1::Envelope::default()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_the_size_that_the_figures_are_about() {
        let id = LedgerId::new(deed_tlog::leaf_hash(b"genesis"));
        let mut statements = Statements::new(id, [1; 16]);
        for sequence in [0, 1, 127, 128, 70_000] {
            assert_eq!(
                statements.payload(sequence).len(),
                PAYLOAD_BYTES,
                "{sequence}"
            );
        }
    }
}
