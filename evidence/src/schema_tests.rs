//! The tables against the compiled .proto files.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    OneofDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::*;
use crate::statement::BodyKind;

/// Every table, by the name of its message.
static ALL: &[(&str, &Message)] = &[
    ("Statement", &STATEMENT),
    ("CorrelationKey", &CORRELATION_KEY),
    ("Commitment", &COMMITMENT),
    ("Amount", &AMOUNT),
    ("StatementRef", &STATEMENT_REF),
    ("LeafRef", &LEAF_REF),
    ("Tick", &TICK),
    ("Clearance", &CLEARANCE),
    ("TaskReceipt", &TASK_RECEIPT),
    ("Grant", &GRANT),
    ("OutsideToken", &OUTSIDE_TOKEN),
    ("GrantAccepted", &GRANT_ACCEPTED),
    ("Decision", &DECISION),
    ("Approval", &APPROVAL),
    ("Assertion", &ASSERTION),
    ("Observation", &OBSERVATION),
    ("Revocation", &REVOCATION),
    ("FindingDisposition", &FINDING_DISPOSITION),
    ("PolicySet", &POLICY_SET),
    ("Genesis", &GENESIS),
    ("LogKey", &LOG_KEY),
    ("AuthorityKey", &AUTHORITY_KEY),
    ("TaskOpened", &TASK_OPENED),
    ("TaskClosed", &TASK_CLOSED),
    ("Intent", &INTENT),
    ("Effect", &EFFECT),
    ("Outcome", &OUTCOME),
    ("Heartbeat", &HEARTBEAT),
    ("SessionClosed", &SESSION_CLOSED),
    ("AuthoritiesChanged", &AUTHORITIES_CHANGED),
    ("KeyRegistered", &KEY_REGISTERED),
    ("KeyRevoked", &KEY_REVOKED),
    ("PrincipalBound", &PRINCIPAL_BOUND),
    ("RetentionSet", &RETENTION_SET),
    ("LegalHoldPlaced", &LEGAL_HOLD_PLACED),
    ("LegalHoldReleased", &LEGAL_HOLD_RELEASED),
    ("LogKeyRotated", &LOG_KEY_ROTATED),
    ("Erasure", &ERASURE),
    ("BatchManifest", &BATCH_MANIFEST),
    ("TrustLink", &TRUST_LINK),
    ("Entry", &ENTRY),
];

/// Messages that are hashed or signed start here.
const ROOTS: [&str; 3] = ["Statement", "BatchManifest", "Entry"];

/// The compiled .proto files, by the full names that descriptors refer to.
struct Protos {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, BTreeSet<i32>>,
}

impl Protos {
    fn compiled() -> Self {
        let set = FileDescriptorSet::decode(deed_proto::v1::FILE_DESCRIPTOR_SET).unwrap();
        let mut protos = Self {
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
        };
        for file in set.file {
            let package = file.package().to_owned();
            for message in file.message_type {
                let name = format!(".{package}.{}", message.name());
                protos.messages.insert(name, message);
            }
            for of in file.enum_type {
                let values = of
                    .value
                    .iter()
                    .map(EnumValueDescriptorProto::number)
                    .collect();
                protos
                    .enums
                    .insert(format!(".{package}.{}", of.name()), values);
            }
        }
        protos
    }

    fn message(&self, name: &str) -> &DescriptorProto {
        &self.messages[&format!(".deed.v1.{name}")]
    }

    fn reachable(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut ahead: Vec<String> = ROOTS.map(|name| format!(".deed.v1.{name}")).into();
        while let Some(name) = ahead.pop() {
            let inner = self.messages[&name]
                .field
                .iter()
                .filter(|field| field.r#type() == Type::Message)
                .map(|field| field.type_name().to_owned());
            if !found.contains(&name) {
                ahead.extend(inner);
                found.insert(name);
            }
        }
        found
    }
}

#[test]
fn every_reachable_message_has_a_table_and_no_other() {
    let protos = Protos::compiled();
    let tables: BTreeSet<String> = ALL
        .iter()
        .map(|(name, _)| format!(".deed.v1.{name}"))
        .collect();
    assert_eq!(tables.len(), ALL.len());
    assert_eq!(tables, protos.reachable());
}

#[test]
fn tables_and_protos_agree_on_every_field() {
    let protos = Protos::compiled();
    let mut fields = 0;
    for (name, table) in ALL {
        let proto = protos.message(name);
        // What could be in a message and that the tables have no word for.
        assert!(proto.extension_range.is_empty() && proto.extension.is_empty());
        assert!(proto.nested_type.is_empty() && proto.enum_type.is_empty());
        let mut declared: Vec<_> = proto.field.iter().collect();
        declared.sort_by_key(|field| field.number());
        let numbers: Vec<i64> = declared.iter().map(|f| f.number().into()).collect();
        let in_table: Vec<i64> = table.fields.iter().map(|f| f.number.into()).collect();
        assert_eq!(in_table, numbers, "{name}: the fields, in ascending order");
        for (field, declared) in table.fields.iter().zip(declared) {
            agrees(&protos, name, proto, field, declared);
            fields += 1;
        }
    }
    // A test that compares nothing passes too.
    let declared: usize = protos
        .reachable()
        .iter()
        .map(|name| protos.messages[name].field.len())
        .sum();
    assert_eq!(fields, declared);
    assert!(fields >= 190, "{fields} fields");
}

fn agrees(
    protos: &Protos,
    message: &str,
    proto: &DescriptorProto,
    field: &Field,
    declared: &FieldDescriptorProto,
) {
    let at = format!("{message}.{}", field.name);
    assert_eq!(field.name, declared.name(), "{at}: name");

    let repeated = matches!(field.presence, Repeated { .. });
    let label = if repeated {
        Label::Repeated
    } else {
        Label::Optional
    };
    assert_eq!(declared.label(), label, "{at}: label");
    let explicit = field.presence == Explicit;
    assert_eq!(declared.proto3_optional(), explicit, "{at}: optional");
    // The compiler makes a oneof for each `optional` field, too.
    let in_oneof = declared.oneof_index.is_some() && !declared.proto3_optional();
    assert_eq!(in_oneof, field.presence == OneOf, "{at}: oneof");

    let wanted = match field.kind {
        U64 => Type::Uint64,
        U32 => Type::Uint32,
        Bool => Type::Bool,
        I64 { .. } => Type::Int64,
        Enum { .. } => Type::Enum,
        Bytes { .. } => Type::Bytes,
        Text { .. } => Type::String,
        Kind::Message(_) => Type::Message,
    };
    assert_eq!(declared.r#type(), wanted, "{at}: type");
    match field.kind {
        Enum { max } => {
            let values = &protos.enums[declared.type_name()];
            let without_holes = (0..=i32::try_from(max).unwrap()).collect();
            assert_eq!(values, &without_holes, "{at}: enum values");
        }
        Kind::Message(inner) => {
            let (name, _) = ALL
                .iter()
                .find(|(_, table)| std::ptr::eq(*table, inner))
                .unwrap();
            assert_eq!(
                declared.type_name(),
                format!(".deed.v1.{name}"),
                "{at}: type"
            );
        }
        _ => {}
    }
    // The walk knows of one oneof a message; which one matters where it is required.
    if field.presence == OneOf {
        let oneofs: Vec<_> = proto
            .oneof_decl
            .iter()
            .filter(|oneof| !oneof.name().starts_with('_'))
            .map(OneofDescriptorProto::name)
            .collect();
        assert_eq!(oneofs.len(), 1, "{message}: oneofs");
        assert_eq!(
            declared.oneof_index,
            Some(0),
            "{at}: the oneof that was declared"
        );
    }
}

#[test]
fn a_required_oneof_exists() {
    let protos = Protos::compiled();
    let required: Vec<_> = ALL
        .iter()
        .filter_map(|(name, table)| Some((*name, table.oneof_required?)))
        .collect();
    assert_eq!(required, [("Statement", "body")]);
    for (name, oneof) in required {
        assert_eq!(protos.message(name).oneof_decl[0].name(), oneof);
    }
}

/// A body that the table knows and the header does not would be refused as missing.
#[test]
fn every_body_is_a_kind_of_its_name() {
    let bodies = STATEMENT.fields.iter().filter(|f| f.presence == OneOf);
    let mut kinds = 0;
    for field in bodies {
        let kind = BodyKind::of_field(field.number);
        assert_eq!(kind.map(BodyKind::name), Some(field.name));
        kinds += 1;
    }
    assert_eq!(kinds, 27);
}

/// What the walk takes for granted about a table.
#[test]
fn tables_are_what_the_walk_relies_on() {
    for (name, table) in ALL {
        assert!(!table.fields.is_empty(), "{name}");
        for field in table.fields {
            let at = format!("{name}.{}", field.name);
            match field.kind {
                // Zero bytes are the default, which is left out: a rule that allows them would
                // say nothing.
                Bytes { min, max } | Text { min, max, .. } => {
                    assert!(1 <= min && min <= max, "{at}");
                }
                // Nobody needs a `oneof` of numbers, where a zero would be written.
                U64 | U32 | Bool | I64 { .. } | Enum { .. } => {
                    assert!(field.presence != OneOf, "{at}");
                }
                Kind::Message(_) => assert!(field.presence != Explicit, "{at}"),
            }
            if let Repeated { min, max } = field.presence {
                assert!(min <= max, "{at}");
                // Numbers would be packed, which the walk does not read.
                let delimited = matches!(field.kind, Kind::Message(_) | Bytes { .. } | Text { .. });
                assert!(delimited, "{at}");
            }
        }
    }
}

/// Bodies 40 to 49 are the trust statements, as the entry's `previous_trust` says.
#[test]
fn trust_bodies_are_those_of_their_numbers() {
    for field in STATEMENT.fields.iter().filter(|f| f.presence == OneOf) {
        let kind = BodyKind::of_field(field.number).unwrap();
        let wanted = (40..=49).contains(&field.number);
        assert_eq!(kind.is_trust(), wanted, "{}", field.name);
    }
}

/// What Statement.body and Genesis.rules_version say of the numbers, in the .proto.
#[test]
fn the_ledgers_own_and_the_assessed_bodies_are_those_of_their_numbers() {
    let assessed = [21, 22, 23, 26, 27, 30, 31, 32, 36, 37];
    for field in STATEMENT.fields.iter().filter(|f| f.presence == OneOf) {
        let kind = BodyKind::of_field(field.number).unwrap();
        let ledgers = (20..=23).contains(&field.number);
        assert_eq!(kind.is_ledgers(), ledgers, "{}", field.name);
        let wanted = assessed.contains(&field.number);
        assert_eq!(kind.needs_assessment(), wanted, "{}", field.name);
    }
}

/// A commitment that is not listed could not have its content attached.
#[test]
fn every_commitment_is_listed_by_its_path() {
    let mut listed = 0;
    for body in STATEMENT.fields.iter().filter(|f| f.presence == OneOf) {
        let kind = BodyKind::of_field(body.number).unwrap();
        let Kind::Message(table) = body.kind else {
            panic!("{} is a message", body.name)
        };
        for field in table.fields {
            let is_commitment =
                matches!(field.kind, Kind::Message(inner) if std::ptr::eq(inner, &COMMITMENT));
            let wanted = is_commitment.then(|| format!("{}.{}", body.name, field.name));
            let found = crate::statement::slot_name(kind, field.number);
            assert_eq!(found.map(str::to_owned), wanted);
            listed += usize::from(is_commitment);
        }
    }
    assert_eq!(listed, 8);
}
