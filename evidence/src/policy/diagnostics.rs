//! Reasons why policies are refused, with Cedar's own words and their places.

use cedar_policy::ffi::DetailedError;
use thiserror::Error;

/// The reason why texts are not an evidence policy. Lists are sorted by place; a line and a column,
/// counted from 1, stand before what Cedar knows the place of.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The policies are too long, or there are none.
    #[error("the policies have {found} bytes where 1 to {max} are allowed")]
    PoliciesLength {
        /// Bytes found.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// The schema is too long, or there is none.
    #[error("the schema has {found} bytes where 1 to {max} are allowed")]
    SchemaLength {
        /// Bytes found.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// Too many policies, or none.
    #[error("{found} policies where 1 to {max} are allowed")]
    Count {
        /// Policies found.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// Expressions or types nest too deeply.
    #[error("{text} nests {found} levels deep or more where {max} are allowed; split it up")]
    Nesting {
        /// The text: policies or schema.
        text: &'static str,
        /// True if the text is the schema's.
        is_schema: bool,
        /// Levels found; counting stops soon after the first one too many.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// Types of the schema grow too large when they are written out.
    #[error(
        "the schema's types have more than {nodes_max} parts or {levels_max} levels when they are \
         written out"
    )]
    Types {
        /// Most parts allowed.
        nodes_max: u64,
        /// Most levels allowed.
        levels_max: usize,
    },
    /// The schema allows more combinations of principal, action and resource than are checked.
    #[error(
        "the schema declares more than {max} combinations of principal, action and resource; \
         Deed asks with Agent and Resource only"
    )]
    Combinations {
        /// Most allowed.
        max: usize,
    },
    /// Checking the policies under the schema takes too much work.
    #[error(
        "checking the policies takes {found} units where {max} are allowed: they are checked for \
         {combinations} combinations of principal, action and resource, and the largest type of the \
         schema has {largest_type} parts; declare fewer actions, or smaller types"
    )]
    Check {
        /// Units found.
        found: u64,
        /// Most allowed.
        max: u64,
        /// Combinations that the schema declares.
        combinations: u64,
        /// Parts of the largest type when it is written out.
        largest_type: u64,
    },
    /// A pattern is too dear.
    #[error(
        "policy `{policy}`: `like {pattern:?}` takes up to {steps} steps where {max} are allowed: \
         shorten what stands behind a `*`"
    )]
    Like {
        /// The policy.
        policy: String,
        /// The pattern, cut.
        pattern: String,
        /// Steps on the longest text.
        steps: u64,
        /// Most allowed.
        max: u64,
    },
    /// A set is too large.
    #[error("policy `{policy}`: a set of {found} elements where {max} are allowed")]
    Set {
        /// The policy.
        policy: String,
        /// Elements found.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// An Intent can make the policies be asked too often.
    #[error(
        "finding out what an Intent lacks can take {found} evaluations where {max} are allowed: \
         compare approvals with fewer numbers, and do not calculate with them"
    )]
    Asks {
        /// Evaluations.
        found: u64,
        /// Most allowed.
        max: u64,
    },
    /// Judging costs too much.
    #[error(
        "judging an Intent can cost {units} units where {max} are allowed; policy `{policy}` takes \
         {of_policy} of them, and of its conditions `{most}` costs most, {of_most} each time"
    )]
    Cost {
        /// Units of the dearest judgement.
        units: u64,
        /// Most allowed.
        max: u64,
        /// The policy that takes most of them.
        policy: String,
        /// Units that it takes.
        of_policy: u64,
        /// The dearest of its conditions, cut.
        most: String,
        /// Units of it, each time that it is evaluated.
        of_most: u64,
    },
    /// Another version of the language.
    #[error(
        "the policies are for Cedar {found}, and this build reads Cedar {reads} and older ones of the \
         same major version"
    )]
    Version {
        /// As the set says, cut.
        found: String,
        /// The version that this build evaluates.
        reads: &'static str,
    },
    /// The policies are not Cedar.
    #[error("the policies cannot be read: {}", .0.join("; "))]
    Policies(Vec<String>),
    /// The schema is not Cedar.
    #[error("the schema cannot be read: {}", .0.join("; "))]
    Schema(Vec<String>),
    /// Some are templates.
    #[error("templates are not allowed, give each policy its own values: {}", .0.join("; "))]
    Templates(Vec<String>),
    /// An annotation that Deed does not know, or that it cannot read.
    #[error("annotations that Deed cannot use: {}", .0.join("; "))]
    Annotations(Vec<String>),
    /// The policies do not fit the schema.
    #[error("the policies are not valid under the schema: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl PolicyError {
    /// The single things that are wrong, one a line.
    #[must_use]
    pub fn diagnostics(&self) -> Vec<String> {
        match self {
            Self::Policies(list)
            | Self::Schema(list)
            | Self::Templates(list)
            | Self::Annotations(list)
            | Self::Invalid(list) => list.clone(),
            _ => vec![self.to_string()],
        }
    }

    /// True if the schema is at fault; otherwise the policies are.
    #[must_use]
    pub const fn is_of_schema(&self) -> bool {
        matches!(
            self,
            Self::SchemaLength { .. }
                | Self::Nesting {
                    is_schema: true,
                    ..
                }
                | Self::Types { .. }
                | Self::Combinations { .. }
                | Self::Check { .. }
                | Self::Schema(_)
        )
    }

    /// As its text, cut to a size that an answer has room for.
    #[must_use]
    pub fn summary(&self) -> String {
        let text = self.to_string();
        match text.char_indices().nth(SUMMARY_CHARACTERS) {
            None => text,
            Some((end, _)) => format!(
                "{}... ({} in all; `deed policy check` lists them)",
                &text[..end],
                self.diagnostics().len()
            ),
        }
    }
}

/// A screen of text.
const SUMMARY_CHARACTERS: usize = 2_000;

/// Cedar's diagnostics of `text`, sorted by place, each once.
pub(super) fn list<E: Into<DetailedError>>(
    text: &str,
    errors: impl IntoIterator<Item = E>,
) -> Vec<String> {
    let mut found = Vec::new();
    for error in errors {
        flatten(error.into(), &mut found);
    }
    found.sort();
    found.dedup();
    let lines = found.into_iter().map(|(start, message)| match start {
        Some(start) => {
            let (line, column) = place(text, start);
            format!("{line}:{column}: {message}")
        }
        None => message,
    });
    lines.collect()
}

/// An error and those that it brings along, with the first place that it names.
fn flatten(error: DetailedError, into: &mut Vec<(Option<usize>, String)>) {
    let labels = error.source_locations.iter();
    let start = labels.map(|label| label.loc.start).min();
    let mut message = error.message;
    let labels = error.source_locations.into_iter();
    for label in labels.filter_map(|label| label.label) {
        message = format!("{message}: {label}");
    }
    if let Some(help) = error.help {
        message = format!("{message} ({help})");
    }
    into.push((start, message));
    for related in error.related {
        flatten(related, into);
    }
}

/// Line and column of a byte, both from 1 on; columns are characters.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn places_are_counted_from_one_in_characters() {
        let text = "äb\nc";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, 2), (1, 2));
        assert_eq!(place(text, 4), (2, 1));
        assert_eq!(place(text, 5), (2, 2));
        // Inside of a character, and behind the end: the end.
        assert_eq!(place(text, 1), (2, 2));
        assert_eq!(place(text, 99), (2, 2));
    }
}
