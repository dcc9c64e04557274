//! Statements as fast as bytes can be copied.
//!
//! All statements of a producer differ in their sequence only, which is one varint in the header.
//! Everything before and after it is encoded once, so making a statement is two copies and a number.

use bytes::Bytes;
use deed_evidence::{LedgerId, Nonce, Sequence, SessionId, TaskId, WireError, statement};
use deed_proto::v1::{self, statement::Body};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Field `sequence` of Statement.
const SEQUENCE_FIELD: u32 = 4;
/// Longest resource of an Intent; longer statements are TaskOpened with an objective.
const RESOURCE_BYTES_MAX: usize = 1_024;

/// The place of the statements: a session that has begun, and a task that was opened.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) session: SessionId,
    pub(super) next: Sequence,
    pub(super) task: TaskId,
    pub(super) task_nonce: Nonce,
}

/// Makes one session's statements.
pub(super) struct Payloads {
    ledger_id: LedgerId,
    producer: String,
    place: Place,
    payload_bytes: usize,
    next: u64,
    /// Bytes of the current sequence's varint, for which the template is made.
    width: usize,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Payloads {
    /// Statements of `payload_bytes` each, 160 to 4,096, whatever their sequence.
    pub(super) fn new(
        ledger_id: LedgerId,
        producer: &str,
        place: Place,
        payload_bytes: usize,
    ) -> Result<Self, WireError> {
        let mut payloads = Self {
            ledger_id,
            producer: producer.to_owned(),
            next: place.next.get(),
            place,
            payload_bytes,
            width: usize::MAX,
            before: Vec::new(),
            after: Vec::new(),
        };
        payloads.fit(width_of(payloads.next))?;
        Ok(payloads)
    }

    /// The next `count` statements, in one allocation.
    pub(super) fn next_batch(&mut self, count: u64) -> Vec<Bytes> {
        let mut buffer = Vec::with_capacity(self.payload_bytes * count as usize);
        let mut ends = Vec::with_capacity(count as usize);
        for _ in 0..count {
            self.write_next(&mut buffer);
            ends.push(buffer.len());
        }
        let buffer = Bytes::from(buffer);
        let mut start = 0;
        ends.into_iter()
            .map(|end| {
                let payload = buffer.slice(start..end);
                start = end;
                payload
            })
            .collect()
    }

    fn write_next(&mut self, out: &mut Vec<u8>) {
        let width = width_of(self.next);
        if width != self.width {
            // Was fine for the first width, and only the padding's length changes.
            let _ = self.fit(width);
        }
        out.extend_from_slice(&self.before);
        if self.next != 0 {
            encode_key(SEQUENCE_FIELD, WireType::Varint, out);
            encode_varint(self.next, out);
        }
        out.extend_from_slice(&self.after);
        self.next += 1;
    }

    /// Makes the template for sequences of `width` bytes.
    fn fit(&mut self, width: usize) -> Result<(), WireError> {
        let wanted = self.payload_bytes - width;
        // Lengths are varints themselves: look for the padding that makes it exact. Where a
        // length grows by a byte, one size cannot be reached; then it is one byte short.
        let mut padding = wanted.saturating_sub(self.encode(1)?.len()) + 1;
        while padding > 1 && self.encode(padding)?.len() > wanted {
            padding -= 1;
        }
        let whole = self.encode(padding)?;
        // ledger_id (2 + 32), producer (2 + its length), session (2 + 16) come before it.
        let split = 34 + 2 + self.producer.len() + 18;
        let (before, after) = whole.split_at(split);
        self.before = before.to_vec();
        self.after = after.to_vec();
        self.width = width;
        Ok(())
    }

    /// A statement with sequence 0, which is not written.
    fn encode(&self, padding: usize) -> Result<Bytes, WireError> {
        let text = "x".repeat(padding);
        let place = &self.place;
        let (task, body) = if self.payload_bytes <= RESOURCE_BYTES_MAX {
            let intent = Body::Intent(v1::Intent {
                action: "bench.append".to_owned(),
                resource: text,
                tool_call_id: "call_0123456789abcdef".to_owned(),
                ..v1::Intent::default()
            });
            (place.task, intent)
        } else {
            let opened = Body::TaskOpened(v1::TaskOpened {
                objective: Some(v1::task_opened::Objective::ObjectiveText(text)),
                requested_by: "deed:bench".to_owned(),
                risk_tier: v1::RiskTier::Low.into(),
                deadline_us: 0,
                nonce: Bytes::copy_from_slice(place.task_nonce.as_bytes()),
            });
            // A task's id follows from the producer that opens it.
            let own = TaskId::derive(self.ledger_id, &self.producer, &place.task_nonce);
            (own, opened)
        };
        statement::encode(&v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer: self.producer.clone(),
            session: Bytes::copy_from_slice(self.place.session.as_bytes()),
            task: Bytes::copy_from_slice(task.as_bytes()),
            occurred_at_us: 1_700_000_000_000_000,
            body: Some(body),
            ..v1::Statement::default()
        })
    }
}

/// Bytes that a sequence takes with its tag; 0 is not written.
fn width_of(sequence: u64) -> usize {
    if sequence == 0 {
        0
    } else {
        1 + encoded_len_varint(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deed_tlog::Hash;

    fn payloads(payload_bytes: usize) -> Payloads {
        let ledger_id = LedgerId::new(Hash::new([7; 32]));
        let (producer, task_nonce) = ("bench:append", Nonce::new([1; 16]));
        let place = Place {
            session: SessionId::derive(ledger_id, producer, &Nonce::new([2; 16])),
            next: Sequence::new(1),
            task: TaskId::derive(ledger_id, producer, &task_nonce),
            task_nonce,
        };
        Payloads::new(ledger_id, producer, place, payload_bytes).unwrap()
    }

    #[test]
    fn every_statement_is_canonical_and_of_the_size_asked_for() {
        for payload_bytes in [160, 200, 256, 257, 300, 1_000, 1_024, 1_025, 2_000, 4_096] {
            let mut payloads = payloads(payload_bytes);
            let batch = payloads.next_batch(300);
            for (sequence, payload) in (1..).zip(&batch) {
                let header = statement::parse(payload).unwrap();
                assert_eq!(header.sequence.get(), sequence);
                assert!(payload.len() <= payload_bytes);
                assert!(
                    payload.len() >= payload_bytes - 1,
                    "{payload_bytes}: {}",
                    payload.len()
                );
            }
            // The template changes where the varint grows.
            payloads.next = 1 << 35;
            let payload = &payloads.next_batch(1)[0];
            assert_eq!(statement::parse(payload).unwrap().sequence.get(), 1 << 35);
            assert!(payload.len() >= payload_bytes - 1 && payload.len() <= payload_bytes);
        }
    }
}
