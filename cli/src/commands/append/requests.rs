//! Makes requests of statements.

use std::io;

use bytes::Bytes;
use deed_client::{Appender, Pending, Statement};
use tokio::sync::mpsc;

use super::{kept::Kept, maker::Maker};
use crate::failure::{CommandResult, Failure};

/// A request is sent once it has this many bytes of payloads and contents.
const REQUEST_BYTES: usize = 1024 * 1024;

/// A request that is under way.
pub(super) struct Sent {
    /// The line of each statement; none if an earlier process read it.
    pub(super) lines: Vec<Option<u64>>,
    pub(super) payloads: Vec<Bytes>,
    pub(super) pending: Pending,
}

/// The reason why reading stopped before the end of the input.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The input is not right, or no request can be made of it.
    Input(Failure),
    /// Appending or printing has ended; the printer or the appender says why.
    Ended,
}

/// Makes requests of lines.
pub(super) struct Requests<'a> {
    appender: &'a Appender,
    sent: mpsc::Sender<Sent>,
    statements_max: usize,
    /// True if a request holds consecutive statements of one session only.
    is_batch: bool,
    maker: Maker,
    kept: Option<Kept>,
    lines: Vec<Option<u64>>,
    statements: Vec<Statement>,
    bytes: usize,
    /// The last line that was handed over; 0 if none was.
    pub(super) last_sent: u64,
}

impl<'a> Requests<'a> {
    pub(super) const fn new(
        appender: &'a Appender,
        sent: mpsc::Sender<Sent>,
        statements_max: usize,
        is_batch: bool,
        maker: Maker,
        kept: Option<Kept>,
    ) -> Self {
        Self {
            appender,
            sent,
            statements_max,
            is_batch,
            maker,
            kept,
            lines: Vec::new(),
            statements: Vec::new(),
            bytes: 0,
            last_sent: 0,
        }
    }

    /// Sends what an earlier process made and has no receipt for. It is kept already.
    pub(super) async fn send_again(&mut self, left: Vec<Statement>) -> Result<(), Stopped> {
        for statement in left {
            self.join(None, statement, false).await?;
        }
        self.send(false).await
    }

    /// Reads to the end of the input, to the first malformed line, or until something ends.
    pub(super) async fn read_all(
        &mut self,
        mut lines: mpsc::Receiver<io::Result<Vec<u8>>>,
    ) -> Result<(), Stopped> {
        let mut number = 0;
        loop {
            let line = match lines.try_recv() {
                Ok(line) => line,
                Err(_) => {
                    // No more lines at the moment: the request is sent, so that a person who types gets
                    // the answer now.
                    self.send(true).await?;
                    // The command may end meanwhile, though the pipe stays silent for ever.
                    let line = tokio::select! {
                        () = self.sent.closed() => return Err(Stopped::Ended),
                        line = lines.recv() => line,
                    };
                    match line {
                        Some(line) => line,
                        None => return Ok(()),
                    }
                }
            };
            number += 1;
            match self.statement(line).await {
                Ok(Some(statement)) => self.join(Some(number), statement, true).await?,
                Ok(None) => {}
                Err(failure) => {
                    self.send(true).await?;
                    let failure = failure.context(format!("line {number}"));
                    return Err(Stopped::Input(failure));
                }
            }
        }
    }

    async fn statement(&mut self, line: io::Result<Vec<u8>>) -> CommandResult<Option<Statement>> {
        let line = line.map_err(|error| Failure::Usage(error.into()))?;
        let line = String::from_utf8(line).map_err(|_| Failure::usage("not UTF-8"))?;
        if line.trim().is_empty() {
            return Ok(None);
        }
        self.maker.statement(&line).await.map(Some)
    }

    async fn join(
        &mut self,
        line: Option<u64>,
        statement: Statement,
        keep: bool,
    ) -> Result<(), Stopped> {
        let last = self.statements.last().filter(|_| self.is_batch);
        if last.is_some_and(|last| !last.is_continued_by(&statement)) {
            self.send(keep).await?;
        }
        self.bytes += statement.bytes();
        self.lines.push(line);
        self.statements.push(statement);
        if self.statements.len() >= self.statements_max || self.bytes >= REQUEST_BYTES {
            self.send(keep).await?;
        }
        Ok(())
    }

    async fn send(&mut self, keep: bool) -> Result<(), Stopped> {
        if self.statements.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        // The place at the printer first: what is sent is also counted, if not printed.
        let place = self.sent.reserve().await.map_err(|_| Stopped::Ended)?;
        let statements = std::mem::take(&mut self.statements);
        if let Some(kept) = self.kept.as_ref().filter(|_| keep) {
            let kept = tokio::task::block_in_place(|| kept.append(&statements));
            match kept.map_err(deed_client::Error::from) {
                Ok(true) => {}
                Ok(false) => return Err(Stopped::Ended),
                Err(error) => return Err(Stopped::Input(error.into())),
            }
        }
        let payloads = statements.iter().map(|s| s.payload.clone()).collect();
        let pending = match self.appender.send(statements).await {
            Ok(pending) => pending,
            Err(deed_client::Error::Ended) => return Err(Stopped::Ended),
            Err(error) => return Err(Stopped::Input(error.into())),
        };
        let lines = std::mem::take(&mut self.lines);
        self.last_sent = lines.last().copied().flatten().unwrap_or(self.last_sent);
        place.send(Sent {
            lines,
            payloads,
            pending,
        });
        Ok(())
    }
}
