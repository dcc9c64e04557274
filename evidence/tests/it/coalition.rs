//! Verdicts that no voice can steer which proves nothing: whatever a coalition of strangers adds to a
//! clean history, and whatever an accused agent says for itself.
//!
//! Both properties are over random histories, told to the ledger of [`crate::ledger`]:
//!
//! - **A coalition changes nothing.** A *clean history* ([`Clean`]) is told twice, once alone and once
//!   with statements of a coalition anywhere between its own ([`Added`]). The coalition has no standing
//!   in it ([`COALITION`]): nobody's signature, no relation to the act, or the agent's own controller.
//!   States, layers and the receipt must come out the same, but for layers that are claimed now where
//!   nothing was said before; and nothing serious is found about the clean statements.
//! - **An accused agent changes nothing.** An act is not cleared, and the bank sees its effect
//!   ([`Accused`]). The agent and everybody under its controller ([`ACCUSED`]) say anything, anywhere.
//!   In the end something serious is found about it.
//!
//! The words of a voice are an [`Utterance`]: a symbolic one, that is made into a statement about
//! what is there at that place in the history. Statements that the ledger refuses are left out.

mod accused;
mod telling;

use crate::ledger::*;
use accused::accused;
use deed_evidence::{
    TaskId,
    assess::{cells, layers},
    entry::Entry,
    replay::Replay,
    statement::{self, BodyKind},
};
use deed_proto::v1::{
    self, FindingKind, IntentState, KeyRole, LayerState, Layers, OutcomeState, OutcomeStatus,
    RiskTier, Severity, TaskState, Verdict, statement::Body,
};
use proptest::{prelude::*, sample::select};
/// The task of every history here.
const TASK: u8 = 1;
/// The clean act's name elsewhere.
const ORDER: (&str, &str) = ("order", "7");
/// The other system's credential that the clean grant stands for.
const TOKEN: (&str, &str) = ("jti", "8f14e45f");
/// Time between two statements of a history.
const STEP_S: i64 = 60;
// ---- Who has no standing ------------------------------------------------------------------------

/// An agent of somebody else's.
const STRANGER: Who = Who {
    seed: Some(60),
    role: KeyRole::Agent,
    producer: "spiffe://stranger.example/agent",
    controller: "https://stranger.example",
};
/// A platform that has not opened the task.
const RIVAL: Who = Who {
    seed: Some(61),
    role: KeyRole::Platform,
    producer: "https://rival.example/platform",
    controller: "https://rival.example",
};
/// A system to which none of the effects belongs.
const SHOP: Who = Who {
    seed: Some(62),
    role: KeyRole::DownstreamSystem,
    producer: "https://shop.example/orders",
    controller: "https://shop.example",
};
/// A system under the agent's controller.
const OWN_BANK: Who = Who {
    seed: Some(63),
    role: KeyRole::DownstreamSystem,
    producer: "https://example.org/own-bank",
    controller: AGENT.controller,
};
/// A policy engine under the agent's controller.
const OWN_ENGINE: Who = Who {
    seed: Some(64),
    role: KeyRole::PolicyEngine,
    producer: "https://example.org/own-engine",
    controller: AGENT.controller,
};
/// Another agent under the agent's controller.
const OWN_HELPER: Who = Who {
    seed: Some(65),
    role: KeyRole::Agent,
    producer: "spiffe://example.org/agent/three",
    controller: AGENT.controller,
};
/// Those of the two lists below that are not in [`CAST`].
const OTHERS: [Who; 6] = [STRANGER, RIVAL, SHOP, OWN_BANK, OWN_ENGINE, OWN_HELPER];
/// Nobody of these can prove anything about the clean act.
const COALITION: [Who; 10] = [
    ANYBODY, STRANGER, HELPER, IMPORTER, RIVAL, SHOP, OWN_BANK, OWN_ENGINE, OWN_HELPER, COLLEAGUE,
];
/// The agent, and everybody under its controller.
const ACCUSED: [Who; 5] = [AGENT, COLLEAGUE, OWN_BANK, OWN_ENGINE, OWN_HELPER];
// ---- What anybody may say -----------------------------------------------------------------------

/// Something to be said about whatever is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Utterance {
    /// Opens the task.
    Opens(RiskTier),
    /// Closes it.
    Closes,
    /// Grants something, perhaps for the outside token.
    Grants { token: bool },
    /// Accepts the newest grant.
    Accepts,
    /// Revokes it.
    Revokes,
    /// Intends something, perhaps under the grant and the order's number.
    Intends {
        grant: bool,
        order: bool,
        effects: Effects,
        deadline: bool,
    },
    /// Reports what came of the newest Intent, or of the first.
    Reports {
        of: Which,
        status: OutcomeStatus,
        effects: Effects,
    },
    /// Decides.
    Decides { of: Which, verdict: Verdict },
    /// Approves or refuses.
    Approves { of: Which, verdict: Verdict },
    /// Has seen something.
    Sees { of: Named, effects: Effects },
    /// Promises to go on.
    Promises,
}
/// One of the task's Intents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    Newest,
}
/// The reference by which an Observation names its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// By the Intent.
    Intent(Which),
    /// By the task alone.
    Task,
    /// By task and order number.
    Order,
    /// By the outside token.
    Token,
}
/// Effects that were done or seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effects {
    None,
    /// 500 EUR on order 7.
    Same,
    Twice,
    /// A million of them.
    More,
    /// Taken back again.
    Undone,
    /// As much of something else.
    OtherCurrency,
    /// However much.
    NoAmount,
    OtherResource,
    OtherKind,
}
impl Effects {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Same,
        Self::Twice,
        Self::More,
        Self::Undone,
        Self::OtherCurrency,
        Self::NoAmount,
        Self::OtherResource,
        Self::OtherKind,
    ];

    fn list(self) -> Vec<v1::Effect> {
        let same = effect("orders/7", 500);
        match self {
            Self::None => Vec::new(),
            Self::Same => vec![same],
            Self::Twice => vec![same.clone(), same],
            Self::More => vec![effect("orders/7", 100_000_000)],
            Self::Undone => vec![same, effect("orders/7", -500)],
            Self::OtherCurrency => vec![v1::Effect {
                amount: Some(v1::Amount {
                    minor_units: 500,
                    currency: "BTC".into(),
                }),
                ..same
            }],
            Self::NoAmount => vec![v1::Effect {
                amount: None,
                ..same
            }],
            Self::OtherResource => vec![effect("orders/8", 500)],
            Self::OtherKind => vec![v1::Effect {
                kind: "gift.sent".into(),
                ..same
            }],
        }
    }

    /// Resource and amount that an Intent of it asks for.
    fn intent(self) -> (&'static str, i64) {
        match self {
            Self::More => ("orders/7", 100_000_000),
            Self::OtherResource => ("orders/8", 500),
            _ => ("orders/7", 500),
        }
    }
}
fn effects() -> impl Strategy<Value = Effects> {
    select(&Effects::ALL[..])
}
fn which() -> impl Strategy<Value = Which> {
    select(&[Which::First, Which::Newest][..])
}
fn verdict() -> impl Strategy<Value = Verdict> {
    select(&[Verdict::Allow, Verdict::Deny][..])
}
fn status() -> impl Strategy<Value = OutcomeStatus> {
    select(
        &[
            OutcomeStatus::Succeeded,
            OutcomeStatus::Failed,
            OutcomeStatus::Reverted,
            OutcomeStatus::NotDone,
        ][..],
    )
}
fn named() -> impl Strategy<Value = Named> {
    prop_oneof![
        3 => which().prop_map(Named::Intent),
        1 => Just(Named::Task),
        2 => Just(Named::Order),
        1 => Just(Named::Token),
    ]
}
fn utterance() -> impl Strategy<Value = Utterance> {
    let tier = select(&[RiskTier::Low, RiskTier::Payment, RiskTier::Deletion][..]);
    let report = (which(), status(), effects());
    let intends = (any::<bool>(), any::<bool>(), effects(), any::<bool>());
    prop_oneof![
        1 => tier.prop_map(Utterance::Opens),
        1 => Just(Utterance::Closes),
        1 => any::<bool>().prop_map(|token| Utterance::Grants { token }),
        1 => Just(Utterance::Accepts),
        1 => Just(Utterance::Revokes),
        2 => intends.prop_map(|(grant, order, effects, deadline)| Utterance::Intends {
            grant,
            order,
            effects,
            deadline,
        }),
        4 => report.prop_map(|(of, status, effects)| Utterance::Reports { of, status, effects }),
        2 => (which(), verdict()).prop_map(|(of, verdict)| Utterance::Decides { of, verdict }),
        2 => (which(), verdict()).prop_map(|(of, verdict)| Utterance::Approves { of, verdict }),
        4 => (named(), effects()).prop_map(|(of, effects)| Utterance::Sees { of, effects }),
        1 => Just(Utterance::Promises),
    ]
}
// ---- Telling a history --------------------------------------------------------------------------

/// A ledger to which a history is told.
struct Telling {
    ledger: Ledger,
    /// The newest grant of the clean history.
    grant: Option<Place>,
    /// Intents that are spoken about, in order.
    intents: Vec<Place>,
}
// ---- A coalition --------------------------------------------------------------------------------

/// A history in which nothing is wrong.
#[derive(Debug, Clone, Copy)]
struct Clean {
    /// True if the shipped policies are in force.
    policy: bool,
    tier: RiskTier,
    acts: usize,
    closes: bool,
}
/// Something that a coalition says before the clean history's statement of that number.
type Added = (usize, Who, Utterance);
/// The verdicts over the clean history.
#[derive(Debug, Clone, PartialEq)]
struct Verdicts {
    /// As the Intents' receipts say, and in the end.
    states: Vec<[Option<IntentState>; 2]>,
    outcomes: Vec<Option<OutcomeState>>,
    layers: Vec<Layers>,
    task: TaskState,
    tier: RiskTier,
    opened: LayerState,
    /// True if it was closed by its own platform's word.
    closed_there: bool,
    receipts: usize,
}
/// Statements of a clean history at most.
const STEPS_MAX: usize = 2 + 2 * 5 + 1;
impl Clean {
    /// Tells it, with what is added. The verdicts, and what is found about its own statements.
    fn told(self, added: &[Added]) -> (Verdicts, Vec<v1::Finding>, Telling) {
        let mut telling = Telling::new(self.policy);
        let mut places = Vec::new();
        let (mut number, mut clean) = (0, Vec::new());
        let between = |telling: &mut Telling, number: &mut usize| {
            for (_, who, said) in added.iter().filter(|(at, ..)| *at == *number) {
                telling.utter(*who, *said);
            }
            *number += 1;
            telling.step();
        };
        let asked = self.policy && self.tier == RiskTier::Payment;
        between(&mut telling, &mut number);
        places.push(telling.says(PLATFORM, task_opened(self.tier, 0)));
        between(&mut telling, &mut number);
        places.push(telling.grants());
        for _ in 0..self.acts {
            between(&mut telling, &mut number);
            let intent = telling.intends();
            places.push(intent.clone());
            if asked {
                between(&mut telling, &mut number);
                places.push(telling.says(ENGINE, decision(&intent, Verdict::Allow)));
                between(&mut telling, &mut number);
                let said = approval(&intent, Verdict::Allow, telling.ledger.now());
                places.push(telling.says(APPROVER, said));
            }
            between(&mut telling, &mut number);
            let done = outcome(&intent, OutcomeStatus::Succeeded, Effects::Same.list());
            places.push(telling.says(AGENT, done));
            between(&mut telling, &mut number);
            let seen = observation(Some(&intent), Effects::Same.list());
            places.push(telling.says(DOWNSTREAM, seen));
            clean.push(intent);
        }
        let mut closed = None;
        if self.closes {
            between(&mut telling, &mut number);
            closed = Some(telling.says(PLATFORM, task_closed()));
            places.extend(closed.clone());
        }
        // And whatever is said when all is over.
        for (_, who, said) in added.iter().filter(|(at, ..)| *at >= number) {
            telling.utter(*who, *said);
        }
        telling.step();
        telling.ledger.tick();
        let (ledger, task) = (&telling.ledger, telling.ledger.task(TASK));
        let acts: Vec<_> = clean.iter().map(|intent| ledger.act(intent.leaf)).collect();
        let verdicts = Verdicts {
            states: clean
                .iter()
                .zip(&acts)
                .map(|(intent, act)| [intent.state(), Some(layers::standing(act, Some(&task)))])
                .collect(),
            outcomes: acts
                .iter()
                .map(|act| act.outcome.as_ref().map(cells::Outcome::state))
                .collect(),
            layers: acts
                .iter()
                .map(|act| layers::of(act, &ledger.trust))
                .collect(),
            task: task.state(),
            tier: task.tier(),
            opened: task.opened(),
            closed_there: task.closed_leaf == closed.map(|closed| closed.leaf),
            receipts: telling.receipts(),
        };
        let leaves: Vec<_> = places.iter().map(|place| place.leaf).collect();
        let about = |found: &&v1::Finding| {
            found.severity() == Severity::Serious && leaves.contains(&found.about_leaf)
        };
        let found = ledger.findings().filter(about).cloned().collect();
        (verdicts, found, telling)
    }
}
/// A layer may be claimed now of which nothing was said before; nothing else.
fn unchanged(alone: &Verdicts, together: &Verdicts) -> Result<(), TestCaseError> {
    let all = |of: &Layers| {
        [
            of.identity(),
            of.authority(),
            of.intent(),
            of.approval(),
            of.result(),
            of.corroboration(),
        ]
    };
    prop_assert_eq!(alone.layers.len(), together.layers.len());
    for (alone, together) in alone.layers.iter().zip(&together.layers) {
        for (before, after) in all(alone).into_iter().zip(all(together)) {
            let silent = matches!(before, LayerState::Missing | LayerState::NotAsked);
            let noted = silent && after == LayerState::Claimed;
            prop_assert!(before == after || noted, "{alone:?} became {together:?}");
        }
    }
    let same_layers = Verdicts {
        layers: alone.layers.clone(),
        ..together.clone()
    };
    prop_assert_eq!(alone, &same_layers);
    Ok(())
}
fn clean() -> impl Strategy<Value = Clean> {
    let tier = select(&[RiskTier::Payment, RiskTier::Low][..]);
    let drawn = (any::<bool>(), tier, 1..=2_usize, any::<bool>());
    drawn.prop_map(|(policy, tier, acts, closes)| Clean {
        policy,
        tier,
        acts,
        closes,
    })
}
fn coalition(max: usize) -> impl Strategy<Value = Vec<Added>> {
    let one = (0..=STEPS_MAX, select(&COALITION[..]), utterance());
    proptest::collection::vec(one, 1..max)
}
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        // A failure is mended, and gets a test by name.
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::with_cases(cases)
    }
}
proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn a_coalition_without_standing_changes_no_verdict(
        clean in clean(),
        added in coalition(12),
    ) {
        let (alone, nothing, _) = clean.told(&[]);
        prop_assert_eq!(nothing, vec![]);
        let (together, found, telling) = clean.told(&added);
        unchanged(&alone, &together)?;
        prop_assert_eq!(found, vec![]);
        replays(&telling);
    }

    /// The same voice again and again: lists that are full, and slots that are taken.
    #[test]
    fn one_loud_voice_changes_no_verdict(
        clean in clean(),
        at in 0..=STEPS_MAX,
        who in select(&COALITION[..]),
        said in utterance(),
    ) {
        let (alone, ..) = clean.told(&[]);
        let (together, found, _) = clean.told(&vec![(at, who, said); 80]);
        unchanged(&alone, &together)?;
        prop_assert_eq!(found, vec![]);
    }
}
fn replays(telling: &Telling) {
    let replay = Replay::over(telling.ledger.entries()).unwrap();
    assert_eq!(replay.kept().cells, telling.ledger.kept.cells);
    assert_eq!(replay.kept().findings, telling.ledger.kept.findings);
}
// ---- An accused agent ---------------------------------------------------------------------------

/// An act that is not cleared, and that the bank sees.
#[derive(Debug, Clone)]
struct Accused {
    /// True if the agent announces it at all, as it would be told.
    announced: bool,
    /// The verdicts of the engine and the approver on it: never that both allow it.
    decided: Option<Verdict>,
    approved: Option<Verdict>,
    /// True if another one like it was cleared, done and seen before.
    another: bool,
    /// The effects that the bank sees, and the reference by which it names the act.
    seen: Effects,
    named: Named,
    /// True if the bank sees it before the agent has said all that it will; otherwise it sees it
    /// behind that.
    early: bool,
    closes: bool,
    /// Utterances of the accused, each before the step of that number.
    said: Vec<Added>,
}
/// Steps of such a history.
const ACCUSED_STEPS: usize = 7;
/// Findings about money that moves without a clearance.
const SERIOUS: [FindingKind; 4] = [
    FindingKind::OutcomeWithoutClearance,
    FindingKind::OutcomeWithoutIntent,
    FindingKind::HiddenSideEffect,
    FindingKind::EffectMismatch,
];
proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn an_act_that_was_not_cleared_and_was_seen_is_found(accused in accused()) {
        let (telling, seen) = accused.told();
        let task = telling.task();
        // Whatever else the accused is found to have said does not count.
        let of_what_was_seen = |found: &v1::Finding| {
            let act = telling.ledger.kept.act(found.about_leaf);
            let act = act.filter(|act| act.observations.iter().any(|one| one.leaf == seen));
            found.leaf_index == seen || found.contradicts_leaf == Some(seen) || act.is_some()
        };
        let serious = |found: &&v1::Finding| {
            found.task == task.as_bytes()[..]
                && found.severity() == Severity::Serious
                && SERIOUS.contains(&found.kind())
                && of_what_was_seen(found)
        };
        let found = telling.ledger.findings().filter(serious).count();
        prop_assert!(found > 0, "{:#?}", telling.ledger.findings().collect::<Vec<_>>());
        replays(&telling);
    }
}
