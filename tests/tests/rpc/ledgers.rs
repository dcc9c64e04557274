//! Ledgers: created once, listed in pages, found by name.

use std::collections::HashSet;

use bytes::Bytes;
use deed_evidence::genesis::Genesis;
use deed_proto::v1;
use deed_tests::{
    rpc::{TestLedger, authority_key, expect_violation, hash},
    run, within,
};
use deed_tlog::{TreeHead, TreeSize};
use tonic::Code;

use crate::Set;

#[test]
fn ledgers_are_created_listed_and_found() {
    run(async {
        let set = Set::up().await;
        let names = ["alpha", "b2", "c-3", "d", "z".repeat(63).as_str()].map(str::to_owned);
        for name in &names {
            let ledger = TestLedger::create(&set.clients, name).await;
            let info = &ledger.info;
            let (genesis, id) = Genesis::from_entry(&info.genesis_entry).expect("a genesis entry");
            assert_eq!(id, ledger.id);
            assert_eq!(genesis.log_key, ledger.vkey);
            assert_eq!(genesis.origin.as_str(), info.origin);
            assert!(
                info.origin.ends_with(&format!("/logs/{name}")),
                "{}",
                info.origin
            );
            let keys: Vec<_> = genesis.authority_keys.iter().map(|key| &key[..]).collect();
            assert_eq!(keys, [&authority_key(1)[..]]);
            assert_eq!((info.size, hash(&info.root)), (1, *id.hash()));
            let head = ledger.head(&set.clients).await;
            assert_eq!(head, TreeHead::new(TreeSize::new(1), *id.hash()));
        }
        let mut wanted: Vec<_> = names.to_vec();
        wanted.push("payments".to_owned());
        wanted.sort();

        // The pages have two ledgers each, then all at once.
        let mut client = set.clients.ledger.clone();
        let mut listed = Vec::new();
        let mut token = String::new();
        for _ in 0..wanted.len() {
            let request = v1::ListLedgersRequest {
                page_size: 2,
                page_token: token,
            };
            let page = client.list_ledgers(request).await.unwrap().into_inner();
            assert!(page.ledgers.len() <= 2);
            listed.extend(page.ledgers);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert!(token.is_empty(), "the pages end");
        let found: Vec<_> = listed.iter().map(|info| info.name.clone()).collect();
        assert_eq!(found, wanted);
        let whole = client
            .list_ledgers(v1::ListLedgersRequest::default())
            .await
            .unwrap();
        assert_eq!(whole.into_inner().ledgers, listed);
        let keys: HashSet<_> = listed.iter().map(|info| info.vkey.clone()).collect();
        assert_eq!(keys.len(), wanted.len(), "each ledger has a key of its own");

        // The listed ledgers are those that are found by name.
        for info in listed {
            let name = info.name.clone();
            let found = client
                .get_ledger(v1::GetLedgerRequest { name })
                .await
                .unwrap();
            let found = without_next_log_key(found.into_inner());
            assert_eq!(found, info);
        }
    });
}

#[test]
fn malformed_ledgers_are_refused() {
    run(async {
        let set = Set::up().await;
        let mut client = set.clients.ledger.clone();
        let mut create = async |name: &str, keys: Vec<Bytes>| {
            let request = v1::CreateLedgerRequest {
                name: name.to_owned(),
                authority_keys: keys,
            };
            client
                .create_ledger(request)
                .await
                .expect_err("it is refused")
        };
        let long = "a".repeat(64);
        for name in ["", "-a", "a-", "A", "a_b", "a/b", "..", "ä", "a b", &long] {
            expect_violation(&create(name, vec![authority_key(1)]).await, "name");
        }
        let one = authority_key(1);
        let mut identity = vec![0; 32];
        identity[0] = 1;
        let bad_keys = [
            vec![],
            (1..=17).map(authority_key).collect(),
            vec![one.slice(..31)],
            vec![Bytes::new()],
            vec![Bytes::from(identity)],
            vec![one.clone(), authority_key(2), one.clone()],
        ];
        for keys in bad_keys {
            expect_violation(&create("fresh", keys).await, "authority_keys");
        }
        let taken = create("payments", vec![one.clone()]).await;
        assert_eq!(taken.code(), Code::AlreadyExists, "{taken:?}");

        // None of the refused requests left anything behind.
        let mut client = set.clients.ledger.clone();
        let all = client
            .list_ledgers(v1::ListLedgersRequest::default())
            .await
            .unwrap();
        let names: Vec<_> = all
            .into_inner()
            .ledgers
            .into_iter()
            .map(|info| info.name)
            .collect();
        assert_eq!(names, ["payments"]);

        let mut list = async |page_size, page_token: &str| {
            let request = v1::ListLedgersRequest {
                page_size,
                page_token: page_token.to_owned(),
            };
            client.list_ledgers(request).await
        };
        expect_violation(&list(1001, "").await.unwrap_err(), "page_size");
        expect_violation(&list(10, "Not A Token").await.unwrap_err(), "page_token");
        list(1000, "").await.expect("the largest page");
        let sixteen = v1::CreateLedgerRequest {
            name: "sixteen".to_owned(),
            authority_keys: (1..=16).map(authority_key).collect(),
        };
        set.clients
            .ledger
            .clone()
            .create_ledger(sixteen)
            .await
            .expect("16 keys are allowed");
    });
}

#[test]
fn two_creators_of_one_name_get_one_ledger() {
    run(async {
        let set = Set::up().await;
        let creating: Vec<_> = (1..=8_u8)
            .map(|seed| {
                let mut client = set.clients.ledger.clone();
                tokio::spawn(async move {
                    let request = v1::CreateLedgerRequest {
                        name: "contested".to_owned(),
                        authority_keys: vec![authority_key(seed)],
                    };
                    client.create_ledger(request).await
                })
            })
            .collect();
        let mut created = Vec::new();
        for task in creating {
            match within("an answer", task).await.unwrap() {
                Ok(answer) => created.push(answer.into_inner().ledger.unwrap()),
                Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status:?}"),
            }
        }
        assert_eq!(created.len(), 1);
        let found = TestLedger::find(&set.clients, "contested").await;
        assert_eq!(without_next_log_key(found.info), created[0]);
    });
}

/// Removes the next log key, which only GetLedger returns, after a check that it is valid and not
/// the present one.
#[track_caller]
fn without_next_log_key(mut info: v1::LedgerInfo) -> v1::LedgerInfo {
    let next: deed_tlog::VerifierKey = info.next_log_key.parse().expect("a verifier key");
    assert_eq!(next.name().as_str(), info.origin);
    assert_ne!(next.to_string(), info.vkey);
    info.next_log_key.clear();
    info
}
