//! Tiles: 256 hashes of one level at a time, the unit in which a tree is stored and served.
//!
//! Level 0 holds leaf hashes. Entry i of level l is the root over the 256^l leaves from i * 256^l
//! on, and exists only once all of those leaves do; the inner nodes between two levels are
//! recomputed from the entries below.
//!
//! Source: c2sp.org/tlog-tiles, "Merkle Tree".

use std::sync::Arc;

use thiserror::Error;

use crate::hash::Hash;
use crate::size::TreeSize;

/// Entries in a full tile.
pub const TILE_WIDTH: u16 = 256;
/// Bytes in a full tile: 256 hashes of 32 bytes.
pub const TILE_BYTES: usize = TILE_WIDTH as usize * Hash::LEN;
/// The highest level that a path may name.
pub const TILE_LEVEL_MAX: u8 = 63;
/// A tile spans 8 levels of the binary tree: 256 = 2^8.
pub(crate) const TILE_HEIGHT: u32 = 8;

/// The hashes of a tile as a reader returns them. They are shared, because readers cache tiles.
pub type TileHashes = Arc<Vec<Hash>>;

/// The name of a tile: its level, its position in the level, and the number of its entries.
///
/// The level is at most 63 and the width 1 to 256; a width below 256 names a partial tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    level: u8,
    index: u64,
    width: u16,
}

/// The reason for which numbers do not name a tile, or bytes are not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TileError {
    /// The level is above 63.
    #[error("tile level {found} is above {TILE_LEVEL_MAX}")]
    Level {
        /// The level.
        found: u64,
    },
    /// The width is 0 or above 256.
    #[error("tile width {found} is not between 1 and {TILE_WIDTH}")]
    Width {
        /// The width.
        found: u64,
    },
    /// The number of bytes is not that of the tile's hashes.
    #[error("tile of {width} hashes has {wanted} bytes, found {found}")]
    Bytes {
        /// Entries of the tile.
        width: u16,
        /// Bytes of that many hashes.
        wanted: usize,
        /// Bytes that were found.
        found: usize,
    },
}

impl TileId {
    /// Names the first `width` entries of tile `index` of `level`.
    ///
    /// # Errors
    /// [`TileError::Level`] above 63, [`TileError::Width`] if the width is not 1 to 256.
    pub const fn new(level: u8, index: u64, width: u16) -> Result<TileId, TileError> {
        if level > TILE_LEVEL_MAX {
            return Err(TileError::Level {
                found: level as u64,
            });
        }
        if width == 0 || width > TILE_WIDTH {
            return Err(TileError::Width {
                found: width as u64,
            });
        }
        Ok(TileId {
            level,
            index,
            width,
        })
    }

    /// Names a full tile.
    ///
    /// # Errors
    /// [`TileError::Level`] above 63.
    pub const fn full(level: u8, index: u64) -> Result<TileId, TileError> {
        TileId::new(level, index, TILE_WIDTH)
    }

    /// Names tile `index` of `level` with its width in a tree of `size` leaves; returns `None` if
    /// that tree has no entry there.
    #[must_use]
    pub const fn in_tree(level: u8, index: u64, size: TreeSize) -> Option<TileId> {
        let entries = entries_at(level, size.get());
        let Some(first) = index.checked_mul(TILE_WIDTH as u64) else {
            return None;
        };
        if level > TILE_LEVEL_MAX || first >= entries {
            return None;
        }
        let left = entries - first;
        let width = if left < TILE_WIDTH as u64 {
            left as u16
        } else {
            TILE_WIDTH
        };
        Some(TileId {
            level,
            index,
            width,
        })
    }

    /// Returns the level: 0 for leaf hashes, at most 63.
    #[must_use]
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// Returns the position in the level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Returns the number of entries: 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Returns true if the name is that of all 256 entries.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// Returns the name of the same tile when it is full.
    #[must_use]
    pub const fn to_full(self) -> TileId {
        TileId {
            width: TILE_WIDTH,
            ..self
        }
    }

    /// Parses the bytes of this tile: [`width`](TileId::width) hashes of 32 bytes.
    ///
    /// # Errors
    /// [`TileError::Bytes`] if there are fewer or more.
    pub fn parse_bytes(&self, bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
        let wanted = usize::from(self.width) * Hash::LEN;
        if bytes.len() != wanted {
            return Err(TileError::Bytes {
                width: self.width,
                wanted,
                found: bytes.len(),
            });
        }
        let (hashes, _) = bytes.as_chunks::<{ Hash::LEN }>();
        Ok(hashes.iter().copied().map(Hash::new).collect())
    }
}

/// Returns the number of entries that a tree of `size` leaves has at a level: its complete subtrees
/// of 256^level leaves.
pub(crate) const fn entries_at(level: u8, size: u64) -> u64 {
    match size.checked_shr(TILE_HEIGHT * level as u32) {
        Some(entries) => entries,
        None => 0,
    }
}

/// Concatenates the hashes of a tile: 32 bytes each, 8192 for a full tile.
///
/// Source: c2sp.org/tlog-tiles. Read back by [`TileId::parse_bytes`].
#[must_use]
pub fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(hashes.len() * Hash::LEN);
    for hash in hashes {
        bytes.extend_from_slice(hash.as_bytes());
    }
    bytes
}

/// A source of tiles for proofs: storage, a cache, or another party's HTTP server.
///
/// A proof reads everything that it needs in one call, so that one batched read is enough.
pub trait TileReader {
    /// The error of a failed read.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads the tiles and returns them in the given order.
    ///
    /// A returned tile may be longer than its [`width`](TileId::width), because it has grown since;
    /// the caller uses the first `width` hashes. The caller detects it if there are fewer hashes or
    /// another number of tiles. The hashes are not checked here: a proof that is built from wrong
    /// ones fails to verify.
    ///
    /// # Errors
    /// Any error of the implementation, for example for a missing tile.
    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, Self::Error>;
}

impl<R: TileReader + ?Sized> TileReader for &R {
    type Error = R::Error;

    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, Self::Error> {
        (**self).read_tiles(tiles)
    }
}

/// The reason for which tiles could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TileReadError<E> {
    /// The reader failed.
    #[error("reading tiles failed")]
    Reader(#[source] E),
    /// The reader returned another number of tiles than it was asked for.
    #[error("asked for {wanted} tiles, the reader returned {found}")]
    Count {
        /// Number of tiles that were asked for.
        wanted: usize,
        /// Number of tiles that were returned.
        found: usize,
    },
    /// A tile has fewer hashes than the tree needs.
    #[error("tile {index} of level {level} has {found} hashes, wanted {wanted}", level = tile.level, index = tile.index, wanted = tile.width)]
    Short {
        /// The tile that was asked for.
        tile: TileId,
        /// Number of hashes that were returned.
        found: usize,
    },
}

/// Reads tiles and checks their number and widths. The reader is not called if `tiles` is empty.
pub(crate) fn read_checked<R: TileReader>(
    reader: &R,
    tiles: &[TileId],
) -> Result<Vec<TileHashes>, TileReadError<R::Error>> {
    if tiles.is_empty() {
        return Ok(Vec::new());
    }
    let read = reader.read_tiles(tiles).map_err(TileReadError::Reader)?;
    if read.len() != tiles.len() {
        return Err(TileReadError::Count {
            wanted: tiles.len(),
            found: read.len(),
        });
    }
    for (tile, hashes) in tiles.iter().zip(&read) {
        if hashes.len() < usize::from(tile.width) {
            return Err(TileReadError::Short {
                tile: *tile,
                found: hashes.len(),
            });
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        assert!(TileId::new(63, u64::MAX, 256).is_ok());
        assert_eq!(TileId::new(64, 0, 1), Err(TileError::Level { found: 64 }));
        assert_eq!(TileId::new(0, 0, 0), Err(TileError::Width { found: 0 }));
        assert_eq!(TileId::new(0, 0, 257), Err(TileError::Width { found: 257 }));
    }

    #[test]
    fn widths_follow_the_tree() {
        let width = |level, index, size| {
            TileId::in_tree(level, index, TreeSize::new(size)).map(|tile| tile.width())
        };
        assert_eq!(width(0, 0, 0), None);
        assert_eq!(width(0, 0, 1), Some(1));
        assert_eq!(width(0, 0, 256), Some(256));
        assert_eq!(width(0, 1, 256), None);
        assert_eq!(width(0, 1, 257), Some(1));
        assert_eq!(width(1, 0, 255), None);
        assert_eq!(width(1, 0, 511), Some(1));
        assert_eq!(width(2, 0, 65536 * 3 + 65535), Some(3));
        assert_eq!(width(7, 0, u64::MAX), Some(255));
        for level in 8..=u8::MAX {
            assert_eq!(width(level, 0, u64::MAX), None);
        }
        assert_eq!(width(0, u64::MAX, u64::MAX), None);
    }

    #[test]
    fn bytes_must_fit_the_width() {
        let tile = TileId::new(0, 7, 3).unwrap();
        let hashes = [Hash::new([1; 32]), Hash::new([2; 32]), Hash::new([3; 32])];
        let bytes = tile_bytes(&hashes);
        assert_eq!(tile.parse_bytes(&bytes).unwrap(), hashes);
        for wrong in [
            &bytes[..95],
            &bytes[..64],
            &[bytes.as_slice(), &[0]].concat(),
        ] {
            let error = TileError::Bytes {
                width: 3,
                wanted: 96,
                found: wrong.len(),
            };
            assert_eq!(tile.parse_bytes(wrong), Err(error));
        }
    }
}
