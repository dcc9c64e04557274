//! `deed content put|get|erase`

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use deed_client::{ContentState, Error, Ledger, SessionError, StoredSession};
use deed_evidence::{
    CommitmentDigest, Sequence, SessionId,
    commitment::{Committer, Salt},
    entry::Entry,
    trust::TrustStatement,
};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::LeafIndex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWrite;

use crate::{
    args::{Global, hex_bytes},
    author::{Authority, AuthorityArgs, TrustReceiptJson, secret},
    failure::{CommandResult, Failure},
    files::{Readers, WholeFile},
    render::report,
};

/// Most contents in one Erasure.
const ERASED_AT_ONCE_MAX: usize = 64;
/// Longest content that is held in memory until it is checked, for an output that is no file.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Subcommand)]
pub(crate) enum Contents {
    Put(Put),
    Get(Get),
    Erase(Erase),
}

/// Store a content, for a statement to commit to
///
/// The server keeps the content encrypted beside the log, and drops it after a day unless a statement names
/// it. The salt is random. With --session, --sequence and --slot it is derived from the producer's secret
/// for that place in that statement: storing the content again gives the same digest.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed content put request.json --media-type application/json
  deed content put answer.bin --session 0001..0f --sequence 7 \\
       --slot outcome.response

A statement names it by its digest, for example:
  \"arguments\": {\"digest\": \"<digest>\", \"media_type\": \"application/json\"}")]
pub(crate) struct Put {
    /// File with the content
    file: PathBuf,
    /// Media type (RFC 6838)
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    media_type: String,
    /// Session of the statement that will name it: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>,
          requires_all = ["sequence", "slot"])]
    session: Option<[u8; 16]>,
    /// Sequence of that statement
    #[arg(long, value_name = "N", requires_all = ["session", "slot"])]
    sequence: Option<u64>,
    /// Field that will hold the commitment, for example intent.arguments
    #[arg(long, value_name = "FIELD", requires_all = ["session", "sequence"])]
    slot: Option<String>,
    /// The producer's secret, 32 bytes [default: made once in the state directory]
    #[arg(long, value_name = "FILE", requires = "session")]
    secret_file: Option<PathBuf>,
}

/// Read a content
///
/// Checks the content against its commitment before it writes anything: a file appears whole or not at all.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed content get 5f0c... --out request.json")]
pub(crate) struct Get {
    /// The commitment's digest: 64 hex digits
    #[arg(value_name = "DIGEST", value_parser = hex_bytes::<32>)]
    digest: [u8; 32],
    /// File for the content, readable by its owner alone [default: stdout, up to 64 MiB]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Erase contents
///
/// The server destroys their keys and salts, and an Erasure in the log says so; no proof changes. The
/// contents are also removed from the journals of the sessions in the state directory. Copies elsewhere
/// are not reached. Nothing is erased if a legal hold or the retention floor covers one of the contents.
///
/// The server finds other commitments to the same bytes, with other salts. The command reads and compares
/// these contents, shows them, and erases them too. If one differs or cannot be read, the command ends
/// before it erases more: name that content on the command line to erase it unread. Bytes that are stored
/// again after their erasure are not found in this way: there is nothing left to compare them with.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed content erase 5f0c... --requested-by ticket:4711 \\
       --reason \"the customer asked\" --legal-basis \"GDPR Art. 17(1)(b)\"")]
pub(crate) struct Erase {
    /// The commitments' digests, 64 hex digits each: 1 to 64
    #[arg(value_name = "DIGEST", required = true, value_parser = hex_bytes::<32>)]
    digests: Vec<[u8; 32]>,
    /// Requester: a URI or an opaque id, no person's name
    #[arg(long, value_name = "ID")]
    requested_by: String,
    /// Reason, for readers of the log
    #[arg(long)]
    reason: String,
    /// Legal basis, for example: GDPR Art. 17(1)(b)
    #[arg(long, value_name = "TEXT")]
    legal_basis: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

#[derive(Serialize)]
struct PutJson {
    digest: String,
    media_type: String,
    bytes: u64,
    already_held: bool,
    /// The salt, which opens the commitment; shown only if it cannot be derived again.
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
}

#[derive(Serialize)]
struct GotJson {
    digest: String,
    bytes: u64,
    file: String,
}

impl Contents {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Put(put) => put.run(global).await,
            Self::Get(get) => get.run(global).await,
            Self::Erase(erase) => erase.run(global).await,
        }
    }
}

impl Put {
    async fn run(&self, global: &Global) -> CommandResult {
        let (salt, derived) = self.salt(global)?;
        let unreadable = |error: io::Error| cannot("read", &self.file, error);
        let mut file = File::open(&self.file).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(Failure::usage(format!(
                "{} is no regular file; a content is read twice, so put it in a file first",
                self.file.display()
            )));
        }
        let (digest, size) = commit(&mut file, &salt).map_err(unreadable)?;
        io::Seek::rewind(&mut file).map_err(unreadable)?;
        let ledger = global.connect().await?;
        // Sends exactly the bytes that were committed to, even if the file grows meanwhile.
        let content = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), size);
        let already_held = ledger.contents().put(digest, &salt, size, content).await?;
        ledger.flush().await?;
        let json = PutJson {
            digest: digest.to_string(),
            media_type: self.media_type.clone(),
            bytes: size,
            already_held,
            salt: (!derived).then(|| hex::encode(salt.as_bytes())),
        };
        global.output().print(&json, PutJson::text)
    }

    fn salt(&self, global: &Global) -> CommandResult<(Salt, bool)> {
        let (Some(session), Some(sequence), Some(slot)) =
            (self.session, self.sequence, self.slot.as_ref())
        else {
            let mut salt = [0; 32];
            getrandom::fill(&mut salt)
                .map_err(|error| Failure::usage(format!("no random bytes: {error}")))?;
            return Ok((Salt::from_bytes(salt), false));
        };
        let secret = match &self.secret_file {
            Some(path) => secret::read(path)?,
            None => secret::made_once(&global.state()?)?,
        };
        let (session, sequence) = (SessionId::new(session), Sequence::new(sequence));
        Ok((Salt::derive(&secret, session, sequence, slot), true))
    }
}

impl PutJson {
    fn text(&self) -> String {
        let held = if self.already_held {
            " (held already)"
        } else {
            ""
        };
        let salt = self.salt.as_ref();
        let salt = salt.map_or(String::new(), |salt| {
            format!("\nsalt       {salt}\n           (keep it from those who must not guess the content)")
        });
        let name = serde_json::json!({ "digest": self.digest, "media_type": self.media_type });
        format!(
            "digest     {}\nbytes      {}{held}{salt}\nName it within a day, in place of a \
             commitment of a statement:\n{name}",
            self.digest, self.bytes
        )
    }
}

/// The commitment to a file, and its length.
fn commit(file: &mut File, salt: &Salt) -> io::Result<(CommitmentDigest, u64)> {
    let mut committer = Committer::new(salt);
    let (mut piece, mut size) = (vec![0; 256 * 1024], 0);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((committer.finalize(), size)),
            Ok(read) => {
                committer.update(&piece[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Get {
    async fn run(&self, global: &Global) -> CommandResult {
        let digest = CommitmentDigest::new(self.digest);
        let ledger = global.connect().await?;
        // Only a file can appear at once; a content for any other output is held until it is checked.
        let file = self
            .out
            .as_ref()
            .filter(|path| path.is_file() || !path.exists());
        match file {
            Some(path) => {
                let unwritable = |error| cannot("write", path, error);
                let whole = WholeFile::create(path, Readers::Owner).map_err(unwritable)?;
                let mut out = Blocking(whole);
                let bytes = got(&ledger, digest, &mut out).await?;
                out.0.keep().map_err(unwritable)?;
                ledger.flush().await?;
                let json = GotJson {
                    digest: digest.to_string(),
                    bytes,
                    file: path.display().to_string(),
                };
                global.output().print(&json, |json| {
                    format!(
                        "{} bytes in {}; they open the commitment",
                        json.bytes, json.file
                    )
                })
            }
            None => {
                let mut held = Blocking(Held(Vec::new()));
                got(&ledger, digest, &mut held).await?;
                ledger.flush().await?;
                let content = held.0.0;
                match &self.out {
                    Some(path) => write_out(&content, path),
                    None => print_bytes(&content),
                }
            }
        }
    }
}

/// Reads a content. Fails if the server holds none, and looks up the Erasure that the server names.
async fn got(
    ledger: &Ledger,
    digest: CommitmentDigest,
    out: impl AsyncWrite + Unpin,
) -> CommandResult<u64> {
    let leaf = match ledger.contents().get(digest, out).await? {
        ContentState::Read { bytes } => return Ok(bytes),
        ContentState::Unknown => {
            return Err(Failure::Unavailable(anyhow::anyhow!(
                "the server holds no content under {digest}"
            )));
        }
        ContentState::Erased { erasure_leaf } => erasure_leaf,
    };
    let Some(leaf) = leaf else {
        return Err(Failure::Unavailable(anyhow::anyhow!(
            "content {digest} was erased, by the server's word"
        )));
    };
    let entry = ledger.entry(LeafIndex::new(leaf), None).await?;
    ledger.flush().await?;
    let statement = Entry::parse(&entry.bytes).ok();
    let statement = statement.and_then(|entry| TrustStatement::parse(entry.payload).ok());
    match statement.flatten() {
        Some(TrustStatement::Erasure(digests)) if digests.contains(&digest) => {
            Err(Failure::Unavailable(anyhow::anyhow!(
                "content {digest} was erased; `deed entry {leaf}` shows who asked for it and why"
            )))
        }
        _ => Err(Failure::does_not_verify(format!(
            "the server says that content {digest} was erased at leaf {leaf}, but the entry there \
             does not"
        ))),
    }
}

impl Erase {
    async fn run(&self, global: &Global) -> CommandResult {
        let mut digests: Vec<_> = self
            .digests
            .iter()
            .copied()
            .map(CommitmentDigest::new)
            .collect();
        digests.sort_unstable();
        digests.dedup();
        if digests.len() > ERASED_AT_ONCE_MAX {
            return Err(Failure::usage(format!(
                "{} contents are more than the {ERASED_AT_ONCE_MAX} of one erasure; split them",
                digests.len()
            )));
        }
        let ledger = global.connect().await?;
        let mut authority = self.authority.open(global, &ledger).await?;
        let mut seen: BTreeSet<_> = digests.iter().copied().collect();
        let mut asked = SameBytes::of(&digests);
        // Contents that do not fit into one Erasure go into the next.
        let mut waiting = VecDeque::from(digests);
        while !waiting.is_empty() {
            let mut named = Vec::new();
            while named.len() < ERASED_AT_ONCE_MAX && !waiting.is_empty() {
                let room = ERASED_AT_ONCE_MAX - named.len();
                named.extend(waiting.drain(..room.min(waiting.len())));
                for twin in ledger.contents().twins(&named).await? {
                    if seen.insert(twin) {
                        asked.check(&ledger, twin).await?;
                        report(&format!("erased too, as it holds the same bytes: {twin}"));
                        waiting.push_back(twin);
                    }
                }
            }
            named.sort_unstable();
            self.record(&mut authority, &named, global).await?;
        }
        Ok(())
    }

    async fn record(
        &self,
        authority: &mut Authority,
        digests: &[CommitmentDigest],
        global: &Global,
    ) -> CommandResult {
        let commitments = digests.iter();
        let commitments = commitments.map(|digest| Bytes::copy_from_slice(digest.as_bytes()));
        let body = Body::Erasure(v1::Erasure {
            commitments: commitments.collect(),
            requested_by: self.requested_by.clone(),
            reason: self.reason.clone(),
            legal_basis: self.legal_basis.clone(),
        });
        let mut recorded = authority.record(body).await?;
        let missing = digests.len() - recorded.erased.map_or(0, |n| n as usize).min(digests.len());
        if missing > 0 {
            report(&format!(
                "{missing} of these contents were not held any more, or never; the Erasure names \
                 them all the same"
            ));
        }
        recorded.erases(digests);
        forget(global, authority, digests)?;
        global.output().print(&recorded, TrustReceiptJson::text)
    }
}

/// Removes the contents from the journals of the sessions in the state directory.
fn forget(
    global: &Global,
    authority: &mut Authority,
    digests: &[CommitmentDigest],
) -> CommandResult {
    let erased = digests.iter().copied().collect();
    let (state, own) = (global.state()?, authority.session());
    let left = tokio::task::block_in_place(|| StoredSession::erase(&state, &erased, Some(own)));
    for (name, error) in left.map_err(Error::from)? {
        report(&match error {
            SessionError::InUse { .. } => format!(
                "erased in the ledger; session {name:?} is in use by another process, and its journal \
                 may hold a copy until that process has its receipts"
            ),
            error => format!(
                "erased in the ledger; the journal of session {name:?} may still hold a copy: {error}"
            ),
        });
    }
    Ok(())
}

/// Digests of the bytes of the contents to be erased. Contents that the server calls their twins are
/// compared with them, because an authority does not erase by the server's word.
struct SameBytes {
    /// Contents that were asked for and are not read yet.
    unread: Vec<CommitmentDigest>,
    /// SHA-256 of the contents that were read and opened their commitments.
    known: BTreeSet<Vec<u8>>,
    /// True if one of the contents that were asked for could not be read.
    incomplete: bool,
}

impl SameBytes {
    fn of(asked: &[CommitmentDigest]) -> Self {
        Self {
            unread: asked.to_vec(),
            known: BTreeSet::new(),
            incomplete: false,
        }
    }

    /// Reads a twin, and checks that it holds the bytes of a content that was asked for.
    async fn check(&mut self, ledger: &Ledger, twin: CommitmentDigest) -> CommandResult {
        for digest in std::mem::take(&mut self.unread) {
            match bytes_digest(ledger, digest).await? {
                Some(known) => {
                    self.known.insert(known);
                }
                None => self.incomplete = true,
            }
        }
        let unverified = || {
            Failure::usage(format!(
                "the server says that {twin} holds the same bytes, and that cannot be checked: the \
                 contents cannot be read here. Nothing more was erased; name {twin} on the command \
                 line if it is to be erased too"
            ))
        };
        let Some(found) = bytes_digest(ledger, twin).await? else {
            return Err(unverified());
        };
        if self.known.contains(&found) {
            return Ok(());
        }
        if self.incomplete {
            return Err(unverified());
        }
        report(&format!(
            "ALARM: the server says that {twin} holds the same bytes, and it does not"
        ));
        Err(Failure::does_not_verify(format!(
            "the server says that {twin} holds the same bytes, and it does not: nothing more was erased"
        )))
    }
}

/// SHA-256 of a content that opens its commitment; `None` if it cannot be read here.
async fn bytes_digest(ledger: &Ledger, digest: CommitmentDigest) -> CommandResult<Option<Vec<u8>>> {
    let mut out = Blocking(Hashing(Sha256::new()));
    let read = ledger.contents().get(digest, &mut out).await;
    match read {
        Ok(ContentState::Read { .. }) => Ok(Some(out.0.0.finalize().to_vec())),
        Ok(_) | Err(Error::NotAllowed { .. } | Error::Refused { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Hashes what is written.
struct Hashing(Sha256);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a checked content to an output that is no regular file.
fn write_out(content: &[u8], path: &Path) -> CommandResult {
    let written = WholeFile::create(path, Readers::Owner).and_then(|mut out| {
        out.write_all(content)?;
        out.keep()
    });
    written.map_err(|error| cannot("write", path, error))
}

fn print_bytes(content: &[u8]) -> CommandResult {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(content).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Usage(anyhow::Error::new(error).context("cannot write to stdout")),
    })
}

fn cannot(action: &str, path: &Path, error: io::Error) -> Failure {
    let what = format!("cannot {action} {}", path.display());
    Failure::Usage(anyhow::Error::new(error).context(what))
}

/// A content in memory, bounded.
struct Held(Vec<u8>);

impl io::Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > HELD_BYTES_MAX {
            return Err(io::Error::other(
                "it is longer than 64 MiB, so it goes to a file only: use --out",
            ));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes on the calling thread: a command has nothing else to do meanwhile.
struct Blocking<W>(W);

impl<W: io::Write + Unpin> AsyncWrite for Blocking<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}
