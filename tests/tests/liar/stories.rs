//! `deed task show`, `findings`, `entry` and `search` print what the server says; the entries say
//! otherwise.

use deed_proto::v1::{self, FindingKind, RiskTier, Severity, Verdict, statement::Body};
use deed_tests::{
    liar::{Cast, ForgedLedger, ForgedServer, Place, cast, clearance},
    process::{Deed, Ended},
    run,
};

use crate::{OK, SERVERS_WORD, words};

/// A payment from its grant to what the bank saw, as far as a test tells it.
struct Payment {
    forged: ForgedLedger,
    cast: Cast,
    task: [u8; 16],
    grant: Place,
}

impl Payment {
    fn set() -> Self {
        let mut forged = ForgedLedger::new("payments");
        let mut cast = Cast::in_ledger(&mut forged);
        let (task, _) = forged.opens(&mut cast.platform, RiskTier::Payment);
        let until = forged.now() + 36_000_000_000;
        let grant = cast::grant(&cast.agent, until);
        let grant = forged.says(&mut cast.authority, Some(task), grant);
        Self {
            forged,
            cast,
            task,
            grant,
        }
    }

    fn intends(&mut self) -> Place {
        let said = cast::intent(Some(&self.grant), 1999);
        self.forged
            .says(&mut self.cast.agent, Some(self.task), said)
    }

    /// Decision, approval and clearance, by signatures that hold.
    fn cleared(&mut self, intent: &Place) {
        let (forged, some) = (&mut self.forged, Some(self.task));
        let said = cast::decision(intent, Verdict::Allow);
        let decided = forged.says(&mut self.cast.engine, some, said);
        let said = cast::approval(intent, Verdict::Allow, forged.now());
        let approved = forged.says(&mut self.cast.approver, some, said);
        let policy = self.grant.leaf - 2;
        forged.writes(self.task, clearance(intent, policy, &[&decided, &approved]));
    }

    /// Done, and seen.
    fn done(&mut self, intent: &Place) {
        let (forged, some) = (&mut self.forged, Some(self.task));
        let said = cast::outcome(intent, 1999);
        forged.says(&mut self.cast.agent, some, said);
        let said = cast::observation(intent, 1999);
        forged.says(&mut self.cast.bank, some, said);
    }

    async fn served(self) -> Served {
        let task = hex::encode(self.task);
        let server = self.forged.serve().await;
        let deed = Deed::new(&server.url(), "payments");
        Served { server, deed, task }
    }
}

struct Served {
    server: ForgedServer,
    deed: Deed,
    task: String,
}

impl Served {
    fn shown(&self) -> Ended {
        self.deed.run(["task", "show", &self.task])
    }
}

const LAYERS: [&str; 6] = [
    "identity",
    "authority",
    "intent",
    "approval",
    "result",
    "corroboration",
];

/// No layer of these is called proven.
#[track_caller]
fn not_proven(what: &str, ended: &Ended, layers: &[&str]) {
    if ended.code() != Some(OK) {
        return;
    }
    let words = words(ended);
    for layer in layers {
        let proven = format!("{layer} proven");
        assert!(!words.contains(&proven), "{what}: {proven}: {ended:#?}");
    }
}

/// Whatever is printed is marked as somebody's word.
#[track_caller]
fn marked(what: &str, ended: &Ended) {
    if ended.code() != Some(OK) {
        return;
    }
    let words = words(ended).to_lowercase();
    let is_marked = SERVERS_WORD.iter().any(|mark| words.contains(mark));
    assert!(is_marked, "{what}: {ended:#?}");
}

/// The control: an act in which everything holds is shown so.
#[test]
fn an_act_without_a_fault_is_proven() {
    run(async {
        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        act.done(&intent);
        let ended = act.served().await.shown().expect_code(OK);
        let words = words(&ended);
        for layer in LAYERS {
            let proven = format!("{layer} proven");
            assert!(words.contains(&proven), "{proven}: {ended:#?}");
        }
    });
}

#[test]
fn statements_of_no_batch_prove_nothing() {
    run(async {
        let mut act = Payment::set();
        let some = Some(act.task);
        let said = cast::intent(Some(&act.grant), 1999);
        let agent = &mut act.cast.agent;
        let intent = act.forged.says_batched_without_manifest(agent, some, said);
        act.cleared(&intent);
        act.done(&intent);
        let ended = act.served().await.shown();
        not_proven(
            "an Intent without a manifest",
            &ended,
            &["identity", "intent"],
        );

        let mut act = Payment::set();
        let intent = act.intends();
        let said = cast::decision(&intent, Verdict::Allow);
        let decided = act.forged.says(&mut act.cast.engine, some, said);
        let said = cast::approval(&intent, Verdict::Allow, act.forged.now());
        let approver = &mut act.cast.approver;
        let approved = act
            .forged
            .says_batched_without_manifest(approver, some, said);
        let said = clearance(&intent, act.grant.leaf - 2, &[&decided, &approved]);
        act.forged.writes(act.task, said);
        act.done(&intent);
        let ended = act.served().await.shown();
        not_proven("an Approval without a manifest", &ended, &["approval"]);

        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        for (voice, said) in [
            (&mut act.cast.agent, cast::outcome(&intent, 1999)),
            (&mut act.cast.bank, cast::observation(&intent, 1999)),
        ] {
            act.forged.says_batched_without_manifest(voice, some, said);
        }
        let ended = act.served().await.shown();
        let layers = ["result", "corroboration"];
        not_proven("what was seen without a manifest", &ended, &layers);
    });
}

/// A batch with its manifest is as good as a signature, and is followed.
#[test]
fn a_manifest_of_others_proves_nothing() {
    run(async {
        let mut act = Payment::set();
        let said = [cast::intent(Some(&act.grant), 1999)];
        let intent = act.forged.says_batch(&mut act.cast.agent, act.task, said);
        act.cleared(&intent[0]);
        act.done(&intent[0]);
        let ended = act.served().await.shown().expect_code(OK);
        assert!(words(&ended).contains("identity proven"), "{ended:#?}");

        // The manifest is one of the agent's, over other statements.
        let mut act = Payment::set();
        let said = [cast::intent(Some(&act.grant), 1)];
        act.forged.says_batch(&mut act.cast.agent, act.task, said);
        let said = cast::intent(Some(&act.grant), 1999);
        let (agent, some) = (&mut act.cast.agent, Some(act.task));
        let intent = act.forged.says_batched_without_manifest(agent, some, said);
        act.cleared(&intent);
        act.done(&intent);
        let served = act.served().await;
        let ended = served.shown();
        if ended.code() == Some(OK) {
            let act = words(&ended);
            let second = act.split_once("act 2").map_or("", |(_, act)| act);
            assert!(!second.contains("identity proven"), "{ended:#?}");
        }
    });
}

#[test]
fn what_a_server_says_of_unsigned_words_proves_nothing() {
    run(async {
        let mut act = Payment::set();
        let some = Some(act.task);
        let intent = act.intends();
        act.cleared(&intent);
        for (voice, said) in [
            (&mut act.cast.agent, cast::outcome(&intent, 1999)),
            (&mut act.cast.bank, cast::observation(&intent, 1999)),
        ] {
            act.forged.says_unsigned(voice, some, said);
        }
        let ended = act.served().await.shown();
        not_proven("nobody signed", &ended, &["result", "corroboration"]);
    });
}

#[test]
fn a_refusal_is_not_left_out() {
    run(async {
        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        let said = cast::approval(&intent, Verdict::Deny, act.forged.now());
        let approver = &mut act.cast.own_approver;
        let refused = act.forged.says(approver, Some(act.task), said).leaf;
        act.done(&intent);
        let receipt = act.forged.receipt(act.task);
        let (task, mut with_receipt) = (act.task, act.forged.clone());
        with_receipt.writes(task, Body::TaskReceipt(receipt));

        // Nothing in the log says how many entries the task has: that there are no others is nobody's
        // word but the server's.
        let served = act.served().await;
        served.server.tell(|story| story.left_out = vec![refused]);
        let ended = served.shown();
        marked("a refusal that is left out", &ended);
        let words = words(&ended);
        assert!(!words.contains("digest is the ledger's"), "{ended:#?}");

        // A receipt says it.
        let server = with_receipt.serve().await;
        server.tell(|story| story.left_out = vec![refused]);
        let deed = Deed::new(&server.url(), "payments");
        let ended = deed.run(["task", "show", &hex::encode(task)]);
        assert_ne!(ended.code(), Some(OK), "{ended:#?}");
    });
}

/// The refusal is there, and the server says that it counts for nothing.
#[test]
fn a_refusal_that_is_there_counts() {
    run(async {
        let mut act = Payment::set();
        let intent = act.intends();
        let (forged, some) = (&mut act.forged, Some(act.task));
        let said = cast::decision(&intent, Verdict::Allow);
        let decided = forged.says(&mut act.cast.engine, some, said);
        let said = cast::approval(&intent, Verdict::Deny, forged.now());
        let denied = forged.says(&mut act.cast.approver, some, said);
        let said = clearance(&intent, act.grant.leaf - 2, &[&decided, &denied]);
        forged.writes(act.task, said);
        act.done(&intent);
        let ended = act.served().await.shown();
        not_proven("a refusal", &ended, &["approval", "intent"]);
    });
}

#[test]
fn a_signature_after_the_keys_end_proves_nothing() {
    run(async {
        let mut act = Payment::set();
        let revoked = act.cast.agent.revocation(None);
        act.forged.says(&mut act.cast.authority, None, revoked);
        let intent = act.intends();
        act.cleared(&intent);
        act.done(&intent);
        let ended = act.served().await.shown();
        not_proven("a revoked key", &ended, &["identity"]);

        // It was somebody else's all along, as is known by now.
        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        act.done(&intent);
        let since = act.forged.now() - 3_000_000_000;
        let revoked = act.cast.bank.revocation(Some(since));
        act.forged.says(&mut act.cast.authority, None, revoked);
        let ended = act.served().await.shown();
        not_proven("a compromised key", &ended, &["corroboration"]);
    });
}

/// The bank saw fifty times as much, and the server has found nothing.
#[test]
fn no_findings_is_the_servers_word() {
    run(async {
        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        let (forged, some) = (&mut act.forged, Some(act.task));
        let said = cast::outcome(&intent, 1999);
        forged.says(&mut act.cast.agent, some, said);
        let said = cast::observation(&intent, 100_000);
        forged.says(&mut act.cast.bank, some, said);
        let served = act.served().await;
        for command in [
            &["findings"][..],
            &["findings", "--task", &served.task],
            &["findings", "--severity", "serious"],
        ] {
            let ended = served.deed.run(command);
            assert_ne!(ended.stdout.trim(), "no findings", "{ended:#?}");
            marked("no findings", &ended);
        }
        let ended = served.shown();
        not_proven("another amount", &ended, &["corroboration", "result"]);

        // And one that was invented is the server's word as well.
        let task = hex::decode(&served.task).unwrap();
        served.server.tell(|story| {
            story.findings = vec![v1::Finding {
                leaf_index: intent.leaf,
                kind: FindingKind::SelfApproval.into(),
                severity: Severity::Serious.into(),
                task: task.into(),
                about_leaf: intent.leaf,
                ..v1::Finding::default()
            }];
        });
        marked("an invented finding", &served.deed.run(["findings"]));
        marked("an invented finding", &served.shown());
    });
}

#[test]
fn entries_are_printed_with_what_was_checked() {
    type Said = fn(&mut Payment) -> Place;
    let entries: [(&str, Said); 4] = [
        ("a signature that is none", |act| {
            let said = cast::intent(Some(&act.grant), 1999);
            let (agent, some) = (&mut act.cast.agent, Some(act.task));
            act.forged.says_signed_so(agent, some, said, [0xbb; 64])
        }),
        ("no manifest", |act| {
            let said = cast::intent(Some(&act.grant), 1999);
            let (agent, some) = (&mut act.cast.agent, Some(act.task));
            act.forged.says_batched_without_manifest(agent, some, said)
        }),
        ("an Intent by the ledger", |act| {
            let said = cast::intent(Some(&act.grant), 1999);
            let (agent, some) = (&mut act.cast.agent, Some(act.task));
            act.forged.says_by_ledger(agent, some, said)
        }),
        ("a revoked key", |act| {
            let revoked = act.cast.agent.revocation(None);
            act.forged.says(&mut act.cast.authority, None, revoked);
            act.intends()
        }),
    ];
    run(async move {
        for (what, said) in entries {
            let mut act = Payment::set();
            let leaf = said(&mut act).leaf.to_string();
            let served = act.served().await;
            marked(what, &served.deed.run(["entry", &leaf]));
            marked(what, &served.deed.run(["search", "--resource", "order/7"]));
        }
    });
}
