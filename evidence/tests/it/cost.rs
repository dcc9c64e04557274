//! What one statement may cost.

use bytes::Bytes;
use deed_evidence::{assess::Work, policy::JUDGEMENT_UNITS_MAX, replay::Replay};
use deed_proto::v1::{self, OutcomeStatus, RiskTier, statement::Body};
use prost::Message;

use crate::{
    hostile::{SCENES, bound},
    ledger::*,
};

/// Bytes that a statement may have written, besides eight for each of its own: 16 full lists, or 64 changes.
const WRITTEN: u64 = 32 * 1024;

/// Whatever others have stored, the work for a statement is bounded by the bytes of that statement, what
/// policies take included; a Decision and an Approval judge their Intent again, and have its bound besides.
/// Nothing is at hand: everything that is looked at is loaded. What is written again is what has changed:
/// neither the acts beside the statement's own, nor what others saw or said of it.
#[test]
fn no_statement_takes_more_work_than_its_bytes() {
    let mut beyond = Vec::new();
    for (name, scene) in SCENES {
        let mut scene = scene();
        scene.ledger.assessor.forget();
        let before = scene.ledger.assessor.work();
        let placed = scene.say();
        let work = scene.ledger.assessor.work().since(&before);
        let bytes = placed.payload.len() as u64;
        let allowed = scene.allowed(bytes);
        println!(
            "{name}: {bytes} bytes, {} of {allowed}, {work:?}",
            work.units()
        );
        if work.units() > allowed || work.encoded > WRITTEN + 8 * bytes {
            beyond.push(name);
        }
        // Else it would not be as dear as it says.
        if name.contains("dearest") && work.judged < JUDGEMENT_UNITS_MAX / 5 * 4 {
            beyond.push(name);
        }
        assert_eq!(work.fired, 0, "{name}");
        let replay = Replay::over(scene.ledger.entries()).unwrap();
        assert_eq!(replay.kept().cells, scene.ledger.kept.cells, "{name}");
        assert_eq!(replay.kept().findings, scene.ledger.kept.findings, "{name}");
    }
    assert!(beyond.is_empty(), "{beyond:?}");
}

/// What statements took together, with what fired because of them, and what they may take.
#[derive(Default)]
struct Account {
    taken: u64,
    allowed: u64,
    fired: u64,
}

impl Account {
    /// Somebody says something of whose past nothing is at hand.
    fn say(&mut self, ledger: &mut Ledger, who: Who, task: Option<u8>, body: Body) -> Place {
        ledger.assessor.forget();
        let before = ledger.assessor.work();
        let placed = ledger.say(who, task, body);
        self.add(ledger, &before);
        self.allowed += bound(placed.payload.len() as u64);
        placed
    }

    /// Everything that is due fires.
    fn fire(&mut self, ledger: &mut Ledger) {
        for second in 1_000.. {
            ledger.at(second);
            ledger.assessor.forget();
            let before = ledger.assessor.work();
            if !ledger.tick() {
                break;
            }
            self.add(ledger, &before);
        }
    }

    fn add(&mut self, ledger: &Ledger, before: &Work) {
        let work = ledger.assessor.work().since(before);
        self.taken += work.units();
        self.fired += work.fired;
    }
}

/// What a timer does when it fires was paid by what has set it: statements and their timers take together
/// no more than the statements may.
#[test]
fn timers_take_what_their_statements_have_left_over() {
    type Story = fn(&mut Account, &mut Ledger);
    let stories: [(&str, u64, Story); 5] = [
        ("deadlines of Intents", 200, |account, ledger| {
            for n in 0..200 {
                let task = Some(2 + n);
                account.say(ledger, PLATFORM, task, task_opened(RiskTier::Low, 0));
                let said = v1::Intent {
                    deadline_us: seconds(500),
                    ..intent("orders/7", 500, None)
                };
                account.say(ledger, AGENT, task, Body::Intent(said));
            }
        }),
        ("Outcomes that nobody saw", 200, |account, ledger| {
            ledger.set_policy("@corroborate(\"60\") permit (principal, action, resource);");
            for n in 0..200 {
                let task = Some(2 + n);
                account.say(ledger, PLATFORM, task, task_opened(RiskTier::Low, 0));
                let act = intent("orders/7", 500, None);
                let act = account.say(ledger, AGENT, task, Body::Intent(act));
                let effects = vec![effect("orders/7", 500)];
                let done = outcome(&act, OutcomeStatus::Succeeded, effects);
                account.say(ledger, AGENT, task, done);
            }
        }),
        ("promises of sessions", 1, |account, ledger| {
            account.say(ledger, PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
            let act = intent("orders/7", 500, None);
            account.say(ledger, AGENT, Some(1), Body::Intent(act));
            account.say(ledger, AGENT, None, heartbeat(1, 60));
        }),
        ("tasks with acts that were seen", 8, |account, ledger| {
            account.say(ledger, PLATFORM, Some(1), task_opened(RiskTier::Low, 500));
            for _ in 0..64 {
                let said = v1::Intent {
                    amount: None,
                    ..intent("orders/7", 0, None)
                };
                let act = account.say(ledger, AGENT, Some(1), Body::Intent(said));
                let effects = vec![v1::Effect {
                    amount: None,
                    ..effect("orders/7", 0)
                }];
                let seen = observation(Some(&act), effects);
                account.say(ledger, DOWNSTREAM, Some(1), seen);
            }
        }),
        ("a key that was stolen", 39, |account, ledger| {
            for n in 0..200 {
                let task = Some(2 + n);
                account.say(ledger, PLATFORM, task, task_opened(RiskTier::Low, 0));
                let act = intent("orders/7", 500, None);
                account.say(ledger, AGENT, task, Body::Intent(act));
            }
            account.say(ledger, AUTHORITY, None, key_revoked(AGENT, Some(1)));
        }),
    ];
    for (name, timers, story) in stories {
        let mut ledger = Ledger::new();
        ledger.at(100);
        let mut account = Account::default();
        story(&mut account, &mut ledger);
        assert_eq!(account.fired, 0, "{name}");
        let before = account.taken;
        account.fire(&mut ledger);
        let Account {
            taken,
            allowed,
            fired,
        } = account;
        println!(
            "{name}: {before} and {} for {fired}, of {allowed}",
            taken - before
        );
        assert_eq!(fired, timers, "{name}");
        assert!(taken <= allowed, "{name}: {taken} of {allowed}");
    }
}

/// The memory that is held is counted in bytes, containers included, and given back.
#[test]
fn what_is_held_is_counted_in_bytes() {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    ledger.assessor.forget();
    assert_eq!(ledger.assessor.held(), 0);
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
    let held = ledger.assessor.held();
    let encoded = cells(&ledger) - before;
    // An estimate: not less than what is held, and not a multiple of it.
    assert!(held >= encoded, "{held} for {encoded}");
    assert!(held <= 16 * encoded, "{held} for {encoded}");
    ledger.assessor.forget();
    assert_eq!(ledger.assessor.held(), 0);
}
