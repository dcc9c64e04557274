//! Reads that wait until a ledger is as large as their caller has seen it.
//!
//! One server never publishes less than it has told a caller. But a caller may come from another
//! server that is further ahead, and then ask this one.

use std::{sync::Arc, time::Duration};

use deed_engine::{ledger::Ledger, pressure::RETRY_AFTER};
use deed_proto::v1;
use tokio::time::timeout;
use tonic::Request;

use crate::{
    access::{Caller, table::Method},
    context::{Context, stopping},
    status::ApiError,
};

/// Time that a read waits for a ledger to grow.
const GROWTH_WAIT: Duration = Duration::from_secs(5);

/// A request to read a ledger.
pub(super) trait ReadRequest {
    /// Returns the ledger's name, and the least number of leaves that it must have.
    fn ledger_of_size(&self) -> (&str, u64);
}

macro_rules! read_requests {
    ($($request:ident),* $(,)?) => {
        $(impl ReadRequest for v1::$request {
            fn ledger_of_size(&self) -> (&str, u64) {
                (&self.ledger, self.min_size)
            }
        })*
    };
}

read_requests!(
    AwaitClearanceRequest,
    GetBatchProofRequest,
    GetConsistencyProofRequest,
    GetEntriesRequest,
    GetLogKeysRequest,
    GetSessionRequest,
    GetTaskRequest,
    GetTreeHeadRequest,
    GetTrustChainRequest,
    ListFindingsRequest,
    SearchRequest,
    WatchFindingsRequest,
    WatchTreeHeadsRequest,
);

impl Context {
    /// Returns the caller, the ledger and the message of a read, as [`Context::ledger_of_size`].
    pub(super) async fn begin_read<R: ReadRequest>(
        &self,
        method: Method,
        request: Request<R>,
    ) -> Result<(Caller, Arc<Ledger>, R), ApiError> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let (name, min_size) = request.ledger_of_size();
        let ledger = self.ledger_of_size(&caller, method, name, min_size).await?;
        Ok((caller, ledger, request))
    }

    /// Returns a ledger as [`Context::ledger`] does, once it has published at least `min_size`
    /// leaves.
    ///
    /// # Errors
    /// As [`Context::ledger`]; [`ApiError::Behind`] if it has published fewer after five seconds.
    pub(super) async fn ledger_of_size(
        &self,
        caller: &Caller,
        method: Method,
        name: &str,
        min_size: u64,
    ) -> Result<Arc<Ledger>, ApiError> {
        let ledger = self.ledger(caller, method, name).await?;
        self.grown(&ledger, min_size, GROWTH_WAIT).await?;
        Ok(ledger)
    }

    /// Waits, for `wait` at most, until a ledger has published at least `min_size` leaves.
    async fn grown(&self, ledger: &Ledger, min_size: u64, wait: Duration) -> Result<(), ApiError> {
        if ledger.readable().size().get() >= min_size {
            return Ok(());
        }
        let mut heads = ledger.watch();
        let grown = heads.wait_for(|readable| readable.size().get() >= min_size);
        let grown = tokio::select! {
            biased;
            () = self.stopped() => return Err(stopping()),
            grown = timeout(wait, grown) => grown.map(|grown| grown.is_ok()),
        };
        match grown {
            Ok(true) => Ok(()),
            Ok(false) => Err(stopping()),
            Err(_) => Err(ApiError::Behind {
                size: ledger.readable().size(),
                min_size,
                retry_after: RETRY_AFTER,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use deed_proto::v1::{self, actions_server::Actions as _, log_server::Log as _};
    use prost::Message as _;
    use tonic::{Code, Request, Status};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{
        grpc::{actions::ActionsService, log::LogService},
        testing::{Engine, Producer, block_on, context},
    };

    const LEDGER: &str = "grows";

    fn head_of_size(log: &LogService, min_size: u64) -> String {
        let mut request = Request::new(v1::GetTreeHeadRequest {
            ledger: LEDGER.to_owned(),
            min_size,
            ..v1::GetTreeHeadRequest::default()
        });
        request.extensions_mut().insert(Caller::unrestricted());
        let answer = block_on(log.get_tree_head(request)).unwrap().into_inner();
        let text = String::from_utf8(answer.checkpoint.to_vec()).unwrap();
        text.lines().nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_read_waits_until_its_size_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let id = engine.create(LEDGER).unwrap().id;
        let (context, _running) = context(&engine);
        let log = LogService(context);
        assert_eq!(head_of_size(&log, 0), "1");
        assert_eq!(head_of_size(&log, 1), "1");
        let mut producer = Producer::new(id, 1);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| head_of_size(&log, 3));
            let first = producer.intent("a");
            engine.append(LEDGER, vec![first]).unwrap();
            assert!(!asked.is_finished());
            let second = producer.intent("b");
            engine.append(LEDGER, vec![second]).unwrap();
            assert_eq!(asked.join().unwrap(), "3");
        });
        drop(log);
        engine.close();
    }

    #[test]
    fn a_size_that_does_not_come_is_told_to_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let ledger = engine.create(LEDGER).unwrap();
        let (context, _running) = context(&engine);
        let waited = block_on(context.grown(&ledger, 2, Duration::from_millis(1)));
        let refused = Status::from(waited.unwrap_err());
        assert_eq!(refused.code(), Code::Unavailable);
        let details = refused.get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "BEHIND");
        assert_eq!(info.metadata["tree_size"], "1");
        drop((ledger, context));
        engine.close();
    }

    /// Returns the messages of requests that have the field `min_size`.
    fn messages_with_min_size() -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
        let messages = set.file.iter().flat_map(|file| &file.message_type);
        messages
            .filter(|message| message.field.iter().any(|field| field.name() == "min_size"))
            .map(|message| message.name().to_owned())
            .collect()
    }

    #[test]
    #[expect(
        clippy::needless_update,
        reason = "GetLogKeysRequest has no further fields"
    )]
    fn every_read_with_the_field_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let ledger = engine.create(LEDGER).unwrap();
        let (context, _running) = context(&engine);
        let log = LogService(context.clone());
        let actions = ActionsService(context);
        /// Calls all methods at once with one leaf more than there is, so that the test waits only
        /// once.
        macro_rules! refusals {
            ($($service:ident.$method:ident($message:ident { $($field:ident: $value:expr),* })),* $(,)?) => {{
                let (mut asked, mut refused) = (BTreeSet::new(), Vec::new());
                block_on(async {
                    let answers = tokio::join!($(async {
                        let mut request = Request::new(v1::$message {
                            ledger: LEDGER.to_owned(),
                            min_size: 2,
                            $($field: $value,)*
                            ..v1::$message::default()
                        });
                        request.extensions_mut().insert(Caller::unrestricted());
                        let answer = $service.$method(request).await;
                        (answer.map(|_| ()), stringify!($message))
                    }),*);
                    let ($($method,)*) = answers;
                    $(
                        asked.insert($method.1.to_owned());
                        refused.push(($method.1, $method.0));
                    )*
                });
                (asked, refused)
            }};
        }
        let by_index = v1::get_inclusion_proof_request::Leaf::LeafIndex(0);
        let in_batch = v1::get_batch_proof_request::Leaf::LeafIndex(0);
        let (asked, refused) = refusals![
            log.get_tree_head(GetTreeHeadRequest {}),
            log.watch_tree_heads(WatchTreeHeadsRequest {}),
            log.get_inclusion_proof(GetInclusionProofRequest {
                leaf: Some(by_index)
            }),
            log.get_consistency_proof(GetConsistencyProofRequest {}),
            log.get_entries(GetEntriesRequest { end: 1 }),
            log.get_batch_proof(GetBatchProofRequest {
                leaf: Some(in_batch)
            }),
            log.get_trust_chain(GetTrustChainRequest {}),
            log.get_log_keys(GetLogKeysRequest {}),
            log.get_session(GetSessionRequest {
                session: vec![1; 16].into()
            }),
            actions.await_clearance(AwaitClearanceRequest {}),
            actions.get_task(GetTaskRequest {
                task: vec![1; 16].into()
            }),
            actions.search(SearchRequest {}),
            actions.list_findings(ListFindingsRequest {}),
            actions.watch_findings(WatchFindingsRequest {}),
        ];
        assert_eq!(asked, messages_with_min_size());
        for (message, answer) in refused {
            let status = answer.expect_err(message);
            let details = status.get_error_details();
            let info = details.error_info();
            let reason = info.map(|info| info.reason.as_str());
            assert_eq!(reason, Some("BEHIND"), "{message}: {status:?}");
        }
        drop((ledger, log, actions));
        engine.close();
    }

    #[test]
    fn a_server_that_stops_lets_nobody_wait() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let ledger = engine.create(LEDGER).unwrap();
        let (context, stop) = context(&engine);
        stop.send(true).unwrap();
        let waited = block_on(context.grown(&ledger, 2, GROWTH_WAIT));
        assert!(matches!(waited, Err(ApiError::Unavailable(_))));
        drop((ledger, context));
        engine.close();
    }
}
