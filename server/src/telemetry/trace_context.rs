//! The caller's trace, as W3C Trace Context (level 1, version 00) carries it.
//!
//! `TraceContextPropagator` of `opentelemetry_sdk` takes more than the standard allows: ids and flags of
//! fewer digits, a plus sign before them, a version in capitals, spaces around, a hyphen at the end,
//! the first of several headers. To check all that before it would be as long as this.

use http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Name of the header.
const TRACEPARENT: &str = "traceparent";

/// Returns the caller's trace and span; `None` if the header is missing or malformed, which the
/// standard treats alike.
///
/// ```text
/// 00-<trace id: 32 hex>-<span id: 16 hex>-<flags: 2 hex>
/// ```
pub(super) fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A later version may have more parts; the parts of this version have the same meaning in it.
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    hex::<1>(version)?;
    let context = SpanContext::new(
        TraceId::from_bytes(hex(trace)?),
        SpanId::from_bytes(hex(span)?),
        // Only the lowest bit has a meaning here: the caller records this trace.
        TraceFlags::new(hex::<1>(flags)?[0] & 1),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

/// Parses hexadecimal digits in lower case only, as the standard demands.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = text.bytes().all(|b| !b.is_ascii_uppercase());
    (is_lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Option<(String, String, bool)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        caller(&headers).map(|context| {
            assert!(context.is_remote());
            let (trace, span) = (context.trace_id(), context.span_id());
            (trace.to_string(), span.to_string(), context.is_sampled())
        })
    }

    #[test]
    fn a_callers_trace_is_read() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let span = "b7ad6b7169203331";
        let expected = |sampled| Some((trace.to_owned(), span.to_owned(), sampled));
        assert_eq!(parse(&[&format!("00-{trace}-{span}-01")]), expected(true));
        assert_eq!(parse(&[&format!("00-{trace}-{span}-00")]), expected(false));
        assert_eq!(parse(&[&format!("00-{trace}-{span}-03")]), expected(true));
        assert_eq!(
            parse(&[&format!("cc-{trace}-{span}-01-more")]),
            expected(true)
        );
    }

    #[test]
    fn what_is_malformed_is_no_trace() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(&[bad]), None, "{bad}");
        }
        assert_eq!(parse(&[good, good]), None);
        assert_eq!(parse(&[]), None);
    }
}
