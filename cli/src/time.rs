//! Times and durations as people write them.

use std::{
    fmt::Write as _,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use deed_evidence::Micros;
use jiff::{
    SignedDuration,
    civil::{Date, DateTime, Time, date},
};
use thiserror::Error;

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// 400 years of the Gregorian calendar.
const CYCLE_S: i64 = 146_097 * DAY_S;
const EPOCH: DateTime = date(1970, 1, 1).to_datetime(Time::midnight());
/// Units, from short to long. A duration names its parts in the reverse order.
const UNITS: [(char, i64); 6] = [
    ('s', 1),
    ('m', 60),
    ('h', 3_600),
    ('d', DAY_S),
    ('w', 7 * DAY_S),
    ('y', 365 * DAY_S),
];

/// Text that is no time, or no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum TimeError {
    #[error(
        "is no time; write it as 2027-01-31T12:00:00Z, with an offset (+01:00), as a day \
         (2027-01-31, its beginning in UTC), or as a duration from now (30d)"
    )]
    Time,
    #[error(
        "is no duration; write numbers with units from long to short, for example 30d or 1h30m \
         (s, m, h, d, w, y of 365 days)"
    )]
    Duration,
    #[error("lies before 1970, or further away than this program counts (290,000 years)")]
    Range,
}

/// A duration, not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    us: i64,
}

/// A moment, or a distance from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(Micros),
    Span(Span),
}

impl Span {
    pub(crate) const fn us(self) -> i64 {
        self.us
    }
}

impl When {
    /// The moment, a duration counting from `now` on.
    pub(crate) fn after(self, now: Micros) -> Result<Micros, TimeError> {
        match self {
            Self::At(at) => Ok(at),
            Self::Span(span) => positive(now.get().checked_add(span.us)),
        }
    }

    /// The moment, a duration counting back from `now`.
    pub(crate) fn before(self, now: Micros) -> Result<Micros, TimeError> {
        match self {
            Self::At(at) => Ok(at),
            Self::Span(span) => positive(now.get().checked_sub(span.us)),
        }
    }
}

impl FromStr for Span {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let (mut rest, mut seconds, mut unit_before) = (text, 0_i64, UNITS.len());
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let name = after.chars().next().ok_or(TimeError::Duration)?;
            let unit = UNITS.iter().position(|(unit, _)| *unit == name);
            let unit = unit.filter(|unit| *unit < unit_before);
            let (unit, false) = (unit.ok_or(TimeError::Duration)?, number.is_empty()) else {
                return Err(TimeError::Duration);
            };
            let part = number.parse::<i64>().map_err(|_| TimeError::Range)?;
            let part = part.checked_mul(UNITS[unit].1);
            seconds = part
                .and_then(|part| seconds.checked_add(part))
                .ok_or(TimeError::Range)?;
            unit_before = unit;
            rest = &after[1..];
        }
        if text.is_empty() {
            return Err(TimeError::Duration);
        }
        let us = seconds.checked_mul(SECOND_US).ok_or(TimeError::Range)?;
        Ok(Self { us })
    }
}

impl FromStr for When {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        match text.parse() {
            Ok(span) => return Ok(Self::Span(span)),
            Err(TimeError::Range) => return Err(TimeError::Range),
            Err(_) => {}
        }
        parse_moment(text).map(Self::At)
    }
}

/// Reads a date or a date and time of RFC 3339, section 5.6. A leap second counts as the second after
/// it; digits of a fraction behind the microseconds are cut off.
fn parse_moment(text: &str) -> Result<Micros, TimeError> {
    let (date, rest) = text.split_at_checked(10).ok_or(TimeError::Time)?;
    // jiff takes more forms of ISO 8601 than RFC 3339 has.
    let date: Date = in_form(date, "0000-00-00")?;
    if rest.is_empty() {
        return moment_at(date.to_datetime(Time::midnight()), 0, 0);
    }
    let (clock, mut rest) = rest.split_at_checked(9).ok_or(TimeError::Time)?;
    let clock = clock.strip_prefix(['T', 't', ' ']).ok_or(TimeError::Time)?;
    let time: Time = in_form(clock, "00:00:00")?;
    // jiff reads second 60 as second 59.
    let leap_s = i64::from(clock.ends_with("60"));
    let mut fraction_us = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return Err(TimeError::Time);
        }
        for place in 0..6 {
            let digit = fraction.as_bytes()[..length].get(place);
            fraction_us = fraction_us * 10 + digit.map_or(0, |digit| i64::from(digit - b'0'));
        }
        rest = &fraction[length..];
    }
    let offset_s = match rest.split_at_checked(1) {
        Some(("Z" | "z", "")) => 0,
        Some((sign @ ("+" | "-"), offset)) => {
            let offset: Time = in_form(offset, "00:00")?;
            let seconds = offset.duration_since(Time::midnight()).as_secs();
            if sign == "+" { seconds } else { -seconds }
        }
        _ => return Err(TimeError::Time),
    };
    moment_at(date.to_datetime(time), leap_s - offset_s, fraction_us)
}

/// Parses a text that has the characters of `form`, with any digit for each `0`.
fn in_form<T: FromStr>(text: &str, form: &str) -> Result<T, TimeError> {
    let fits = |(found, wanted): (u8, u8)| match wanted {
        b'0' => found.is_ascii_digit(),
        _ => found == wanted,
    };
    if text.len() != form.len() || !text.bytes().zip(form.bytes()).all(fits) {
        return Err(TimeError::Time);
    }
    text.parse().map_err(|_| TimeError::Time)
}

fn moment_at(at: DateTime, later_s: i64, later_us: i64) -> Result<Micros, TimeError> {
    let seconds = at.duration_since(EPOCH).as_secs() + later_s;
    positive(
        seconds
            .checked_mul(SECOND_US)
            .and_then(|us| us.checked_add(later_us)),
    )
}

fn positive(us: Option<i64>) -> Result<Micros, TimeError> {
    us.filter(|us| *us > 0)
        .map(Micros::new)
        .ok_or(TimeError::Range)
}

/// The current time of this machine.
pub(crate) fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A moment in RFC 3339, UTC, to the microsecond if it has a fraction.
pub(crate) fn shown(at: Micros) -> String {
    let (seconds, us) = (
        at.get().div_euclid(SECOND_US),
        at.get().rem_euclid(SECOND_US),
    );
    // jiff's calendar ends with the year 9999; 400 years later it is the same.
    let (cycles, second) = (seconds.div_euclid(CYCLE_S), seconds.rem_euclid(CYCLE_S));
    let at = EPOCH.saturating_add(SignedDuration::from_secs(second));
    let year = i64::from(at.year()) + 400 * cycles;
    let mut text = format!("{year:04}-{}", at.strftime("%m-%dT%H:%M:%S"));
    if us != 0 {
        // Writing to a string does not fail.
        let _ = write!(text, ".{us:06}");
    }
    text.push('Z');
    text
}

/// A duration in days and less: weeks and years only make it harder to compare.
pub(crate) fn shown_span(us: i64) -> String {
    let mut seconds = us / SECOND_US;
    let mut text = String::new();
    for (name, unit) in UNITS[..4].iter().rev() {
        if seconds / unit > 0 {
            let _ = write!(text, "{}{name}", seconds / unit);
            seconds %= unit;
        }
    }
    if us % SECOND_US != 0 {
        let _ = write!(text, "{}us", us % SECOND_US);
    }
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> i64 {
        match text.parse() {
            Ok(When::At(at)) => at.get(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn moments_are_those_of_rfc_3339() {
        // Section 5.8's examples, and others; seconds by `date -u -d ... +%s`.
        for (text, us) in [
            ("1985-04-12T23:20:50.52Z", 482_196_050_520_000),
            ("1996-12-19T16:39:57-08:00", 851_042_397_000_000),
            ("1990-12-31T23:59:60Z", 662_688_000_000_000),
            ("1990-12-31T15:59:60-08:00", 662_688_000_000_000),
            ("1970-01-01T00:00:00.000001z", 1),
            ("2000-02-29", 951_782_400_000_000),
            ("2026-11-24 01:57:00Z", 1_795_485_420_000_000),
            ("2026-11-24T02:57:00.1234567+01:00", 1_795_485_420_123_456),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
        ] {
            assert_eq!(moment(text), us, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "2026",
            "2026-11",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "1900-02-29",
            "2026-04-31",
            "2026-11-24T",
            "2026-11-24T24:00:00Z",
            "2026-11-24T01:57:00",
            "2026-11-24T01:57Z",
            "2026-11-24T01:57:00.Z",
            "2026-11-24T01:57:00+1:00",
            "2026-11-24T01:57:00+01:00x",
            "2026-11-24T01:57:00Zx",
            "2026-11-2x",
            "٢026-11-24",
        ] {
            assert_eq!(text.parse::<When>(), Err(TimeError::Time), "{text:?}");
        }
        for text in [
            "1970-01-01",
            "1969-12-31T23:59:59Z",
            "9999999999999999999y",
            "300000y",
        ] {
            assert_eq!(text.parse::<When>(), Err(TimeError::Range), "{text:?}");
        }
    }

    #[test]
    fn durations_have_units_from_long_to_short() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("1h30m", 5_400),
            ("0s", 0),
            (
                "1y2w3d4h5m6s",
                31_536_000 + 1_209_600 + 259_200 + 14_400 + 300 + 6,
            ),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.us(), seconds * SECOND_US, "{text}");
            let again = shown_span(span.us()).parse::<Span>();
            assert!(seconds == 0 || again == Ok(span), "{text}");
        }
        for text in [
            "", "30", "d", "1d1d", "1m1h", "-1d", "1.5h", "1d ", "1D", "1ü",
        ] {
            assert_eq!(text.parse::<Span>(), Err(TimeError::Duration), "{text:?}");
        }
        assert_eq!(shown_span("25w5d".parse::<Span>().unwrap().us()), "180d");
        assert_eq!(shown_span(0), "none");
        assert_eq!(shown_span(1_500_000), "1s500000us");
    }

    #[test]
    fn distances_count_from_now_in_both_directions() {
        let now = Micros::new(10 * SECOND_US);
        let when: When = "4s".parse().unwrap();
        assert_eq!(when.after(now), Ok(Micros::new(14 * SECOND_US)));
        assert_eq!(when.before(now), Ok(Micros::new(6 * SECOND_US)));
        let long: When = "1d".parse().unwrap();
        assert_eq!(long.before(now), Err(TimeError::Range));
        let at = When::At(Micros::new(5));
        assert_eq!(
            (at.after(now), at.before(now)),
            (Ok(Micros::new(5)), Ok(Micros::new(5)))
        );
    }

    #[test]
    fn every_day_is_shown_as_it_is_read() {
        let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_of = |year, month| match month {
            2 if is_leap(year) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            let text = format!("{year:04}-{month:02}-{day:02}");
            let us = days * DAY_S * SECOND_US;
            assert_eq!(shown(Micros::new(us)), format!("{text}T00:00:00Z"));
            assert!(days == 0 || moment(&text) == us, "{text}");
            day += 1;
            if day > days_of(year, month) {
                (month, day) = (month + 1, 1);
                assert!(
                    format!(
                        "{year:04}-{:02}-{:02}",
                        month - 1,
                        days_of(year, month - 1) + 1
                    )
                    .parse::<When>()
                    .is_err()
                );
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        for text in ["2026-11-24T01:57:00Z", "1985-04-12T23:20:50.520000Z"] {
            assert_eq!(shown(Micros::new(moment(text))), text);
        }
        // Beyond jiff's calendar in both directions.
        for (us, text) in [
            (253_402_300_800_000_000, "10000-01-01T00:00:00Z"),
            (i64::MAX, "294247-01-10T04:00:54.775807Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (-62_167_219_200_000_001, "-001-12-31T23:59:59.999999Z"),
            (i64::MIN, "-290308-12-21T19:59:05.224192Z"),
        ] {
            assert_eq!(shown(Micros::new(us)), text);
        }
    }
}
