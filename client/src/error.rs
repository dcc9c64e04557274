//! The errors of this library, by what the caller can do about them.

use thiserror::Error;
use tonic::{Code, Status};

use crate::{
    session::RandomError,
    stored_session::SessionError,
    trust::{StoreError, TrustError},
};
use deed_evidence::{WireError, batch::BatchError, receipt::ReceiptError};

/// The reason why an operation failed. Cheap to clone: one failure may end many pending requests.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// The server does not answer, or the connection was lost and attempts ran out.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// The server's address.
        server: String,
        /// The transport's message.
        reason: String,
    },
    /// A server has fewer leaves than this client has seen.
    #[error("{}", behind(server, *found, *trusted))]
    Behind {
        /// The server's address.
        server: String,
        /// Size of its newest head, of which it was checked here that the trusted one continues it. `None`
        /// if it shows no head.
        found: Option<u64>,
        /// Size of the head that is trusted.
        trusted: u64,
    },
    /// Of two signed heads it is not known if one continues the other.
    #[error(
        "two heads of the ledger are signed, of size {old_size} and of size {new_size}, and no server that \
         answers shows that one continues the other; {server} does not answer: {reason}. A server lags \
         behind the others, or has lost entries. Try again when all servers answer"
    )]
    NotShown {
        /// Size of the smaller head.
        old_size: u64,
        /// Size of the larger one.
        new_size: u64,
        /// The address of a server that does not answer.
        server: String,
        /// The transport's message, or the server's words.
        reason: String,
    },
    /// The server answered with an error.
    #[error("the server refuses ({code:?}): {message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The server's words.
        message: String,
    },
    /// The server does not know who asks.
    #[error(
        "the server does not know who asks: {message}; give a token (--token-file, DEED_TOKEN) or \
         a client certificate (--client-cert), as its operator gave you"
    )]
    Unauthenticated {
        /// The server's words.
        message: String,
    },
    /// The server knows who asks, and that is not enough.
    #[error(
        "the server does not allow this: {message}; its operator grants roles (deed-server role \
         grant)"
    )]
    NotAllowed {
        /// The server's words.
        message: String,
    },
    /// A head, key or genesis entry is not to be believed.
    #[error(transparent)]
    Trust(#[from] Box<TrustError>),
    /// A receipt is not of what was sent.
    #[error("item {position} of the request: {source}")]
    Receipt {
        /// Position of the statement in its request, from 0.
        position: usize,
        /// The violated rule.
        source: ReceiptError,
    },
    /// An answer that breaks the protocol.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A session that is kept on disk cannot go on.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The request cannot be sent.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The appender ended before the answer came.
    #[error("the appender has ended; make a new one and send again what has no receipt")]
    Ended,
}

/// The kinds of failure that a caller tells apart; the `deed` command's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server's answer does not verify.
    DoesNotVerify,
    /// The request or the local environment must change.
    Input,
    /// The server cannot be reached, or refuses.
    Unavailable,
}

/// An answer that breaks the protocol, so that nothing in it is believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The answer has another number of results than the request has envelopes.
    #[error("the server answers {found} results to {wanted} statements")]
    Results {
        /// Results in the answer.
        found: usize,
        /// Statements sent.
        wanted: usize,
    },
    /// A result without content.
    #[error("the server's result {position} is empty")]
    EmptyResult {
        /// Position in the request, from 0.
        position: usize,
    },
    /// A batched statement that is not where its manifest says.
    #[error(
        "the server's receipt of statement {position} of a batch names leaf {found}, but the \
         batch manifest is leaf {manifest}"
    )]
    NotBehindManifest {
        /// Position in the batch, from 0.
        position: u64,
        /// The leaf in the receipt.
        found: u64,
        /// The manifest's leaf.
        manifest: u64,
    },
    /// A batch that is recorded in part.
    #[error(
        "the server's answer records a batch in part: see statement {position}; a batch is \
         recorded whole or not at all"
    )]
    HalfBatch {
        /// Position in the batch, from 0.
        position: u64,
    },
    /// More answers than requests.
    #[error("the server answers a request that was not sent")]
    Unasked,
    /// A stream that ended without what it promised.
    #[error("the server's answer lacks {what}")]
    Missing {
        /// The part.
        what: &'static str,
    },
    /// The answer is about something else.
    #[error("the server answers {what} {found}, asked was {wanted}")]
    Other {
        /// The subject.
        what: &'static str,
        /// Found in the answer.
        found: String,
        /// Asked for.
        wanted: String,
    },
}

/// The request cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// The server's address is no URL.
    #[error("{url:?} is not a server address; use for example http://127.0.0.1:7733")]
    ServerUrl {
        /// The address as given.
        url: String,
    },
    /// Certificates for a connection without TLS.
    #[error("certificates are for https://; the server's address is http://")]
    NoTls,
    /// A token that everybody on the way could read.
    #[error(
        "a token is not sent over http:// to another machine, where others could read it; use \
         https://"
    )]
    TokenInClear,
    /// Certificates or keys that cannot be used.
    #[error(
        "the certificates for TLS cannot be used: {reason}; they must be PEM, and the key the \
             certificate's"
    )]
    Certificates {
        /// The TLS library's message.
        reason: String,
    },
    /// A request with too few or too many statements.
    #[error("a request takes 1 to {max} statements, not {found}; split it")]
    Items {
        /// Statements given.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// A task that says more than is judged in one process.
    #[error(
        "the task has {found} entries and findings, and at most {max} are fetched and judged here; \
         look at it in parts with `deed search --task`, or replay the whole ledger with `deed audit`"
    )]
    TaskTooLong {
        /// Entries and findings of it, by the server's word.
        found: u64,
        /// Most taken.
        max: u64,
    },
    /// A request that is too long.
    #[error("the statements of a request have at most {max} bytes together, not {found}; split it")]
    Bytes {
        /// Bytes given.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// Statements that no manifest covers together.
    #[error("these statements are no batch: {0}; send them in requests of their own")]
    Batch(#[from] BatchError),
    /// A statement that does not follow the one before it.
    #[error(
        "statement {position} of the request is not the next one of the same session, which a \
         signed batch needs; send it in a request of its own"
    )]
    NotNextInBatch {
        /// Position in the request, from 0.
        position: usize,
    },
    /// A content cannot be read or written here.
    #[error("the content cannot be read or written: {reason}")]
    Content {
        /// The system's message.
        reason: String,
    },
    /// Needs a verified ledger.
    #[error("this needs verification, which is switched off")]
    Unverified,
    /// A statement that no ledger would take.
    #[error(transparent)]
    Statement(#[from] WireError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl Error {
    /// Returns the kind of error, by what the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. }
            | Self::Behind { .. }
            | Self::NotShown { .. }
            | Self::Refused { .. }
            | Self::Unauthenticated { .. }
            | Self::NotAllowed { .. }
            | Self::Ended => ErrorKind::Unavailable,
            Self::Trust(_) | Self::Receipt { .. } | Self::Answer(_) => ErrorKind::DoesNotVerify,
            Self::Store(_) | Self::Session(_) | Self::Input(_) => ErrorKind::Input,
        }
    }

    /// Turns a status of an rpc into an error, telling a lost connection from a refusal.
    #[must_use]
    pub fn of_status(status: &Status, server: &str) -> Self {
        let nobody_answers = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
        if nobody_answers || std::error::Error::source(status).is_some() {
            return Self::Unreachable {
                server: server.to_owned(),
                reason: sentence(status.message()),
            };
        }
        let message = sentence(status.message());
        match status.code() {
            Code::Unauthenticated => return Self::Unauthenticated { message },
            Code::PermissionDenied => return Self::NotAllowed { message },
            _ => {}
        }
        Self::Refused {
            code: status.code(),
            message,
        }
    }
}

impl From<TrustError> for Error {
    fn from(error: TrustError) -> Self {
        Self::Trust(Box::new(error))
    }
}

/// Returns the message for a server that is behind. Only with a size in `found` was anything checked.
fn behind(server: &str, found: Option<u64>, trusted: u64) -> String {
    match found {
        Some(found) => format!(
            "{server} lags: its newest head has size {found}, and the head of size {trusted} that is \
             trusted continues it, as was checked here. Try again later, or ask another server"
        ),
        None => format!(
            "{server} says that it has fewer than the {trusted} leaves of the head that is trusted, and \
             shows no head of its own. It lags, or hides what it has lost: ask another server"
        ),
    }
}

/// A server's words for a terminal: no control characters, bounded.
pub(crate) fn sentence(message: &str) -> String {
    const CHARS_MAX: usize = 500;
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CHARS_MAX)
        .collect()
}
