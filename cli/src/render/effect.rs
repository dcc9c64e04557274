//! Effects in words.

use deed_proto::v1;

use super::amount_words;

/// Returns an effect in words.
pub(crate) fn effect_words(effect: &v1::Effect) -> String {
    let id = match effect.external_id.as_str() {
        "" => String::new(),
        id => format!(" (id {id})"),
    };
    let amount = effect
        .amount
        .as_ref()
        .map(|amount| format!(", {}", amount_words(amount)));
    format!(
        "{} on {}{id}{}",
        effect.kind,
        effect.resource,
        amount.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_shown_with_its_id_and_amount() {
        let effect = v1::Effect {
            kind: "payment.refunded".to_owned(),
            resource: "order/7".to_owned(),
            external_id: "re_1".to_owned(),
            amount: Some(v1::Amount {
                minor_units: 1_999,
                currency: "EUR".to_owned(),
            }),
            ..v1::Effect::default()
        };
        assert_eq!(
            effect_words(&effect),
            "payment.refunded on order/7 (id re_1), 19.99 EUR"
        );
    }
}
