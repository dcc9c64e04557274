//! Contents, which statements commit to: sent, read and erased with plain gRPC clients.

use bytes::Bytes;
use deed_evidence::commitment::{Salt, commit};
use deed_proto::v1::{
    self, content_client::ContentClient, put_content_request::Part, statement::Body,
};
use tonic::{Request, Status, transport::Channel};

use crate::{access::Token, within};

/// Returns bytes that do not compress.
#[must_use]
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A content with the salt that opens its commitment.
#[derive(Debug, Clone)]
pub struct Content {
    /// 32 bytes.
    pub salt: Bytes,
    /// The bytes that are committed to.
    pub bytes: Bytes,
    /// The commitment.
    pub commitment: v1::Commitment,
}

impl Content {
    /// Commits to bytes under a salt that is derived from a number.
    #[must_use]
    pub fn new(number: u64, bytes: impl Into<Bytes>) -> Self {
        let mut salt = [0xc7; 32];
        // The salt's bytes do not occur anywhere by chance.
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

    /// Returns the commitment's digest.
    #[must_use]
    pub fn digest(&self) -> Bytes {
        self.commitment.digest.clone()
    }

    /// Returns the content as an attachment of a statement.
    #[must_use]
    pub fn attachment(&self) -> v1::Attachment {
        v1::Attachment {
            salt: self.salt.clone(),
            content: self.bytes.clone(),
        }
    }

    /// Returns the messages of an upload, in pieces of `piece` bytes.
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

/// Returns a message of an upload.
#[must_use]
pub fn part(part: Part) -> v1::PutContentRequest {
    v1::PutContentRequest { part: Some(part) }
}

/// Returns the body of an Intent that commits to two contents.
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

/// A client of the content service, with a token or without one.
#[derive(Debug, Clone)]
pub struct Contents {
    client: ContentClient<Channel>,
    token: Option<Token>,
}

impl Contents {
    /// Returns a client without a token.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self {
            client: ContentClient::new(channel),
            token: None,
        }
    }

    /// Returns a client with this token.
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
    /// The status of the rpc.
    pub async fn put(&self, parts: Vec<v1::PutContentRequest>) -> Result<bool, Status> {
        let request = self.request(tokio_stream::iter(parts));
        let mut client = self.client.clone();
        let answer = within("an upload's answer", client.put_content(request)).await?;
        Ok(answer.into_inner().already_held)
    }

    /// Reads a content; returns its salt and its bytes.
    ///
    /// # Errors
    /// The status of the rpc.
    ///
    /// # Panics
    /// If the size is not the announced one.
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

    /// Erases the contents that a statement names.
    ///
    /// # Errors
    /// The status of the rpc.
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

    /// Looks up which other commitments hold the same bytes as these.
    ///
    /// # Errors
    /// The status of the rpc.
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
