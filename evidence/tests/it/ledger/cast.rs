//! Those who speak.

use super::*;

const fn who(seed: u8, role: KeyRole, producer: &'static str, controller: &'static str) -> Who {
    let seed = Some(seed);
    Who {
        seed,
        role,
        producer,
        controller,
    }
}

/// The ledger's owner.
pub(crate) const AUTHORITY: Who = who(2, KeyRole::Unspecified, statement::AUTHORITY_PRODUCER, "");

/// Opens and closes tasks.
pub(crate) const PLATFORM: Who = who(
    10,
    KeyRole::Platform,
    "https://example.org/platform",
    "https://example.org/teams/operations",
);

/// Acts.
pub(crate) const AGENT: Who = who(
    11,
    KeyRole::Agent,
    "spiffe://example.org/agent/one",
    "https://example.org/teams/agents",
);

/// Acts for the first one.
pub(crate) const HELPER: Who = who(
    12,
    KeyRole::Agent,
    "spiffe://example.org/agent/two",
    "https://example.org/teams/helpers",
);

/// Approves.
pub(crate) const APPROVER: Who = who(
    13,
    KeyRole::Approver,
    "https://example.org/people/ann",
    "https://example.org/people/ann",
);

/// Approves, and has the agent's controller.
pub(crate) const COLLEAGUE: Who = who(
    14,
    KeyRole::Approver,
    "https://example.org/people/cem",
    "https://example.org/teams/agents",
);

/// Decides by rules.
pub(crate) const ENGINE: Who = who(
    15,
    KeyRole::PolicyEngine,
    "https://example.org/engine",
    "https://example.org/teams/rules",
);

/// Sees effects.
pub(crate) const DOWNSTREAM: Who = who(
    16,
    KeyRole::DownstreamSystem,
    "https://bank.example/refunds",
    "https://bank.example",
);

/// Brings in what others recorded.
pub(crate) const IMPORTER: Who = who(
    17,
    KeyRole::Importer,
    "https://example.org/importer",
    "https://example.org/teams/operations",
);

/// A second approver.
pub(crate) const SECOND: Who = who(
    18,
    KeyRole::Approver,
    "https://example.org/people/ben",
    "https://example.org/people/ben",
);

/// Nobody signs what it says.
pub(crate) const ANYBODY: Who = Who {
    seed: None,
    role: KeyRole::Unspecified,
    producer: "https://example.org/anybody",
    controller: "",
};

/// Everybody whose key [`Ledger::new`] registers.
pub(crate) const CAST: [Who; 9] = [
    PLATFORM, AGENT, HELPER, APPROVER, COLLEAGUE, ENGINE, DOWNSTREAM, IMPORTER, SECOND,
];

impl Who {
    pub(crate) fn key(self) -> Option<KeyId> {
        let seed = self.seed?;
        Some(key_id(signing_key(seed).public_key()))
    }

    /// The resources that are its own: all of them, for a system.
    pub(crate) fn resources(self) -> Vec<String> {
        match self.role {
            KeyRole::DownstreamSystem => vec!["*".to_owned()],
            _ => Vec::new(),
        }
    }

    /// The session that it speaks in.
    pub(crate) fn session(self) -> SessionId {
        SessionId::derive(ledger_id(), self.producer, &Nonce::new([self.number(); 16]))
    }

    pub(super) fn number(self) -> u8 {
        self.seed.unwrap_or(0xee)
    }

    /// The task that it opens as this number.
    pub(crate) fn task_id(self, task: u8) -> TaskId {
        TaskId::derive(ledger_id(), self.producer, &Nonce::new([task; 16]))
    }
}
