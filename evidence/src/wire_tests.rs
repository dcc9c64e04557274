//! The walk along tables that no statement has: rules hold at any level.

use deed_proto::rules::JsonForm;

use super::*;

static NO_JSON: JsonForm = JsonForm {
    names: &[],
    fields: &[],
};

const fn field(number: u32, name: &'static str, kind: Kind, presence: Presence) -> Field {
    Field {
        number,
        name,
        kind,
        presence,
        ascending: false,
    }
}

const fn message(name: &'static str, fields: &'static [Field]) -> Message {
    Message {
        name,
        fields,
        oneof_required: None,
        json: &NO_JSON,
    }
}

const fn ascending(field: Field) -> Field {
    Field {
        ascending: true,
        ..field
    }
}

const MANY: Presence = Presence::Repeated { min: 0, max: 8 };

static KEY: Message = message(
    "Key",
    &[field(
        1,
        "public_key",
        Kind::Bytes { min: 2, max: 2 },
        Presence::Required,
    )],
);

static INNER: Message = message(
    "Inner",
    &[
        ascending(field(1, "digests", Kind::Bytes { min: 1, max: 3 }, MANY)),
        field(2, "free", Kind::Bytes { min: 1, max: 3 }, MANY),
        ascending(field(3, "keys", Kind::Message(&KEY), MANY)),
        ascending(field(4, "more", Kind::Bytes { min: 1, max: 3 }, MANY)),
    ],
);

static OUTER: Message = message("Outer", &[field(7, "inner", Kind::Message(&INNER), MANY)]);

/// Fields of bytes, of which no one is longer than 127.
fn encoded(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, value) in fields {
        bytes.extend([number << 3 | 2, u8::try_from(value.len()).unwrap()]);
        bytes.extend(*value);
    }
    bytes
}

fn walked(table: &Message, bytes: &[u8]) -> Result<(), WireError> {
    walk(table, bytes, |_, _| {})
}

/// The elements of a message that has these, in this order, are refused: by itself, and as a part of
/// another message.
fn refused(fields: &[(u8, &[u8])], name: &str, rule: &'static str) {
    let inner = encoded(fields);
    let found = walked(&INNER, &inner);
    assert_eq!(found, Err(WireError::rule(name, rule)), "{fields:?}");
    let outer = encoded(&[(7, &encoded(&[])), (7, &inner)]);
    let found = walked(&OUTER, &outer);
    let at = format!("inner[1].{name}");
    assert_eq!(found, Err(WireError::rule(at, rule)), "{fields:?}");
}

#[test]
fn elements_ascend_at_every_level_where_the_table_says_so() {
    let key = |last: u8| encoded(&[(1, &[5, last])]);
    let (one, two) = (key(1), key(2));
    let in_order: [(u8, &[u8]); 10] = [
        (1, b"a"),
        (1, b"ab"),
        (1, b"b"),
        (2, b"b"),
        (2, b"a"),
        (2, b"a"),
        (3, &one),
        (3, &two),
        // Another field: it begins anew.
        (4, b"a"),
        (4, b"b"),
    ];
    let inner = encoded(&in_order);
    assert_eq!(walked(&INNER, &inner), Ok(()));
    let outer = encoded(&[(7, &inner), (7, &inner)]);
    assert_eq!(walked(&OUTER, &outer), Ok(()));

    let rule = "must be strictly ascending";
    refused(&[(1, b"a"), (1, b"a")], "digests", rule);
    refused(&[(1, b"b"), (1, b"a")], "digests", rule);
    refused(&[(1, b"ab"), (1, b"a")], "digests", rule);
    refused(&[(1, b"a"), (1, b"c"), (1, b"b")], "digests", rule);
    refused(&[(1, b"a"), (4, b"c"), (4, b"b")], "more", rule);
    let rule = "must be strictly ascending by public key";
    refused(&[(3, &two), (3, &one)], "keys", rule);
    refused(&[(3, &one), (3, &one)], "keys", rule);
}
