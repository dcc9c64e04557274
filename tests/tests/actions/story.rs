//! A payment from an empty directory to a ledger that was audited, by the commands in
//! docs/producers.md. The scripts below are run as they stand: copy them from here.

use std::path::Path;

use deed_proto::v1::FindingKind;
use deed_tests::process::{Ended, ServerProcess, Terminal, fsck_clean, shell};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Creates a ledger, a key for each party, and the policies that Deed ships.
pub(crate) const SET_UP: &str = r#"
deed ledger create payments

for who in platform agent approver engine bank; do
  deed keygen --out $who.pem
done
deed key register platform.pem --role platform \
     --producer spiffe://shop.example/platform \
     --controller https://shop.example/operations
deed key register agent.pem --role agent \
     --producer spiffe://shop.example/agent \
     --controller https://shop.example/support
deed key register approver.pem --role approver \
     --producer spiffe://shop.example/approver \
     --controller https://shop.example/finance
deed key register engine.pem --role policy-engine \
     --producer spiffe://shop.example/engine \
     --controller https://shop.example/security
deed key register bank.pem --role downstream-system \
     --producer spiffe://bank.example/payments \
     --controller https://bank.example --resource 'order/*'
deed policy set --default --reason "first policies"
"#;

/// Opens a task, and grants the agent what it needs.
pub(crate) const ALLOW: &str = r#"
deed task open --key platform.pem --objective "refund order 7" \
     --requested-by ticket:4711 --tier payment --deadline 1h | tee task
export TASK=$(sed -n 's/^task *//p' task)
deed grant --task $TASK --subject spiffe://shop.example/agent \
     --action payments.refund --resource 'order/*' --expires 1h \
     --uses 1 --amount 5000 --currency EUR
"#;

/// Records the agent's Intent. The ledger answers that it waits for approval and decision.
pub(crate) const INTEND: &str = r#"
echo '{"order": 7, "cents": 1999}' > call.json
echo 'The parcel never came. Please refund order 7.' > prompt.txt
deed intend --key agent.pem --task $TASK --action payments.refund \
     --resource order/7 --amount 1999 --currency EUR --grant 8 \
     --arguments call.json --prompt prompt.txt --deadline 30m \
     --correlation order=7 \
     --traceparent 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
"#;

/// A policy engine and a person allow it; the ledger clears it; the agent acts, and the bank
/// observes it.
const ACT: &str = r#"
deed decide 9 allow --key engine.pem --engine opa --policy-version refunds-7
deed approve 9 --key approver.pem --strength multi-factor --yes
deed await 9

echo '{"refund": "re_1"}' > response.json
deed complete 9 succeeded --key agent.pem \
     --tool-call call.json --response response.json \
     --effect kind=payment.refunded,resource=order/7,id=re_1,amount=1999,currency=EUR
deed observe --key bank.pem --intent 9 --reference tx-99 \
     --effect kind=payment.refunded,resource=order/7,id=re_1,amount=1999,currency=EUR
deed task close $TASK --key platform.pem --end completed
"#;

/// Shows what any reader sees of it afterwards.
const LOOK: &str = r#"
deed task show $TASK
deed findings
deed search --resource order/7
deed audit
"#;

/// Money moves again after the task has ended, and for an order for which there is no Intent.
const GO_WRONG: &str = r#"
deed complete 9 succeeded --key agent.pem \
     --effect kind=payment.refunded,resource=order/7,id=re_2,amount=1999,currency=EUR
deed observe --key bank.pem --task $TASK --correlation order=8 --reference tx-100 \
     --effect kind=payment.refunded,resource=order/8,id=re_3,amount=4999,currency=EUR
"#;

/// Announces the same act after the task has ended: it is denied, with exit code 1.
const TOO_LATE: &str = r#"
deed intend --key agent.pem --task $TASK --action payments.refund \
     --resource order/7 --amount 1999 --currency EUR --grant 8 \
     --arguments call.json --prompt prompt.txt
"#;

/// A user with an empty directory, and a server.
pub(crate) struct User {
    server: ServerProcess,
    data: TempDir,
    home: TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        let data = TempDir::new().unwrap();
        Self {
            server: ServerProcess::start(data.path()),
            home: TempDir::new().unwrap(),
            data,
        }
    }

    /// Returns the path of a file in the user's directory.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn try_run(&self, script: &str) -> Ended {
        let (url, task) = (self.server.url(), self.task());
        shell(self.home.path(), &variables(&url, &task), script)
    }

    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Ended {
        self.try_run(script).expect_code(0)
    }

    /// Runs a command at a terminal.
    pub(crate) fn at_terminal(&self, line: &str) -> Terminal {
        let (url, task) = (self.server.url(), self.task());
        Terminal::run(self.home.path(), &variables(&url, &task), line)
    }

    /// Returns the task that [`ALLOW`] opened; empty before that.
    pub(crate) fn task(&self) -> String {
        let opened = std::fs::read_to_string(self.home.path().join("task")).unwrap_or_default();
        let id = opened.lines().find_map(|line| line.strip_prefix("task "));
        id.unwrap_or_default().trim().to_owned()
    }

    /// Returns a command's JSON lines.
    #[track_caller]
    pub(crate) fn lines(&self, command: &str) -> Vec<Value> {
        let ended = self.run(&format!("{command} --json"));
        let parse = |line| serde_json::from_str(line).expect("JSON");
        ended.stdout.lines().map(parse).collect()
    }

    #[track_caller]
    pub(crate) fn object(&self, command: &str) -> Value {
        let mut lines = self.lines(command);
        assert_eq!(lines.len(), 1, "{command}: {lines:?}");
        lines.remove(0)
    }

    /// Returns the leaves that a search finds.
    #[track_caller]
    fn found(&self, terms: &str) -> Vec<u64> {
        let lines = self.lines(&format!("deed search {terms}"));
        let leaf = |line: &Value| line["leaf_index"].as_u64().expect("a leaf");
        lines.iter().map(leaf).collect()
    }

    /// Returns kind and leaf of every finding.
    #[track_caller]
    pub(crate) fn findings(&self) -> Vec<(String, u64)> {
        let mut lines = self.lines("deed findings");
        let end = lines.pop().expect("the list's last line");
        assert_eq!(end["end"], true, "{end}");
        assert_eq!(end["basis"], "servers_word", "{end}");
        let one = |line: &Value| {
            let kind = line["kind"].as_str().expect("a kind").to_owned();
            (kind, line["leaf_index"].as_u64().expect("a leaf"))
        };
        lines.iter().map(one).collect()
    }

    pub(crate) fn ends(self) {
        self.server.stop();
        fsck_clean(self.data.path());
    }
}

fn variables<'a>(url: &'a str, task: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("DEED_SERVER", url),
        ("DEED_LEDGER", "payments"),
        ("TASK", task),
    ]
}

#[test]
fn a_payment_from_an_empty_directory() {
    let user = User::new();
    user.run(SET_UP);
    user.run(ALLOW);
    let intended = user.run(INTEND);
    let waits = "state      waiting for approval, decision";
    assert!(intended.stdout.contains(waits), "{intended:#?}");
    let waiting = user.object("deed task show $TASK");
    assert_eq!(waiting["acts"][0]["state"], "waiting", "{waiting}");
    assert_eq!(
        waiting["acts"][0]["missing"],
        json!(["approval", "decision"])
    );

    let acted = user.run(ACT);
    assert!(
        acted.stdout.contains("cleared (Clearance at leaf 12)"),
        "{acted:#?}"
    );
    assert!(!acted.stdout.contains("finding"), "{acted:#?}");

    let task = user.object("deed task show $TASK");
    assert_eq!(task["state"], "closed", "{task}");
    assert_eq!(task["opened"], "proven");
    assert_eq!(task["receipt_leaf"], 16);
    assert_eq!(task["findings"], json!([]));
    let acts = task["acts"].as_array().unwrap();
    let [act] = &acts[..] else {
        panic!("one act: {task}");
    };
    assert_eq!(act["state"], "completed");
    assert_eq!(act["clearance_leaf"], 12);
    assert_eq!(act["evidence_leaves"], json!([10, 11]));
    assert_eq!(act["outcome"], "corroborated");
    let layers = act["layers"].as_object().unwrap();
    assert_eq!(layers.len(), 6);
    for (layer, state) in layers {
        assert_eq!(state, "proven", "{layer}: {act}");
    }
    assert_eq!(task["grants"][0]["state"], "task_closed", "{task}");
    assert_eq!(task["grants"][0]["uses_spent"], 1);
    assert_eq!(task["grants"][0]["amount_spent"], 1999);
    // Everything but the ledger's own entries is signed, by a key that spoke for its producer.
    assert_eq!(task["signatures"]["unsigned"], 0, "{task}");
    assert_eq!(task["signatures"]["ledgers"], 2);

    let looked = user.run(LOOK).stdout;
    assert!(looked.contains("no findings"), "{looked}");
    assert_eq!(user.findings(), []);
    audit_holds(&user);
    the_page_shows(&user.run("deed task show $TASK").stdout);

    searches(&user);
    user.ends();
}

const AUDITORS: &str = include_str!("../../../docs/auditors.md");

/// docs/auditors.md prints this report as the program does, but for ids, keys, digests and times.
#[track_caller]
fn the_page_shows(shown: &str) {
    let (_, block) = AUDITORS
        .split_once("\n    deed task show $TASK\n\n")
        .expect("docs/auditors.md shows a task");
    let block = block.lines();
    let block = block.take_while(|line| line.is_empty() || line.starts_with("    "));
    let block: Vec<_> = block
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    let block = block.join("\n");
    assert_eq!(
        alike(block.trim_end()),
        alike(shown.trim_end()),
        "put this into docs/auditors.md:\n{shown}"
    );
}

/// Replaces all hashes in a text by the same one, and all times, too.
fn alike(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let alike = |word: &str| {
        let hex = word.matches(is_hex).count();
        let is_time = word.matches([':', '-']).count() >= 2 && word.starts_with(is_digit);
        let to = |c: char| match c {
            c if hex >= 32 && is_hex(c) => 'h',
            c if is_time && is_digit(c) => '0',
            c => c,
        };
        word.chars().map(to).collect::<String>()
    };
    text.split_inclusive(char::is_whitespace)
        .map(alike)
        .collect()
}

const fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// docs/producers.md has these commands, word for word.
#[test]
fn the_page_has_the_commands() {
    let page = include_str!("../../../docs/producers.md");
    let paragraphs = [SET_UP, ALLOW, INTEND, ACT]
        .into_iter()
        .flat_map(|script| script.trim().split("\n\n"));
    for paragraph in paragraphs {
        let block = format!("    {}\n", paragraph.replace('\n', "\n    "));
        assert!(page.contains(&block), "docs/producers.md lacks:\n{block}");
    }
}

/// Three kinds of findings are named in docs/auditors.md, and the others are counted.
#[test]
fn the_page_counts_the_kinds_of_findings() {
    let kinds = (1..).take_while(|number| FindingKind::try_from(*number).is_ok());
    let others = format!("and {} other kinds", kinds.count() - 3);
    let prose: Vec<_> = AUDITORS.split_whitespace().collect();
    assert!(prose.join(" ").contains(&others), "{others}");
}

/// Checks that every search term finds the right entries, alone and with others.
fn searches(user: &User) {
    let all: Vec<u64> = (7..=16).collect();
    for (terms, leaves) in [
        ("--task $TASK", &all[..]),
        ("--agent spiffe://shop.example/agent", &[9, 13]),
        ("--agent spiffe://shop.example/platform", &[7, 15]),
        ("--agent spiffe://bank.example/payments", &[14]),
        ("--agent deed:ledger", &[12, 16]),
        ("--resource order/7", &[9, 13, 14]),
        ("--resource order", &[]),
        ("--action payments.refund", &[9]),
        ("--correlation order=7", &[9]),
        ("--correlation order=8", &[]),
        ("--trace 4bf92f3577b34da6a3ce929d0e0e4736", &[9]),
        (
            "--resource order/7 --agent spiffe://shop.example/agent",
            &[9, 13],
        ),
        ("--task $TASK --from 10 --limit 3", &[10, 11, 12]),
        ("--task $TASK --from-time 1h", &all),
        ("--task $TASK --until 1h", &[]),
        ("--finding hidden_side_effect", &[]),
    ] {
        assert_eq!(user.found(terms), leaves, "{terms}");
    }
}

#[track_caller]
fn audit_holds(user: &User) {
    let audited = user.object("deed audit");
    assert_eq!(audited["holds"], true, "{audited}");
    assert_eq!(audited["clearances"], 1);
}

#[test]
fn what_goes_wrong_is_found() {
    let user = User::new();
    for script in [SET_UP, ALLOW, INTEND, ACT] {
        user.run(script);
    }
    let gone = user.run(GO_WRONG).stdout;
    for finding in ["out of place", "hidden side effect"] {
        assert!(
            gone.contains(finding) || gone.contains(&finding.replace(' ', "_")),
            "{finding} in {gone}"
        );
    }
    let late = user.try_run(TOO_LATE).expect_code(1);
    assert!(late.stdout.contains("denied"), "{late:#?}");

    let found = user.findings();
    let kinds: Vec<_> = found
        .iter()
        .map(|(kind, leaf)| (kind.as_str(), *leaf))
        .collect();
    assert_eq!(
        kinds,
        [
            ("out_of_place", 17),
            ("task_closed", 17),
            ("effect_mismatch", 17),
            ("hidden_side_effect", 18),
            ("task_closed", 19),
            ("limit_exceeded", 19),
        ],
    );
    assert_eq!(user.found("--finding hidden_side_effect"), [18]);
    assert_eq!(user.found("--finding task_closed"), [17, 19]);
    let shown = user.run("deed task show $TASK").stdout;
    for finding in ["hidden side effect", "task closed"] {
        assert!(shown.contains(finding), "{finding} in\n{shown}");
    }
    // Proven parts stay proven, and the receipt still agrees with the entries that it covers.
    let task = user.object("deed task show $TASK");
    assert_eq!(task["acts"][0]["layers"]["approval"], "proven", "{task}");
    assert_eq!(task["acts"][1]["state"], "denied");
    audit_holds(&user);
    let disposed = "deed disposition 18.0 explained --by ticket:4712 --reason 'order 8 was a test'";
    user.run(disposed);
    let lines = user.lines("deed findings --kind hidden_side_effect");
    assert_eq!(lines[0]["disposition"], "explained", "{lines:?}");
    audit_holds(&user);
    user.ends();
}

/// The directory holds secrets, and none of them is readable for others.
#[test]
fn what_the_story_leaves_behind_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let user = User::new();
    user.run(SET_UP);
    let private = |path: &Path| {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    };
    for who in ["platform", "agent", "approver", "engine", "bank"] {
        private(&user.home.path().join(format!("{who}.pem")));
    }
    private(&user.home.path().join(".local/state/deed/keys"));
}
