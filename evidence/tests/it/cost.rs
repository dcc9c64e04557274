//! What one statement may cost.

use bytes::Bytes;
use deed_evidence::replay::Replay;
use deed_proto::v1::{OutcomeStatus, RiskTier, statement::Body};
use prost::Message;

use crate::{hostile::SCENES, ledger::*};

/// Units of work that a statement may take, about a microsecond each, besides one for each of its bytes.
const BASE: u64 = 50;

/// Bytes that a statement may have written, besides eight for each of its own: 16 full lists, or 64 changes.
const WRITTEN: u64 = 32 * 1024;

/// Whatever others have stored, the work for a statement is bounded by the bytes of that statement. Nothing
/// is at hand: everything that is looked at is loaded. What is written again is what has changed: neither
/// the acts beside the statement's own, nor what others saw or said of it.
#[test]
fn no_statement_takes_more_work_than_its_bytes() {
    let mut beyond = Vec::new();
    for (name, scene) in SCENES {
        let mut scene = scene();
        scene.ledger.book.forget();
        let before = scene.ledger.book.work();
        let placed = scene.say();
        let work = scene.ledger.book.work().since(&before);
        let bytes = placed.payload.len() as u64;
        println!("{name}: {bytes} bytes, {} units, {work:?}", work.units());
        if work.units() > BASE + bytes || work.encoded > WRITTEN + 8 * bytes {
            beyond.push(name);
        }
        let replay = Replay::over(scene.ledger.entries()).unwrap();
        assert_eq!(replay.kept().cells, scene.ledger.kept.cells, "{name}");
        assert_eq!(replay.kept().findings, scene.ledger.kept.findings, "{name}");
    }
    assert!(beyond.is_empty(), "{beyond:?}");
}

/// The memory that is held is counted in bytes, containers included, and given back.
#[test]
fn what_is_held_is_counted_in_bytes() {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    ledger.book.forget();
    assert_eq!(ledger.book.held(), 0);
    let cells = |ledger: &Ledger| -> usize {
        let cells = ledger.kept.cells.values().map(Bytes::len);
        let findings = ledger.kept.findings.values().map(Message::encoded_len);
        cells.chain(findings).sum()
    };
    let before = cells(&ledger);
    let long = |n: usize| effect(&format!("orders/{n}/{}", "a".repeat(750)), 1);
    for _ in 0..16 {
        let act = ledger.say(AGENT, Some(1), Body::Intent(intent("orders/7", 500, None)));
        let done = outcome(&act, OutcomeStatus::Succeeded, (0..64).map(long).collect());
        ledger.say(AGENT, Some(1), done);
        let seen = observation(Some(&act), (0..64).map(long).collect());
        ledger.say(DOWNSTREAM, Some(1), seen);
    }
    let held = ledger.book.held();
    let encoded = cells(&ledger) - before;
    // An estimate: not less than what is held, and not a multiple of it.
    assert!(held >= encoded, "{held} for {encoded}");
    assert!(held <= 16 * encoded, "{held} for {encoded}");
    ledger.book.forget();
    assert_eq!(ledger.book.held(), 0);
}
