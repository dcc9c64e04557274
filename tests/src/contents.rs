//! Contents: what statements commit to, sent, read and erased with plain gRPC clients.

use bytes::Bytes;
use deed_evidence::commitment::{Salt, commit};
use deed_proto::v1::{
    self, content_client::ContentClient, put_content_request::Part, statement::Body,
};
use tonic::{Request, Status, transport::Channel};

use crate::{access::Token, within};

/// A content with what opens its commitment.
#[derive(Debug, Clone)]
pub struct Content {
    /// 32 bytes.
    pub salt: Bytes,
    /// What is committed to.
    pub bytes: Bytes,
    /// The promise.
    pub commitment: v1::Commitment,
}

impl Content {
    /// Commits to bytes under a salt that is named after a number.
    #[must_use]
    pub fn new(number: u64, bytes: impl Into<Bytes>) -> Self {
        let mut salt = [0xc7; 32];
        // Bytes that are found nowhere by chance.
        for (at, part) in salt.chunks_mut(8).enumerate() {
            let mixed = number
                .wrapping_add(at as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            part.copy_from_slice(&mixed.to_be_bytes());
        }
        let bytes = bytes.into();
        Self {
            commitment: commit(&Salt::from_bytes(salt), &bytes, "text/plain"),
            salt: Bytes::copy_from_slice(&salt),
            bytes,
        }
    }

    /// The commitment's digest.
    #[must_use]
    pub fn digest(&self) -> Bytes {
        self.commitment.digest.clone()
    }

    /// As it travels with a statement.
    #[must_use]
    pub fn attachment(&self) -> v1::Attachment {
        v1::Attachment {
            salt: self.salt.clone(),
            content: self.bytes.clone(),
        }
    }

    /// As it travels before a statement: in pieces of so many bytes.
    #[must_use]
    pub fn parts(&self, ledger: &str, piece: usize) -> Vec<v1::PutContentRequest> {
        let begin = Part::Begin(v1::PutContentBegin {
            ledger: ledger.to_owned(),
            commitment: self.digest(),
            salt: self.salt.clone(),
            size: self.bytes.len() as u64,
        });
        let pieces = self.bytes.chunks(piece);
        let pieces = pieces.map(|piece| Part::Chunk(self.bytes.slice_ref(piece)));
        std::iter::once(begin).chain(pieces).map(part).collect()
    }
}

/// Bytes that do not compress.
#[must_use]
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A message of an upload.
#[must_use]
pub fn part(part: Part) -> v1::PutContentRequest {
    v1::PutContentRequest { part: Some(part) }
}

/// The body of an intent that commits to two contents.
#[must_use]
pub fn committing(mark: &str, arguments: &Content, prompt: &Content) -> Body {
    Body::Intent(v1::Intent {
        action: "orders.update".to_owned(),
        resource: mark.to_owned(),
        arguments: Some(arguments.commitment.clone()),
        prompt: Some(prompt.commitment.clone()),
        ..v1::Intent::default()
    })
}

/// What keeps contents, over a connection, for whoever has the token.
#[derive(Debug, Clone)]
pub struct Contents {
    client: ContentClient<Channel>,
    token: Option<Token>,
}

impl Contents {
    /// For anybody.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self {
            client: ContentClient::new(channel),
            token: None,
        }
    }

    /// For whoever has the token.
    #[must_use]
    pub fn as_bearer(&self, token: &Token) -> Self {
        Self {
            token: Some(token.clone()),
            ..self.clone()
        }
    }

    /// Sends the messages of an upload.
    ///
    /// # Errors
    /// The rpc's.
    pub async fn put(&self, parts: Vec<v1::PutContentRequest>) -> Result<bool, Status> {
        let request = self.request(tokio_stream::iter(parts));
        let mut client = self.client.clone();
        let answer = within("an upload's answer", client.put_content(request)).await?;
        Ok(answer.into_inner().already_held)
    }

    /// Reads a content; its salt and its bytes.
    ///
    /// # Errors
    /// The rpc's.
    ///
    /// # Panics
    /// If the size is not the one that was announced.
    pub async fn fetch(&self, ledger: &str, digest: &Bytes) -> Result<(Bytes, Bytes), Status> {
        let request = self.request(v1::GetContentRequest {
            ledger: ledger.to_owned(),
            commitment: digest.clone(),
        });
        let mut client = self.client.clone();
        let all = async {
            let mut pieces = client.get_content(request).await?.into_inner();
            let (mut salt, mut size, mut bytes) = (Bytes::new(), 0, Vec::new());
            while let Some(piece) = pieces.message().await? {
                if !piece.salt.is_empty() {
                    (salt, size) = (piece.salt, piece.size);
                }
                bytes.extend_from_slice(&piece.chunk);
            }
            assert_eq!(bytes.len() as u64, size, "as many bytes as announced");
            Ok((salt, bytes.into()))
        };
        within("a content", all).await
    }

    /// Erases what a statement names.
    ///
    /// # Errors
    /// The rpc's.
    pub async fn erase(
        &self,
        ledger: &str,
        envelope: v1::Envelope,
    ) -> Result<v1::EraseContentResponse, Status> {
        let request = self.request(v1::EraseContentRequest {
            ledger: ledger.to_owned(),
            envelope: Some(envelope),
            ..v1::EraseContentRequest::default()
        });
        let mut client = self.client.clone();
        let answer = within("an erasure's answer", client.erase_content(request)).await?;
        Ok(answer.into_inner())
    }

    /// Asks what else holds the same bytes as these.
    ///
    /// # Errors
    /// The rpc's.
    pub async fn look_up(&self, ledger: &str, digests: &[&Bytes]) -> Result<Vec<Bytes>, Status> {
        let request = self.request(v1::EraseContentRequest {
            ledger: ledger.to_owned(),
            look_up: digests.iter().copied().cloned().collect(),
            ..v1::EraseContentRequest::default()
        });
        let mut client = self.client.clone();
        let answer = within("an answer", client.erase_content(request)).await?;
        Ok(answer.into_inner().twins)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        match &self.token {
            Some(token) => token.on(message),
            None => Request::new(message),
        }
    }
}
