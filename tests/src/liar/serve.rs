//! The server of a forged ledger.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use deed_evidence::entry::{Entry, KeyedSignature};
use deed_evidence::{Micros, statement};
use deed_proto::v1::{
    self, PayloadType, actions_server::ActionsServer, append_result::Result as Item,
    content_server::ContentServer, ledger_server::LedgerServer, log_server::LogServer,
};
use tokio::sync::watch;
use tonic::transport::{Server, server::Router};

use super::{
    MESSAGE_BYTES_MAX, Serving,
    ledger::{ForgedLedger, index},
    story::Story,
};

/// A server with a forged ledger, on a free port of 127.0.0.1. It ends when it is dropped.
#[derive(Debug)]
pub struct ForgedServer {
    address: SocketAddr,
    forged: Forged,
    _serving: Serving,
}

/// State that the services share.
#[derive(Debug, Clone)]
pub(super) struct Forged {
    state: Arc<Mutex<State>>,
    /// Notified whenever the ledger has changed.
    pub(super) changed: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) ledger: ForgedLedger,
    pub(super) story: Story,
}

impl ForgedServer {
    pub(super) async fn of(ledger: ForgedLedger) -> Self {
        let story = Story::default();
        let forged = Forged {
            state: Arc::new(Mutex::new(State { ledger, story })),
            changed: watch::Sender::new(()),
        };
        let (address, serving) = Serving::start(forged.clone().services()).await;
        Self {
            address,
            forged,
            _serving: serving,
        }
    }

    /// Returns the URL that clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Reads or changes the ledger while it is served.
    pub fn with<T>(&self, act: impl FnOnce(&mut ForgedLedger) -> T) -> T {
        let done = act(&mut self.forged.lock().ledger);
        self.forged.changed.send_replace(());
        done
    }

    /// Changes the assessment that the server gives.
    pub fn tell(&self, change: impl FnOnce(&mut Story)) {
        change(&mut self.forged.lock().story);
    }

    /// Returns the number of leaves: more than were forged if a client has appended.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.forged.lock().ledger.size()
    }
}

impl Forged {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(self) -> Router {
        let max = MESSAGE_BYTES_MAX;
        Server::builder()
            .add_service(LedgerServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(LogServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(ActionsServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(ContentServer::new(self).max_decoding_message_size(max))
    }
}

impl State {
    /// Records everything that is sent, without any check.
    pub(super) fn append(&mut self, request: &v1::AppendRequest) -> v1::AppendResponse {
        let mut batched = 0;
        let mut leaves = Vec::with_capacity(request.envelopes.len());
        for envelope in &request.envelopes {
            let entry = self.entry(envelope, &mut batched);
            leaves.push(self.ledger.push(entry));
        }
        let size = self.ledger.size();
        let receipt = |leaf| self.receipt(leaf, request.with_proofs.then_some(size));
        let results = leaves.into_iter().map(|leaf| v1::AppendResult {
            result: Some(Item::Accepted(receipt(leaf))),
        });
        let results = results.collect();
        let consistency = request.consistency_from.filter(|from| *from <= size);
        v1::AppendResponse {
            checkpoint: self.checkpoint(size),
            witnessed_size: 0,
            results,
            consistency: consistency.map(|from| v1::ConsistencyProof {
                old_size: from,
                hashes: self.ledger.consistency(from, size),
            }),
        }
    }

    fn entry(&self, envelope: &v1::Envelope, batched: &mut u32) -> Bytes {
        let payload = &envelope.payload[..];
        let at = Micros::new(self.ledger.now());
        let signed = KeyedSignature::from_slices(&envelope.key_id, &envelope.signature);
        let is_manifest = envelope.payload_type() == PayloadType::BatchManifest;
        let is_trust = statement::parse(payload).is_ok_and(|said| said.body.is_trust());
        match signed {
            Some(signed) if is_manifest => {
                let manifest = deed_evidence::batch::Manifest::parse(payload);
                *batched = manifest.map_or(0, |manifest| manifest.count.get());
                Entry::manifest(payload, signed, at).encode()
            }
            Some(signed) if is_trust => {
                Entry::trust(payload, signed, at, self.ledger.trust_head()).encode()
            }
            Some(signed) => Entry::signed(payload, signed, at).encode(),
            None if *batched > 0 => {
                *batched -= 1;
                Entry::batched(payload, at).encode()
            }
            None => Entry::unsigned(payload, at).encode(),
        }
    }

    fn receipt(&self, leaf: u64, proven_in: Option<u64>) -> v1::Receipt {
        let bytes = &self.ledger.entries[index(leaf)];
        let entry = Entry::parse(bytes).ok();
        let header = entry.and_then(|entry| statement::parse(entry.payload).ok());
        let is_intent = header.is_some_and(|it| it.body == statement::BodyKind::Intent);
        v1::Receipt {
            leaf_index: leaf,
            leaf_hash: Bytes::copy_from_slice(self.ledger.leaves[index(leaf)].as_bytes()),
            received_at_us: entry.map_or(0, |entry| entry.received_at.get()),
            principal_leaf: None,
            inclusion_proof: proven_in
                .map(|size| self.ledger.inclusion(leaf, size))
                .unwrap_or_default(),
            previous_trust: entry
                .and_then(|entry| entry.previous_trust)
                .map(|link| link.to_message()),
            assessed: is_intent.then(|| self.story.assessed()),
        }
    }

    /// Returns the signed head of a size, as bytes.
    pub(super) fn checkpoint(&self, size: u64) -> Bytes {
        self.ledger.checkpoint(size).to_string().into()
    }

    /// Returns an entry with its inclusion proof in the newest tree.
    pub(super) fn proven(&self, leaf: u64) -> v1::ProvenEntry {
        v1::ProvenEntry {
            leaf_index: leaf,
            entry: self.ledger.entries[index(leaf)].clone(),
            inclusion_proof: self.ledger.inclusion(leaf, self.ledger.size()),
        }
    }
}
