//! Clocks that leap.
