//! Bytes that no value encodes to.

use deed_evidence::{PAYLOAD_BYTES_MAX, Problem, WireError, statement};
use deed_proto::v1::statement::Body;
use prost::{Message as _, encoding::encode_varint};

use super::length;
use crate::{
    fixtures,
    fuzz::statement::{Verdict, check},
};

/// What no value encodes to: written byte for byte.
#[test]
fn each_encoding_problem_names_its_place() {
    let valid = statement::encode(&fixtures::intent()).unwrap();
    let session = statement::encode(&fixtures::heartbeat()).unwrap();
    // A field in front of the valid statement or behind it, or instead of a part of it.
    let front = |bytes: &[u8]| [bytes, &valid].concat();
    let back = |bytes: &[u8]| [&valid, bytes].concat();
    // The heartbeat ends in 92 02, length 4, 08 07 10 06.
    let beat = |bytes: &[u8]| [&session[..session.len() - 5], bytes].concat();
    let unknown = |number| Problem::UnknownField { number };
    let body = |number| Problem::UnknownBody { number };
    let cut = |wanted, have| Problem::CutOff { wanted, have };
    let wire = |found, wanted| Problem::WireType { found, wanted };
    let rows: Vec<(Vec<u8>, &str, Problem)> = vec![
        (Vec::new(), "payload", length(0, 1, PAYLOAD_BYTES_MAX)),
        (
            vec![0; 60_001],
            "payload",
            length(60_001, 1, PAYLOAD_BYTES_MAX),
        ),
        (vec![0; 60_000], "message", unknown(0)),
        (vec![0x80], "message", cut(2, 1)),
        (vec![0x80; 9], "message", cut(10, 9)),
        (vec![0x80; 10], "message", Problem::Varint),
        (vec![0xff; 11], "message", Problem::Varint),
        // Ten bytes with more than bit 63 in the last.
        ([&[0xff; 9][..], &[2]].concat(), "message", Problem::Varint),
        // The tag of field 1 in two bytes.
        (vec![0x8a, 0x00], "message", Problem::Varint),
        // Field 2^61 - 1, and 2^32 + 1, which must not be taken for field 1.
        (
            [&[0xff; 9][..], &[1]].concat(),
            "message",
            unknown((1 << 61) - 1),
        ),
        (
            vec![0x8a, 0x80, 0x80, 0x80, 0x80, 0x01],
            "message",
            unknown((1 << 32) + 1),
        ),
        (vec![0x6a, 0x01, b'x'], "message", unknown(13)),
        (back(&[0x82, 0x04, 0x00]), "message", unknown(64)),
        (front(&[0x9a, 0x01, 0x00]), "message", unknown(19)),
        (front(&[0x8a, 0x02, 0x00]), "message", body(33)),
        (front(&[0xb2, 0x02, 0x00]), "message", body(38)),
        (back(&[0x92, 0x03, 0x00]), "message", body(50)),
        (back(&[0xfa, 0x03, 0x00]), "message", body(63)),
        (beat(&[2, 0x20, 1]), "heartbeat", unknown(4)),
        (beat(&[3, 0xd2, 0x01, 0]), "heartbeat", unknown(26)),
        (vec![0x0a], "ledger_id", cut(1, 0)),
        (vec![0x0a, 0x20, 1], "ledger_id", cut(32, 1)),
        (
            [&[0x0a][..], &[0xff; 9], &[1]].concat(),
            "ledger_id",
            cut(u64::MAX, 0),
        ),
        (vec![0x0a, 0xa0, 0x00], "ledger_id", Problem::Varint),
        (vec![0x0a, 0x00], "ledger_id", Problem::DefaultWritten),
        (vec![0x08, 0x01], "ledger_id", wire(0, 2)),
        (vec![0x09], "ledger_id", wire(1, 2)),
        (vec![0x0b], "ledger_id", wire(3, 2)),
        (vec![0x0d], "ledger_id", wire(5, 2)),
        (vec![0x0f], "ledger_id", wire(7, 2)),
        (
            front(&[0x12, 3, b'a', b':', b'b']),
            "message",
            Problem::Order,
        ),
        ([&valid[..34], &valid].concat(), "ledger_id", Problem::Order),
        (
            back(&[0x92, 0x02, 4, 8, 7, 16, 6]),
            "heartbeat",
            Problem::OneOf,
        ),
        (back(&[0xe2, 0x01, 0]), "intent", Problem::Order),
        (back(&[0xba, 0x01, 0]), "message", Problem::Order),
        (
            back(&[0xaa, 0x02, 0]),
            "finding_disposition",
            Problem::OneOf,
        ),
        (
            beat(&[4, 8, 0, 16, 6]),
            "heartbeat.last_sequence",
            Problem::DefaultWritten,
        ),
        (
            beat(&[4, 8, 7, 16, 0]),
            "heartbeat.count",
            Problem::DefaultWritten,
        ),
        (
            beat(&[5, 8, 0x87, 0, 16, 6]),
            "heartbeat.last_sequence",
            Problem::Varint,
        ),
        (beat(&[4, 16, 6, 8, 7]), "heartbeat", Problem::Order),
        (
            beat(&[4, 8, 7, 8, 7]),
            "heartbeat.last_sequence",
            Problem::Order,
        ),
        (beat(&[3, 8, 7, 16]), "heartbeat.count", cut(1, 0)),
        (beat(&[4, 8, 7, 16]), "heartbeat", cut(4, 3)),
        (beat(&[0]), "heartbeat.count", Problem::Missing),
        (
            vec![0x12, 4, b'a', b':', 0xff, 0xff],
            "producer",
            Problem::NotUtf8,
        ),
        (
            vec![0x12, 4, b'a', b':', 0xc0, 0x80],
            "producer",
            Problem::NotUtf8,
        ),
        // A surrogate.
        (
            vec![0x12, 5, b'a', b':', 0xed, 0xa0, 0x80],
            "producer",
            Problem::NotUtf8,
        ),
    ];
    for (bytes, field, problem) in rows {
        let wanted = WireError {
            field: field.into(),
            problem,
        };
        assert_eq!(statement::parse(&bytes), Err(wanted), "{bytes:02x?}");
        check(&bytes);
    }
}

/// A flag that is not set is left out, and one that is set is 1: Protobuf libraries take any other
/// number for it.
#[test]
fn a_flag_has_one_form() {
    let set = statement::encode(&fixtures::task_receipt()).unwrap();
    let (flag, before) = set.split_last_chunk::<2>().map(|(b, f)| (f, b)).unwrap();
    assert_eq!(flag, &[0x30, 1]);
    assert_eq!(check(&set), Verdict::Accepted);
    let Some(Body::TaskReceipt(receipt)) = fixtures::task_receipt().body else {
        unreachable!()
    };
    let length_at = set.len() - receipt.encoded_len() - 1;
    let refused = |flag: &[u8], problem| {
        let field = "task_receipt.requested".into();
        let wanted = WireError { field, problem };
        // The last field of all, so that only the body's length hangs on its own.
        let mut bytes = [before, flag].concat();
        bytes[length_at] += u8::try_from(flag.len() - 2).unwrap();
        assert_eq!(check(&bytes), Verdict::NotCanonical(wanted), "{flag:02x?}");
    };
    refused(&[0x30, 0], Problem::DefaultWritten);
    refused(&[0x30, 2], Problem::Range { value: 2 });
    let most = [&[0x30][..], &[0xff; 9], &[1]].concat();
    refused(&most, Problem::Range { value: u64::MAX });
    refused(&[0x30, 0x81, 0], Problem::Varint);
    let wire_type = Problem::WireType {
        found: 2,
        wanted: 0,
    };
    refused(&[0x32, 1, 1], wire_type);
}

/// A number of 32 bits is not read from the low half of a longer one, as Protobuf libraries do.
#[test]
fn rules_version_has_32_bits() {
    let with_version = |version: u64| {
        let mut made = fixtures::genesis_statement();
        let Some(Body::Genesis(mut genesis)) = made.body.take() else {
            unreachable!()
        };
        genesis.rules_version = 0;
        let mut body = genesis.encode_to_vec();
        body.push(6 << 3);
        encode_varint(version, &mut body);
        let mut payload = made.encode_to_vec();
        payload.extend([0xa2, 0x01]);
        encode_varint(body.len() as u64, &mut payload);
        [payload, body].concat()
    };
    for version in [1, 2, u64::from(u32::MAX)] {
        let payload = with_version(version);
        assert_eq!(check(&payload), Verdict::Accepted, "{version}");
    }
    for value in [1 << 32, (1 << 32) + 1, u64::MAX] {
        let wanted = WireError {
            field: "genesis.rules_version".into(),
            problem: Problem::Range { value },
        };
        let verdict = check(&with_version(value));
        assert_eq!(verdict, Verdict::NotCanonical(wanted), "{value}");
    }
}
