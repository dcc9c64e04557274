//! The form of a ledger's name.

/// Longest name of a ledger in bytes.
const BYTES_MAX: usize = 63;

/// A ledger's name: 1 to 63 of `a-z 0-9 -`, without a hyphen at either end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerName<'a>(&'a str);

impl<'a> LedgerName<'a> {
    /// Parses a name; `None` if no ledger may have it.
    pub fn parse(name: &'a str) -> Option<Self> {
        let is_valid = (1..=BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        is_valid.then_some(Self(name))
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }
}
