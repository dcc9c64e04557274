//! Log key rotations: every client that trusted the old key goes on, and earlier proofs stay valid.

use std::{fs, path::Path};

use bytes::Bytes;
use deed_client::{AppenderOptions, Ledger, Options, StateDir, Statement};
use deed_proto::v1::{self, statement::Body};
use deed_tests::{
    forgery,
    http::Http,
    keys::{Authority, key as key_of},
    process::{Deed, ServerProcess, deed_server, fsck_clean},
    rpc::{Clients, TestLedger, accepted, inclusion_proof},
    run,
    statements::Producer,
};
use deed_tlog::{Checkpoint, EntryBundleId, LeafIndex, VerifierKey, leaf_hash, verify_inclusion};
use serde_json::Value;
use tempfile::TempDir;

use crate::{DOES_NOT_VERIFY, OK, Set, UNAVAILABLE, USAGE, expect_failure, intents, object};

/// Kills the server, runs `meanwhile`, and starts it again on the same directory.
fn start_again(mut set: Set, meanwhile: impl FnOnce(&Path)) -> Set {
    let data = set.dir.path().join("data");
    set.server.kill();
    meanwhile(&data);
    set.server = ServerProcess::start(&data);
    set.deed = set.deed.at(&set.server.url());
    set
}

fn rotate(set: &Set) -> Value {
    let arguments = ["--json", "ledger", "rotate-log-key", "--reason", "Sold."];
    object(&set.deed.run(arguments).expect_code(OK))
}

fn shown(deed: &Deed) -> Value {
    object(&deed.run(["--json", "ledger", "show"]).expect_code(OK))
}

fn key(value: &Value) -> VerifierKey {
    value.as_str().unwrap().parse().unwrap()
}

fn size(deed: &Deed) -> u64 {
    object(&deed.run(["--json", "head"]).expect_code(OK))["size"]
        .as_u64()
        .unwrap()
}

/// Writes proof, entry and policy of leaf 3 to files of these names, and verifies them without a
/// server.
fn prove(deed: &Deed, name: &str, options: &[&str]) -> [String; 3] {
    let files = ["proof", "entry", "policy"].map(|kind| {
        let path = deed.file(&format!("{name}.{kind}"));
        path.to_str().unwrap().to_owned()
    });
    let [proof, entry, policy] = &files;
    let outputs = ["--out", proof, "--entry-out", entry, "--policy-out", policy];
    let arguments = ["prove", "--index", "3"].into_iter().chain(outputs);
    deed.run(arguments.chain(options.iter().copied()))
        .expect_code(OK);
    files
}

fn verify(deed: &Deed, [proof, entry, policy]: [&str; 3]) -> Option<i32> {
    let arguments = ["verify", proof, "--entry", entry, "--policy", policy];
    deed.run(arguments).code()
}

#[test]
fn everybody_goes_on_with_the_next_key() {
    let set = Set::up();
    set.fill(10);
    // The other user has trusted the ledger before, too.
    let mut other = Deed::new(&set.server.url(), "payments");
    let trusted = size(&other);
    let before = prove(&set.deed, "before", &[]);
    let first = key(&shown(&set.deed)["vkey"]);

    let rotated = rotate(&set);
    let next = key(&rotated["vkey"]);
    assert_ne!(next, first);
    assert_eq!(key(&rotated["replaced"]), first);
    let leaf = rotated["leaf_index"].as_u64().unwrap();
    assert_eq!(leaf, trusted);
    assert_eq!(rotated["first_size"], leaf + 1);
    set.fill(10);

    // The rotation is reported once to each user, and recorded.
    let head = other.run(["head"]).expect_code(OK);
    assert!(head.stderr.contains("was replaced"), "{head:#?}");
    let again = other.run(["head"]).expect_code(OK);
    assert_eq!(again.stderr, "");
    for deed in [&set.deed, &other] {
        let shown = shown(deed);
        assert_eq!(key(&shown["vkey"]), next);
        let keys = shown["log_keys"].as_array().unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(
            (key(&keys[0]["vkey"]), &keys[0]["first_size"]),
            (first.clone(), &1.into())
        );
        assert_eq!(keys[1]["first_size"], leaf + 1);
        let text = deed.run(["ledger", "show"]).expect_code(OK).stdout;
        assert!(text.contains(&format!("from size {}", leaf + 1)), "{text}");
    }
    // A new user demands either key, or none.
    for demanded in [None, Some(&first), Some(&next)] {
        let fresh = Deed::new(&set.server.url(), "payments");
        let demand = demanded.map(|key| ["--vkey".to_owned(), key.to_string()]);
        let arguments = demand.into_iter().flatten().chain(["head".to_owned()]);
        fresh.run(arguments).expect_code(OK);
        fresh.run_with(["append"], &intents(3)).expect_code(OK);
        fresh.run(["head"]).expect_code(OK);
    }

    // Earlier proofs stay valid with the old key; new ones need the new one.
    let after = prove(&set.deed, "after", &[]);
    let between = (leaf + 1).to_string();
    let handover = prove(&set.deed, "handover", &["--size", &between]);
    let old = (leaf).to_string();
    let anew = prove(&set.deed, "anew", &["--size", &old]);
    let policy = |path: &str| fs::read_to_string(path).unwrap();
    assert!(policy(&before[2]).contains(&first.to_string()));
    assert!(policy(&after[2]).contains(&next.to_string()));
    assert!(policy(&anew[2]).contains(&first.to_string()));
    let list = object(&set.deed.run(["--json", "ledger", "list"]).expect_code(OK));
    assert_eq!(key(&list["vkey"]), next);

    let online = object(&set.deed.run(["--json", "audit"]).expect_code(OK));
    assert_eq!(online["entries"]["log_key_rotated"], 1);
    set.deed.run(["key", "list"]).expect_code(OK);

    assert!(set.server.log().contains("log key rotated"));

    // The server is killed, checked, and started again.
    let mut set = start_again(set, |data| drop(fsck_clean(data)));
    other = other.at(&set.server.url());
    assert_eq!(key(&shown(&set.deed)["vkey"]), next);
    set.fill(3);
    other.run(["head"]).expect_code(OK);
    set.server.kill();
    fsck_clean(&set.dir.path().join("data"));

    // The check needs no server.
    let [p, e, old_policy] = before.each_ref().map(String::as_str);
    let [ap, ae, new_policy] = after.each_ref().map(String::as_str);
    let [hp, he, _] = handover.each_ref().map(String::as_str);
    let [np, ne, _] = anew.each_ref().map(String::as_str);
    for (files, holds) in [
        ([p, e, old_policy], true),
        ([p, e, new_policy], false),
        ([ap, ae, new_policy], true),
        ([ap, ae, old_policy], false),
        ([hp, he, old_policy], true),
        ([hp, he, new_policy], true),
        ([np, ne, old_policy], true),
        ([np, ne, new_policy], false),
    ] {
        let wanted = if holds { OK } else { DOES_NOT_VERIFY };
        assert_eq!(verify(&set.deed, files), Some(wanted), "{files:?}");
    }
}

/// A mirror of the log, made before or after the rotation, passes the audit.
#[test]
fn mirrors_are_audited_with_the_key_of_their_size() {
    let set = Set::up();
    set.fill(5);
    let first = shown(&set.deed)["vkey"].as_str().unwrap().to_owned();
    let mirror = |name: &str, vkey: &str| {
        let dir = set.deed.file(name);
        let size = u16::try_from(size(&set.deed)).unwrap();
        run(async {
            let mut http = Http::connect(set.server.address()).await;
            let bundle = EntryBundleId::new(0, size).unwrap().path();
            for path in ["checkpoint".to_owned(), bundle] {
                let body = http.fetch(&format!("/logs/payments/{path}")).await;
                let file = dir.join(&path);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, body).unwrap();
            }
        });
        let policy = dir.join("policy");
        fs::write(&policy, format!("log {vkey}\nquorum none\n")).unwrap();
        (dir, policy)
    };
    let audit = |(dir, policy): &(std::path::PathBuf, std::path::PathBuf)| {
        let [dir, policy] = [dir, policy].map(|path| path.to_str().unwrap());
        set.deed.run(["audit", "--dir", dir, "--policy", policy])
    };
    let before = mirror("before", &first);
    let next = rotate(&set)["vkey"].as_str().unwrap().to_owned();
    // The handover head has both signatures, and either is enough.
    audit(&mirror("handover-new", &next)).expect_code(OK);
    audit(&mirror("handover-old", &first)).expect_code(OK);
    set.fill(5);
    audit(&mirror("after", &next)).expect_code(OK);
    expect_failure(audit(&mirror("after-old", &first)), DOES_NOT_VERIFY);
    audit(&before).expect_code(OK);

    // The old key signs the same tree, as its holder can: the entries show that it must not.
    let origin = first.split('+').next().unwrap();
    let signer = forgery::log_signer(&set.dir.path().join("data"), origin);
    assert_eq!(signer.verifier_key().to_string(), first);
    let forged = mirror("forged", &first);
    let note = fs::read(forged.0.join("checkpoint")).unwrap();
    let (checkpoint, _) = Checkpoint::open(&note, &next.parse().unwrap()).unwrap();
    let note = checkpoint.sign(&signer).unwrap().to_string();
    fs::write(forged.0.join("checkpoint"), note).unwrap();
    let error = expect_failure(audit(&forged), DOES_NOT_VERIFY);
    assert!(error.contains("the head is signed by"), "{error}");
}

/// The secret was copied: its holder can derive every key that follows from it.
#[test]
fn a_renewed_secret_gives_a_key_that_the_old_one_does_not() {
    let set = Set::up();
    set.fill(3);
    let next_of = |set: &Set| -> String {
        let mut next = String::new();
        run(async {
            let clients = Clients::connect(&set.server).await;
            next = TestLedger::find(&clients, "payments")
                .await
                .info
                .next_log_key;
        });
        next
    };
    let of_the_old_secret = next_of(&set);
    let set = start_again(set, |data| {
        let said = deed_server(["renew-secret", "--data-dir", data.to_str().unwrap()]);
        assert!(said.contains("rotate-log-key"), "{said}");
        fsck_clean(data);
    });
    // Nothing has changed yet.
    set.fill(3);
    assert_ne!(next_of(&set), of_the_old_secret);
    let rotated = rotate(&set);
    assert_ne!(rotated["vkey"], of_the_old_secret);
    set.fill(3);
    set.deed.run(["audit"]).expect_code(OK);
    let mut set = start_again(set, |_| ());
    set.fill(3);
    assert_eq!(shown(&set.deed)["vkey"], rotated["vkey"]);
    set.server.kill();
    fsck_clean(&set.dir.path().join("data"));
}

#[test]
fn what_cannot_be_rotated_is_said() {
    let set = Set::up();
    set.fill(3);
    let before = shown(&set.deed);
    // One user is not an authority, and one gives no reason.
    let other = Deed::new(&set.server.url(), "payments");
    let rotate = ["ledger", "rotate-log-key", "--reason", "x"];
    let error = expect_failure(other.run(rotate), USAGE);
    assert!(error.contains("--authority-key"), "{error}");
    let empty = ["ledger", "rotate-log-key", "--reason", ""];
    expect_failure(set.deed.run(empty), USAGE);
    let nobody = ["ledger", "rotate-log-key", "nobody", "--reason", "x"];
    expect_failure(set.deed.run(nobody), UNAVAILABLE);
    assert_eq!(shown(&set.deed), before);
}

/// The messages are checked by hand, while clients of the library append.
#[test]
fn what_shows_a_rotation_holds_by_hand_while_others_append() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        assert_eq!(log_keys(&clients).await, [], "never replaced");

        let state = StateDir::new(dir.path().join("state"));
        let options = Options::new(server.url(), "payments").state(state.clone());
        let streaming = Ledger::connect(options).await.unwrap();
        let appender = streaming.appender(AppenderOptions::default());
        let mut producer = Producer::new(ledger.id, 7);
        let mut authority = Authority::new(ledger.id, 951);
        let mut wanted = vec![(1, ledger.vkey.clone())];
        let mut answers = Vec::new();
        for round in 0..4 {
            for _ in 0..50 {
                let statements: Vec<Statement> =
                    producer.intents(2).into_iter().map(Into::into).collect();
                answers.push(appender.send(statements).await.unwrap());
            }
            let next = TestLedger::find(&clients, "payments")
                .await
                .info
                .next_log_key;
            let mut envelopes = Vec::new();
            if round == 2 {
                // Other authorities speak for the owner in between, with this key among them.
                let mut keys =
                    [1, 2].map(|seed| Bytes::copy_from_slice(key_of(seed).public_key().as_bytes()));
                keys.sort();
                envelopes.push(
                    authority.says(Body::AuthoritiesChanged(v1::AuthoritiesChanged {
                        authority_keys: keys
                            .map(|public_key| v1::AuthorityKey { public_key })
                            .into(),
                        reason: String::new(),
                    })),
                );
            }
            envelopes.push(authority.says(Body::LogKeyRotated(v1::LogKeyRotated {
                log_key: Some(v1::LogKey { vkey: next.clone() }),
                reason: format!("round {round}"),
            })));
            let request = v1::AppendRequest {
                ledger: "payments".to_owned(),
                envelopes,
                ..v1::AppendRequest::default()
            };
            let answer = clients.append(request).await.unwrap();
            let leaf = accepted(answer.results.last().unwrap()).leaf_index;
            wanted.push((leaf + 1, next.parse().unwrap()));
        }
        for answer in answers {
            let answer = answer.await.unwrap();
            assert!(answer.items.iter().all(|item| item.receipt().is_some()));
        }
        appender.finish().await.unwrap();
        streaming.append(&producer.intents(1)).await.unwrap();
        streaming.flush().await.unwrap();
        let found: Vec<_> = streaming
            .log_keys()
            .keys()
            .all()
            .iter()
            .map(|known| (known.first_size.get(), known.key.clone()))
            .collect();
        assert_eq!(found, wanted);

        let messages = log_keys(&clients).await;
        let leaves: Vec<usize> = messages
            .iter()
            .map(|message| message.entries.len())
            .collect();
        assert_eq!(leaves, [1, 1, 2, 1]);
        for (message, pair) in messages.iter().zip(wanted.windows(2)) {
            let [(_, before), (first_size, next)] = pair else {
                unreachable!()
            };
            let (checkpoint, note) = Checkpoint::open(&message.checkpoint, before).unwrap();
            Checkpoint::open(&message.checkpoint, next).unwrap();
            assert_eq!(note.signatures().len(), 2);
            assert_eq!(checkpoint.head.size.get(), *first_size);
            assert_eq!(message.entries.last().unwrap().leaf_index + 1, *first_size);
            for entry in &message.entries {
                let proof = inclusion_proof(&entry.inclusion_proof);
                let index = LeafIndex::new(entry.leaf_index);
                verify_inclusion(&proof, &leaf_hash(&entry.entry), index, &checkpoint.head)
                    .unwrap();
            }
        }
        // Heads of every size, from every rpc that signs one, have the signatures of the keys of
        // that size.
        let size = ledger_size(&clients).await;
        for (at, window) in wanted
            .iter()
            .zip(wanted[1..].iter().map(Some).chain([None]))
        {
            let last = window.map_or(size, |(next, _)| next - 1);
            for size in [at.0, at.0 + 1, last]
                .into_iter()
                .filter(|size| *size <= last)
            {
                let answer = clients.consistency("payments", 0, size).await.unwrap();
                let (checkpoint, _) = Checkpoint::open(&answer.checkpoint, &at.1).unwrap();
                assert_eq!(checkpoint.head.size.get(), size);
            }
        }
        server.stop();
        fsck_clean(&data);
    });
}

async fn log_keys(clients: &Clients) -> Vec<v1::GetLogKeysResponse> {
    let request = v1::GetLogKeysRequest {
        ledger: "payments".to_owned(),
        min_size: 0,
    };
    let stream = clients.log.clone().get_log_keys(request).await.unwrap();
    let mut stream = stream.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

async fn ledger_size(clients: &Clients) -> u64 {
    TestLedger::find(clients, "payments").await.info.size
}
