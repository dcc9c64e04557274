//! Names that other systems have for the same thing: acts are found by an order number, tasks by a
//! credential.

use std::collections::HashMap;

use deed_proto::v1::{EvidencePart, FindingKind, IntentState, KeyRole, LayerState, TaskState};
use deed_tlog::Hash;

use super::{
    LIST_MAX,
    act::task_of,
    book::{Book, Here, View, Voice},
    cells::{self, Act, CellKey, Correlated, CorrelatedAct, Names, name_of},
    effects::{self, Fit},
    keys::{self, is_claim},
    observe::Sight,
};
use crate::{
    KeyId, TaskId,
    trust::{KeyRecord, Registry},
};

impl Book {
    /// Notes that a correlation key names an act. There is room for 64; beyond that nobody can push out
    /// what is somebody else's, and what does not fit is found.
    pub(super) fn correlate<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        kind: &str,
        value: &str,
        act: &Act,
    ) -> Result<(), V::Error> {
        let key = CellKey::Correlation(name_of(kind, value));
        let acts: &mut Correlated = self.cells.change_or_default(view, key)?;
        let place = acts.acts.binary_search_by_key(&act.leaf, |one| one.leaf);
        let Err(at) = place else { return Ok(()) };
        let one = CorrelatedAct {
            leaf: act.leaf,
            key: act.key.clone(),
            denied: act.state() == IntentState::Denied,
        };
        acts.acts.insert(at, one);
        let Some(left_out) = acts.make_room(here.registry) else {
            return Ok(());
        };
        let key = KeyId::from_slice(&left_out.key);
        // What nobody proves makes room without a word.
        if key.is_none_or(|key| proven_speaker(here.registry, key).is_none()) {
            return Ok(());
        }
        // The finding is of the act that is not compared, not of the one that came last.
        let task = if left_out.leaf == act.leaf {
            task_of(act)
        } else {
            self.act_at(view, left_out.leaf)?
                .and_then(|act| task_of(&act))
        };
        let kind = FindingKind::NotCompared;
        let detail = "more than 64 acts share a correlation key: what is seen by that key alone is not \
                      found to be of this act";
        self.find(view, here, kind, task, left_out.leaf, None, detail)
    }

    /// The act that shares a correlation key and fits best; one that somebody signed comes before one
    /// that nobody did, and of equals one whose authority is proven, then the first. An act that has
    /// nothing in common with what was seen is not blamed for it.
    pub(super) fn act_correlated<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        voice: Voice<'_>,
        sight: &Sight<'_>,
    ) -> Result<Option<Act>, V::Error> {
        let mut leaves = Vec::new();
        for (kind, value) in &sight.said.correlation_keys {
            let key = CellKey::Correlation(name_of(kind, value));
            if let Some(found) = self.cells.look::<Correlated, _>(view, key)? {
                leaves.extend(found.acts.iter().map(|act| act.leaf));
            }
        }
        leaves.sort_unstable();
        leaves.dedup();
        let (seen, system) = if sight.own.is_empty() {
            (&sight.claimed, bytes::Bytes::new())
        } else {
            (&sight.own, effects::system(voice.producer))
        };
        let mut best: Option<((bool, Fit, bool), Act)> = None;
        for leaf in leaves {
            let Some(act) = self.act_at(view, leaf)? else {
                continue;
            };
            if sight
                .task
                .is_some_and(|task| act.task[..] != task.as_bytes()[..])
            {
                continue;
            }
            let fit = effects::fit(&act, seen, &system);
            // Of an act of its own house a system is no witness: what that does not declare is not of it.
            let own_house = voice.record.filter(|_| !sight.own.is_empty());
            let own_house = own_house.is_some_and(|system| {
                let part = EvidencePart::Observation;
                keys::rival(&act, here.registry, system, part).is_some()
            });
            if fit == Fit::Not || (own_house && fit < Fit::Some) {
                continue;
            }
            let founded = act.authority() == LayerState::Proven;
            let rank = (!is_claim(&act, here.registry), fit, founded);
            if best.as_ref().is_none_or(|(best, _)| rank > *best) {
                best = Some((rank, act));
            }
        }
        Ok(best.map(|(_, act)| act))
    }

    /// A downstream system names a credential: does its task go on?
    pub(super) fn token_seen<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        kind: &str,
        value: &str,
    ) -> Result<(), V::Error> {
        let key = CellKey::Token(name_of(kind, value));
        let Some(names) = self.cells.look::<Names, _>(view, key)?.cloned() else {
            return Ok(());
        };
        for name in names.grants {
            let Ok(name) = Hash::try_from(&name.hash[..]) else {
                continue;
            };
            let grant = self
                .cells
                .look::<Box<cells::Grant>, _>(view, CellKey::Grant(name))?;
            // A grant that nobody proves to be the task's accuses nobody.
            let grant = grant.filter(|grant| grant.rooted() == LayerState::Proven);
            let Some((grant_leaf, id)) =
                grant.and_then(|grant| Some((grant.leaf, TaskId::from_slice(&grant.task)?)))
            else {
                continue;
            };
            let task = self.cells.task(view, id)?;
            let closed = task
                .filter(|task| task.state() == TaskState::Closed)
                .map(|task| task.closed_leaf);
            if let Some(closed) = closed {
                let kind = FindingKind::TokenUsedAfterClose;
                let detail = "a credential of the task was used after the task had ended";
                let contradicts = closed.or(Some(grant_leaf));
                self.find(view, here, kind, Some(id), here.leaf, contradicts, detail)?;
            }
        }
        Ok(())
    }
}

/// The registration of a key that proves who acts: not an importer's.
fn proven_speaker(registry: &Registry, key: KeyId) -> Option<&KeyRecord> {
    let record = registry.key(key);
    record.filter(|record| record.role != KeyRole::Importer)
}

impl Correlated {
    /// Takes one out if there are more than 64: of what nobody proves, else of what was denied, else of
    /// the controller that has the most; there of the producer that has the most, the newest of those.
    fn make_room(&mut self, registry: &Registry) -> Option<CorrelatedAct> {
        if self.acts.len() <= LIST_MAX {
            return None;
        }
        let speakers: Vec<Option<(&str, &str)>> = self
            .acts
            .iter()
            .map(|act| {
                let record = proven_speaker(registry, KeyId::from_slice(&act.key)?)?;
                Some((record.controller.as_str(), record.producer.as_str()))
            })
            .collect();
        let mut of_controller: HashMap<&str, usize> = HashMap::new();
        let mut of_producer: HashMap<(&str, &str), usize> = HashMap::new();
        let counted = self
            .acts
            .iter()
            .zip(&speakers)
            .filter(|(act, _)| !act.denied);
        for speaker in counted.filter_map(|(_, speaker)| speaker.as_ref()) {
            *of_controller.entry(speaker.0).or_default() += 1;
            *of_producer.entry(*speaker).or_default() += 1;
        }
        let (at, _) = self.acts.iter().enumerate().max_by_key(|(at, act)| {
            let shares = speakers[*at].map(|speaker| {
                let controller = of_controller.get(speaker.0).copied();
                (controller, of_producer.get(&speaker).copied())
            });
            (shares.is_none(), act.denied, shares, *at)
        })?;
        Some(self.acts.remove(at))
    }
}
