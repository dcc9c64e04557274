//! One question to Cedar.

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityUid, RestrictedExpression,
};
use deed_proto::v1::RiskTier;

use super::{Duties, Evidence, Request, compile::Compiled};

/// What Cedar answered.
pub(super) enum Answer {
    /// Yes, with what the permits ask for.
    Allow(Duties),
    /// No; the forbids that said so, sorted, or none if no permit said yes.
    Deny(Vec<String>),
    /// Some policies could not be evaluated: sorted. Whatever Cedar made of the others.
    Error(Vec<String>),
}

/// A request that is asked for again and again with other evidence.
pub(super) struct Question<'a> {
    compiled: &'a Compiled,
    request: &'a Request<'a>,
    agent: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    entities: Entities,
}

impl<'a> Question<'a> {
    /// The error is a sorted list of diagnostics.
    pub(super) fn new(
        compiled: &'a Compiled,
        request: &'a Request<'a>,
    ) -> Result<Self, Vec<String>> {
        let types = &compiled.types;
        // Built, never parsed: the texts come from the network.
        let uid = |name: &cedar_policy::EntityTypeName, id: &str| {
            EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
        };
        let agent = uid(&types.agent, request.agent);
        let resource = uid(&types.resource, request.resource);
        let entity = |uid: &EntityUid, attribute: Option<(&str, &str)>| {
            let attribute = attribute.map(|(key, value)| (key.to_owned(), text(value)));
            Entity::new(uid.clone(), attribute.into_iter().collect(), [].into())
                .map_err(|error| vec![error.to_string()])
        };
        let controller = request.controller.map(|name| ("controller", name));
        let added = [
            entity(&agent, controller)?,
            entity(&resource, Some(("name", request.resource)))?,
        ];
        let entities = compiled.actions.clone().add_entities(added, None);
        Ok(Self {
            compiled,
            request,
            agent,
            action: uid(&types.action, request.action),
            resource,
            entities: entities.map_err(|error| vec![error.to_string()])?,
        })
    }

    /// Asks with this evidence instead of the request's own.
    pub(super) fn ask(&self, evidence: &Evidence) -> Answer {
        let request = match self.cedar_request(evidence) {
            Ok(request) => request,
            Err(error) => return Answer::Error(vec![error]),
        };
        let answer =
            Authorizer::new().is_authorized(&request, &self.compiled.policies, &self.entities);
        let diagnostics = answer.diagnostics();
        let mut errors: Vec<_> = diagnostics.errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            errors.sort();
            return Answer::Error(errors);
        }
        let reasons = diagnostics.reason().map(AsRef::<str>::as_ref);
        match answer.decision() {
            Decision::Allow => {
                let duties = reasons.filter_map(|name| self.compiled.duties.get(name));
                Answer::Allow(duties.fold(Duties::default(), |all, one| all.and(*one)))
            }
            Decision::Deny => {
                let mut reasons: Vec<_> = reasons.map(ToOwned::to_owned).collect();
                reasons.sort();
                Answer::Deny(reasons)
            }
        }
    }

    /// The duties of an allow; none for anything else.
    pub(super) fn allows(&self, evidence: &Evidence) -> Option<Duties> {
        match self.ask(evidence) {
            Answer::Allow(duties) => Some(duties),
            Answer::Deny(_) | Answer::Error(_) => None,
        }
    }

    /// Without a schema: actions that it does not declare are asked for all the same.
    fn cedar_request(&self, evidence: &Evidence) -> Result<cedar_policy::Request, String> {
        let mut facts = vec![
            ("tier", text(tier(self.request.tier))),
            ("evidence", record(evidence_fields(evidence))?),
        ];
        if let Some((minor_units, currency)) = self.request.amount {
            let amount = [
                ("minor_units", RestrictedExpression::new_long(minor_units)),
                ("currency", text(currency)),
            ];
            facts.push(("amount", record(amount)?));
        }
        let facts = facts
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        let context = Context::from_pairs(facts).map_err(|error| error.to_string())?;
        let (agent, action) = (self.agent.clone(), self.action.clone());
        cedar_policy::Request::new(agent, action, self.resource.clone(), context, None)
            .map_err(|error| error.to_string())
    }
}

fn evidence_fields(evidence: &Evidence) -> [(&'static str, RestrictedExpression); 9] {
    let flag = RestrictedExpression::new_bool;
    let count = |count: u32| RestrictedExpression::new_long(i64::from(count));
    [
        ("signed", flag(evidence.signed)),
        ("grant", flag(evidence.grant)),
        ("arguments", flag(evidence.arguments)),
        ("prompt", flag(evidence.prompt)),
        ("model", flag(evidence.model)),
        ("decision", flag(evidence.decision)),
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

fn record(
    fields: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
) -> Result<RestrictedExpression, String> {
    let fields = fields.into_iter();
    RestrictedExpression::new_record(fields.map(|(key, value)| (key.to_owned(), value)))
        .map_err(|error| error.to_string())
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn tier(tier: RiskTier) -> &'static str {
    match tier {
        RiskTier::Unspecified => "unspecified",
        RiskTier::Low => "low",
        RiskTier::Payment => "payment",
        RiskTier::CustomerCommunication => "customer_communication",
        RiskTier::Deployment => "deployment",
        RiskTier::Deletion => "deletion",
    }
}
