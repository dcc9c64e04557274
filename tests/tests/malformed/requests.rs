//! The malformed requests, made from valid ones and random numbers.

use std::sync::LazyLock;

use bytes::Bytes;
use deed_proto::v1::{self, put_content_request::Part};
use deed_tests::{
    access::frame,
    contents::{Content, part},
    random::Random,
    wire::{Schema, varint},
};
use prost::Message as _;

use crate::{Kind, Target};

fn bytes(random: &mut Random, max: u64) -> Vec<u8> {
    let length = random.between(0, max);
    (0..length).map(|_| (random.next() & 0xff) as u8).collect()
}

pub(crate) fn pick<'a, T>(random: &mut Random, all: &'a [T]) -> &'a T {
    let at = random.next() % all.len() as u64;
    &all[usize::try_from(at).expect("a short list")]
}

/// Changes, inserts, removes or repeats some bytes.
pub(crate) fn mutate(random: &mut Random, original: &[u8]) -> Vec<u8> {
    let mut changed = original.to_vec();
    for _ in 0..random.between(1, 4) {
        let at = usize::try_from(random.next() % (changed.len().max(1) as u64)).expect("a place");
        let byte = (random.next() & 0xff) as u8;
        match random.between(0, 5) {
            _ if changed.is_empty() => changed.push(byte),
            0 => changed[at] ^= 1 << random.between(0, 7),
            1 => changed[at] = byte,
            2 => changed.insert(at, byte),
            3 => drop(changed.remove(at)),
            4 => changed.truncate(at),
            _ => changed.extend_from_within(at..),
        }
    }
    changed
}

/// Returns random bytes, some of which begin like a request.
pub(crate) fn random_protocol(random: &mut Random) -> Vec<u8> {
    let begins: [&[u8]; 8] = [
        b"",
        b"GET ",
        b"GET /logs/payments/checkpoint HTTP/1.1\r\n",
        b"POST /deed.v1.Ledger/Append HTTP/1.1\r\nhost: x\r\ncontent-length: ",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: ",
    ];
    [pick(random, &begins), &bytes(random, 600)[..]].concat()
}

/// Returns HTTP/2's preface and frames whose type, flags, stream and length are random or nearly
/// right.
pub(crate) fn http2_frames(random: &mut Random) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    if random.once_in(2) {
        out.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    }
    for _ in 0..random.between(1, 12) {
        let payload = bytes(random, 80);
        let said = match random.between(0, 3) {
            0 => random.next() & 0x00ff_ffff,
            _ => payload.len() as u64,
        };
        let kind = random.between(0, 10) as u8;
        let flags = (random.next() & 0xff) as u8;
        let stream = match random.between(0, 2) {
            0 => 0,
            1 => random.between(1, 9) as u32,
            _ => (random.next() & 0xffff_ffff) as u32,
        };
        out.extend(&(said as u32).to_be_bytes()[1..]);
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
    }
    out
}

/// Returns endless headers, over HTTP/1.1, or over HTTP/2 as one HEADERS and many CONTINUATIONs.
pub(crate) fn header_flood(random: &mut Random) -> Vec<u8> {
    if random.once_in(2) {
        let mut out = b"GET /logs/payments/checkpoint HTTP/1.1\r\nhost: x\r\n".to_vec();
        for n in 0..random.between(101, 600) {
            out.extend(format!("x-{n}: {}\r\n", "y".repeat(200)).bytes());
        }
        out.extend(b"\r\n");
        return out;
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // The field is a literal header without indexing, whose name and value are not compressed.
    let mut fields = Vec::new();
    while fields.len() < 16_000 {
        fields.extend([0, 3, b'x', b'-', b'y', 100]);
        fields.extend([b'z'; 100]);
    }
    let frames = random.between(2, 30);
    for frame in 0..frames {
        let kind = if frame == 0 { 1 } else { 9 };
        let flags = if frame + 1 == frames { 4 } else { 0 };
        out.extend(&u32::try_from(fields.len()).expect("short").to_be_bytes()[1..]);
        out.extend([kind, flags, 0, 0, 0, 1]);
        out.extend(&fields);
    }
    out
}

/// The paths of all rpcs that the server has, and of one that it has not.
static RPCS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let others = [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/deed.v1.Nobody/Nothing",
    ];
    let others = others.iter().map(|path| (*path).to_owned());
    Schema::rpcs().into_iter().chain(others).collect()
});

const APPENDS: [&str; 2] = ["/deed.v1.Ledger/Append", "/deed.v1.Ledger/AppendStream"];

/// Returns path and body of a malformed request.
pub(crate) fn grpc_request(target: &Target, kind: Kind, random: &mut Random) -> (String, Bytes) {
    let (path, body) = match kind {
        Kind::GrpcFrame => (&pick(random, &RPCS)[..], bad_frame(target, random)),
        Kind::Protobuf => (
            &pick(random, &RPCS)[..],
            frame(&bad_message(target, random)),
        ),
        Kind::Append => {
            let original: &Vec<u8> = pick(random, &target.appends);
            let message = mutate(random, original);
            let path = *pick(random, &APPENDS);
            (path, frame(&message))
        }
        Kind::Erase => {
            let message = mutate(random, &target.erasure);
            ("/deed.v1.Content/EraseContent", frame(&message))
        }
        _ => ("/deed.v1.Content/PutContent", upload(random)),
    };
    (path.to_owned(), body)
}

/// A body that is no sequence of messages.
fn bad_frame(target: &Target, random: &mut Random) -> Bytes {
    let message = pick(random, &target.appends);
    let mut body = frame(message).to_vec();
    match random.between(0, 7) {
        // The announced length is larger than the body, by a little or by gigabytes.
        0 => body[4] = body[4].wrapping_add(random.between(1, 100) as u8),
        1 => body[1..5].copy_from_slice(&u32::MAX.to_be_bytes()),
        2 => body[1..5].copy_from_slice(&(random.next() as u32).to_be_bytes()),
        // The announced length is smaller than the body.
        3 => body[4] /= 2,
        // The flag says that it is compressed, which was not agreed on; or has an undefined value.
        4 => body[0] = 1,
        5 => body[0] = random.between(2, 255) as u8,
        6 => body.truncate(random.between(0, 4) as usize),
        _ => body = bytes(random, 300),
    }
    body.into()
}

/// Returns bytes that are no message, or hardly one.
fn bad_message(target: &Target, random: &mut Random) -> Vec<u8> {
    match random.between(0, 4) {
        0 => bytes(random, 300),
        1 => {
            let message = pick(random, &target.appends);
            let length = random.next() % message.len() as u64;
            message[..usize::try_from(length).expect("short")].to_vec()
        }
        // Messages are nested deeper than any valid one.
        2 => {
            let mut message = bytes(random, 10);
            for _ in 0..random.between(90, 400) {
                message = [&[0x12][..], &varint(message.len() as u64), &message].concat();
            }
            message
        }
        // The ledger's name is valid, and nothing after it.
        3 => [b"\x0a\x08payments", &bytes(random, 100)[..]].concat(),
        // The numbers are out of range.
        _ => {
            let mut message = b"\x0a\x08payments".to_vec();
            for field in 2..random.between(3, 6) {
                message.extend(varint(field << 3));
                message.extend(varint(random.next() | 1 << 63));
            }
            message
        }
    }
}

/// Returns the messages of an upload in a wrong order.
fn upload(random: &mut Random) -> Bytes {
    let content = Content::new(random.next(), bytes(random, 400));
    let mut parts = content.parts("payments", 100);
    let begin = parts[0].clone();
    match random.between(0, 5) {
        0 => drop(parts.remove(0)),
        1 => parts.push(begin),
        2 => parts.rotate_left(1),
        3 => parts.push(part(Part::Chunk(Bytes::from_static(b"more")))),
        4 => parts.insert(1, v1::PutContentRequest { part: None }),
        _ => {
            if let Some(Part::Begin(begin)) = &mut parts[0].part {
                let digest = mutate(random, &begin.commitment);
                begin.commitment = digest.into();
            }
        }
    }
    // An empty upload has the same order whatever is changed.
    if content.bytes.is_empty() {
        parts.clear();
    }
    let frames = parts.iter().map(|part| frame(&part.encode_to_vec()));
    frames.collect::<Vec<_>>().concat().into()
}
