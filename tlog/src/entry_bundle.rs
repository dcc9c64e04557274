//! Entry bundles: up to 256 consecutive entries, the preimages of a level 0 tile.
//!
//! ```text
//! (u16 big-endian length || entry)*
//! ```
//!
//! Source: c2sp.org/tlog-tiles, "Log Entries".

use thiserror::Error;

use crate::tile::{TILE_WIDTH, TileError};

/// The longest entry, in bytes: its length is 16 bits.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// The name of a bundle: bundle `index` holds the entries from leaf `index * 256` on.
///
/// The width is 1 to 256; below 256 the bundle is partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryBundleId {
    index: u64,
    width: u16,
}

/// The reason for which entries are no bundle, or bytes are not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryBundleError {
    /// There are more than 256 entries.
    #[error("entry bundle has more than {TILE_WIDTH} entries")]
    TooManyEntries,
    /// The number of entries is not the bundle's width.
    #[error("entry bundle has {found} entries, wanted {wanted}")]
    Count {
        /// Entries that were found.
        found: usize,
        /// Entries that the bundle must have.
        wanted: usize,
    },
    /// An entry is longer than 65,535 bytes.
    #[error("entry {position} of the bundle has {found} bytes, at most {ENTRY_BYTES_MAX} fit")]
    EntryTooLong {
        /// Zero-based position in the bundle.
        position: usize,
        /// Bytes of the entry.
        found: usize,
    },
    /// The bytes end inside of an entry or its length.
    #[error("entry {position} of the bundle is cut off: wanted {wanted} bytes, found {found}")]
    Truncated {
        /// Zero-based position in the bundle.
        position: usize,
        /// Bytes that the length field (2) or the entry has.
        wanted: usize,
        /// Bytes left.
        found: usize,
    },
}

impl EntryBundleId {
    /// Names the first `width` entries of bundle `index`.
    ///
    /// # Errors
    /// [`TileError::Width`] if the width is not 1 to 256.
    pub const fn new(index: u64, width: u16) -> Result<EntryBundleId, TileError> {
        if width == 0 || width > TILE_WIDTH {
            return Err(TileError::Width {
                found: width as u64,
            });
        }
        Ok(EntryBundleId { index, width })
    }

    /// Returns the position among the bundles.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Returns the number of entries: 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Splits the bytes of this bundle, which must have exactly [`width`](EntryBundleId::width)
    /// entries.
    ///
    /// # Errors
    /// [`EntryBundleError`] as [`decode_entry_bundle`], and [`EntryBundleError::Count`] for another
    /// number.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, EntryBundleError> {
        let entries = decode_entry_bundle(bytes)?;
        let wanted = usize::from(self.width);
        if entries.len() != wanted {
            return Err(EntryBundleError::Count {
                found: entries.len(),
                wanted,
            });
        }
        Ok(entries)
    }
}

/// Joins at most 256 entries of at most 65,535 bytes into a bundle.
///
/// # Errors
/// [`EntryBundleError::EntryTooLong`] and [`EntryBundleError::TooManyEntries`].
pub fn encode_entry_bundle<T: AsRef<[u8]>>(
    entries: impl IntoIterator<Item = T>,
) -> Result<Vec<u8>, EntryBundleError> {
    let mut bytes = Vec::new();
    for (position, entry) in entries.into_iter().enumerate() {
        if position == usize::from(TILE_WIDTH) {
            return Err(EntryBundleError::TooManyEntries);
        }
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| EntryBundleError::EntryTooLong {
            position,
            found: entry.len(),
        })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// Splits a bundle into its entries, at most 256; an empty bundle has none.
///
/// # Errors
/// [`EntryBundleError::Truncated`] and [`EntryBundleError::TooManyEntries`].
pub fn decode_entry_bundle(bytes: &[u8]) -> Result<Vec<&[u8]>, EntryBundleError> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let position = entries.len();
        if position == usize::from(TILE_WIDTH) {
            return Err(EntryBundleError::TooManyEntries);
        }
        let (length, after) = rest
            .split_first_chunk::<2>()
            .ok_or(EntryBundleError::Truncated {
                position,
                wanted: 2,
                found: rest.len(),
            })?;
        let wanted = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after
            .split_at_checked(wanted)
            .ok_or(EntryBundleError::Truncated {
                position,
                wanted,
                found: after.len(),
            })?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_big_endian() {
        let long = vec![7; 258];
        let bytes = encode_entry_bundle([&b"ab"[..], b"", &long]).unwrap();
        assert_eq!(&bytes[..8], &[0, 2, b'a', b'b', 0, 0, 1, 2]);
        assert_eq!(
            decode_entry_bundle(&bytes).unwrap(),
            [&b"ab"[..], b"", &long]
        );
        assert_eq!(
            EntryBundleId::new(0, 2).unwrap().decode(&bytes),
            Err(EntryBundleError::Count {
                found: 3,
                wanted: 2
            })
        );
    }

    #[test]
    fn limits() {
        let longest = vec![0; ENTRY_BYTES_MAX];
        assert!(encode_entry_bundle([&longest]).is_ok());
        assert_eq!(
            encode_entry_bundle([&b""[..], &[0; ENTRY_BYTES_MAX + 1]]),
            Err(EntryBundleError::EntryTooLong {
                position: 1,
                found: 65536
            })
        );
        let full = encode_entry_bundle([b""; 256]).unwrap();
        assert_eq!(decode_entry_bundle(&full).unwrap().len(), 256);
        assert_eq!(
            encode_entry_bundle([b""; 257]),
            Err(EntryBundleError::TooManyEntries)
        );
        let over = [full.as_slice(), &[0, 0]].concat();
        assert_eq!(
            decode_entry_bundle(&over),
            Err(EntryBundleError::TooManyEntries)
        );
        assert_eq!(
            decode_entry_bundle(&[0]),
            Err(EntryBundleError::Truncated {
                position: 0,
                wanted: 2,
                found: 1
            })
        );
        assert_eq!(
            decode_entry_bundle(&[0, 0, 0, 3, 1, 1]),
            Err(EntryBundleError::Truncated {
                position: 1,
                wanted: 3,
                found: 2
            })
        );
    }
}
