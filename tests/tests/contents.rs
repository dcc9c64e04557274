//! Contents end to end: sent with statements and before them, read by callers with the role,
//! erased, and searched for in every file of the data directory.

use std::path::Path;

use bytes::Bytes;
use deed_evidence::PayloadDigest;
use deed_proto::v1::{
    self, get_inclusion_proof_request::Leaf, put_content_request::Part, statement::Body,
};
use deed_tests::{
    access::Token,
    contents::{Content, Contents, committing},
    files,
    keys::{Authority, batch, key, signed},
    process::{ServerCommand, ServerProcess, fsck_clean},
    rpc::{Clients, TestLedger, accepted, expect_violation},
    run,
    statements::Producer,
    until, within,
};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const AGENT: &str = "spiffe://example.org/agent/known";
const GATEWAY: &str = "spiffe://example.org/gateway";

/// Returns a content that a search finds wherever it is.
fn secret(number: u64, bytes: usize) -> Content {
    let mark = format!("the secret of number {number:04}; ");
    let long = mark.repeat(bytes.div_ceil(mark.len()));
    Content::new(number, Bytes::from(long).slice(..bytes))
}

struct Set {
    server: ServerProcess,
    clients: Clients,
    contents: Contents,
    ledger: TestLedger,
    authority: Authority,
    owner: Token,
    auditor: Token,
    reader: Token,
    dir: TempDir,
}

impl Set {
    async fn up() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        let all = "append,read,authority,admin";
        let owner = Token::create(&data, GATEWAY, &["--ledger", "*", "--role", all]);
        let in_ledger = |name, role| {
            let principal = format!("spiffe://example.org/{name}");
            Token::create(&data, &principal, &["--ledger", "runs", "--role", role])
        };
        let (auditor, reader) = (in_ledger("auditor", "audit"), in_ledger("reader", "read"));
        let server = start(&data);
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create_by(&clients, "runs", Some(&owner)).await;
        let mut authority = Authority::new(ledger.id, 900);
        let trust = vec![
            authority.registers(&key(10), AGENT),
            authority.binds(GATEWAY, AGENT),
        ];
        let set = Self {
            contents: Contents::over(clients.channel.clone()),
            server,
            clients,
            ledger,
            authority,
            owner,
            auditor,
            reader,
            dir,
        };
        set.append(trust).await;
        set
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    async fn append(&self, envelopes: Vec<v1::Envelope>) -> Vec<v1::Receipt> {
        let request = self.owner.on(v1::AppendRequest {
            envelopes,
            with_proofs: true,
            ..self.ledger.request(&[])
        });
        let answer = within("an answer", self.clients.ledger.clone().append(request)).await;
        let answer = answer.expect("an answer").into_inner();
        answer.results.iter().map(accepted).collect()
    }

    fn owners(&self) -> Contents {
        self.contents.as_bearer(&self.owner)
    }

    fn auditors(&self) -> Contents {
        self.contents.as_bearer(&self.auditor)
    }

    /// Checks that a caller with the role can read a content, and no other caller.
    async fn expect_readable(&self, content: &Content) {
        let digest = content.digest();
        let read = self.auditors().fetch("runs", &digest).await;
        let (salt, bytes) = read.expect("a content");
        assert!(
            salt == content.salt && bytes == content.bytes,
            "another one"
        );
        let reader = self.contents.as_bearer(&self.reader);
        for (who, code) in [
            (&reader, Code::PermissionDenied),
            (&self.owners(), Code::PermissionDenied),
            (&self.contents, Code::Unauthenticated),
        ] {
            let status = who.fetch("runs", &digest).await.expect_err("refused");
            assert_eq!(status.code(), code, "{status:?}");
        }
    }

    async fn expect_erased(&self, content: &Content, leaf: u64) {
        let answer = self.auditors().fetch("runs", &content.digest()).await;
        expect_erased_by(&answer.expect_err("it is gone"), leaf);
    }

    /// Checks that neither plaintext nor salt of any of these is in any file; their commitments
    /// are.
    fn expect_sealed(&self, contents: &[&Content]) {
        let data = self.data();
        for content in contents {
            let mark = &content.bytes[..content.bytes.len().min(27)];
            assert!(!files::contains(&data, mark), "a plaintext is on disk");
            assert!(!files::contains(&data, &content.salt), "a salt is on disk");
            let digest = content.digest();
            assert!(files::contains(&data, &digest), "the search finds nothing");
        }
    }

    /// Stops the server and starts it again.
    async fn restart(mut self) -> Self {
        drop((self.clients, self.contents));
        self.server.stop();
        let data = self.dir.path().join("data");
        fsck_clean(&data);
        self.server = start(&data);
        self.clients = Clients::connect(&self.server).await;
        self.contents = Contents::over(self.clients.channel.clone());
        self
    }

    /// Proves that a leaf is in the newest tree.
    async fn expect_included(&self, receipt: &v1::Receipt) {
        let leaf = Some(Leaf::LeafHash(receipt.leaf_hash.clone()));
        let answer = within("a proof", self.clients.inclusion("runs", leaf, 0)).await;
        let answer = answer.expect("a proof");
        assert_eq!(answer.leaf_index, receipt.leaf_index);
        self.ledger.check_inclusion(&answer);
    }
}

fn start(data: &Path) -> ServerProcess {
    ServerCommand::new(data)
        .arguments(["--set", "access.required=true"])
        .start()
}

#[track_caller]
fn expect_erased_by(status: &Status, leaf: u64) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let info = status
        .get_details_error_info()
        .expect("google.rpc.ErrorInfo");
    assert_eq!(info.reason, "CONTENT_ERASED");
    assert_eq!(info.metadata.get("erasure_leaf"), Some(&leaf.to_string()));
}

/// Returns the wrapped key of a content in a copy of `content-keys`. The value is 16 bytes of the
/// upload's id, 32 of the content's tag and 72 of the wrapped key. RocksDB decides where it is: in
/// a log the value's length stands between it and the key, which ends with the digest; in a sorted
/// file eight other bytes do, the first of which is 1.
fn wrapped_key(copy: &Path, content: &Content) -> Vec<u8> {
    let digest = content.digest();
    let mut seen = Vec::new();
    for path in files::files(copy) {
        let bytes = std::fs::read(copy.join(&path)).expect("a copy that can be read");
        let places = bytes.windows(digest.len()).enumerate();
        for (at, _) in places.filter(|(_, window)| *window == digest) {
            let behind = &bytes[at + digest.len()..];
            let value = match behind.first() {
                Some(120) => &behind[1..],
                Some(1) if behind.len() > 8 => &behind[8..],
                _ => &[],
            };
            match value.get(48..120) {
                Some(wrapped) => return wrapped.to_vec(),
                None => seen.push((path.clone(), behind[..behind.len().min(9)].to_vec())),
            }
        }
    }
    panic!("the copy has no key of the content: {seen:?}");
}

#[test]
fn contents_are_kept_read_and_erased() {
    run(async {
        let mut set = Set::up().await;
        let data = set.data();
        let keys = data.join("content-keys");
        let (short, long) = (secret(1, 27), secret(2, 64 << 10));
        let (file, kept) = (secret(3, (5 << 20) / 2), secret(4, 300_000));
        for content in [&file, &kept] {
            let parts = content.parts("runs", 1 << 20);
            assert!(!set.owners().put(parts).await.expect("it is taken"));
        }
        let mut agent = Producer::new(set.ledger.id, 1).named(AGENT);
        let first = agent.make(committing("orders/1", &short, &long));
        let outcome = agent.make(Body::Outcome(v1::Outcome {
            intent: Some(v1::StatementRef {
                session: Bytes::new(),
                sequence: 0,
                payload_digest: Bytes::copy_from_slice(PayloadDigest::of(&first).as_bytes()),
            }),
            status: v1::OutcomeStatus::Succeeded.into(),
            response: Some(kept.commitment.clone()),
            result: Some(file.commitment.clone()),
            ..v1::Outcome::default()
        }));
        let with_attachments = v1::Envelope {
            attachments: vec![long.attachment(), short.attachment()],
            ..signed(&first, &key(10))
        };
        let mut receipts = set.append(vec![with_attachments]).await;
        receipts.extend(set.append(vec![signed(&outcome, &key(10))]).await);
        let all = [&short, &long, &file, &kept];
        for content in all {
            set.expect_readable(content).await;
        }
        set.expect_sealed(&all);
        let before = set.ledger.head(&set.clients).await;

        // The content is erased while its key is only in the database's log.
        let copy = TempDir::new().expect("a temporary directory");
        files::copy(&keys, copy.path());
        let of_short = wrapped_key(copy.path(), &short);
        assert!(files::contains(&keys, &of_short));
        let erasure = set.authority.erases(&short.digest());
        let answer = set.owners().erase("runs", erasure.clone()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.erased, 1);
        let by = accepted(answer.result.as_ref().expect("a result"));
        let head = set.ledger.open(&answer.checkpoint);
        assert!(by.leaf_index < head.size.get());
        set.expect_erased(&short, by.leaf_index).await;
        assert!(!files::contains(&data, &of_short), "the key is still there");
        set.expect_sealed(&all);

        // No entry has changed, and every proof still holds.
        set.ledger.check_grown(&set.clients, &before).await;
        for receipt in receipts.iter().chain([&by]) {
            set.expect_included(receipt).await;
        }
        for content in [&long, &file, &kept] {
            set.expect_readable(content).await;
        }

        // The same is repeated after a restart, with a key that is in a sorted file by now.
        let mut set = set.restart().await;
        set.expect_erased(&short, by.leaf_index).await;
        set.expect_sealed(&all);
        let copy = TempDir::new().expect("a temporary directory");
        files::copy(&keys, copy.path());
        assert!(!files::contains(copy.path(), &of_short));
        let of_file = wrapped_key(copy.path(), &file);
        let of_kept = wrapped_key(copy.path(), &kept);
        let erasure = set.authority.erases(&file.digest());
        let answer = set.owners().erase("runs", erasure).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.erased, 1);
        let second = accepted(answer.result.as_ref().expect("a result"));
        set.expect_erased(&file, second.leaf_index).await;
        assert!(!files::contains(&data, &of_file), "the key is still there");
        assert!(files::contains(&keys, &of_kept), "another key is gone");

        let set = set.restart().await;
        set.expect_erased(&short, by.leaf_index).await;
        set.expect_erased(&file, second.leaf_index).await;
        for content in [&long, &kept] {
            set.expect_readable(content).await;
        }
        set.ledger.check_grown(&set.clients, &before).await;
        for receipt in receipts.iter().chain([&by, &second]) {
            set.expect_included(receipt).await;
        }
        set.expect_sealed(&all);
        for wrapped in [&of_short, &of_file] {
            assert!(!files::contains(&data, wrapped), "a key came back");
        }
        set.server.stop();
        let counted = fsck_clean(&data);
        assert!(!counted.is_empty());
    });
}

/// Two commitments with different salts may hold the same bytes: an Erasure names both.
#[test]
fn an_erasure_covers_every_commitment_to_the_same_bytes() {
    run(async {
        let mut set = Set::up().await;
        let mut agent = Producer::new(set.ledger.id, 1).named(AGENT);
        let first = secret(1, 300);
        let twin = Content::new(77, first.bytes.clone());
        let (prompt, other) = (secret(2, 300), secret(3, 300));
        for (resource, arguments, prompt) in
            [("orders/1", &first, &prompt), ("orders/2", &twin, &other)]
        {
            let payload = agent.make(committing(resource, arguments, prompt));
            let with_attachments = v1::Envelope {
                attachments: vec![arguments.attachment(), prompt.attachment()],
                ..signed(&payload, &key(10))
            };
            set.append(vec![with_attachments]).await;
        }
        let before = set.ledger.head(&set.clients).await;
        let mut alone = set.authority.clone();
        let refused = set
            .owners()
            .erase("runs", alone.erases(&first.digest()))
            .await;
        let refused = refused.expect_err("its twin stays");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let info = refused
            .get_details_error_info()
            .expect("google.rpc.ErrorInfo");
        assert_eq!(info.reason, "CONTENT_TWINS");
        assert_eq!(
            info.metadata.get("commitments"),
            Some(&hex::encode(twin.digest()))
        );
        for content in [&first, &twin] {
            set.expect_readable(content).await;
        }
        assert_eq!(set.ledger.head(&set.clients).await.size, before.size);
        // A look-up gets the same answer, and erases nothing.
        let found = set.owners().look_up("runs", &[&first.digest()]).await;
        assert_eq!(found.expect("an answer"), [twin.digest()]);
        let denied = set.auditors().look_up("runs", &[&first.digest()]).await;
        assert_eq!(
            denied.expect_err("not theirs").code(),
            Code::PermissionDenied
        );

        let both = set.authority.erases_all(&[&first.digest(), &twin.digest()]);
        let answer = set.owners().erase("runs", both).await.expect("an answer");
        assert_eq!((answer.erased, answer.twins.len()), (2, 0));
        let by = accepted(answer.result.as_ref().expect("a result"));
        for content in [&first, &twin] {
            set.expect_erased(content, by.leaf_index).await;
        }
        set.expect_readable(&prompt).await;
        set.restart().await.server.stop();
    });
}

#[test]
fn contents_come_with_batches_too() {
    run(async {
        let set = Set::up().await;
        let mut agent = Producer::new(set.ledger.id, 1).named(AGENT);
        let pairs: Vec<_> = (0..20)
            .map(|n| (secret(2 * n, 1000), secret(2 * n + 1, 2000)))
            .collect();
        let payloads: Vec<_> = pairs
            .iter()
            .map(|(arguments, prompt)| agent.make(committing("orders/1", arguments, prompt)))
            .collect();
        let mut envelopes = batch(&payloads, &key(10));
        for (envelope, (arguments, prompt)) in envelopes[1..].iter_mut().zip(&pairs) {
            envelope.attachments = vec![arguments.attachment(), prompt.attachment()];
        }
        set.append(envelopes).await;
        for (arguments, prompt) in &pairs {
            set.expect_readable(arguments).await;
            set.expect_readable(prompt).await;
        }
        let sealed: Vec<_> = pairs.iter().map(|(arguments, _)| arguments).collect();
        set.expect_sealed(&sealed);
        set.server.kill9();
        fsck_clean(&set.dir.path().join("data"));
    });
}

/// An upload that was cut off is no content, and its bytes are removed.
#[test]
fn an_upload_that_ends_early_leaves_nothing() {
    run(async {
        let set = Set::up().await;
        let content = secret(1, 2_000_000);
        let mut parts = content.parts("runs", 1 << 19);
        let last = parts.pop().expect("a last piece");
        assert!(matches!(last.part, Some(Part::Chunk(_))));
        let answer = set.owners().put(parts).await;
        expect_violation(&answer.expect_err("too short"), "size");
        let unknown = || async {
            let answer = set.auditors().fetch("runs", &content.digest()).await;
            answer
                .err()
                .filter(|status| status.code() == Code::NotFound)
        };
        until("a content that is not held", unknown).await;
        set.server.kill9();
        fsck_clean(&set.dir.path().join("data"));
    });
}
