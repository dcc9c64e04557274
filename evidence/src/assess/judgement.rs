//! Judging Intents: the request, the judgement, and its effect on the act.

use std::collections::BTreeSet;

use deed_proto::v1::{
    self, AuthenticationStrength, EvidencePart, FindingKind, IntentState, KeyRole, LayerState,
    RiskTier, TaskState,
};
use deed_tlog::Hash;

use super::{
    act::{copied_of, task_of},
    amounts,
    apply::Apply,
    assessor::PendingEntry,
    body::{Effect, Quantity},
    cells::{Act, Duties, Evidence, Relied, Waiting},
    grant::{NEGATIVE, Shown, covers},
    table::Event,
    view::View,
};
use crate::{
    KeyId, TaskId,
    policy::{self, Judging, Ruling},
    trust::{KeyRecord, PolicyInForce},
};

/// A request to clear an Intent, with the evidence for it. It is judged, its grant must cover it, and
/// the policies are asked about it.
#[derive(Clone, Copy)]
pub(super) struct IntentRequest<'a> {
    pub(super) task: TaskId,
    pub(super) agent: &'a str,
    pub(super) key: Option<KeyId>,
    pub(super) action: &'a str,
    pub(super) resource: &'a str,
    pub(super) amount: Option<Quantity<'a>>,
    pub(super) grant: Option<Hash>,
    /// True if what it is called with is committed to.
    pub(super) arguments: bool,
    /// True if what led to it is committed to.
    pub(super) prompt: bool,
    /// True if the model is named.
    pub(super) model: bool,
    /// Decisions and Approvals that count.
    pub(super) evidence: &'a [Evidence],
    /// Effects that it expects.
    pub(super) expected: &'a [Effect],
}

/// The judgement of an Intent.
pub(super) struct IntentJudgement {
    event: Event,
    /// The amount that it asked for, in minor units.
    minor_units: Option<i64>,
    missing: Vec<String>,
    denied: Vec<String>,
    /// Kind, detail, and the leaf that it contradicts.
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

impl<V: View> Apply<'_, V> {
    /// Judges an Intent by what is there now. Changes nothing.
    pub(super) fn judge(
        &mut self,
        request: &IntentRequest<'_>,
    ) -> Result<IntentJudgement, V::Error> {
        let mut judgement = IntentJudgement::new(request);
        let tier = self.judge_task(request.task, &mut judgement)?;
        if let Some(name) = request.grant {
            let shown = self.show_grant(&name, request)?;
            for against in &shown.against {
                judgement.deny(against.kind, &against.detail, against.contradicts);
            }
            judgement.shown = Some(shown);
        }
        judgement.bound_expected(request);
        let negative = request.amount.is_some_and(|amount| amount.minor_units < 0);
        let known = |denied: &String| denied == NEGATIVE;
        if negative && !judgement.denied.iter().any(known) {
            // Else it would pass every bound, and be held against sums without its sign.
            judgement.deny(FindingKind::LimitExceeded, NEGATIVE, None);
        }
        let key = request.key.and_then(|key| self.trust.key(key));
        if let Some(key) = key.filter(|key| key.revoked_at.is_some()) {
            // Revoked while the Intent waited: whoever has the key now gets no permit for it.
            let revoked = key.revoked_leaf.map(deed_tlog::LeafIndex::get);
            let detail = "the key of the Intent was revoked";
            judgement.deny(FindingKind::RevokedKeyUse, detail, revoked);
        }
        let Some(policy) = self.trust.policy() else {
            // Nothing asks for the tier.
            judgement.opener = None;
            judgement.conclude();
            return Ok(judgement);
        };
        judgement.policy_leaf = Some(policy.leaf.get());
        let grant = judgement.shown.as_ref();
        let grant = grant.is_some_and(|shown| shown.layer == LayerState::Proven);
        let asked = request.of_policy(key, tier, grant);
        let compiled = match policy.policy.compiled() {
            Ok(compiled) => compiled,
            Err(_) => {
                // Whoever records or replays has looked before (`TrustState::can_judge`).
                judgement.failed(policy, "this build cannot read it".to_owned());
                judgement.conclude();
                return Ok(judgement);
            }
        };
        let mut judging = compiled.judging();
        judgement.ruled(policy, &mut judging, &asked, request);
        // What it expects to change elsewhere must be allowed there too.
        let others: BTreeSet<&str> = request
            .expected
            .iter()
            .map(|effect| &effect.resource[..])
            .filter(|resource| *resource != request.resource)
            .collect();
        for resource in others {
            if judgement.event == Event::PolicyFailed {
                break;
            }
            let asked = policy::Request { resource, ..asked };
            judgement.ruled(policy, &mut judging, &asked, request);
        }
        self.cells.cache.judged(judging.spent());
        judgement.missing.sort();
        judgement.missing.dedup();
        judgement.conclude();
        Ok(judgement)
    }

    fn judge_task(
        &mut self,
        id: TaskId,
        judgement: &mut IntentJudgement,
    ) -> Result<RiskTier, V::Error> {
        let task = self.cells.task(id)?;
        let Some(task) = task else {
            judgement.denied.push("task: was never opened".to_owned());
            return Ok(RiskTier::Unspecified);
        };
        match task.state() {
            TaskState::Open => {}
            TaskState::Closed => {
                let closed = task.closed_leaf;
                judgement.deny(FindingKind::TaskClosed, "the task has ended", closed);
            }
            TaskState::Unspecified => judgement.denied.push("task: was never opened".to_owned()),
        }
        // Whoever may open a task says how much harm it may do; from others that is a claim, and the
        // policy is asked as if nobody had said anything.
        Ok(match task.opened() {
            LayerState::Proven => {
                judgement.opener = (!task.opener_key.is_empty()).then(|| Relied {
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
    pub(super) fn settle(
        &mut self,
        act: &mut Act,
        judgement: IntentJudgement,
    ) -> Result<(), V::Error> {
        let new = act.state() == IntentState::Unspecified;
        act.policy_leaf = judgement.policy_leaf;
        act.approval_asked |= judgement.approval_asked;
        act.decision_asked |= judgement.decision_asked;
        act.duties = (judgement.duties != policy::Duties::default()).then_some(Duties {
            tool_call: judgement.duties.tool_call,
            response: judgement.duties.response,
            result: judgement.duties.result,
            corroborate_within_us: judgement.duties.corroborate_within_us,
        });
        act.authority = LayerState::Missing.into();
        act.relied = judgement.opener.into_iter().collect();
        act.strength_claimed = judgement.strength_claimed;
        if let Some(shown) = &judgement.shown {
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
        for (kind, detail, contradicts) in judgement.findings {
            self.find(kind)
                .of(act)
                .contradicts(contradicts)
                .says(detail)?;
        }
        let cleared = judgement.event == Event::JudgedClear;
        if cleared && let Some(shown) = &judgement.shown {
            self.charge(shown, judgement.minor_units)?;
        }
        if cleared && !new {
            act.clearing = true;
            act.missing.clear();
            self.pending.push_back(PendingEntry::Clearance(act.leaf));
            return Ok(());
        }
        self.move_intent(act, judgement.event)?;
        if act.state() == IntentState::Waiting {
            act.missing = judgement.missing;
        }
        if act.state() == IntentState::Denied {
            act.denied = judgement.denied;
        }
        Ok(())
    }

    /// The Clearance of an act that waited, which becomes the entry at `self.leaf`; `None` if it was
    /// denied, or done without, or its task was closed, in the same batch.
    pub(super) fn clearance(
        &mut self,
        leaf: u64,
    ) -> Result<Option<(TaskId, v1::statement::Body)>, V::Error> {
        let Some(mut act) = self.act_at(leaf)? else {
            return Ok(None);
        };
        let task = task_of(&act);
        act.clearing = false;
        // An Outcome in the same batch came before its permit: that is not made good.
        let moved = match act.outcome {
            None => self.move_intent(&mut act, Event::JudgedClear)?,
            Some(_) => None,
        };
        if let (Some(_), Some(task)) = (moved, task) {
            act.clearance_leaf = Some(self.leaf);
            act.cleared_at_us = self.at.get();
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
            self.put_act(act)?;
            return Ok(Some((task, body)));
        }
        self.put_act(act)?;
        Ok(None)
    }
}

impl<'a> IntentRequest<'a> {
    /// The part of it that is kept as long as it waits.
    pub(super) fn waiting(&self) -> Waiting {
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

    /// The question to the policies: `key` is the registration of its key, `tier` that of its task, and
    /// `grant` is true if its grant is proven to bear it.
    fn of_policy(
        &self,
        key: Option<&'a KeyRecord>,
        tier: RiskTier,
        grant: bool,
    ) -> policy::Request<'a> {
        let counted = |least: AuthenticationStrength| {
            let strong = |one: &&Evidence| one.strength >= least as i32;
            u32::try_from(self.evidence.iter().filter(strong).count()).unwrap_or(u32::MAX)
        };
        let is_decision = |one: &Evidence| one.strength == 0;
        policy::Request {
            agent: self.agent,
            controller: key.map(|key| key.controller.as_str()),
            action: self.action,
            resource: self.resource,
            tier,
            amount: self
                .amount
                .map(|amount| (amount.minor_units, amount.currency)),
            evidence: policy::Evidence {
                // An importer's signature says who brought it in, not who acted.
                signed: key.is_some_and(|key| key.role != KeyRole::Importer),
                grant,
                arguments: self.arguments,
                prompt: self.prompt,
                model: self.model,
                decision: self.evidence.iter().any(is_decision),
                approvals: counted(AuthenticationStrength::SingleFactor),
                approvals_multi_factor: counted(AuthenticationStrength::MultiFactor),
                approvals_phishing_resistant: counted(AuthenticationStrength::PhishingResistant),
            },
        }
    }
}

impl Waiting {
    /// The request of an act that waits in `task`.
    pub(super) fn request<'a>(&'a self, task: TaskId, act: &'a Act) -> IntentRequest<'a> {
        IntentRequest {
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

impl IntentJudgement {
    /// Clears, as long as nothing else is found.
    fn new(request: &IntentRequest<'_>) -> Self {
        Self {
            event: Event::JudgedClear,
            minor_units: request.amount.map(|amount| amount.minor_units),
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
        }
    }

    /// Denies an Intent that expects to change more than it asks for: its effects must be on its
    /// own resource, or within its grant's, and of no more than its amount.
    fn bound_expected(&mut self, request: &IntentRequest<'_>) {
        let proven = self.shown.as_ref();
        let granted = proven
            .filter(|shown| shown.layer == LayerState::Proven)
            .map_or(&[][..], |shown| &shown.resources);
        let within = |effect: &Effect| {
            let mut patterns = granted.iter();
            // A name that is a pattern is not everything that it covers.
            (effect.resource == request.resource && !effect.resource.ends_with("/*"))
                || patterns.any(|pattern| covers(pattern, &effect.resource))
        };
        if !request.expected.iter().all(within) {
            let detail = "it expects effects on resources that are neither its own nor its grant's";
            self.deny(FindingKind::ScopeExceeded, detail, None);
        }
        let named = request
            .amount
            .map(|amount| (amount.minor_units, amount.currency));
        let mut expected = request.expected.iter();
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
        asked: &policy::Request<'_>,
        request: &IntentRequest<'_>,
    ) {
        let claims = request
            .evidence
            .iter()
            .any(|one| one.strength > AuthenticationStrength::SingleFactor as i32);
        let unclaimed = claims.then_some(policy::Evidence {
            approvals_multi_factor: 0,
            approvals_phishing_resistant: 0,
            ..asked.evidence
        });
        let Some((ruling, by_claims)) = judging.judge_without(asked, unclaimed.as_ref()) else {
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

    pub(super) fn deny(&mut self, kind: FindingKind, detail: &str, contradicts: Option<u64>) {
        self.denied.push(detail.to_owned());
        self.findings.push((kind, detail.to_owned(), contradicts));
    }

    pub(super) fn conclude(&mut self) {
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
