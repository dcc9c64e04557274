//! Policies taken apart, so that nothing is evaluated twice for one Intent.
//!
//! A policy's condition is a chain: its scope, then each `when` and `unless`. The links are kept in
//! their order, with what each of them reads and costs. What an Intent lacks is found by asking again
//! with other evidence; so the links before the first one that reads it are evaluated once
//! ([`Rule::fixed`], [`Rule::steady`]), and a policy that ends there is never looked at again.

use std::{collections::HashMap, sync::Arc};

use cedar_policy::PolicySet;
use cedar_policy_core::{
    ast::{self, BinaryOp, Entity, EntityType, EntityUID, Expr, ExprKind, Literal, PolicyID, Var},
    entities::{Entities, NoEntitiesSchema, TCComputation},
    extensions::Extensions,
};

use super::{
    Duties, Evidence, PolicyError, PolicyInfo,
    ask::Asks,
    cost::{self, Cost, TooDear},
};

/// All that is evaluated.
pub(super) struct Program {
    /// In the order of the text.
    pub(super) rules: Vec<Rule>,
    /// Declared actions whose groups some condition asks for, whoever acts.
    pub(super) mentioned: Entities,
    /// Declared actions.
    pub(super) declared: HashMap<EntityUID, Arc<Entity>>,
    pub(super) types: Types,
    /// The evidence that any condition reads.
    pub(super) reads: Fields,
    pub(super) reads_resource: bool,
    pub(super) asks: Asks,
}

/// The types of what Deed asks with.
pub(super) struct Types {
    pub(super) agent: EntityType,
    pub(super) action: EntityType,
    pub(super) resource: EntityType,
}

/// A policy.
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) permits: bool,
    pub(super) duties: Duties,
    /// It applies if all of them are true; they are evaluated in this order, up to the first that is
    /// not.
    pub(super) links: Vec<Link>,
    /// Number of links before the first that reads evidence.
    pub(super) fixed: usize,
    /// Number of links before the first that reads evidence that can still come.
    pub(super) steady: usize,
}

/// A part of a condition.
pub(super) struct Link {
    pub(super) expr: Expr,
    pub(super) cost: Cost,
    pub(super) reads: Fields,
    pub(super) reads_resource: bool,
}

/// Fields of [`Evidence`]; a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fields(u16);

impl Fields {
    /// As the policies name them, in the order of their bits.
    const NAMES: [&'static str; 9] = [
        "signed",
        "grant",
        "arguments",
        "prompt",
        "model",
        "decision",
        "approvals",
        "approvals_multi_factor",
        "approvals_phishing_resistant",
    ];
    const ALL: Self = Self((1 << Self::NAMES.len()) - 1);
    pub(super) const DECISION: Self = Self(1 << 5);
    pub(super) const APPROVALS: Self = Self(1 << 6);
    pub(super) const MULTI_FACTOR: Self = Self(1 << 7);
    pub(super) const PHISHING_RESISTANT: Self = Self(1 << 8);
    /// Evidence that can arrive after the Intent.
    const COMING: Self = Self(0b1_1110_0000);

    pub(super) fn named(name: &str) -> Option<Self> {
        let bit = Self::NAMES.iter().position(|known| *known == name)?;
        Some(Self(1 << bit))
    }

    pub(super) const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The same evidence, as if nothing was there of what is not read.
    pub(super) fn of(self, evidence: &Evidence) -> Evidence {
        let reads = |bit: u16| self.0 & (1 << bit) != 0;
        let count = |bit: u16, count: u32| if reads(bit) { count } else { 0 };
        Evidence {
            signed: evidence.signed && reads(0),
            grant: evidence.grant && reads(1),
            arguments: evidence.arguments && reads(2),
            prompt: evidence.prompt && reads(3),
            model: evidence.model && reads(4),
            decision: evidence.decision && reads(5),
            approvals: count(6, evidence.approvals),
            approvals_multi_factor: count(7, evidence.approvals_multi_factor),
            approvals_phishing_resistant: count(8, evidence.approvals_phishing_resistant),
        }
    }
}

impl Program {
    /// `policies` have the names of `infos`; `actions` are those that the schema declares.
    pub(super) fn new(
        policies: &PolicySet,
        infos: &[PolicyInfo],
        actions: &cedar_policy::Entities,
    ) -> Result<Self, PolicyError> {
        let types = Types::new()?;
        let syntax: &ast::PolicySet = policies.as_ref();
        let mut rules = Vec::with_capacity(infos.len());
        for info in infos {
            let Some(policy) = syntax.get(&PolicyID::from_string(&info.name)) else {
                continue;
            };
            rules.push(Rule::new(info, &policy.condition())?);
        }
        let declared: HashMap<_, _> = actions
            .as_ref()
            .iter()
            .map(|action| (action.uid().clone(), Arc::new(action.clone())))
            .collect();
        let links = || rules.iter().flat_map(|rule| &rule.links);
        let mut names = Vec::new();
        links().for_each(|link| looked_up(&link.expr, &mut names));
        names.sort_unstable();
        names.dedup();
        let mentioned = names.into_iter().filter_map(|name| declared.get(name));
        let mentioned = entities(&Entities::new(), mentioned.cloned())?;
        let reads = links().fold(Fields::default(), |all, link| all.with(link.reads));
        Ok(Self {
            asks: Asks::of(reads, links().map(|link| &link.expr)),
            reads_resource: links().any(|link| link.reads_resource),
            reads,
            mentioned,
            declared,
            types,
            rules,
        })
    }
}

impl Types {
    /// Cannot fail; a defect there must not become a panic here.
    fn new() -> Result<Self, PolicyError> {
        let named = |name: &str| {
            let parsed = name.parse::<EntityType>();
            parsed.map_err(|error| PolicyError::Schema(vec![error.to_string()]))
        };
        Ok(Self {
            agent: named("Agent")?,
            action: named("Action")?,
            resource: named("Resource")?,
        })
    }
}

impl Rule {
    fn new(info: &PolicyInfo, condition: &Expr) -> Result<Self, PolicyError> {
        let mut parts = Vec::new();
        flatten(condition, &mut parts);
        let mut links = Vec::with_capacity(parts.len());
        for expr in parts {
            let cost = cost::estimate(expr).map_err(|dear| match dear {
                TooDear::Like { pattern, steps } => PolicyError::Like {
                    policy: info.name.clone(),
                    pattern: super::shortened(&pattern),
                    steps,
                    max: cost::LIKE_STEPS_MAX,
                },
                TooDear::Set { found } => PolicyError::Set {
                    policy: info.name.clone(),
                    found,
                    max: cost::SET_ELEMENTS_MAX,
                },
            })?;
            let mut reads = Reads::default();
            reads.take(expr);
            links.push(Link {
                expr: expr.clone(),
                cost,
                reads: reads.evidence,
                reads_resource: reads.resource,
            });
        }
        let before = |fields: Fields| {
            let reads = |link: &Link| link.reads.overlaps(fields);
            links.iter().position(reads).unwrap_or(links.len())
        };
        Ok(Self {
            name: info.name.clone(),
            permits: info.permits,
            duties: info.duties,
            fixed: before(Fields::ALL),
            steady: before(Fields::COMING),
            links,
        })
    }

    /// Returns true if a link from `first` on reads the resource.
    pub(super) fn reads_resource_from(&self, first: usize) -> bool {
        let mut rest = self.links.iter().skip(first);
        rest.any(|link| link.reads_resource)
    }

    /// The tier that it is for, if a link that reads no evidence says so.
    pub(super) fn tier(&self) -> Option<&str> {
        self.fixed_equal(|expr| match expr.expr_kind() {
            ExprKind::GetAttr { expr, attr } => {
                attr == "tier" && matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
            }
            _ => false,
        })
    }

    /// The action that it is for, if a link that reads no evidence says so.
    pub(super) fn action(&self) -> Option<&str> {
        self.fixed_equal(|expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Action)))
    }

    /// The text or name that something must be equal to.
    fn fixed_equal(&self, is_it: impl Fn(&Expr) -> bool) -> Option<&str> {
        self.links[..self.fixed].iter().find_map(|link| {
            let ExprKind::BinaryApp {
                op: BinaryOp::Eq,
                arg1,
                arg2,
            } = link.expr.expr_kind()
            else {
                return None;
            };
            let other = if is_it(arg1) {
                arg2
            } else if is_it(arg2) {
                arg1
            } else {
                return None;
            };
            match other.expr_kind() {
                ExprKind::Lit(Literal::String(text)) => Some(text.as_str()),
                ExprKind::Lit(Literal::EntityUID(uid)) => Some(name_of(uid)),
                _ => None,
            }
        })
    }
}

/// The parts of a request that an expression reads.
#[derive(Default)]
struct Reads {
    evidence: Fields,
    resource: bool,
}

impl Reads {
    fn take(&mut self, expr: &Expr) {
        match read(expr) {
            Read::Fields(fields) => self.evidence = self.evidence.with(fields),
            Read::Nothing => {}
            Read::Parts => {
                self.resource |= matches!(expr.expr_kind(), ExprKind::Var(Var::Resource));
                children(expr, &mut |part| self.take(part));
            }
        }
    }
}

/// The facts that an expression reads.
pub(super) enum Read {
    /// This evidence, and nothing else.
    Fields(Fields),
    /// A fact that does not depend on the evidence.
    Nothing,
    /// As much as its parts read.
    Parts,
}

pub(super) fn read(expr: &Expr) -> Read {
    match expr.expr_kind() {
        // All of them, as one value.
        ExprKind::Var(Var::Context) => Read::Fields(Fields::ALL),
        // Which facts there are does not depend on the evidence.
        ExprKind::HasAttr { expr, .. } | ExprKind::ExtHasAttr { expr, .. }
            if is_context(expr) || is_evidence(expr) =>
        {
            Read::Nothing
        }
        ExprKind::GetAttr { expr: of, attr } if is_evidence(of) => {
            Read::Fields(Fields::named(attr).unwrap_or(Fields::ALL))
        }
        ExprKind::GetAttr { expr: of, attr } if is_context(of) => {
            if attr == "evidence" {
                Read::Fields(Fields::ALL)
            } else {
                Read::Nothing
            }
        }
        _ => Read::Parts,
    }
}

fn is_context(expr: &Expr) -> bool {
    matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
}

fn is_evidence(expr: &Expr) -> bool {
    matches!(expr.expr_kind(), ExprKind::GetAttr { expr, attr } if attr == "evidence" && is_context(expr))
}

/// The parts of an expression, one level down.
pub(super) fn children<'e>(expr: &'e Expr, visit: &mut dyn FnMut(&'e Expr)) {
    match expr.expr_kind() {
        ExprKind::Lit(_) | ExprKind::Var(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => {}
        ExprKind::If {
            test_expr,
            then_expr,
            else_expr,
        } => {
            visit(test_expr);
            visit(then_expr);
            visit(else_expr);
        }
        ExprKind::And { left, right } | ExprKind::Or { left, right } => {
            visit(left);
            visit(right);
        }
        ExprKind::BinaryApp { arg1, arg2, .. } => {
            visit(arg1);
            visit(arg2);
        }
        ExprKind::UnaryApp { arg: expr, .. }
        | ExprKind::GetAttr { expr, .. }
        | ExprKind::HasAttr { expr, .. }
        | ExprKind::ExtHasAttr { expr, .. }
        | ExprKind::Like { expr, .. }
        | ExprKind::Is { expr, .. } => visit(expr),
        ExprKind::ExtensionFunctionApp { args, .. } => args.iter().for_each(visit),
        ExprKind::Set(elements) => elements.iter().for_each(visit),
        ExprKind::Record(fields) => fields.values().for_each(visit),
    }
}

/// The links of a chain of `&&`, in their order; what is always true is none.
fn flatten<'e>(expr: &'e Expr, links: &mut Vec<&'e Expr>) {
    match expr.expr_kind() {
        ExprKind::And { left, right } => {
            flatten(left, links);
            flatten(right, links);
        }
        ExprKind::Lit(Literal::Bool(true)) => {}
        _ => links.push(expr),
    }
}

/// Names of the entities that an expression looks up, beyond comparing them.
fn looked_up<'e>(expr: &'e Expr, names: &mut Vec<&'e EntityUID>) {
    match expr.expr_kind() {
        ExprKind::Lit(Literal::EntityUID(uid)) => names.push(uid),
        ExprKind::BinaryApp {
            op: BinaryOp::In,
            arg1,
            arg2,
        } => {
            looked_up(arg1, names);
            if !is_names(arg2) {
                looked_up(arg2, names);
            }
        }
        ExprKind::BinaryApp {
            op: BinaryOp::Eq,
            arg1,
            arg2,
        } => {
            for arg in [arg1, arg2] {
                if !is_names(arg) {
                    looked_up(arg, names);
                }
            }
        }
        _ => children(expr, &mut |part| looked_up(part, names)),
    }
}

/// Returns true for a name that is written out, and for a set of them.
fn is_names(expr: &Expr) -> bool {
    match expr.expr_kind() {
        ExprKind::Lit(_) => true,
        ExprKind::Set(elements) => elements.iter().all(is_names),
        _ => false,
    }
}

fn name_of(uid: &EntityUID) -> &str {
    uid.eid().as_ref()
}

/// Adds entities that belong to no group, or whose groups are written out in full.
pub(super) fn entities(
    to: &Entities,
    added: impl IntoIterator<Item = Arc<Entity>>,
) -> Result<Entities, PolicyError> {
    to.clone()
        .add_entities(
            added,
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        )
        .map_err(|error| PolicyError::Schema(vec![error.to_string()]))
}
