//! The memory that an append request takes on the server.

use deed_evidence::entry::OVERHEAD_BYTES_MAX;
use deed_proto::v1;
use prost::Message as _;

use crate::admission::Piece;

/// Bytes that one envelope's result takes at most until it is sent: the result itself, its leaf
/// hash or the text of its rejection, and its encoded form, without proofs.
const RESULT_BYTES: usize = size_of::<v1::AppendResult>() + 2 * 128;

/// Bytes of a proof: at most 64 hashes of 32 bytes, as [`bytes::Bytes`] and encoded.
const PROOF_BYTES: usize = 64 * (size_of::<bytes::Bytes>() + 2 * 32);

/// Bytes of an answer's checkpoint and consistency proof.
const ANSWER_BYTES: usize = 1024 + 2 * PROOF_BYTES;

/// The bytes that a request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Bytes from decoding until the answer is made: the message, the entries made of it, the notes
    /// of admission, and the answer.
    pub(crate) request_bytes: usize,
    /// Bytes from then until the answer is sent.
    pub answer_bytes: usize,
    /// Bytes on the wire, which quotas count.
    pub(crate) message_bytes: usize,
}

/// Largest entry of a TaskReceipt: two digests, two hashes, ids and numbers.
const TASK_RECEIPT_BYTES: usize = 512;

impl Cost {
    /// The cost of a request for a task's receipt, which is that of appending the receipt's entry.
    pub(crate) const TASK_RECEIPT: Self = Self {
        request_bytes: TASK_RECEIPT_BYTES + ANSWER_BYTES + TASK_RECEIPT_BYTES + PROOF_BYTES,
        answer_bytes: ANSWER_BYTES + TASK_RECEIPT_BYTES + PROOF_BYTES,
        message_bytes: TASK_RECEIPT_BYTES,
    };

    /// Returns the cost of a decoded request. Its payloads are slices of the buffer that it was
    /// read into, so that buffer counts once, whatever fields it holds.
    pub(crate) fn of(request: &v1::AppendRequest) -> Self {
        let message_bytes = request.encoded_len();
        let count = request.envelopes.len();
        let attachments: usize = request
            .envelopes
            .iter()
            .map(|envelope| envelope.attachments.len())
            .sum();
        let decoded = message_bytes
            + request.envelopes.capacity() * size_of::<v1::Envelope>()
            + attachments * size_of::<v1::Attachment>();
        let payloads: usize = request
            .envelopes
            .iter()
            .map(|envelope| envelope.payload.len())
            .sum();
        let entries = payloads + count * (OVERHEAD_BYTES_MAX + size_of::<Piece>());
        let proof_bytes = if request.with_proofs { PROOF_BYTES } else { 0 };
        let answer_bytes = ANSWER_BYTES + count * (RESULT_BYTES + proof_bytes);
        Self {
            request_bytes: decoded + entries + answer_bytes,
            answer_bytes,
            message_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn everything_that_is_held_is_charged() {
        let envelope = v1::Envelope {
            payload: Bytes::from(vec![1; 1000]),
            ..v1::Envelope::default()
        };
        let request = |envelope: &v1::Envelope, count: usize| v1::AppendRequest {
            envelopes: vec![envelope.clone(); count],
            ..v1::AppendRequest::default()
        };
        let plain = Cost::of(&request(&envelope, 10));
        // The payloads count once as they arrived, and once in the entries.
        assert!(plain.request_bytes > 2 * 10 * 1000);
        assert!(plain.message_bytes > 10 * 1000 && plain.message_bytes < 11 * 1000);

        let mut attached = envelope.clone();
        attached.attachments = vec![v1::Attachment {
            salt: Bytes::from(vec![1; 32]),
            content: Bytes::from(vec![2; 65_536]),
        }];
        let attached = Cost::of(&request(&attached, 10));
        assert!(attached.request_bytes > plain.request_bytes + 10 * 65_536);

        // Empty envelopes take a few bytes on the wire, and far more in memory.
        let empty = Cost::of(&request(&v1::Envelope::default(), 4096));
        assert!(empty.message_bytes <= 4096 * 2);
        assert!(empty.request_bytes >= 4096 * (size_of::<v1::Envelope>() + size_of::<Piece>()));

        let mut proven = request(&envelope, 10);
        proven.with_proofs = true;
        assert!(Cost::of(&proven).answer_bytes >= plain.answer_bytes + 10 * 64 * 32);
    }
}
