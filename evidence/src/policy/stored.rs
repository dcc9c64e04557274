//! A set of policies as a PolicySet has it: texts, compiled when they are needed.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use thiserror::Error;

use super::{CEDAR_VERSION, EvidencePolicy, PolicyError};

/// The texts of a PolicySet. Clones share them, and what they were compiled to: that is done once, by
/// whoever asks first, and never where statements are parsed. Two are equal if their digests are.
#[derive(Clone)]
pub struct StoredPolicy(Arc<Stored>);

struct Stored {
    policies: String,
    schema: String,
    cedar_version: String,
    digest: [u8; 32],
    compiled: OnceLock<Result<EvidencePolicy, PolicyError>>,
}

impl StoredPolicy {
    /// Keeps the texts. Nothing is looked at.
    #[must_use]
    pub fn new(policies: &str, schema: &str, cedar_version: &str) -> Self {
        Self(Arc::new(Stored {
            digest: super::digest(policies, schema),
            policies: policies.to_owned(),
            schema: schema.to_owned(),
            cedar_version: cedar_version.to_owned(),
            compiled: OnceLock::new(),
        }))
    }

    /// As [`super::digest`] of the two texts.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// Bytes of both texts.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.0.policies.len() + self.0.schema.len()
    }

    /// Version of the Cedar language that the policies were validated with when they were set.
    #[must_use]
    pub fn cedar_version(&self) -> &str {
        &self.0.cedar_version
    }

    /// The policies, compiled: now, unless that was done before. It may take a fifth of a second.
    ///
    /// # Errors
    /// [`PolicyError`] as [`EvidencePolicy::compile`], and [`PolicyError::Version`] for a version of
    /// Cedar that this build does not read ([`reads`]).
    pub fn compiled(&self) -> Result<&EvidencePolicy, &PolicyError> {
        let compiled = self.0.compiled.get_or_init(|| {
            if !reads(self.cedar_version()) {
                return Err(PolicyError::Version {
                    found: super::shortened(self.cedar_version()),
                    reads: CEDAR_VERSION,
                });
            }
            EvidencePolicy::compile(&self.0.policies, &self.0.schema)
        });
        compiled.as_ref()
    }

    /// Returns true if [`StoredPolicy::compiled`] costs nothing any more.
    #[must_use]
    pub fn is_compiled(&self) -> bool {
        self.0.compiled.get().is_some()
    }

    /// Takes what the same texts were compiled to elsewhere.
    pub fn adopt(&self, policy: &EvidencePolicy) {
        if policy.digest() == self.0.digest && reads(self.cedar_version()) {
            // Whoever was first has the same.
            let _ = self.0.compiled.set(Ok(policy.clone()));
        }
    }
}

impl PartialEq for StoredPolicy {
    fn eq(&self, other: &Self) -> bool {
        (self.0.digest, self.cedar_version()) == (other.0.digest, other.cedar_version())
    }
}

impl Eq for StoredPolicy {}

impl fmt::Debug for StoredPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredPolicy")
            .field("digest", &hex::encode(self.0.digest))
            .field("cedar_version", &self.0.cedar_version)
            .finish()
    }
}

/// A policy in force by which this build cannot judge.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the evidence policy at leaf {leaf} is for Cedar {cedar_version}, and this build, which evaluates \
     Cedar {CEDAR_VERSION}, cannot read it: {reason}; an authority sets one that it reads with `deed \
     policy set`, or the build before this one is run again"
)]
pub struct UnreadablePolicy {
    /// The leaf that set it.
    pub leaf: u64,
    /// As the set says, cut.
    pub cedar_version: String,
    /// The reason, cut to fit a message.
    pub reason: String,
}

impl UnreadablePolicy {
    pub(crate) fn new(leaf: u64, policy: &StoredPolicy, error: &PolicyError) -> Self {
        Self {
            leaf,
            cedar_version: super::shortened(policy.cedar_version()),
            reason: super::shortened(&error.to_string()),
        }
    }
}

/// Returns true if this build is to read policies of a version of Cedar: those of its own major
/// version, up to its own. A minor version adds to the language and takes nothing from it; whether
/// that is so for a text is seen when it is compiled.
#[must_use]
pub fn reads(cedar_version: &str) -> bool {
    let parse = |version: &str| -> Option<(u32, u32)> {
        let (major, minor) = version.split_once('.')?;
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        Some((number(major)?, number(minor)?))
    };
    match (parse(cedar_version), parse(CEDAR_VERSION)) {
        (Some(found), Some(own)) => found.0 == own.0 && found.1 <= own.1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{DEFAULT_POLICIES, DEFAULT_SCHEMA};

    #[test]
    fn older_versions_of_the_same_major_one_are_read() {
        for (version, wanted) in [
            (CEDAR_VERSION, true),
            ("4.0", true),
            ("4.5", true),
            ("4.99", false),
            ("3.4", false),
            ("5.0", false),
            ("4", false),
            ("4.5.1", false),
            ("+4.5", false),
            ("", false),
        ] {
            assert_eq!(reads(version), wanted, "{version:?}");
        }
    }

    #[test]
    fn clones_are_compiled_together_and_only_when_asked() {
        let stored = StoredPolicy::new(DEFAULT_POLICIES, DEFAULT_SCHEMA, CEDAR_VERSION);
        let clone = stored.clone();
        assert!(!clone.is_compiled());
        assert_eq!(stored.compiled().unwrap().infos().len(), 5);
        assert!(clone.is_compiled());
    }

    #[test]
    fn what_was_compiled_elsewhere_is_taken_if_it_is_the_same() {
        let stored = StoredPolicy::new(DEFAULT_POLICIES, DEFAULT_SCHEMA, CEDAR_VERSION);
        let text = "forbid (principal, action, resource);";
        stored.adopt(&EvidencePolicy::compile(text, DEFAULT_SCHEMA).unwrap());
        assert!(!stored.is_compiled());
        stored.adopt(&EvidencePolicy::compile(DEFAULT_POLICIES, DEFAULT_SCHEMA).unwrap());
        assert!(stored.is_compiled());
    }

    #[test]
    fn another_version_is_an_error_that_names_both() {
        let stored = StoredPolicy::new(DEFAULT_POLICIES, DEFAULT_SCHEMA, "9.1");
        let words = stored.compiled().unwrap_err().to_string();
        assert!(
            words.contains("9.1") && words.contains(CEDAR_VERSION),
            "{words}"
        );
    }
}
