//! Who may say what, and what belongs to a task: every body against every kind of producer.

use bytes::Bytes;
use deed_evidence::Problem;

use super::*;

/// Whose statement a body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    Ledger,
    Authority,
    Producer,
    /// A producer's or an authority's.
    Either,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Named,
    NamedOrNot,
    None,
}

/// By the bodies' numbers.
const TABLE: [(&str, Whose, Task); 26] = [
    ("tick", Whose::Ledger, Task::None),
    ("clearance", Whose::Ledger, Task::Named),
    ("task_receipt", Whose::Ledger, Task::Named),
    ("task_opened", Whose::Either, Task::Named),
    ("task_closed", Whose::Either, Task::Named),
    ("grant", Whose::Either, Task::Named),
    ("grant_accepted", Whose::Producer, Task::Named),
    ("intent", Whose::Producer, Task::Named),
    ("outcome", Whose::Producer, Task::Named),
    ("decision", Whose::Producer, Task::Named),
    ("approval", Whose::Producer, Task::Named),
    ("observation", Whose::Producer, Task::NamedOrNot),
    ("heartbeat", Whose::Producer, Task::NamedOrNot),
    ("session_closed", Whose::Producer, Task::NamedOrNot),
    ("revocation", Whose::Authority, Task::Named),
    ("finding_disposition", Whose::Authority, Task::NamedOrNot),
    ("authorities_changed", Whose::Authority, Task::NamedOrNot),
    ("key_registered", Whose::Authority, Task::NamedOrNot),
    ("key_revoked", Whose::Authority, Task::NamedOrNot),
    ("principal_bound", Whose::Authority, Task::NamedOrNot),
    ("policy_set", Whose::Authority, Task::NamedOrNot),
    ("retention_set", Whose::Authority, Task::NamedOrNot),
    ("legal_hold_placed", Whose::Authority, Task::NamedOrNot),
    ("legal_hold_released", Whose::Authority, Task::NamedOrNot),
    ("log_key_rotated", Whose::Authority, Task::NamedOrNot),
    ("erasure", Whose::Authority, Task::NamedOrNot),
];

/// Every fixture but genesis, which names its origin, with its row.
fn each() -> Vec<(v1::Statement, Whose, Task)> {
    let mut rows_met = std::collections::BTreeSet::new();
    let found = fixtures::all()
        .into_iter()
        // Those with a nonce are their producer's own, as other tests show.
        .filter(|(name, _)| !name.starts_with("genesis") && !name.ends_with("-nonce"))
        .map(|(name, made)| {
            let body = name.split('-').next().unwrap();
            let row = TABLE.iter().find(|(of, ..)| *of == body);
            let (_, whose, task) = *row.unwrap_or_else(|| panic!("no row of {name}"));
            rows_met.insert(body);
            (made, whose, task)
        })
        .collect();
    assert_eq!(rows_met.len(), TABLE.len());
    found
}

/// Checks a statement, and that the second telling of the rules says the same.
fn check(made: &v1::Statement, wanted: Result<(), WireError>) {
    let found = statement::parse(&made.encode_to_vec()).map(drop);
    assert_eq!(found, wanted, "{made:?}");
    assert_eq!(crate::oracle::rules(made).is_ok(), wanted.is_ok());
}

fn error(field: &str, problem: Problem) -> Result<(), WireError> {
    let field = field.to_owned();
    Err(WireError { field, problem })
}

#[test]
fn each_body_is_taken_from_its_producers_alone() {
    let refused = |rule| error("producer", Problem::Rule(rule));
    for (made, whose, _) in each() {
        let by = |producer: &str, wanted| {
            let producer = producer.to_owned();
            let made = v1::Statement {
                producer,
                ..made.clone()
            };
            check(&made, wanted);
        };
        let ledger = match whose {
            Whose::Ledger => Ok(()),
            Whose::Authority => refused("must be deed:authority for this body"),
            Whose::Producer | Whose::Either => refused("must not be deed:ledger for this body"),
        };
        let authority = match whose {
            Whose::Ledger => refused("must be deed:ledger for this body"),
            Whose::Authority | Whose::Either => Ok(()),
            Whose::Producer => refused("must not be deed:authority for this body"),
        };
        let producer = match whose {
            Whose::Ledger => refused("must be deed:ledger for this body"),
            Whose::Authority => refused("must be deed:authority for this body"),
            Whose::Producer | Whose::Either => Ok(()),
        };
        by("deed:ledger", ledger);
        by("deed:authority", authority);
        // What is only close to one of the two names is a producer's.
        for other in [
            "spiffe://example.org/agent",
            "deed:ledger/",
            "deed:ledger2",
            "Deed:ledger",
            "deed:authority/",
            "deed:authority2",
            "dEED:authority",
            "deed:import/chat",
        ] {
            by(other, producer.clone());
        }
    }
}

#[test]
fn each_body_names_a_task_or_does_not() {
    for (made, _, task) in each() {
        let with = |task: Bytes, wanted| {
            let made = v1::Statement {
                task,
                ..made.clone()
            };
            check(&made, wanted);
        };
        let empty = Problem::Rule("must be empty in a statement of the ledger");
        let named = match task {
            Task::None => error("task", empty),
            Task::Named | Task::NamedOrNot => Ok(()),
        };
        let nameless = match task {
            Task::Named => error("task", Problem::Missing),
            Task::NamedOrNot | Task::None => Ok(()),
        };
        with(bytes(1, 16), named);
        with(Bytes::new(), nameless);
    }
}
