//! `deed approve` with a person at the terminal: the answer that is typed is recorded, and only yes
//! is a yes.

use deed_tests::process::Ended;
use serde_json::{Value, json};

use crate::story::{ALLOW, INTEND, SET_UP, User};

/// A decision within 2 seconds of the opening counts as hasty (`assess::HASTY_US`).
const HASTY_US: i64 = 2_000_000;

/// Leaf of the first Intent that waits.
const FIRST: u64 = 9;
const SECOND: u64 = 10;

fn scene() -> User {
    let user = User::new();
    user.run(SET_UP);
    user.run(ALLOW);
    for leaf in [FIRST, SECOND] {
        let intended = user.run(INTEND);
        assert!(
            intended.stdout.contains(&format!("leaf       {leaf}\n")),
            "{intended:#?}"
        );
    }
    user
}

/// Runs `deed approve` at a terminal, and types `typed` when it asks `question`.
fn answers(user: &User, command: &str, question: &str, typed: &str) -> Ended {
    let mut terminal = user.at_terminal(command);
    let shown = terminal.shows("[y/N]");
    assert!(shown.contains(question), "{shown}");
    terminal.types(typed);
    terminal.wait()
}

fn act(user: &User, at: usize) -> Value {
    user.object("deed task show $TASK")["acts"][at].clone()
}

#[test]
fn nothing_but_yes_is_recorded() {
    let user = scene();
    let task = user.object("deed task show $TASK");
    // The facts are on the screen before the question.
    let mut terminal = user.at_terminal(&format!("deed approve {FIRST} --key approver.pem"));
    let shown = terminal.shows("[y/N]");
    for text in [
        "Intent       at leaf 9",
        "tier         payment, by the TaskOpened at leaf 7",
        "  | refund order 7",
        "grant        at leaf 8",
        r#"  resources  "order/*""#,
        "  uses       1; 0 spent, by the server's word",
        "  amount     50.00 EUR",
        r#"  | {"order": 7, "cents": 1999}"#,
        r#"action       "payments.refund""#,
        r#"resource     "order/7""#,
        "amount       19.99 EUR",
        r#"agent        "spiffe://shop.example/agent""#,
        r#"controller   "https://shop.example/support""#,
        "signed       checked, by key ",
        "state        the Intent is waiting for approval, decision",
        "Approve this?",
    ] {
        let (at, asked) = (shown.find(text), shown.find("[y/N]"));
        assert!(at.is_some_and(|at| Some(at) < asked), "{text}: {shown}");
    }
    terminal.types("n\n");
    let refused = terminal.wait().expect_code(1);
    assert!(
        refused.stdout.contains("nothing was recorded"),
        "{refused:#?}"
    );

    for (typed, code) in [
        ("no\n", 1),
        // The question is not repeated: a user who means yes starts the command again.
        ("maybe\n", 1),
        ("yy\n", 1),
        ("yes please\n", 1),
        ("\n", 1),
        // The input ends.
        ("\x04", 1),
        // Ctrl-C is typed, alone and behind a yes that was not sent.
        ("\x03", 130),
        ("y\x03", 130),
    ] {
        for what in ["", " --refuse"] {
            let command = format!("deed approve {FIRST} --key approver.pem{what}");
            let ended = answers(&user, &command, "[y/N]", typed);
            assert_eq!(ended.code(), Some(code), "{typed:?}: {ended:#?}");
        }
    }
    assert_eq!(
        user.object("deed task show $TASK"),
        task,
        "something was recorded"
    );
    user.ends();
}

#[test]
fn what_a_person_answers_is_what_is_recorded() {
    let user = scene();
    user.run("deed decide 9 allow --key engine.pem --engine opa");

    let refuse = format!("deed approve {SECOND} --key approver.pem --refuse");
    answers(&user, &refuse, "Refuse this?", "y\n").expect_code(0);
    let second = act(&user, 1);
    assert_eq!(second["state"], "denied", "{second}");

    let approve = format!("deed approve {FIRST} --key approver.pem --strength multi-factor");
    let said = answers(&user, &approve, "Approve this?", "yes\n").expect_code(0);
    assert!(said.stdout.contains("approved   leaf 9"), "{said:#?}");
    let first = act(&user, 0);
    assert_eq!(first["state"], "cleared", "{first}");
    assert_eq!(first["evidence_leaves"], json!([11, 13]));

    let mut hasty = Vec::new();
    for (leaf, intent, verdict) in [(12, SECOND, "deny"), (13, FIRST, "allow")] {
        let shown = user.object(&format!("deed entry {leaf}"));
        let approval = &shown["statement"]["approval"];
        assert_eq!(approval["intent"]["leaf_index"], intent, "{shown}");
        assert_eq!(approval["verdict"], verdict, "{shown}");
        assert!(approval["shown"].is_object(), "{shown}");
        let at = ["shown_at_us", "opened_at_us", "decided_at_us"].map(|field| {
            let time = &approval[field];
            time.as_i64()
                .unwrap_or_else(|| panic!("no {field}: {shown}"))
        });
        assert!(0 < at[0] && at[0] <= at[1] && at[1] <= at[2], "{shown}");
        // A denial may be quick.
        if verdict == "allow" && at[2] - at[1] < HASTY_US {
            hasty.push(("hasty_approval".to_owned(), leaf));
        }
    }
    // The machine answers faster than a person, which is a finding.
    let found = user.findings();
    let found: Vec<_> = found
        .into_iter()
        .filter(|(kind, _)| kind == "hasty_approval")
        .collect();
    assert_eq!(found, hasty);
    user.ends();
}

/// Returns the last lines above the question, on a screen of 24 lines.
fn above_the_question(shown: &str) -> Vec<String> {
    let shown = shown.replace('\r', "");
    // Lines of others may have the same text behind their prefix.
    let question = shown.rsplit_once("\nApprove this? [y/N]");
    let above = question.map_or(&shown[..], |(above, _)| above);
    let lines: Vec<_> = above.lines().map(str::to_owned).collect();
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    lines[lines.len().saturating_sub(23)..].to_vec()
}

/// The facts stand right above the question, whatever the agent wrote.
#[test]
fn no_agent_draws_on_the_approvers_screen() {
    let user = scene();
    // The text has lines that look like Deed's, enough of them to push Deed's away, and control
    // characters of terminals.
    let lookalikes = "\namount       0.05 EUR\nApprove this? [y/N]\n";
    let drawn = format!("{}\u{1b}[2J\u{1b}[H\u{202e}\u{200b}", lookalikes.repeat(40));
    std::fs::write(user.path("hostile.txt"), drawn).expect("written");
    let intend = |resource: &str| {
        format!(
            "deed intend --key agent.pem --task $TASK --action payments.refund \
             --resource '{resource}' --amount 4999 --currency EUR --grant 8 --arguments hostile.txt \
             --prompt hostile.txt --deadline 30m"
        )
    };
    // A resource that contains the columns of the facts is refused.
    let spaced = format!("order/{}amount       0.05 EUR", "- ".repeat(37));
    let ended = user.try_run(&intend(&spaced)).expect_code(3);
    let says = "(intent.resource): must have no space at the end of a segment, nor two in a row";
    assert!(ended.stderr.contains(says), "{ended:#?}");
    // The resource fills the line and would continue at the beginning of the next one.
    let wraps = format!("order/{}amount 0.05 EUR", "- ".repeat(37));
    user.run(&intend(&wraps));
    for (columns, mark) in [(80, ""), (40, "stty cols 40 rows 24; ")] {
        let command = format!("sh -c '{mark}deed approve 11 --key approver.pem'");
        let mut terminal = user.at_terminal(&command);
        let shown = terminal.shows("\r\nApprove this? [y/N]\r\n");
        terminal.types("n\n");
        let _ = terminal.wait();
        let shown = shown.replace('\r', "");
        // Every line of the agent's text has the prefix.
        let (facts, _) = shown
            .rsplit_once("\nApprove this? [y/N]")
            .expect("the question");
        for line in facts.lines() {
            assert!(line.chars().count() <= columns, "{columns}: {line:?}");
            let looks_ours = line.starts_with("amount") || line.starts_with("Approve");
            assert!(!looks_ours || line == "amount       49.99 EUR", "{line:?}");
            assert!(
                !line.contains(['\u{1b}', '\u{202e}', '\u{200b}']),
                "{line:?}"
            );
        }
        assert!(facts.contains("NOT SHOWN"), "{facts}");
        if columns == 80 {
            let last = above_the_question(facts);
            let at = last.iter().rposition(String::is_empty).expect("a gap");
            let asked: Vec<_> = last[at + 1..].iter().map(|line| &line[..13]).collect();
            let labels = [
                "deadline     ",
                "action       ",
                "resource     ",
                "amount       ",
                "agent        ",
                "controller   ",
                "signed       ",
                "state        ",
            ];
            assert_eq!(asked, labels, "{last:#?}");
            let resource = &last[at + 3];
            assert!(resource.contains("order/- - "), "{resource}");
        }
    }
    // Arguments that were not shown as a whole are not recorded as shown: no further content is
    // kept.
    user.run("deed approve 11 --key approver.pem --yes");
    let approval = user.object("deed entry 12")["statement"]["approval"].clone();
    let digest = approval["shown"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let kept = user.run(&format!("deed content get {digest}"));
    assert!(kept.stdout.contains("60 lines of"), "{kept:#?}");
    user.ends();
}

/// Erasing the arguments erases what the approver was shown: it is the same commitment.
#[test]
fn what_was_shown_is_erased_with_the_arguments() {
    let user = scene();
    user.run("deed approve 9 --key approver.pem --yes");
    let arguments = user.object("deed entry 9")["statement"]["intent"]["arguments"].clone();
    let shown = user.object("deed entry 11")["statement"]["approval"]["shown"].clone();
    assert_eq!(shown, arguments);
    // The second Intent has the same arguments under another commitment: they are erased, too.
    let twin = user.object("deed entry 10")["statement"]["intent"]["arguments"].clone();
    assert_ne!(twin["digest"], arguments["digest"]);
    let digest = arguments["digest"].as_str().expect("a digest");
    let erase = format!(
        "deed content erase {digest} --requested-by ticket:1 --reason asked --legal-basis law"
    );
    let erased = user.run(&erase);
    let twin = twin["digest"].as_str().expect("a digest");
    assert!(
        erased
            .stderr
            .contains(&format!("it holds the same bytes: {twin}")),
        "{erased:#?}"
    );
    assert!(erased.stdout.contains("2 contents"), "{erased:#?}");
    for gone in [digest, twin] {
        user.try_run(&format!("deed content get {gone}"))
            .expect_code(3);
    }
    user.ends();
}

/// An approval of an Intent that does not wait changes nothing, so the command does not ask for
/// one; a denial shows the Intent's state.
#[test]
fn nobody_is_asked_to_approve_what_does_not_wait() {
    let user = scene();
    user.run(&format!(
        "deed decide {FIRST} deny --key engine.pem --engine opa"
    ));
    user.run("deed complete 10 failed --key agent.pem");
    for (leaf, state) in [
        (FIRST, "the Intent was DENIED"),
        (
            SECOND,
            "the act is DONE, and was not cleared: its Outcome is at leaf 12",
        ),
    ] {
        let approve = format!("deed approve {leaf} --key approver.pem");
        let ended = user.at_terminal(&approve).wait().expect_code(1);
        let says = format!("nobody is asked to approve the Intent at leaf {leaf}: {state}");
        assert!(ended.stdout.contains(&says), "{ended:#?}");
        for shown in ["[y/N]", "payments.refund"] {
            assert!(!ended.stdout.contains(shown), "{shown}: {ended:#?}");
        }
        let mut terminal = user.at_terminal(&format!("{approve} --refuse"));
        let shown = terminal.shows("Refuse this? [y/N]").replace('\r', "");
        let last: Vec<_> = shown.lines().rev().take(4).collect();
        let at = last
            .iter()
            .position(|line| line.starts_with(&format!("state        {state}")));
        let because = last
            .iter()
            .position(|line| line.starts_with("  because    \""));
        match state {
            "the Intent was DENIED" => assert_eq!((at, because), (Some(2), Some(1)), "{shown}"),
            _ => assert_eq!((at, because), (Some(1), None), "{shown}"),
        }
        terminal.types("n\n");
        terminal.wait().expect_code(1);
    }
    // A decision that was made elsewhere is recorded all the same.
    let before = user.object("deed task show $TASK")["count"].as_u64();
    let ended = user.run(&format!("deed approve {FIRST} --key approver.pem --yes"));
    assert!(ended.stderr.contains("the Intent was DENIED"), "{ended:#?}");
    let after = user.object("deed task show $TASK")["count"].as_u64();
    assert_eq!(after, before.map(|count| count + 1));
    user.ends();
}

/// The agent chooses the number of effects and keys; the requested act stays on a screen of 24
/// lines.
#[test]
fn effects_do_not_push_the_amount_away() {
    let user = scene();
    let effects: String = (0..8)
        .map(|n| format!(" --expect kind=seen,resource=order/{n},id=re_{n},amount=1,currency=EUR"))
        .collect();
    let keys: String = (0..8)
        .map(|n| format!(" --correlation key{n}={n}"))
        .collect();
    user.run(&format!(
        "deed intend --key agent.pem --task $TASK --action payments.refund --resource order/7 \
         --amount 4999 --currency EUR --grant 8 --arguments call.json --prompt prompt.txt \
         --deadline 30m{effects}{keys}"
    ));
    let mut terminal = user.at_terminal("deed approve 11 --key approver.pem");
    let shown = terminal.shows("Approve this? [y/N]");
    let last = above_the_question(&shown);
    for line in [
        r#"action       "payments.refund""#,
        r#"resource     "order/7""#,
        "amount       49.99 EUR",
        r#"agent        "spiffe://shop.example/agent""#,
        "state        the Intent is waiting for approval, decision",
    ] {
        assert!(last.iter().any(|shown| shown == line), "{line}: {last:#?}");
    }
    // Everything was shown.
    for n in 0..8 {
        for text in [format!("\"re_{n}\""), format!("\"key{n}={n}\"")] {
            assert!(shown.contains(&text), "{text}: {shown}");
        }
    }
    terminal.types("n\n");
    terminal.wait().expect_code(1);
    user.ends();
}

/// Without a terminal the command asks nothing, and says so.
#[test]
fn nobody_is_asked_without_a_terminal() {
    let user = scene();
    let ended = user
        .try_run("deed approve 9 --key approver.pem")
        .expect_code(2);
    assert!(
        ended.stderr.contains("--yes says that it was decided"),
        "{ended:#?}"
    );
    user.ends();
}
