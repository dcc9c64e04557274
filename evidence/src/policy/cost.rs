//! The cost of judging, counted in units.
//!
//! Policies are their owner's text, and are evaluated in the step, where their ledger waits and a
//! thread of the shard is taken. So work is counted twice. When a set is compiled, [`estimate`] gives
//! each condition a cost for the longest texts that an Intent can bring, and a set whose dearest
//! Intent would cost more than [`JUDGEMENT_UNITS_MAX`] is refused. When an Intent is judged, each
//! condition that is evaluated is charged to a [`Budget`] of as many units, at the lengths that the
//! Intent has; an Intent that uses it up is denied. (Only effects that an Intent expects on further
//! resources can take it that far.)
//!
//! Both numbers follow from the texts and the request alone, never from a clock: they are part of the
//! rules, and every replay comes to them. docs/policies.md tells owners what counts how much.
//!
//! A unit is about what Cedar takes for one node of a syntax tree, some 60 ns on a server of today; a
//! step is a comparison of one character, of which a unit has [`STEPS_PER_UNIT`].

use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal, Pattern, PatternElem, Var};

use super::Request;

/// Most units that judging one Intent costs, whatever it says: about 128 us, so that the shortest
/// Decision costs no more than statements may (ARCHITECTURE.md, "Budgets").
pub const JUDGEMENT_UNITS_MAX: u64 = 2_048;

/// Most steps of one `like` on the longest text that it can meet.
pub const LIKE_STEPS_MAX: u64 = 65_536;

/// Most elements of a set that is written out.
pub const SET_ELEMENTS_MAX: usize = 256;

/// Most evaluations that one Intent can call for while it is found out what it lacks.
pub const ASKS_MAX: u64 = 24;

/// Building what is asked about: entities with their names.
pub(super) const REQUEST_UNITS: u64 = 16;

/// Building the facts of one evaluation.
pub(super) const ASK_UNITS: u64 = 24;

const STEPS_PER_UNIT: u64 = 64;

/// Longest text of a request that is no resource and no agent, in bytes.
const TIER_BYTES_MAX: u64 = 22;
const CURRENCY_BYTES_MAX: u64 = 16;

/// Units for a value that is compared, hashed or put into a set, if its size is not written
/// in the text: the whole of the facts, or the longest name.
const VALUE_UNITS: u64 = 16;

/// Units for an extension function. There are none in this build.
const EXTENSION_UNITS: u64 = 64;

/// Lengths of a request's texts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) resource: u64,
    /// Of its name or its controller, whichever is longer.
    pub(super) agent: u64,
}

impl Lengths {
    /// The longest that a statement has room for (deed_evidence::schema).
    pub(super) const LONGEST: Self = Self {
        resource: 1_024,
        agent: 512,
    };

    pub(super) fn of(request: &Request<'_>) -> Self {
        let controller = request.controller.unwrap_or_default();
        Self {
            resource: request.resource.len() as u64,
            agent: request.agent.len().max(controller.len()) as u64,
        }
    }
}

/// The cost of an expression each time that it is evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    units: u64,
    /// Steps for each byte of the resource's name.
    resource_steps: u64,
    /// Steps for each byte of the agent's name or controller.
    agent_steps: u64,
}

impl Cost {
    /// In units, for a request with texts of these lengths.
    pub(super) fn of(&self, lengths: Lengths) -> u64 {
        let steps = self.resource_steps * lengths.resource + self.agent_steps * lengths.agent;
        self.units + steps.div_ceil(STEPS_PER_UNIT)
    }

    fn add(&mut self, other: Self) {
        self.units += other.units;
        self.resource_steps += other.resource_steps;
        self.agent_steps += other.agent_steps;
    }
}

/// A single expression that no policy may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TooDear {
    Like { pattern: String, steps: u64 },
    Set { found: usize },
}

/// Units that are left for one Intent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    left: u64,
}

/// The budget of an Intent is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverBudget;

impl Budget {
    pub(super) const fn new() -> Self {
        Self {
            left: JUDGEMENT_UNITS_MAX,
        }
    }

    /// Takes units before they are spent.
    pub(super) fn charge(&mut self, units: u64) -> Result<(), OverBudget> {
        match self.left.checked_sub(units) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(OverBudget)
            }
        }
    }

    pub(super) const fn spent(&self) -> u64 {
        JUDGEMENT_UNITS_MAX - self.left
    }
}

/// The cost of an expression: an upper bound of the work of Cedar's evaluator, which looks at no
/// part of it twice. Both branches of an `if` count, and both sides of `&&` and `||`.
pub(super) fn estimate(expr: &Expr) -> Result<Cost, TooDear> {
    let mut cost = Cost {
        units: 1,
        ..Cost::default()
    };
    match expr.expr_kind() {
        ExprKind::Lit(literal) => cost.units = literal_size(literal),
        ExprKind::Var(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => {}
        ExprKind::If {
            test_expr,
            then_expr,
            else_expr,
        } => {
            for part in [test_expr, then_expr, else_expr] {
                cost.add(estimate(part)?);
            }
        }
        ExprKind::And { left, right } | ExprKind::Or { left, right } => {
            cost.add(estimate(left)?);
            cost.add(estimate(right)?);
        }
        ExprKind::UnaryApp { arg, .. } => cost.add(estimate(arg)?),
        ExprKind::BinaryApp { op, arg1, arg2 } => {
            cost.add(estimate(arg1)?);
            cost.add(estimate(arg2)?);
            cost.add(operator(*op, arg1, arg2));
        }
        ExprKind::ExtensionFunctionApp { args, .. } => {
            cost.units += EXTENSION_UNITS;
            for arg in args.iter() {
                cost.add(estimate(arg)?);
                cost.units += size(arg);
            }
        }
        ExprKind::GetAttr { expr, .. } | ExprKind::HasAttr { expr, .. } => {
            cost.add(estimate(expr)?);
            cost.add(dereference(expr));
        }
        ExprKind::ExtHasAttr { expr, attrs } => {
            cost.add(estimate(expr)?);
            cost.add(dereference(expr));
            cost.units += attrs.len() as u64;
        }
        ExprKind::Like { expr, pattern } => {
            cost.add(estimate(expr)?);
            cost.add(like(expr, pattern)?);
        }
        ExprKind::Is { expr, .. } => cost.add(estimate(expr)?),
        ExprKind::Set(elements) => {
            let found = elements.len();
            if found > SET_ELEMENTS_MAX {
                return Err(TooDear::Set { found });
            }
            // It is built anew each time: sorted, and hashed if it holds literals only.
            let each = 2 + bits(found as u64);
            for element in elements.iter() {
                cost.add(estimate(element)?);
                cost.units += size(element) * each;
            }
        }
        ExprKind::Record(fields) => {
            for field in fields.values() {
                cost.add(estimate(field)?);
                cost.units += 2;
            }
        }
    }
    Ok(cost)
}

/// The cost of an operator by the values of its two sides.
fn operator(op: BinaryOp, arg1: &Expr, arg2: &Expr) -> Cost {
    let units = match op {
        BinaryOp::Less | BinaryOp::LessEq | BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => 0,
        // A literal differs from anything larger at first sight.
        BinaryOp::Eq if is_literal(arg1) || is_literal(arg2) => 0,
        BinaryOp::Eq => size(arg1) + size(arg2),
        BinaryOp::In => 2 * size(arg2),
        BinaryOp::Contains => size(arg2) * (1 + bits(size(arg1))),
        BinaryOp::ContainsAll | BinaryOp::ContainsAny => {
            let both = size(arg1) + size(arg2);
            both * (1 + bits(both))
        }
        BinaryOp::GetTag | BinaryOp::HasTag => size(arg2),
    };
    let mut cost = Cost {
        units,
        ..Cost::default()
    };
    if matches!(op, BinaryOp::In | BinaryOp::GetTag | BinaryOp::HasTag) {
        cost.add(dereference(arg1));
    }
    cost
}

/// Looking up an entity: its name is hashed. The facts of the context are no entities.
fn dereference(of: &Expr) -> Cost {
    let mut cost = Cost::default();
    match root(of) {
        Some(Var::Context) => {}
        Some(Var::Principal) => cost.agent_steps = 1,
        Some(Var::Resource) => cost.resource_steps = 1,
        // Up to 256 bytes.
        Some(Var::Action) => cost.units = 4,
        None => cost.units = VALUE_UNITS + size(of),
    }
    cost
}

/// The variable that attributes are read of; `None` if it is something else.
fn root(expr: &Expr) -> Option<Var> {
    match expr.expr_kind() {
        ExprKind::Var(var) => Some(*var),
        ExprKind::GetAttr { expr, .. } => root(expr),
        _ => None,
    }
}

/// The greatest size of an expression's value.
fn size(expr: &Expr) -> u64 {
    match expr.expr_kind() {
        ExprKind::Lit(literal) => literal_size(literal),
        ExprKind::Var(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => VALUE_UNITS,
        ExprKind::GetAttr { expr, .. } => match root(expr) {
            Some(_) => VALUE_UNITS,
            None => VALUE_UNITS + size(expr),
        },
        ExprKind::If {
            then_expr,
            else_expr,
            ..
        } => size(then_expr) + size(else_expr),
        ExprKind::Set(elements) => 1 + elements.iter().map(size).sum::<u64>(),
        ExprKind::Record(fields) => 1 + fields.values().map(|field| 1 + size(field)).sum::<u64>(),
        ExprKind::BinaryApp {
            op: BinaryOp::GetTag,
            ..
        }
        | ExprKind::ExtensionFunctionApp { .. } => VALUE_UNITS,
        // Truths and numbers.
        ExprKind::And { .. }
        | ExprKind::Or { .. }
        | ExprKind::UnaryApp { .. }
        | ExprKind::BinaryApp { .. }
        | ExprKind::HasAttr { .. }
        | ExprKind::ExtHasAttr { .. }
        | ExprKind::Like { .. }
        | ExprKind::Is { .. } => 1,
    }
}

fn is_literal(expr: &Expr) -> bool {
    matches!(expr.expr_kind(), ExprKind::Lit(_))
}

fn literal_size(literal: &Literal) -> u64 {
    let bytes = match literal {
        Literal::Bool(_) | Literal::Long(_) => 0,
        Literal::String(text) => text.len(),
        Literal::EntityUID(uid) => {
            let name: &str = uid.eid().as_ref();
            name.len()
        }
    };
    1 + bytes as u64 / STEPS_PER_UNIT
}

/// Matching copies the text, and goes through it once; behind a `*` that something follows, what
/// follows is tried at each place.
fn like(text: &Expr, pattern: &Pattern) -> Result<Cost, TooDear> {
    let elements = pattern.get_elems();
    let mut parts = elements.split(|element| matches!(element, PatternElem::Wildcard));
    let _before_the_first = parts.next();
    let longest = parts.map(<[PatternElem]>::len).max().unwrap_or(0) as u64;
    let each = if longest == 0 { 1 } else { longest + 2 };
    let once = 2 * elements.len() as u64;
    let subject = subject(text);
    let steps = once + each * subject.bytes_max();
    if steps > LIKE_STEPS_MAX {
        let pattern = pattern.to_string();
        return Err(TooDear::Like { pattern, steps });
    }
    let mut cost = Cost::default();
    match subject {
        Subject::Resource => cost.resource_steps = each,
        Subject::Agent => cost.agent_steps = each,
        Subject::Other(bytes) => cost.units = (each * bytes).div_ceil(STEPS_PER_UNIT),
    }
    cost.units += once.div_ceil(STEPS_PER_UNIT);
    Ok(cost)
}

/// The kind of text that a pattern is matched with.
#[derive(Clone, Copy)]
enum Subject {
    Resource,
    Agent,
    /// Anything else, of so many bytes at most.
    Other(u64),
}

impl Subject {
    const fn bytes_max(self) -> u64 {
        match self {
            Self::Resource => Lengths::LONGEST.resource,
            Self::Agent => Lengths::LONGEST.agent,
            Self::Other(bytes) => bytes,
        }
    }
}

fn subject(text: &Expr) -> Subject {
    if let ExprKind::GetAttr { expr, attr } = text.expr_kind() {
        match (root(expr), attr.as_str()) {
            (Some(Var::Resource), "name") => return Subject::Resource,
            (Some(Var::Principal), "controller") => return Subject::Agent,
            (Some(Var::Context), "tier") => return Subject::Other(TIER_BYTES_MAX),
            (Some(Var::Context), "currency") => return Subject::Other(CURRENCY_BYTES_MAX),
            _ => {}
        }
    }
    let literals = text.subexpressions().map(|part| match part.expr_kind() {
        ExprKind::Lit(Literal::String(text)) => text.len() as u64,
        _ => 0,
    });
    let longest = Lengths::LONGEST.resource;
    Subject::Other(literals.fold(longest, u64::max))
}

/// Binary digits of a number: comparisons to find a place among so many.
const fn bits(number: u64) -> u64 {
    (u64::BITS - number.leading_zeros()) as u64
}
