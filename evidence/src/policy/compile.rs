//! From two texts to policies that can be asked.

use std::collections::BTreeSet;

use cedar_policy::{
    Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator, ffi::DetailedError,
};
use cedar_policy_core::ast::{self, ExprKind, Var};

use super::{
    Duties, POLICIES_BYTES_MAX, POLICIES_MAX, PolicyCost, PolicyError, SCHEMA_BYTES_MAX, bound,
    diagnostics,
    nesting::{self, DEPTH_MAX, Syntax},
    program::Program,
    types,
};

/// Most combinations of principal, action and resource: each policy is checked for each. With Agent
/// and Resource alone, so many actions.
const COMBINATIONS_MAX: usize = 256;

/// Most work of checking the policies under the schema: about a fifth of a second.
const CHECK_UNITS_MAX: u64 = 4_000_000;

/// Cedar's work for each part of an expression, in copies of a part of a type.
const PART_UNITS: u64 = 16;

/// Longest `@id`, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A policy of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInfo {
    /// Its `@id`; where it has none `policy` and its place in the text, from 0 on.
    pub name: String,
    /// True if it permits; otherwise it forbids.
    pub permits: bool,
    /// The duties that it asks for after the act.
    pub duties: Duties,
}

/// Everything that judging needs.
pub(super) struct Compiled {
    pub(super) policies_text: String,
    pub(super) schema_text: String,
    pub(super) digest: [u8; 32],
    pub(super) infos: Vec<PolicyInfo>,
    pub(super) warnings: Vec<String>,
    pub(super) program: Program,
    pub(super) cost: PolicyCost,
}

impl Compiled {
    pub(super) fn new(policies_text: &str, schema_text: &str) -> Result<Self, PolicyError> {
        check_bounds(policies_text, schema_text)?;
        let (schema, largest_type) = parse_schema(schema_text)?;
        let (policies, infos) = parse_policies(policies_text)?;
        let actions = schema
            .action_entities()
            .map_err(|error| PolicyError::Schema(diagnostics::list(schema_text, [&error])))?;
        check_work(&policies, &schema, largest_type)?;
        let warnings = validate(policies_text, &policies, schema)?;
        let program = Program::new(&policies, &infos, &actions)?;
        Ok(Self {
            digest: super::digest(policies_text, schema_text),
            policies_text: policies_text.to_owned(),
            schema_text: schema_text.to_owned(),
            infos,
            warnings,
            cost: bound::check(&program)?,
            program,
        })
    }
}

fn check_bounds(policies: &str, schema: &str) -> Result<(), PolicyError> {
    if policies.is_empty() || policies.len() > POLICIES_BYTES_MAX {
        return Err(PolicyError::PoliciesLength {
            found: policies.len(),
            max: POLICIES_BYTES_MAX,
        });
    }
    if schema.is_empty() || schema.len() > SCHEMA_BYTES_MAX {
        return Err(PolicyError::SchemaLength {
            found: schema.len(),
            max: SCHEMA_BYTES_MAX,
        });
    }
    for (text, of, syntax) in [
        ("an expression of the policies", policies, Syntax::Policies),
        ("a type of the schema", schema, Syntax::Schema),
    ] {
        let found = nesting::depth(of, syntax, DEPTH_MAX);
        if found > DEPTH_MAX {
            return Err(PolicyError::Nesting {
                text,
                is_schema: syntax == Syntax::Schema,
                found,
                max: DEPTH_MAX,
            });
        }
    }
    Ok(())
}

/// The schema, and how many parts its largest type has.
fn parse_schema(text: &str) -> Result<(Schema, u64), PolicyError> {
    let largest_type = types::check(text)?;
    let (schema, _) = Schema::from_cedarschema_str(text)
        .map_err(|error| PolicyError::Schema(diagnostics::list(text, [&error])))?;
    // Lazily: a schema of many entity types has millions of them.
    if schema.request_envs().nth(COMBINATIONS_MAX).is_some() {
        let max = COMBINATIONS_MAX;
        return Err(PolicyError::Combinations { max });
    }
    Ok((schema, largest_type))
}

/// Bounds the work of the validator: it looks at each part of each policy for each combination, and
/// copies the type of the context wherever that is mentioned.
fn check_work(policies: &PolicySet, schema: &Schema, largest_type: u64) -> Result<(), PolicyError> {
    let combinations = schema.request_envs().count() as u64;
    let syntax: &ast::PolicySet = policies.as_ref();
    let mut found: u64 = 0;
    for policy in syntax.policies() {
        let condition = policy.condition();
        let units = condition.subexpressions().map(|part| {
            match part.expr_kind() {
                // Copied, and the type of what is read of it.
                ExprKind::Var(Var::Context) => PART_UNITS + 2 * largest_type,
                _ => PART_UNITS,
            }
        });
        let units: u64 = units.sum();
        found = found.saturating_add(units.saturating_mul(combinations));
    }
    if found > CHECK_UNITS_MAX {
        return Err(PolicyError::Check {
            found,
            max: CHECK_UNITS_MAX,
            combinations,
            largest_type,
        });
    }
    Ok(())
}

fn parse_policies(text: &str) -> Result<(PolicySet, Vec<PolicyInfo>), PolicyError> {
    let parsed: PolicySet = text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        PolicyError::Policies(diagnostics::list(text, errors.iter()))
    })?;
    let mut templates: Vec<_> = parsed.templates().map(name_of_template).collect();
    if !templates.is_empty() {
        templates.sort();
        return Err(PolicyError::Templates(templates));
    }
    let found = parsed.num_of_policies();
    if !(1..=POLICIES_MAX).contains(&found) {
        let max = POLICIES_MAX;
        return Err(PolicyError::Count { found, max });
    }
    let mut policies: Vec<_> = parsed.policies().collect();
    policies.sort_by_key(|policy| place_of(policy.id()));
    let (mut infos, mut named, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for policy in policies {
        match info_of(policy) {
            Ok(info) if !names.insert(info.name.clone()) => {
                wrong.push(format!("{}: two policies have this @id", info.name));
            }
            Ok(info) => {
                named.push(policy.new_id(PolicyId::new(&info.name)));
                infos.push(info);
            }
            Err(mut of_this) => wrong.append(&mut of_this),
        }
    }
    if !wrong.is_empty() {
        wrong.sort();
        wrong.dedup();
        return Err(PolicyError::Annotations(wrong));
    }
    let policies = PolicySet::from_policies(named)
        .map_err(|error| PolicyError::Policies(diagnostics::list(text, [&error])))?;
    Ok((policies, infos))
}

/// Reads the annotations of a policy. All that is wrong with them, if anything is.
fn info_of(policy: &Policy) -> Result<PolicyInfo, Vec<String>> {
    let name = policy.annotation("id").unwrap_or(policy.id().as_ref());
    let permits = policy.effect() == Effect::Permit;
    let mut duties = Duties::default();
    let mut wrong = Vec::new();
    for (key, value) in policy.annotations() {
        let read = match key {
            "id" => check_name(value),
            "description" => Ok(()),
            "keep" | "corroborate" if !permits => Err(format!(
                "@{key} belongs on a permit: only what may happen has duties"
            )),
            "keep" => duties.keep(value),
            "corroborate" => duties.corroborate(value),
            // Refused, because a duty whose name is misspelt would be gone without a word.
            _ => Err(format!(
                "@{key} is unknown; there are @id, @description, @keep and @corroborate"
            )),
        };
        if let Err(what) = read {
            wrong.push(format!("{}: {what}", name.escape_debug()));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(PolicyInfo {
        name: name.to_owned(),
        permits,
        duties,
    })
}

fn check_name(name: &str) -> Result<(), String> {
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || crate::name::has_unseen(name) {
        return Err(format!(
            "@id wants 1 to {NAME_BYTES_MAX} bytes, and no characters that cannot be seen"
        ));
    }
    Ok(())
}

fn name_of_template(template: &cedar_policy::Template) -> String {
    let name = template.annotation("id").unwrap_or(template.id().as_ref());
    name.escape_debug().to_string()
}

/// Cedar's parser numbers policies in the order of the text: `policy0`, `policy1`, and so on.
fn place_of(id: &PolicyId) -> (usize, String) {
    let id: &str = id.as_ref();
    let number = id.strip_prefix("policy").and_then(|n| n.parse().ok());
    (number.unwrap_or(usize::MAX), id.to_owned())
}

/// Cedar's warnings.
fn validate(text: &str, policies: &PolicySet, schema: Schema) -> Result<Vec<String>, PolicyError> {
    let result = Validator::new(schema).validate(policies, ValidationMode::Strict);
    if result.validation_passed() {
        let warnings = result.validation_warnings().map(DetailedError::from);
        return Ok(diagnostics::list(text, warnings));
    }
    let errors = result.validation_errors().map(DetailedError::from);
    Err(PolicyError::Invalid(diagnostics::list(text, errors)))
}
