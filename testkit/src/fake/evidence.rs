//! What the fake tells about signatures, sessions and contents.

use bytes::Bytes;
use deed_evidence::{PayloadDigest, batch::Manifest, entry::Entry, statement};
use deed_proto::v1::{self, content_server::Content as ContentService};
use deed_tlog::{BatchPosition, BatchTree};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Fake, Lie, history::hashes};
use crate::merkle;

/// A content that the fake holds.
pub(super) struct HeldContent {
    salt: Bytes,
    content: Bytes,
}

impl Fake {
    pub(super) fn batch_proof(
        &self,
        request: &v1::GetBatchProofRequest,
    ) -> Result<v1::GetBatchProofResponse, Status> {
        use v1::get_batch_proof_request::Leaf;
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let leaf = match &request.leaf {
            Some(Leaf::LeafIndex(leaf)) => *leaf as usize,
            Some(Leaf::Statement(place)) => {
                let sessions = history.sessions.iter();
                let mut found = sessions.filter(|(id, _)| id.as_bytes()[..] == place.session);
                let found = found
                    .next()
                    .and_then(|(_, all)| all.get(place.sequence as usize));
                found
                    .ok_or_else(|| Status::not_found("no such statement"))?
                    .1 as usize
            }
            None => return Err(Status::invalid_argument("no leaf")),
        };
        let entry = |index: usize| Entry::parse(&history.entries[index]).unwrap();
        let mut manifests = (0..leaf).rev();
        let manifest_index = manifests
            .find(|index| entry(*index).payload_type == v1::PayloadType::BatchManifest)
            .filter(|_| entry(leaf).author == v1::Author::Batched)
            .ok_or_else(|| Status::failed_precondition("not of a batch"))?;
        let manifest = Manifest::parse(entry(manifest_index).payload).unwrap();
        let first = manifest_index + 1;
        let count = manifest.count.get() as usize;
        let payloads: Vec<_> = (first..first + count).map(|at| entry(at).payload).collect();
        let tree = BatchTree::new(&payloads).unwrap();
        let position = (leaf - first) as u32;
        let path = tree.prove(BatchPosition::new(position)).unwrap();
        let inclusion = |index| hashes(&merkle::path(index, &history.leaves), false);
        Ok(v1::GetBatchProofResponse {
            manifest_index: manifest_index as u64 + u64::from(lie == Lie::ManifestIndex),
            position,
            manifest_entry: history.entries[manifest_index].clone(),
            statement_entry: history.entries[leaf].clone(),
            batch_path: hashes(path.hashes(), lie == Lie::BatchPath),
            manifest_inclusion: inclusion(manifest_index),
            statement_inclusion: inclusion(leaf),
            checkpoint: self.checkpoint(&history.leaves, lie),
        })
    }

    pub(super) fn trust_chain(&self) -> v1::GetTrustChainResponse {
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let size = state.script.trust_size.unwrap_or(history.leaves.len());
        let leaves = &history.leaves[..size];
        let mut indexes = history.trust.clone();
        indexes.retain(|leaf| *leaf < size as u64 && !state.script.hidden_trust.contains(leaf));
        match lie {
            // Neither the first nor the last: that one could not be noticed.
            Lie::TrustOmitted => drop(indexes.remove(1)),
            Lie::TrustWithoutGenesis => drop(indexes.remove(0)),
            _ => {}
        }
        let entries = indexes.iter().map(|index| v1::TrustEntry {
            leaf_index: *index,
            entry: history.entries[*index as usize].clone(),
            inclusion_proof: hashes(
                &merkle::path(*index as usize, leaves),
                lie == Lie::Inclusion,
            ),
        });
        v1::GetTrustChainResponse {
            checkpoint: self.checkpoint(leaves, lie),
            entries: entries.collect(),
        }
    }

    /// One message for each rotation.
    pub(super) fn log_keys(&self) -> Vec<v1::GetLogKeysResponse> {
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        if lie == Lie::NoLogKeys {
            return Vec::new();
        }
        let rotations = self.rotations.lock().unwrap().clone();
        let messages = rotations.iter().map(|(leaf, _)| {
            let leaf = *leaf as usize;
            let handover = &history.leaves[..=leaf];
            v1::GetLogKeysResponse {
                checkpoint: self.checkpoint(handover, lie),
                entries: vec![v1::TrustEntry {
                    leaf_index: leaf as u64,
                    entry: history.entries[leaf].clone(),
                    inclusion_proof: hashes(&merkle::path(leaf, handover), lie == Lie::Inclusion),
                }],
            }
        });
        messages.collect()
    }

    pub(super) fn session_info(&self, session: &[u8]) -> Result<v1::SessionInfo, Status> {
        let state = self.lock();
        let history = &state.histories[0];
        let mut sessions = history.sessions.iter();
        let found = sessions.find(|(id, all)| id.as_bytes()[..] == *session && !all.is_empty());
        let (_, statements) = found.ok_or_else(|| Status::not_found("no such session"))?;
        let length = state.script.session_length.unwrap_or(usize::MAX);
        let statements = &statements[..statements.len().min(length)];
        if statements
            .last()
            .is_none_or(|(payload, _)| payload.is_empty())
        {
            return Err(Status::not_found("no such session"));
        }
        let (payload, last_leaf) = statements.last().unwrap();
        let header = statement::parse(payload).unwrap();
        let entry = Entry::parse(&history.entries[*last_leaf as usize]).unwrap();
        let key_id = entry.signature.map(|signed| signed.key_id.to_vec());
        let is_lie = state.script.lie == Lie::SessionEnd;
        Ok(v1::SessionInfo {
            producer: header.producer.to_owned(),
            next_sequence: statements.len() as u64 + u64::from(is_lie),
            last_payload: Bytes::copy_from_slice(PayloadDigest::of(payload).as_bytes()),
            recorded: statements.len() as u64,
            skipped: 0,
            closed: false,
            key_id: key_id.unwrap_or_default().into(),
            last_leaf: *last_leaf,
        })
    }
}

#[tonic::async_trait]
impl ContentService for Fake {
    async fn put_content(
        &self,
        request: Request<Streaming<v1::PutContentRequest>>,
    ) -> Result<Response<v1::PutContentResponse>, Status> {
        use v1::put_content_request::Part;
        let mut parts = request.into_inner();
        let (mut begun, mut content) = (None, Vec::new());
        while let Some(message) = parts.next().await {
            match message?.part {
                Some(Part::Begin(begin)) => begun = Some(begin),
                Some(Part::Chunk(chunk)) => content.extend_from_slice(&chunk),
                None => return Err(Status::invalid_argument("an empty message")),
            }
        }
        let begin: v1::PutContentBegin =
            begun.ok_or_else(|| Status::invalid_argument("no beginning"))?;
        if begin.size != content.len() as u64 {
            return Err(Status::invalid_argument("another length"));
        }
        let held = HeldContent {
            salt: begin.salt,
            content: content.into(),
        };
        let before = self.lock().contents.insert(begin.commitment, held);
        Ok(Response::new(v1::PutContentResponse {
            already_held: before.is_some(),
        }))
    }

    type GetContentStream = ReceiverStream<Result<v1::GetContentResponse, Status>>;

    async fn get_content(
        &self,
        request: Request<v1::GetContentRequest>,
    ) -> Result<Response<Self::GetContentStream>, Status> {
        let digest = request.into_inner().commitment;
        let state = self.lock();
        let lie = state.script.lie;
        if let Some(leaf) = state.erased.get(&digest) {
            let leaf = if lie == Lie::ErasureLeaf { 0 } else { *leaf };
            let metadata = [("erasure_leaf".to_owned(), leaf.to_string())];
            let details = ErrorDetails::with_error_info(
                "CONTENT_ERASED",
                "deed",
                std::collections::HashMap::from(metadata),
            );
            let (code, message) = (Code::FailedPrecondition, "erased");
            return Err(Status::with_error_details(code, message, details));
        }
        let held = state.contents.get(&digest);
        let held = held.ok_or_else(|| Status::not_found("no such content"))?;
        let mut content = held.content.to_vec();
        let size = content.len() as u64;
        match lie {
            Lie::ContentByte => *content.last_mut().unwrap() ^= 1,
            Lie::ContentShort => drop(content.pop()),
            Lie::ContentLong => content.push(0),
            _ => {}
        }
        let mut salt = held.salt.to_vec();
        if lie == Lie::ContentSalt {
            salt[0] ^= 1;
        }
        let (sender, receiver) = mpsc::channel(64);
        for (position, chunk) in content.chunks(1000).enumerate() {
            let message = v1::GetContentResponse {
                salt: if position == 0 {
                    salt.clone().into()
                } else {
                    Bytes::new()
                },
                size: if position == 0 { size } else { 0 },
                chunk: Bytes::copy_from_slice(chunk),
            };
            sender.try_send(Ok(message)).unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn erase_content(
        &self,
        request: Request<v1::EraseContentRequest>,
    ) -> Result<Response<v1::EraseContentResponse>, Status> {
        let request = request.into_inner();
        if let Some(message) = self.lock().script.erasure_refused {
            return Err(Status::permission_denied(message));
        }
        let Some(envelope) = request.envelope else {
            return Ok(Response::new(v1::EraseContentResponse::default()));
        };
        let decoded = statement::decode(&envelope.payload).unwrap();
        let Some(v1::statement::Body::Erasure(erasure)) = decoded.body else {
            return Err(Status::invalid_argument("no Erasure"));
        };
        let answer = self.answer(&v1::AppendRequest {
            ledger: request.ledger,
            envelopes: vec![envelope],
            ..v1::AppendRequest::default()
        });
        let mut state = self.lock();
        let leaf = state.histories[0].leaves.len() as u64 - 1;
        let mut erased = 0;
        for digest in erasure.commitments {
            erased += u32::from(state.contents.remove(&digest).is_some());
            state.erased.insert(digest, leaf);
        }
        Ok(Response::new(v1::EraseContentResponse {
            checkpoint: answer.checkpoint,
            result: answer.results.into_iter().next(),
            erased,
            twins: Vec::new(),
        }))
    }
}
