//! Heads, entries and consistency, once or as they come.

use deed_tests::{
    oracle::Log,
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
    wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{OK, Set, TASK, UNAVAILABLE, USAGE, expect_failure, lines, object};

#[test]
fn heads_entries_and_consistency_are_shown() {
    run(async {
        let set = Set::up();
        let receipts = set.fill(20);
        let clients = Clients::connect(&set.server).await;
        let ledger = TestLedger::find(&clients, "payments").await;
        let log = Log::read(&clients, &ledger).await;
        let json = |arguments: &[&str]| {
            object(
                &set.deed
                    .run(["--json"].iter().chain(arguments))
                    .expect_code(OK),
            )
        };

        let head = json(&["head"]);
        assert_eq!(head["root"], log.head.root.to_string());
        assert_eq!(head["size"], 21);
        assert_eq!(
            ledger.open(head["checkpoint"].as_str().unwrap().as_bytes()),
            log.head
        );

        let entry = json(&["entry", "7"]);
        assert_eq!(entry["leaf_hash"], receipts[6]["leaf_hash"]);
        assert_eq!(entry["leaf_index"], 7);
        assert_eq!(entry["statement"]["sequence"], 6);
        assert_eq!(entry["statement"]["intent"]["resource"], "orders/6");
        assert_eq!(entry["statement"]["task"], TASK);
        let genesis = json(&["entry", "0"]);
        assert_eq!(genesis["leaf_hash"], ledger.id.to_string());
        assert_eq!(genesis["body"], "genesis");

        for (old, new) in [(1, 21), (5, 12), (21, 21), (0, 9), (3, 0)] {
            let consistent = json(&["consistency", &old.to_string(), &new.to_string()]);
            let new = if new == 0 { 21 } else { new };
            assert_eq!(
                (&consistent["old_size"], &consistent["new_size"]),
                (&old.into(), &new.into())
            );
            let root = deed_tests::oracle::root(&log.leaf_hashes[..new]);
            assert_eq!(consistent["new_root"], root.to_string());
        }

        // A size beyond the tree is refused; sizes in the wrong order are wrong usage.
        for beyond in [
            &["entry", "21"][..],
            &["consistency", "5", "22"],
            &["consistency", "30", "0"],
        ] {
            expect_failure(set.deed.run(beyond), UNAVAILABLE);
        }
        let out = set.deed.file("out");
        let prove = |index, size| {
            set.deed.run([
                "prove",
                "--index",
                index,
                "--size",
                size,
                "--out",
                out.to_str().unwrap(),
            ])
        };
        expect_failure(prove("21", "22"), UNAVAILABLE);
        expect_failure(prove("7", "7"), USAGE);
        expect_failure(set.deed.run(["consistency", "12", "5"]), USAGE);
        assert!(!out.exists(), "nothing is written that does not hold");
    });
}

#[test]
fn following_prints_heads_until_it_is_interrupted() {
    run(async {
        let set = Set::up();
        let clients = Clients::connect(&set.server).await;
        let ledger = TestLedger::find(&clients, "payments").await;
        let mut producer = Producer::new(ledger.id, 1);
        let following = set.deed.spawn(["--json", "follow"]);
        let sizes = || {
            let text = following.stdout();
            let whole = text.lines().filter(|_| text.ends_with('\n'));
            let parse = |line| serde_json::from_str::<Value>(line).expect("a JSON line");
            whole
                .map(|line| parse(line)["size"].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        wait_for("the first head", || (sizes() == [1]).then_some(()));
        for more in 1..=3 {
            ledger.append(&clients, &producer.intents(2)).await;
            wait_for("a newer head", || {
                (sizes().last() == Some(&(1 + 2 * more))).then_some(())
            });
        }
        following.signal(Signal::INT);
        following.wait().expect_code(OK);
        let ended = set
            .deed
            .run(["follow", "--heads", "1", "--json"])
            .expect_code(OK);
        assert_eq!(lines(&ended).len(), 1);
    });
}
