//! Effects on the command line: `kind=..,resource=..,id=..,amount=..,currency=..`.

use bytes::Bytes;
use deed_proto::v1;

use super::hex_bytes;

/// The names that an effect's parts have.
const NAMES: [&str; 7] = [
    "kind", "resource", "id", "amount", "currency", "before", "after",
];

/// The parts of an effect, for help texts.
pub(crate) const FORM: &str =
    "kind=K,resource=R[,id=ID][,amount=N,currency=C][,before=HEX][,after=HEX]";

/// Reads an effect. A comma belongs to the value before it, unless one of the names follows.
pub(crate) fn parse(text: &str) -> Result<v1::Effect, String> {
    let mut parts: Vec<(&str, String)> = Vec::new();
    for piece in text.split(',') {
        match (named(piece), parts.last_mut()) {
            (Some((name, value)), _) => {
                if parts.iter().any(|(other, _)| *other == name) {
                    return Err(format!("{name} is given twice"));
                }
                parts.push((name, value.to_owned()));
            }
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(piece);
            }
            (None, None) => return Err(format!("write it as {FORM}")),
        }
    }
    let mut take = |wanted: &str| {
        let at = parts.iter().position(|(name, _)| *name == wanted)?;
        Some(parts.swap_remove(at).1)
    };
    let required = |value: Option<String>, name: &str| {
        let value = value.filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("{name} is missing; write it as {FORM}"))
    };
    let digest = |value: Option<String>| match value {
        Some(hex) => hex_bytes::<32>(&hex).map(|bytes| Bytes::copy_from_slice(&bytes)),
        None => Ok(Bytes::new()),
    };
    Ok(v1::Effect {
        kind: required(take("kind"), "kind")?,
        resource: required(take("resource"), "resource")?,
        external_id: take("id").unwrap_or_default(),
        amount: amount(take("amount"), take("currency"))?,
        before_digest: digest(take("before"))?,
        after_digest: digest(take("after"))?,
    })
}

fn named(piece: &str) -> Option<(&'static str, &str)> {
    let (name, value) = piece.split_once('=')?;
    let name = NAMES.iter().find(|known| **known == name)?;
    Some((name, value))
}

fn amount(minor: Option<String>, currency: Option<String>) -> Result<Option<v1::Amount>, String> {
    match (minor, currency) {
        (None, None) => Ok(None),
        (Some(minor), Some(currency)) => {
            let minor_units = minor.parse();
            Ok(Some(v1::Amount {
                minor_units: minor_units
                    .map_err(|_| "amount is a whole number of minor units (cents)".to_owned())?,
                currency,
            }))
        }
        _ => Err("amount and currency go together: give both or neither".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_read_from_its_parts() {
        let effect =
            parse("kind=payment.refunded,resource=order/7,id=re_1,amount=1999,currency=EUR");
        let effect = effect.unwrap();
        assert_eq!(effect.kind, "payment.refunded");
        assert_eq!(effect.resource, "order/7");
        assert_eq!(effect.external_id, "re_1");
        assert_eq!(effect.amount.as_ref().unwrap().minor_units, 1999);
        let digests = format!(
            "kind=a,resource=b,before={},after={}",
            "01".repeat(32),
            "02".repeat(32)
        );
        assert_eq!(parse(&digests).unwrap().after_digest, [2; 32][..]);
    }

    #[test]
    fn commas_may_stand_in_values() {
        let effect = parse("kind=a,resource=x,y=1,z,id=1,2").unwrap();
        assert_eq!(effect.resource, "x,y=1,z");
        assert_eq!(effect.external_id, "1,2");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("", "write it as"),
            ("refund", "write it as"),
            ("kind=a", "resource is missing"),
            ("kind=,resource=b", "kind is missing"),
            ("kind=a,resource=b,kind=c", "kind is given twice"),
            ("kind=a,resource=b,amount=1", "go together"),
            ("kind=a,resource=b,amount=1.5,currency=EUR", "whole number"),
            ("kind=a,resource=b,before=00", "64 hex digits"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
