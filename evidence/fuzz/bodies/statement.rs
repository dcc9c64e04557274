//! A payload is accepted if and only if it is what a Protobuf library writes for a statement
//! that keeps every rule.

use bytes::Bytes;
use deed_evidence::{
    Problem, WireError,
    statement::{self, Breach},
};
use deed_proto::v1;
use prost::Message as _;

use crate::oracle;

/// What was found out about a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Accepted, and rightly.
    Accepted,
    /// Not what a Protobuf library writes, and refused.
    NotCanonical(WireError),
    /// Canonical, and refused for a rule.
    BreaksRule(WireError),
}

pub(crate) fn run(data: &[u8]) {
    check(data);
}

pub(crate) fn check(data: &[u8]) -> Verdict {
    let canonical = v1::Statement::decode(data)
        .ok()
        .filter(|statement| statement.encode_to_vec() == data);
    match (statement::parse(data), canonical) {
        (Ok(header), Some(decoded)) => {
            if let Err(rule) = oracle::rules(&decoded) {
                panic!("accepted, but breaks the rule of {rule}: {decoded:?}");
            }
            let breach = header.breach.map(Breach::field);
            assert_eq!(breach, oracle::breach(&decoded), "{decoded:?}");
            let mut plain = header;
            plain.in_session.breach = None;
            assert_eq!(plain, oracle::header(&decoded));
            assert_eq!(
                statement::decode(&Bytes::copy_from_slice(data)),
                Ok(decoded.clone())
            );
            assert_eq!(statement::encode(&decoded).unwrap(), data);
            Verdict::Accepted
        }
        (Ok(header), None) => panic!("accepted, but not canonical: {header:?}"),
        (Err(error), None) => Verdict::NotCanonical(error),
        (Err(error), Some(decoded)) => {
            assert!(is_rule(&error.problem), "canonical, but refused: {error}");
            assert!(
                oracle::rules(&decoded).is_err(),
                "keeps every rule, but refused: {error}"
            );
            Verdict::BreaksRule(error)
        }
    }
}

/// Whether the problem is one that canonical bytes can have.
fn is_rule(problem: &Problem) -> bool {
    match problem {
        Problem::UnknownEnum { .. }
        | Problem::Range { .. }
        | Problem::Length { .. }
        | Problem::Count { .. }
        | Problem::Missing
        | Problem::Rule(_)
        | Problem::NotCanonical { .. }
        | Problem::Policy(_) => true,
        Problem::CutOff { .. }
        | Problem::Varint
        | Problem::UnknownField { .. }
        | Problem::UnknownBody { .. }
        | Problem::WireType { .. }
        | Problem::Order
        | Problem::DefaultWritten
        | Problem::NotUtf8
        | Problem::OneOf => false,
    }
}
