//! Strict parsing of HTTP/1, so that no proxy in front of the server reads it differently.
//!
//! HTTP/1 serves tiles and checkpoints, to requests that have no body. So all bytes of such a
//! connection belong to heads of requests, and can be checked as they come ([`Heads`]): lines end
//! in CRLF, and a head is bounded. Requests that the parser accepts and a proxy may read
//! differently (no `Host`, two of them, a body) are refused when they are complete ([`check`]).

use http::{HeaderMap, Request, StatusCode, Version, header};

/// Largest head of one request, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;

/// Largest incomplete head, in bytes. It is larger than the bound, so that a refusal can say why.
const UNFINISHED_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;

/// The preface of a connection of HTTP/2, which has its own framing (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Replaces malformed bytes. No parser accepts it as a request, so it is answered with 400.
pub(super) const NO_REQUEST: &[u8] = b"\0\r\n\r\n";

/// Checks the bytes of a connection along with the parser.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Number of bytes that agree with [`PREFACE`]; all of them once the connection is HTTP/2.
    preface: usize,
    differs: bool,
    after_cr: bool,
    line_bytes: usize,
    head_bytes: usize,
}

impl Heads {
    /// Checks the next bytes; the error is the position of the byte at which they are malformed.
    ///
    /// Source: RFC 9112 sections 2.2 and 5.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.preface == PREFACE.len() {
                return Ok(());
            }
            self.differs |= byte != PREFACE[self.preface];
            if !self.differs {
                self.preface += 1;
            }
            self.read_byte(byte).map_err(|()| at)?;
        }
        Ok(())
    }

    fn read_byte(&mut self, byte: u8) -> Result<(), ()> {
        // A CR must stand before each LF and nowhere else.
        if self.after_cr != (byte == b'\n') {
            return Err(());
        }
        self.head_bytes += 1;
        if self.head_bytes > UNFINISHED_BYTES_MAX {
            return Err(());
        }
        match byte {
            b'\r' => self.after_cr = true,
            b'\n' => {
                self.after_cr = false;
                if self.line_bytes == 0 {
                    self.head_bytes = 0;
                }
                self.line_bytes = 0;
            }
            _ => self.line_bytes += 1,
        }
        Ok(())
    }
}

/// Fails, with the HTTP answer, if a request over HTTP/1 must not be served.
///
/// Source: RFC 9112 section 3.2, RFC 6585 section 5.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
    if request.version() > Version::HTTP_11 {
        return Ok(());
    }
    let headers = request.headers();
    if head_bytes(request) > HEAD_BYTES_MAX {
        let why = "the request's head has more than 16 KiB";
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        let why = "a request of HTTP/1.1 has one Host header";
        return Err((StatusCode::BAD_REQUEST, why));
    }
    if announces_body(headers) {
        let why = "requests over HTTP/1 have no body here; gRPC needs HTTP/2";
        return Err((StatusCode::BAD_REQUEST, why));
    }
    Ok(())
}

fn head_bytes<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len())
        + uri.authority().map_or(0, |host| host.as_str().len());
    let fields = request.headers().iter();
    // Each field counts as on the wire: with a colon, a space and the line's end.
    fields.fold(target, |sum, (name, value)| {
        sum + name.as_str().len() + value.len() + 4
    })
}

fn announces_body(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING)
        || lengths.iter().any(|length| length.as_bytes() != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the bytes, cut in every way; returns the position at which they are malformed.
    fn read(bytes: &[u8]) -> Result<(), usize> {
        let whole = Heads::default().read(bytes);
        for size in [1, 2, 7] {
            let (mut heads, mut before) = (Heads::default(), 0);
            let cut = bytes.chunks(size).try_for_each(|chunk| {
                heads.read(chunk).map_err(|at| before + at)?;
                before += chunk.len();
                Ok(())
            });
            assert_eq!(cut, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn lines_end_in_crlf() {
        let good = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(read(good), Ok(()));
        assert_eq!(read(&good.repeat(2000)), Ok(()), "each head by itself");
        assert_eq!(read(b"GET / HTTP/1.1\nhost: x\n\n"), Err(14));
        assert_eq!(read(b"GET / HTTP/1.1\r\nhost: x\n\r\n"), Err(23));
        assert_eq!(read(b"GET / HTTP/1.1\r\nhost: x\ry: z\r\n\r\n"), Err(24));
        assert_eq!(read(b"\n"), Err(0));
        assert_eq!(read(b"\r\r\n"), Err(1));
        assert_eq!(read(&[good, &b"GET\n"[..]].concat()), Err(good.len() + 3));
    }

    #[test]
    fn a_head_ends() {
        let endless = b"GET / HTTP/1.1\r\n"
            .iter()
            .chain(b"a: b\r\n".iter().cycle());
        let endless: Vec<u8> = endless.copied().take(1 << 20).collect();
        assert_eq!(read(&endless), Err(UNFINISHED_BYTES_MAX));
    }

    #[test]
    fn http_2_is_left_alone() {
        let frames = [PREFACE, &b"\n\r\0\r\r\n\n"[..], &[b'a'; 1 << 17][..]].concat();
        assert_eq!(read(&frames), Ok(()));
        // These bytes differ from the preface at the end.
        let mut nearly = frames;
        nearly[20] = b'X';
        assert!(read(&nearly).is_err());
    }

    fn status(version: Version, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::get("/logs/a/checkpoint").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let checked = check(&request.body(()).unwrap());
        checked.err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn requests_name_one_host_and_have_no_body() {
        let host = ("host", "x");
        for (headers, wanted) in [
            (&[host][..], None),
            (&[], Some(400)),
            (&[host, host], Some(400)),
            (&[host, ("content-length", "0")], None),
            (&[host, ("content-length", "1")], Some(400)),
            (&[host, ("content-length", "00")], Some(400)),
            (&[host, ("transfer-encoding", "chunked")], Some(400)),
            (&[host, ("a", &"b".repeat(20 << 10))], Some(431)),
        ] {
            assert_eq!(status(Version::HTTP_11, headers), wanted, "{headers:.60?}");
            assert_eq!(status(Version::HTTP_2, headers), None);
        }
        assert_eq!(status(Version::HTTP_10, &[]), None);
        assert_eq!(status(Version::HTTP_10, &[host, host]), Some(400));
    }
}
