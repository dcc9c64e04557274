//! What can go wrong, by what the caller can do about it.

use thiserror::Error;
use tonic::{Code, Status};

use crate::{
    session::RandomError,
    trust::{StoreError, TrustError},
};
use deed_evidence::{WireError, receipt::ReceiptError};

/// Why an operation failed. Cheap to clone: one failure may end many pending requests.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers, or the connection was lost and attempts ran out.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Where it was tried.
        server: String,
        /// What the transport says.
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
    /// A head, key or genesis entry is not to be believed.
    #[error(transparent)]
    Trust(#[from] Box<TrustError>),
    /// A receipt is not of what was sent.
    #[error("item {position} of the request: {source}")]
    Receipt {
        /// Position of the statement in its request, from 0.
        position: usize,
        /// What does not hold.
        source: ReceiptError,
    },
    /// An answer that breaks the protocol.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was asked for cannot be asked.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The appender ended before the answer came.
    #[error("the appender has ended; make a new one and send again what has no receipt")]
    Ended,
}

/// The kinds of failure that a caller tells apart; the `deed` command's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What the server says does not verify.
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
    /// Not one result for each envelope.
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
    /// More answers than requests.
    #[error("the server answers a request that was not sent")]
    Unasked,
    /// A stream that ended without what it promised.
    #[error("the server's answer lacks {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// The answer is about something else.
    #[error("the server answers {what} {found}, asked was {wanted}")]
    Other {
        /// What it is about.
        what: &'static str,
        /// Found in the answer.
        found: String,
        /// Asked for.
        wanted: String,
    },
}

/// What was asked for cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// The server's address is no URL.
    #[error("{url:?} is not a server address; use for example http://127.0.0.1:7733")]
    ServerUrl {
        /// As given.
        url: String,
    },
    /// A URL that this version cannot speak to.
    #[error("{url:?}: only http:// is spoken in this version")]
    Scheme {
        /// As given.
        url: String,
    },
    /// A request with too few or too many statements.
    #[error("a request takes 1 to {max} statements, not {found}; split it")]
    Items {
        /// Statements given.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// A request that is too long.
    #[error("the statements of a request have at most {max} bytes together, not {found}; split it")]
    Bytes {
        /// Bytes given.
        found: usize,
        /// Most allowed.
        max: usize,
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
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Ended => ErrorKind::Unavailable,
            Self::Trust(_) | Self::Receipt { .. } | Self::Answer(_) => ErrorKind::DoesNotVerify,
            Self::Store(_) | Self::Input(_) => ErrorKind::Input,
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
        Self::Refused {
            code: status.code(),
            message: sentence(status.message()),
        }
    }
}

impl From<TrustError> for Error {
    fn from(error: TrustError) -> Self {
        Self::Trust(Box::new(error))
    }
}

/// A server's words for a terminal: no control characters, bounded.
fn sentence(message: &str) -> String {
    const CHARS_MAX: usize = 500;
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CHARS_MAX)
        .collect()
}
