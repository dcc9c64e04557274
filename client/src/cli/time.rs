//! Times and durations as people write them.

use std::{fmt::Write as _, str::FromStr};

use deed_evidence::Micros;
use thiserror::Error;

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// From short to long: the order of a duration's parts is the reverse of this one.
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

/// RFC 3339 section 5.6; a leap second counts as the second after it, fractions are cut after
/// microseconds.
fn parse_moment(text: &str) -> Result<Micros, TimeError> {
    let mut rest = Cursor(text.as_bytes());
    let (year, month, day) = (
        rest.number(4)?,
        rest.after(b"-")?.number(2)?,
        rest.after(b"-")?.number(2)?,
    );
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return Err(TimeError::Time);
    }
    let days = days_since_1970(year, month, day);
    if rest.0.is_empty() {
        return positive((days * DAY_S).checked_mul(SECOND_US));
    }
    let (hour, minute, second) = (
        rest.after(b"Tt ")?.number(2)?,
        rest.after(b":")?.number(2)?,
        rest.after(b":")?.number(2)?,
    );
    if hour > 23 || minute > 59 || second > 60 {
        return Err(TimeError::Time);
    }
    let mut fraction_us = 0;
    if rest.0.first() == Some(&b'.') {
        let digits = rest.after(b".")?.digits()?;
        for place in 0..6 {
            let digit = digits.get(place).map_or(0, |digit| i64::from(digit - b'0'));
            fraction_us = fraction_us * 10 + digit;
        }
    }
    let offset_s = match rest.0 {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), offset @ ..] => {
            let mut offset = Cursor(offset);
            let (hours, minutes) = (offset.number(2)?, offset.after(b":")?.number(2)?);
            if hours > 23 || minutes > 59 || !offset.0.is_empty() {
                return Err(TimeError::Time);
            }
            let seconds = hours * 3_600 + minutes * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return Err(TimeError::Time),
    };
    let seconds = days * DAY_S + hour * 3_600 + minute * 60 + second - offset_s;
    positive(
        seconds
            .checked_mul(SECOND_US)
            .and_then(|us| us.checked_add(fraction_us)),
    )
}

fn positive(us: Option<i64>) -> Result<Micros, TimeError> {
    us.filter(|us| *us > 0)
        .map(Micros::new)
        .ok_or(TimeError::Range)
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn after(&mut self, one_of: &[u8]) -> Result<&mut Self, TimeError> {
        match self.0 {
            [first, rest @ ..] if one_of.contains(first) => {
                self.0 = rest;
                Ok(self)
            }
            _ => Err(TimeError::Time),
        }
    }

    /// A number of exactly so many digits; at most four, so that nothing overflows.
    fn number(&mut self, digits: usize) -> Result<i64, TimeError> {
        let (number, rest) = self.0.split_at_checked(digits).ok_or(TimeError::Time)?;
        self.0 = rest;
        number.iter().try_fold(0, |sum, digit| {
            let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'));
            Ok(sum * 10 + digit.ok_or(TimeError::Time)?)
        })
    }

    /// All digits that follow, at least one.
    fn digits(&mut self) -> Result<&'a [u8], TimeError> {
        let count = self
            .0
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        if digits.is_empty() {
            Err(TimeError::Time)
        } else {
            Ok(digits)
        }
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years are counted from March, so that
/// the leap day is the last of its year and months have 153 days in five.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The day that lies so many days after 1970-01-01: year, month, day.
const fn day_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    // 400 years have 146,097 days.
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
    (era * 400 + year, month, day)
}

/// A moment in RFC 3339, UTC, to the microsecond if it has a fraction.
pub(crate) fn shown(at: Micros) -> String {
    let (seconds, us) = (
        at.get().div_euclid(SECOND_US),
        at.get().rem_euclid(SECOND_US),
    );
    let (year, month, day) = day_of(seconds.div_euclid(DAY_S));
    let second = seconds.rem_euclid(DAY_S);
    let mut text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
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

/// A ledger's words with each time in them (`1790000000000000 us`) as people read it.
pub(crate) fn with_times(message: &str) -> String {
    let mut words: Vec<_> = message.split(' ').map(str::to_owned).collect();
    for at in 1..words.len() {
        let unit = words[at].trim_end_matches(['.', ',', ';', ')']).to_owned();
        let number = words[at - 1].clone();
        // Shorter ones are durations, or times of 1970.
        let is_time = unit == "us" && (14..=18).contains(&number.len());
        if let (true, Ok(us)) = (is_time, number.parse()) {
            words[at - 1] = shown(Micros::new(us));
            words[at] = words[at].split_off(unit.len());
        }
    }
    let mut text = String::with_capacity(message.len());
    for (position, word) in words.iter().enumerate() {
        let is_end = matches!(word.as_str(), "" | "." | "," | ";" | ")");
        if position > 0 && !is_end {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
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
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(day_of(days), (year, month, day));
            assert_eq!(days_since_1970(year, month, day), days);
            day += 1;
            if day > days_of(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        for text in ["2026-11-24T01:57:00Z", "1985-04-12T23:20:50.520000Z"] {
            assert_eq!(shown(Micros::new(moment(text))), text);
        }
    }

    #[test]
    fn times_in_a_sentence_are_for_people() {
        let message = "content ab has to be kept until 1795485420000000 us; it is \
                       1795485421000000 us now (after 1795485420000000 us)";
        assert_eq!(
            with_times(message),
            "content ab has to be kept until 2026-11-24T01:57:00Z; it is 2026-11-24T01:57:01Z now \
             (after 1795485420000000 us)"
                .replace("after 1795485420000000 us", "after 2026-11-24T01:57:00Z")
        );
        for same in ["", "us", "5 us", "no times here", "a  b"] {
            let _ = with_times(same);
        }
        assert_eq!(with_times("5 us passed"), "5 us passed");
    }
}
