//! Data goes to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{Failure, Global, Outcome};

/// Standard output, as text or JSON lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(global: &Global) -> Self {
        Self { json: global.json }
    }

    /// Prints one value: as a line of JSON, or as the text that `text` makes of it.
    pub(crate) fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.json {
            self.line(&to_json(value)?)
        } else {
            self.line(&text(value))
        }
    }

    /// Prints one line.
    pub(crate) fn line(self, line: &str) -> Outcome {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Usage(anyhow::Error::new(error).context("cannot write to stdout")),
        })
    }
}

/// One line of JSON.
pub(crate) fn to_json(value: &impl Serialize) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| Failure::Usage(error.into()))
}

/// A bar on stderr for work of `total` bytes or items; hidden unless a person is looking.
pub(crate) fn progress_bar(global: &Global, total: u64, template: &str) -> ProgressBar {
    let target = if global.json || !io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}
