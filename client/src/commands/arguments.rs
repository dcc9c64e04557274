//! Arguments that several commands take.

use bytes::Bytes;
use clap::Args;
use deed_client::{Leaf, Ledger, ProvenStatement};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::{Hash, LeafIndex};

use super::rules::hex_bytes;
use crate::cli::{Failure, Outcome};

/// A quantity.
#[derive(Args)]
pub(super) struct AmountArgs {
    /// How much, in the currency's minor unit (cents for EUR)
    #[arg(
        long,
        value_name = "N",
        requires = "currency",
        allow_negative_numbers = true
    )]
    amount: Option<i64>,
    /// ISO 4217 code, or another unit in capital letters
    #[arg(long, value_name = "CODE", requires = "amount")]
    currency: Option<String>,
}

impl AmountArgs {
    pub(super) fn amount(&self) -> Option<v1::Amount> {
        Some(v1::Amount {
            minor_units: self.amount?,
            currency: self.currency.clone()?,
        })
    }
}

/// What other systems call the same thing.
#[derive(Args)]
pub(super) struct AboutArgs {
    /// What else the same thing is called; may be given up to 16 times
    #[arg(long, value_name = "KIND=VALUE", value_parser = kind_and_value)]
    correlation: Vec<(String, String)>,
    /// The trace that it belongs to (W3C Trace Context): 00-<32 hex>-<16 hex>-<2 hex>
    #[arg(long, value_name = "TRACEPARENT", value_parser = traceparent)]
    traceparent: Option<Trace>,
}

/// A trace id and a span id.
type Trace = ([u8; 16], [u8; 8]);

impl AboutArgs {
    /// Strictly ascending, as headers have them.
    pub(super) fn correlation_keys(&self) -> Vec<(&str, &str)> {
        let keys = self.correlation.iter();
        let mut keys: Vec<_> = keys
            .map(|(kind, value)| (kind.as_str(), value.as_str()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    pub(super) fn trace(&self) -> Option<(&[u8; 16], &[u8; 8])> {
        self.traceparent.as_ref().map(|(trace, span)| (trace, span))
    }
}

/// An entry by its leaf index or by its leaf hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Leaf(u64),
    Hash([u8; 32]),
}

/// 64 hex digits are a hash, anything else must be a number.
pub(super) fn named(text: &str) -> Result<Named, String> {
    if text.len() == 64 {
        return hex_bytes(text).map(Named::Hash);
    }
    let index = text.parse().map(Named::Leaf);
    index.map_err(|_| "must be a leaf index, or a leaf hash of 64 hex digits".to_owned())
}

impl Named {
    /// The statement, proven to be in the log.
    pub(super) async fn statement(self, ledger: &Ledger) -> Outcome<ProvenStatement> {
        let index = match self {
            Self::Leaf(index) => LeafIndex::new(index),
            Self::Hash(hash) => {
                let hash = Leaf::Hash(Hash::new(hash));
                ledger.prove_leaf(hash, None).await?.index
            }
        };
        Ok(ledger.statement(index).await?)
    }

    /// The grant that it names.
    pub(super) async fn grant(self, ledger: &Ledger) -> Outcome<ProvenStatement> {
        let found = self.statement(ledger).await?;
        match found.body() {
            Some(Body::Grant(_)) => Ok(found),
            _ => Err(Failure::usage(format!(
                "the entry at leaf {} is no grant; `deed entry {}` shows what it is",
                found.index, found.index
            ))),
        }
    }

    /// Its hash, as grants name each other.
    pub(super) async fn grant_hash(self, ledger: &Ledger) -> Outcome<Bytes> {
        match self {
            Self::Hash(hash) => Ok(Bytes::copy_from_slice(&hash)),
            Self::Leaf(_) => {
                let found = self.grant(ledger).await?;
                Ok(Bytes::copy_from_slice(found.hash.as_bytes()))
            }
        }
    }
}

/// The Intent at a leaf, proven to be in the log.
pub(super) async fn intent(ledger: &Ledger, leaf: u64) -> Outcome<(ProvenStatement, v1::Intent)> {
    let found = ledger.statement(LeafIndex::new(leaf)).await?;
    match found.body() {
        Some(Body::Intent(intent)) => {
            let intent = intent.clone();
            Ok((found, intent))
        }
        _ => Err(Failure::usage(format!(
            "the entry at leaf {leaf} is no Intent; `deed entry {leaf}` shows what it is"
        ))),
    }
}

/// `kind=value`, as correlation keys are given.
pub(super) fn kind_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((kind, value)) if !kind.is_empty() && !value.is_empty() => {
            Ok((kind.to_owned(), value.to_owned()))
        }
        _ => Err("write it as kind=value, for example order=4711".to_owned()),
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

/// `kind:value`, as outside tokens are given.
pub(super) fn token(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((kind, value)) if !kind.is_empty() && !value.is_empty() => {
            Ok((kind.to_owned(), value.to_owned()))
        }
        _ => Err("write it as kind:value, for example jti:8f14e45f".to_owned()),
    }
}

/// Strictly ascending, as the protocol wants lists.
pub(super) fn ascending<T: Ord + Clone>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_by_index_or_hash() {
        assert_eq!(named("7"), Ok(Named::Leaf(7)));
        assert_eq!(named(&"07".repeat(32)), Ok(Named::Hash([7; 32])));
        // A number of 64 digits is no leaf, and a shorter hash none either.
        for text in ["", "-1", "0x7", &"g".repeat(64), &"07".repeat(31)] {
            assert!(named(text).is_err(), "{text}");
        }
    }

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

    #[test]
    fn pairs_have_two_halves() {
        let pair = |kind: &str, value: &str| Ok((kind.to_owned(), value.to_owned()));
        assert_eq!(kind_and_value("order=4711"), pair("order", "4711"));
        assert_eq!(kind_and_value("url=a=b"), pair("url", "a=b"));
        assert_eq!(token("jti:a:b"), pair("jti", "a:b"));
        for text in ["", "=", "a", "a=", "=a"] {
            assert!(kind_and_value(text).is_err(), "{text}");
            assert!(token(&text.replace('=', ":")).is_err(), "{text}");
        }
    }
}
