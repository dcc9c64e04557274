//! `deed approve` with a person at the terminal: what they answer is what is recorded, and nothing
//! but yes is a yes.

use deed_tests::process::Ended;
use serde_json::{Value, json};

use crate::story::{ALLOW, INTEND, SET_UP, User};

/// Under 2 seconds from opened to decided nobody has read it (`assess::HASTY_US`).
const HASTY_US: i64 = 2_000_000;

/// Leaves of the two Intents that wait.
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

/// Runs `deed approve` at a terminal, and types when it asks.
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
    // What is asked about is on the screen, before it is asked.
    let mut terminal = user.at_terminal(&format!("deed approve {FIRST} --key approver.pem"));
    let shown = terminal.shows("[y/N]");
    for text in [
        "Intent at leaf 9 (",
        "agent      spiffe://shop.example/agent",
        "action     payments.refund",
        "resource   order/7",
        "amount     1999 EUR in minor units",
        r#"{"order": 7, "cents": 1999}"#,
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
        // Neither is it asked again: who means yes begins anew.
        ("maybe\n", 1),
        ("yy\n", 1),
        ("yes please\n", 1),
        ("\n", 1),
        // Nothing is typed any more.
        ("\x04", 1),
        // Ctrl-C, alone and behind a yes that was not sent.
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
        // A no may be quick.
        if verdict == "allow" && at[2] - at[1] < HASTY_US {
            hasty.push(("hasty_approval".to_owned(), leaf));
        }
    }
    // The machine answers faster than a person, and that is seen.
    let found = user.findings();
    let found: Vec<_> = found
        .into_iter()
        .filter(|(kind, _)| kind == "hasty_approval")
        .collect();
    assert_eq!(found, hasty);
    user.ends();
}

/// Where nobody can be asked nobody is, and that is said.
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
