//! The budget of answers that are made and not taken yet.
//!
//! A slow reader, or one that takes nothing at all, makes the server hold its answers. So room is
//! taken before an answer is made: a caller that finds none waits, and others of its source wait
//! with it, but no other source does. An answer keeps its permit until the transport has written it
//! to the socket: the permit moves along with the bytes of the answer's body, and is given back
//! when they are dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Budget, BudgetPermit, LimitReached, RETRY_AFTER, SourceKey};

/// Bytes of entries, or of other contents of a stream, in one message of it. The last entry may go
/// beyond, by its 64 KiB at most.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Room that is taken to make a message of a stream: its contents, and its encoded form.
pub const CHUNK_ROOM: usize = 3 * CHUNK_BYTES;

/// Room for an answer of a few proofs and heads.
pub const PROOF_ROOM: usize = 16 << 10;

/// Room for a page of a list.
pub const PAGE_ROOM: usize = 1 << 20;

/// The smallest bound of one source: a piece of a content, and a message of it, must fit.
const SOURCE_MIN: usize = 2 << 20;

/// The room for all answers.
#[derive(Debug)]
pub struct Answers {
    budget: Budget,
    wait: Duration,
    /// Number of times that a caller did not get room.
    refused: Arc<AtomicU64>,
}

/// The room for one answer, of one message or of a stream of them.
#[derive(Debug, Clone)]
pub struct AnswerPermit {
    budget: Budget,
    source: SourceKey,
    wait: Duration,
    refused: Arc<AtomicU64>,
    made: Made,
}

/// Shares of messages that were made and are not yet in the body's bytes; it is put into the
/// extensions of a response.
#[derive(Debug, Clone, Default)]
pub struct Made(Arc<Mutex<Vec<BudgetPermit>>>);

impl Answers {
    /// Makes a budget of `total` bytes, of which one source holds an eighth at most, and all
    /// strangers a quarter; an eighth is reserved for known callers that hold nothing. A caller
    /// that does not get room within `wait` is refused.
    pub fn new(total: usize, wait: Duration) -> Self {
        let source_max = (total / 8).max(SOURCE_MIN);
        let reserve = total / 8;
        let total = total.max(reserve + source_max);
        Self {
            budget: Budget::with_strangers(total, source_max, total / 4, reserve),
            wait,
            refused: Arc::default(),
        }
    }

    pub fn room(&self, source: SourceKey) -> AnswerPermit {
        AnswerPermit {
            budget: self.budget.clone(),
            source,
            wait: self.wait,
            refused: Arc::clone(&self.refused),
            made: Made::default(),
        }
    }

    /// Returns the bytes that all answers hold.
    pub fn held(&self) -> usize {
        self.budget.held()
    }

    /// Returns the number of times that a caller did not get room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl AnswerPermit {
    /// Waits for room to make a message in.
    ///
    /// # Errors
    /// [`LimitReached`] if the source's readers have left no room for too long.
    pub async fn take(&self, bytes: usize) -> Result<BudgetPermit, LimitReached> {
        let taking = self.budget.take(&self.source, bytes);
        tokio::time::timeout(self.wait, taking).await.map_err(|_| {
            self.refused.fetch_add(1, Relaxed);
            LimitReached {
                what: format!(
                    "there was no room for this answer within {} ms: answers that are not taken fill \
                     it; take yours, or ask for less at a time",
                    self.wait.as_millis()
                ),
                retry_after: RETRY_AFTER,
            }
        })
    }

    /// Notes that a message of `encoded_bytes` bytes was made: it keeps its part of `share` until
    /// it is sent. The buffers that it is encoded into grow by doubling, so it counts twice.
    pub fn made(&self, mut share: BudgetPermit, encoded_bytes: usize) {
        share.shrink(encoded_bytes.saturating_mul(2));
        self.made.0.lock().push(share);
    }

    /// Returns the handle that the answer's body needs.
    pub fn to_body(&self) -> Made {
        self.made.clone()
    }
}

impl Made {
    /// Moves the permits of the messages that were made since the last call into `bytes`, the first
    /// bytes of the body since then.
    pub fn charge(&self, bytes: Bytes) -> Bytes {
        let shares = std::mem::take(&mut *self.0.lock());
        if shares.is_empty() {
            return bytes;
        }
        Bytes::from_owner(Charged {
            bytes,
            _shares: shares,
        })
    }
}

/// Bytes together with their permits of a budget.
struct Charged {
    bytes: Bytes,
    _shares: Vec<BudgetPermit>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SourceKey = SourceKey::Connection(1);
    const B: SourceKey = SourceKey::Connection(2);

    fn answers() -> Answers {
        Answers::new(32 << 20, Duration::from_millis(1))
    }

    #[tokio::test]
    async fn what_was_made_keeps_its_share_until_its_bytes_are_gone() {
        let answers = answers();
        let room = answers.room(A);
        let share = room.take(CHUNK_ROOM).await.unwrap();
        assert_eq!(answers.held(), CHUNK_ROOM);
        room.made(share, 1000);
        assert_eq!(answers.held(), 2000);
        let body = room.to_body();
        let bytes = body.charge(Bytes::from(vec![7; 1000]));
        assert_eq!(bytes, vec![7; 1000]);
        // The transport cuts the bytes into frames: the last frame gives the permit back.
        let (first, second) = (bytes.slice(..400), bytes.slice(400..));
        drop(bytes);
        drop(first);
        assert_eq!(answers.held(), 2000);
        drop(second);
        assert_eq!(answers.held(), 0);
        // Trailers, and other bytes that were not charged, hold nothing.
        drop(body.charge(Bytes::from_static(b"x")));
        // An answer that is dropped gives back the permits of its messages.
        let share = room.take(CHUNK_ROOM).await.unwrap();
        room.made(share, 10);
        drop((room, body));
        assert_eq!(answers.held(), 0);
    }

    #[tokio::test]
    async fn a_source_that_takes_nothing_fills_its_share_and_nobody_elses() {
        let answers = answers();
        let greedy = answers.room(A);
        let mut made = Vec::new();
        let refused = loop {
            match greedy.take(CHUNK_ROOM).await {
                Ok(share) => made.push(share),
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(&refused, LimitReached { what, .. } if what.contains("not taken")));
        assert_eq!(answers.refused(), 1);
        assert!(answers.held() <= 4 << 20);
        assert!(answers.room(B).take(CHUNK_ROOM).await.is_ok());
        // All strangers together have a quarter, however many addresses they have.
        let mut strangers = 0;
        for host in 0..=255_u8 {
            let stranger = answers.room(SourceKey::Address([192, 0, 2, host].into()));
            while let Ok(share) = stranger.take(CHUNK_ROOM).await {
                strangers += share.amount();
                made.push(share);
            }
        }
        assert!(strangers <= 8 << 20);
        assert!(answers.room(B).take(CHUNK_ROOM).await.is_ok());
        drop(made);
        assert_eq!(answers.held(), 0);
    }

    #[tokio::test]
    async fn many_that_take_nothing_leave_room_for_newcomers() {
        let answers = answers();
        let mut made = Vec::new();
        for id in 1..=20 {
            let greedy = answers.room(SourceKey::Connection(id));
            while let Ok(share) = greedy.take(CHUNK_ROOM).await {
                made.push(share);
            }
        }
        let stranger = answers.room(SourceKey::Address([192, 0, 2, 1].into()));
        assert!(stranger.take(CHUNK_ROOM).await.is_err());
        let newcomer = answers.room(SourceKey::Connection(21));
        assert!(newcomer.take(CHUNK_ROOM).await.is_ok());
        drop(made);
        assert_eq!(answers.held(), 0);
    }
}
