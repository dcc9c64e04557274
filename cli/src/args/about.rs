//! Names that other systems have for the same thing.

use clap::Args;

use super::text::{hex_bytes, kind_and_value};

/// The options that name the same thing in other systems.
#[derive(Args)]
pub(crate) struct AboutArgs {
    /// Name of the same thing in another system, for example order=7; up to 16 times
    #[arg(long, value_name = "KIND=VALUE", value_parser = kind_and_value)]
    correlation: Vec<(String, String)>,
    /// Trace (W3C Trace Context): 00-<32 hex>-<16 hex>-<2 hex>
    #[arg(long, value_name = "TRACEPARENT", value_parser = traceparent)]
    traceparent: Option<Trace>,
}

/// A trace id and a span id.
type Trace = ([u8; 16], [u8; 8]);

impl AboutArgs {
    /// Strictly ascending, as headers have them.
    pub(crate) fn correlation_keys(&self) -> Vec<(&str, &str)> {
        let keys = self.correlation.iter();
        let mut keys: Vec<_> = keys
            .map(|(kind, value)| (kind.as_str(), value.as_str()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    pub(crate) fn trace(&self) -> Option<(&[u8; 16], &[u8; 8])> {
        self.traceparent.as_ref().map(|(trace, span)| (trace, span))
    }
}

/// A `traceparent` header of W3C Trace Context, version 00.
fn traceparent(text: &str) -> Result<Trace, String> {
    let parts: Vec<_> = text.split('-').collect();
    let read = || {
        let ["00", trace, span, flags] = parts[..] else {
            return None;
        };
        hex_bytes::<1>(flags).ok()?;
        Some((hex_bytes(trace).ok()?, hex_bytes(span).ok()?))
    };
    let found = read().filter(|(trace, span)| *trace != [0; 16] && *span != [0; 8]);
    found.ok_or_else(|| {
        let example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        format!("write it as W3C Trace Context does, for example {example}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_those_of_w3c() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let read = traceparent(&format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!(
            (hex::encode(read.0), hex::encode(read.1)),
            (trace.into(), span.into())
        );
        let zeros = "0".repeat(32);
        for text in [
            "",
            trace,
            &format!("01-{trace}-{span}-01"),
            &format!("00-{trace}-{span}"),
            &format!("00-{trace}-{span}-1"),
            &format!("00-{trace}-{span}-01-x"),
            &format!("00-{zeros}-{span}-01"),
            &format!("00-{trace}-{}-01", &zeros[..16]),
        ] {
            assert!(traceparent(text).is_err(), "{text}");
        }
    }
}
