//! Entry points for benches and fuzzing: parts of the server that are otherwise private.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest, LedgerId, Micros, Sequence, SessionId,
    assess::{Owner, Timer, cells::CellKey},
    commitment::{Salt, digest_of},
    genesis::Genesis,
    session::Session,
    trust::TrustState,
};
use deed_proto::v1;
use deed_tlog::{Hash, RightEdge};
use parking_lot::RwLock;

use crate::{
    admission::{Admission, AdmittedBatch, Sender},
    clock::SystemClock,
    content::{Begun, ContentStore, LedgerRef, NewContent},
    ledger::{
        step::{LedgerState, Placement, SharedTrust, StateReader},
        write::write_records,
    },
    options::ContentOptions,
    store::{Batch, LedgerNumber, Store, StoreError, StoreOptions, read::Run},
};

/// A batch of statements that were admitted.
pub struct Admitted(AdmittedBatch);

/// Reads a ledger's id and an admitted batch, which must be written back to the same bytes.
///
/// # Panics
/// If it is not.
pub fn fuzz_admitted_batch(data: &[u8]) {
    let Some((id, bytes)) = data.split_first_chunk() else {
        return;
    };
    let id = LedgerId::new(Hash::new(*id));
    if let Ok(batch) = AdmittedBatch::decode(bytes, id) {
        assert_eq!(batch.encode().as_deref(), Ok(bytes));
        for payload in batch.payloads() {
            assert!(!batch.payload(payload).is_empty());
        }
    }
}

/// A ledger's trust state.
#[derive(Clone)]
pub struct Trust {
    id: LedgerId,
    state: SharedTrust,
}

impl Trust {
    /// Returns the state of a ledger that has its genesis entry alone.
    #[must_use]
    pub fn new(id: LedgerId, genesis: &Genesis) -> Self {
        Self {
            state: Arc::new(RwLock::new(TrustState::genesis(id, genesis))),
            id,
        }
    }

    /// Admits envelopes, all of which must be acceptable. Signatures are verified on this thread.
    ///
    /// # Panics
    /// Panics if an envelope is rejected.
    #[must_use]
    pub fn admit(&self, envelopes: &[v1::Envelope]) -> Admitted {
        let admission = Admission {
            ledger_id: self.id,
            trust: &self.state,
            sender: &Sender::anybody(),
            received_at: Micros::new(1),
            holds_contents: false,
            log_signers: None,
        };
        let (batch, rejected) = admission.admit_here(envelopes);
        assert!(rejected.is_empty(), "{rejected:?}");
        Admitted(batch)
    }
}

/// The step of one ledger, alone or with a store behind it.
pub struct Step {
    state: LedgerState,
}

/// The records of a ledger in which nothing has happened.
struct Nothing;

impl StateReader for Nothing {
    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn session(&mut self, _: &SessionId) -> Result<Option<(Session, Run)>, StoreError> {
        Ok(None)
    }

    fn run_before(&mut self, _: &SessionId, _: Sequence) -> Result<Option<Run>, StoreError> {
        Ok(None)
    }

    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError> {
        unreachable!("leaf {leaf}: nothing is asked for twice")
    }

    fn cell(&mut self, _: &CellKey) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn due(&mut self, _: &Timer) -> Result<Option<Owner>, StoreError> {
        Ok(None)
    }

    fn timers_after(
        &mut self,
        _: Option<&Timer>,
        _: usize,
    ) -> Result<Vec<(Timer, Owner)>, StoreError> {
        Ok(Vec::new())
    }
}

impl Step {
    /// Returns the step of an empty ledger.
    #[must_use]
    pub fn new(trust: &Trust) -> Self {
        let state = Arc::clone(&trust.state);
        Self {
            state: LedgerState::new(trust.id, RightEdge::new(), Micros::new(0), state),
        }
    }

    /// Makes one turn over these statements and returns the new root.
    ///
    /// # Panics
    /// Panics if a statement is not recorded.
    pub fn turn(&mut self, batches: &[Admitted]) -> deed_tlog::Hash {
        self.records(batches);
        self.state.edge().root()
    }

    /// Makes one turn, and writes everything that it gives to `store` and syncs it.
    ///
    /// # Panics
    /// Panics if a statement is not recorded, or the store fails.
    pub fn turn_into(&mut self, store: &SyncedStore, batches: &[Admitted]) {
        let records = self.records(batches);
        let mut batch = Batch::default();
        write_records(&store.0, &mut batch, LedgerNumber(0), &records);
        store.0.commit(batch).expect("the bench's disk works");
    }

    fn records(&mut self, batches: &[Admitted]) -> crate::ledger::step::Records {
        let mut turn = self.state.begin(&mut Nothing).expect("nothing can fail");
        for batch in batches {
            let placements = self
                .state
                .apply(&mut turn, &batch.0, &mut Nothing)
                .expect("nothing can fail");
            assert!(placements.iter().all(|placement| matches!(
                placement,
                Placement::Recorded { .. } | Placement::Linked(_)
            )));
        }
        self.state.finish(turn).expect("nothing can fail")
    }
}

/// A store that syncs every turn.
pub struct SyncedStore(Arc<Store>);

impl SyncedStore {
    /// Opens a store below `data_dir`.
    ///
    /// # Panics
    /// Panics if it cannot be opened.
    #[must_use]
    pub fn open(data_dir: &Path) -> Self {
        let store = Store::create(data_dir, &StoreOptions::default());
        Self(Arc::new(store.expect("the bench's disk works")))
    }
}

/// A content store on disk.
pub struct Contents {
    contents: Arc<ContentStore>,
    ledger: LedgerRef,
    runtime: tokio::runtime::Runtime,
}

impl Contents {
    /// Opens the contents of a store below `data_dir`.
    ///
    /// # Panics
    /// Panics if it cannot be opened.
    #[must_use]
    pub fn open(data_dir: &Path) -> Self {
        let store = Store::create(data_dir, &StoreOptions::default());
        let store = Arc::new(store.expect("the bench's disk works"));
        let options = ContentOptions {
            key_file: data_dir.join("content.key"),
            ..ContentOptions::new(data_dir)
        };
        let contents = ContentStore::open(data_dir, &options, 0, &store, Arc::new(SystemClock));
        Self {
            contents: contents.expect("the bench's disk works"),
            ledger: LedgerRef {
                number: LedgerNumber(0),
                id: LedgerId::new(deed_tlog::leaf_hash(b"bench")),
            },
            runtime: tokio::runtime::Runtime::new().expect("a runtime starts"),
        }
    }

    /// Holds these contents, in concurrent calls of one content each, as appends do.
    ///
    /// # Panics
    /// Panics if a content is not held.
    pub fn hold(&self, contents: Vec<(Salt, Bytes)>) {
        self.runtime.block_on(async {
            let mut asked = Vec::with_capacity(contents.len());
            for (salt, bytes) in contents {
                let (contents, ledger) = (Arc::clone(&self.contents), self.ledger);
                asked.push(tokio::spawn(async move {
                    let gate = contents.enter(ledger.number).await;
                    let new = NewContent {
                        digest: digest_of(&salt, &bytes),
                        salt,
                        bytes,
                        principal: Arc::from("bench"),
                    };
                    contents.hold(&gate, vec![new], ledger).await
                }));
            }
            for held in asked {
                let new = held.await.expect("no panic").expect("it is held");
                assert_eq!(new, 1, "each content is new");
            }
        });
    }

    /// Uploads one content in one piece.
    ///
    /// # Panics
    /// Panics if the content is not held afterwards.
    pub fn put(&self, salt: &Salt, bytes: &Bytes) -> CommitmentDigest {
        let digest = digest_of(salt, bytes);
        let size = bytes.len() as u64;
        let principal = Arc::from("bench");
        let begun = self
            .contents
            .begin_upload(self.ledger, digest, salt, size, &principal);
        let Ok(Begun::Upload(mut upload)) = begun else {
            panic!("each content is new");
        };
        upload.write(bytes).expect("the bench's disk works");
        self.runtime.block_on(async {
            let gate = self.contents.enter(self.ledger.number).await;
            let held = self.contents.finish_upload(&gate, *upload).await;
            assert!(held.expect("it is held"), "each content is new");
        });
        digest
    }

    /// Reads a content and returns its length in bytes.
    ///
    /// # Panics
    /// Panics if the content does not open its commitment.
    #[must_use]
    pub fn read(&self, digest: CommitmentDigest) -> usize {
        let reader = self.contents.open_content(self.ledger, digest);
        let mut reader = reader.expect("it is held");
        let mut len = 0;
        while let Some(piece) = reader.next_piece().expect("it is sound") {
            len += piece.bytes.len();
        }
        len
    }
}
