//! The walk accepts a payload if and only if it is canonical and keeps every rule.

use std::collections::BTreeMap;

use deed_evidence::{
    Problem,
    statement::{self, Breach},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{TestError, TestRunner},
};

use crate::{
    fuzz::statement::{Verdict, check},
    mutations::{Mutation, any_mutation},
    oracle,
    statements::any_statement,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_keeps_the_rules_is_accepted_with_the_same_header(made in any_statement()) {
        prop_assert_eq!(oracle::rules(&made), Ok(()));
        let payload = statement::encode(&made).unwrap();
        let header = statement::parse(&payload).unwrap();
        prop_assert_eq!(header.breach.map(Breach::field), oracle::breach(&made));
        let mut plain = header;
        plain.in_session.breach = None;
        prop_assert_eq!(plain, oracle::header(&made));
        prop_assert_eq!(statement::decode(&payload).unwrap(), made);
    }
}

const MUTATED: u32 = 50_000;

#[test]
fn what_is_accepted_is_canonical_and_the_other_way_round() {
    let mut verdicts: BTreeMap<&str, u32> = BTreeMap::new();
    let found = std::cell::RefCell::new(&mut verdicts);
    // One change, which leaves much of the statement to be read, or a few.
    let changes = prop_oneof![3 => vec(any_mutation(), 1), 1 => vec(any_mutation(), 2..5)];
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(MUTATED)
    };
    let outcome = TestRunner::new(config).run(&(any_statement(), changes), |(made, changes)| {
        let payload = prost::Message::encode_to_vec(&made);
        let changed = changes
            .iter()
            .fold(payload, |bytes, change: &Mutation| change.apply(&bytes));
        let kind = match check(&changed) {
            Verdict::Accepted => "accepted",
            Verdict::BreaksRule(error) => kind(&error.problem),
            Verdict::NotCanonical(error) => kind(&error.problem),
        };
        *found.borrow_mut().entry(kind).or_default() += 1;
        Ok(())
    });
    if let Err(TestError::Fail(reason, input)) = outcome {
        panic!("{reason}: {input:?}");
    }
    outcome.unwrap();
    println!("{verdicts:?}");
    // Every problem there is was met: the changes reach everything. (The rarest is met some
    // forty times, so that not meeting it is no bad luck.)
    let problems = [
        "accepted", "cut off", "varint", "field", "body", "type", "order", "default", "enum",
        "range", "utf-8", "length", "count", "missing", "oneof", "rule",
    ];
    for problem in problems {
        assert!(verdicts.contains_key(problem), "{problem} was never met");
    }
    assert_eq!(verdicts.len(), problems.len());
}

fn kind(problem: &Problem) -> &'static str {
    match problem {
        Problem::CutOff { .. } => "cut off",
        Problem::Varint => "varint",
        Problem::UnknownField { .. } => "field",
        Problem::UnknownBody { .. } => "body",
        Problem::WireType { .. } => "type",
        Problem::Order => "order",
        Problem::DefaultWritten => "default",
        Problem::UnknownEnum { .. } => "enum",
        Problem::Range { .. } => "range",
        Problem::NotUtf8 => "utf-8",
        Problem::Length { .. } => "length",
        Problem::Count { .. } => "count",
        Problem::Missing => "missing",
        Problem::OneOf => "oneof",
        Problem::Rule(_) | Problem::NotCanonical { .. } => "rule",
        Problem::Policy(_) => "policy",
    }
}

/// Every prefix, every flipped bit and every byte left out of a statement of each body.
#[test]
fn every_small_change_of_the_fixtures() {
    let mut checked = 0;
    for (_, made) in crate::fixtures::all() {
        let payload = prost::Message::encode_to_vec(&made);
        assert_eq!(check(&payload), Verdict::Accepted);
        for at in 0..payload.len() {
            let prefix = check(&payload[..at]);
            // Prefixes that end between fields are canonical; none has its body.
            assert_ne!(prefix, Verdict::Accepted, "{at}");
            for bit in 0..8 {
                let mut flipped = payload.clone();
                flipped[at] ^= 1 << bit;
                check(&flipped);
                checked += 1;
            }
            let mut shorter = payload.clone();
            shorter.remove(at);
            check(&shorter);
            checked += 2;
        }
    }
    assert!(checked > 110_000, "{checked}");
}
