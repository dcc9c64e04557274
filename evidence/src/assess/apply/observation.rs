//! Observation: what others saw of an act.

use deed_proto::v1::{EvidencePart, FindingKind, IntentState, KeyRole, TaskState};

use super::{Apply, Author};
use crate::{
    Micros, TaskId,
    assess::{
        LIST_MAX, RecordedStatement, SEEN_OPEN_MAX, SKEW_US, SYSTEMS_MAX, View,
        act::{copied, task_of},
        amounts::{self, Moves as _},
        body::{Effect, LeafRef, ParsedBody},
        cells::{Act, Change, Observed, System, SystemSaw},
        correlation::{Found, largest_share},
        effects::{self, CHANGES_MAX, EffectMatch, ObservedEffect},
        keys,
        table::{Event, State},
        work::Budget,
    },
};

/// Findings about what was seen before an Outcome came; one more says how many there are beyond.
const EARLY_FINDINGS_MAX: usize = 8;

/// An Observation, with its effects parted into those that its speaker can prove and the others.
pub(in crate::assess) struct ObservedEffects<'a> {
    /// On resources that are the speaker's own.
    pub(in crate::assess) own: Vec<ObservedEffect>,
    /// On others, or said by somebody who is no registered system.
    pub(in crate::assess) claimed: Vec<ObservedEffect>,
    observed_at: Micros,
    pub(in crate::assess) task: Option<TaskId>,
    pub(in crate::assess) parsed: &'a ParsedBody,
}

impl<V: View> Apply<'_, V> {
    /// Takes what a downstream system saw, of an act or of none.
    pub(super) fn observation(
        &mut self,
        statement: &RecordedStatement<'_>,
        intent: Option<LeafRef>,
        seen: &[Effect],
        observed_at: Micros,
    ) -> Result<(), V::Error> {
        let (task, parsed, bytes) = (self.task, statement.parsed, statement.payload.len());
        let system = self
            .author
            .record
            .filter(|record| record.role == KeyRole::DownstreamSystem);
        if self.author.is_signed() && system.is_none() && !self.author.has_role(KeyRole::Importer) {
            self.find(FindingKind::WrongRole)
                .says("an observation is signed by a downstream system")?;
        }
        let owns = |effect: &&Effect| system.is_some_and(|system| system.owns(&effect.resource));
        let (own, claimed): (Vec<&Effect>, Vec<&Effect>) = seen.iter().partition(owns);
        let observed = ObservedEffects {
            own: own.into_iter().map(ObservedEffect::of).collect(),
            claimed: claimed.into_iter().map(ObservedEffect::of).collect(),
            observed_at,
            task,
            parsed,
        };
        let mut budget = Budget::of_search(bytes);
        if !observed.own.is_empty() {
            let mut budget = Budget::of_tokens(bytes);
            self.tokens_seen(parsed, &mut budget)?;
        }
        let found = match intent {
            Some(intent) => Found {
                act: self.act_named(task, &intent)?,
                missed: 0,
            },
            None => self.act_correlated(&observed, &mut budget)?,
        };
        if found.missed > 0 {
            // Whether it is of one of these is not known: that it is of no act is not said.
            let detail = format!(
                "{} acts share its correlation keys that it was not compared with; name the Intent, or \
                 fewer keys",
                found.missed
            );
            self.find(FindingKind::NotCompared).says(detail)?;
        }
        match found.act {
            Some(act) => self.observed(act, &observed),
            None if found.missed > 0 => Ok(()),
            None => self.observed_of_nothing(&observed),
        }
    }

    /// Takes an Observation that belongs to no act here.
    fn observed_of_nothing(&mut self, observed: &ObservedEffects<'_>) -> Result<(), V::Error> {
        let list = |effects: &[ObservedEffect], what: &str| {
            let first = effects.first();
            let first = first.map_or_else(String::new, |one| one.effect.told());
            match effects.len() {
                1 => format!("an effect was {what} that belongs to no Intent here: {first}"),
                n => format!("{n} effects were {what} that belong to no Intent here: {first}, ..."),
            }
        };
        if !observed.own.is_empty() {
            let detail = list(&observed.own, "seen");
            self.find(FindingKind::HiddenSideEffect).says(detail)?;
        }
        if !observed.claimed.is_empty() && may_claim(self.author) {
            let detail = list(&observed.claimed, "claimed");
            self.find(FindingKind::UnprovenClaim).says(detail)?;
        }
        Ok(())
    }

    /// Takes what was seen of an act.
    fn observed(&mut self, mut act: Act, observed: &ObservedEffects<'_>) -> Result<(), V::Error> {
        let system = effects::system(self.author.producer);
        let remembers = (!observed.own.is_empty()).then_some(system);
        self.with_effects(&mut act, remembers)?;
        self.compares(&act, observed.own.len() + observed.claimed.len());
        let rival = self.author.record.filter(|_| !observed.own.is_empty());
        let rival = rival
            .and_then(|system| keys::rival(&act, self.trust, system, EvidencePart::Observation));
        let proves = !observed.own.is_empty() && rival.is_none();
        if let Some(rival) = rival {
            self.find(FindingKind::UnprovenClaim)
                .in_task(task_of(&act))
                .contradicts(rival.leaf)
                .says(
                    "the system has the controller of somebody who acts, decides or approves here",
                )?;
        } else if !observed.claimed.is_empty() && may_claim(self.author) {
            self.claimed_of(&act, observed)?;
        }
        if proves {
            self.saw(&mut act, observed)?;
        }
        if act.observations.len() >= LIST_MAX {
            // A mere claim gives way to an independent system's Observation.
            let claimed = act.observations.iter().rposition(|one| !one.proves);
            match claimed.filter(|_| proves) {
                Some(at) => act.observations.remove(at),
                // Its effects are among the changes, which have a bound of their own.
                None => return self.put_act(act),
            };
        }
        let leaf = self.leaf;
        act.observations.push(Observed { leaf, proves });
        self.put_act(act)
    }

    /// Notes what somebody says of an act that they cannot prove.
    fn claimed_of(&mut self, act: &Act, observed: &ObservedEffects<'_>) -> Result<(), V::Error> {
        let compared = effects::look_up(act, &observed.claimed, &[]);
        let other = compared
            .seen
            .iter()
            .zip(&observed.claimed)
            .map(|(seen, one)| (seen, &one.effect))
            .find(|(seen, _)| {
                matches!(
                    seen,
                    EffectMatch::Different | EffectMatch::Beyond | EffectMatch::Hidden
                )
            });
        let detail = match (other, self.author.has_role(KeyRole::DownstreamSystem)) {
            (None, false) => return Ok(()),
            (_, true) => {
                let effect = &observed.claimed[0].effect;
                format!(
                    "{} is no resource that this system's key is registered for",
                    effect.resource
                )
            }
            (Some((_, effect)), false) => format!(
                "{} on {} is claimed, and the Outcome does not declare it so",
                effect.kind, effect.resource
            ),
        };
        self.find(FindingKind::UnprovenClaim)
            .in_task(task_of(act))
            .contradicts(act.leaf)
            .says(detail)
    }

    /// An independent system saw resources of its own change.
    fn saw(&mut self, act: &mut Act, observed: &ObservedEffects<'_>) -> Result<(), V::Error> {
        if let (Some(task), Some(key)) = (task_of(act), self.author.key)
            && observed.task != Some(task)
        {
            // It spoke of the task, if not in it: should the key turn out compromised, the task is
            // flagged.
            self.key_speaks(task, key)?;
        }
        let mut other = self.hold_against_clearance(act, observed)?;
        let system = effects::system(self.author.producer);
        if !self.has_room(act, system)? {
            return Ok(());
        }
        let compared = effects::look_up(act, &observed.own, &system);
        compared.make_room(act);
        let mut taken = effects::expected_taken(act, &system);
        let mut beyond_bound = false;
        for at in effects::most_exact_first(&observed.own) {
            let (effect, seen) = (&observed.own[at].effect, compared.seen[at]);
            if seen == EffectMatch::Again {
                if let Some(detail) = said_more(act, &observed.own[at], &system) {
                    other = true;
                    self.find(FindingKind::EffectMismatch)
                        .of(act)
                        .contradicts_this()
                        .says(detail)?;
                }
                continue;
            }
            let mut beyond = None;
            if seen != EffectMatch::Otherwise {
                let own = act.changes.iter().filter(|one| one.system[..] == system);
                if own.count() >= CHANGES_MAX {
                    if !std::mem::replace(&mut beyond_bound, true) {
                        self.find(FindingKind::NotCompared)
                            .of(act)
                            .contradicts_this()
                            .says("more changes were seen of this act than are compared; this one is not")?;
                    }
                    continue;
                }
                let expected;
                (expected, beyond) = effects::beyond_cleared(act, effect, taken);
                taken |= expected.map_or(0, effects::bit);
                act.changes.push(Change {
                    leaf: self.leaf,
                    at_us: self.at.get(),
                    key: copied(self.author.key_bytes()),
                    system: copied(&system),
                    effect: observed.own[at].print.clone(),
                    declared: declared(seen),
                    expected,
                });
            }
            // An effect that nobody has declared yet is compared when the Outcome comes.
            let compares = act.outcome.is_some() || seen == EffectMatch::Otherwise;
            let found = match unlike(seen, &effect.told()).filter(|_| compares) {
                Some((FindingKind::EffectMismatch, detail)) => {
                    Some((FindingKind::EffectMismatch, beyond.unwrap_or(detail)))
                }
                None => beyond.map(|detail| (FindingKind::EffectMismatch, detail)),
                hidden => hidden,
            };
            if let Some((kind, detail)) = found {
                other = true;
                self.find(kind).of(act).contradicts_this().says(detail)?;
            }
        }
        if !other && let Some(detail) = amounts_beyond(act, &system) {
            other = true;
            self.find(FindingKind::EffectMismatch)
                .of(act)
                .contradicts_this()
                .says(detail)?;
        }
        if act.outcome.is_none() {
            return self.seen_before_outcome(act);
        }
        if beyond_bound && !other {
            // What was not compared is not known to be the same.
            return Ok(());
        }
        self.conclude(act, other)
    }

    /// Returns true if there is room for what a system saw of an act. If 8 systems have seen something of
    /// it, the newest of the controller that has the most gives way, and the finding says so.
    fn has_room(&mut self, act: &mut Act, system: System) -> Result<bool, V::Error> {
        if act.systems.iter().any(|one| one.name() == system) {
            return Ok(true);
        }
        act.systems.push(SystemSaw {
            system: copied(&system),
            first_leaf: self.leaf,
            key: copied(self.author.key_bytes()),
            ..SystemSaw::default()
        });
        if act.systems.len() <= SYSTEMS_MAX {
            return Ok(true);
        }
        let keys: Vec<(&[u8], bool)> = act
            .systems
            .iter()
            .map(|one| (&one.key[..], false))
            .collect();
        let at = largest_share(self.trust, &keys).unwrap_or(SYSTEMS_MAX);
        let name = act.systems[at].name();
        if name == system {
            act.systems.pop();
        } else {
            self.drop_system(act, name);
        }
        let detail = format!(
            "more than {SYSTEMS_MAX} systems saw changes of this act; those of one are not compared"
        );
        self.find(FindingKind::NotCompared)
            .of(act)
            .contradicts_this()
            .says(detail)?;
        Ok(name != system)
    }

    /// Notes how many pairs of effects are compared.
    pub(in crate::assess) fn compares(&mut self, act: &Act, seen: usize) {
        let declared = act.outcome.as_ref().map_or(0, |one| one.effects.len());
        let known = act.expected_effects.len() + declared + act.changes.len();
        self.cells.cache.compared(seen * known);
    }

    /// Makes a finding if the act was not cleared, or not before its effects were seen. Returns
    /// whether it made one.
    fn hold_against_clearance(
        &mut self,
        act: &mut Act,
        observed: &ObservedEffects<'_>,
    ) -> Result<bool, V::Error> {
        let state = self.effective_state(act)?;
        let cleared = matches!(state, State::Cleared | State::Completed | State::Overdue);
        let cleared_at = act.cleared_at_us.max(act.at_us);
        let seen_at = observed.observed_at.get();
        let (kind, detail) = if cleared {
            if seen_at == 0 || cleared_at.saturating_sub(seen_at) <= SKEW_US {
                return Ok(false);
            }
            let detail = "its effects were seen, by the system's clock, before it was cleared";
            (FindingKind::OutcomeWithoutClearance, detail)
        } else if act.has(FindingKind::OutcomeWithoutClearance) {
            // Its Outcome says so itself.
            return Ok(false);
        } else if act.outcome.is_some() {
            let detail = "its effects were seen, and it was not cleared";
            (FindingKind::OutcomeWithoutClearance, detail)
        } else {
            let detail = "effects were seen of an Intent that may not be acted on, or not any more";
            (FindingKind::HiddenSideEffect, detail)
        };
        self.find(kind).of(act).contradicts_this().says(detail)?;
        Ok(true)
    }

    /// Effects of an act that has no Outcome yet.
    fn seen_before_outcome(&mut self, act: &mut Act) -> Result<(), V::Error> {
        let Some(id) = task_of(act) else {
            return Ok(());
        };
        let state = act.state();
        let Some(task) = self.cells.task(id)? else {
            return Ok(());
        };
        if state == IntentState::Overdue {
            return self
                .find(FindingKind::HiddenSideEffect)
                .of(act)
                .contradicts_this()
                .says("effects were seen, and its deadline had passed without an Outcome of it");
        }
        if task.state() == TaskState::Closed && state == IntentState::Cleared {
            return self
                .find(FindingKind::HiddenSideEffect)
                .of(act)
                .contradicts_this()
                .says("effects were seen, and the task had ended without an Outcome of it");
        }
        if task.state() != TaskState::Open || state != IntentState::Cleared {
            return Ok(());
        }
        if task.seen_open.contains(&act.leaf) {
            return Ok(());
        }
        if task.seen_open.len() >= SEEN_OPEN_MAX {
            // Nobody would look at it again when the task ends.
            let detail = format!(
                "effects of more than {SEEN_OPEN_MAX} acts of this task were seen before their Outcomes"
            );
            // What was seen is kept, and compared if the Outcome comes.
            return self
                .find(FindingKind::NotCompared)
                .in_task(id)
                .about(act.leaf)
                .contradicts_this()
                .says(detail);
        }
        if let Some(task) = self.cells.change_task(id)? {
            task.seen_open.push(act.leaf);
        }
        Ok(())
    }

    /// The Outcome is there now: compares with it what was seen before.
    pub(super) fn compare_early(&mut self, act: &mut Act) -> Result<(), V::Error> {
        self.by_proven(|ctx| ctx.compare_seen(act))
    }

    fn compare_seen(&mut self, act: &mut Act) -> Result<(), V::Error> {
        if act.changes.is_empty() || act.outcome.is_none() {
            return Ok(());
        }
        let early = std::mem::take(&mut act.changes);
        // An effect that was beyond the clearance then is so still.
        let mut other =
            act.has(FindingKind::EffectMismatch) || act.has(FindingKind::HiddenSideEffect);
        let mut unlike_then = Vec::new();
        for group in early.chunk_by(|a, b| a.leaf == b.leaf) {
            let prints = group.iter().map(|change| ObservedEffect {
                effect: Effect::default(),
                print: change.effect.clone(),
            });
            let prints: Vec<_> = prints.collect();
            let compared = effects::look_up(act, &prints, &group[0].system);
            compared.make_room(act);
            for (change, seen) in group.iter().zip(compared.seen) {
                act.changes.push(Change {
                    declared: declared(seen),
                    ..change.clone()
                });
                let told = format!("an effect that was seen at leaf {}", change.leaf);
                if let Some((kind, detail)) = unlike(seen, &told) {
                    unlike_then.push((kind, change.leaf, detail));
                }
            }
        }
        other |= !unlike_then.is_empty();
        let beyond = unlike_then.len().saturating_sub(EARLY_FINDINGS_MAX);
        for (at, (kind, leaf, mut detail)) in unlike_then.into_iter().enumerate() {
            if at >= EARLY_FINDINGS_MAX {
                act.note(kind);
                continue;
            }
            if beyond > 0 && at + 1 == EARLY_FINDINGS_MAX {
                detail = format!("{detail}; so it is with {beyond} more that were seen before");
            }
            self.find(kind).of(act).contradicts(leaf).says(detail)?;
        }
        self.conclude(act, other)
    }

    /// Moves the Outcome by what was seen of it.
    fn conclude(&mut self, act: &mut Act, other: bool) -> Result<(), V::Error> {
        if other {
            self.move_outcome(act, Event::ObservedOther)?;
        } else if effects::is_all(act, effects::confirmed(act)) {
            self.move_outcome(act, Event::ObservedSame)?;
        }
        Ok(())
    }

    fn act_named(
        &mut self,
        task: Option<TaskId>,
        intent: &LeafRef,
    ) -> Result<Option<Act>, V::Error> {
        let act = self.act_at(intent.leaf)?;
        Ok(act.filter(|act| {
            let same_task = task.is_none_or(|task| act.task[..] == task.as_bytes()[..]);
            act.leaf_hash[..] == intent.hash.as_bytes()[..] && same_task
        }))
    }
}

/// Returns true if a claim is noted as one: a signature of the wrong role is a finding already.
fn may_claim(author: Author<'_>) -> bool {
    !author.is_signed()
        || author.has_role(KeyRole::Importer)
        || author.has_role(KeyRole::DownstreamSystem)
}

const fn declared(seen: EffectMatch) -> Option<u32> {
    match seen {
        // At most 64 are declared.
        EffectMatch::Declared(n) => Some(n as u32),
        _ => None,
    }
}

/// Returns the finding about an effect that was not declared so.
fn unlike(seen: EffectMatch, told: &str) -> Option<(FindingKind, String)> {
    let (kind, what) = match seen {
        EffectMatch::Early | EffectMatch::Declared(_) | EffectMatch::Again => return None,
        EffectMatch::Otherwise => (
            FindingKind::EffectMismatch,
            "was reported before under the same external id, and otherwise",
        ),
        EffectMatch::Different => (
            FindingKind::EffectMismatch,
            "differs from what was declared",
        ),
        EffectMatch::Beyond => (
            FindingKind::HiddenSideEffect,
            "was seen more often than it was declared (what is reported again has the external id \
             that it had before)",
        ),
        EffectMatch::Hidden => (FindingKind::HiddenSideEffect, "was declared by nobody"),
    };
    Some((kind, format!("{told} {what}")))
}

/// Says how the effects that one system saw go beyond the amount that the Intent names.
fn amounts_beyond(act: &Act, system: &[u8]) -> Option<String> {
    let own = act
        .changes
        .iter()
        .filter(|change| change.system[..] == *system);
    amounts::beyond_intent(act, own.map(|change| &change.effect))
}

/// Takes what a system says of a change that it has reported before. Why it is not what it was taken
/// for any more, if so: what comes later must not slip in under an id that was confirmed.
fn said_more(act: &mut Act, again: &ObservedEffect, system: &[u8]) -> Option<String> {
    let at = act.changes.iter().position(|change| {
        change.system[..] == *system && effects::is_named_alike(&change.effect, &again.print)
    })?;
    let both = effects::merged(&act.changes[at].effect, &again.print)?;
    act.changes[at].effect = both;
    let change = &act.changes[at];
    let expected = effects::is_still_expected(act, change, &again.effect);
    // With what is known now it may be another one of those that were declared.
    let declared = effects::is_still_declared(act, change) || effects::match_again(act, at);
    if expected && declared {
        return None;
    }
    act.changes[at].declared = None;
    Some(format!(
        "{} was reported again with more, and is not what was declared or cleared",
        again.effect.told()
    ))
}
