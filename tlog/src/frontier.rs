//! The frontier of a tree: the least that is needed to append to it and compute its root.

use crate::hash::{EMPTY_ROOT, Hash, node_hash};
use crate::size::{TreeHead, TreeSize};

/// The roots of the perfect subtrees a tree decomposes into, one for each one bit of its
/// size: at most 64 hashes, whatever the size.
///
/// Source: RFC 6962 section 2.1. Splitting off the largest power of two on the left, again
/// and again, visits exactly the one bits of the size from the highest to the lowest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Highest subtree first. Invariant: as many as `size` has one bits.
    nodes: Vec<Hash>,
}

impl Default for Frontier {
    fn default() -> Frontier {
        Frontier::new()
    }
}

impl Frontier {
    /// Returns the frontier of the tree without leaves.
    #[must_use]
    pub const fn new() -> Frontier {
        Frontier {
            size: 0,
            nodes: Vec::new(),
        }
    }

    /// Returns the number of leaves appended.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        TreeSize::new(self.size)
    }

    /// Returns the root hash over all leaves; [`EMPTY_ROOT`] without any. Takes at most 63 node
    /// hashes.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold_right(&self.nodes).unwrap_or(EMPTY_ROOT)
    }

    /// Returns size and root together.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead::new(self.size(), self.root())
    }

    /// Returns the root of the perfect subtree of 2^`height` leaves; `None` unless that bit of the
    /// size is set.
    #[must_use]
    pub fn node(&self, height: u8) -> Option<&Hash> {
        let bits = self.size.checked_shr(u32::from(height)).unwrap_or(0);
        if bits & 1 == 0 {
            return None;
        }
        // The nodes before it belong to the one bits above this one.
        self.nodes.get((bits >> 1).count_ones() as usize)
    }

    /// Returns the subtree roots, the largest subtree's first.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Appends one leaf hash. Takes as many node hashes as the size has trailing one bits, which is
    /// one for each leaf on average.
    ///
    /// # Panics
    /// If the tree already has 2^64 - 1 leaves.
    pub fn push(&mut self, leaf: Hash) {
        let size = self
            .size
            .checked_add(1)
            .expect("a tree has fewer than 2^64 leaves");
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            // Every trailing one bit is a subtree of the height that `node` has by now.
            let left = self.nodes.pop().expect("a subtree for every one bit");
            node = node_hash(&left, &node);
        }
        self.nodes.push(node);
        self.size = size;
    }

    /// Appends many leaf hashes, in order.
    ///
    /// # Panics
    /// If the tree would have more than 2^64 - 1 leaves.
    pub fn extend(&mut self, leaves: &[Hash]) {
        for leaf in leaves {
            self.push(*leaf);
        }
    }

    /// Makes a frontier of stored nodes, in the order of [`nodes`](Frontier::nodes); returns `None`
    /// unless there is one for each 1 bit of `size`.
    #[must_use]
    pub fn from_nodes(size: TreeSize, nodes: Vec<Hash>) -> Option<Frontier> {
        let size = size.get();
        (nodes.len() == size.count_ones() as usize).then_some(Frontier { size, nodes })
    }

    /// Empties the frontier of a perfect tree and returns its root; returns `None`, and changes
    /// nothing, if the tree is not perfect.
    pub(crate) fn take_perfect(&mut self) -> Option<Hash> {
        if self.nodes.len() != 1 {
            return None;
        }
        self.size = 0;
        self.nodes.pop()
    }
}

/// Hashes subtree roots, the largest (leftmost) first, into the root above all of them. Returns
/// `None` without any.
pub(crate) fn fold_right<'a>(
    nodes: impl IntoIterator<Item = &'a Hash, IntoIter: DoubleEndedIterator>,
) -> Option<Hash> {
    nodes
        .into_iter()
        .rev()
        .copied()
        .reduce(|right, left| node_hash(&left, &right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn nodes_are_found_by_height() {
        let leaves = leaves(11); // 8 + 2 + 1
        let mut frontier = Frontier::new();
        frontier.extend(&leaves);
        assert_eq!(frontier.node(0), Some(&leaves[10]));
        assert_eq!(frontier.node(1), Some(&node_hash(&leaves[8], &leaves[9])));
        assert_eq!(frontier.node(2), None);
        assert_eq!(frontier.node(3), frontier.nodes().first());
        for height in 4..=255 {
            assert_eq!(frontier.node(height), None);
        }
    }

    #[test]
    fn is_restored_only_from_the_right_number_of_nodes() {
        let mut frontier = Frontier::new();
        frontier.extend(&leaves(11));
        let nodes = frontier.nodes().to_vec();
        assert_eq!(
            Frontier::from_nodes(TreeSize::new(11), nodes.clone()),
            Some(frontier)
        );
        assert_eq!(Frontier::from_nodes(TreeSize::new(12), nodes), None);
    }

    #[test]
    fn only_a_perfect_tree_is_taken() {
        let mut frontier = Frontier::new();
        assert_eq!(frontier.take_perfect(), None);
        frontier.extend(&leaves(3));
        assert_eq!(frontier.take_perfect(), None);
        frontier.extend(&leaves(1));
        let root = frontier.root();
        assert_eq!(frontier.take_perfect(), Some(root));
        assert_eq!(frontier, Frontier::new());
    }
}
