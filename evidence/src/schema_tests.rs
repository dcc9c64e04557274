//! The bodies of the statement's table, and what this crate says of each.

use super::*;
use crate::statement::BodyKind;

/// A body that the table knows and the header does not would be refused as missing.
#[test]
fn every_body_is_a_kind_of_its_name() {
    let bodies = STATEMENT
        .fields
        .iter()
        .filter(|f| f.presence == Presence::OneOf);
    let mut kinds = 0;
    for field in bodies {
        let kind = BodyKind::of_field(field.number);
        assert_eq!(kind.map(BodyKind::name), Some(field.name));
        kinds += 1;
    }
    assert_eq!(kinds, 27);
}

/// Bodies 40 to 49 are the trust statements, as the entry's `previous_trust` says.
#[test]
fn trust_bodies_are_those_of_their_numbers() {
    for field in STATEMENT
        .fields
        .iter()
        .filter(|f| f.presence == Presence::OneOf)
    {
        let kind = BodyKind::of_field(field.number).unwrap();
        let wanted = (40..=49).contains(&field.number);
        assert_eq!(kind.is_trust(), wanted, "{}", field.name);
    }
}

/// What Statement.body and Genesis.rules_version say of the numbers, in the .proto.
#[test]
fn the_ledgers_own_and_the_assessed_bodies_are_those_of_their_numbers() {
    let assessed = [21, 22, 23, 26, 27, 30, 31, 32, 36, 37];
    for field in STATEMENT
        .fields
        .iter()
        .filter(|f| f.presence == Presence::OneOf)
    {
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
    for body in STATEMENT
        .fields
        .iter()
        .filter(|f| f.presence == Presence::OneOf)
    {
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
