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
//! | TLS, client certificates, tokens | [`Access`] |
//! | keys in files, and signing with them | [`key`], [`Signing`] |
//! | statements with their sequence numbers | [`Session`] |
//! | the same on disk, for a process that may be killed | [`StoredSession`] |
//! | who speaks for whom, and whose signature covers what | [`ProvenTrust`], [`ProvenBatched`] |
//! | prompts, results and files beside the log | [`ContentClient`] |
//! | acting on clearance alone, by types | [`Task`], [`Cleared`] |
//! | an Intent's clearance, a task judged from its entries, findings, search | [`Ledger::await_clearance`], [`Ledger::judged_task`], [`Ledger::findings`], [`Ledger::search`] |
//! | a whole ledger, checked entry by entry | [`Audit`], [`EntryStream`] |
//! | what is trusted, on disk | [`StateDir`], [`TrustStore`] |
//! | statements as JSON | [`statement_json`] |
//! | chat transcripts as statements | [`chat`] |
//! | records of other systems' logs, from the files that they come in | [`records`] |
//!
//! ```
//! use deed_client::{Header, Ledger, Made, Options, Session, StateDir, random_nonce};
//! use deed_evidence::{Nonce, WireError};
//! use deed_proto::v1::{RiskTier, TaskOpened, statement::Body};
//!
//! /// The first statement of a task. Its id follows from the producer and a nonce, so that nobody
//! /// else can open it.
//! fn task_opened(session: &mut Session, nonce: Nonce) -> Result<Made, WireError> {
//!     let header = Header {
//!         task: Some(session.task_id(&nonce)),
//!         ..Header::default()
//!     };
//!     let opened = TaskOpened {
//!         requested_by: "somebody@example.org".to_owned(),
//!         risk_tier: RiskTier::Low.into(),
//!         nonce: nonce.as_bytes().to_vec().into(),
//!         ..TaskOpened::default()
//!     };
//!     session.make(&header, Body::TaskOpened(opened))
//! }
//!
//! async fn record() -> Result<(), Box<dyn std::error::Error>> {
//!     let options = Options::new("http://127.0.0.1:7733", "payments")
//!         .state(StateDir::new("/var/lib/agent/deed"));
//!     let ledger = Ledger::connect(options).await?;
//!     let mut session = Session::begin(ledger.ledger_id(), "spiffe://example.org/agent")?;
//!     let made = task_opened(&mut session, random_nonce()?)?;
//!     let answer = ledger.append(&[made.payload]).await?;
//!     for item in &answer.items {
//!         println!("{item:?}");
//!     }
//!     ledger.flush().await?;
//!     Ok(())
//! }
//! #
//! # // No server is there, but what would be sent to it is made.
//! # let id = deed_evidence::LedgerId::new(deed_tlog::Hash::new([1; 32]));
//! # let mut session = Session::begin(id, "spiffe://example.org/agent").unwrap();
//! # let made = task_opened(&mut session, Nonce::new([2; 16])).unwrap();
//! # assert_eq!(made.sequence, deed_evidence::Sequence::FIRST);
//! # let _ = record;
//! ```
//!
//! With a key, statements that wait are signed once, as a batch. A session on disk loses no statement and
//! sends none twice:
//!
//! ```
//! use std::{path::Path, sync::Arc};
//!
//! use deed_client::{
//!     AppenderOptions, Ledger, Signing, StateDir, Statement, StoredSession, Sync, key,
//! };
//!
//! async fn go_on(
//!     ledger: &Ledger,
//!     state: &StateDir,
//!     made: fn(&StoredSession) -> Vec<Statement>,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let signing = Signing::Batch(Arc::new(key::read_private(Path::new("agent.pem"))?));
//!     let producer = "spiffe://example.org/agent";
//!     let (id, name) = (ledger.ledger_id(), "nightly");
//!     let mut stored = StoredSession::open(state, id, name, producer, &signing, Sync::Each)?;
//!     // Statements of an earlier process come first, then new ones: kept before they are sent.
//!     let new = made(&stored);
//!     stored.append(&new)?;
//!     let appender = ledger.appender(AppenderOptions {
//!         signing,
//!         ..AppenderOptions::default()
//!     });
//!     let waiting: Vec<Statement> = stored.unacknowledged().cloned().collect();
//!     let answer = appender.send(waiting).await?.await?;
//!     if answer.items.iter().all(|item| item.receipt().is_some()) {
//!         let (next, _) = stored.next();
//!         stored.acknowledge(next)?;
//!     }
//!     appender.finish().await?;
//!     Ok(())
//! }
//! # let _ = go_on;
//! ```
//!
//! Architecture invariant: what makes an answer believable is decided by `deed-tlog` and
//! `deed-evidence` alone; this crate carries bytes to them and keeps what they found.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod access;
mod actions;
mod answer;
mod append;
mod appender;
mod attempts;
mod audit;
mod author;
mod behind;
pub mod chat;
mod connect;
mod connection;
mod consistency;
mod content;
mod entries;
mod error;
mod follow;
mod head;
mod head_tracker;
pub mod key;
mod ledger;
mod link_heads;
mod options;
mod proofs;
mod read;
pub mod records;
mod retry;
mod rpc;
mod session;
mod shown;
mod signing;
pub mod statement_json;
mod stored_session;
mod trust;

pub use access::{Access, Bearer, Token, TokenError};
pub use actions::{
    ActError, Basis, ClearanceWatch, Cleared, Difference, FindingFilter, FindingsPage,
    FindingsWatch, JudgedTask, ProvenStatement, ProvenTask, Search, SearchTerms, SeenFindings,
    SignatureCheck, SignatureChecker, Standing, Task, VouchedEntry,
};
pub use answer::{Answer, Appended, Receipt};
pub use appender::{Appender, AppenderOptions, Pending};
pub use audit::{Audit, AuditError, Audited};
pub use author::{AuthorError, KnownAuthor, TrustFileError, TrustHistory};
pub use connection::{Connection, REQUEST_BYTES_MAX, REQUEST_ITEMS_MAX, Transport};
pub use content::{CONTENT_INLINE_BYTES_MAX, ContentClient, ContentState};
pub use entries::EntryStream;
pub use error::{AnswerError, Error, ErrorKind, InputError};
pub use head::{Head, SignedHead};
pub use ledger::Ledger;
pub use options::{Event, Observer, Options, Verification};
pub use proofs::{ProvenBatched, ProvenSession, ProvenTrust};
pub use read::{HeadWatch, Leaf, ProvenConsistency, ProvenEntry, ProvenLeaf};
pub use retry::{Backoff, RetryPolicy};
pub use session::{Header, Made, RandomError, Session, random_nonce};
pub use signing::{Signing, Statement};
pub use stored_session::{SessionError, StoredAbout, StoredSession, Sync};
pub use trust::{
    Advance, ForkEvidence, ForkKind, KnownKeys, Pin, StateDir, StoreError, TrustError, TrustStore,
};
