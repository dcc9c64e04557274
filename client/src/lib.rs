//! A client of Deed that does not take the server's word.
//!
//! [`Ledger::connect`] pins a ledger's log key and id at first use and keeps the newest tree head
//! that it verified, per origin, in a directory. From then on every answer is checked before it
//! is handed out: the head's signature, its consistency with what was trusted before, every
//! receipt against the payload that was sent, every inclusion proof that comes along. A head that
//! contradicts the trusted one is kept as fork evidence, reported, and never trusted.
//!
//! | what | where |
//! |---|---|
//! | connecting, one request at a time, reading | [`Ledger`] |
//! | a pipelined stream that survives lost connections | [`Appender`] |
//! | statements with their sequence numbers | [`Session`] |
//! | what is trusted, on disk | [`StateDir`], [`TrustStore`] |
//! | statements as JSON | [`statement_json`] |
//! | chat transcripts as statements | [`chat`] |
//!
//! ```no_run
//! # async fn example(intent: deed_proto::v1::statement::Body) -> Result<(), Box<dyn std::error::Error>> {
//! use deed_client::{Header, Ledger, Options, Session, StateDir};
//!
//! let options = Options::new("http://127.0.0.1:7733", "payments")
//!     .state(StateDir::new("/var/lib/agent/deed"));
//! let ledger = Ledger::connect(options).await?;
//! let mut session = Session::begin(ledger.ledger_id(), "spiffe://example.org/agent")?;
//! let made = session.make(&Header::default(), intent)?;
//! let answer = ledger.append(&[made.payload]).await?;
//! ledger.flush().await?;
//! # let _ = answer; Ok(())
//! # }
//! ```
//!
//! Architecture invariant: what makes an answer believable is decided by `deed-tlog` and
//! `deed-evidence` alone; this crate carries bytes to them and keeps what they found.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod answer;
mod appender;
pub mod chat;
mod connection;
mod error;
mod head;
mod ledger;
mod options;
mod read;
mod retry;
mod session;
mod settle;
pub mod statement_json;
mod trust;

pub use answer::{Answer, Appended, Receipt};
pub use appender::{Appender, AppenderOptions, Pending};
pub use connection::{Connection, REQUEST_BYTES_MAX, REQUEST_ITEMS_MAX};
pub use error::{AnswerError, Error, ErrorKind, InputError};
pub use head::{Head, SignedHead};
pub use ledger::Ledger;
pub use options::{Event, Observer, Options, Verification};
pub use read::{HeadWatch, Leaf, ProvenConsistency, ProvenEntry, ProvenLeaf};
pub use retry::{Backoff, RetryPolicy};
pub use session::{Header, Made, RandomError, Session};
pub use trust::{
    Advance, ForkEvidence, ForkKind, Pin, StateDir, StoreError, TrustError, TrustStore,
};
