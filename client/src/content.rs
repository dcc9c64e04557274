//! Contents: putting them beside the log, reading them back, and erasing them.

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest,
    commitment::{Committer, Salt},
};
use deed_proto::v1::{self, put_content_request::Part};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    answer::{Answer, read_items},
    append::check_request,
    attempts::Attempts,
    error::{AnswerError, Error, InputError},
    ledger::Ledger,
    retry::{RetryPolicy, is_transient, within},
    signing::{Signing, Statement},
    trust::TrustError,
};

/// The longest content that travels beside its statement; longer ones are put before it.
pub const CONTENT_INLINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one message of a content.
const CHUNK_BYTES: usize = 256 * 1024;
/// Messages read ahead of the network: 1 MiB.
const CHUNKS_AHEAD: usize = 4;

/// Contents of one ledger. Made by [`Ledger::contents`].
#[derive(Debug, Clone)]
pub struct ContentClient {
    ledger: Ledger,
}

/// The state of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentState {
    /// The content was written out as a whole, and opens its commitment.
    Read {
        /// The length of the content.
        bytes: u64,
    },
    /// The content was erased.
    Erased {
        /// The leaf of the Erasure, by the server's word.
        erasure_leaf: Option<u64>,
    },
    /// The server holds none under this commitment.
    Unknown,
}

impl Ledger {
    /// The ledger's contents.
    #[must_use]
    pub fn contents(&self) -> ContentClient {
        ContentClient {
            ledger: self.clone(),
        }
    }
}

impl ContentClient {
    /// Puts a content of exactly `size` bytes before the statement that commits to it. Returns
    /// whether it was held already. A failure that may pass is not tried again here, since
    /// `content` is read once: put it again.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not open the commitment, is too long, or was erased;
    /// [`Error::Unreachable`].
    pub async fn put(
        &self,
        digest: CommitmentDigest,
        salt: &Salt,
        size: u64,
        mut content: impl AsyncRead + Unpin + Send + 'static,
    ) -> Result<bool, Error> {
        let begin = v1::PutContentBegin {
            ledger: self.ledger.shared.name.clone(),
            commitment: Bytes::copy_from_slice(digest.as_bytes()),
            salt: Bytes::copy_from_slice(salt.as_bytes()),
            size,
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
        let reading = tokio::spawn(async move {
            let part = |part| v1::PutContentRequest { part: Some(part) };
            if sender.send(part(Part::Begin(begin))).await.is_err() {
                return Ok(());
            }
            loop {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                let mut limited = (&mut content).take(CHUNK_BYTES as u64);
                if limited.read_to_end(&mut chunk).await? == 0 {
                    return Ok(());
                }
                // A server that has refused does not read the rest.
                if sender.send(part(Part::Chunk(chunk.into()))).await.is_err() {
                    return Ok(());
                }
            }
        });
        let connection = &self.ledger.connection;
        let position = connection.current();
        let mut rpc = connection.at(position).content();
        let answer = rpc.put_content(ReceiverStream::new(receiver)).await;
        let read: Result<(), std::io::Error> = reading.await.map_err(|_| Error::Ended)?;
        match answer {
            Ok(answer) => {
                read.map_err(|error| InputError::Content {
                    reason: error.to_string(),
                })?;
                Ok(answer.into_inner().already_held)
            }
            Err(status) => {
                // A content that could not be read here is the reason why the server got too few bytes.
                read.map_err(|error| InputError::Content {
                    reason: error.to_string(),
                })?;
                let server = connection.at(position).url();
                if is_transient(&status) {
                    // The next call goes to another server.
                    connection.move_on(position);
                }
                Err(Error::of_status(&status, server))
            }
        }
    }

    /// Uploads a content in memory; failures that may pass are tried again.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_bytes(
        &self,
        digest: CommitmentDigest,
        salt: &Salt,
        content: Bytes,
    ) -> Result<bool, Error> {
        let mut attempts = self.ledger.attempts();
        loop {
            let begin = v1::PutContentBegin {
                ledger: self.ledger.shared.name.clone(),
                commitment: Bytes::copy_from_slice(digest.as_bytes()),
                salt: Bytes::copy_from_slice(salt.as_bytes()),
                size: content.len() as u64,
            };
            let chunks: Vec<Bytes> = (0..content.len())
                .step_by(CHUNK_BYTES)
                .map(|at| content.slice(at..content.len().min(at + CHUNK_BYTES)))
                .collect();
            let parts =
                std::iter::once(Part::Begin(begin)).chain(chunks.into_iter().map(Part::Chunk));
            let requests = parts.map(|part| v1::PutContentRequest { part: Some(part) });
            let mut rpc = attempts.server(&self.ledger.connection).content();
            let call = rpc.put_content(tokio_stream::iter(requests.collect::<Vec<_>>()));
            match within(self.ledger.shared.timeout, call).await {
                Ok(answer) => return Ok(answer.into_inner().already_held),
                Err(status) => self.ledger.wait_after(&status, &mut attempts).await?,
            }
        }
    }

    /// Reads a content into `out`, and checks that it opens the commitment. Until this returns
    /// [`ContentState::Read`], what was written is not to be believed.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Trust`] if the bytes do not open the commitment.
    pub async fn get(
        &self,
        digest: CommitmentDigest,
        mut out: impl AsyncWrite + Unpin,
    ) -> Result<ContentState, Error> {
        let request = v1::GetContentRequest {
            ledger: self.ledger.shared.name.clone(),
            commitment: Bytes::copy_from_slice(digest.as_bytes()),
        };
        let (timeout, connection) = (self.ledger.shared.timeout, &self.ledger.connection);
        // Each server once: what was written to `out` cannot be taken back.
        let mut attempts = Attempts::new(connection, RetryPolicy::never());
        let mut stream = loop {
            let mut rpc = attempts.server(connection).content();
            match within(timeout, rpc.get_content(request.clone())).await {
                Ok(stream) => break stream.into_inner(),
                Err(status) if is_transient(&status) => {
                    self.ledger.wait_after(&status, &mut attempts).await?;
                }
                Err(status) => return absent(&status, attempts.server(connection).url()),
            }
        };
        let server = attempts.server(connection).url();
        let mut opening: Option<(Committer, u64)> = None;
        let mut read = 0;
        loop {
            let message = match within(timeout, stream.message()).await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                // The status may come with the stream instead of the call.
                Err(status) if opening.is_none() => return absent(&status, server),
                Err(status) => return Err(Error::of_status(&status, server)),
            };
            let (committer, size) = match &mut opening {
                Some(opening) => opening,
                None => {
                    let salt = <[u8; 32]>::try_from(&message.salt[..]);
                    let salt = salt.map_err(|_| AnswerError::Missing {
                        what: "the content's salt",
                    })?;
                    let committer = Committer::new(&Salt::from_bytes(salt));
                    opening.insert((committer, message.size))
                }
            };
            committer.update(&message.chunk);
            read += message.chunk.len() as u64;
            if read > *size {
                return Err(not_opened(digest, "it is longer than the server said").into());
            }
            let written = out.write_all(&message.chunk).await;
            written.map_err(|error| InputError::Content {
                reason: error.to_string(),
            })?;
        }
        let Some((committer, size)) = opening else {
            return Err(AnswerError::Missing {
                what: "the content",
            }
            .into());
        };
        if read != size {
            return Err(not_opened(digest, "it is shorter than the server said").into());
        }
        if committer.finalize() != digest {
            return Err(
                not_opened(digest, "its bytes are not those that were committed to").into(),
            );
        }
        let flushed = out.flush().await;
        flushed.map_err(|error| InputError::Content {
            reason: error.to_string(),
        })?;
        Ok(ContentState::Read { bytes: read })
    }

    /// Commitments under which the server holds the same bytes as under these 1 to 64, by its word: an
    /// erasure has to name them too. It must be one of an authority's deliverers who asks, and who
    /// should [`get`](Self::get) them and compare before signing: nothing of it is checked here.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn twins(
        &self,
        contents: &[CommitmentDigest],
    ) -> Result<Vec<CommitmentDigest>, Error> {
        let look_up = contents.iter();
        let look_up = look_up.map(|digest| Bytes::copy_from_slice(digest.as_bytes()));
        let request = v1::EraseContentRequest {
            ledger: self.ledger.shared.name.clone(),
            envelope: None,
            look_up: look_up.collect(),
        };
        let answer = self
            .ledger
            .call(|server| {
                let request = request.clone();
                async move { server.content().erase_content(request).await }
            })
            .await?;
        let twins = answer.twins.iter().map(|digest| {
            let what = "a commitment of 32 bytes";
            CommitmentDigest::from_slice(digest).ok_or(AnswerError::Missing { what })
        });
        Ok(twins.collect::<Result<_, _>>()?)
    }

    /// Records an Erasure, signed by an authority, and has the contents that it names erased.
    /// The answer has one item, and the number of contents whose keys were destroyed now.
    ///
    /// # Errors
    /// Any [`Error`]. That it was rejected (a hold, the retention floor) is the answer's item.
    pub async fn erase(
        &self,
        erasure: &Statement,
        signing: &Signing,
    ) -> Result<(Answer, u32), Error> {
        check_request(std::slice::from_ref(erasure))?;
        let statements = std::slice::from_ref(erasure).iter();
        let envelopes = signing.envelopes(statements).map_err(InputError::from)?;
        let request = v1::EraseContentRequest {
            ledger: self.ledger.shared.name.clone(),
            envelope: envelopes.first().cloned(),
            look_up: Vec::new(),
        };
        let answer = self
            .ledger
            .call(|server| {
                let request = request.clone();
                async move { server.content().erase_content(request).await }
            })
            .await?;
        let erased = answer.erased;
        let results: Vec<_> = answer.result.into_iter().collect();
        let head = if answer.checkpoint.is_empty() {
            None
        } else {
            Some(self.ledger.trust_note(&answer.checkpoint).await?.head)
        };
        let items = read_items(&results, &envelopes, head.as_ref(), false)?;
        if head.is_none() && items.iter().any(|item| item.receipt().is_some()) {
            return Err(AnswerError::Missing {
                what: "the tree head that covers the erasure",
            }
            .into());
        }
        self.ledger.link_heads_if_due();
        let answer = Answer {
            head,
            witnessed_size: 0,
            items,
        };
        Ok((answer, erased))
    }
}

fn not_opened(digest: CommitmentDigest, reason: &'static str) -> TrustError {
    TrustError::Content {
        commitment: digest.to_string(),
        reason,
    }
}

/// A content that is not there, told from a failure.
fn absent(status: &Status, server: &str) -> Result<ContentState, Error> {
    let info = status.get_details_error_info();
    match info.filter(|info| info.reason == "CONTENT_ERASED") {
        Some(info) => Ok(ContentState::Erased {
            erasure_leaf: info
                .metadata
                .get("erasure_leaf")
                .and_then(|leaf| leaf.parse().ok()),
        }),
        // "No such ledger" has the same code, but a ledger is connected to by now.
        None if status.code() == Code::NotFound => Ok(ContentState::Unknown),
        None => Err(Error::of_status(status, server)),
    }
}
