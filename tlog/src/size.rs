//! Positions and sizes as types: a leaf index is not a tree size, and neither is a bare `u64`.

use std::fmt;

use crate::hash::{EMPTY_ROOT, Hash};

/// The zero-based position of a leaf in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeafIndex(u64);

/// The number of leaves of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreeSize(u64);

/// Two sizes of one growing tree. The fields are named, because two positional sizes get swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SizeRange {
    /// The earlier, smaller tree.
    pub old: TreeSize,
    /// The later, larger tree.
    pub new: TreeSize,
}

/// A tree's size and root hash, against which proofs are verified.
///
/// The fields are independent; only a checkpoint's signature connects them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeHead {
    /// The number of leaves.
    pub size: TreeSize,
    /// MTH(D\[size\]), RFC 6962 section 2.1.
    pub root: Hash,
}

impl LeafIndex {
    /// Returns the index of the leaf at zero-based position `index`.
    #[must_use]
    pub const fn new(index: u64) -> LeafIndex {
        LeafIndex(index)
    }

    /// Returns the zero-based position.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the smallest tree that contains this leaf; `None` for the index 2^64 - 1, which no
    /// tree contains.
    #[must_use]
    pub const fn size_including(self) -> Option<TreeSize> {
        match self.0.checked_add(1) {
            Some(size) => Some(TreeSize(size)),
            None => None,
        }
    }

    /// Returns the index `count` leaves further on; `None` beyond 2^64 - 1.
    #[must_use]
    pub const fn checked_add(self, count: u64) -> Option<LeafIndex> {
        match self.0.checked_add(count) {
            Some(index) => Some(LeafIndex(index)),
            None => None,
        }
    }
}

impl TreeSize {
    /// The tree without leaves.
    pub const ZERO: TreeSize = TreeSize(0);

    /// Returns the size of a tree of `leaves` leaves.
    #[must_use]
    pub const fn new(leaves: u64) -> TreeSize {
        TreeSize(leaves)
    }

    /// Returns the number of leaves.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns true if the tree has no leaves.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns true if leaf `index` is in the tree.
    #[must_use]
    pub const fn contains(self, index: LeafIndex) -> bool {
        index.0 < self.0
    }

    /// Returns the index of the next leaf that is appended.
    #[must_use]
    pub const fn next_index(self) -> LeafIndex {
        LeafIndex(self.0)
    }

    /// Returns the index of the last leaf; `None` for the empty tree.
    #[must_use]
    pub const fn last_index(self) -> Option<LeafIndex> {
        match self.0.checked_sub(1) {
            Some(index) => Some(LeafIndex(index)),
            None => None,
        }
    }

    /// Returns the size after `leaves` more; `None` beyond 2^64 - 1.
    #[must_use]
    pub const fn checked_add(self, leaves: u64) -> Option<TreeSize> {
        match self.0.checked_add(leaves) {
            Some(size) => Some(TreeSize(size)),
            None => None,
        }
    }
}

impl TreeHead {
    /// The head of the tree without leaves.
    pub const EMPTY: TreeHead = TreeHead {
        size: TreeSize::ZERO,
        root: EMPTY_ROOT,
    };

    /// Makes a head of a size and a root.
    #[must_use]
    pub const fn new(size: TreeSize, root: Hash) -> TreeHead {
        TreeHead { size, root }
    }
}

impl From<u64> for LeafIndex {
    fn from(index: u64) -> LeafIndex {
        LeafIndex(index)
    }
}

impl From<LeafIndex> for u64 {
    fn from(index: LeafIndex) -> u64 {
        index.0
    }
}

impl From<u64> for TreeSize {
    fn from(leaves: u64) -> TreeSize {
        TreeSize(leaves)
    }
}

impl From<TreeSize> for u64 {
    fn from(size: TreeSize) -> u64 {
        size.0
    }
}

impl fmt::Display for LeafIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for TreeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_64_bits_do_not_wrap() {
        let last = LeafIndex::new(u64::MAX);
        let largest = TreeSize::new(u64::MAX);
        assert_eq!(last.size_including(), None);
        assert!(!largest.contains(last));
        assert!(largest.contains(LeafIndex::new(u64::MAX - 1)));
        assert_eq!(largest.checked_add(1), None);
        assert_eq!(last.checked_add(1), None);
        assert_eq!(TreeSize::ZERO.last_index(), None);
        assert_eq!(TreeSize::new(1).last_index(), Some(LeafIndex::new(0)));
        assert_eq!(
            TreeSize::ZERO.next_index().size_including(),
            Some(TreeSize::new(1))
        );
    }
}
