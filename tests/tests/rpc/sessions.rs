//! Sessions: one producer, no undeclared gap, and nothing after the end.

use bytes::Bytes;
use deed_proto::v1::{self, rejection::Reason};
use deed_tests::{
    oracle::Log,
    rpc::{accepted, duplicate, rejected},
    run,
    statements::{Producer, intent},
};
use prost::Message as _;

use crate::Set;

#[test]
fn sessions_are_strict() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let one = async |payload: &Bytes| {
            let answer = ledger
                .try_append(clients, std::slice::from_ref(payload))
                .await
                .unwrap();
            answer.results[0].clone()
        };
        let refusal = async |payload: &Bytes| {
            let rejection = rejected(&one(payload).await);
            (
                rejection.reason(),
                rejection.field,
                rejection.expected_sequence,
            )
        };
        let made = |message: &v1::Statement| Bytes::from(message.encode_to_vec());
        let mut producer = Producer::new(ledger.id, 1);

        // A session begins at 0.
        let early = v1::Statement {
            sequence: 1,
            nonce: Bytes::new(),
            ..producer.message(intent("early"))
        };
        let wanted = (Reason::SequenceNotNext, "sequence".to_owned(), Some(0));
        assert_eq!(refusal(&made(&early)).await, wanted);
        let chained = v1::Statement {
            previous: Bytes::from_static(&[9; 32]),
            ..producer.message(intent("chained to nothing"))
        };
        // Nothing comes before the first statement: that is checked without the session.
        let wanted = (Reason::Malformed, "previous".to_owned(), None);
        assert_eq!(refusal(&made(&chained)).await, wanted);

        let payloads = producer.intents(3);
        let (receipts, _) = ledger.append(clients, &payloads).await;

        // Another producer uses it, with the very next sequence or an earlier one.
        for sequence in [1, 3] {
            let stranger = v1::Statement {
                producer: "spiffe://example.org/stranger".to_owned(),
                sequence,
                previous: Bytes::new(),
                ..producer.message(intent("mine now"))
            };
            let (reason, field, _) = refusal(&made(&stranger)).await;
            assert_eq!((reason, field.as_str()), (Reason::SessionTaken, "session"));
        }

        // The sequence is too far ahead; an earlier one has other bytes; the predecessor is wrong.
        let ahead = v1::Statement {
            sequence: 5,
            ..producer.message(intent("ahead"))
        };
        let wanted = (Reason::SequenceNotNext, "sequence".to_owned(), Some(3));
        assert_eq!(refusal(&made(&ahead)).await, wanted);
        let reused = v1::Statement {
            sequence: 1,
            ..producer.message(intent("another past"))
        };
        let wanted = (Reason::SequenceReused, "sequence".to_owned(), Some(3));
        assert_eq!(refusal(&made(&reused)).await, wanted);
        let broken = v1::Statement {
            previous: Bytes::from_static(&[9; 32]),
            ..producer.message(intent("after something else"))
        };
        let wanted = (Reason::PreviousMismatch, "previous".to_owned(), Some(3));
        assert_eq!(refusal(&made(&broken)).await, wanted);

        // Recorded statements are answered with their first receipts.
        for (payload, receipt) in payloads.iter().zip(&receipts) {
            let first_time = v1::Receipt {
                assessed: None,
                ..receipt.clone()
            };
            assert_eq!(duplicate(&one(payload).await), first_time);
        }

        // A declared gap must begin at exactly the sequence that is expected.
        let hole = |skipped_from| v1::Statement {
            sequence: 7,
            skipped_from: Some(skipped_from),
            ..producer.message(intent("after a hole"))
        };
        for wrong in [2, 4] {
            assert_eq!(
                refusal(&made(&hole(wrong))).await.0,
                Reason::SequenceNotNext
            );
        }
        let after_hole = made(&hole(3));
        let mut in_place = accepted(&one(&after_hole).await);
        in_place.assessed = None;
        assert_eq!(duplicate(&one(&after_hole).await), in_place);
        let inside = v1::Statement {
            sequence: 5,
            ..producer.message(intent("inside of the hole"))
        };
        let wanted = (Reason::SequenceReused, "sequence".to_owned(), Some(8));
        assert_eq!(refusal(&made(&inside)).await, wanted);

        // A closed session accepts nothing; recorded statements are still answered.
        let mut closing = Producer::new(ledger.id, 2);
        let before = closing.intent("before");
        let close = closing.close();
        ledger
            .append(clients, &[before.clone(), close.clone()])
            .await;
        let after = made(&closing.message(intent("after")));
        let (reason, field, _) = refusal(&after).await;
        assert_eq!((reason, field.as_str()), (Reason::SessionClosed, "session"));
        duplicate(&one(&before).await);
        duplicate(&one(&close).await);

        let log = Log::read(clients, ledger).await;
        assert_eq!(
            log.head.size.get(),
            1 + 3 + 1 + 2,
            "only what was accepted is in the log"
        );
    });
}
