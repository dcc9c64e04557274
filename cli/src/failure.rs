//! The failure of a command, and its exit code.

use std::process::ExitCode;

use deed_client::{Error, ErrorKind};

/// The result of a command, or of a step of one.
pub(crate) type CommandResult<T = ()> = Result<T, Failure>;

/// The reason why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A signature, a proof or an answer does not verify.
    DoesNotVerify(anyhow::Error),
    /// The ledger, or the person who was asked, says no.
    Denied(anyhow::Error),
    /// The arguments, the input or the local files are not right.
    Usage(anyhow::Error),
    /// The server cannot be reached, or refuses.
    Unavailable(anyhow::Error),
    /// The reader of the output is gone, which is no failure of a command that only reads. A command
    /// that writes to the ledger reports what it did before it ends.
    OutputClosed,
}

impl Failure {
    /// Returns the exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::DoesNotVerify(_) | Self::Denied(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Unavailable(_) => ExitCode::from(3),
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }

    /// Returns the message for the user, with all causes, or `None` if there is nothing to report. It
    /// may quote the server, so it must be made printable.
    pub(crate) fn message(&self) -> Option<String> {
        let (heading, error) = match self {
            Self::DoesNotVerify(error) => ("does not verify", error),
            Self::Denied(error) => ("denied", error),
            Self::Usage(error) | Self::Unavailable(error) => ("error", error),
            Self::OutputClosed => return None,
        };
        Some(format!("{heading}: {}", with_causes(error)))
    }

    /// Puts `what`, the step that was tried, in front of the message.
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

/// Joins an error and its causes with `: `. Leaves out a cause whose text already ends the message:
/// many errors quote their cause.
fn with_causes(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if message.is_empty() {
            message = text;
        } else if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot listen on {at}: {source}")]
    struct Quoting {
        at: &'static str,
        source: io::Error,
    }

    #[derive(Debug, Error)]
    #[error("cannot listen on {at}")]
    struct Silent {
        at: &'static str,
        source: io::Error,
    }

    /// An error that shows nothing but its cause, which stays its source.
    #[derive(Debug, Error)]
    #[error("{0}")]
    struct Wrapping(#[source] Quoting);

    #[test]
    fn a_cause_that_the_message_quotes_is_not_printed_twice() {
        let in_use = || io::Error::other("address in use (os error 98)");
        let at = "127.0.0.1:7733";
        let source = in_use();
        let quoting = anyhow::Error::new(Quoting { at, source });
        let expected = "cannot listen on 127.0.0.1:7733: address in use (os error 98)";
        assert_eq!(with_causes(&quoting), expected);
        let source = in_use();
        let silent = anyhow::Error::new(Silent { at, source });
        assert_eq!(with_causes(&silent), expected);
        let source = in_use();
        let wrapping = anyhow::Error::new(Wrapping(Quoting { at, source }));
        assert_eq!(
            with_causes(&wrapping.context("demo")),
            format!("demo: {expected}")
        );
        let failure = Failure::Usage(anyhow::Error::new(in_use()).context("the socket"));
        let message = failure.message().unwrap();
        assert_eq!(message, "error: the socket: address in use (os error 98)");
    }
}
