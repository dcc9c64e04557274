//! Times as logs write them.

use deed_evidence::Micros;

use crate::args::When;

/// Units of numbers, by their size: the most that a number is in it, and how many there are in a
/// second. Seconds reach the first bound in 5138; milliseconds had it in 1973.
const UNITS: [(i128, i128); 4] = [
    (100_000_000_000, 1),
    (100_000_000_000_000, 1_000),
    (100_000_000_000_000_000, 1_000_000),
    (i128::MAX, 1_000_000_000),
];

/// Digits behind the point of a number that count.
const FRACTION_DIGITS: usize = 9;

/// Reads a time: RFC 3339, also with an offset without a colon or of hours alone, in lower case, with
/// a space, with a fraction of any length; or a number of seconds, milliseconds, microseconds or
/// nanoseconds, with or without a fraction. What is finer than microseconds is cut.
pub(super) fn moment(text: &str) -> Result<Micros, String> {
    let text = text.trim();
    if let Some(us) = number(text) {
        let us = i64::try_from(us).ok().filter(|us| *us > 0);
        return us
            .map(Micros::new)
            .ok_or_else(|| format!("its time {text} is none"));
    }
    match with_colon(text).parse() {
        Ok(When::At(at)) => Ok(at),
        _ => Err(format!(
            "its time {text:?} is none: RFC 3339 with an offset, or a number, is expected"
        )),
    }
}

/// Microseconds of a number; `None` if it is no number.
fn number(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let sign = whole.starts_with('-');
    let whole = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || whole.len() > 25 {
        return None;
    }
    // The value in billionths of the unit.
    let digits: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(FRACTION_DIGITS)
        .collect();
    let mut value: i128 = format!("{whole}{digits}").parse().ok()?;
    for _ in 0..exponent.unsigned_abs().min(40) {
        value = match exponent {
            0.. => value.checked_mul(10)?,
            _ => value / 10,
        };
    }
    const BILLION: i128 = 1_000_000_000;
    let (_, per_second) = UNITS.iter().find(|(bound, _)| value / BILLION < *bound)?;
    let us = value / BILLION * 1_000_000 / per_second
        + value % BILLION * 1_000_000 / per_second / BILLION;
    // A fraction of a nanosecond or microsecond is dropped; a fraction of a longer unit counts.
    let us = match per_second {
        1 | 1_000 => value.checked_mul(1_000_000)? / per_second / BILLION,
        _ => us,
    };
    Some(if sign { -us } else { us })
}

/// RFC 3339 as it is strictly written: `+0100`, `+01` and ` +01:00` become `+01:00`, a comma a point.
fn with_colon(text: &str) -> String {
    let mut out = text.replacen(',', ".", 1);
    for utc in [" UTC", " utc", " Z", "UTC"] {
        if let Some(time) = out.strip_suffix(utc) {
            return format!("{time}Z");
        }
    }
    // Behind the date, whose parts have dashes between them.
    let Some(sign) = out.rfind(['+', '-']).filter(|at| *at > 10) else {
        return out;
    };
    let offset = out.split_off(sign);
    let time = out.trim_end();
    match offset.len() {
        3 => format!("{time}{offset}:00"),
        5 if !offset.contains(':') => format!("{time}{}:{}", &offset[..3], &offset[3..]),
        _ => format!("{time}{offset}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, us) in [
            ("1795485420", 1_795_485_420_000_000),
            ("1795485420000", 1_795_485_420_000_000),
            ("1795485420000000", 1_795_485_420_000_000),
            ("1795485420000000000", 1_795_485_420_000_000),
            ("1795485420123456789", 1_795_485_420_123_456),
            ("1795485420.123", 1_795_485_420_123_000),
            ("1795485420.123456789", 1_795_485_420_123_456),
            ("1795485420123.456", 1_795_485_420_123_456),
            ("1795485420123456.7", 1_795_485_420_123_456),
            ("1.79548542e9", 1_795_485_420_000_000),
            ("1795485420.", 1_795_485_420_000_000),
            ("0.5", 500_000),
            ("2026-11-24T01:57:00Z", 1_795_485_420_000_000),
            ("2026-11-24t01:57:00z", 1_795_485_420_000_000),
            ("2026-11-24 01:57:00Z", 1_795_485_420_000_000),
            ("2026-11-24 01:57:00 UTC", 1_795_485_420_000_000),
            ("2026-11-24T02:57:00+01:00", 1_795_485_420_000_000),
            ("2026-11-24T02:57:00+0100", 1_795_485_420_000_000),
            ("2026-11-24T02:57:00+01", 1_795_485_420_000_000),
            ("2026-11-24T02:57:00.5 +0100", 1_795_485_420_500_000),
            ("2026-11-23T23:57:00-0200", 1_795_485_420_000_000),
            ("2026-11-24T01:57:00.1234567890123Z", 1_795_485_420_123_456),
            ("2026-11-24T01:57:00.1Z", 1_795_485_420_100_000),
            ("2026-11-24T01:57:00,25Z", 1_795_485_420_250_000),
        ] {
            assert_eq!(moment(text), Ok(Micros::new(us)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "0",
            "-5",
            "-1795485420.5",
            "yesterday",
            "1h",
            "1e99",
            "NaN",
            "2026-11-24T01:57:00",
            "2026-11-24T01:57:00.Z",
            "2026-13-24T01:57:00Z",
            "2026-11-24T01:57:00+1",
            "24/Nov/2026:01:57:00 +0000",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
