//! A replay of a ledger finds what its owner has forged, even under the owner's own signature.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use deed_evidence::{
    LedgerId,
    entry::{Entry, KeyedSignature, TrustLink},
    signature, statement,
};
use deed_proto::v1::{self, Verdict, statement::Body};
use deed_tests::{
    forgery::{log_signer, write_mirror},
    http::Http,
    keys::{Authority, key},
    oracle::Log,
    process::{Deed, Ended},
    run,
};
use deed_tlog::{EntryBundleId, LeafIndex, NoteSigner, TILE_WIDTH};
use serde_json::Value;

use crate::{Scene, TASK, refunded};

const HOLDS: i32 = 0;
const DOES_NOT_VERIFY: i32 = 1;

/// A ledger with two whole acts, a denied one, a revoked key, and receipts; and its owner.
struct Owned {
    log: Log,
    signer: NoteSigner,
    origin: String,
    vkey: String,
    deed: Deed,
    /// Leaf of the first Clearance.
    clearance: usize,
    denied: u64,
    revocation: usize,
}

impl Owned {
    async fn set() -> Self {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        let mut clearances = Vec::new();
        for _ in 0..2 {
            let intent = scene.intends(&grant).await;
            scene.decides(&intent, Verdict::Allow).await;
            let approved = scene.approves(&intent, Verdict::Allow).await;
            clearances.push(approved.leaf_index + 1);
            let outcome = scene.agent.says(intent.outcome());
            scene.record(outcome).await;
            let observation = Body::Observation(v1::Observation {
                intent: Some(intent.leaf.clone()),
                effects: vec![refunded()],
                ..v1::Observation::default()
            });
            let seen = scene.bank.says(observation);
            scene.record(seen).await;
        }
        let denied = scene.intends(&grant).await;
        scene.approves(&denied, Verdict::Deny).await;
        // The authority revokes it in another session, so only the chain shows the revocation.
        let id = signature::key_id(key(13).public_key());
        let mut elsewhere = Authority::new(scene.ledger.id, 950);
        let revoked = elsewhere.says(Body::KeyRevoked(v1::KeyRevoked {
            key_id: Bytes::copy_from_slice(id.as_bytes()),
            compromised_since_us: Some(1),
            ..v1::KeyRevoked::default()
        }));
        let revocation = scene.record(revoked).await.leaf_index;
        scene.close(TASK).await;
        let log = Log::read(&scene.clients, &scene.ledger).await;
        let deed = Deed::new(&scene.server().url(), "payments");
        let origin = scene.ledger.info.origin.clone();
        let owned = Self {
            signer: log_signer(&scene.data(), &origin),
            vkey: scene.ledger.info.vkey.clone(),
            clearance: usize::try_from(clearances[0]).unwrap(),
            denied: denied.leaf.leaf_index,
            revocation: usize::try_from(revocation).unwrap(),
            origin,
            deed,
            log,
        };
        assert_eq!(owned.signer.verifier_key().to_string(), owned.vkey);
        owned.over_the_network(&scene).await;
        scene.ends_clean();
        owned
    }

    /// Audits the ledger as a reader can: over the protocol, and from a mirror that was fetched
    /// file by file.
    async fn over_the_network(&self, scene: &Scene) {
        let asked = self.deed.run(["audit", "--json"]).expect_code(HOLDS);
        let asked: Value = serde_json::from_str(&asked.stdout).expect("JSON");
        assert_eq!(asked["holds"], true, "{asked}");
        assert_eq!(asked["clearances"], 2);
        assert_eq!(asked["task_receipts"], 1);
        assert_eq!(
            asked["intents"],
            serde_json::json!({"completed": 2, "denied": 1})
        );
        assert_eq!(asked["findings"]["decision_denied"], 1, "{asked}");

        let dir = self.deed.file("fetched");
        let mut http = Http::connect(scene.server().address()).await;
        let mut paths = vec!["checkpoint".to_owned()];
        let size = self.log.head.size.get();
        for index in 0..size.div_ceil(TILE_WIDTH.into()) {
            let left = (size - index * u64::from(TILE_WIDTH)).min(TILE_WIDTH.into());
            let width = u16::try_from(left).unwrap();
            paths.push(EntryBundleId::new(index, width).unwrap().path());
        }
        for path in paths {
            let body = http.fetch(&format!("/logs/payments/{path}")).await;
            let file = dir.join(&path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, body).unwrap();
        }
        let from_mirror = self.audit(&dir).expect_code(HOLDS);
        let from_mirror: Value = serde_json::from_str(&from_mirror.stdout).expect("JSON");
        assert_eq!(from_mirror, asked);
    }

    fn audit(&self, dir: &Path) -> Ended {
        let policy = self.deed.file("policy");
        fs::write(&policy, format!("log {}\nquorum none\n", self.vkey)).unwrap();
        let (dir, policy) = (dir.to_str().unwrap(), policy.to_str().unwrap());
        self.deed
            .run(["audit", "--json", "--dir", dir, "--policy", policy])
    }

    /// Publishes other entries under a head that the log's own key signs; returns the mirror.
    fn publish(&self, entries: &[Bytes]) -> PathBuf {
        let dir = self.deed.file("forged");
        let _ = fs::remove_dir_all(&dir);
        write_mirror(&dir, &self.origin, entries, &self.signer);
        dir
    }

    /// Publishes the entries; the audit must name the first one that is wrong.
    #[track_caller]
    fn caught(&self, what: &str, entries: &[Bytes], leaf: usize, says: &str) {
        let dir = self.publish(entries);
        let ended = self.audit(&dir).expect_code(DOES_NOT_VERIFY);
        let json: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(json["holds"], false, "{what}: {json}");
        let difference = &json["difference"];
        assert_eq!(difference["leaf_index"], leaf, "{what}: {json}");
        assert_eq!(difference["committed"], true, "{what}: {json}");
        let words = difference["what"].as_str().expect("words");
        assert!(words.contains(says), "{what}: {words}");
        assert!(ended.stderr.contains(says), "{what}: {ended:#?}");
    }

    /// Returns the leaf of the task's receipt.
    fn receipt(&self) -> usize {
        let is_receipt = |entry: &Bytes| {
            let body = decoded(entry).body;
            matches!(body, Some(Body::TaskReceipt(_)))
        };
        let found = self.log.entries.iter().rposition(is_receipt);
        found.expect("a receipt")
    }

    /// Returns all entries, with one changed body. The entry keeps its author, which must be the
    /// ledger.
    fn with(&self, leaf: usize, change: impl FnOnce(&mut Body)) -> Vec<Bytes> {
        let mut entries = self.log.entries.clone();
        let mut said = decoded(&entries[leaf]);
        change(said.body.as_mut().expect("a body"));
        entries[leaf] = encoded(&self.log.entries[leaf], &said);
        assert_ne!(entries[leaf], self.log.entries[leaf]);
        entries
    }

    fn without(&self, leaf: usize) -> Vec<Bytes> {
        let mut entries = self.log.entries.clone();
        entries.remove(leaf);
        entries
    }
}

fn decoded(entry: &Bytes) -> v1::Statement {
    let parsed = Entry::parse(entry).expect("an entry");
    statement::decode(&entry.slice_ref(parsed.payload)).expect("a statement")
}

/// Returns an entry with another payload.
fn encoded(entry: &Bytes, said: &v1::Statement) -> Bytes {
    let payload = statement::encode(said).expect("a statement by the rules");
    let parsed = Entry::parse(entry).expect("an entry");
    Entry {
        payload: &payload,
        ..parsed
    }
    .encode()
}

fn receipt_of(body: &mut Body) -> &mut v1::TaskReceipt {
    match body {
        Body::TaskReceipt(receipt) => receipt,
        other => panic!("no receipt: {other:?}"),
    }
}

#[test]
fn an_owner_who_lies_is_found_out() {
    run(async {
        let owned = Owned::set().await;
        // The control: the published log is as good as the server's own, and so is every prefix
        // that lacks no entry of the ledger.
        let dir = owned.publish(&owned.log.entries);
        owned.audit(&dir).expect_code(HOLDS);
        let dir = owned.publish(&owned.log.entries[..owned.revocation]);
        owned.audit(&dir).expect_code(HOLDS);

        // The receipt is forged.
        let receipt = owned.receipt();
        let is_false = "the task_receipt is not the one";
        let flip = |bytes: &mut Bytes| {
            let mut changed = bytes.to_vec();
            changed[0] ^= 1;
            *bytes = changed.into();
        };
        for (what, entries) in [
            (
                "the digest",
                owned.with(receipt, |it| flip(&mut receipt_of(it).digest)),
            ),
            (
                "the assessment's digest",
                owned.with(receipt, |it| flip(&mut receipt_of(it).assessment_digest)),
            ),
            (
                "the count",
                owned.with(receipt, |it| receipt_of(it).count -= 1),
            ),
            (
                "the last leaf",
                owned.with(receipt, |it| receipt_of(it).through_leaf -= 1),
            ),
            (
                "the trust head",
                owned.with(receipt, |it| {
                    let head = receipt_of(it).trust_head.as_mut().expect("a trust head");
                    flip(&mut head.leaf_hash);
                }),
            ),
            (
                "whether it was asked for",
                owned.with(receipt, |it| receipt_of(it).requested = true),
            ),
        ] {
            owned.caught(what, &entries, receipt, is_false);
        }

        // An entry of the ledger is left out: at the end, where nothing follows, and before others.
        let size = owned.log.entries.len();
        assert_eq!(receipt, size - 1);
        let left_out = "left out the task_receipt";
        owned.caught("the receipt", &owned.without(receipt), size - 1, left_out);
        let left_out = "left out the clearance";
        let clearance = owned.clearance;
        owned.caught(
            "a Clearance",
            &owned.without(clearance),
            clearance,
            left_out,
        );
        // The key's revocation is left out: the authority's own session does not show it, the
        // receipt does.
        let entries = owned.without(owned.revocation);
        owned.caught("a revocation", &entries, receipt - 1, is_false);
    });
}

#[test]
fn an_owner_who_invents_is_found_out() {
    run(async {
        let owned = Owned::set().await;
        let size = owned.log.entries.len();
        // A Clearance of a denied Intent is added, in which everything else is true.
        let real = decoded(&owned.log.entries[owned.clearance]);
        let Some(Body::Clearance(mut clearance)) = real.body.clone() else {
            panic!("no Clearance: {real:?}");
        };
        let denied = usize::try_from(owned.denied).unwrap();
        let of_denied = |leaf: usize| v1::LeafRef {
            leaf_index: leaf as u64,
            leaf_hash: Bytes::copy_from_slice(owned.log.leaf_hashes[leaf].as_bytes()),
        };
        clearance.intent = Some(of_denied(denied));
        clearance.evidence = vec![of_denied(denied + 1)];
        let said = v1::Statement {
            body: Some(Body::Clearance(clearance)),
            ..real
        };
        let permit = encoded(&owned.log.entries[owned.clearance], &said);
        let mut entries = owned.log.entries.clone();
        entries.push(permit.clone());
        let uncalled = "nothing before it calls for a clearance";
        owned.caught("a permit at the end", &entries, size, uncalled);
        let mut entries = owned.log.entries.clone();
        entries.insert(denied + 2, permit);
        owned.caught(
            "a permit behind the refusal",
            &entries,
            denied + 2,
            uncalled,
        );

        // A denial becomes an approval, which the approver did not sign.
        let entries = owned.with(denied + 1, |body| match body {
            Body::Approval(approval) => approval.set_verdict(Verdict::Allow),
            other => panic!("no Approval: {other:?}"),
        });
        owned.caught("another's words", &entries, denied + 1, "signature");

        // A trust statement between two others is left out: the next one does not follow the one
        // before.
        let revoked = owned.revocation;
        let ledger_id = LedgerId::new(owned.log.leaf_hashes[0]);
        let said = Authority::new(ledger_id, 951).says(Body::RetentionSet(v1::RetentionSet {
            floor_us: 1,
            reason: String::new(),
        }));
        let signature = KeyedSignature::from_slices(&said.key_id, &said.signature);
        let received_at = Entry::parse(&owned.log.entries[revoked])
            .unwrap()
            .received_at;
        let link = TrustLink {
            leaf_index: LeafIndex::new(revoked as u64),
            leaf_hash: owned.log.leaf_hashes[revoked],
        };
        let next = Entry::trust(&said.payload, signature.unwrap(), received_at, link).encode();
        let mut entries = owned.log.entries[..=revoked].to_vec();
        entries.push(next);
        let dir = owned.publish(&entries);
        owned.audit(&dir).expect_code(HOLDS);
        entries.remove(revoked);
        owned.caught(
            "a revocation",
            &entries,
            revoked,
            "does not link to the trust statement",
        );

        // The head does not commit to these entries.
        let dir = owned.publish(&owned.log.entries);
        let path = dir.join(
            EntryBundleId::new(0, u16::try_from(size).unwrap())
                .unwrap()
                .path(),
        );
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let ended = owned.audit(&dir).expect_code(DOES_NOT_VERIFY);
        let json: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(json["difference"]["committed"], false, "{json}");
    });
}
