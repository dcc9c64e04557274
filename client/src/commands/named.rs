//! What is not recorded, told to a person line by line.

use crate::cli::{printable, tell};

/// Lines that are told; the others are counted.
const NAMED_MAX: u64 = 100;

/// Lines about what is left out. They quote what others wrote, so each stays one line whatever that is.
#[derive(Debug, Default)]
pub(crate) struct Named {
    told: u64,
    more: u64,
}

impl Named {
    /// Tells a line, or counts it if that were too many. Returns true if it was told.
    pub(crate) fn tell(&mut self, line: &str) -> bool {
        let fits = self.told < NAMED_MAX;
        if fits {
            self.told += 1;
            tell(&printable(line));
        } else {
            self.more += 1;
        }
        fits
    }

    /// Tells how many were only counted.
    pub(crate) fn end(&self) {
        if self.more > 0 {
            tell(&format!("and {} more, which are not named", self.more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_are_told_and_the_others_counted() {
        let mut named = Named::default();
        let told = (0..150)
            .filter(|at| named.tell(&format!("line {at}")))
            .count();
        assert_eq!((told, named.more), (100, 50));
    }
}
