//! Output to closed pipes, to terminals and to files.

use std::{
    fs,
    io::Write as _,
    process::{Child, ChildStdin, Command, Stdio},
};

use deed_tests::{process::program, wait_for};
use serde_json::{Value, json};

use crate::{OK, Set, UNAVAILABLE, USAGE, expect_failure, intent, intents, lines, object};

impl Set {
    /// Starts the command with a pipe for stdin, and with a stdout whose reader is gone.
    fn start_unread(&self, arguments: &[&str]) -> (Child, ChildStdin) {
        let stderr = fs::File::create(self.deed.file("stderr")).unwrap();
        let mut child = Command::new(program("deed"))
            .args(arguments)
            .env("DEED_SERVER", self.server.url())
            .env("DEED_LEDGER", "payments")
            .env("DEED_STATE", self.deed.state())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }

    fn end_unread(&self, mut child: Child) -> (Option<i32>, String) {
        let status = wait_for("the end of deed", || child.try_wait().unwrap());
        let stderr = fs::read_to_string(self.deed.file("stderr")).unwrap();
        (status.code(), stderr)
    }
}

#[test]
fn receipts_that_nobody_reads_end_the_input() {
    let set = Set::up();
    let (child, mut stdin) = set.start_unread(&["append"]);
    stdin.write_all(intents(3).as_bytes()).unwrap();
    // stdin stays open: the command ends although no more input comes.
    let (code, stderr) = set.end_unread(child);
    assert_eq!(code, Some(UNAVAILABLE), "{stderr}");
    assert!(stderr.contains("stopped after line "), "{stderr}");
    drop(stdin);

    // A malformed line is reported first.
    let (child, mut stdin) = set.start_unread(&["append"]);
    stdin.write_all(b"no JSON\n").unwrap();
    let (code, stderr) = set.end_unread(child);
    assert_eq!(code, Some(USAGE), "{stderr}");
    assert!(stderr.contains("line 1: "), "{stderr}");

    // A command that only reads has not failed.
    let (child, _stdin) = set.start_unread(&["head"]);
    assert_eq!(set.end_unread(child).0, Some(OK));
}

fn transcript(run: &str, word: &str) -> Value {
    json!({"run_id": run, "messages": [{"role": "user", "content": word}]})
}

#[test]
fn an_import_that_nobody_reads_still_says_how_it_ended() {
    let set = Set::up();
    let file = set.deed.file("runs.jsonl");
    let path = file.to_str().unwrap();
    for (text, code) in [
        (transcript("a", "help").to_string(), OK),
        // The run has other contents under the same name.
        (
            transcript("a", "help")
                .to_string()
                .replace("help", "hinder"),
            USAGE,
        ),
        (transcript("b", "help").to_string() + "\n{", USAGE),
    ] {
        fs::write(&file, &text).unwrap();
        let (child, _stdin) = set.start_unread(&["import", "chat", path, "--risk-tier", "low"]);
        let (found, stderr) = set.end_unread(child);
        assert_eq!(found, Some(code), "{text}: {stderr}");
        if text.contains('\n') {
            assert!(stderr.contains("line 2: "), "{stderr}");
            assert_eq!(stderr.matches("line ").count(), 1, "{stderr}");
        }
    }
}

#[test]
fn receipts_replace_a_file_when_there_are_some() {
    let mut set = Set::up();
    let (file, receipts) = (set.deed.file("runs.jsonl"), set.deed.file("kept/receipts"));
    let directory = receipts.parent().unwrap().to_owned();
    fs::create_dir(&directory).unwrap();
    fs::write(&receipts, "old").unwrap();
    let import = |set: &Set, text: String| {
        fs::write(&file, text).unwrap();
        let [file, receipts] = [&file, &receipts].map(|path| path.to_str().unwrap());
        set.deed
            .run(["import", "chat", "--json", file, "--receipts", receipts])
    };
    let count = || {
        let text = fs::read_to_string(&receipts).unwrap();
        let parsed = text.lines().map(serde_json::from_str::<Value>);
        parsed.collect::<Result<Vec<_>, _>>().unwrap().len() as u64
    };
    // Nothing was recorded: the earlier file is still there.
    expect_failure(
        set.deed.run([
            "--ledger",
            "nobody",
            "import",
            "chat",
            file.to_str().unwrap(),
        ]),
        USAGE,
    );
    let ended = import(&set, "no transcript\n".to_owned()).expect_code(USAGE);
    assert!(ended.stderr.contains("line 1"), "{ended:#?}");
    assert_eq!(fs::read_to_string(&receipts).unwrap(), "old");

    // Some statements were recorded.
    let text = format!("{}\n{{\n", transcript("a", "help"));
    let summary = object(&import(&set, text).expect_code(USAGE));
    assert!(
        summary["accepted"].as_u64().is_some_and(|it| it > 0),
        "{summary}"
    );
    assert_eq!(summary["accepted"], count());

    let text = format!("{}\n{}\n", transcript("a", "help"), transcript("b", "help"));
    let summary = object(&import(&set, text).expect_code(OK));
    assert_eq!(summary["statements"], count());
    let before = fs::read(&receipts).unwrap();
    set.server.kill();
    let ended = import(&set, transcript("c", "help").to_string());
    expect_failure(ended, UNAVAILABLE);
    assert_eq!(fs::read(&receipts).unwrap(), before);
    assert_eq!(
        fs::read_dir(&directory).unwrap().count(),
        1,
        "nothing is left over"
    );
}

#[test]
fn nothing_that_was_recorded_controls_a_terminal() {
    let set = Set::up();
    let evil = "\u{1b}[2J\u{7f}\u{9b}31m\u{202e}txt\u{2066}\n\u{200f}";
    let mut statement = json!({"task_opened": {
        "objective_text": evil, "requested_by": "order-service", "risk_tier": "low"
    }});
    statement["producer"] = intent(0)["producer"].clone();
    let ended = set.deed.run_with(["append"], &format!("{statement}\n"));
    assert_eq!(lines(&ended.expect_code(OK)).len(), 1);
    let shown = set.deed.run(["entry", "1"]).expect_code(OK).stdout;
    let json = set.deed.run(["entry", "1", "--json"]).expect_code(OK);
    for text in [&shown, &json.stdout] {
        let is_evil =
            |c: char| c != '\n' && (c.is_control() || evil.contains(c)) && !c.is_ascii_graphic();
        assert!(!text.contains(is_evil), "{text:?}");
        assert!(text.contains("\\u202etxt"), "{text}");
    }
    let opened = &object(&json)["statement"]["task_opened"];
    assert_eq!(opened["objective_text"], evil, "it stays the same value");

    let ended = set.deed.run(["--server", "http://\u{202e}\u{9b}", "head"]);
    let words = expect_failure(ended, USAGE);
    assert!(!words.contains(['\u{202e}', '\u{9b}']), "{words:?}");
}
