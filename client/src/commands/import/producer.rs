//! One stream of runs.

use std::sync::Arc;

use bytes::Bytes;
use deed_client::{
    Answer, Appended, Appender, AppenderOptions, CONTENT_INLINE_BYTES_MAX, ContentState, Error,
    Ledger, Pending, Signing, Statement,
    chat::{Import as ChatImport, Run, RunContent},
};
use deed_evidence::commitment::digest_of;
use deed_proto::v1::{self, rejection::Reason};
use tokio::sync::mpsc;
use tonic::Code;

use super::{
    Receipts, Summary,
    reader::{NumberedRun, Runs},
};
use crate::{
    cli::{Failure, Outcome},
    commands::receipts::Tally,
};

/// Requests whose answers are not taken in yet.
const REQUESTS_UNANSWERED: usize = 64;

/// One stream of runs.
pub(super) struct Producer {
    pub(super) import: Arc<ChatImport>,
    pub(super) runs: Runs,
    pub(super) receipts: Receipts,
    pub(super) ledger: Ledger,
    pub(super) signing: Signing,
    /// Whether arguments and results are kept beside the ledger.
    pub(super) keeps_contents: bool,
}

/// A request that is under way.
struct Sent {
    line: u64,
    run_id: Arc<str>,
    statements: Vec<Statement>,
    pending: Pending,
}

impl Producer {
    pub(super) async fn run(self) -> (Summary, Outcome) {
        let appender = self.ledger.appender(AppenderOptions {
            signing: self.signing.clone(),
            ..AppenderOptions::default()
        });
        let (sent, answers) = mpsc::channel(REQUESTS_UNANSWERED);
        let collector = Collector {
            ledger: self.ledger.clone(),
            signing: self.signing.clone(),
            receipts: self.receipts.clone(),
            sent_again: None,
            tally: Tally::default(),
            erased: 0,
        };
        let collector = tokio::spawn(collector.collect(answers));
        let mut summary = Summary::default();
        let produced = self.produce(&appender, &sent, &mut summary).await;
        drop(sent);
        let collected = match collector.await {
            Ok((collector, outcome)) => {
                summary.tally = collector.tally;
                summary.erased += collector.erased;
                outcome
            }
            Err(error) => Err(Failure::Unavailable(error.into())),
        };
        let finished = appender.finish().await.map_err(Failure::from);
        if collected.is_err() || finished.is_err() || produced.is_err() {
            self.runs.stop();
        }
        (summary, collected.and(finished).and(produced))
    }

    async fn produce(
        &self,
        appender: &Appender,
        sent: &mpsc::Sender<Sent>,
        summary: &mut Summary,
    ) -> Outcome {
        while let Some(NumberedRun { line, transcript }) = self.runs.next().await {
            let run = self.import.run(&transcript).map_err(|error| {
                Failure::usage(error.to_string()).context(format!("line {line}"))
            })?;
            summary.add(run.counts);
            summary.statements += run.statements.len() as u64;
            let run_id: Arc<str> = transcript.run_id.into();
            let statements = self.statements(run, summary).await?;
            for statements in requests(statements) {
                let pending = match appender.send(statements.clone()).await {
                    Ok(pending) => pending,
                    // The collector knows why.
                    Err(Error::Ended) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                let request = Sent {
                    line,
                    run_id: Arc::clone(&run_id),
                    statements,
                    pending,
                };
                if sent.send(request).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The statements of a run with their contents. Those that are too long to travel with them
    /// are put first.
    async fn statements(&self, run: Run, summary: &mut Summary) -> Outcome<Vec<Statement>> {
        let mut statements: Vec<Statement> = run.statements.into_iter().map(Into::into).collect();
        let contents = run.contents.into_iter().filter(|_| self.keeps_contents);
        for RunContent {
            position,
            salt,
            content,
        } in contents
        {
            summary.contents += 1;
            summary.content_bytes += content.len() as u64;
            if content.len() > CONTENT_INLINE_BYTES_MAX {
                let digest = digest_of(&salt, &content);
                let contents = self.ledger.contents();
                match contents.put_bytes(digest, &salt, content).await {
                    Ok(_) => {}
                    // One that was erased is not taken again; its statement is there.
                    Err(error) if is_refused_for_its_state(&error) => {
                        match contents.get(digest, tokio::io::sink()).await {
                            Ok(ContentState::Erased { .. }) => summary.erased += 1,
                            _ => return Err(error.into()),
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            } else if let Some(statement) = statements.get_mut(position) {
                statement.attachments.push(v1::Attachment {
                    salt: Bytes::copy_from_slice(salt.as_bytes()),
                    content,
                });
            }
        }
        Ok(statements)
    }
}

/// Cuts a run into requests of at most 1,024 statements and about 1 MiB.
fn requests(statements: Vec<Statement>) -> Vec<Vec<Statement>> {
    const STATEMENTS_MAX: usize = 1_024;
    const BYTES_MAX: usize = 1024 * 1024;
    let mut requests: Vec<Vec<Statement>> = Vec::new();
    let mut bytes = 0;
    for statement in statements {
        let full = |request: &Vec<Statement>| request.len() >= STATEMENTS_MAX || bytes >= BYTES_MAX;
        if requests.last().is_none_or(full) {
            requests.push(Vec::new());
            bytes = 0;
        }
        bytes += statement.bytes();
        if let Some(request) = requests.last_mut() {
            request.push(statement);
        }
    }
    requests
}

/// Takes in the answers, in the order of the requests.
struct Collector {
    ledger: Ledger,
    signing: Signing,
    receipts: Receipts,
    /// The run of which a request was sent again: those behind it were refused for its sake.
    sent_again: Option<Arc<str>>,
    tally: Tally,
    erased: u64,
}

impl Collector {
    async fn collect(mut self, mut sent: mpsc::Receiver<Sent>) -> (Self, Outcome) {
        while let Some(request) = sent.recv().await {
            if let Err(failure) = self.take(request).await {
                return (self, Err(failure));
            }
        }
        (self, Ok(()))
    }

    async fn take(&mut self, request: Sent) -> Outcome {
        let Sent {
            line,
            run_id,
            mut statements,
            pending,
        } = request;
        let mut answer = pending.await?;
        let behind = self.sent_again.as_ref() == Some(&run_id) && is_refused(&answer);
        let mut again = self.leave_out_erased(&mut statements, &answer) || behind;
        while again {
            self.sent_again = Some(Arc::clone(&run_id));
            answer = self
                .ledger
                .append_signed(&statements, &self.signing)
                .await?;
            again = self.leave_out_erased(&mut statements, &answer);
        }
        answer.items.iter().for_each(|item| self.tally.count(item));
        match &self.receipts {
            Some(receipts) => {
                let payloads: Vec<Bytes> = statements.into_iter().map(|s| s.payload).collect();
                receipts.write(line, &run_id, &payloads, &answer)
            }
            None => Ok(()),
        }
    }

    /// Leaves out contents that were erased since an earlier import; whether any was.
    fn leave_out_erased(&mut self, statements: &mut [Statement], answer: &Answer) -> bool {
        let before = self.erased;
        for (statement, item) in statements.iter_mut().zip(&answer.items) {
            if let Appended::Rejected(rejection) = item
                && rejection.reason() == Reason::ContentErased
            {
                // Which of them it was is not said; the others are held or were erased too.
                self.erased += statement.attachments.len() as u64;
                statement.attachments.clear();
            }
        }
        self.erased > before
    }
}

const fn is_refused_for_its_state(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused {
            code: Code::FailedPrecondition,
            ..
        }
    )
}

fn is_refused(answer: &Answer) -> bool {
    answer.items.iter().any(|item| item.receipt().is_none())
}
