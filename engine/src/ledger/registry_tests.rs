//! Tests that ledgers are loaded when they are asked for, and dropped when they are unused.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::policy::{self, CEDAR_VERSION, DEFAULT_SCHEMA};
use deed_proto::v1::{self, statement::Body};

use super::Ledger;
use crate::{
    offline::fsck,
    pressure::SourceKey,
    testing::{AUTHORITY, Authority, Engine, Producer, block_on, briefs},
};

const NAMES: [&str; 3] = ["one", "two", "three"];

const POLICIES: &str = "permit (principal, action, resource);";

/// Creates a ledger with an evidence policy.
pub(crate) fn create_with_policy(engine: &Engine, name: &str) -> Arc<Ledger> {
    let ledger = engine.create(name).unwrap();
    let set = v1::PolicySet {
        policies: POLICIES.to_owned(),
        schema: DEFAULT_SCHEMA.to_owned(),
        digest: policy::digest(POLICIES, DEFAULT_SCHEMA).to_vec().into(),
        cedar_version: CEDAR_VERSION.to_owned(),
        rules_version: 2,
        reason: String::new(),
    };
    let set = Authority::new(ledger.id).says(Body::PolicySet(set));
    let answer = engine.append(name, vec![set]).unwrap();
    assert_eq!(briefs(&answer), ["accepted 1"]);
    ledger
}

fn in_memory(engine: &Engine) -> Vec<&'static str> {
    let names = NAMES.into_iter();
    let loaded = engine.registry.all_loaded();
    names
        .filter(|name| loaded.iter().any(|ledger| ledger.name() == *name))
        .collect()
}

#[test]
fn ledgers_that_nobody_uses_are_let_go_and_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let mut producers = NAMES.map(|name| Producer::new(engine.create(name).unwrap().id, 1));
    for (name, producer) in NAMES.iter().zip(&mut producers) {
        let answer = engine.append(name, vec![producer.intent("a")]).unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
    }
    // The ledgers stay, because their shard still steps them.
    engine.registry.let_go(0, 0);
    assert_eq!(in_memory(&engine), NAMES);
    engine.close();

    let engine = Engine::open(dir.path());
    let [one, two, three] = NAMES.map(|name| engine.registry.ledger(name).unwrap());
    engine.registry.let_go(0, 0);
    assert_eq!(in_memory(&engine), NAMES);
    // A reader that follows a ledger keeps it in memory, too.
    let follows = two.watch();
    drop((one, two, three));
    engine.registry.let_go(2, usize::MAX);
    assert_eq!(in_memory(&engine), ["two", "three"]);
    engine.registry.let_go(0, usize::MAX);
    assert_eq!(in_memory(&engine), ["two"]);
    drop(follows);
    engine.registry.let_go(0, usize::MAX);
    assert_eq!(in_memory(&engine), [""; 0]);
    for (name, producer) in NAMES.iter().zip(&mut producers) {
        let answer = engine.append(name, vec![producer.intent("b")]).unwrap();
        assert_eq!(briefs(&answer), ["accepted 2"]);
    }
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

#[test]
fn policies_of_ledgers_that_nobody_uses_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    drop(create_with_policy(&engine, "one"));
    drop(engine.create("two").unwrap());
    drop(create_with_policy(&engine, "three"));
    engine.close();

    let engine = Engine::open(dir.path());
    let load = |name| drop(engine.registry.ledger(name).unwrap());
    NAMES.into_iter().for_each(load);
    // The least recently used one is dropped, and none that has no policy.
    let one = 64 * (POLICIES.len() + DEFAULT_SCHEMA.len());
    engine.registry.let_go(3, 2 * one);
    assert_eq!(in_memory(&engine), NAMES);
    engine.registry.let_go(3, one);
    assert_eq!(in_memory(&engine), ["two", "three"]);
    engine.registry.let_go(3, 0);
    assert_eq!(in_memory(&engine), ["two"]);
    engine.close();
}

/// It is in the store before the head guard has it, so nobody is told of it.
#[test]
fn a_ledger_that_is_being_created_is_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let listed = |limit| {
        let page = engine.registry.page("", limit).unwrap();
        let names = page.ledgers.into_iter().map(|(record, _)| record.name);
        (names.collect::<Vec<_>>(), page.more)
    };
    drop(engine.create("two").unwrap());
    let keys = [Bytes::from_static(&AUTHORITY)];
    let created = engine.registry.create("one", &keys, |new| {
        let reservation = engine
            .appends
            .shards
            .reserve(&new.ledger, SourceKey::Server, 0);
        let pending = block_on(reservation).create(new);
        pending.blocking_answer()?;
        assert!(engine.store.ledger("one").unwrap().is_some());
        assert_eq!(listed(1), (vec!["two".to_owned()], false));
        Ok(())
    });
    drop(created.unwrap());
    assert_eq!(listed(1), (vec!["one".to_owned()], true));
    engine.close();
}
