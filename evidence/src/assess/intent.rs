//! Intents: judged, waiting, cleared.

use std::collections::BTreeSet;

use deed_proto::v1::{
    self, AuthenticationStrength, EvidencePart, FindingKind, IntentState, KeyRole, LayerState,
    RiskTier, TaskState,
};
use deed_tlog::Hash;
use prost::Message as _;

use super::{
    act::{copied, copied_of, task_of},
    amounts,
    assessor::{Assessor, Author, EntryContext, PendingEntry, RecordedStatement, View},
    body::{Effect, Intent, Quantity},
    cells::{Act, CellKey, Duties, Evidence, Expected, Relied, Waiting},
    digest,
    grant::{NEGATIVE, Shown, Wanted, covers},
    implicit_intent::ImplicitIntent,
    table::{self, Event, Machine, State},
    timer::{Timer, TimerKind},
};
use crate::{
    KeyId, PayloadDigest, TaskId,
    policy::{self, Judging, Ruling},
    trust::PolicyInForce,
};

/// Where an Intent stands, what it waits for, why it is denied.
pub(super) type Standing = (IntentState, Vec<String>, Vec<String>);

/// What an Intent asks for, and what is there for it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    task: TaskId,
    agent: &'a str,
    key: Option<KeyId>,
    action: &'a str,
    resource: &'a str,
    amount: Option<Quantity<'a>>,
    grant: Option<Hash>,
    arguments: bool,
    prompt: bool,
    model: bool,
    evidence: &'a [Evidence],
    expected: &'a [Effect],
}

/// What the judgement of an Intent comes to.
pub(super) struct Judged {
    event: Event,
    /// The amount that it asked for, in minor units.
    minor_units: Option<i64>,
    missing: Vec<String>,
    denied: Vec<String>,
    /// Kind, detail, and what it contradicts.
    findings: Vec<(FindingKind, String, Option<u64>)>,
    duties: policy::Duties,
    policy_leaf: Option<u64>,
    approval_asked: bool,
    decision_asked: bool,
    shown: Option<Shown>,
    /// The key that opened the task, if the judgement relies on it.
    opener: Option<Relied>,
    /// True if it is cleared only by a strength that approvers claim.
    strength_claimed: bool,
}

impl Assessor {
    pub(super) fn intent<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        task: TaskId,
        spoken: &RecordedStatement<'_>,
        said: &Intent,
    ) -> Result<Standing, V::Error> {
        let place = (spoken.header.session, spoken.header.sequence);
        self.recent.place(place, here.leaf);
        if asks_for_nothing(here, voice, spoken, said)
            && self.clear_implicitly(view, here, task, spoken, said)?
        {
            return Ok((IntentState::Cleared, Vec::new(), Vec::new()));
        }
        // An Intent that was too late when it was said is denied, and nothing is due of it.
        let in_time = said.deadline > here.at;
        if in_time {
            self.timers.set(Timer {
                at: said.deadline,
                leaf: here.leaf,
                kind: TimerKind::Intent(here.leaf),
            });
        }
        let asked = Asked {
            task,
            agent: voice.producer,
            key: voice.key,
            action: said.action.in_payload(spoken.payload),
            resource: said.resource.in_payload(spoken.payload),
            amount: said.amount.map(|(minor_units, currency)| Quantity {
                minor_units,
                currency: currency.in_payload(spoken.payload),
            }),
            grant: said.grant,
            arguments: said.arguments.is_some(),
            prompt: said.prompt,
            model: said.model,
            evidence: &[],
            expected: &said.expected_effects,
        };
        let mut judged = self.judge(view, here, &asked)?;
        if said.deadline.get() > 0 && !in_time {
            let detail = "its deadline had passed before it was recorded";
            judged.deny(FindingKind::IntentLapsed, detail, None);
            judged.conclude();
        }
        let mut act = Act {
            leaf: here.leaf,
            leaf_hash: copied(spoken.leaf_hash.as_bytes()),
            payload_digest: copied(digest_of(spoken).as_bytes()),
            task: copied(task.as_bytes()),
            key: copied_of(voice.key.as_ref().map(|key| &key.as_bytes()[..])),
            at_us: here.at.get(),
            deadline_us: said.deadline.get(),
            arguments: copied_of(said.arguments.as_ref().map(|digest| &digest.as_bytes()[..])),
            prompt: said.prompt,
            minor_units: asked.amount.map(|amount| amount.minor_units),
            currency: asked
                .amount
                .map_or_else(String::new, |amount| amount.currency.to_owned()),
            session: copied(spoken.header.session.as_bytes()),
            resource: asked.resource.to_owned(),
            ..Act::default()
        };
        self.keep_expected(&mut act, &said.expected_effects);
        self.settle(view, here, &mut act, judged)?;
        if act.state() == IntentState::Waiting {
            act.waiting = Some(asked.waiting());
        }
        for (kind, value) in &spoken.parsed.correlation_keys {
            self.correlate(view, here, kind, value, &act)?;
        }
        let standing = (act.state(), act.missing.clone(), act.denied.clone());
        self.put_act(view, act)?;
        Ok(standing)
    }

    /// Keeps the effects that an Intent expects: once, for they do not change.
    fn keep_expected(&mut self, act: &mut Act, effects: &[Effect]) {
        if effects.is_empty() {
            return;
        }
        let expected = Expected {
            effects: effects.to_vec(),
        };
        act.expected = u32::try_from(effects.len()).unwrap_or(u32::MAX);
        act.expected_bytes = u32::try_from(expected.encoded_len()).unwrap_or(u32::MAX);
        self.cells.put(CellKey::Expected(act.leaf), expected);
    }

    /// Clears an Intent that asks for nothing but its open task; no cell is kept of it. Returns
    /// whether it is so.
    fn clear_implicitly<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
        spoken: &RecordedStatement<'_>,
        said: &Intent,
    ) -> Result<bool, V::Error> {
        let open = self.cells.task(view, id)?;
        if open.is_none_or(|task| task.state() != TaskState::Open) {
            return Ok(false);
        }
        let row = table::find(Machine::Intent, State::New, Event::JudgedClear);
        debug_assert!(row.is_some_and(|row| row.to == State::Cleared));
        let event = digest::Event::Intent {
            leaf: here.leaf,
            intent: here.leaf,
            state: IntentState::Cleared,
        };
        self.note_in_task(view, id, &event)?;
        self.recent.push(ImplicitIntent {
            leaf: here.leaf,
            leaf_hash: spoken.leaf_hash,
            payload_digest: digest_of(spoken),
            task: id,
            session: spoken.header.session,
            sequence: spoken.header.sequence,
            key: spoken.key,
            received_at: spoken.received_at,
            arguments: said.arguments,
            prompt: said.prompt,
            resource: said.resource.in_payload(spoken.payload).into(),
        });
        Ok(true)
    }

    /// Judges an Intent by what is there now. Changes nothing.
    pub(super) fn judge<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        asked: &Asked<'_>,
    ) -> Result<Judged, V::Error> {
        let mut judged = Judged {
            event: Event::JudgedClear,
            minor_units: asked.amount.map(|amount| amount.minor_units),
            missing: Vec::new(),
            denied: Vec::new(),
            findings: Vec::new(),
            duties: policy::Duties::default(),
            policy_leaf: None,
            approval_asked: false,
            decision_asked: false,
            shown: None,
            opener: None,
            strength_claimed: false,
        };
        let tier = self.judge_task(view, asked.task, &mut judged)?;
        if let Some(name) = asked.grant {
            let wanted = Wanted {
                task: asked.task,
                agent: asked.agent,
                key: asked.key,
                action: asked.action,
                resource: asked.resource,
                amount: asked.amount,
                expected: asked.expected,
            };
            let shown = self.show_grant(view, here, &name, &wanted)?;
            for against in &shown.against {
                judged.deny(against.kind, &against.detail, against.contradicts);
            }
            judged.shown = Some(shown);
        }
        judged.bound_expected(asked);
        let negative = asked.amount.is_some_and(|amount| amount.minor_units < 0);
        let known = |denied: &String| denied == NEGATIVE;
        if negative && !judged.denied.iter().any(known) {
            // Else it would pass every bound, and be held against sums without its sign.
            judged.deny(FindingKind::LimitExceeded, NEGATIVE, None);
        }
        let key = asked.key.and_then(|key| here.registry.key(key));
        if let Some(key) = key.filter(|key| key.revoked_at.is_some()) {
            // Revoked while the Intent waited: whoever has the key now gets no permit for it.
            let revoked = key.revoked_leaf.map(deed_tlog::LeafIndex::get);
            let detail = "the key of the Intent was revoked";
            judged.deny(FindingKind::RevokedKeyUse, detail, revoked);
        }
        let Some(policy) = here.registry.policy() else {
            // Nothing asks for the tier.
            judged.opener = None;
            judged.conclude();
            return Ok(judged);
        };
        judged.policy_leaf = Some(policy.leaf.get());
        let counted = |least: AuthenticationStrength| {
            let strong = |one: &&Evidence| one.strength >= least as i32;
            u32::try_from(asked.evidence.iter().filter(strong).count()).unwrap_or(u32::MAX)
        };
        let is_decision = |one: &Evidence| one.strength == 0;
        let request = policy::Request {
            agent: asked.agent,
            controller: key.map(|key| key.controller.as_str()),
            action: asked.action,
            resource: asked.resource,
            tier,
            amount: asked
                .amount
                .map(|amount| (amount.minor_units, amount.currency)),
            evidence: policy::Evidence {
                // An importer's signature says who brought it in, not who acted.
                signed: key.is_some_and(|key| key.role != KeyRole::Importer),
                grant: judged
                    .shown
                    .as_ref()
                    .is_some_and(|s| s.layer == LayerState::Proven),
                arguments: asked.arguments,
                prompt: asked.prompt,
                model: asked.model,
                decision: asked.evidence.iter().any(is_decision),
                approvals: counted(AuthenticationStrength::SingleFactor),
                approvals_multi_factor: counted(AuthenticationStrength::MultiFactor),
                approvals_phishing_resistant: counted(AuthenticationStrength::PhishingResistant),
            },
        };
        let compiled = match policy.policy.compiled() {
            Ok(compiled) => compiled,
            Err(_) => {
                // Whoever records or replays has looked before (`TrustState::can_judge`).
                judged.failed(policy, "this build cannot read it".to_owned());
                judged.conclude();
                return Ok(judged);
            }
        };
        let mut judging = compiled.judging();
        judged.ruled(policy, &mut judging, &request, asked);
        // What it expects to change elsewhere must be allowed there too.
        let others: BTreeSet<&str> = asked
            .expected
            .iter()
            .map(|effect| &effect.resource[..])
            .filter(|resource| *resource != asked.resource)
            .collect();
        for resource in others {
            if judged.event == Event::PolicyFailed {
                break;
            }
            let request = policy::Request {
                resource,
                ..request
            };
            judged.ruled(policy, &mut judging, &request, asked);
        }
        self.cells.judged(judging.spent());
        judged.missing.sort();
        judged.missing.dedup();
        judged.conclude();
        Ok(judged)
    }

    fn judge_task<V: View>(
        &mut self,
        view: &mut V,
        id: TaskId,
        judged: &mut Judged,
    ) -> Result<RiskTier, V::Error> {
        let task = self.cells.task(view, id)?;
        let Some(task) = task else {
            judged.denied.push("task: was never opened".to_owned());
            return Ok(RiskTier::Unspecified);
        };
        match task.state() {
            TaskState::Open => {}
            TaskState::Closed => {
                let closed = task.closed_leaf;
                judged.deny(FindingKind::TaskClosed, "the task has ended", closed);
            }
            TaskState::Unspecified => judged.denied.push("task: was never opened".to_owned()),
        }
        // Whoever may open a task says how much harm it may do; from others that is a claim, and the
        // policy is asked as if nobody had said anything.
        Ok(match task.opened() {
            LayerState::Proven => {
                judged.opener = (!task.opener_key.is_empty()).then(|| Relied {
                    key: task.opener_key.clone(),
                    leaf: task.opened_leaf.unwrap_or(0),
                    at_us: task.opened_at_us,
                    part: EvidencePart::Task.into(),
                });
                task.tier()
            }
            _ => RiskTier::Unspecified,
        })
    }

    /// Lets a judgement take effect on an act that is new or waits. What is cleared after it waited
    /// is so when its Clearance is written.
    pub(super) fn settle<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        act: &mut Act,
        judged: Judged,
    ) -> Result<(), V::Error> {
        let new = act.state() == IntentState::Unspecified;
        act.policy_leaf = judged.policy_leaf;
        act.approval_asked |= judged.approval_asked;
        act.decision_asked |= judged.decision_asked;
        act.duties = (judged.duties != policy::Duties::default()).then_some(Duties {
            tool_call: judged.duties.tool_call,
            response: judged.duties.response,
            result: judged.duties.result,
            corroborate_within_us: judged.duties.corroborate_within_us,
        });
        act.authority = LayerState::Missing.into();
        act.relied = judged.opener.into_iter().collect();
        act.strength_claimed = judged.strength_claimed;
        if let Some(shown) = &judged.shown {
            act.grant_leaf = shown.leaf;
            act.set_authority(shown.layer);
            if shown.layer != LayerState::Contradicted {
                // Else whoever stands in somebody else's grant would be of the acting side, and no
                // witness of the act.
                act.relied.extend(shown.relied.iter().cloned());
            }
            // Also if the grant does not bear this act: whoever carries it out all the same has more to
            // answer for, not less.
            if shown.founded == LayerState::Proven && shown.is_subject {
                act.gateways.clone_from(&shown.gateways);
            }
        }
        for (kind, detail, contradicts) in judged.findings {
            self.find_of(view, here, act, kind, contradicts, detail)?;
        }
        let cleared = judged.event == Event::JudgedClear;
        if cleared && let Some(shown) = &judged.shown {
            self.charge(view, shown, judged.minor_units)?;
        }
        if cleared && !new {
            act.clearing = true;
            act.missing.clear();
            self.pending.push_back(PendingEntry::Clearance(act.leaf));
            return Ok(());
        }
        self.move_intent(view, here, act, judged.event)?;
        if act.state() == IntentState::Waiting {
            act.missing = judged.missing;
        }
        if act.state() == IntentState::Denied {
            act.denied = judged.denied;
        }
        Ok(())
    }

    /// The Clearance of an act that waited, which becomes the entry at `here.leaf`; `None` if it was
    /// denied, or done without, or its task was closed, in the same batch.
    pub(super) fn clearance<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        leaf: u64,
    ) -> Result<Option<(TaskId, v1::statement::Body)>, V::Error> {
        let Some(mut act) = self.act_at(view, leaf)? else {
            return Ok(None);
        };
        let task = task_of(&act);
        act.clearing = false;
        // An Outcome in the same batch came before its permit: that is not made good.
        let moved = match act.outcome {
            None => self.move_intent(view, here, &mut act, Event::JudgedClear)?,
            Some(_) => None,
        };
        if let (Some(_), Some(task)) = (moved, task) {
            act.clearance_leaf = Some(here.leaf);
            act.cleared_at_us = here.at.get();
            let body = v1::statement::Body::Clearance(v1::Clearance {
                intent: Some(v1::LeafRef {
                    leaf_index: act.leaf,
                    leaf_hash: act.leaf_hash.clone(),
                }),
                policy_leaf: act.policy_leaf.unwrap_or(0),
                evidence: act
                    .evidence
                    .iter()
                    .map(|one| v1::LeafRef {
                        leaf_index: one.leaf,
                        leaf_hash: one.leaf_hash.clone(),
                    })
                    .collect(),
            });
            self.put_act(view, act)?;
            return Ok(Some((task, body)));
        }
        self.put_act(view, act)?;
        Ok(None)
    }
}

/// Whether an Intent is cleared if its task is open, whatever else the ledger knows, and all that is
/// to be kept of it is in its entry ([`ImplicitIntent`]).
fn asks_for_nothing(
    here: EntryContext<'_>,
    voice: Author<'_>,
    spoken: &RecordedStatement<'_>,
    said: &Intent,
) -> bool {
    here.registry.policy().is_none()
        && said.grant.is_none()
        && said.amount.is_none()
        && said.deadline.get() == 0
        && said.expected_effects.is_empty()
        // Else whoever looks among the acts of a correlation key would have to read their entries.
        && spoken.parsed.correlation_keys.is_empty()
        && voice.record.is_none_or(|key| key.revoked_at.is_none())
        && spoken.received_at == here.at
}

fn digest_of(spoken: &RecordedStatement<'_>) -> PayloadDigest {
    spoken
        .payload_digest
        .unwrap_or_else(|| PayloadDigest::of(spoken.payload))
}

impl Asked<'_> {
    /// What is kept of it as long as it waits.
    fn waiting(&self) -> Waiting {
        Waiting {
            agent: self.agent.to_owned(),
            action: self.action.to_owned(),
            resource: self.resource.to_owned(),
            minor_units: self.amount.map(|amount| amount.minor_units),
            currency: self
                .amount
                .map_or_else(String::new, |amount| amount.currency.to_owned()),
            grant: copied_of(self.grant.as_ref().map(|name| &name.as_bytes()[..])),
            model: self.model,
        }
    }
}

impl Waiting {
    /// What the act asks for, which waits in `task`.
    pub(super) fn asked<'a>(&'a self, task: TaskId, act: &'a Act) -> Asked<'a> {
        Asked {
            task,
            agent: &self.agent,
            key: KeyId::from_slice(&act.key),
            action: &self.action,
            resource: &self.resource,
            amount: self.minor_units.map(|minor_units| Quantity {
                minor_units,
                currency: &self.currency,
            }),
            grant: Hash::try_from(&self.grant[..]).ok(),
            arguments: !act.arguments.is_empty(),
            prompt: act.prompt,
            model: self.model,
            evidence: &act.evidence,
            expected: &act.expected_effects,
        }
    }
}

impl Judged {
    /// Denies an Intent that expects to change more than it asks for: its effects must be on its
    /// own resource, or within its grant's, and of no more than its amount.
    fn bound_expected(&mut self, asked: &Asked<'_>) {
        let proven = self.shown.as_ref();
        let granted = proven
            .filter(|shown| shown.layer == LayerState::Proven)
            .map_or(&[][..], |shown| &shown.resources);
        let within = |effect: &Effect| {
            let mut patterns = granted.iter();
            // A name that is a pattern is not everything that it covers.
            (effect.resource == asked.resource && !effect.resource.ends_with("/*"))
                || patterns.any(|pattern| covers(pattern, &effect.resource))
        };
        if !asked.expected.iter().all(within) {
            let detail = "it expects effects on resources that are neither its own nor its grant's";
            self.deny(FindingKind::ScopeExceeded, detail, None);
        }
        let named = asked
            .amount
            .map(|amount| (amount.minor_units, amount.currency));
        let mut expected = asked.expected.iter();
        let beyond = match named {
            None => expected.any(|effect| effect.minor_units.is_some()),
            Some(_) => amounts::beyond(named, expected).is_some(),
        };
        if beyond {
            let detail = "it expects effects of more than the amount that it names";
            self.deny(FindingKind::LimitExceeded, detail, None);
        }
    }

    /// Takes what the policy says of a resource: what it lacks for any of them, it lacks.
    fn ruled(
        &mut self,
        policy: &PolicyInForce,
        judging: &mut Judging<'_>,
        request: &policy::Request<'_>,
        asked: &Asked<'_>,
    ) {
        let claims = asked
            .evidence
            .iter()
            .any(|one| one.strength > AuthenticationStrength::SingleFactor as i32);
        let unclaimed = claims.then_some(policy::Evidence {
            approvals_multi_factor: 0,
            approvals_phishing_resistant: 0,
            ..request.evidence
        });
        let Some((ruling, by_claims)) = judging.judge_without(request, unclaimed.as_ref()) else {
            // As for another resource.
            return;
        };
        self.strength_claimed |= by_claims;
        match ruling {
            Ruling::Cleared(duties) => self.duties = self.duties.with(duties),
            Ruling::Waiting { missing, duties } => {
                self.duties = self.duties.with(duties);
                for need in missing {
                    match need {
                        policy::Need::Decision => self.decision_asked = true,
                        _ => self.approval_asked = true,
                    }
                    self.missing.push(need.to_string());
                }
            }
            Ruling::Denied { reasons } => {
                let reasons = reasons
                    .into_iter()
                    .map(|reason| format!("policy: {reason}"));
                self.denied.extend(reasons);
            }
            Ruling::Error { diagnostics } => self.failed(policy, diagnostics.join("; ")),
        }
    }

    /// The policy could not be evaluated, which counts as no.
    fn failed(&mut self, policy: &PolicyInForce, detail: String) {
        self.event = Event::PolicyFailed;
        self.denied
            .push("policy: could not be evaluated".to_owned());
        let leaf = Some(policy.leaf.get());
        self.findings.push((FindingKind::PolicyError, detail, leaf));
    }

    fn deny(&mut self, kind: FindingKind, detail: &str, contradicts: Option<u64>) {
        self.denied.push(detail.to_owned());
        self.findings.push((kind, detail.to_owned(), contradicts));
    }

    fn conclude(&mut self) {
        self.denied.sort();
        self.denied.dedup();
        self.missing.sort();
        if self.event == Event::PolicyFailed {
            return;
        }
        if !self.denied.is_empty() {
            self.event = Event::JudgedNo;
        } else if !self.missing.is_empty() {
            self.event = Event::JudgedWait;
        }
    }
}
