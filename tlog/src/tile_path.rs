//! The URL paths of tiles and entry bundles. Each tile has exactly one path.
//!
//! ```text
//! tile/<level>/<index>[.p/<width>]
//! tile/entries/<index>[.p/<width>]
//! ```
//!
//! The index is written in groups of three digits, all but the last with an `x` in front:
//! 1234067 is `x001/x234/067`.
//!
//! Source: c2sp.org/tlog-tiles, "Merkle Tree" and "Log Entries".

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::entry_bundle::EntryBundleId;
use crate::text::{DecimalError, parse_decimal};
use crate::tile::{TILE_WIDTH, TileError, TileId};

/// The thing that a path below a log's base URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TilePath {
    /// Hashes of the tree.
    Hashes(TileId),
    /// Entries, the preimages of the leaf hashes.
    Entries(EntryBundleId),
}

/// The reason for which a text is not the path of a tile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TilePathError {
    /// The path does not start with `tile/<level>/` or `tile/entries/`.
    #[error("path does not start with tile/<level>/ or tile/entries/")]
    Prefix,
    /// The level is not a canonical decimal number.
    #[error("tile level: {0}")]
    Level(DecimalError),
    /// The partial width is not a canonical decimal number.
    #[error("partial width: {0}")]
    Width(DecimalError),
    /// The partial width is outside of 1 to 255; full tiles have no width in their path.
    #[error("partial width {found} is not between 1 and 255")]
    WidthRange {
        /// The width in the path.
        found: u64,
    },
    /// The index is not grouped into `x` and three digits, the last group three digits.
    #[error("tile index is not in groups of three digits, all but the last prefixed with x")]
    Grouping,
    /// The first of several groups is `x000`.
    #[error("tile index starts with an empty group")]
    LeadingZeros,
    /// The index is beyond 64 bits.
    #[error("tile index is beyond 64 bits")]
    IndexTooLarge,
    /// The numbers do not name a tile.
    #[error(transparent)]
    Tile(#[from] TileError),
}

impl TileId {
    /// Returns the path below the log's base URL, for example `tile/0/x001/x234/067.p/3`.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }
}

impl EntryBundleId {
    /// Returns the path below the log's base URL, for example `tile/entries/x001/x234/067.p/3`.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }
}

impl TilePath {
    /// Parses a path without a leading slash.
    ///
    /// Only the one form that [`TileId::path`] and [`EntryBundleId::path`] return is accepted. It
    /// is not checked here whether such a tile exists in the tree.
    ///
    /// # Errors
    /// [`TilePathError`] for any other text.
    pub fn parse(path: &str) -> Result<TilePath, TilePathError> {
        let rest = path.strip_prefix("tile/").ok_or(TilePathError::Prefix)?;
        let (kind, rest) = rest.split_once('/').ok_or(TilePathError::Prefix)?;
        if kind == "entries" {
            let (index, width) = parse_index_and_width(rest)?;
            return Ok(TilePath::Entries(EntryBundleId::new(index, width)?));
        }
        let level = parse_decimal(kind).map_err(TilePathError::Level)?;
        let level = u8::try_from(level).map_err(|_| TileError::Level { found: level })?;
        let (index, width) = parse_index_and_width(rest)?;
        Ok(TilePath::Hashes(TileId::new(level, index, width)?))
    }
}

impl FromStr for TilePath {
    type Err = TilePathError;

    fn from_str(path: &str) -> Result<TilePath, TilePathError> {
        TilePath::parse(path)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TilePath::Hashes(tile) => tile.fmt(f),
            TilePath::Entries(bundle) => bundle.fmt(f),
        }
    }
}

/// Prints the path.
impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level())?;
        write_index_and_width(f, self.index(), self.width())
    }
}

/// Prints the path.
impl fmt::Display for EntryBundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        write_index_and_width(f, self.index(), self.width())
    }
}

fn write_index_and_width(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    // 2^64 has 20 digits, seven groups: 1000^6 is the value of the leftmost.
    let mut unit = 1000u64.pow(6);
    while unit > 1 {
        if index >= unit {
            write!(f, "x{:03}/", index / unit % 1000)?;
        }
        unit /= 1000;
    }
    write!(f, "{:03}", index % 1000)?;
    if width < TILE_WIDTH {
        write!(f, ".p/{width}")?;
    }
    Ok(())
}

fn parse_index_and_width(text: &str) -> Result<(u64, u16), TilePathError> {
    let Some((index, width)) = text.split_once(".p/") else {
        return Ok((parse_index(text)?, TILE_WIDTH));
    };
    let width = parse_decimal(width).map_err(TilePathError::Width)?;
    match u16::try_from(width) {
        Ok(partial @ 1..TILE_WIDTH) => Ok((parse_index(index)?, partial)),
        _ => Err(TilePathError::WidthRange { found: width }),
    }
}

fn parse_index(text: &str) -> Result<u64, TilePathError> {
    let (upper, last) = match text.rsplit_once('/') {
        Some((upper, last)) => (Some(upper), last),
        None => (None, text),
    };
    let mut index = 0u64;
    for (position, group) in upper
        .into_iter()
        .flat_map(|upper| upper.split('/'))
        .enumerate()
    {
        let digits = group.strip_prefix('x').ok_or(TilePathError::Grouping)?;
        if position == 0 && digits == "000" {
            return Err(TilePathError::LeadingZeros);
        }
        index = push_group(index, digits)?;
    }
    push_group(index, last)
}

fn push_group(index: u64, digits: &str) -> Result<u64, TilePathError> {
    let &[a, b, c] = digits.as_bytes() else {
        return Err(TilePathError::Grouping);
    };
    if ![a, b, c].iter().all(u8::is_ascii_digit) {
        return Err(TilePathError::Grouping);
    }
    let group = [a, b, c]
        .iter()
        .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    index
        .checked_mul(1000)
        .and_then(|index| index.checked_add(group))
        .ok_or(TilePathError::IndexTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_specification() {
        for (level, index, width, path) in [
            (0, 0, 256, "tile/0/000"),
            (0, 999, 256, "tile/0/999"),
            (0, 1000, 256, "tile/0/x001/000"),
            (0, 1234067, 256, "tile/0/x001/x234/067"),
            (63, 1234067, 8, "tile/63/x001/x234/067.p/8"),
            (1, 273, 255, "tile/1/273.p/255"),
            (0, 1_000_000, 1, "tile/0/x001/x000/000.p/1"),
            (7, u64::MAX, 256, "tile/7/x018/x446/x744/x073/x709/x551/615"),
        ] {
            let tile = TileId::new(level, index, width).unwrap();
            assert_eq!(tile.path(), path);
            assert_eq!(TilePath::parse(path), Ok(TilePath::Hashes(tile)));
        }
        let bundle = EntryBundleId::new(1234067, 3).unwrap();
        assert_eq!(bundle.path(), "tile/entries/x001/x234/067.p/3");
        assert_eq!(
            TilePath::parse(&bundle.path()),
            Ok(TilePath::Entries(bundle))
        );
    }

    #[test]
    fn every_other_spelling_is_rejected() {
        for (path, error) in [
            ("", TilePathError::Prefix),
            ("/tile/0/000", TilePathError::Prefix),
            ("tile/0", TilePathError::Prefix),
            ("tile/000", TilePathError::Prefix),
            ("tile/0/", TilePathError::Grouping),
            ("tile//000", TilePathError::Level(DecimalError::NotDigits)),
            (
                "tile/00/000",
                TilePathError::Level(DecimalError::LeadingZero),
            ),
            ("tile/-1/000", TilePathError::Level(DecimalError::NotDigits)),
            ("tile/+1/000", TilePathError::Level(DecimalError::NotDigits)),
            ("tile/64/000", TileError::Level { found: 64 }.into()),
            ("tile/256/000", TileError::Level { found: 256 }.into()),
            (
                "tile/Entries/000",
                TilePathError::Level(DecimalError::NotDigits),
            ),
            ("tile/0/0", TilePathError::Grouping),
            ("tile/0/0000", TilePathError::Grouping),
            ("tile/0/1234", TilePathError::Grouping),
            ("tile/0/001/234", TilePathError::Grouping),
            ("tile/0/x001", TilePathError::Grouping),
            ("tile/0/x001/x234", TilePathError::Grouping),
            ("tile/0/x1/234", TilePathError::Grouping),
            ("tile/0/x+01/234", TilePathError::Grouping),
            ("tile/0/x001//234", TilePathError::Grouping),
            ("tile/0//234", TilePathError::Grouping),
            ("tile/0/xx01/234", TilePathError::Grouping),
            ("tile/0/X001/234", TilePathError::Grouping),
            ("tile/0/234/", TilePathError::Grouping),
            ("tile/0/ 01", TilePathError::Grouping),
            ("tile/0/0\u{0661}", TilePathError::Grouping),
            ("tile/0/x000/234", TilePathError::LeadingZeros),
            ("tile/0/x000/x001/234", TilePathError::LeadingZeros),
            (
                "tile/0/x018/x446/x744/x073/x709/x551/616",
                TilePathError::IndexTooLarge,
            ),
            (
                "tile/0/x001/x018/x446/x744/x073/x709/x551/615",
                TilePathError::IndexTooLarge,
            ),
            ("tile/0/000.p/0", TilePathError::WidthRange { found: 0 }),
            ("tile/0/000.p/256", TilePathError::WidthRange { found: 256 }),
            (
                "tile/0/000.p/65537",
                TilePathError::WidthRange { found: 65537 },
            ),
            (
                "tile/0/000.p/01",
                TilePathError::Width(DecimalError::LeadingZero),
            ),
            (
                "tile/0/000.p/",
                TilePathError::Width(DecimalError::NotDigits),
            ),
            (
                "tile/0/000.p/1/",
                TilePathError::Width(DecimalError::NotDigits),
            ),
            (
                "tile/0/000.p/1.p/1",
                TilePathError::Width(DecimalError::NotDigits),
            ),
            ("tile/0/000.p", TilePathError::Grouping),
            ("tile/0/000.P/1", TilePathError::Grouping),
            (
                "tile/0/x001.p/1/000",
                TilePathError::Width(DecimalError::NotDigits),
            ),
            ("tile/entries/x000/000", TilePathError::LeadingZeros),
            (
                "tile/entries/000.p/256",
                TilePathError::WidthRange { found: 256 },
            ),
        ] {
            assert_eq!(TilePath::parse(path), Err(error), "{path}");
        }
    }
}
