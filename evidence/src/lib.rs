//! Proof of action: what statements say, and what makes them acceptable.
//!
//! | module | holds |
//! |---|---|
//! | [`statement`] | parsing a payload: canonical form, the rules of each field, the header |
//! | [`entry`] | the preimage of a leaf: building, parsing, hashing |
//! | [`genesis`] | a ledger's first entry and its id |
//! | [`signature`] | what is signed, with which key: DSSE, key ids, proofs of possession |
//! | [`batch`] | one signature for many statements: manifests and paths |
//! | [`session`] | strict sequence: what a session takes next, and from whom |
//! | [`uri`] | the canonical form of URIs that name producers and controllers |
//! | [`trust`] | who speaks for whom: the state that the trust statements lead to |
//! | [`policy`] | which evidence an action needs: Cedar policies, and what they say of an Intent |
//! | [`commitment`] | salted digests of contents that are not in the log |
//! | [`assess`] | what the entries amount to: tasks, grants, acts, findings |
//! | [`replay`] | a whole ledger judged and assessed again from its entries |
//! | [`receipt`] | checking what a server answered against what was sent |
//!
//! Architecture invariant: nothing here reads a clock, draws a random number, or touches a file,
//! a socket or the environment. The server, the client and an offline verifier call the same
//! functions and so cannot disagree.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod assess;
pub mod batch;
pub mod commitment;
pub mod entry;
pub mod genesis;
mod ids;
mod name;
pub mod policy;
pub mod receipt;
pub mod replay;
mod schema;
pub mod session;
pub mod signature;
pub mod statement;
mod text;
pub mod trust;
pub mod uri;
mod wire;

pub use ids::{
    CommitmentDigest, HoldId, KeyId, KeyIdForm, LedgerId, Micros, Nonce, PayloadDigest,
    PrincipalHash, Sequence, SessionId, TaskId,
};
pub use wire::{Problem, WireError};

/// Longest payload in bytes. Leaves room in an entry of [`ENTRY_BYTES_MAX`] for everything that
/// the server adds (at most 4 KiB, also in later versions).
pub const PAYLOAD_BYTES_MAX: usize = 60_000;

/// Longest entry in bytes: C2SP tlog-tiles writes its length as a u16.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// The newest rules that this version knows (`Genesis.rules_version`, `PolicySet.rules_version`);
/// it knows those before them too. From [`RULES_ASSESSED`] on entries are assessed.
pub const RULES_VERSION: u32 = 2;

/// The first rules under which entries are assessed: grants, clearance, findings.
pub const RULES_ASSESSED: u32 = 2;
