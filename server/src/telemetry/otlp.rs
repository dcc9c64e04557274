//! Traces to an OTLP collector, when one is configured.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tracing::Subscriber;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    registry::LookupSpan,
};

use super::TelemetryError;

/// Most spans of one message to the collector.
const EXPORT_SPANS_MAX: usize = 512;

/// Options of traces.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// Address of the collector, as `http://host:port`.
    pub endpoint: String,
    /// Spans that may wait; those beyond are dropped.
    pub queue_spans: usize,
    /// Longest time of one transfer, in milliseconds.
    pub timeout_ms: u64,
}

/// The export of traces to a collector.
#[derive(Debug)]
pub struct TraceExport {
    provider: SdkTracerProvider,
    timeout: Duration,
}

impl TraceExport {
    /// Begins the export, which connects when there is something to send. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// [`TelemetryError::Endpoint`] if the endpoint is not an address.
    pub fn begin(options: &OtlpOptions) -> Result<Self, TelemetryError> {
        let timeout = Duration::from_millis(options.timeout_ms);
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .with_timeout(timeout)
            .build()
            .map_err(|error| TelemetryError::Endpoint {
                endpoint: options.endpoint.clone(),
                reason: error.to_string(),
            })?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(options.queue_spans)
            .with_max_export_batch_size(options.queue_spans.min(EXPORT_SPANS_MAX))
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(Resource::builder().with_service_name("deed-server").build())
            .build();
        Ok(Self { provider, timeout })
    }

    /// Returns the layer that collects the spans of this crate. Those of libraries are left out:
    /// sending a trace would make traces.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let ours = Targets::new()
            .with_target("deed_engine", LevelFilter::INFO)
            .with_target("deed_server", LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("deed-server"))
            .with_filter(ours)
    }

    /// Sends the waiting spans and ends the export. Blocks for the configured time at most; the
    /// runtime must still run meanwhile.
    pub fn end(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(self.timeout) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}
