//! Regular expressions of a mapping.

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

/// Longest expression that is taken, and the most that it may take when it is compiled. Matching takes
/// time that is linear in the text.
const PATTERN_BYTES_MAX: usize = 4_096;
const PATTERN_MEMORY_MAX: usize = 1 << 20;

/// A regular expression, found anywhere in a text unless it says otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "an expression is longer than {PATTERN_BYTES_MAX} bytes"
            ));
        }
        let built = RegexBuilder::new(&text)
            .size_limit(PATTERN_MEMORY_MAX)
            .dfa_size_limit(PATTERN_MEMORY_MAX)
            .build();
        built.map(Self).map_err(|error| error.to_string())
    }
}

impl Pattern {
    pub(super) fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// Returns the text of its first group, or else all that it matches.
    pub(super) fn captured(&self, text: &str) -> Option<String> {
        let found = self.0.captures(text)?;
        let group = found.get(1).or_else(|| found.get(0))?;
        Some(group.as_str().to_owned())
    }
}
