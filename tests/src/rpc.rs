//! Plain gRPC clients, which verify nothing by themselves, and a ledger to write to.

use bytes::Bytes;
use deed_evidence::LedgerId;
use deed_proto::v1::{
    self, actions_client::ActionsClient, append_result, get_inclusion_proof_request::Leaf,
    ledger_client::LedgerClient, log_client::LogClient,
};
use deed_tlog::{
    Checkpoint, ConsistencyProof, Hash, InclusionProof, KeyName, LeafIndex, NoteSigner, TreeHead,
    TreeSize, VerifierKey, verify_consistency, verify_inclusion,
};
use tonic::{
    Code, IntoStreamingRequest, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{access::Token, process::ServerProcess, statements::envelope, until, within};

/// Largest answer, in bytes: 4,096 receipts with proofs.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Clients of all services over one connection.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Client for writing.
    pub ledger: LedgerClient<Channel>,
    /// Client for reading.
    pub log: LogClient<Channel>,
    /// Client for acts, tasks and findings.
    pub actions: ActionsClient<Channel>,
    /// The connection.
    pub channel: Channel,
}

impl Clients {
    /// Connects to a server.
    ///
    /// # Panics
    /// If it cannot connect.
    pub async fn connect(server: &ServerProcess) -> Self {
        Self::open(&server.url()).await
    }

    /// Connects to an address; waits until a server listens there.
    ///
    /// # Panics
    /// If there is none in time.
    pub async fn open(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .expect("a URL")
            .tcp_nodelay(true);
        let connect = || async { endpoint.connect().await.ok() };
        Self::over(until("a connection", connect).await)
    }

    /// Makes clients over a connection.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self {
            ledger: LedgerClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            log: LogClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            actions: ActionsClient::new(channel.clone()),
            channel,
        }
    }

    /// Sends one request to append.
    ///
    /// # Errors
    /// The status of the rpc.
    pub async fn append(&self, request: v1::AppendRequest) -> Result<v1::AppendResponse, Status> {
        Ok(self.ledger.clone().append(request).await?.into_inner())
    }

    /// Opens a stream of requests to append; returns the stream of answers.
    ///
    /// # Errors
    /// The status of the rpc, before the first answer.
    pub async fn append_stream(
        &self,
        requests: impl IntoStreamingRequest<Message = v1::AppendRequest>,
    ) -> Result<Streaming<v1::AppendResponse>, Status> {
        let answers = self.ledger.clone().append_stream(requests).await?;
        Ok(answers.into_inner())
    }

    /// Returns the newest head as it was sent, without verification.
    ///
    /// # Errors
    /// The status of the rpc.
    pub async fn checkpoint(&self, ledger: &str) -> Result<Bytes, Status> {
        Ok(self.tree_head(ledger, None).await?.checkpoint)
    }

    /// Requests the newest head, and a proof from the tree of `consistency_from` leaves to it.
    ///
    /// # Errors
    /// The status of the rpc.
    pub async fn tree_head(
        &self,
        ledger: &str,
        consistency_from: Option<u64>,
    ) -> Result<v1::TreeHeadResponse, Status> {
        let request = v1::GetTreeHeadRequest {
            ledger: ledger.to_owned(),
            consistency_from,
            min_size: 0,
        };
        Ok(self.log.clone().get_tree_head(request).await?.into_inner())
    }

    /// Opens a stream of heads, each with a proof from the one before if there is a size to begin
    /// from.
    ///
    /// # Errors
    /// The status of the rpc, before the first head.
    pub async fn watch(
        &self,
        ledger: &str,
        consistency_from: Option<u64>,
    ) -> Result<Streaming<v1::TreeHeadResponse>, Status> {
        let request = v1::WatchTreeHeadsRequest {
            ledger: ledger.to_owned(),
            consistency_from,
            min_size: 0,
        };
        let heads = self.log.clone().watch_tree_heads(request).await?;
        Ok(heads.into_inner())
    }

    /// Requests an inclusion proof.
    ///
    /// # Errors
    /// The status of the rpc.
    pub async fn inclusion(
        &self,
        ledger: &str,
        leaf: Option<Leaf>,
        tree_size: u64,
    ) -> Result<v1::InclusionProofResponse, Status> {
        let request = v1::GetInclusionProofRequest {
            ledger: ledger.to_owned(),
            leaf,
            tree_size,
            min_size: 0,
        };
        Ok(self
            .log
            .clone()
            .get_inclusion_proof(request)
            .await?
            .into_inner())
    }

    /// Requests a consistency proof.
    ///
    /// # Errors
    /// The status of the rpc.
    pub async fn consistency(
        &self,
        ledger: &str,
        old_size: u64,
        new_size: u64,
    ) -> Result<v1::ConsistencyProofResponse, Status> {
        let request = v1::GetConsistencyProofRequest {
            ledger: ledger.to_owned(),
            old_size,
            new_size,
            min_size: 0,
        };
        Ok(self
            .log
            .clone()
            .get_consistency_proof(request)
            .await?
            .into_inner())
    }

    /// Requests entries, and collects every message of the answer.
    ///
    /// # Errors
    /// The status of the rpc, also in the middle of the answer.
    pub async fn entries(
        &self,
        ledger: &str,
        start: u64,
        end: u64,
    ) -> Result<Vec<v1::GetEntriesResponse>, Status> {
        let request = v1::GetEntriesRequest {
            ledger: ledger.to_owned(),
            start,
            end,
            min_size: 0,
        };
        let mut messages = self.log.clone().get_entries(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.message().await? {
            all.push(message);
        }
        Ok(all)
    }
}

/// A ledger, with the facts in its genesis entry.
#[derive(Debug, Clone)]
pub struct TestLedger {
    /// Name of the ledger.
    pub name: String,
    /// Id of the ledger.
    pub id: LedgerId,
    /// The key that signs its heads.
    pub vkey: VerifierKey,
    /// The server's answer when the ledger was created.
    pub info: v1::LedgerInfo,
}

/// Returns a public key that nobody uses.
#[must_use]
pub fn authority_key(seed: u8) -> Bytes {
    let name = KeyName::new("authority").expect("a name");
    let signer = NoteSigner::from_seed(name, &[seed; 32]);
    Bytes::copy_from_slice(signer.verifier_key().public_key().as_bytes())
}

impl TestLedger {
    /// Creates a ledger.
    ///
    /// # Panics
    /// If that fails.
    pub async fn create(clients: &Clients, name: &str) -> Self {
        Self::create_by(clients, name, None).await
    }

    /// Creates a ledger with a token.
    ///
    /// # Panics
    /// If that fails.
    pub async fn create_by(clients: &Clients, name: &str, token: Option<&Token>) -> Self {
        let request = v1::CreateLedgerRequest {
            name: name.to_owned(),
            authority_keys: vec![authority_key(1)],
        };
        let request = match token {
            Some(token) => token.on(request),
            None => tonic::Request::new(request),
        };
        let answer = within(
            "a new ledger",
            clients.ledger.clone().create_ledger(request),
        )
        .await;
        let info = answer
            .expect("a new ledger")
            .into_inner()
            .ledger
            .expect("what it is");
        Self::from_info(info)
    }

    /// Returns a ledger that exists already.
    ///
    /// # Panics
    /// If it does not exist.
    pub async fn find(clients: &Clients, name: &str) -> Self {
        let request = v1::GetLedgerRequest {
            name: name.to_owned(),
        };
        let answer = within("a ledger", clients.ledger.clone().get_ledger(request)).await;
        Self::from_info(answer.expect("a ledger").into_inner())
    }

    fn from_info(info: v1::LedgerInfo) -> Self {
        Self {
            name: info.name.clone(),
            id: LedgerId::new(hash(&info.ledger_id)),
            vkey: info.vkey.parse().expect("a verifier key"),
            info,
        }
    }

    /// Returns a request with these payloads.
    #[must_use]
    pub fn request(&self, payloads: &[Bytes]) -> v1::AppendRequest {
        self.request_of(payloads.iter().map(envelope).collect())
    }

    /// Returns a request with these envelopes.
    #[must_use]
    pub fn request_of(&self, envelopes: Vec<v1::Envelope>) -> v1::AppendRequest {
        v1::AppendRequest {
            ledger: self.name.clone(),
            envelopes,
            ..v1::AppendRequest::default()
        }
    }

    /// Appends payloads.
    ///
    /// # Errors
    /// The status of the rpc.
    pub async fn try_append(
        &self,
        clients: &Clients,
        payloads: &[Bytes],
    ) -> Result<v1::AppendResponse, Status> {
        let request = self.request(payloads);
        within("an answer", clients.append(request)).await
    }

    /// Appends payloads that are all new; returns the receipts and the head.
    ///
    /// # Panics
    /// If one is not accepted, or the head is not signed.
    pub async fn append(
        &self,
        clients: &Clients,
        payloads: &[Bytes],
    ) -> (Vec<v1::Receipt>, TreeHead) {
        let answer = self.try_append(clients, payloads).await.expect("an answer");
        let head = self.open(&answer.checkpoint);
        let receipts = answer.results.iter().map(accepted).collect::<Vec<_>>();
        assert_eq!(receipts.len(), payloads.len());
        (receipts, head)
    }

    /// Verifies a checkpoint's signature and origin.
    ///
    /// # Panics
    /// If they are not this ledger's.
    #[track_caller]
    #[must_use]
    pub fn open(&self, checkpoint: &[u8]) -> TreeHead {
        let (checkpoint, _) =
            Checkpoint::open(checkpoint, &self.vkey).expect("a checkpoint of this ledger");
        assert_eq!(checkpoint.origin.as_str(), self.info.origin);
        checkpoint.head
    }

    /// Returns the newest head, verified.
    ///
    /// # Panics
    /// If there is none.
    pub async fn head(&self, clients: &Clients) -> TreeHead {
        let checkpoint = within("the head", clients.checkpoint(&self.name)).await;
        self.open(&checkpoint.expect("a head"))
    }

    /// Verifies the answer to a request for an inclusion proof; returns the head in it.
    ///
    /// # Panics
    /// If the proof does not hold.
    #[track_caller]
    pub fn check_inclusion(&self, answer: &v1::InclusionProofResponse) -> TreeHead {
        let head = self.open(&answer.checkpoint);
        assert_eq!(
            head.size.get(),
            answer.tree_size,
            "the checkpoint is of another size"
        );
        let index = LeafIndex::new(answer.leaf_index);
        verify_inclusion(
            &inclusion_proof(&answer.hashes),
            &hash(&answer.leaf_hash),
            index,
            &head,
        )
        .unwrap_or_else(|error| panic!("leaf {index} in {}: {error}", head.size));
        head
    }

    /// Proves that the tree of `old` is a prefix of the newest one; returns the newest head.
    ///
    /// # Panics
    /// If that cannot be proven.
    pub async fn check_grown(&self, clients: &Clients, old: &TreeHead) -> TreeHead {
        let answer = within(
            "a proof",
            clients.consistency(&self.name, old.size.get(), 0),
        )
        .await;
        let answer = answer.expect("a proof");
        let new = self.open(&answer.checkpoint);
        verify_consistency(&consistency_proof(&answer.hashes), old, &new)
            .unwrap_or_else(|error| panic!("{old:?} does not lead to {new:?}: {error}"));
        new
    }
}

/// Returns the receipt of an accepted envelope.
///
/// # Panics
/// If it was not accepted.
#[track_caller]
pub fn accepted(result: &v1::AppendResult) -> v1::Receipt {
    match &result.result {
        Some(append_result::Result::Accepted(receipt)) => receipt.clone(),
        other => panic!("not accepted: {other:?}"),
    }
}

/// Returns the receipt of a duplicate.
///
/// # Panics
/// If it is not a duplicate.
#[track_caller]
pub fn duplicate(result: &v1::AppendResult) -> v1::Receipt {
    match &result.result {
        Some(append_result::Result::Duplicate(receipt)) => receipt.clone(),
        other => panic!("not a duplicate: {other:?}"),
    }
}

/// Returns the rejection of an envelope.
///
/// # Panics
/// If it was not rejected.
#[track_caller]
pub fn rejected(result: &v1::AppendResult) -> v1::Rejection {
    match &result.result {
        Some(append_result::Result::Rejected(rejection)) => rejection.clone(),
        other => panic!("not rejected: {other:?}"),
    }
}

/// Checks that a status is INVALID_ARGUMENT and names exactly this field, with a description.
///
/// # Panics
/// If it is another status.
#[track_caller]
pub fn expect_violation(status: &Status, field: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let request = status
        .get_details_bad_request()
        .expect("google.rpc.BadRequest");
    let fields: Vec<_> = request
        .field_violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, [field], "{status:?}");
    assert!(
        request
            .field_violations
            .iter()
            .all(|violation| !violation.description.is_empty()),
        "{status:?}"
    );
}

/// Checks that a status is OUT_OF_RANGE and has the tree's size, in the message and in the details.
///
/// # Panics
/// If it is another status.
#[track_caller]
pub fn expect_beyond(status: &Status, size: TreeSize) {
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains(&size.to_string()), "{status:?}");
    let info = status
        .get_details_error_info()
        .expect("google.rpc.ErrorInfo");
    assert_eq!(info.reason, "BEYOND_TREE");
    assert_eq!(
        info.metadata.get("tree_size"),
        Some(&size.to_string()),
        "{status:?}"
    );
}

/// Parses a hash of 32 bytes.
///
/// # Panics
/// If it does not have 32 bytes.
#[track_caller]
#[must_use]
pub fn hash(bytes: &[u8]) -> Hash {
    Hash::try_from(bytes).expect("32 bytes")
}

/// Parses an inclusion proof.
///
/// # Panics
/// If it is malformed.
#[track_caller]
#[must_use]
pub fn inclusion_proof(hashes: &[Bytes]) -> InclusionProof {
    InclusionProof::from_hashes(hashes.iter().map(|bytes| hash(bytes)).collect()).expect("a proof")
}

/// Parses a consistency proof.
///
/// # Panics
/// If it is malformed.
#[track_caller]
#[must_use]
pub fn consistency_proof(hashes: &[Bytes]) -> ConsistencyProof {
    ConsistencyProof::from_hashes(hashes.iter().map(|bytes| hash(bytes)).collect())
        .expect("a proof")
}
