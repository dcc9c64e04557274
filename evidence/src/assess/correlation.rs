//! Names that other systems have for the same thing: acts are found by an order number, tasks by a
//! credential.

use std::collections::{BTreeMap, HashMap};

use deed_proto::v1::{EvidencePart, FindingKind, IntentState, KeyRole, LayerState, TaskState};

use super::{
    SHARED_MAX,
    apply::{Apply, ObservedEffects},
    body::ParsedBody,
    cells::{Act, CellKey, Correlated, CorrelatedAct, GrantList, System, name_of, short, short_of},
    effects::{self, Fit},
    keys::{self, is_claim},
    view::View,
    work::{Budget, LOOK},
};
use crate::{
    KeyId, TaskId,
    trust::{KeyRecord, TrustState},
};

/// The act that a search came to.
pub(super) struct Found {
    pub(super) act: Option<Act>,
    /// Number of acts, or lists of them, that there was no room to look at, if one of them could fit better.
    pub(super) missed: usize,
}

/// An act that shares a correlation key with what was seen.
struct Candidate {
    leaf: u64,
    /// True if nobody proves who acts.
    claim: bool,
    /// True if it acts on a resource that was not seen to change.
    elsewhere: bool,
    /// Its place among those of its controller, whose producers take turns.
    turn: usize,
}

impl<V: View> Apply<'_, V> {
    /// Notes that a correlation key names an act. There is room for 24; beyond that nobody can push out
    /// what is somebody else's, and what does not fit is found.
    pub(super) fn correlate(&mut self, kind: &str, value: &str, act: &Act) -> Result<(), V::Error> {
        let key = CellKey::Correlation(name_of(kind, value));
        let known = self.cells.look::<Correlated>(key)?;
        let known = known.map(|acts| acts.acts.binary_search_by_key(&act.leaf, |one| one.leaf));
        if let Some(Ok(_)) = known {
            return Ok(());
        }
        let acts: &mut Correlated = self.cells.change_or_default(key)?;
        let place = acts.acts.partition_point(|one| one.leaf < act.leaf);
        let one = CorrelatedAct {
            leaf: act.leaf,
            key: act.key.clone(),
            denied: act.state() == IntentState::Denied,
            task: act.task.clone(),
            resource: short_of(&act.resource),
        };
        acts.acts.insert(place, one);
        let Some(left_out) = acts.make_room(self.trust) else {
            return Ok(());
        };
        let key = KeyId::from_slice(&left_out.key);
        // What nobody proves makes room without a word.
        if key.is_none_or(|key| proven_speaker(self.trust, key).is_none()) {
            return Ok(());
        }
        // The finding is of the act that is not compared, not of the one that came last.
        let task = TaskId::from_slice(&left_out.task);
        let detail = format!(
            "more than {SHARED_MAX} acts share a correlation key: what is seen by that key alone is not \
             found to be of this act"
        );
        self.find(FindingKind::NotCompared)
            .in_task(task)
            .about(left_out.leaf)
            .says(detail)
    }

    /// The act that shares a correlation key and fits best; one that somebody signed comes before one
    /// that nobody did, and of equals one whose authority is proven, then the first. An act that has
    /// nothing in common with what was seen is not blamed for it.
    ///
    /// As many acts are compared as the budget has room for. Controllers take turns, and so do the
    /// producers of each, those first that act on what was seen: whoever has very many acts has them
    /// compared last.
    pub(super) fn act_correlated(
        &mut self,
        observed: &ObservedEffects<'_>,
        budget: &mut Budget,
    ) -> Result<Found, V::Error> {
        let (candidates, mut missed) = self.candidates(observed, budget)?;
        let (seen, system) = if observed.own.is_empty() {
            (&observed.claimed, None)
        } else {
            (&observed.own, Some(effects::system(self.author.producer)))
        };
        let memory: &[u8] = system.as_ref().map_or(&[], |system| &system[..]);
        let mut best: Option<((bool, Fit, bool), Act)> = None;
        let mut compared = 0;
        for (at, candidate) in candidates.iter().enumerate() {
            if !budget.take(LOOK) && compared > 0 {
                missed += candidates.len() - at;
                break;
            }
            let Some(mut act) = self.act_at(candidate.leaf)? else {
                continue;
            };
            if !budget.take(price(&act, seen.len(), system)) {
                // One is compared in any case.
                if compared > 0 {
                    missed += 1;
                    continue;
                }
                budget.take_up_to(u64::MAX);
            }
            compared += 1;
            self.with_effects(&mut act, system)?;
            self.compares(&act, seen.len());
            let fit = effects::fit(&act, seen, memory);
            // Of an act of its own house a system is no witness: what that does not declare is not of it.
            let own_house = self.author.record.filter(|_| !observed.own.is_empty());
            let own_house = own_house.is_some_and(|system| {
                let part = EvidencePart::Observation;
                keys::rival(&act, self.trust, system, part).is_some()
            });
            if fit == Fit::Not || (own_house && fit < Fit::Some) {
                continue;
            }
            let founded = act.authority() == LayerState::Proven;
            let rank = (!is_claim(&act, self.trust), fit, founded);
            let better = best.as_ref().is_none_or(|(best, other)| {
                rank > *best || (rank == *best && act.leaf < other.leaf)
            });
            if better {
                best = Some((rank, act));
            }
        }
        if matches!(best, Some(((true, Fit::Again, true), _))) {
            // None could fit better.
            missed = 0;
        }
        if missed > 0 {
            // What does not fit an act in full may be of one that was not looked at: it is blamed on none.
            best = best.filter(|((_, fit, _), _)| *fit >= Fit::All);
        }
        let act = best.map(|(_, act)| act);
        Ok(Found { act, missed })
    }

    /// The acts that share a correlation key with what was seen, in the order in which they are compared,
    /// and how many lists of them there was no room to look at.
    fn candidates(
        &mut self,
        observed: &ObservedEffects<'_>,
        budget: &mut Budget,
    ) -> Result<(Vec<Candidate>, usize), V::Error> {
        let mut missed = 0;
        let mut acts: BTreeMap<u64, CorrelatedAct> = BTreeMap::new();
        for (kind, value) in &observed.parsed.correlation_keys {
            if !budget.take(LOOK) {
                missed += 1;
                continue;
            }
            let key = CellKey::Correlation(name_of(kind, value));
            if let Some(found) = self.cells.look::<Correlated>(key)? {
                budget.take_up_to(found.acts.len() as u64 / 8);
                let of_task = |one: &&CorrelatedAct| {
                    let task = observed.task.as_ref();
                    task.is_none_or(|task| one.task[..] == task.as_bytes()[..])
                };
                let found = found.acts.iter().filter(of_task);
                acts.extend(found.map(|one| (one.leaf, one.clone())));
            }
        }
        let seen = observed.own.iter().chain(&observed.claimed);
        let seen: Vec<u64> = seen.map(|one| short(&one.print.resource)).collect();
        // By controller, and within it first the first one of each producer, then the second ones.
        let mut of_producer: HashMap<(&str, &str), usize> = HashMap::new();
        let mut shared: Vec<(Option<&str>, usize, Candidate)> = Vec::with_capacity(acts.len());
        for act in acts.values() {
            let key = KeyId::from_slice(&act.key);
            let speaker = key.and_then(|key| proven_speaker(self.trust, key));
            let names = speaker.map(|one| (one.controller.as_str(), one.producer.as_str()));
            let nth = of_producer.entry(names.unwrap_or_default()).or_default();
            *nth += 1;
            let candidate = Candidate {
                leaf: act.leaf,
                claim: speaker.is_none(),
                elsewhere: !seen.contains(&act.resource),
                turn: 0,
            };
            shared.push((names.map(|names| names.0), *nth, candidate));
        }
        shared.sort_by_key(|(controller, nth, one)| (*controller, one.elsewhere, *nth, one.leaf));
        let mut candidates = Vec::with_capacity(shared.len());
        for of_controller in shared.chunk_by_mut(|a, b| a.0 == b.0) {
            for (turn, (_, _, candidate)) in of_controller.iter_mut().enumerate() {
                candidate.turn = turn;
            }
        }
        candidates.extend(shared.into_iter().map(|(_, _, candidate)| candidate));
        candidates.sort_by_key(|one| (one.claim, one.elsewhere, one.turn, one.leaf));
        Ok((candidates, missed))
    }

    /// A downstream system names credentials: do their tasks go on?
    pub(super) fn tokens_seen(
        &mut self,
        parsed: &ParsedBody,
        budget: &mut Budget,
    ) -> Result<(), V::Error> {
        // The best founded grant of each task. One that nobody proves to be the task's accuses nobody.
        let mut named: BTreeMap<TaskId, (u32, u64)> = BTreeMap::new();
        let mut missed = 0;
        for (kind, value) in &parsed.correlation_keys {
            if !budget.take(LOOK) {
                missed += 1;
                continue;
            }
            let key = CellKey::Token(name_of(kind, value));
            let Some(names) = self.cells.look::<GrantList>(key)? else {
                continue;
            };
            for name in names.grants.iter().filter(|name| name.rank > 0) {
                let Some(task) = TaskId::from_slice(&name.task) else {
                    continue;
                };
                let best = named.entry(task).or_insert((name.rank, name.leaf));
                if name.rank > best.0 {
                    *best = (name.rank, name.leaf);
                }
            }
        }
        let mut named: Vec<_> = named.into_iter().collect();
        named.sort_by_key(|(_, (rank, leaf))| (std::cmp::Reverse(*rank), *leaf));
        for (id, (_, grant_leaf)) in named {
            if !budget.take(LOOK) {
                missed += 1;
                continue;
            }
            let task = self.cells.task(id)?;
            let closed = task
                .filter(|task| task.state() == TaskState::Closed)
                .map(|task| task.closed_leaf);
            if let Some(closed) = closed {
                let contradicts = closed.or(Some(grant_leaf));
                self.find(FindingKind::TokenUsedAfterClose)
                    .in_task(id)
                    .contradicts(contradicts)
                    .says("a credential of the task was used after the task had ended")?;
            }
        }
        if missed > 0 {
            let detail = format!(
                "its correlation keys name the credentials of {missed} more tasks than are looked at; \
                 that one of these had ended is not found"
            );
            self.find(FindingKind::NotCompared).says(detail)?;
        }
        Ok(())
    }
}

/// Units for comparing an act with so many effects, besides looking at it.
fn price(act: &Act, seen: usize, system: Option<System>) -> u64 {
    let expected = act.expected as usize;
    let declared = act.outcome.as_ref().map_or(0, |one| one.declared as usize);
    let own = act.systems.iter();
    let own = own.filter(|one| Some(one.name()) == system);
    let own: usize = own.map(|one| one.count as usize).sum();
    let lists = act.evidence.len() + act.relied.len() + act.observations.len();
    let cell = |effects: usize| match effects {
        0 => 0,
        n => LOOK + n as u64 / 4,
    };
    let pairs = (seen * (expected + declared + own)) as u64;
    cell(expected)
        + cell(declared)
        + cell(own)
        + u64::from(act.expected_bytes) / 512
        + lists as u64 / 8
        + pairs / 64
}

/// The registration of a key that proves who acts: not an importer's.
fn proven_speaker(trust: &TrustState, key: KeyId) -> Option<&KeyRecord> {
    let record = trust.key(key);
    record.filter(|record| record.role != KeyRole::Importer)
}

/// The one to take out of a list that is shared, each with its key and whether it was denied: of what
/// nobody proves, else of what was denied, else of the controller that has the most; there of the
/// producer that has the most, the last of those.
pub(super) fn largest_share(trust: &TrustState, all: &[(&[u8], bool)]) -> Option<usize> {
    let speakers: Vec<Option<(&str, &str)>> = all
        .iter()
        .map(|(key, _)| {
            let record = proven_speaker(trust, KeyId::from_slice(key)?)?;
            Some((record.controller.as_str(), record.producer.as_str()))
        })
        .collect();
    let mut of_controller: HashMap<&str, usize> = HashMap::new();
    let mut of_producer: HashMap<(&str, &str), usize> = HashMap::new();
    let counted = all.iter().zip(&speakers).filter(|((_, denied), _)| !denied);
    for speaker in counted.filter_map(|(_, speaker)| speaker.as_ref()) {
        *of_controller.entry(speaker.0).or_default() += 1;
        *of_producer.entry(*speaker).or_default() += 1;
    }
    let (at, _) = all.iter().enumerate().max_by_key(|(at, (_, denied))| {
        let shares = speakers[*at].map(|speaker| {
            let controller = of_controller.get(speaker.0).copied();
            (controller, of_producer.get(&speaker).copied())
        });
        (shares.is_none(), *denied, shares, *at)
    })?;
    Some(at)
}

impl Correlated {
    /// Takes one out if there are more than `SHARED_MAX`.
    fn make_room(&mut self, trust: &TrustState) -> Option<CorrelatedAct> {
        if self.acts.len() <= SHARED_MAX {
            return None;
        }
        let all: Vec<(&[u8], bool)> = self
            .acts
            .iter()
            .map(|one| (&one.key[..], one.denied))
            .collect();
        let at = largest_share(trust, &all)?;
        Some(self.acts.remove(at))
    }
}
