//! The changes that a liar makes to answers.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use deed_proto::v1;
use tonic::Status;

use super::Liar;

/// The answer that a client gets, or the status in place of it.
pub type Answer<A> = Result<A, Status>;

type Change<Q, A> = Arc<dyn Fn(&Q, Answer<A>) -> Answer<A> + Send + Sync>;

/// A lie about one rpc, if there is one.
pub(super) struct Lie<Q, A>(Mutex<Option<Change<Q, A>>>);

impl<Q, A> Default for Lie<Q, A> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<Q, A> Lie<Q, A> {
    fn set(&self, change: Option<Change<Q, A>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = change;
    }

    /// Returns the answer as the lie changes it.
    pub(super) fn told(&self, request: &Q, answer: Answer<A>) -> Answer<A> {
        let change = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match change {
            Some(change) => change(request, answer),
            None => answer,
        }
    }
}

macro_rules! lies {
    ($($rpc:ident($request:ty) -> $answer:ty, $what:literal;)*) => {
        /// The lies about all rpcs, and the rpcs that were called.
        #[derive(Default)]
        pub(super) struct Lies {
            $(pub(super) $rpc: Lie<$request, $answer>,)*
            asked: Mutex<Vec<&'static str>>,
            withheld: Mutex<BTreeSet<&'static str>>,
        }

        impl Liar {
            $(
                #[doc = concat!("Changes ", $what, " of the rpc.")]
                pub fn $rpc(
                    &self,
                    lie: impl Fn(&$request, Answer<$answer>) -> Answer<$answer> + Send + Sync + 'static,
                ) {
                    self.lies.$rpc.set(Some(Arc::new(lie)));
                }
            )*

            /// Removes all lies. Rpcs that were withheld go to the server again.
            pub fn repent(&self) {
                $(self.lies.$rpc.set(None);)*
                self.lies.withheld().clear();
            }

            /// Names of all rpcs.
            pub const RPCS: &[&str] = &[$(stringify!($rpc)),*];
        }
    };
}

lies! {
    append(v1::AppendRequest) -> v1::AppendResponse, "the answer";
    append_stream(v1::AppendRequest) -> v1::AppendResponse, "each answer";
    create_ledger(v1::CreateLedgerRequest) -> v1::CreateLedgerResponse, "the answer";
    list_ledgers(v1::ListLedgersRequest) -> v1::ListLedgersResponse, "the answer";
    get_ledger(v1::GetLedgerRequest) -> v1::LedgerInfo, "the answer";
    get_tree_head(v1::GetTreeHeadRequest) -> v1::TreeHeadResponse, "the answer";
    watch_tree_heads(v1::WatchTreeHeadsRequest) -> v1::TreeHeadResponse, "each message";
    get_inclusion_proof(v1::GetInclusionProofRequest) -> v1::InclusionProofResponse, "the answer";
    get_consistency_proof(v1::GetConsistencyProofRequest) -> v1::ConsistencyProofResponse,
        "the answer";
    get_entries(v1::GetEntriesRequest) -> Vec<v1::GetEntriesResponse>, "all messages";
    get_batch_proof(v1::GetBatchProofRequest) -> v1::GetBatchProofResponse, "the answer";
    get_trust_chain(v1::GetTrustChainRequest) -> Vec<v1::GetTrustChainResponse>, "all messages";
    get_log_keys(v1::GetLogKeysRequest) -> Vec<v1::GetLogKeysResponse>, "all messages";
    get_session(v1::GetSessionRequest) -> v1::SessionInfo, "the answer";
    await_clearance(v1::AwaitClearanceRequest) -> v1::ClearanceResponse, "each message";
    request_task_receipt(v1::RequestTaskReceiptRequest) -> v1::RequestTaskReceiptResponse,
        "the answer";
    get_task(v1::GetTaskRequest) -> Vec<v1::GetTaskResponse>, "all messages";
    search(v1::SearchRequest) -> Vec<v1::SearchResponse>, "all messages";
    list_findings(v1::ListFindingsRequest) -> v1::ListFindingsResponse, "the answer";
    watch_findings(v1::WatchFindingsRequest) -> v1::WatchFindingsResponse, "each message";
    put_content(Vec<v1::PutContentRequest>) -> v1::PutContentResponse, "the answer";
    get_content(v1::GetContentRequest) -> Vec<v1::GetContentResponse>, "all messages";
    erase_content(v1::EraseContentRequest) -> v1::EraseContentResponse, "the answer";
}

impl Lies {
    pub(super) fn ask(&self, rpc: &'static str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(rpc);
    }

    pub(super) fn asked(&self) -> Vec<&'static str> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    pub(super) fn withhold(&self, rpc: &'static str) {
        assert!(Liar::RPCS.contains(&rpc), "there is no rpc {rpc}");
        self.withheld().insert(rpc);
    }

    pub(super) fn withholds(&self, rpc: &str) -> bool {
        self.withheld().contains(rpc)
    }

    fn withheld(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lies")
            .field("asked", &self.asked())
            .finish_non_exhaustive()
    }
}
