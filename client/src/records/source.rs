//! Bytes of a file or a pipe, unpacked.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Opens a file or a pipe to read; `-` is standard input.
///
/// # Errors
/// The errors of opening; an error for a directory.
pub fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        let says = "it is a directory; name the files in it";
        return Err(io::Error::new(io::ErrorKind::IsADirectory, says));
    }
    Ok(Box::new(file))
}

/// Unpacks gzip, also within gzip, by its first bytes; other packings and UTF-16 are refused by name.
///
/// # Errors
/// The errors of reading, and `InvalidData` for input that is refused.
pub(super) fn unpacked<'a>(source: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut source: Box<dyn Read + Send + 'a> = Box::new(source);
    // A log service and the pipe behind it may both have packed it.
    for _ in 0..3 {
        let mut first = Vec::new();
        source.by_ref().take(6).read_to_end(&mut first)?;
        let packed = match &first[..] {
            [0x1f, 0x8b, ..] => None,
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("is UTF-16; convert it to UTF-8"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("is packed by zstd; unpack it"),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Some("is a zip archive; unpack it"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some("is packed by bzip2; unpack it"),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Some("is packed by xz; unpack it"),
            _ => return Ok(Box::new(Cursor::new(first).chain(source))),
        };
        if let Some(says) = packed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, says));
        }
        source = Box::new(MultiGzDecoder::new(Cursor::new(first).chain(source)));
    }
    let says = "is packed by gzip more than twice";
    Err(io::Error::new(io::ErrorKind::InvalidData, says))
}

/// Bytes one by one, some of which can be given back.
pub(super) struct Bytes<'a> {
    source: Box<dyn Read + Send + 'a>,
    chunk: Vec<u8>,
    at: usize,
    /// Given back, the last one first.
    again: Vec<u8>,
    /// Bytes that are passed, but for those given back.
    position: u64,
    /// The failure that ended the bytes, if it is not the end.
    failure: Option<io::Error>,
    is_over: bool,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(source: impl Read + Send + 'a) -> Self {
        let (source, failure): (Box<dyn Read + Send + 'a>, _) = match unpacked(source) {
            Ok(source) => (source, None),
            Err(error) => (Box::new(io::empty()), Some(error)),
        };
        Self {
            source,
            chunk: Vec::new(),
            at: 0,
            again: Vec::new(),
            position: 0,
            is_over: failure.is_some(),
            failure,
        }
    }

    /// The next byte, which stays; `None` at the end, or where nothing more can be read.
    pub(super) fn peek(&mut self) -> Option<u8> {
        if let Some(byte) = self.again.last() {
            return Some(*byte);
        }
        if self.at == self.chunk.len() {
            self.fill();
        }
        self.chunk.get(self.at).copied()
    }

    /// Passes over the byte that [`peek`](Self::peek) gave.
    pub(super) fn pass(&mut self) {
        self.position += 1;
        if self.again.pop().is_none() {
            self.at += 1;
        }
    }

    /// Gives bytes back, so that they are read next.
    pub(super) fn give_back(&mut self, bytes: &[u8]) {
        self.position -= bytes.len() as u64;
        self.again.extend(bytes.iter().rev());
    }

    /// Returns true if these bytes come next, which stay.
    pub(super) fn starts_with(&mut self, bytes: &[u8]) -> bool {
        let mut seen = Vec::new();
        while seen.len() < bytes.len()
            && let Some(byte) = self.peek()
        {
            seen.push(byte);
            self.pass();
        }
        self.give_back(&seen);
        seen == bytes
    }

    /// Returns the position of reading.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// Returns true if reading failed, and the failure was not reported yet.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns the failure that ended reading before the end, once.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    fn fill(&mut self) {
        if self.is_over {
            return;
        }
        self.chunk.resize(CHUNK_BYTES, 0);
        let read = loop {
            match self.source.read(&mut self.chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let read = read.unwrap_or_else(|error| {
            self.failure = Some(error);
            0
        });
        self.chunk.truncate(read);
        self.at = 0;
        self.is_over = read == 0;
    }
}
