//! Attacks with contents that do not open their commitments, and with erasures that are not
//! allowed.

use bytes::Bytes;
use deed_proto::v1::{
    self, legal_hold_placed::Scope, put_content_request::Part, rejection::Reason, statement::Body,
};
use deed_tests::{
    contents::{Content, Contents, committing, part},
    keys::{batch, manifest, signed, signed_as},
    rpc::{accepted, expect_violation},
    run,
    statements::task_id,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{AGENT, MARK, Scene, agent, expect_rejected};

/// Most bytes of an attachment.
const ATTACHMENT_BYTES_MAX: usize = 64 << 10;

fn pair(number: u64) -> (Content, Content) {
    let of = |what: &str, number| Content::new(number, format!("{MARK}: {what} {number}"));
    (of("arguments", 2 * number), of("prompt", 2 * number + 1))
}

#[test]
fn an_attachment_that_was_not_promised() {
    run(async {
        let mut scene = Scene::set().await;
        let (arguments, prompt) = pair(1);
        let (foreign, _) = pair(2);
        let mut session = scene.session(1);
        let bare = signed(&session.clone().intent("orders/1"), &agent());
        let payload = session.make(committing("orders/1", &arguments, &prompt));
        let good = signed(&payload, &agent());
        let with = |attachments: Vec<v1::Attachment>| v1::Envelope {
            attachments,
            ..good.clone()
        };
        let changed = |change: &dyn Fn(&mut v1::Attachment)| {
            let mut attachment = arguments.attachment();
            change(&mut attachment);
            with(vec![prompt.attachment(), attachment])
        };
        let mismatch = Reason::ContentMismatch;
        for (what, sent, reason) in [
            (
                "other bytes",
                changed(&|a| a.content = Bytes::from_static(b"other")),
                mismatch,
            ),
            ("no bytes", changed(&|a| a.content = Bytes::new()), mismatch),
            (
                "another salt",
                changed(&|a| a.salt = prompt.salt.clone()),
                mismatch,
            ),
            (
                "31 bytes of salt",
                changed(&|a| a.salt.truncate(31)),
                Reason::Malformed,
            ),
            (
                "of another statement",
                with(vec![foreign.attachment()]),
                mismatch,
            ),
            (
                "twice",
                with(vec![prompt.attachment(), prompt.attachment()]),
                mismatch,
            ),
            ("nine", with(vec![prompt.attachment(); 9]), mismatch),
            (
                "to a statement that promises nothing",
                v1::Envelope {
                    attachments: vec![prompt.attachment()],
                    ..bare
                },
                mismatch,
            ),
        ] {
            scene.refuses(what, sent, reason, "attachments").await;
        }
        let large = Content::new(9, vec![b'x'; ATTACHMENT_BYTES_MAX + 1]);
        let promised = scene
            .session(2)
            .make(committing("orders/1", &large, &prompt));
        let sent = v1::Envelope {
            attachments: vec![large.attachment()],
            ..signed(&promised, &agent())
        };
        scene
            .refuses("too large", sent, Reason::Oversized, "attachments")
            .await;

        // In a batch, the culprit gets the reason, and the others are refused, too.
        let mut whole = batch(std::slice::from_ref(&payload), &agent());
        whole[0].attachments = vec![prompt.attachment()];
        let refused = Reason::BatchRefused;
        scene
            .refuses_all("to a manifest", whole.clone(), &[mismatch, refused])
            .await;
        whole[0].attachments.clear();
        whole[1].attachments = vec![foreign.attachment()];
        scene
            .refuses_all("in a batch", whole, &[refused, mismatch])
            .await;

        let contents = Contents::over(scene.clients.channel.clone());
        for content in [&arguments, &prompt, &foreign, &large] {
            expect_unknown(&contents, content).await;
        }
        // The control: the same statement with the right contents.
        let both = vec![prompt.attachment(), arguments.attachment()];
        scene.records(vec![with(both)]).await;
        for content in [&arguments, &prompt] {
            let held = contents.fetch("payments", &content.digest()).await;
            let held = held.expect("a content");
            assert_eq!(held, (content.salt.clone(), content.bytes.clone()));
        }
        scene.nothing_was_recorded().await;
    });
}

async fn expect_unknown(contents: &Contents, content: &Content) {
    let answer = contents.fetch("payments", &content.digest()).await;
    let status = answer.expect_err("it is not held");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

#[test]
fn an_upload_that_is_not_what_it_says() {
    run(async {
        let scene = Scene::set().await;
        let contents = Contents::over(scene.clients.channel.clone());
        let good = Content::new(1, [MARK.as_bytes(), &[7; 5000]].concat());
        let other = Content::new(2, vec![8; good.bytes.len()]);
        let parts = good.parts("payments", 1000);
        let begin = |change: &dyn Fn(&mut v1::PutContentBegin)| {
            let mut changed = parts.clone();
            if let Some(Part::Begin(begin)) = &mut changed[0].part {
                change(begin);
            }
            changed
        };
        let chunk = |bytes: usize| part(Part::Chunk(vec![1; bytes].into()));
        let mut flipped = parts.clone();
        let mut bytes = good.bytes[..1000].to_vec();
        bytes[500] ^= 1;
        flipped[1] = part(Part::Chunk(bytes.into()));
        let mut swapped = parts.clone();
        swapped.swap(1, 2);
        let mut twice = parts.clone();
        twice.insert(3, parts[0].clone());
        let mut more = parts.clone();
        more.push(chunk(1));
        let rows = [
            ("a flipped bit", flipped, "commitment"),
            ("pieces swapped", swapped, "commitment"),
            (
                "another's bytes",
                begin(&|b| b.commitment = other.digest()),
                "commitment",
            ),
            (
                "another salt",
                begin(&|b| b.salt = other.salt.clone()),
                "commitment",
            ),
            (
                "a short digest",
                begin(&|b| b.commitment.truncate(31)),
                "commitment",
            ),
            ("a short salt", begin(&|b| b.salt.truncate(31)), "salt"),
            ("too few", parts[..parts.len() - 1].to_vec(), "size"),
            ("too many", more, "size"),
            ("none", parts[..1].to_vec(), "size"),
            (
                "announced as more than is taken",
                begin(&|b| b.size = (64 << 20) + 1),
                "size",
            ),
            (
                "announced as more than there is anywhere",
                begin(&|b| b.size = u64::MAX),
                "size",
            ),
            ("begun twice", twice, "part"),
            ("not begun", parts[1..].to_vec(), "part"),
            ("nothing at all", Vec::new(), "part"),
            (
                "an empty message",
                vec![parts[0].clone(), v1::PutContentRequest { part: None }],
                "part",
            ),
            ("an empty piece", vec![parts[0].clone(), chunk(0)], "chunk"),
            (
                "a large piece",
                vec![
                    begin(&|b| b.size = 2 << 20)[0].clone(),
                    chunk((1 << 20) + 1),
                ],
                "chunk",
            ),
        ];
        for (what, sent, field) in rows {
            let status = contents.put(sent).await.expect_err(what);
            assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
            expect_violation(&status, field);
            expect_unknown(&contents, &good).await;
        }
        let elsewhere = contents.put(good.parts("elsewhere", 1000)).await;
        let status = elsewhere.expect_err("no such ledger");
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        // The control, and then the same upload again.
        assert!(!contents.put(parts.clone()).await.expect("it is taken"));
        assert!(contents.put(parts).await.expect("it is held"));
        let held = contents.fetch("payments", &good.digest()).await;
        assert_eq!(held.expect("a content").1, good.bytes);
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn an_erasure_under_hold_and_under_retention() {
    run(async {
        let mut scene = Scene::set().await;
        let contents = Contents::over(scene.clients.channel.clone());
        let (held, free) = pair(1);
        let mut session = scene.session(1);
        let payload = session.make(committing("orders/1", &held, &free));
        let sent = v1::Envelope {
            attachments: vec![held.attachment(), free.attachment()],
            ..signed(&payload, &agent())
        };
        scene.records(vec![sent]).await;
        let task = Bytes::copy_from_slice(&task_id(scene.ledger.id, [0x7a; 16]));
        let hold = |number: u8, scope| {
            Body::LegalHoldPlaced(v1::LegalHoldPlaced {
                hold: vec![number; 16].into(),
                scope,
                reason: "case 4711".to_owned(),
            })
        };
        let release = |number: u8| {
            Body::LegalHoldReleased(v1::LegalHoldReleased {
                hold: vec![number; 16].into(),
                reason: "case closed".to_owned(),
            })
        };
        let retain = |floor_us| {
            Body::RetentionSet(v1::RetentionSet {
                floor_us,
                reason: "by law".to_owned(),
            })
        };
        let hold_name = |number: u8| hex::encode([number; 16]);
        let day_us: i64 = 24 * 3600 * 1_000_000;
        for (what, place, lift, reason, named) in [
            (
                "a hold on the ledger",
                hold(1, None),
                release(1),
                Reason::LegalHold,
                hold_name(1),
            ),
            (
                "a hold on the task",
                hold(2, Some(Scope::Task(task))),
                release(2),
                Reason::LegalHold,
                hold_name(2),
            ),
            (
                "a hold on the content",
                hold(3, Some(Scope::Commitment(held.digest()))),
                release(3),
                Reason::LegalHold,
                hold_name(3),
            ),
            (
                "retention",
                retain(day_us),
                retain(0),
                Reason::Retention,
                "has to be kept until".to_owned(),
            ),
        ] {
            let placed = scene.authority.says(place);
            scene.records(vec![placed]).await;
            let erasure = scene.authority.clone().erases(&held.digest());
            let answer = contents.erase("payments", erasure.clone()).await;
            let answer = answer.unwrap_or_else(|status| panic!("{what}: {status:?}"));
            assert_eq!(answer.erased, 0, "{what}");
            let result = answer.result.expect("a result");
            let rejection = deed_tests::rpc::rejected(&result);
            assert_eq!(rejection.reason(), reason, "{what}: {rejection:?}");
            assert!(rejection.message.contains(&named), "{what}: {rejection:?}");
            let digest = hex::encode(held.digest());
            assert!(rejection.message.contains(&digest), "{what}: {rejection:?}");
            let read = contents.fetch("payments", &held.digest()).await;
            assert_eq!(read.expect("it is still there").1, held.bytes, "{what}");
            let lifted = scene.authority.says(lift);
            scene.records(vec![lifted]).await;
        }
        // One content may be erased and one may not: nothing is erased.
        let placed = hold(4, Some(Scope::Commitment(held.digest())));
        let placed = scene.authority.says(placed);
        scene.records(vec![placed]).await;
        let mut commitments = vec![held.digest(), free.digest()];
        commitments.sort();
        let both = Body::Erasure(v1::Erasure {
            commitments,
            requested_by: "https://example.org/person/7".to_owned(),
            reason: "asked to be forgotten".to_owned(),
            legal_basis: "GDPR Art. 17(1)(b)".to_owned(),
        });
        let both = scene.authority.clone().says(both);
        let answer = contents.erase("payments", both).await.expect("an answer");
        let rejection = deed_tests::rpc::rejected(&answer.result.expect("a result"));
        assert_eq!(rejection.reason(), Reason::LegalHold, "{rejection:?}");
        for content in [&held, &free] {
            let read = contents.fetch("payments", &content.digest()).await;
            assert_eq!(read.expect("it is still there").1, content.bytes);
        }
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn an_erasure_by_somebody_who_may_not() {
    run(async {
        let mut scene = Scene::set().await;
        let contents = Contents::over(scene.clients.channel.clone());
        let (arguments, prompt) = pair(1);
        let mut session = scene.session(1);
        let payload = session.make(committing("orders/1", &arguments, &prompt));
        let sent = v1::Envelope {
            attachments: vec![arguments.attachment(), prompt.attachment()],
            ..signed(&payload, &agent())
        };
        scene.records(vec![sent.clone()]).await;
        let good = scene.authority.clone().erases(&arguments.digest());
        let unsigned = v1::Envelope {
            key_id: Bytes::new(),
            signature: Bytes::new(),
            ..good.clone()
        };
        let mut flipped = good.clone();
        flipped.signature = vec![3; 64].into();
        let unknown = scene
            .authority
            .clone()
            .erases(&Content::new(77, MARK).digest());
        for (what, envelope, reason) in [
            (
                "by an agent",
                signed(&good.payload, &agent()),
                Reason::KeyNotAllowed,
            ),
            ("unsigned", unsigned, Reason::SignatureRequired),
            ("forged", flipped, Reason::SignatureInvalid),
            ("of what is not held", unknown, Reason::ContentUnknown),
        ] {
            let answer = contents.erase("payments", envelope).await;
            let answer = answer.unwrap_or_else(|status| panic!("{what}: {status:?}"));
            let rejection = deed_tests::rpc::rejected(&answer.result.expect("a result"));
            assert_eq!(rejection.reason(), reason, "{what}: {rejection:?}");
            assert_eq!(answer.erased, 0, "{what}");
        }
        // The statement is not an erasure, or it comes by the wrong rpc.
        let batch_type = v1::PayloadType::BatchManifest;
        for envelope in [
            sent.clone(),
            signed_as(batch_type, &manifest(&[payload]), &agent()),
            v1::Envelope::default(),
        ] {
            let status = contents.erase("payments", envelope).await;
            expect_violation(&status.expect_err("refused"), "envelope");
        }
        scene
            .refuses("appended", good.clone(), Reason::BodyNotAccepted, "erasure")
            .await;
        for content in [&arguments, &prompt] {
            let read = contents.fetch("payments", &content.digest()).await;
            assert_eq!(read.expect("it is still there").1, content.bytes);
        }
        // The control; an erased content is not accepted again, by whatever way it comes.
        let good = scene.authority.erases(&arguments.digest());
        let answer = contents.erase("payments", good).await.expect("an answer");
        assert_eq!(answer.erased, 1);
        let erasure = accepted(answer.result.as_ref().expect("a result")).leaf_index;
        scene.takes_for_granted(&v1::AppendResponse {
            checkpoint: answer.checkpoint,
            ..v1::AppendResponse::default()
        });
        let put = contents.put(arguments.parts("payments", 100)).await;
        expect_erased(&put.expect_err("it is not taken again"), erasure);
        let again = scene
            .session(2)
            .make(committing("orders/2", &arguments, &prompt));
        let again = v1::Envelope {
            attachments: vec![arguments.attachment()],
            ..signed(&again, &agent())
        };
        let answer = scene.send(vec![again]).await;
        expect_rejected(
            AGENT,
            &answer.results[0],
            Reason::ContentErased,
            "attachments",
        );
        let read = contents.fetch("payments", &arguments.digest()).await;
        expect_erased(&read.expect_err("it is gone"), erasure);
        scene.nothing_was_recorded().await;
    });
}

/// Checks that a status says that a content was erased, and names the leaf of the Erasure.
#[track_caller]
fn expect_erased(status: &Status, leaf: u64) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let info = status
        .get_details_error_info()
        .expect("google.rpc.ErrorInfo");
    assert_eq!(info.reason, "CONTENT_ERASED");
    assert_eq!(info.metadata.get("erasure_leaf"), Some(&leaf.to_string()));
}
