//! How a command fails, and the exit code of that.

use std::process::ExitCode;

use deed_client::{Error, ErrorKind};

use super::{output::tell, printable};

/// What a command comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something does not verify.
    DoesNotVerify(anyhow::Error),
    /// The ledger, or whoever was asked, says no.
    Denied(anyhow::Error),
    /// The arguments, the input or the local files are not right.
    Usage(anyhow::Error),
    /// The server cannot be reached, or refuses.
    Unavailable(anyhow::Error),
    /// Nobody reads the output any more, which is no failure of a command that only reads. One
    /// that writes says what it did before it lets this end it.
    OutputClosed,
}

impl Failure {
    /// Says what is wrong on stderr, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (error, code) = match self {
            Self::DoesNotVerify(error) | Self::Denied(error) => (error, 1),
            Self::Usage(error) => (error, 2),
            Self::Unavailable(error) => (error, 3),
            Self::OutputClosed => return ExitCode::SUCCESS,
        };
        let heading = match self {
            Self::DoesNotVerify(_) => "does not verify",
            Self::Denied(_) => "denied",
            _ => "error",
        };
        // One line, whatever a server put into its words.
        tell(&format!("{heading}: {}", printable(&format!("{error:#}"))));
        ExitCode::from(code)
    }

    /// Puts what was tried in front of the message.
    pub(crate) fn context(self, what: impl std::fmt::Display + Send + Sync + 'static) -> Self {
        match self {
            Self::DoesNotVerify(error) => Self::DoesNotVerify(error.context(what)),
            Self::Denied(error) => Self::Denied(error.context(what)),
            Self::Usage(error) => Self::Usage(error.context(what)),
            Self::Unavailable(error) => Self::Unavailable(error.context(what)),
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    pub(crate) fn usage(
        message: impl std::fmt::Display + std::fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self::Usage(anyhow::Error::msg(message))
    }

    pub(crate) fn denied(
        message: impl std::fmt::Display + std::fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self::Denied(anyhow::Error::msg(message))
    }

    pub(crate) fn does_not_verify(
        message: impl std::fmt::Display + std::fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self::DoesNotVerify(anyhow::Error::msg(message))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::DoesNotVerify => Self::DoesNotVerify(error.into()),
            ErrorKind::Input => Self::Usage(error.into()),
            ErrorKind::Unavailable => Self::Unavailable(error.into()),
        }
    }
}
