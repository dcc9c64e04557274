//! Trust: who speaks for whom by the trust statements of a ledger.
//!
//! [`TrustStatement`] is one of them, [`TrustState`] what all of them so far amount to, and
//! [`TrustChain`] rebuilds the trust state from a ledger's entries without believing the ledger. The
//! server keeps its trust state with the same two functions, [`TrustState::judge`] and
//! [`TrustState::apply`]. [`LogKeys`] says which key signs which tree heads.
//!
//! All times are effective time: the highest receive time of the entries so far.

mod chain;
mod log_keys;
mod policy_set;
mod record;
mod refusal;
mod speaker;
mod state;
mod statement;

pub use chain::{ChainError, LogKeyChain, TrustChain};
pub use log_keys::{HeadError, LOG_KEYS_MAX, LogKey, LogKeys, Signers};
pub use record::{Hold, KeyRecord, PolicyInForce, Reference};
pub use refusal::{ErasureRefusal, KeyRefusal, TrustRefusal};
pub use speaker::{Speaker, SpeakerRefusal};
pub use state::TrustState;
pub use statement::{HoldScope, KeyRegistration, TrustStatement};

pub use crate::entry::TrustLink;
