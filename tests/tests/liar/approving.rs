//! `deed approve` must refuse an Intent that has no valid author, that is no act, or that does not
//! wait.

use deed_proto::v1::{RiskTier, Verdict, statement::Body};
use deed_tests::{
    liar::{Cast, ForgedLedger, ForgedServer, Liar, Place, cast, clearance},
    process::{Deed, Ended},
    run,
};

use crate::{OK, does_not_verify, key_file, told, words};

type Said = fn(&mut ForgedLedger, &mut Cast, [u8; 16]) -> Place;

/// The verdict is an option, so that no typing is needed.
const VERDICTS: [&[&str]; 2] = [&["--yes"], &["--yes", "--refuse"]];

/// A server with an Intent that an approver is to decide.
struct Scene {
    server: ForgedServer,
    liar: Liar,
    cast: Cast,
    leaf: String,
}

impl Scene {
    async fn set(said: Said) -> Self {
        let mut forged = ForgedLedger::new("payments");
        let mut cast = Cast::in_ledger(&mut forged);
        let (task, _) = forged.opens(&mut cast.platform, RiskTier::Payment);
        let leaf = said(&mut forged, &mut cast, task).leaf.to_string();
        let server = forged.serve().await;
        let liar = Liar::before(&server.url()).await;
        Self {
            server,
            liar,
            cast,
            leaf,
        }
    }

    /// Runs the command of an approver who has nothing but a key.
    fn approves(&self, verdict: &[&str]) -> Ended {
        let deed = Deed::new(&self.liar.url(), "payments");
        let key = key_file(&deed, "approver.pem", &self.cast.approver.key);
        let command = ["approve", &self.leaf, "--key", &key];
        deed.run([&command[..], verdict].concat())
    }

    fn tells_the_truth(&self) {
        self.server.tell(|story| story.honest = true);
    }
}

/// Checks that the command refuses for this reason without a question, and signs nothing.
async fn refused(what: &str, says: &str, said: Said, honest: bool) {
    let scene = Scene::set(said).await;
    if honest {
        scene.tells_the_truth();
    }
    let before = scene.server.size();
    for verdict in VERDICTS {
        let ended = scene.approves(verdict);
        does_not_verify(what, &ended, says);
        assert_eq!(ended.stdout, "", "{what}: {ended:#?}");
        // A question would be on stderr.
        assert!(!told(&ended).contains("action"), "{what}: {ended:#?}");
        assert_eq!(scene.server.size(), before, "{what}: {ended:#?}");
        let asked = scene.liar.asked();
        let sent = asked.iter().any(|rpc| rpc.starts_with("append"));
        assert!(!sent, "{what}: {asked:?}");
    }
}

#[test]
fn nobody_is_asked_about_what_nobody_signed() {
    run(async {
        let none = "the signature does not verify under key ";
        let bogus: Said = |forged, cast, task| {
            let said = cast::intent(None, 5);
            forged.says_signed_so(&mut cast.agent, Some(task), said, [0xbb; 64])
        };
        refused("a signature that is none", none, bogus, false).await;
        let alone = "it is one of a batch, and the server shows no manifest that covers it";
        let batched: Said = |forged, cast, task| {
            let said = cast::intent(None, 5);
            forged.says_batched_without_manifest(&mut cast.agent, Some(task), said)
        };
        refused("no manifest", alone, batched, false).await;
        let own = "author: is the ledger for the bodies that only it writes, and for them alone";
        let by_ledger: Said = |forged, cast, task| {
            let said = cast::intent(None, 5);
            forged.says_by_ledger(&mut cast.agent, Some(task), said)
        };
        refused("the ledger's own", own, by_ledger, false).await;
        let other = "is registered for another producer";
        let anothers: Said = |forged, cast, task| {
            let payload = cast.agent.payload(Some(task), cast::intent(None, 5));
            forged.takes(&payload, &cast.bank)
        };
        refused("another producer's key", other, anothers, false).await;
        let ended = " was revoked at ";
        let revoked: Said = |forged, cast, task| {
            let revoked = cast.agent.revocation(None);
            forged.says(&mut cast.authority, None, revoked);
            forged.says(&mut cast.agent, Some(task), cast::intent(None, 5))
        };
        refused("a revoked key", ended, revoked, false).await;
    });
}

fn granted(forged: &mut ForgedLedger, cast: &mut Cast, task: [u8; 16]) -> Place {
    let until = forged.now() + 36_000_000_000;
    let grant = cast::grant(&cast.agent, until);
    forged.says(&mut cast.authority, Some(task), grant)
}

/// Appends an Intent that waits.
fn intended(forged: &mut ForgedLedger, cast: &mut Cast, task: [u8; 16]) -> Place {
    let grant = granted(forged, cast, task);
    let said = cast::intent(Some(&grant), 5);
    forged.says(&mut cast.agent, Some(task), said)
}

/// Appends another statement of the agent for the sequence of its Intent.
fn said_again(forged: &mut ForgedLedger, cast: &mut Cast, task: [u8; 16]) -> Place {
    let grant = granted(forged, cast, task);
    let mut twin = cast.agent.clone();
    let said = cast::intent(Some(&grant), 5);
    forged.says(&mut cast.agent, Some(task), said);
    let said = cast::intent(Some(&grant), 50_000);
    forged.says(&mut twin, Some(task), said)
}

/// Appends the same in a batch, all of which is evidence, including statements for unused
/// sequences.
fn batched_again(forged: &mut ForgedLedger, cast: &mut Cast, task: [u8; 16]) -> Place {
    let grant = granted(forged, cast, task);
    let mut twin = cast.agent.clone();
    let said = cast::intent(Some(&grant), 5);
    forged.says(&mut cast.agent, Some(task), said);
    let said = [50_000, 7].map(|cents| cast::intent(Some(&grant), cents));
    forged.says_batch(&mut twin, task, said).remove(1)
}

/// An approval of it would be a serious finding, `approval_of_other_intent`, and the act would
/// never be cleared.
#[test]
fn nobody_is_asked_about_what_is_kept_as_evidence_only() {
    run(async {
        for (what, said) in [
            ("said again", said_again as Said),
            ("said again in a batch", batched_again),
        ] {
            let says = "is no act: the ledger keeps it as evidence only, because its place in its \
                        session was taken";
            refused(what, says, said, true).await;
            // The server presents all of them as cleared acts.
            let says =
                "the server's report of the task does not hold: the act of the Intent at leaf";
            refused(what, says, said, false).await;
        }
    });
}

/// The server's answer about the act does not agree with its entries.
#[test]
fn nobody_is_asked_on_a_story_that_does_not_hold() {
    run(async {
        let says = "the server says cleared; its own entries say waiting";
        refused("called cleared", says, intended, false).await;
    });
}

/// The controls: a true signature, alone and in a batch.
#[test]
fn what_the_agent_signed_can_be_approved() {
    run(async {
        let alone: Said = |forged, cast, task| {
            let intent = intended(forged, cast, task);
            let said = cast::decision(&intent, Verdict::Allow);
            forged.says(&mut cast.engine, Some(task), said);
            intent
        };
        let batched: Said = |forged, cast, task| {
            let grant = granted(forged, cast, task);
            let said = [cast::intent(Some(&grant), 5)];
            forged.says_batch(&mut cast.agent, task, said).remove(0)
        };
        let again: Said = |forged, cast, task| {
            let mut twin = cast.agent.clone();
            let intent = intended(forged, cast, task);
            let said = cast::intent(None, 50_000);
            forged.says(&mut twin, Some(task), said);
            intent
        };
        for (what, said, state) in [
            ("a signature", alone, "waiting for approval"),
            ("a batch", batched, "waiting for approval, decision"),
            ("the first of two", again, "waiting for approval, decision"),
        ] {
            let scene = Scene::set(said).await;
            scene.tells_the_truth();
            let ended = scene.approves(VERDICTS[0]).expect_code(OK);
            let last = format!("state the Intent is {state}");
            assert!(told(&ended).ends_with(&last), "{what}: {ended:#?}");
            let approved = format!("approved leaf {}", scene.leaf);
            assert!(words(&ended).starts_with(&approved), "{what}: {ended:#?}");
            let ended = scene.approves(VERDICTS[1]).expect_code(OK);
            let refused = format!("refused leaf {}", scene.leaf);
            assert!(words(&ended).starts_with(&refused), "{what}: {ended:#?}");
        }
    });
}

/// The Intent's state is the last thing above the question, and it is the one that the entries
/// give.
#[test]
fn an_approver_is_told_where_the_intent_stands() {
    let denied: Said = |forged, cast, task| {
        let intent = intended(forged, cast, task);
        let said = cast::decision(&intent, Verdict::Deny);
        forged.says(&mut cast.engine, Some(task), said);
        intent
    };
    let without_grant: Said = |forged, cast, task| {
        let said = cast::intent(None, 5);
        forged.says(&mut cast.agent, Some(task), said)
    };
    let cleared: Said = |forged, cast, task| {
        let intent = intended(forged, cast, task);
        let said = cast::decision(&intent, Verdict::Allow);
        let decided = forged.says(&mut cast.engine, Some(task), said);
        let said = cast::approval(&intent, Verdict::Allow, forged.now());
        let approved = forged.says(&mut cast.approver, Some(task), said);
        forged.writes(task, clearance(&intent, 8, &[&decided, &approved]));
        intent
    };
    let done: Said = |forged, cast, task| {
        let intent = intended(forged, cast, task);
        let said = cast::decision(&intent, Verdict::Allow);
        let decided = forged.says(&mut cast.engine, Some(task), said);
        let said = cast::approval(&intent, Verdict::Allow, forged.now());
        let approved = forged.says(&mut cast.approver, Some(task), said);
        forged.writes(task, clearance(&intent, 8, &[&decided, &approved]));
        let said = cast::outcome(&intent, 5);
        forged.says(&mut cast.agent, Some(task), said);
        intent
    };
    let done_before: Said = |forged, cast, task| {
        let intent = intended(forged, cast, task);
        let said = cast::outcome(&intent, 5);
        forged.says(&mut cast.agent, Some(task), said);
        intent
    };
    let lapsed: Said = |forged, cast, task| {
        let grant = granted(forged, cast, task);
        let Body::Intent(mut said) = cast::intent(Some(&grant), 5) else {
            panic!("an Intent");
        };
        said.deadline_us = forged.now() + 1;
        let intent = forged.says(&mut cast.agent, Some(task), Body::Intent(said));
        forged.at(forged.now() + 3_000_000);
        forged.opens(&mut cast.platform, RiskTier::Low);
        intent
    };
    run(async move {
        for (said, state) in [
            (denied, "the Intent was DENIED because \""),
            (without_grant, "the Intent was DENIED because \""),
            (cleared, "the Intent is CLEARED already, at leaf 14"),
            (done, "the act is DONE already: its Outcome is at leaf 15"),
            (
                done_before,
                "the act is DONE, and was not cleared: its Outcome is at leaf 12",
            ),
            (lapsed, "the Intent has LAPSED: its time ended as it waited"),
        ] {
            let scene = Scene::set(said).await;
            scene.tells_the_truth();
            for verdict in VERDICTS {
                let ended = scene.approves(verdict).expect_code(OK);
                let told = told(&ended);
                let (_, last) = told.rsplit_once(" state ").expect("a state");
                assert!(last.starts_with(state), "{state}: {ended:#?}");
            }
        }
    });
}
