//! The bytes of a connection, in clear or under TLS, with bounds on time.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::{
    Connection, Counters,
    activity::Activity,
    http1::{Heads, NO_REQUEST},
    places::Place,
};

/// Bytes that are read of a connection before others have their turn: they take about a millisecond
/// if they are the smallest frames of HTTP/2.
pub(super) const TURN_BYTES: usize = 64 << 10;

/// An accepted connection.
pub(crate) struct GuardedIo {
    stream: Stream,
    connection: Connection,
    /// Ready once the connection must end.
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Fires when the connection may have been quiet for too long.
    quiet: Pin<Box<Sleep>>,
    /// Fires when the peer has taken nothing for too long; set while something waits for it.
    stalled: Option<Pin<Box<Sleep>>>,
    stall: Duration,
    counters: Arc<Counters>,
    heads: Heads,
    /// Bytes that were read since other connections had their turn.
    turn_bytes: usize,
    /// Bytes that are read in place of those that a malformed connection sends.
    instead: Option<&'static [u8]>,
    /// The connection's place among those that may be open.
    _place: Place,
}

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl GuardedIo {
    pub(crate) fn new(
        stream: Stream,
        connection: Connection,
        stall: Duration,
        counters: Arc<Counters>,
        place: Place,
    ) -> Self {
        counters.opened();
        let first_look = connection.activity.first_look();
        Self {
            leaving: Box::pin(connection.activity.leaving()),
            stream,
            connection,
            quiet: Box::pin(tokio::time::sleep_until(first_look)),
            stalled: None,
            stall,
            counters,
            heads: Heads::default(),
            turn_bytes: 0,
            instead: None,
            _place: place,
        }
    }

    /// Ends a connection that has been idle for too long, or whose place is needed.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.leaving.as_mut().poll(context).is_ready() {
            return Poll::Ready(self.gives_way());
        }
        loop {
            ready!(self.quiet.as_mut().poll(context));
            let activity: &Activity = &self.connection.activity;
            let now = Instant::now();
            let closes_at = activity.closes_at(now);
            if closes_at <= now {
                self.counters.timed_out();
                let error = "nothing was asked for in time";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, error));
            }
            self.quiet.as_mut().reset(closes_at);
        }
    }

    /// Checks the bytes behind `before`. If they are malformed, hides them from the parser, and
    /// sets the bytes that make it refuse them.
    fn check_heads(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if let Err(at) = self.heads.read(&buffer.filled()[before..]) {
            self.counters.malformed();
            buffer.set_filled(before + at);
            self.instead = Some(NO_REQUEST);
            self.read_instead(buffer);
        }
    }

    /// Reads the replacement for the rest of a malformed connection, and then its end. Returns
    /// false if the connection is not malformed.
    fn read_instead(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let Some(instead) = &mut self.instead else {
            return false;
        };
        let (now, later) = instead.split_at(instead.len().min(buffer.remaining()));
        buffer.put_slice(now);
        *instead = later;
        true
    }

    /// Fails if the connection must leave: it then reads and writes nothing more, even where it
    /// could.
    fn check_leaving(&self) -> io::Result<()> {
        if self.connection.activity.is_leaving() {
            return Err(self.gives_way());
        }
        Ok(())
    }

    fn gives_way(&self) -> io::Error {
        let error = "its place, or what it holds, was needed for another connection";
        io::Error::new(io::ErrorKind::ConnectionAborted, error)
    }

    /// Passes on the result of a write, and ends a connection whose peer takes nothing.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.leaving.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(self.gives_way()));
        }
        let stall = self.stall;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(stalled.as_mut().poll(context));
        self.counters.timed_out();
        let error = "the peer took nothing in time";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)))
    }
}

impl Drop for GuardedIo {
    fn drop(&mut self) {
        self.counters.closed();
    }
}

impl Connected for GuardedIo {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_leaving()?;
        if self.read_instead(buffer) {
            return Poll::Ready(Ok(()));
        }
        // Without this bound a peer that sends faster than the server reads would hold its thread
        // for megabytes at a time, which takes long if the frames are small.
        if self.turn_bytes >= TURN_BYTES {
            self.turn_bytes = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        match read {
            Poll::Ready(read) => {
                self.turn_bytes += buffer.filled().len() - before;
                self.check_heads(buffer, before);
                Poll::Ready(read)
            }
            Poll::Pending => {
                self.turn_bytes = 0;
                self.poll_quiet(context).map(Err)
            }
        }
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_leaving()?;
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_leaving()?;
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        self.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        };
        self.bounded(context, closed)
    }
}
