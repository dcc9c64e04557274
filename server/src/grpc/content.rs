//! `deed.v1.Content`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deed_evidence::{CommitmentDigest, commitment::Salt};
use deed_proto::v1::{self, content_server::Content, put_content_request::Part};
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Answers, Context,
    answer::{Reading, respond},
    sender, stopping,
};
use deed_engine::{
    content::{Begun, LedgerRef, PIECE_BYTES, Reader},
    pressure::{Share, answers::CHUNK_BYTES},
};

use crate::{
    access::{Caller, table::Method},
    blocking::blocking,
    status::Refusal,
};

/// Largest chunk of an upload, in bytes.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Bytes of an upload that buy it a second more of waiting for its client.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Bound on the time that an upload waits for its principal's quota.
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
            return Err(Refusal::field("part", what).into());
        };
        caller.require(Method::PutContent, &begin.ledger)?;
        let digest = digest(&begin.commitment)?;
        let salt = begin.salt.as_ref().try_into().map_err(|_| {
            let what = format!("{} bytes where 32 are needed", begin.salt.len());
            Refusal::field("salt", what)
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
        let _place = place.map_err(Refusal::from)?;
        let principal = caller.principal().cloned().unwrap_or_else(|| Arc::from(""));
        let size = begin.size;
        let begin_upload = move || {
            let (contents, salt) = (Arc::clone(&contents), salt);
            let principal = Arc::clone(&principal);
            blocking(move || Ok(contents.begin_upload(ledger, digest, &salt, size, &principal)?))
        };
        let mut begun = begin_upload().await?;
        if let Begun::AlreadyHeld = begun {
            // Nothing is collected behind the gate.
            let gate = self.0.contents.enter(ledger.number).await;
            let held = self.0.contents.keep_held(&gate, digest).await;
            if !held.map_err(Refusal::from)? {
                // It was collected just now. If it is held again, somebody has just stored it.
                begun = begin_upload().await?;
            }
        }
        let Begun::Upload(mut upload) = begun else {
            return Ok(Response::new(v1::PutContentResponse { already_held: true }));
        };
        // One chunk at a time: the next one is read when this one is sealed and written.
        while let Some(part) = next_part(&self.0, &mut parts, &mut patience).await? {
            let chunk = chunk(part)?;
            patience.came(chunk.len());
            // A stream may outlive what was granted.
            caller.require(Method::PutContent, &begin.ledger)?;
            let quotas = &self.0.pressure.quotas;
            quotas
                .take_waiting(caller.principal(), 0, chunk.len(), QUOTA_WAIT)
                .await
                .map_err(Refusal::from)?;
            let written = self.0.contents.write_upload(upload, chunk).await;
            upload = written.map_err(Refusal::from)?;
        }
        let gate = self.0.contents.enter(ledger.number).await;
        let new = self.0.contents.finish_upload(&gate, *upload).await;
        Ok(Response::new(v1::PutContentResponse {
            already_held: !new.map_err(Refusal::from)?,
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
        let room = reading.room();
        let ledger = LedgerRef::from(&*ledger);
        let contents = Arc::clone(&self.0.contents);
        let reader = reading.read(move || Ok(contents.open_content(ledger, digest)?));
        let mut sending = Sending {
            reader: Some(Box::new(reader.await?)),
            piece: VecDeque::new(),
            share: None,
            reading,
        };
        // What is unknown, erased or damaged at its beginning is the answer to the request.
        let first = sending.next().await?;
        let later = stream::unfold(Some(sending), |sending| async {
            let mut sending = sending?;
            match sending.next().await {
                Ok(answer) => Some((Ok(answer?), Some(sending))),
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        });
        let first = stream::iter(first.map(Ok));
        Ok(respond(&room, first.chain(later)))
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
        // A caller that gives up leaves no erasure half done.
        let erasing = tokio::spawn(async move {
            let appends = &context.appends;
            appends.erase(request, &ledger, &sender, &source).await
        });
        let erased = erasing
            .await
            .map_err(|error| Refusal::Internal(format!("an erasure ended early: {error}")))?;
        Ok(Response::new(erased.map_err(Refusal::from)?))
    }
}

/// The time that an upload may still wait for its client. Waiting for the server does not count.
struct Patience {
    /// Without anything coming, and at the beginning.
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

    /// So many bytes came. No more is kept than what an upload has that stands still: one that was
    /// fast at first does not hold its place for longer than another.
    fn came(&mut self, bytes: usize) {
        let bought_ns = (bytes as u64).saturating_mul(1_000_000_000) / BYTES_PER_SECOND_MIN;
        let bought = Duration::from_nanos(bought_ns);
        self.left = self.left.saturating_add(bought).min(self.stall_max);
    }

    /// Waits for a client as long as it may keep us waiting.
    async fn wait_for<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Refusal> {
        let begun = Instant::now();
        let came = tokio::time::timeout(self.left, next).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        came.map_err(|_| {
            Refusal::Unavailable(format!(
                "the upload was too slow: it may stand still for {:?}, and {BYTES_PER_SECOND_MIN} \
                 bytes a second are the least; send it again, faster",
                self.stall_max
            ))
        })
    }
}

/// The next message of an upload; `None` at its end.
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
            Err(Refusal::field("part", "is missing").into())
        }
    }
}

fn chunk(part: Part) -> Result<Bytes, Refusal> {
    match part {
        Part::Chunk(chunk) if (1..=CHUNK_BYTES_MAX).contains(&chunk.len()) => Ok(chunk),
        Part::Chunk(chunk) => {
            let found = chunk.len();
            let what = format!("{found} bytes where 1 to {CHUNK_BYTES_MAX} are allowed");
            Err(Refusal::field("chunk", what))
        }
        Part::Begin(_) => Err(Refusal::field("part", "a second `begin` in one upload")),
    }
}

fn digest(commitment: &[u8]) -> Result<CommitmentDigest, Refusal> {
    CommitmentDigest::from_slice(commitment).ok_or_else(|| {
        let what = format!("{} bytes where 32 are needed", commitment.len());
        Refusal::field("commitment", what)
    })
}

/// A content that is sent. A piece of it is decrypted as a whole; it is kept in as many parts as
/// there are messages of it, each of which goes with its part of the piece's share.
struct Sending {
    reading: Reading,
    /// `None` while it reads, and at the end.
    reader: Option<Box<Reader>>,
    piece: VecDeque<v1::GetContentResponse>,
    share: Option<Share>,
}

impl Sending {
    async fn next(&mut self) -> Result<Option<v1::GetContentResponse>, Refusal> {
        if self.piece.is_empty() {
            // First what is left of the last one: nobody waits for room with some in hand.
            self.share = None;
            let Some(reader) = self.reader.take() else {
                return Ok(None);
            };
            let share = self.reading.take_room(PIECE_BYTES + CHUNK_BYTES).await?;
            self.reading.require()?;
            let read = self.reading.read(move || messages(reader));
            (self.reader, self.piece) = read.await?;
            self.share = Some(share);
        }
        let Some(answer) = self.piece.pop_front() else {
            return Ok(None);
        };
        if let Some(share) = &mut self.share {
            let part = share.split(CHUNK_BYTES);
            self.reading.made(part, &answer);
        }
        Ok(Some(answer))
    }
}

type Messages = VecDeque<v1::GetContentResponse>;

/// The messages of a reader's next piece, none at its end, when it does not come back either.
fn messages(mut reader: Box<Reader>) -> Result<(Option<Box<Reader>>, Messages), Refusal> {
    let Some(piece) = reader.next_piece()? else {
        return Ok((None, Messages::new()));
    };
    let (mut size, mut salt) = match piece.salt {
        Some(salt) => (reader.size(), Bytes::copy_from_slice(salt.as_bytes())),
        None => (0, Bytes::new()),
    };
    let mut messages = Messages::new();
    let mut rest: &[u8] = &piece.bytes;
    // An empty content has a message too: it brings the salt.
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
        // A byte at a time buys next to nothing.
        patience.left = Duration::from_millis(1);
        for _ in 0..100 {
            patience.came(1);
        }
        assert!(patience.left < Duration::from_millis(4));
        patience.came(64 << 10);
        assert!(patience.left > SECOND);
        // And much of it no more than standing still may take.
        patience.came(64 << 20);
        assert_eq!(patience.left, 10 * SECOND);
        patience.left = Duration::from_millis(1);
        let late = patience.wait_for(std::future::pending::<()>()).await;
        assert!(matches!(late, Err(Refusal::Unavailable(what)) if what.contains("too slow")));
        assert!(patience.left.is_zero());
    }
}
