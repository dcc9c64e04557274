//! The log shows that an act waits, and the server says that it is cleared.

use std::fs;

use deed_proto::v1::{self, IntentState, RiskTier, Verdict, append_result, statement::Body};
use deed_tests::{
    keys::AUTHORITY,
    liar::{Cast, ForgedLedger, Liar, Place, Story, cast, clearance},
    process::{Deed, Ended, ServerProcess},
    rpc::{Clients, TestLedger, accepted},
    run,
};
use tempfile::TempDir;

use crate::{DOES_NOT_VERIFY, OK, does_not_verify, key_file, words};

/// A ledger with an act that waits for a decision and an approval.
struct Waiting {
    forged: ForgedLedger,
    cast: Cast,
    task: [u8; 16],
    policy_leaf: u64,
    grant: Place,
    intent: Place,
}

impl Waiting {
    fn set() -> Self {
        let mut forged = ForgedLedger::new("payments");
        let mut cast = Cast::in_ledger(&mut forged);
        let policy_leaf = forged.size() - 1;
        let (task, _) = forged.opens(&mut cast.platform, RiskTier::Payment);
        let until = forged.now() + 36_000_000_000;
        let grant = cast::grant(&cast.agent, until);
        let grant = forged.says(&mut cast.authority, Some(task), grant);
        let intent = cast::intent(Some(&grant), 1999);
        let intent = forged.says(&mut cast.agent, Some(task), intent);
        Self {
            forged,
            cast,
            task,
            policy_leaf,
            grant,
            intent,
        }
    }

    fn decided(&mut self) -> Place {
        let said = cast::decision(&self.intent, Verdict::Allow);
        self.forged
            .says(&mut self.cast.engine, Some(self.task), said)
    }

    fn approval(&self) -> Body {
        cast::approval(&self.intent, Verdict::Allow, self.forged.now())
    }

    fn approved(&mut self) -> Place {
        let said = self.approval();
        self.forged
            .says(&mut self.cast.approver, Some(self.task), said)
    }

    /// Appends the ledger's Clearance, with this evidence.
    fn clears(&mut self, evidence: &[&Place]) -> Place {
        let said = clearance(&self.intent, self.policy_leaf, evidence);
        self.forged.writes(self.task, said)
    }

    /// Waits for the act with `deed await`.
    async fn awaited(self) -> Ended {
        self.awaited_with(|_| {}).await
    }

    /// Waits for the act while the server gives another assessment.
    async fn awaited_with(self, lie: impl FnOnce(&mut Story)) -> Ended {
        let leaf = self.intent.leaf.to_string();
        let server = self.forged.serve().await;
        server.tell(lie);
        let deed = Deed::new(&server.url(), "payments");
        deed.run(["await", &leaf])
    }
}

/// Message for a Clearance that no earlier entry calls for.
const UNCALLED: &str = "is not one that an honest ledger would have: nothing before it calls for a \
                        clearance here";

/// Checks that the command fails, so that no caller acts who reads its exit code or its first word,
/// for this reason.
#[track_caller]
fn may_not_act(what: &str, says: &str, ended: &Ended) {
    does_not_verify(what, ended, says);
    assert!(!ended.stdout.contains("cleared"), "{what}: {ended:#?}");
}

/// The control of all following tests: an act that the log clears is cleared.
#[test]
fn an_act_that_the_log_clears_is_cleared() {
    run(async {
        let mut act = Waiting::set();
        let (decided, approved) = (act.decided(), act.approved());
        let cleared = act.clears(&[&decided, &approved]).leaf;
        let ended = act.awaited().await.expect_code(OK);
        let wanted = format!("cleared (Clearance at leaf {cleared})");
        assert!(words(&ended).starts_with(&wanted), "{ended:#?}");
    });
}

#[test]
fn a_clearance_that_the_log_does_not_have_is_none() {
    run(async {
        let act = Waiting::set();
        let says = "the server says cleared; its own entries say waiting (approval; decision)";
        may_not_act("no Clearance", says, &act.awaited().await);

        // The evidence is complete, but the ledger wrote no Clearance.
        let mut act = Waiting::set();
        act.decided();
        act.approved();
        let says = "the server says cleared; its own entries say waiting";
        may_not_act("evidence alone", says, &act.awaited().await);

        // There is a Clearance, and the server does not name it: so none was checked.
        let mut act = Waiting::set();
        act.decided();
        let approved = act.approved();
        act.clears(&[&approved]);
        let ended = act.awaited_with(|story| story.no_clearance = true).await;
        let says = "the clearance is not the one that the entries before it give";
        may_not_act("one that is not named", says, &ended);
    });
}

#[test]
fn a_clearance_of_something_else_is_none() {
    run(async {
        let mut act = Waiting::set();
        let said = cast::intent(None, 1);
        let other = act.forged.says(&mut act.cast.agent, Some(act.task), said);
        let this = std::mem::replace(&mut act.intent, other);
        let (decided, approved) = (act.decided(), act.approved());
        let cleared = act.clears(&[&decided, &approved]).leaf;
        act.intent = this;
        let lie = |story: &mut Story| story.clearance_leaf = Some(cleared);
        let says = "it should clear the Intent at leaf 11, and does not";
        may_not_act("another Intent's", says, &act.awaited_with(lie).await);

        // The entry that is named is not a Clearance.
        let mut act = Waiting::set();
        let decided = act.decided().leaf;
        let lie = |story: &mut Story| story.clearance_leaf = Some(decided);
        let says = "it should be a Clearance, and is none";
        may_not_act("a Decision", says, &act.awaited_with(lie).await);
    });
}

#[test]
fn a_clearance_that_the_ledger_did_not_write_is_none() {
    run(async {
        let mut act = Waiting::set();
        let (decided, approved) = (act.decided(), act.approved());
        let said = clearance(&act.intent, act.policy_leaf, &[&decided, &approved]);
        act.forged.writes_unsigned(act.task, said);
        let says = "author: is the ledger for the bodies that only it writes, and for them alone";
        may_not_act("nobody's", says, &act.awaited().await);
    });
}

type Evidence = fn(&mut Waiting) -> Vec<Place>;

/// Each case is a Clearance that the ledger wrote on evidence that does not count.
const EVIDENCE_THAT_DOES_NOT_COUNT: [(&str, &str, Evidence); 10] = [
    ("a Decision alone", UNCALLED, |act| vec![act.decided()]),
    ("an Approval alone", UNCALLED, |act| vec![act.approved()]),
    ("a Decision under the agent's controller", UNCALLED, |act| {
        let said = cast::decision(&act.intent, Verdict::Allow);
        let own = &mut act.cast.own_engine;
        let decided = act.forged.says(own, Some(act.task), said);
        vec![decided, act.approved()]
    }),
    (
        "an Approval under the agent's controller",
        UNCALLED,
        |act| {
            let (decided, said) = (act.decided(), act.approval());
            let own = &mut act.cast.own_approver;
            vec![decided, act.forged.says(own, Some(act.task), said)]
        },
    ),
    (
        "a Decision of a key that was revoked before",
        "was revoked at ",
        |act| {
            let revoked = act.cast.engine.revocation(None);
            act.forged.says(&mut act.cast.authority, None, revoked);
            vec![act.decided(), act.approved()]
        },
    ),
    (
        "an Approval of a key that was revoked before",
        "was revoked at ",
        |act| {
            let decided = act.decided();
            let revoked = act.cast.approver.revocation(None);
            act.forged.says(&mut act.cast.authority, None, revoked);
            vec![decided, act.approved()]
        },
    ),
    (
        "an Approval with a signature that is none",
        "the signature does not verify under key ",
        |act| {
            let (decided, said) = (act.decided(), act.approval());
            let approver = &mut act.cast.approver;
            let approved = act
                .forged
                .says_signed_so(approver, Some(act.task), said, [0xbb; 64]);
            vec![decided, approved]
        },
    ),
    (
        "an Approval that nobody signed",
        "a key was registered for this producer, so its statements must be signed",
        |act| {
            let (decided, said) = (act.decided(), act.approval());
            let approver = &mut act.cast.approver;
            let approved = act.forged.says_unsigned(approver, Some(act.task), said);
            vec![decided, approved]
        },
    ),
    ("an Approval of another Intent", UNCALLED, |act| {
        let decided = act.decided();
        let said = cast::intent(None, 1);
        let other = act.forged.says(&mut act.cast.agent, Some(act.task), said);
        let this = std::mem::replace(&mut act.intent, other);
        let approved = act.approved();
        act.intent = this;
        vec![decided, approved]
    }),
    ("a refusal", UNCALLED, |act| {
        let decided = act.decided();
        let said = cast::approval(&act.intent, Verdict::Deny, act.forged.now());
        let approver = &mut act.cast.approver;
        vec![decided, act.forged.says(approver, Some(act.task), said)]
    }),
];

#[test]
fn a_clearance_on_evidence_that_does_not_count_is_none() {
    run(async {
        for (what, says, evidence) in EVIDENCE_THAT_DOES_NOT_COUNT {
            let mut act = Waiting::set();
            let evidence = evidence(&mut act);
            act.clears(&evidence.iter().collect::<Vec<_>>());
            may_not_act(what, says, &act.awaited().await);
        }
    });
}

/// The evidence is valid, but its Intent is not.
#[test]
fn a_clearance_of_an_intent_that_does_not_stand_is_none() {
    type Said = fn(&mut Waiting) -> Place;
    let intents: [(&str, &str, Said); 4] = [
        (
            "a signature that is none",
            "the signature does not verify under key ",
            |act| {
                let said = cast::intent(Some(&act.grant), 1999);
                let (agent, task) = (&mut act.cast.agent, Some(act.task));
                act.forged.says_signed_so(agent, task, said, [0xbb; 64])
            },
        ),
        (
            "no signature",
            "a key was registered for this producer, so its statements must be signed",
            |act| {
                let said = cast::intent(Some(&act.grant), 1999);
                let agent = &mut act.cast.agent;
                act.forged.says_unsigned(agent, Some(act.task), said)
            },
        ),
        ("no grant", UNCALLED, |act| {
            let said = cast::intent(None, 1999);
            act.forged.says(&mut act.cast.agent, Some(act.task), said)
        }),
        ("more than was granted", UNCALLED, |act| {
            let said = cast::intent(Some(&act.grant), 100_000_000);
            act.forged.says(&mut act.cast.agent, Some(act.task), said)
        }),
    ];
    run(async move {
        for (what, says, said) in intents {
            let mut act = Waiting::set();
            act.intent = said(&mut act);
            let (decided, approved) = (act.decided(), act.approved());
            act.clears(&[&decided, &approved]);
            may_not_act(what, says, &act.awaited().await);
        }
    });
}

/// The receipt of an Intent that waits claims that it was cleared at once.
#[test]
fn an_intent_that_waits_was_not_cleared_at_once() {
    run(async {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(&dir.path().join("data"));
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let mut cast = Cast::of(ledger.id);
        let task = cast::task_id(ledger.id, AUTHORITY, [1; 16]);
        let some = Some(task);
        let owner = &mut cast.authority;
        let said = [
            owner.envelope(None, cast.agent.registration(ledger.id)),
            owner.envelope(None, cast::shipped_policies()),
            owner.envelope(some, cast::task_opened([1; 16], RiskTier::Payment)),
            owner.envelope(some, cast::grant(&cast.agent, i64::MAX)),
        ];
        let mut grant = 0;
        for envelope in said {
            let request = v1::AppendRequest {
                envelopes: vec![envelope],
                ..ledger.request(&[])
            };
            let answer = clients.append(request).await.unwrap();
            grant = accepted(&answer.results[0]).leaf_index;
        }

        let liar = Liar::before(&server.url()).await;
        let deed = Deed::new(&liar.url(), "payments");
        let key_file = key_file(&deed, "agent.pem", &cast.agent.key);
        fs::write(deed.file("call.json"), "{}").unwrap();
        let call = deed.file("call.json").display().to_string();
        let intends = |how: &str| {
            let line = format!(
                "intend {how} --task {} --action payments.refund --resource order/7 --amount 5 \
                 --currency EUR --grant {grant} --arguments {call} --prompt {call} --key {key_file}",
                hex::encode(task)
            );
            deed.run(line.split_whitespace())
        };
        // The control: with a true answer, the same command shows the Intent's state.
        let ended = intends("").expect_code(OK);
        let waits = "state waiting for approval, decision, by the server's word";
        assert!(words(&ended).contains(waits), "{ended:#?}");

        let cleared = |answer: v1::AppendResponse| v1::AppendResponse {
            results: answer.results.into_iter().map(at_once).collect(),
            ..answer
        };
        liar.append(move |_, answer| Ok(cleared(answer?)));
        liar.append_stream(move |_, answer| Ok(cleared(answer?)));
        liar.await_clearance(|_, answer| {
            Ok(v1::ClearanceResponse {
                state: IntentState::Cleared.into(),
                missing: Vec::new(),
                ..answer?
            })
        });
        for how in ["", "--wait"] {
            let ended = intends(how);
            let says = "the server says cleared; its own entries say waiting (approval; decision)";
            does_not_verify(how, &ended, says);
            // The Intent is recorded, so its receipt is printed, and its claims are marked.
            let marked = "state cleared, by the server's word";
            let words = words(&ended);
            assert!(words.ends_with(marked), "{ended:#?}");
            assert_eq!(words.matches("cleared").count(), 1, "{ended:#?}");
            let ended = intends(&format!("{how} --json"));
            assert_eq!(ended.code(), Some(DOES_NOT_VERIFY), "{ended:#?}");
            let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(json["basis"], "servers_word", "{json}");
        }
        // With the option, the command accepts the server's claim, which shows that the lie
        // arrived.
        let ended = intends("--wait --by-servers-word").expect_code(OK);
        let words = words(&ended);
        assert!(
            words.ends_with("state cleared, by the server's word"),
            "{ended:#?}"
        );
        server.stop();
    });
}

/// Returns a receipt that says that the Intent is cleared.
fn at_once(result: v1::AppendResult) -> v1::AppendResult {
    let Some(append_result::Result::Accepted(mut receipt)) = result.result else {
        return result;
    };
    if receipt.assessed.is_some() {
        receipt.assessed = Some(v1::Assessed {
            intent: IntentState::Cleared.into(),
            ..v1::Assessed::default()
        });
    }
    v1::AppendResult {
        result: Some(append_result::Result::Accepted(receipt)),
    }
}
