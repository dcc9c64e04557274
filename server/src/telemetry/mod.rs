//! Telemetry: log lines and traces.
//!
//! Neither contains payloads or secrets: a request is identified by its id, its rpc and its status.
//! Lines of one kind are bounded (`limiter`).

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

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Options of the log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Format of the lines.
    pub format: LogFormat,
    /// Filter of the lines, in the syntax of `RUST_LOG`.
    pub filter: String,
}

/// The reason for which logging or tracing cannot begin.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("log.filter {filter:?}: {cause}")]
    Filter { filter: String, cause: ParseError },
    /// The collector's address cannot be used.
    #[error("otlp.endpoint {endpoint:?}: {reason}")]
    Endpoint { endpoint: String, reason: String },
}

impl LogOptions {
    /// Parses the filter.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`] if it is malformed.
    pub fn parsed(&self) -> Result<EnvFilter, TelemetryError> {
        EnvFilter::try_new(&self.filter).map_err(|cause| TelemetryError::Filter {
            filter: self.filter.clone(),
            cause,
        })
    }
}

/// Begins to log to stderr, and to send traces if `otlp` is set, for the whole process; may be
/// called once. Must be called within a runtime if traces are sent.
///
/// # Errors
/// [`TelemetryError`]; nothing is logged then.
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
        // A command that ends in a moment has no runtime, and needs no reports of the limiter.
        Err(_) => None,
    };
    let lines = lines.with_filter(filter.and(limited));
    let subscriber = Registry::default().with(lines);
    match &export {
        // Traces have a filter of their own: fewer log lines must not mean fewer traces.
        Some(export) => subscriber.with(export.layer()).init(),
        None => subscriber.init(),
    }
    Ok(export)
}
