//! A producer: it makes and sends the statements of its runs, in one stream.

use std::sync::Arc;

use bytes::Bytes;
use deed_client::{
    Answer, Appended, Appender, AppenderOptions, CONTENT_INLINE_BYTES_MAX, ContentState, Error,
    Ledger, Signing, Statement,
    chat::{
        Checked, Earlier, Import as ChatImport, Making, Part, PartContent, Recorded, Speaker,
        Transcript,
    },
};
use deed_evidence::{Sequence, commitment::digest_of};
use deed_proto::v1::{self, rejection::Reason};
use tokio::task::JoinSet;
use tonic::Code;

use super::{
    Receipts,
    earlier::{Known, NEEDS_READ},
    reader::{NumberedRun, Runs},
    summary::{Refusal, Refusals, Summary},
};
use crate::{
    failure::{CommandResult, Failure},
    render::names,
};

/// Runs that a producer has under way: each waits for answers in between.
const RUNS_AT_ONCE: usize = 8;

/// A producer, which sends its share of the runs in one stream.
#[derive(Clone)]
pub(super) struct Producer {
    pub(super) import: Arc<ChatImport>,
    pub(super) runs: Runs,
    pub(super) receipts: Receipts,
    pub(super) ledger: Ledger,
    pub(super) signing: Signing,
    /// The way in which grants are signed.
    pub(super) granting: Signing,
    /// True if arguments and results are kept beside the ledger.
    pub(super) keeps_contents: bool,
    /// True if nothing is sent.
    pub(super) is_dry: bool,
    pub(super) refusals: Refusals,
}

/// A run under way.
struct OneRun {
    producer: Producer,
    appender: Arc<Appender>,
    line: u64,
    run_id: String,
    summary: Summary,
    /// The part of it that an earlier import recorded.
    known: Option<Known>,
    /// Something else is recorded in one of its places, which could not be read before.
    is_taken: bool,
}

impl Producer {
    pub(super) async fn run(self) -> (Summary, CommandResult) {
        let appender = Arc::new(self.ledger.appender(AppenderOptions {
            signing: self.signing.clone(),
            ..AppenderOptions::default()
        }));
        let mut summary = Summary::default();
        let mut outcome = Ok(());
        let mut under_way = JoinSet::new();
        loop {
            let next = tokio::select! {
                run = self.runs.next(), if under_way.len() < RUNS_AT_ONCE => run,
                Some(ended) = under_way.join_next() => {
                    outcome = outcome.and(self.take(ended, &mut summary));
                    continue;
                }
            };
            let Some(NumberedRun { line, transcript }) = next else {
                break;
            };
            let run = OneRun {
                producer: self.clone(),
                appender: Arc::clone(&appender),
                line,
                run_id: transcript.run_id.clone(),
                summary: Summary::default(),
                known: None,
                is_taken: false,
            };
            under_way.spawn(run.carry(transcript));
        }
        while let Some(ended) = under_way.join_next().await {
            outcome = outcome.and(self.take(ended, &mut summary));
        }
        let finished = match Arc::into_inner(appender) {
            Some(appender) => appender.finish().await.map_err(Failure::from),
            None => Ok(()),
        };
        if finished.is_err() {
            self.runs.stop();
        }
        (summary, outcome.and(finished))
    }

    fn take(
        &self,
        ended: Result<(Summary, CommandResult), tokio::task::JoinError>,
        summary: &mut Summary,
    ) -> CommandResult {
        let outcome = match ended {
            Ok((part, outcome)) => {
                summary.merge(part);
                outcome
            }
            Err(error) => Err(Failure::Unavailable(error.into())),
        };
        if outcome.is_err() {
            self.runs.stop();
        }
        outcome
    }
}

/// Makes all statements of a run to see that they can be made.
///
/// # Errors
/// The reason why the run is refused.
pub(super) fn check(import: &ChatImport, transcript: &Transcript) -> Result<Checked, String> {
    let checked = import
        .check(transcript)
        .map_err(|error| error.to_string())?;
    if checked.statements == 0 {
        return Err("there is no user's message and no call yet: nothing to record".to_owned());
    }
    Ok(checked)
}

impl OneRun {
    async fn carry(mut self, transcript: Transcript) -> (Summary, CommandResult) {
        let outcome = self.carried(&transcript).await;
        (self.summary, outcome)
    }

    /// Makes all of a run and compares it with its recorded part before it sends anything.
    async fn carried(&mut self, transcript: &Transcript) -> CommandResult {
        let import = Arc::clone(&self.producer.import);
        let ledger = self.producer.ledger.clone();
        let checked = match check(&import, transcript) {
            Ok(checked) => checked,
            Err(reason) => return self.refuse(reason),
        };
        let signing = Some(&self.producer.signing).filter(|_| !self.producer.is_dry);
        self.known = match Known::find(&ledger, &import, signing, &self.run_id).await? {
            Ok(known) => known,
            Err(reason) => return self.refuse(reason),
        };
        let earlier = match &self.known {
            None => Earlier::default(),
            Some(known) => {
                let contradiction = known.contradiction(&ledger, &import, transcript).await?;
                if let Some(reason) = contradiction {
                    return self.refuse(reason);
                }
                known.earlier.clone()
            }
        };
        for left_out in checked.left_out {
            let reason = format!("{} is left out: {}", left_out.place, left_out.reason);
            self.producer.refusals.note(&Refusal {
                line: self.line,
                run_id: Some(self.run_id.clone()),
                reason,
            });
        }
        let mut making = import.resume(transcript, &earlier);
        let outcome = if self.producer.is_dry {
            self.count(&mut making)
        } else {
            self.parts(&mut making).await
        };
        if !self.is_taken {
            self.summary.add(making.counts());
        }
        outcome
    }

    fn refuse(&self, reason: String) -> CommandResult {
        self.producer.refusals.refuse(Refusal {
            line: self.line,
            run_id: Some(self.run_id.clone()),
            reason,
        });
        Ok(())
    }

    /// Makes the statements and sends none.
    fn count(&mut self, making: &mut Making<'_>) -> CommandResult {
        let next = self.next();
        let mut last = None;
        let given = self.known.as_ref().map_or(0, |known| known.grants.len());
        self.summary.statements += given as u64;
        while let Some(part) = making
            .next(last.as_ref())
            .map_err(|error| self.broken(&error))?
        {
            let new = part
                .statements
                .iter()
                .filter(|made| part.speaker == Speaker::Grantor || made.sequence >= next);
            self.summary.would_be_sent += new.count() as u64;
            self.summary.statements += part.statements.len() as u64;
            last = Some(Recorded::STAND_IN);
        }
        Ok(())
    }

    /// The sequence up to which the run is recorded.
    fn next(&self) -> Sequence {
        let known = self.known.as_ref();
        known.map_or(Sequence::FIRST, |known| known.earlier.next)
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::usage(error.to_string()).context(format!("line {}", self.line))
    }

    async fn parts(&mut self, making: &mut Making<'_>) -> CommandResult {
        let mut last = None;
        while let Some(part) = making
            .next(last.as_ref())
            .map_err(|error| self.broken(&error))?
        {
            self.summary.statements += part.statements.len() as u64;
            let is_first = last.is_none();
            let recorded = match part.speaker {
                Speaker::Importer => self.say(part).await,
                Speaker::Grantor => self.grant(part).await,
            };
            match recorded {
                Ok(Some(recorded)) => last = Some(recorded),
                // Refused: its receipt says why, and the rest of the run would be too.
                Ok(None) if self.is_taken => {
                    return self.refuse(format!(
                        "is recorded already, and has changed or grown by other tools since: \
                         {NEEDS_READ}"
                    ));
                }
                Ok(None) => return Ok(()),
                Err(failure) => return Err(failure),
            }
            if is_first {
                self.note_grants()?;
            }
        }
        Ok(())
    }

    /// Counts the grants of earlier imports to the run, because recorded Intents of the run name them.
    fn note_grants(&mut self) -> CommandResult {
        let grants = self
            .known
            .as_mut()
            .map(|known| std::mem::take(&mut known.grants));
        for (payload, receipt) in grants.unwrap_or_default() {
            self.summary.statements += 1;
            let answer = Answer {
                head: None,
                witnessed_size: 0,
                items: vec![Appended::Duplicate(receipt)],
            };
            self.note(&[payload], &answer)?;
        }
        Ok(())
    }

    /// Records a part. Returns the place of its last statement, or `None` if something was refused.
    async fn say(&mut self, part: Part) -> CommandResult<Option<Recorded>> {
        // Recorded statements are sent apart from new ones, because an earlier import may have ended
        // between them.
        let next = self.next();
        let is_recorded = |made: &&deed_client::Made| made.sequence < next;
        let recorded = part.statements.iter().filter(is_recorded).count();
        let mut statements = self.statements(part).await?;
        let new = statements.split_off(recorded.min(statements.len()));
        let mut last = None;
        for statements in [statements, new].into_iter().flat_map(requests) {
            let sent = match self.appender.send(statements.clone()).await {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            let answer = match sent {
                Ok(answer) => answer,
                // `Appender::finish` returns the reason.
                Err(Error::Ended) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            last = self.take(statements, answer).await?;
            if last.is_none() {
                break;
            }
        }
        Ok(last)
    }

    async fn take(
        &mut self,
        mut statements: Vec<Statement>,
        mut answer: Answer,
    ) -> CommandResult<Option<Recorded>> {
        let Producer {
            ledger, signing, ..
        } = &self.producer;
        while leave_out_erased(&mut statements, &answer, &mut self.summary) {
            answer = ledger.append_signed(&statements, signing).await?;
        }
        let payloads: Vec<Bytes> = statements.into_iter().map(|s| s.payload).collect();
        self.note(&payloads, &answer)
    }

    /// Has a grant of the run recorded.
    async fn grant(&mut self, part: Part) -> CommandResult<Option<Recorded>> {
        let statements: Vec<Statement> = part.statements.into_iter().map(Into::into).collect();
        let Producer {
            ledger, granting, ..
        } = &self.producer;
        let answer = ledger.append_signed(&statements, granting).await?;
        let payloads: Vec<Bytes> = statements.into_iter().map(|s| s.payload).collect();
        self.note(&payloads, &answer)
    }

    /// Counts an answer and writes its receipts; where its last statement is, unless something was
    /// refused.
    fn note(&mut self, payloads: &[Bytes], answer: &Answer) -> CommandResult<Option<Recorded>> {
        for item in &answer.items {
            self.summary.tally.count(item);
            if let Appended::Rejected(rejection) = item
                && rejection.reason() == Reason::SequenceReused
            {
                self.is_taken = true;
            }
            let assessed = item.receipt().and_then(|receipt| receipt.assessed.as_ref());
            for finding in assessed.map_or(&[][..], |assessed| &assessed.findings) {
                let kind = names::finding(finding.kind());
                *self.summary.findings.entry(kind).or_default() += 1;
            }
        }
        if let Some(receipts) = &self.producer.receipts {
            receipts.write(self.line, &self.run_id, payloads, answer)?;
        }
        if answer.items.iter().any(|item| item.receipt().is_none()) {
            return Ok(None);
        }
        let last = answer.items.last().and_then(Appended::receipt);
        Ok(last.map(Recorded::from))
    }

    /// The statements of a part with their contents. Those that are too long to travel with them
    /// are put first.
    async fn statements(&mut self, part: Part) -> CommandResult<Vec<Statement>> {
        let mut statements: Vec<Statement> = part.statements.into_iter().map(Into::into).collect();
        let Producer {
            ledger,
            keeps_contents,
            ..
        } = &self.producer;
        let summary = &mut self.summary;
        let contents = part.contents.into_iter().filter(|_| *keeps_contents);
        for PartContent {
            position,
            salt,
            content,
        } in contents
        {
            summary.contents += 1;
            summary.content_bytes += content.len() as u64;
            if content.len() > CONTENT_INLINE_BYTES_MAX {
                let digest = digest_of(&salt, &content);
                let contents = ledger.contents();
                match contents.put_bytes(digest, &salt, content).await {
                    Ok(_) => {}
                    // The server takes no content again that was erased; its statement is recorded.
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

/// Cuts a part into requests of at most 1,024 statements and about 1 MiB.
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

/// Leaves out contents that were erased since an earlier import; whether any was.
fn leave_out_erased(statements: &mut [Statement], answer: &Answer, summary: &mut Summary) -> bool {
    let before = summary.erased;
    for (statement, item) in statements.iter_mut().zip(&answer.items) {
        if let Appended::Rejected(rejection) = item
            && rejection.reason() == Reason::ContentErased
        {
            // The server does not say which content was erased; the others are held, or erased too.
            summary.erased += statement.attachments.len() as u64;
            statement.attachments.clear();
        }
    }
    summary.erased > before
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
