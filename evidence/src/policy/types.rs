//! The size to which the types of a schema grow.
//!
//! Cedar writes the types that a schema names out wherever they are used. A few lines can stand
//! for more than any memory holds (`type B = { x: A, y: A }; type C = { x: B, y: B }; ...`), so
//! their size is found first, each name once.

use std::collections::{HashMap, hash_map::Entry};

use cedar_policy::SchemaFragment;
use serde_json::Value;

use super::{PolicyError, diagnostics, nesting::DEPTH_MAX};

/// Most nodes of all types together when they are written out. A context like that of the default
/// schema has about 50, so that hundreds of actions fit.
const NODES_MAX: u64 = 65_536;

/// Cedar's JSON form has two levels for a record in a record: the type and its attributes.
const LEVELS_MAX: usize = 2 * DEPTH_MAX;

#[derive(Clone, Copy)]
struct Size {
    nodes: u64,
    levels: usize,
}

/// Refuses schemas whose types grow too large or too deep. Returns how many parts the largest type
/// has.
pub(super) fn check(text: &str) -> Result<u64, PolicyError> {
    let (fragment, _) = SchemaFragment::from_cedarschema_str(text)
        .map_err(|error| PolicyError::Schema(diagnostics::list(text, [&error])))?;
    let schema = fragment
        .to_json_value()
        .map_err(|error| PolicyError::Schema(diagnostics::list(text, [&error])))?;
    let mut sizes = Sizes {
        types: HashMap::new(),
        known: HashMap::new(),
    };
    let namespaces = schema.as_object().into_iter().flatten();
    for (_, namespace) in namespaces {
        let types = namespace.get("commonTypes").and_then(Value::as_object);
        for (name, of) in types.into_iter().flatten() {
            sizes.types.entry(name).or_default().push(of);
        }
    }
    sizes.of(&schema, 0)?;
    let mut largest = 0;
    let namespaces = schema.as_object().into_iter().flatten();
    for (_, namespace) in namespaces {
        for kind in ["commonTypes", "entityTypes", "actions"] {
            let declared = namespace.get(kind).and_then(Value::as_object);
            for (_, of) in declared.into_iter().flatten() {
                largest = largest.max(sizes.of(of, 0)?.nodes);
            }
        }
    }
    Ok(largest)
}

struct Sizes<'a> {
    /// By their last names: of two namespaces that have the same one, both count.
    types: HashMap<&'a str, Vec<&'a Value>>,
    /// None while it is being found.
    known: HashMap<&'a str, Option<Size>>,
}

impl<'a> Sizes<'a> {
    /// Size of a part of the schema that is `above` levels down.
    fn of(&mut self, part: &'a Value, above: usize) -> Result<Size, PolicyError> {
        const TOO_LARGE: PolicyError = PolicyError::Types {
            nodes_max: NODES_MAX,
            levels_max: DEPTH_MAX,
        };
        // On the way down: names lead deeper than any text is nested, and the stack has an end.
        let mut size = Size {
            nodes: 1,
            levels: 1,
        };
        let mut add = |inner: Size| {
            size.nodes = size.nodes.saturating_add(inner.nodes);
            size.levels = size.levels.max(inner.levels + 1);
            if size.nodes > NODES_MAX || above + size.levels > LEVELS_MAX {
                return Err(TOO_LARGE);
            }
            Ok(())
        };
        match part {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (&**key, value) {
                        ("type" | "name", Value::String(name)) => {
                            add(self.of_name(name, above + 1)?)?;
                        }
                        (_, value) => add(self.of(value, above + 1)?)?,
                    }
                }
            }
            Value::Array(elements) => {
                for element in elements {
                    add(self.of(element, above + 1)?)?;
                }
            }
            _ => {}
        }
        Ok(size)
    }

    fn of_name(&mut self, name: &'a str, above: usize) -> Result<Size, PolicyError> {
        let name = name.rsplit("::").next().unwrap_or(name);
        let none = Size {
            nodes: 0,
            levels: 0,
        };
        if !self.types.contains_key(name) {
            return Ok(none);
        }
        match self.known.entry(name) {
            // A type in itself is none: left to Cedar, which says so.
            Entry::Occupied(known) => return Ok(known.get().unwrap_or(none)),
            Entry::Vacant(vacant) => vacant.insert(None),
        };
        let mut size = none;
        for of in self.types.get(name).cloned().unwrap_or_default() {
            let one = self.of(of, above)?;
            size.nodes = size.nodes.saturating_add(one.nodes);
            size.levels = size.levels.max(one.levels);
        }
        self.known.insert(name, Some(size));
        Ok(size)
    }
}
