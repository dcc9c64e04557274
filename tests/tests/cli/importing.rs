//! Imports of chats: failures of single runs, runs that go on, and what is sent when.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use deed_tests::{
    access::Token,
    process::{Deed, Ended, ServerCommand},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{OK, Set, UNAVAILABLE, USAGE, object};

fn call(id: &str, name: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}})
}

/// Returns a run with so many calls.
fn run(id: &str, calls: usize) -> Value {
    let mut messages = vec![json!({"role": "user", "content": "help"})];
    for number in 0..calls {
        let id = format!("c{number}");
        let name = ["look", "fix", "tell"][number % 3];
        messages
            .push(json!({"role": "assistant", "content": null, "tool_calls": [call(&id, name)]}));
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "ok"}));
    }
    json!({"run_id": id, "messages": messages})
}

fn import(set: &Set, text: &str, more: &[&str]) -> Ended {
    let file = set.deed.file("runs");
    fs::write(&file, text).unwrap();
    let arguments = ["import", "chat", "--json", file.to_str().unwrap()];
    set.deed.run([&arguments[..], more].concat())
}

fn head(set: &Set) -> Value {
    object(&set.deed.run(["head", "--json"]).expect_code(OK))
}

/// Returns the recorded statements of the import's producers, without leaves and times: the same
/// statements in another order, or at another time, compare as equal.
fn said(set: &Set) -> Vec<String> {
    let found = match set.deed.run(["search", "--json", "--agent", "import:chat"]) {
        found if found.stdout.lines().count() > 1 => found,
        _ => {
            let unsigned = ["search", "--json", "--agent", "import:chat/unsigned"];
            set.deed.run(unsigned)
        }
    };
    let mut said: Vec<String> = found
        .expect_code(OK)
        .stdout
        .lines()
        .map(|line| {
            let entry: Value = serde_json::from_str(line).unwrap();
            let statement = &entry["statement"];
            let act = ["intent", "outcome", "task_opened", "task_closed"]
                .into_iter()
                .find(|kind| !statement[*kind].is_null());
            let act = act.unwrap_or("other");
            let what = json!([statement[act]["action"], statement[act]["status"]]);
            format!("{} {act} {what}", statement["sequence"])
        })
        // A run that is imported in pieces may have more grants than one that is imported at once.
        .filter(|one| !one.contains(" other "))
        .collect();
    said.sort();
    said
}

/// Runs that break rules of form, of fields, and of the file, among others: each is refused without
/// the others.
#[test]
fn a_bad_run_costs_itself_and_opens_no_task() {
    let set = Set::up();
    let long = "x".repeat(300);
    let bad = [
        // Its second call has a name that no ledger accepts: without the check, its task would stay
        // open for ever.
        json!({"run_id": "b1", "messages": [
            {"role": "user", "content": "help"},
            {"role": "assistant", "tool_calls": [call("1", "look")]},
            {"role": "assistant", "tool_calls": [call("2", &long)]},
        ]})
        .to_string(),
        "{\"run_id\": \"b2\", \"messages\": [{\"role\": \"user\",".to_owned(),
        json!({"run_id": "b3", "messages": [{"role": "oracle", "content": "?"}]}).to_string(),
        json!({"messages": []}).to_string(),
        json!({"run_id": "b5", "messages": [{"role": "system", "content": "be kind"}]}).to_string(),
        run("a1", 1).to_string(),
    ];
    let mut text = run("a1", 2).to_string() + "\n";
    for (number, bad) in bad.iter().enumerate() {
        text += &format!("{bad}\n{}\n", run(&format!("a{}", number + 2), 2));
    }
    let ended = import(&set, &text, &[]).expect_code(USAGE);
    let summary = object(&ended);
    assert_eq!(summary["runs"], 7, "{ended:#?}");
    assert_eq!(summary["refused"], 6, "{ended:#?}");
    // Each run was opened and granted, with two calls and their results.
    assert_eq!(summary["accepted"], 7 * 6, "{ended:#?}");
    let named: Vec<&Value> = summary["refusals"].as_array().unwrap().iter().collect();
    for (line, said) in [
        (2, "b1"),
        (4, ""),
        (6, "is not known"),
        (8, "has no run_id"),
        (10, "nothing to record"),
        (12, "line 1"),
    ] {
        let found = named.iter().find(|refusal| refusal["line"] == line);
        let found = found.unwrap_or_else(|| panic!("line {line} in {ended:#?}"));
        assert!(found.to_string().contains(said), "{said}: {found}");
        assert!(
            ended.stderr.contains(&format!("line {line}: ")),
            "{ended:#?}"
        );
    }
    // A refused run has opened no task.
    let tasks = said(&set)
        .iter()
        .filter(|one| one.contains("task_opened"))
        .count();
    assert_eq!(tasks, 7);
    // In a second import all statements are duplicates, and the same runs are refused.
    let again = object(&import(&set, &text, &[]).expect_code(USAGE));
    assert_eq!(
        (&again["duplicates"], &again["accepted"], &again["refused"]),
        (&(7 * 6).into(), &0.into(), &6.into())
    );
}

/// An input that is no import registers no key.
#[test]
fn an_input_without_a_run_registers_no_key_and_is_said() {
    let set = Set::up();
    let before = head(&set);
    for text in [
        "no transcript\n",
        "{\"run_id\": \"a\", \"messages\": [7]}",
        "[]",
        "\n\n",
    ] {
        let ended = import(&set, text, &[]).expect_code(USAGE);
        assert_eq!(object(&ended)["runs"], 0, "{ended:#?}");
        assert!(!ended.stderr.contains("registered"), "{ended:#?}");
        assert_eq!(head(&set), before);
    }
    import(&set, "", &[]).expect_code(OK);
    assert_eq!(head(&set), before);
}

/// A run that grows from import to import, in a file that grows by lines, is recorded in the end as
/// by one import of everything, wherever it is cut; signed and unsigned.
#[test]
fn what_has_grown_goes_on_and_what_has_changed_is_refused() {
    for more in [&[][..], &["--unsigned"]] {
        let (grown, at_once) = (Set::up(), Set::up());
        let (mut accepted, mut last) = (0, String::new());
        for (calls, others) in [(0, 0), (1, 1), (1, 3), (2, 3), (5, 4), (5, 4)] {
            let mut text = run("a", calls).to_string() + "\n";
            for number in 0..others {
                text += &format!("{}\n", run(&format!("other-{number}"), 2));
            }
            let summary = object(&import(&grown, &text, more).expect_code(OK));
            assert_eq!(summary["rejected"], 0, "{summary}");
            // A wrong clearance or an equivocation would be a finding.
            assert_eq!(summary["findings"], json!({}), "{summary}");
            accepted += summary["accepted"].as_u64().unwrap();
            last = text;
        }
        assert!(accepted > 0);
        import(&at_once, &last, more).expect_code(OK);
        assert_eq!(said(&grown), said(&at_once));
        // The run differs in a recorded place: nothing of it is sent.
        let before = head(&grown);
        let changed = run("a", 6).to_string().replace("\"help\"", "\"harm\"");
        let ended = import(&grown, &(changed + "\n"), more).expect_code(USAGE);
        assert!(
            ended.stderr.contains("is not what was imported"),
            "{ended:#?}"
        );
        // The same holds for other options.
        let text = run("a", 6).to_string();
        let options = [more, &["--risk-tier", "payment"]].concat();
        let ended = import(&grown, &text, &options).expect_code(USAGE);
        assert!(ended.stderr.contains("--risk-tier"), "{ended:#?}");
        assert_eq!(head(&grown), before);
        // An older copy of the file has only duplicates.
        let older = object(&import(&grown, &run("a", 2).to_string(), more).expect_code(OK));
        assert_eq!(older["accepted"], 0, "{older}");
        assert_eq!(head(&grown), before);
        // A run that was ended does not grow.
        let over = [more, &["--ended"]].concat();
        let summary = object(&import(&grown, &run("a", 5).to_string(), &over).expect_code(OK));
        assert_eq!(summary["accepted"], 2, "{summary}");
        let ended = import(&grown, &run("a", 6).to_string(), more).expect_code(USAGE);
        assert!(ended.stderr.contains("said that it was over"), "{ended:#?}");
        let summary = object(&import(&grown, &run("a", 5).to_string(), more).expect_code(OK));
        assert_eq!(summary["accepted"], 0, "{summary}");
        let findings = grown.deed.run(["findings", "--json"]);
        assert!(!findings.stdout.contains("equivocation"), "{findings:#?}");
    }
}

/// A dry run makes all statements and compares them with the recorded ones, and leaves nothing
/// behind.
#[test]
fn a_dry_run_makes_all_and_sends_nothing() {
    let set = Set::up();
    let before = head(&set);
    let long = json!({"run_id": "b", "messages": [
        {"role": "user", "content": "help"},
        {"role": "assistant", "tool_calls": [call("1", &"x".repeat(300))]},
    ]});
    let text = format!("{}\n{long}\n", run("a", 2));
    let ended = import(&set, &text, &["--dry-run"]).expect_code(USAGE);
    let summary = object(&ended);
    assert_eq!(
        (
            &summary["statements"],
            &summary["would_be_sent"],
            &summary["refused"]
        ),
        (&6.into(), &6.into(), &1.into()),
        "{ended:#?}"
    );
    assert_eq!(head(&set), before, "no key, no statement");
    assert_eq!(
        object(&import(&set, &text, &[]).expect_code(USAGE))["accepted"],
        6
    );
    let before = head(&set);
    let summary = object(&import(&set, &run("a", 2).to_string(), &["--dry-run"]).expect_code(OK));
    assert_eq!(
        (&summary["statements"], &summary["would_be_sent"]),
        (&6.into(), &0.into())
    );
    let summary = object(&import(&set, &run("a", 3).to_string(), &["--dry-run"]).expect_code(OK));
    // A call, its result, and the grant of its tool would be sent.
    assert_eq!(summary["would_be_sent"], 3, "{summary}");
    let changed = run("a", 2).to_string().replace("\"ok\"", "\"no\"");
    import(&set, &changed, &["--dry-run"]).expect_code(USAGE);
    assert_eq!(head(&set), before);
}

/// Lists, objects over many lines, a byte order mark, CRLF, gzip, and standard input.
#[test]
fn runs_are_read_from_any_file() {
    let set = Set::up();
    let runs = [run("a", 1), run("b", 2)];
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let lines = format!("{}\n{}\n", runs[0], runs[1]);
    let first = object(&import(&set, &lines, &[]).expect_code(OK));
    let statements = first["accepted"].clone();
    assert_eq!(statements, 4 + 6);
    let all = [
        pretty(&json!(runs)),
        json!(runs).to_string(),
        pretty(&json!({"runs": runs})),
        format!("{}\n{}", pretty(&runs[0]), pretty(&runs[1])),
        format!("\u{feff}{}", lines.replace('\n', "\r\n")),
    ];
    for text in &all {
        let again = object(&import(&set, text, &[]).expect_code(OK));
        assert_eq!(again["duplicates"], statements, "{text}");
        assert_eq!(again["accepted"], 0, "{text}");
    }
    let again = set
        .deed
        .run_with(["import", "chat", "--json", "-"], &all[0]);
    assert_eq!(object(&again.expect_code(OK))["duplicates"], statements);
    // The file is packed by the system's own gzip, if there is one.
    let plain = set.deed.file("packed");
    fs::write(&plain, &all[0]).unwrap();
    let packed = std::process::Command::new("gzip")
        .arg(&plain)
        .stdout(Stdio::null())
        .status();
    if packed.is_ok_and(|status| status.success()) {
        let packed = plain.with_extension("gz");
        let packed = packed.to_str().unwrap();
        let again = set.deed.run(["import", "chat", "--json", packed]);
        assert_eq!(object(&again.expect_code(OK))["duplicates"], statements);
    }
}

/// The same run may be imported as the acts of two producers: the grants of one do not contradict
/// those of the other.
#[test]
fn a_run_may_be_imported_as_anothers_acts() {
    let set = Set::up();
    for producer in ["import:chat", "import:other"] {
        let summary = import(&set, &run("a", 1).to_string(), &["--producer", producer]);
        let summary = object(&summary.expect_code(OK));
        assert_eq!(summary["accepted"], 4, "{summary}");
        assert_eq!(summary["findings"], json!({}), "{summary}");
    }
}

/// A result without a call is reported, and is no Outcome.
#[test]
fn a_result_of_nothing_is_named_and_left_out() {
    let set = Set::up();
    let mut one = run("a", 1);
    let stray = json!({"role": "tool", "tool_call_id": "z", "content": "paid"});
    one["messages"].as_array_mut().unwrap().push(stray);
    let ended = import(&set, &one.to_string(), &[]).expect_code(USAGE);
    assert!(
        ended.stderr.contains("messages[3] is left out"),
        "{ended:#?}"
    );
    let summary = object(&ended);
    assert_eq!(
        (
            &summary["runs"],
            &summary["outcomes"],
            &summary["stray_results"]
        ),
        (&1.into(), &1.into(), &1.into())
    );
}

/// Returns a run that calls these tools.
fn calling(tools: &[&str]) -> String {
    let mut messages = vec![json!({"role": "user", "content": "help"})];
    for (number, tool) in tools.iter().enumerate() {
        let id = format!("c{number}");
        messages.push(json!({"role": "assistant", "tool_calls": [call(&id, tool)]}));
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "ok"}));
    }
    json!({"run_id": "a", "messages": messages}).to_string()
}

/// Starts a server with access control and the ledger `payments`; returns files with the tokens of
/// a caller with all roles, and of one who may append.
fn guarded() -> (Set, [String; 2]) {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let all = [
        ("owner", "append,read,audit,authority,admin"),
        ("appender", "append"),
    ];
    let tokens = all.map(|(name, roles)| {
        let token = Token::create(&data, name, &["--ledger", "*", "--role", roles]);
        let path = dir.path().join(format!("{name}.token"));
        fs::write(&path, token.0).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let server = ServerCommand::new(&data)
        .arguments(["--set", "access.required=true"])
        .start();
    let deed = Deed::new(&server.url(), "payments");
    let create = ["ledger", "create", "payments", "--token-file", &*tokens[0]];
    deed.run(create).expect_code(OK);
    for (principal, _) in all {
        for producer in ["import:chat", "import:chat/unsigned"] {
            let bind = ["principal", "bind", "--principal", principal, "--producer"];
            let as_owner = [producer, "--token-file", &*tokens[0]];
            deed.run([&bind[..], &as_owner].concat()).expect_code(OK);
        }
    }
    (Set { server, deed, dir }, tokens)
}

fn no_equivocation(set: &Set, reader: &str) {
    let findings = set
        .deed
        .run(["findings", "--json", "--token-file", reader])
        .expect_code(OK);
    assert!(!findings.stdout.contains("equivocation"), "{findings:#?}");
}

/// Without signatures, recorded statements are answered as duplicates, a run that has grown with
/// the same tools goes on, and a changed one is refused by name.
#[test]
fn who_may_append_alone_imports_and_imports_again() {
    let (set, [reader, appender]) = guarded();
    let import = |text: &str| {
        let options = ["--unsigned", "--token-file", appender.as_str()];
        import(&set, text, &options)
    };
    let first = object(&import(&calling(&["look", "fix"])).expect_code(OK));
    assert_eq!(first["accepted"], 6, "{first}");
    let again = object(&import(&calling(&["look", "fix"])).expect_code(OK));
    assert_eq!(
        (&again["accepted"], &again["duplicates"]),
        (&0.into(), &6.into()),
        "{again}"
    );
    let grown = object(&import(&calling(&["look", "fix", "look"])).expect_code(OK));
    assert_eq!(
        (&grown["accepted"], &grown["duplicates"], &grown["rejected"]),
        (&2.into(), &6.into(), &0.into()),
        "{grown}"
    );
    let before = head(&set);
    let tools = ["look", "fix", "look", "tell"];
    for other in [
        calling(&tools),
        calling(&tools[..3]).replace("\"help\"", "\"harm\""),
    ] {
        let ended = import(&other).expect_code(UNAVAILABLE);
        assert!(ended.stderr.contains("line 1: run \"a\""), "{ended:#?}");
        assert!(ended.stderr.contains("the role read"), "{ended:#?}");
        let summary = object(&ended);
        assert_eq!(
            (&summary["accepted"], &summary["refused"]),
            (&0.into(), &1.into()),
            "{summary}"
        );
    }
    assert_eq!(head(&set), before);
    no_equivocation(&set, &reader);
}

/// With signatures, nothing is signed for a sequence that may be used, not even the same statement.
#[test]
fn who_may_append_alone_and_signs_says_nothing_twice() {
    let (set, [reader, appender]) = guarded();
    let import = |text: &str, token: &str| import(&set, text, &["--token-file", token]);
    // This import registers the key.
    import(&run("first", 1).to_string(), &reader).expect_code(OK);
    let ended = import(&calling(&["look", "fix"]), &appender).expect_code(OK);
    assert!(ended.stderr.contains("grants not signed"), "{ended:#?}");
    assert_eq!(object(&ended)["accepted"], 6, "{ended:#?}");
    let before = head(&set);
    for other in [
        calling(&["look", "fix"]),
        calling(&["look", "fix", "look"]),
        calling(&["look", "fix"]).replace("\"help\"", "\"harm\""),
    ] {
        let ended = import(&other, &appender).expect_code(USAGE);
        assert!(ended.stderr.contains("is recorded already"), "{ended:#?}");
        assert_eq!(object(&ended)["refused"], 1, "{ended:#?}");
    }
    assert_eq!(head(&set), before);
    // A caller who may read can continue the run.
    let grown = import(&calling(&["look", "fix", "look"]), &reader).expect_code(OK);
    assert_eq!(object(&grown)["accepted"], 2, "{grown:#?}");
    no_equivocation(&set, &reader);
}
