//! Runs that come in pieces, in any order, repeatedly.

use super::{acts::call, *};

/// The recorded part of a run.
#[derive(Default)]
struct Held {
    statements: Vec<(Made, Recorded)>,
    grants: Vec<Given>,
    granted: Option<(Sequence, deed_evidence::PayloadDigest)>,
}

/// A ledger that takes what is next, has what was, and never anything else in its place.
#[derive(Default)]
struct Taking {
    runs: HashMap<String, Held>,
    leaves: u64,
    now: i64,
}

impl Taking {
    /// Imports a file's bytes, whatever is in them.
    fn import(&mut self, bytes: &[u8]) {
        let records = Records::new(std::io::Cursor::new(bytes.to_vec()), Vec::new());
        for record in records.flatten() {
            let Ok(transcript) = Transcript::parse(&record.text) else {
                continue;
            };
            self.run(&transcript);
        }
    }

    fn run(&mut self, transcript: &Transcript) {
        let import = import();
        let held = self.runs.entry(transcript.run_id.clone()).or_default();
        let earlier = Earlier {
            next: Sequence::new(held.statements.len() as u64),
            grants: held.grants.clone(),
            granted: held.granted,
            at: Micros::new(self.now),
        };
        let mut making = import.resume(transcript, &earlier);
        let mut last = None;
        while let Some(part) = making.next(last.as_ref()).unwrap() {
            for made in part.statements {
                self.leaves += 1;
                let recorded = Recorded {
                    leaf_index: LeafIndex::new(self.leaves),
                    leaf_hash: leaf_hash(&made.payload),
                    received_at: Micros::new(self.now),
                };
                if part.speaker == Speaker::Grantor {
                    let next = held.granted.map_or(0, |(last, _)| last.get() + 1);
                    assert_eq!(
                        made.sequence.get(),
                        next,
                        "a grant in a place that is taken"
                    );
                    let message = statement::decode(&made.payload).unwrap();
                    held.grants
                        .push(Given::read(recorded.leaf_hash, &message).unwrap());
                    held.granted = Some((made.sequence, made.digest));
                    last = Some(recorded);
                    continue;
                }
                let at = usize::try_from(made.sequence.get()).unwrap();
                if let Some((known, recorded)) = held.statements.get(at) {
                    assert_eq!(known.payload, made.payload, "another one in its place");
                    last = Some(*recorded);
                    continue;
                }
                assert_eq!(at, held.statements.len(), "in its turn");
                held.statements.push((made, recorded));
                last = Some(recorded);
            }
        }
    }

    /// Returns the statements of each run without grants, the fields that name them, and times.
    fn said(&self) -> Vec<(&String, Vec<v1::Statement>)> {
        let plain = |(made, _): &(Made, Recorded)| {
            let mut message = statement::decode(&made.payload).unwrap();
            message.previous.clear();
            match &mut message.body {
                Some(Body::Intent(intent)) => intent.grant.clear(),
                Some(Body::Outcome(outcome)) => {
                    outcome.intent.as_mut().unwrap().payload_digest.clear();
                }
                Some(Body::Approval(approval)) => {
                    approval.intent = None;
                    approval.decided_at_us = 0;
                    message.occurred_at_us = 0;
                }
                _ => {}
            }
            message
        };
        let mut said: Vec<_> = self
            .runs
            .iter()
            .map(|(run, held)| (run, held.statements.iter().map(plain).collect()))
            .collect();
        said.sort_by_key(|(run, _)| *run);
        said
    }
}

/// A run of so many messages, with a yes and parallel calls in it.
fn growing(id: usize, count: usize) -> Value {
    let tools = ["look", "cancel_reservation", "tell", "pay"];
    let mut messages = vec![json!({"role": "user", "content": "go"})];
    for turn in 0..count / 4 {
        let (a, b) = (format!("a{turn}"), format!("b{turn}"));
        messages.extend([
            json!({"role": "assistant", "content": "Shall I?"}),
            json!({"role": "user", "content": "Yes."}),
            json!({"role": "assistant", "tool_calls":
                [call(&a, tools[turn % 4]), call(&b, tools[(turn + id) % 4])]}),
            json!({"role": "tool", "tool_call_id": b, "content": "ok"}),
            json!({"role": "tool", "tool_call_id": a, "content": "Error: no"}),
        ]);
    }
    messages.truncate(count);
    json!({"run_id": format!("run-{id}"), "messages": messages})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Imports of parts of the files, in any order, repeated, and cut at any byte, record the same as one
    /// import of all files.
    #[test]
    fn any_cut_any_order_any_repetition_says_the_same(
        lengths in proptest::collection::vec(1_usize..20, 1..4),
        steps in proptest::collection::vec(
            (0_usize..20, 0_usize..4_000, 0_i64..30, any::<bool>()), 0..8),
    ) {
        let file = |longest: usize, reversed: bool| {
            let mut lines: Vec<String> = lengths
                .iter()
                .enumerate()
                .map(|(id, length)| format!("{}\n", growing(id, (*length).min(longest))))
                .collect();
            if reversed {
                lines.reverse();
            }
            lines.concat().into_bytes()
        };
        let hour = 3_600_000_000;
        let begin = Taking { now: 1_795_000_000_000_000, ..Taking::default() };
        let mut cut = Taking { now: begin.now, ..Taking::default() };
        for (longest, bytes, hours, reversed) in steps {
            let file = file(longest, reversed);
            cut.import(&file[..bytes.min(file.len())]);
            cut.now += hours * hour;
        }
        cut.import(&file(20, false));
        // Once more, all is there.
        let leaves: Vec<usize> = cut.runs.values().map(|held| held.grants.len()).collect();
        cut.import(&file(20, true));
        prop_assert_eq!(leaves, cut.runs.values().map(|held| held.grants.len()).collect::<Vec<_>>());
        let mut whole = begin;
        whole.import(&file(20, false));
        prop_assert_eq!(cut.said(), whole.said());
    }
}
