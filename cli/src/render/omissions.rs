//! Records that are left out, reported line by line.

use super::{printable, report};

/// The number of lines that are reported; the others are counted.
const NAMED_MAX: u64 = 100;

/// Reports of records that are left out. They quote what others wrote, so each is kept on one line.
#[derive(Debug, Default)]
pub(crate) struct Omissions {
    reported: u64,
    more: u64,
}

impl Omissions {
    /// Reports a line, or counts it if there were too many. Returns true if it was reported.
    pub(crate) fn report(&mut self, line: &str) -> bool {
        let fits = self.reported < NAMED_MAX;
        if fits {
            self.reported += 1;
            report(&printable(line));
        } else {
            self.more += 1;
        }
        fits
    }

    /// Reports how many were only counted.
    pub(crate) fn end(&self) {
        if self.more > 0 {
            report(&format!("and {} more, which are not named", self.more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_are_told_and_the_others_counted() {
        let mut named = Omissions::default();
        let reported = (0..150)
            .filter(|at| named.report(&format!("line {at}")))
            .count();
        assert_eq!((reported, named.more), (100, 50));
    }
}
