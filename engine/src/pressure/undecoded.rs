//! The bytes of messages that are not complete yet.
//!
//! tonic gathers a message before it decodes it, and the windows of HTTP/2 open again as soon as it
//! has taken the bytes: this module bounds what a client can make it gather. A message that arrives
//! in one piece costs nothing; of others, the bytes that have arrived count against a bound of the
//! connection, and against the source's part of a budget of the server, until the last byte is
//! there.
//!
//! A message that finds no room is refused and does not wait: waiting would keep the connection's
//! window closed for the messages whose ends would make room.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Budget, BudgetPermit, SourceKey};

/// Largest message, in bytes: the bound on payloads, and what envelopes add to them at most.
pub const MESSAGE_BYTES_MAX: usize = 6 << 20;

/// Bytes of the flag and the length before each message of gRPC.
const HEAD_BYTES: usize = 5;

/// Makes the budget of a server whose requests may hold `server_bytes`. No source has more than a
/// quarter, and each may hold at least one message.
pub(super) fn budget(server_bytes: usize) -> Budget {
    let source_max = (server_bytes / 4).max(MESSAGE_BYTES_MAX);
    Budget::new(server_bytes.max(source_max), source_max)
}

/// There is no room for the bytes of an incomplete message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuchUndecoded;

/// The bytes that a request's incomplete message holds.
#[derive(Debug)]
pub struct Undecoded {
    budget: Budget,
    source: SourceKey,
    connection: Arc<Semaphore>,
    held: Option<(OwnedSemaphorePermit, BudgetPermit)>,
}

impl Undecoded {
    pub(super) fn new(budget: &Budget, connection: Arc<Semaphore>, source: SourceKey) -> Self {
        Self {
            budget: budget.clone(),
            source,
            connection,
            held: None,
        }
    }

    /// Holds exactly `bytes` bytes from now on.
    ///
    /// # Errors
    /// [`TooMuchUndecoded`]; it holds as many as before, or none.
    pub fn hold(&mut self, bytes: usize) -> Result<(), TooMuchUndecoded> {
        if bytes == 0 {
            self.held = None;
            return Ok(());
        }
        let Some((permit, share)) = &mut self.held else {
            let permit = self.acquire(bytes)?;
            let share = self.budget.try_take(&self.source, bytes);
            self.held = Some((permit, share.ok_or(TooMuchUndecoded)?));
            return Ok(());
        };
        match bytes.checked_sub(share.amount()) {
            Some(0) => {}
            Some(more) => {
                let more_permits = u32::try_from(more).map_err(|_| TooMuchUndecoded)?;
                let grown = Arc::clone(&self.connection).try_acquire_many_owned(more_permits);
                let grown = grown.map_err(|_| TooMuchUndecoded)?;
                if !share.try_grow(more) {
                    return Err(TooMuchUndecoded);
                }
                permit.merge(grown);
            }
            None => {
                let beyond = permit.num_permits().saturating_sub(bytes);
                drop(permit.split(beyond));
                share.shrink(bytes);
            }
        }
        Ok(())
    }

    fn acquire(&self, bytes: usize) -> Result<OwnedSemaphorePermit, TooMuchUndecoded> {
        let permits = u32::try_from(bytes).map_err(|_| TooMuchUndecoded)?;
        let acquired = Arc::clone(&self.connection).try_acquire_many_owned(permits);
        acquired.map_err(|_| TooMuchUndecoded)
    }
}

/// The position of a body within its messages.
#[derive(Debug, Default)]
pub struct Framing {
    /// Bytes that have arrived of the incomplete message, its head included.
    begun_bytes: usize,
    head: [u8; HEAD_BYTES],
}

impl Framing {
    /// Reads the framing of the next bytes. Returns the number of bytes that have arrived of the
    /// last message if that is incomplete, otherwise 0.
    pub fn push(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            if self.begun_bytes < HEAD_BYTES {
                let taken = bytes.len().min(HEAD_BYTES - self.begun_bytes);
                self.head[self.begun_bytes..][..taken].copy_from_slice(&bytes[..taken]);
                self.begun_bytes += taken;
                bytes = &bytes[taken..];
                if self.begun_bytes < HEAD_BYTES {
                    break;
                }
            }
            let [_, length @ ..] = self.head;
            let left = HEAD_BYTES + u32::from_be_bytes(length) as usize - self.begun_bytes;
            let taken = left.min(bytes.len());
            self.begun_bytes += taken;
            bytes = &bytes[taken..];
            if taken == left {
                self.begun_bytes = 0;
            }
        }
        self.begun_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(length.to_be_bytes());
        message.resize(HEAD_BYTES + length as usize, 7);
        message
    }

    #[test]
    fn framing_is_the_same_wherever_the_bytes_are_cut() {
        let lengths = [0, 1, 300, 0, 0, 4, 5];
        let all: Vec<u8> = lengths.iter().flat_map(|&length| message(length)).collect();
        let mut ends = vec![0];
        for length in lengths {
            ends.push(ends[ends.len() - 1] + HEAD_BYTES + length as usize);
        }
        for piece in 1..=all.len() {
            let mut framing = Framing::default();
            let mut seen = 0;
            for bytes in all.chunks(piece) {
                seen += bytes.len();
                let begins = ends.iter().rfind(|&&end| end <= seen).unwrap();
                assert_eq!(framing.push(bytes), seen - begins, "pieces of {piece}");
            }
        }
    }

    fn stranger() -> SourceKey {
        SourceKey::Address(std::net::Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn a_message_holds_its_bytes_of_both_bounds_and_gives_them_back() {
        let budget = Budget::with_strangers(100, 60, 60, 0);
        let connection = Arc::new(Semaphore::new(50));
        let of = |source| Undecoded::new(&budget, Arc::clone(&connection), source);
        let mut first = of(stranger());
        let mut second = of(stranger());
        first.hold(30).unwrap();
        first.hold(20).unwrap();
        first.hold(40).unwrap();
        assert_eq!((budget.held(), connection.available_permits()), (40, 10));
        // The connection's bound holds when a message begins and when it grows.
        assert_eq!(second.hold(11), Err(TooMuchUndecoded));
        second.hold(10).unwrap();
        assert_eq!(second.hold(11), Err(TooMuchUndecoded));
        // The source's bound holds across connections.
        let other = Arc::new(Semaphore::new(50));
        let mut third = Undecoded::new(&budget, Arc::clone(&other), stranger());
        assert_eq!(third.hold(11), Err(TooMuchUndecoded));
        third.hold(10).unwrap();
        assert_eq!(third.hold(11), Err(TooMuchUndecoded));
        let mut fourth = Undecoded::new(&budget, other, SourceKey::Connection(4));
        fourth.hold(40).unwrap();
        first.hold(0).unwrap();
        drop((second, third, fourth));
        assert_eq!((budget.held(), connection.available_permits()), (0, 50));
        assert!(first.hold(50).is_ok());
    }
}
