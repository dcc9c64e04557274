//! The dearest judgement that a set of policies can call for.

use std::collections::BTreeSet;

use deed_proto::v1::RiskTier;

use super::{
    PolicyError,
    cost::{ASK_UNITS, ASKS_MAX, JUDGEMENT_UNITS_MAX, Lengths},
    evaluate,
    evidence::FIXED,
    program::{Program, Rule},
    shortened,
};

/// The tiers that a request can have.
const TIERS: [RiskTier; 6] = [
    RiskTier::Unspecified,
    RiskTier::Low,
    RiskTier::Payment,
    RiskTier::CustomerCommunication,
    RiskTier::Deployment,
    RiskTier::Deletion,
];

/// The greatest cost of judging an Intent that expects effects on its own resource alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyCost {
    /// Units, of [`JUDGEMENT_UNITS_MAX`].
    pub units: u64,
    /// Evaluations with other evidence, of [`ASKS_MAX`].
    pub asks: u64,
}

/// Units of a policy's links: before the first that reads evidence, before the first that reads
/// evidence that can still come, and from there on.
#[derive(Clone, Copy, Default)]
struct Share {
    fixed: u64,
    steady: u64,
    open: u64,
}

/// Refuses sets whose judgement costs too much.
pub(super) fn check(program: &Program) -> Result<PolicyCost, PolicyError> {
    let asks = program.asks.most();
    if asks > ASKS_MAX {
        let max = ASKS_MAX;
        return Err(PolicyError::Asks { found: asks, max });
    }
    let shares: Vec<_> = program.rules.iter().map(Share::of).collect();
    // Every policy may have to be looked at; beyond what reads no evidence, those for one tier and
    // one action at most.
    let all_fixed = shares.iter().map(|share| share.fixed).sum::<u64>();
    let mut dearest = (0, Vec::new());
    for (tier, action) in kinds(&program.rules) {
        let is_for = |rule: &Rule| {
            rule.tier().is_none_or(|of| Some(of) == tier)
                && rule.action().is_none_or(|of| Some(of) == action)
        };
        let positions = 0..program.rules.len();
        let applicable: Vec<_> = positions.filter(|at| is_for(&program.rules[*at])).collect();
        let sum = |of: fn(&Share) -> u64| applicable.iter().map(|at| of(&shares[*at])).sum();
        let together = Share {
            fixed: all_fixed,
            steady: sum(|share| share.steady),
            open: sum(|share| share.open),
        };
        let units = together.judgement(program, asks);
        if units > dearest.0 {
            dearest = (units, applicable);
        }
    }
    let (units, applicable) = dearest;
    if units <= JUDGEMENT_UNITS_MAX {
        return Ok(PolicyCost { units, asks });
    }
    let own = |at: usize| {
        let alone = shares[at].judgement(program, asks);
        alone - Share::default().judgement(program, asks)
    };
    // Those that do not apply have their fixed links looked at all the same.
    let share = |at: usize| match applicable.contains(&at) {
        true => own(at),
        false => shares[at].fixed,
    };
    let most = (0..shares.len()).max_by_key(|at| share(*at)).unwrap_or(0);
    let links = program.rules[most].links.iter();
    let link = links.max_by_key(|link| link.cost.of(Lengths::LONGEST));
    Err(PolicyError::Cost {
        units,
        max: JUDGEMENT_UNITS_MAX,
        policy: program.rules[most].name.clone(),
        of_policy: share(most),
        most: link.map_or_else(String::new, |link| shortened(&link.expr.to_string())),
        of_most: link.map_or(0, |link| link.cost.of(Lengths::LONGEST)),
    })
}

/// Pairs of a tier and an action that policies tell apart; `None` is any other.
fn kinds(rules: &[Rule]) -> Vec<(Option<&str>, Option<&str>)> {
    let tiers: BTreeSet<_> = rules.iter().filter_map(Rule::tier).collect();
    let of_requests = TIERS.map(evaluate::tier).into_iter();
    let told_apart = of_requests.filter(|tier| tiers.contains(tier));
    let tiers: Vec<_> = told_apart.map(Some).chain([None]).collect();
    let actions: BTreeSet<_> = rules.iter().filter_map(Rule::action).collect();
    let actions = actions.into_iter().map(Some).chain([None]);
    let pairs = actions.flat_map(|action| tiers.iter().map(move |tier| (*tier, action)));
    pairs.collect()
}

impl Share {
    fn of(rule: &Rule) -> Self {
        let sum = |links: std::ops::Range<usize>| {
            let costs = rule.links[links].iter();
            costs.map(|link| link.cost.of(Lengths::LONGEST)).sum()
        };
        Self {
            fixed: sum(0..rule.fixed),
            steady: sum(rule.fixed..rule.steady),
            open: sum(rule.steady..rule.links.len()),
        }
    }

    /// The dearest of what `judge` does: look for the least that is missing, or find out what the
    /// Intent itself lacks. (To clear it takes two evaluations at most.)
    fn judgement(&self, program: &Program, asks: u64) -> u64 {
        let request = program.request_units();
        let stage = ASK_UNITS + self.fixed + self.steady;
        let begun = request + stage;
        let asked = ASK_UNITS + self.open;
        let waits = begun + asks * asked;
        let parts = 1 + FIXED.len() as u64;
        let lacks = begun + 2 * asked + parts * (asked + self.steady);
        waits.max(lacks)
    }
}
