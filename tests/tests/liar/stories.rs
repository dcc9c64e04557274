//! `deed task show`, `findings`, `entry` and `search` with servers whose answers contradict the
//! entries.

use deed_proto::v1::{self, FindingKind, RiskTier, Severity, Verdict, statement::Body};
use deed_tests::{
    liar::{Cast, ForgedLedger, ForgedServer, Place, cast, clearance},
    process::{Deed, Ended},
    run,
};

use crate::{OK, does_not_verify, told, words};

/// A payment from its grant to the bank's Observation, as far as a test records it.
#[derive(Clone)]
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

    /// Appends decision, approval and Clearance, with valid signatures.
    fn cleared(&mut self, intent: &Place) {
        let (forged, some) = (&mut self.forged, Some(self.task));
        let said = cast::decision(intent, Verdict::Allow);
        let decided = forged.says(&mut self.cast.engine, some, said);
        let said = cast::approval(intent, Verdict::Allow, forged.now());
        let approved = forged.says(&mut self.cast.approver, some, said);
        let policy = self.grant.leaf - 2;
        forged.writes(self.task, clearance(intent, policy, &[&decided, &approved]));
    }

    /// Appends Outcome and Observation.
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

    /// Runs the command while the server gives the true assessment of the entries that it does not
    /// leave out.
    fn honestly_shown(&self) -> Ended {
        self.server.tell(|story| story.honest = true);
        self.shown()
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

/// Checks that an alarm says that these are not an honest ledger's entries, for this reason, and
/// that everything printed is marked as the server's claim, each act with its layers too.
#[track_caller]
fn does_not_hold(what: &str, ended: &Ended, says: &str) {
    let all = "the server's report of the task is not what its entries say, in 1 place";
    does_not_verify(what, ended, all);
    let alarm = format!("ALARM: the server's report of the task does not hold: {says}");
    assert!(told(ended).contains(&alarm), "{what}: {ended:#?}");
    let shown = words(ended);
    for marked in [
        "checked nothing else: its entries do not hold, and what follows is the server's word",
        "the server names no findings",
        "by the server's word - everything that is said of the task but that its entries are in",
    ] {
        assert!(shown.contains(marked), "{what}: {marked}: {ended:#?}");
    }
    let mut acts = ended.stdout.lines().filter(|line| line.starts_with("act "));
    assert!(
        acts.all(|act| act.ends_with(", by the server's word")),
        "{what}: {ended:#?}"
    );
    assert!(!shown.contains("worked out here"), "{what}: {ended:#?}");
}

/// Checks that the entries are valid and contradict the server: alarms say so, the computed
/// assessment is shown, and none of these layers is proven.
#[track_caller]
fn contradicts(what: &str, ended: &Ended, alarms: &[&str], layers: &[&str]) {
    let all = "the server's report of the task is not what its entries say, in ";
    does_not_verify(what, ended, all);
    let told = told(ended);
    for alarm in alarms {
        let alarm = format!("ALARM: {alarm}");
        assert!(told.contains(&alarm), "{what}: {alarm}: {ended:#?}");
    }
    let shown = words(ended);
    let basis = "states, layers and findings were worked out here from these entries";
    assert!(shown.contains(basis), "{what}: {ended:#?}");
    for layer in layers {
        let proven = format!("{layer} proven");
        assert!(!shown.contains(&proven), "{what}: {proven}: {ended:#?}");
    }
}

/// Checks that everything shown was computed from the entries, and that the server does not
/// contradict it.
#[track_caller]
fn holds(what: &str, ended: &Ended) {
    assert_eq!(ended.code(), Some(OK), "{what}: {ended:#?}");
    assert!(!ended.stderr.contains("ALARM"), "{what}: {ended:#?}");
    let basis = "states, layers and findings were worked out here from these entries";
    assert!(words(ended).contains(basis), "{what}: {ended:#?}");
}

/// Checks that nothing printed was verified, and that it is marked as the server's claim.
#[track_caller]
fn by_word_alone(what: &str, ended: &Ended) {
    assert_eq!(ended.code(), Some(OK), "{what}: {ended:#?}");
    let both = format!("{} {}", told(ended), words(ended));
    let mark = "by the server's word; `deed audit` works findings out from all entries";
    assert!(both.contains(mark), "{what}: {ended:#?}");
}

/// The control of all following tests: an act in which everything is valid is shown as proven.
#[test]
fn an_act_without_a_fault_is_proven() {
    run(async {
        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        act.done(&intent);
        let served = act.served().await;
        for ended in [served.shown(), served.honestly_shown()] {
            holds("without a fault", &ended);
            let words = words(&ended);
            for layer in LAYERS {
                let proven = format!("{layer} proven");
                assert!(words.contains(&proven), "{proven}: {ended:#?}");
            }
            let none = "no findings follow from these entries";
            assert!(words.contains(none), "{ended:#?}");
        }
    });
}

fn no_manifest(place: &Place) -> String {
    format!(
        "the entry at leaf {} is one of a batch, and the server shows no manifest that covers it: \
         nobody's signature stands behind it",
        place.leaf
    )
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
        does_not_hold(
            "an Intent without a manifest",
            &ended,
            &no_manifest(&intent),
        );

        let mut act = Payment::set();
        let some = Some(act.task);
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
        let says = no_manifest(&approved);
        does_not_hold("an Approval without a manifest", &ended, &says);

        let mut act = Payment::set();
        let some = Some(act.task);
        let intent = act.intends();
        act.cleared(&intent);
        let mut seen = Vec::new();
        for (voice, said) in [
            (&mut act.cast.agent, cast::outcome(&intent, 1999)),
            (&mut act.cast.bank, cast::observation(&intent, 1999)),
        ] {
            seen.push(act.forged.says_batched_without_manifest(voice, some, said));
        }
        let ended = act.served().await.shown();
        let says = no_manifest(&seen[0]);
        does_not_hold("what was seen without a manifest", &ended, &says);
    });
}

/// A batch with its manifest counts like a signature, and is verified.
#[test]
fn a_manifest_of_others_proves_nothing() {
    run(async {
        let mut act = Payment::set();
        let said = [cast::intent(Some(&act.grant), 1999)];
        let intent = act.forged.says_batch(&mut act.cast.agent, act.task, said);
        act.cleared(&intent[0]);
        act.done(&intent[0]);
        let ended = act.served().await.shown();
        holds("a batch with its manifest", &ended);
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
        let ended = act.served().await.shown();
        does_not_hold("another batch's manifest", &ended, &no_manifest(&intent));
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
        let says = "leaf 15 is not one that an honest ledger would have: a key was registered for this \
                    producer, so its statements must be signed";
        does_not_hold("nobody signed", &ended, says);
    });
}

const NO_RECEIPT: &str = "receipt none: that no entry is left out is the server's word";

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
        let receipt = v1::TaskReceipt {
            requested: true,
            ..act.forged.receipt(act.task)
        };
        let mut with_receipt = act.clone();
        let written = with_receipt
            .forged
            .writes(act.task, Body::TaskReceipt(receipt));
        let served = act.served().await;
        let with_receipt = with_receipt.served().await;
        // The control: the entry is shown as long as it is not left out.
        let all = format!(
            "receipt leaf {}: these are all 9 entries up to leaf {}, and their digest is the receipt's",
            written.leaf,
            written.leaf - 1
        );
        for (served, says) in [(&served, NO_RECEIPT), (&with_receipt, &all)] {
            let ended = served.honestly_shown();
            holds("a refusal that is there", &ended);
            let shown = words(&ended);
            assert!(shown.contains("self approval"), "{ended:#?}");
            assert!(shown.contains(says), "{says}: {ended:#?}");
        }

        // Nothing in the log says how many entries the task has: only the server claims that there
        // are no others.
        served.server.tell(|story| story.left_out = vec![refused]);
        let ended = served.shown();
        holds("a refusal that is left out", &ended);
        let shown = words(&ended);
        assert!(!shown.contains("self approval"), "{ended:#?}");
        let by_word = "by the server's word - that none of the task's entries is left out: no receipt in \
                       the log covers them";
        for says in [NO_RECEIPT, by_word] {
            assert!(shown.contains(says), "{says}: {ended:#?}");
        }
        for proof in ["these are all", "digest is the receipt's"] {
            assert!(!shown.contains(proof), "{proof}: {ended:#?}");
        }

        // A receipt proves the number.
        with_receipt.server.tell(|story| {
            story.honest = false;
            story.left_out = vec![refused];
        });
        let ended = with_receipt.shown();
        let says = format!("the receipt at leaf {} speaks of 9 entries", written.leaf);
        does_not_verify("a receipt of one more", &ended, &says);
        assert_eq!(ended.stdout, "", "{ended:#?}");
    });
}

/// The denial is recorded, and the server says that it counts for nothing.
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
        let says = "leaf 14 is not one that an honest ledger would have: nothing before it calls for a \
                    clearance here";
        does_not_hold("a refusal", &ended, says);
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
        let says = "leaf 12 is not one that an honest ledger would have: key ";
        does_not_hold("a revoked key", &ended, says);
        assert!(told(&ended).contains(" was revoked at "), "{ended:#?}");

        // The control: the same revocation, after the statement that the key has signed.
        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        act.done(&intent);
        let revoked = act.cast.bank.revocation(None);
        act.forged.says(&mut act.cast.authority, None, revoked);
        let ended = act.served().await.shown();
        holds("a key that ended later", &ended);
        let proven = "corroboration proven";
        assert!(words(&ended).contains(proven), "{ended:#?}");

        // The key had been compromised all along, as is known by now.
        let mut act = Payment::set();
        let intent = act.intends();
        act.cleared(&intent);
        act.done(&intent);
        let since = act.forged.now() - 3_000_000_000;
        let revoked = act.cast.bank.revocation(Some(since));
        act.forged.says(&mut act.cast.authority, None, revoked);
        let ended = act.served().await.shown();
        // (The server may omit findings about it if a key signs in very many tasks.)
        let alarms = [
            "the layer corroboration of the act of the Intent at leaf 11: the server says proven; its \
             own entries say contradicted",
        ];
        contradicts("a compromised key", &ended, &alarms, &["corroboration"]);
    });
}

/// The bank observed fifty times the amount, and the server reports no findings.
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
        // The findings of a whole ledger are not computed, and the server's list is no proof.
        for command in [&["findings"][..], &["findings", "--severity", "serious"]] {
            let ended = served.deed.run(command);
            by_word_alone("no findings", &ended);
            let none = "the server names no findings";
            assert_eq!(ended.stdout.trim(), none, "{ended:#?}");
        }
        // The findings of a task are computed.
        let missing = "a finding at leaf 16: the server says nothing; its own entries say effect \
                       mismatch about leaf 11";
        let of_task = ["findings", "--task", &served.task];
        let ended = served.deed.run(of_task);
        let all = "the server's report of the task is not what its entries say, in 4 places";
        does_not_verify("no findings of the task", &ended, all);
        assert!(told(&ended).contains(missing), "{ended:#?}");
        let found = "16.0 serious: effect mismatch";
        assert!(words(&ended).starts_with(found), "{ended:#?}");
        let ended = served.shown();
        let alarms = [
            missing,
            "the Outcome of the act of the Intent at leaf 11: the server says corroborated; its own \
             entries say contradicted",
        ];
        let layers = ["corroboration", "result"];
        contradicts("another amount", &ended, &alarms, &layers);
        assert!(!words(&ended).contains("no findings"), "{ended:#?}");
        // The control: the true list of a server is accepted.
        let ended = served.honestly_shown();
        holds("another amount, told", &ended);
        assert!(words(&ended).contains("effect mismatch"), "{ended:#?}");
        let ended = served.deed.run(of_task).expect_code(OK);
        assert!(words(&ended).starts_with(found), "{ended:#?}");

        // An invented finding is the server's claim, too.
        let task = hex::decode(&served.task).unwrap();
        served.server.tell(|story| {
            story.honest = false;
            story.findings = vec![v1::Finding {
                leaf_index: intent.leaf,
                kind: FindingKind::SelfApproval.into(),
                severity: Severity::Serious.into(),
                task: task.into(),
                about_leaf: intent.leaf,
                ..v1::Finding::default()
            }];
        });
        let ended = served.deed.run(["findings"]);
        by_word_alone("an invented finding", &ended);
        let invented = "11.0 serious: self approval";
        assert!(words(&ended).contains(invented), "{ended:#?}");
        let ended = served.shown();
        let alarm = "a finding at leaf 11: the server says self approval about leaf 11; its own entries \
                     say nothing";
        contradicts("an invented finding", &ended, &[alarm], &layers);
        assert!(!words(&ended).contains("self approval"), "{ended:#?}");
    });
}

/// Returns the output of both commands that show an entry's author and contents.
fn shown_entry(served: &Served, leaf: u64) -> [Ended; 2] {
    let leaf = leaf.to_string();
    [
        served.deed.run(["entry", &leaf]),
        served.deed.run(["search", "--resource", "order/7"]),
    ]
}

#[test]
fn entries_are_printed_with_what_was_checked() {
    type Said = fn(&mut Payment) -> Place;
    let entries: [(&str, &str, Said); 3] = [
        (
            "a signature that is none",
            "the signature does not verify under key ",
            |act| {
                let said = cast::intent(Some(&act.grant), 1999);
                let (agent, some) = (&mut act.cast.agent, Some(act.task));
                act.forged.says_signed_so(agent, some, said, [0xbb; 64])
            },
        ),
        (
            "no manifest",
            "the entry at leaf 11 is one of a batch, and the server shows no manifest that covers it",
            |act| {
                let said = cast::intent(Some(&act.grant), 1999);
                let (agent, some) = (&mut act.cast.agent, Some(act.task));
                act.forged.says_batched_without_manifest(agent, some, said)
            },
        ),
        ("a revoked key", " was revoked at ", |act| {
            let revoked = act.cast.agent.revocation(None);
            act.forged.says(&mut act.cast.authority, None, revoked);
            act.intends()
        }),
    ];
    run(async move {
        for (what, says, said) in entries {
            let mut act = Payment::set();
            let leaf = said(&mut act).leaf;
            let [entry, found] = shown_entry(&act.served().await, leaf);
            for ended in [&entry, &found] {
                let nothing = format!("the signature at leaf {leaf} proves nothing: ");
                does_not_verify(what, ended, &nothing);
                does_not_verify(what, ended, says);
            }
            let shown = words(&entry);
            assert!(shown.contains("signature proves nothing: "), "{entry:#?}");
            assert!(!shown.contains("verified"), "{entry:#?}");
            let mark = "spiffe://shop.example/agent (ITS SIGNATURE PROVES NOTHING)";
            assert!(words(&found).contains(mark), "{found:#?}");
        }

        // These commands do not check whether the ledger's own entries follow from the others, and
        // say so.
        let mut act = Payment::set();
        let said = cast::intent(Some(&act.grant), 1999);
        let (agent, some) = (&mut act.cast.agent, Some(act.task));
        let leaf = act.forged.says_by_ledger(agent, some, said).leaf;
        let [entry, found] = shown_entry(&act.served().await, leaf);
        let entry = entry.expect_code(OK);
        let mark = "signature none: the ledger's own; whether it follows was not looked at";
        assert!(words(&entry).contains(mark), "{entry:#?}");
        let says = "author: is the ledger for the bodies that only it writes, and for them alone";
        does_not_verify("an Intent by the ledger", &found, says);
        assert_eq!(found.stdout, "", "{found:#?}");

        // The control: a statement that the agent has signed.
        let mut act = Payment::set();
        let leaf = act.intends().leaf;
        let [entry, found] = shown_entry(&act.served().await, leaf).map(|it| it.expect_code(OK));
        let verified = "signature verified: the key was the producer's and in force";
        assert!(words(&entry).contains(verified), "{entry:#?}");
        let producer = "spiffe://shop.example/agent (signed) intends payments.refund on order/7";
        assert!(words(&found).contains(producer), "{found:#?}");
    });
}
