//! A ledger's entries in their order, as the server sends them.

use std::collections::VecDeque;

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::{LeafIndex, TreeSize};
use tonic::{Status, Streaming};

use crate::{attempts::Attempts, error::Error, ledger::Ledger, retry::within};

/// Entries from one leaf to another. Survives lost connections.
///
/// Does not verify single entries: fold the leaf hashes of all entries into a tree, as
/// [`Audit`](crate::Audit) does, and compare its root with a signed head's.
#[derive(Debug)]
pub struct EntryStream {
    ledger: Ledger,
    attempts: Attempts,
    messages: Option<Streaming<v1::GetEntriesResponse>>,
    /// The first of `waiting`, or the next one to come.
    next: u64,
    end: u64,
    waiting: VecDeque<Bytes>,
}

impl Ledger {
    /// The entries from `start` up to the end of the tree of `size` leaves.
    #[must_use]
    pub fn entries(&self, start: LeafIndex, size: TreeSize) -> EntryStream {
        EntryStream {
            ledger: self.clone(),
            attempts: self.attempts(),
            messages: None,
            next: start.get(),
            end: size.get(),
            waiting: VecDeque::new(),
        }
    }
}

impl EntryStream {
    /// The next entry with its index; `None` behind the last one.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::Refused`]; lost connections are tried again first.
    pub async fn next(&mut self) -> Result<Option<(LeafIndex, Bytes)>, Error> {
        while self.next < self.end {
            if let Some(entry) = self.waiting.pop_front() {
                let index = LeafIndex::new(self.next);
                self.next += 1;
                return Ok(Some((index, entry)));
            }
            match self.message().await {
                Ok(entries) => {
                    self.attempts.reset();
                    self.waiting = entries.into();
                }
                Err(status) => {
                    self.messages = None;
                    self.ledger.wait_after(&status, &mut self.attempts).await?;
                }
            }
        }
        Ok(None)
    }

    async fn message(&mut self) -> Result<Vec<Bytes>, Status> {
        let timeout = self.ledger.shared.timeout;
        let messages = match &mut self.messages {
            Some(messages) => messages,
            None => {
                let request = v1::GetEntriesRequest {
                    ledger: self.ledger.shared.name.clone(),
                    start: self.next,
                    end: self.end,
                    min_size: self.ledger.shared.min_size(),
                };
                let mut client = self.attempts.server(&self.ledger.connection).log();
                let answer = within(timeout, client.get_entries(request)).await?;
                self.messages.insert(answer.into_inner())
            }
        };
        match within(timeout, messages.message()).await? {
            Some(message) if message.start != self.next || message.entries.is_empty() => {
                let reason = "the server's stream of entries leaves some out";
                Err(Status::data_loss(reason))
            }
            Some(message) => Ok(message.entries),
            None => Err(Status::unavailable("the server ended the stream")),
        }
    }
}
