//! Questions to Cedar's evaluator.
//!
//! The work of Cedar's authorizer is done here: a forbid that applies wins, then a permit, and without
//! either the answer is no. Policies that fail are not skipped as Cedar does.

use cedar_policy_core::{
    ast::{
        Context, Eid, Entity, EntityType, EntityUID, EntityUIDEntry, Literal, PartialValue,
        Request as CedarRequest, SlotEnv, Value, ValueKind,
    },
    entities::Entities,
    evaluator::{EvaluationError, Evaluator},
    extensions::Extensions,
};
use deed_proto::v1::RiskTier;
use thiserror::Error;

use super::{
    Duties, Evidence, Request,
    cost::{ASK_UNITS, Budget, JUDGEMENT_UNITS_MAX, Lengths, OverBudget, REQUEST_UNITS},
    program::{Program, Rule, entities},
};

/// The answer of all policies together.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Yes, with what the permits ask for.
    Allow(Duties),
    /// No; the forbids that said so, sorted, or none if no permit said yes.
    Deny(Vec<String>),
    /// Some policies could not be evaluated: sorted. Whatever the others say.
    Error(Vec<String>),
}

/// The reasons for which there is no answer.
#[derive(Debug, Error)]
pub(super) enum Unanswered {
    #[error(
        "judging it costs more than {JUDGEMENT_UNITS_MAX} units: name fewer resources in one Intent"
    )]
    OverBudget,
    /// Cedar did not take what it was given.
    #[error("the policies could not be asked")]
    Defect,
}

impl From<OverBudget> for Unanswered {
    fn from(_: OverBudget) -> Self {
        Self::OverBudget
    }
}

/// The state of one policy with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It applies, whatever else comes.
    Applies,
    /// It does not.
    No,
    /// It cannot be evaluated, for this reason.
    Fails(&'static str),
    /// Its other links say.
    Open,
}

/// A request that is asked for again and again with other evidence.
pub(super) struct Question<'a> {
    program: &'a Program,
    lengths: Lengths,
    agent: EntityUIDEntry,
    action: EntityUIDEntry,
    resource: EntityUIDEntry,
    entities: Entities,
    /// All but the evidence.
    facts: Vec<(&'static str, Value)>,
}

/// The states of all policies when the links that do not change were evaluated.
pub(super) struct Stage {
    /// By the links that read no evidence, or none that can still come.
    pub(super) states: Vec<State>,
    /// By those that read none at all.
    fixed: Vec<State>,
    /// The links of an open policy that were evaluated.
    done: fn(&Rule) -> usize,
}

impl Stage {
    /// Goes back to what holds for any evidence, also for such as an Intent brings along.
    pub(super) fn forget_evidence(&mut self) {
        self.states.clone_from(&self.fixed);
        self.done = |rule| rule.fixed;
    }
}

impl<'a> Question<'a> {
    pub(super) fn new(
        program: &'a Program,
        request: &Request<'_>,
        budget: &mut Budget,
    ) -> Result<Self, Unanswered> {
        budget.charge(program.request_units())?;
        let types = &program.types;
        // Built, never parsed: the texts come from the network.
        let uid = |of: &EntityType, name: &str| {
            EntityUID::from_components(of.clone(), Eid::new(name), None)
        };
        let entity = |uid: EntityUID, attribute: Option<(&str, &str)>| {
            let attributes = attribute.into_iter().map(|(key, value)| {
                let value = PartialValue::Value(Value::from(value));
                (key.into(), value)
            });
            let none = || [].into_iter().collect();
            Entity::new_with_attr_partial_value(uid, attributes, none(), none(), [])
        };
        let agent = uid(&types.agent, request.agent);
        let resource = uid(&types.resource, request.resource);
        let controller = request.controller.map(|name| ("controller", name));
        let added = [
            entity(agent.clone(), controller).into(),
            entity(resource.clone(), Some(("name", request.resource))).into(),
        ];
        let action = uid(&types.action, request.action);
        let declared = program.declared.get(&action).cloned();
        let entities = entities(&program.mentioned, added.into_iter().chain(declared));
        let mut facts = vec![("tier", Value::from(tier(request.tier)))];
        if let Some((minor_units, currency)) = request.amount {
            let amount = [
                ("minor_units", Value::from(minor_units)),
                ("currency", Value::from(currency)),
            ];
            facts.push(("amount", Value::record(amount, None)));
        }
        Ok(Self {
            lengths: Lengths::of(request),
            agent: EntityUIDEntry::known(agent, None),
            action: EntityUIDEntry::known(action, None),
            resource: EntityUIDEntry::known(resource, None),
            entities: entities.map_err(|_| Unanswered::Defect)?,
            facts,
            program,
        })
    }

    /// Evaluates what does not depend on evidence that can still come.
    pub(super) fn stage(
        &self,
        evidence: &Evidence,
        budget: &mut Budget,
    ) -> Result<Stage, Unanswered> {
        let evaluator = self.evaluator(evidence, budget)?;
        let count = self.program.rules.len();
        let (mut fixed, mut states) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for rule in &self.program.rules {
            let mut state = State::Open;
            for (links, known) in [
                (0..rule.fixed, &mut fixed),
                (rule.fixed..rule.steady, &mut states),
            ] {
                if state == State::Open {
                    let end = links.end;
                    state = self.evaluate(&evaluator, rule, links, budget)?;
                    if state == State::Applies && end < rule.links.len() {
                        state = State::Open;
                    }
                }
                known.push(state);
            }
        }
        Ok(Stage {
            states,
            fixed,
            done: |rule| rule.steady,
        })
    }

    /// Asks with this evidence.
    pub(super) fn ask(
        &self,
        stage: &Stage,
        evidence: &Evidence,
        budget: &mut Budget,
    ) -> Result<Answer, Unanswered> {
        let evaluator = self.evaluator(evidence, budget)?;
        let mut duties: Option<Duties> = None;
        let (mut forbids, mut errors) = (Vec::new(), Vec::new());
        for (rule, state) in self.program.rules.iter().zip(&stage.states) {
            let state = match *state {
                State::Open => {
                    let rest = (stage.done)(rule)..rule.links.len();
                    self.evaluate(&evaluator, rule, rest, budget)?
                }
                state => state,
            };
            match state {
                State::Applies if rule.permits => {
                    duties = Some(duties.unwrap_or_default().and(rule.duties));
                }
                State::Applies => forbids.push(rule.name.clone()),
                State::Fails(why) => errors.push(format!("policy `{}`: {why}", rule.name)),
                State::No | State::Open => {}
            }
        }
        if !errors.is_empty() {
            errors.sort();
            return Ok(Answer::Error(errors));
        }
        forbids.sort();
        Ok(match duties {
            Some(duties) if forbids.is_empty() => Answer::Allow(duties),
            _ => Answer::Deny(forbids),
        })
    }

    /// Evaluates links of a policy, up to the first that is not true. Each is charged before.
    fn evaluate(
        &self,
        evaluator: &Evaluator<'_>,
        rule: &Rule,
        links: std::ops::Range<usize>,
        budget: &mut Budget,
    ) -> Result<State, OverBudget> {
        let no_slots = SlotEnv::new();
        for link in &rule.links[links] {
            budget.charge(link.cost.of(self.lengths))?;
            match evaluator.interpret(&link.expr, &no_slots) {
                Ok(value) => match value.value_kind() {
                    ValueKind::Lit(Literal::Bool(true)) => {}
                    ValueKind::Lit(Literal::Bool(false)) => return Ok(State::No),
                    _ => return Ok(State::Fails(WRONG_TYPE)),
                },
                Err(error) => return Ok(State::Fails(reason(&error))),
            }
        }
        Ok(State::Applies)
    }

    /// Without a schema: actions that it does not declare are asked for all the same.
    fn evaluator(
        &self,
        evidence: &Evidence,
        budget: &mut Budget,
    ) -> Result<Evaluator<'_>, OverBudget> {
        budget.charge(ASK_UNITS)?;
        let evidence = ("evidence", Value::record(fields(evidence), None));
        let facts = self.facts.iter().cloned().chain([evidence]);
        let context = match Value::record(facts, None).value {
            ValueKind::Record(facts) => Context::Value(facts),
            _ => Context::empty(),
        };
        let request = CedarRequest::new_unchecked(
            self.agent.clone(),
            self.action.clone(),
            self.resource.clone(),
            Some(context),
        );
        let extensions = Extensions::all_available();
        Ok(Evaluator::new(request, &self.entities, extensions))
    }
}

impl Program {
    /// Units that one request costs before anything is asked.
    pub(super) fn request_units(&self) -> u64 {
        REQUEST_UNITS + self.mentioned.iter().count() as u64
    }
}

const WRONG_TYPE: &str = "a value has a type that is not wanted there";

/// The reason for which a policy cannot be evaluated: in words of our own, because Cedar's may change
/// with its version and a finding must not.
const fn reason(error: &EvaluationError) -> &'static str {
    match error {
        EvaluationError::IntegerOverflow(_) => "integer overflow",
        EvaluationError::EntityDoesNotExist(_)
        | EvaluationError::EntityAttrDoesNotExist(_)
        | EvaluationError::RecordAttrDoesNotExist(_) => "reads something that is not there",
        EvaluationError::TypeError(_) => WRONG_TYPE,
        _ => "cannot be evaluated",
    }
}

fn fields(evidence: &Evidence) -> [(&'static str, Value); 9] {
    let count = |count: u32| Value::from(i64::from(count));
    [
        ("signed", Value::from(evidence.signed)),
        ("grant", Value::from(evidence.grant)),
        ("arguments", Value::from(evidence.arguments)),
        ("prompt", Value::from(evidence.prompt)),
        ("model", Value::from(evidence.model)),
        ("decision", Value::from(evidence.decision)),
        ("approvals", count(evidence.approvals)),
        (
            "approvals_multi_factor",
            count(evidence.approvals_multi_factor),
        ),
        (
            "approvals_phishing_resistant",
            count(evidence.approvals_phishing_resistant),
        ),
    ]
}

pub(super) const fn tier(tier: RiskTier) -> &'static str {
    match tier {
        RiskTier::Unspecified => "unspecified",
        RiskTier::Low => "low",
        RiskTier::Payment => "payment",
        RiskTier::CustomerCommunication => "customer_communication",
        RiskTier::Deployment => "deployment",
        RiskTier::Deletion => "deletion",
    }
}
