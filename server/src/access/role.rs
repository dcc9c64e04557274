//! Roles: what a principal may do in a ledger.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Stands for every ledger of the server, where a ledger's name is expected.
pub const EVERY_LEDGER: &str = "*";

/// A set of permissions in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Append statements and put contents.
    Append,
    /// Read entries, and everything that is derived from them.
    Read,
    /// Read contents too: it implies [`Role::Read`].
    Audit,
    /// Deliver statements that change who is trusted, and erase contents.
    Authority,
    /// Create ledgers and see all of them. Only for [`EVERY_LEDGER`].
    Admin,
}

impl Role {
    /// All roles, in the order in which they are printed.
    pub const ALL: [Self; 5] = [
        Self::Append,
        Self::Read,
        Self::Audit,
        Self::Authority,
        Self::Admin,
    ];

    /// Returns the role's word in commands and in access.json.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Read => "read",
            Self::Audit => "audit",
            Self::Authority => "authority",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no role.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no role; the roles are append, read, audit, authority and admin")]
pub struct NoSuchRole(String);

impl FromStr for Role {
    type Err = NoSuchRole;

    fn from_str(word: &str) -> Result<Self, NoSuchRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| NoSuchRole(word.to_owned()))
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Roles(u8);

impl Roles {
    pub(crate) fn insert(&mut self, role: Role) {
        self.0 |= Self::bit(role);
    }

    /// Returns true if this set contains `role`, or a role that implies it.
    pub(crate) fn give(self, role: Role) -> bool {
        let audit_reads = role == Role::Read && self.0 & Self::bit(Role::Audit) != 0;
        self.0 & Self::bit(role) != 0 || audit_reads
    }

    fn bit(role: Role) -> u8 {
        1 << role as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_roles_and_nothing_else_does() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for bad in ["", "Append", "write", "read,audit", "*"] {
            assert!(bad.parse::<Role>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_audit_implies_another_role() {
        for held in Role::ALL {
            let mut roles = Roles::default();
            roles.insert(held);
            for wanted in Role::ALL {
                let given = held == wanted || (held == Role::Audit && wanted == Role::Read);
                assert_eq!(roles.give(wanted), given, "{held} gives {wanted}");
            }
        }
    }
}
