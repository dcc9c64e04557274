//! Amounts in words.

use deed_proto::v1;

/// ISO 4217:2015, list one (current currencies and funds) with its amendments up to 2025, by the number
/// of digits that the minor unit has behind the point. Codes without a minor unit (XAU, XDR, XTS) are
/// left out.
const MINOR_UNIT_DIGITS: [(usize, &str); 4] = [
    (
        0,
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    ),
    (
        2,
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP \
         BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD \
         FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD \
         KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD \
         NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP \
         SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED \
         VES WST XAD XCD XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

/// Returns an amount as it is written in its currency. Of a currency that ISO 4217 does not have, the
/// minor units are shown: how many of them make a whole one is not known here.
pub(crate) fn amount_words(amount: &v1::Amount) -> String {
    let (units, currency) = (amount.minor_units, &amount.currency);
    let Some(digits) = minor_unit_digits(currency) else {
        return format!("{units} {currency} in minor units");
    };
    if digits == 0 {
        return format!("{units} {currency}");
    }
    let sign = if units < 0 { "-" } else { "" };
    // At least one digit before the point.
    let text = format!("{:0width$}", units.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    format!("{sign}{whole}.{fraction} {currency}")
}

fn minor_unit_digits(currency: &str) -> Option<usize> {
    let has = |list: &str| list.split(' ').any(|code| code == currency);
    let found = MINOR_UNIT_DIGITS.iter().find(|(_, codes)| has(codes));
    found.map(|(digits, _)| *digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_the_digits_of_their_currency() {
        for (minor_units, currency, words) in [
            (1_999, "EUR", "19.99 EUR"),
            (5, "EUR", "0.05 EUR"),
            (0, "USD", "0.00 USD"),
            (-1, "USD", "-0.01 USD"),
            (-123_456, "GBP", "-1234.56 GBP"),
            (1_999, "JPY", "1999 JPY"),
            (-7, "KRW", "-7 KRW"),
            (1_999, "KWD", "1.999 KWD"),
            (12, "BHD", "0.012 BHD"),
            (1_999, "CLF", "0.1999 CLF"),
            (i64::MIN, "EUR", "-92233720368547758.08 EUR"),
            // These units have no known number of minor units.
            (1_999, "BTC", "1999 BTC in minor units"),
            (1_999, "XAU", "1999 XAU in minor units"),
            (1_999, "eur", "1999 eur in minor units"),
            (1_999, "EUR USD", "1999 EUR USD in minor units"),
            (1_999, "", "1999  in minor units"),
        ] {
            let amount = v1::Amount {
                minor_units,
                currency: currency.to_owned(),
            };
            assert_eq!(amount_words(&amount), words);
        }
    }

    #[test]
    fn the_table_has_each_code_once() {
        let codes = MINOR_UNIT_DIGITS.iter();
        let mut codes: Vec<_> = codes.flat_map(|(_, codes)| codes.split(' ')).collect();
        assert!(codes.iter().all(|code| code.len() == 3), "{codes:?}");
        codes.sort_unstable();
        let count = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
