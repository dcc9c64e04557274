//! The service `deed.v1.Content`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deed_evidence::{CommitmentDigest, commitment::Salt};
use deed_proto::v1::{self, content_server::Content, put_content_request::Part};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Answers, Context,
    answer::{Messages, Reading, Step},
    sender, stopping,
};
use deed_engine::{
    content::{Begun, LedgerRef, PIECE_BYTES, Reader},
    pressure::{BudgetPermit, answers::CHUNK_BYTES},
};

use crate::{
    access::{Caller, table::Method},
    blocking::blocking,
    status::ApiError,
};

/// Largest chunk of an upload, in bytes.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Bytes that an upload must send for each further second of waiting for its client.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Longest time that an upload waits for its principal's quota.
const QUOTA_WAIT: Duration = Duration::from_secs(30);

pub(crate) struct ContentService(pub(crate) Context);

#[tonic::async_trait]
impl Content for ContentService {
    async fn put_content(
        &self,
        request: Request<Streaming<v1::PutContentRequest>>,
    ) -> Result<Response<v1::PutContentResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let mut parts = request.into_inner();
        let mut patience = Patience::new(self.0.contents.stall_max());
        let Some(Part::Begin(begin)) = next_part(&self.0, &mut parts, &mut patience).await? else {
            let what = "the first message of an upload is `begin`";
            return Err(ApiError::field("part", what).into());
        };
        caller.require(Method::PutContent, &begin.ledger)?;
        let digest = digest(&begin.commitment)?;
        let salt = begin.salt.as_ref().try_into().map_err(|_| {
            let what = format!("{} bytes where 32 are needed", begin.salt.len());
            ApiError::field("salt", what)
        })?;
        let salt = Salt::from_bytes(salt);
        let ledger = self
            .0
            .ledger(&caller, Method::PutContent, &begin.ledger)
            .await?;
        let ledger = LedgerRef::from(&*ledger);
        let contents = Arc::clone(&self.0.contents);
        let source = caller.source(&self.0.pressure);
        let place = contents.uploads.take(&source, Some(ledger.number));
        let _place = place.map_err(ApiError::from)?;
        let principal = caller.principal().cloned().unwrap_or_else(|| Arc::from(""));
        let size = begin.size;
        let begin_upload = move || {
            let (contents, salt) = (Arc::clone(&contents), salt);
            let principal = Arc::clone(&principal);
            blocking(move || Ok(contents.begin_upload(ledger, digest, &salt, size, &principal)?))
        };
        let mut begun = begin_upload().await?;
        if let Begun::AlreadyHeld = begun {
            // Nothing is collected while the gate is held.
            let gate = self.0.contents.enter(ledger.number).await;
            let held = self.0.contents.keep_held(&gate, digest).await;
            if !held.map_err(ApiError::from)? {
                // The content was collected just now. If it is held again, another request has just
                // stored it.
                begun = begin_upload().await?;
            }
        }
        let Begun::Upload(mut upload) = begun else {
            return Ok(Response::new(v1::PutContentResponse { already_held: true }));
        };
        // Chunks are taken one at a time: the next one is read when this one is sealed and written.
        while let Some(part) = next_part(&self.0, &mut parts, &mut patience).await? {
            let chunk = chunk(part)?;
            patience.came(chunk.len());
            // A stream may outlive the caller's role.
            caller.require(Method::PutContent, &begin.ledger)?;
            let quotas = &self.0.pressure.quotas;
            quotas
                .take_waiting(caller.principal(), 0, chunk.len(), QUOTA_WAIT)
                .await
                .map_err(ApiError::from)?;
            let written = self.0.contents.write_upload(upload, chunk).await;
            upload = written.map_err(ApiError::from)?;
        }
        let gate = self.0.contents.enter(ledger.number).await;
        let new = self.0.contents.finish_upload(&gate, *upload).await;
        Ok(Response::new(v1::PutContentResponse {
            already_held: !new.map_err(ApiError::from)?,
        }))
    }

    type GetContentStream = Answers<v1::GetContentResponse>;

    async fn get_content(
        &self,
        request: Request<v1::GetContentRequest>,
    ) -> Result<Response<Self::GetContentStream>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetContent, &request.ledger)
            .await?;
        let digest = digest(&request.commitment)?;
        let reading = self.0.open_reading(caller, Method::GetContent, &ledger)?;
        let ledger = LedgerRef::from(&*ledger);
        let contents = Arc::clone(&self.0.contents);
        let reader = reading.read(move || Ok(contents.open_content(ledger, digest)?));
        let sending = Sending {
            reader: Some(Box::new(reader.await?)),
            piece: VecDeque::new(),
            share: None,
        };
        // If the content is unknown, erased or damaged at its beginning, that is the answer to the
        // call.
        let (first, later) = sending.next(&reading).await?;
        Ok(reading.stream(first, later))
    }

    async fn erase_content(
        &self,
        request: Request<v1::EraseContentRequest>,
    ) -> Result<Response<v1::EraseContentResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::EraseContent, &request.ledger)
            .await?;
        let sender = sender(&caller, &request.ledger);
        let source = caller.source(&self.0.pressure);
        let context = self.0.clone();
        // The task is spawned, so that a caller that gives up leaves no erasure half done.
        let erasing = tokio::spawn(async move {
            let appends = &context.appends;
            appends.erase(request, &ledger, &sender, &source).await
        });
        let erased = erasing
            .await
            .map_err(|error| ApiError::Internal(format!("an erasure ended early: {error}")))?;
        Ok(Response::new(erased.map_err(ApiError::from)?))
    }
}

/// The time that an upload may still wait for its client. Waiting for the server is not counted.
struct Patience {
    /// The longest time without any bytes, which is also the time at the beginning.
    stall_max: Duration,
    left: Duration,
}

impl Patience {
    fn new(stall_max: Duration) -> Self {
        Self {
            stall_max,
            left: stall_max,
        }
    }

    /// Adds the time for `bytes` bytes that arrived. The sum never exceeds `stall_max`: an upload
    /// that was fast at first may not hold its place for longer than another.
    fn came(&mut self, bytes: usize) {
        let bought_ns = (bytes as u64).saturating_mul(1_000_000_000) / BYTES_PER_SECOND_MIN;
        let bought = Duration::from_nanos(bought_ns);
        self.left = self.left.saturating_add(bought).min(self.stall_max);
    }

    /// Waits for `next`, as long as the client may make the server wait.
    async fn wait_for<T>(&mut self, next: impl Future<Output = T>) -> Result<T, ApiError> {
        let begun = Instant::now();
        let came = tokio::time::timeout(self.left, next).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        came.map_err(|_| {
            ApiError::Unavailable(format!(
                "the upload was too slow: it may stand still for {:?}, and {BYTES_PER_SECOND_MIN} \
                 bytes a second are the least; send it again, faster",
                self.stall_max
            ))
        })
    }
}

/// Returns the next message of an upload; `None` at its end.
async fn next_part(
    context: &Context,
    parts: &mut Streaming<v1::PutContentRequest>,
    patience: &mut Patience,
) -> Result<Option<Part>, Status> {
    let message = tokio::select! {
        biased;
        () = context.stopped() => return Err(stopping().into()),
        message = patience.wait_for(parts.message()) => message?,
    };
    match message? {
        None => Ok(None),
        Some(v1::PutContentRequest { part: Some(part) }) => Ok(Some(part)),
        Some(v1::PutContentRequest { part: None }) => {
            Err(ApiError::field("part", "is missing").into())
        }
    }
}

fn chunk(part: Part) -> Result<Bytes, ApiError> {
    match part {
        Part::Chunk(chunk) if (1..=CHUNK_BYTES_MAX).contains(&chunk.len()) => Ok(chunk),
        Part::Chunk(chunk) => {
            let found = chunk.len();
            let what = format!("{found} bytes where 1 to {CHUNK_BYTES_MAX} are allowed");
            Err(ApiError::field("chunk", what))
        }
        Part::Begin(_) => Err(ApiError::field("part", "a second `begin` in one upload")),
    }
}

fn digest(commitment: &[u8]) -> Result<CommitmentDigest, ApiError> {
    CommitmentDigest::from_slice(commitment).ok_or_else(|| {
        let what = format!("{} bytes where 32 are needed", commitment.len());
        ApiError::field("commitment", what)
    })
}

/// A content that is sent. One piece at a time is decrypted as a whole and cut into messages, each
/// of which takes its part of the piece's permit along.
struct Sending {
    /// The reader; `None` while it reads, and at the end.
    reader: Option<Box<Reader>>,
    piece: VecDeque<v1::GetContentResponse>,
    share: Option<BudgetPermit>,
}

impl Messages for Sending {
    type Message = v1::GetContentResponse;

    async fn next(mut self, reading: &Reading) -> Step<v1::GetContentResponse, Self> {
        if self.piece.is_empty() {
            // The rest of the last permit is given back first: no call waits for room while it
            // holds some.
            self.share = None;
            let Some(reader) = self.reader.take() else {
                return Ok((None, None));
            };
            let share = reading.take_room(PIECE_BYTES + CHUNK_BYTES).await?;
            reading.require()?;
            let read = reading.read(move || messages(reader));
            (self.reader, self.piece) = read.await?;
            self.share = Some(share);
        }
        let Some(answer) = self.piece.pop_front() else {
            return Ok((None, None));
        };
        if let Some(share) = &mut self.share {
            let part = share.split(CHUNK_BYTES);
            reading.made(part, &answer);
        }
        Ok((Some(answer), Some(self)))
    }
}

type Pieces = VecDeque<v1::GetContentResponse>;

/// Reads the next piece and cuts it into messages. At the end it returns neither reader nor
/// messages.
fn messages(mut reader: Box<Reader>) -> Result<(Option<Box<Reader>>, Pieces), ApiError> {
    let Some(piece) = reader.next_piece()? else {
        return Ok((None, Pieces::new()));
    };
    let (mut size, mut salt) = match piece.salt {
        Some(salt) => (reader.size(), Bytes::copy_from_slice(salt.as_bytes())),
        None => (0, Bytes::new()),
    };
    let mut messages = Pieces::new();
    let mut rest: &[u8] = &piece.bytes;
    // An empty content has one message too, which brings the salt.
    while messages.is_empty() || !rest.is_empty() {
        let (chunk, later) = rest.split_at(rest.len().min(CHUNK_BYTES));
        messages.push_back(v1::GetContentResponse {
            size: std::mem::take(&mut size),
            salt: std::mem::take(&mut salt),
            chunk: Bytes::copy_from_slice(chunk),
        });
        rest = later;
    }
    Ok((Some(reader), messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn an_upload_that_stands_still_or_trickles_is_ended() {
        let mut patience = Patience::new(10 * SECOND);
        let next = patience.wait_for(std::future::ready(1)).await;
        assert!(next.is_ok() && patience.left <= 10 * SECOND);
        // A single byte buys almost no time.
        patience.left = Duration::from_millis(1);
        for _ in 0..100 {
            patience.came(1);
        }
        assert!(patience.left < Duration::from_millis(4));
        patience.came(64 << 10);
        assert!(patience.left > SECOND);
        // Many bytes buy no more than the longest time without any.
        patience.came(64 << 20);
        assert_eq!(patience.left, 10 * SECOND);
        patience.left = Duration::from_millis(1);
        let late = patience.wait_for(std::future::pending::<()>()).await;
        assert!(matches!(late, Err(ApiError::Unavailable(what)) if what.contains("too slow")));
        assert!(patience.left.is_zero());
    }
}
