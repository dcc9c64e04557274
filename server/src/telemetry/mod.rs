//! What the server says about itself while it runs: log lines and traces.
//!
//! Neither has payloads or secrets in it: a request is known by its id, its rpc and its status. Lines
//! of one kind are bounded (`limiter`).

pub(crate) mod limiter;
mod otlp;
mod requests;
#[cfg(test)]
mod tests;
mod trace_context;

use std::{io::IsTerminal as _, sync::Arc};

use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{FilterExt as _, ParseError},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use limiter::{Limited, Limiter};
pub use otlp::{OtlpOptions, TraceExport};
pub(crate) use requests::Requests;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are written, in the syntax of `RUST_LOG`.
    pub filter: String,
}

/// Logging or tracing that cannot begin.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("log.filter {filter:?}: {cause}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        cause: ParseError,
    },
    /// The collector's address cannot be used.
    #[error("otlp.endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// Why not.
        reason: String,
    },
}

impl LogOptions {
    /// The filter, if it is one.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`].
    pub fn parsed(&self) -> Result<EnvFilter, TelemetryError> {
        EnvFilter::try_new(&self.filter).map_err(|cause| TelemetryError::Filter {
            filter: self.filter.clone(),
            cause,
        })
    }
}

/// Begins to log to stderr, and to send traces if there is somewhere to send them; for the whole
/// process, once. Must be called within a runtime if there is.
///
/// # Errors
/// [`TelemetryError`]; then nothing is logged.
pub fn begin(
    log: &LogOptions,
    otlp: Option<&OtlpOptions>,
) -> Result<Option<TraceExport>, TelemetryError> {
    let filter = log.parsed()?;
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let export = otlp.map(TraceExport::begin).transpose()?;
    let limiter = Arc::new(Limiter::default());
    let limited = match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(Arc::clone(&limiter).keep_telling());
            Some(Limited(limiter))
        }
        // A command that is done in a moment serves nobody.
        Err(_) => None,
    };
    let lines = lines.with_filter(filter.and(limited));
    let subscriber = Registry::default().with(lines);
    match &export {
        // Traces have a filter of their own: fewer log lines are no reason for fewer traces.
        Some(export) => subscriber.with(export.layer()).init(),
        None => subscriber.init(),
    }
    Ok(export)
}
