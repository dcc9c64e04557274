//! The layers of a configuration. Each gives values to some settings, and knows their sources.

use std::{collections::BTreeMap, fmt, fs, io, path::Path, path::PathBuf};

use config::{Environment, File, FileFormat, Map, Source as _, Value as Raw, ValueKind};

use super::{
    ConfigError,
    table::{SETTINGS, Setting, Value, setting},
};

/// Prefix of the names of all environment variables that set something.
pub(super) const ENVIRONMENT_PREFIX: &str = "DEED__";

/// The usual variable for the filter of log lines; the variable with [`ENVIRONMENT_PREFIX`] takes
/// precedence.
const RUST_LOG: &str = "RUST_LOG";

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default in the table.
    Default,
    /// The file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// The flag of this name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Values by key, each with its source.
pub(super) type Layer = BTreeMap<&'static str, (Value, Origin)>;

/// Returns the defaults in the table.
pub(super) fn defaults() -> Layer {
    SETTINGS
        .iter()
        .filter(|setting| !setting.default.is_empty())
        .map(|setting| {
            let value = setting.kind.parse(setting.default);
            let value = value.expect("defaults fit their kinds, a test checks all of them");
            (setting.key, (value, Origin::Default))
        })
        .collect()
}

/// Reads the settings in a file; returns `None` if there is no file.
pub(super) fn file(path: &Path) -> Result<Option<Layer>, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => {
            let path = path.to_owned();
            return Err(ConfigError::Read { path, cause });
        }
    };
    let parsed = File::from_str(&text, FileFormat::Toml).collect();
    let table = parsed.map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let mut layer = Layer::new();
    flatten(&mut layer, "", table, &Origin::File(path.to_owned()))?;
    Ok(Some(layer))
}

fn flatten(
    layer: &mut Layer,
    level: &str,
    table: Map<String, Raw>,
    origin: &Origin,
) -> Result<(), ConfigError> {
    // The order is fixed, so that of several mistakes the same one is reported each time.
    for (name, raw) in table.into_iter().collect::<BTreeMap<_, _>>() {
        let key = if level.is_empty() {
            name.clone()
        } else {
            format!("{level}.{name}")
        };
        // A quoted key with a dot in it is not the same as two levels.
        let unknown = || unknown(&key, origin);
        if name.contains('.') {
            return Err(unknown());
        }
        if let Some(setting) = setting(&key) {
            let value = value_of(setting, &raw.kind)
                .ok_or_else(|| wrong(setting, found(&raw.kind), origin.clone()))?;
            layer.insert(setting.key, (value, origin.clone()));
            continue;
        }
        let is_level = SETTINGS.iter().any(|setting| {
            let rest = setting.key.strip_prefix(key.as_str());
            rest.is_some_and(|rest| rest.starts_with('.'))
        });
        match raw.kind {
            ValueKind::Table(table) if is_level => flatten(layer, &key, table, origin)?,
            ref kind if is_level => {
                return Err(ConfigError::WrongType {
                    found: found(kind),
                    key,
                    wanted: "a table of settings".to_owned(),
                    origin: origin.clone(),
                });
            }
            _ => return Err(unknown()),
        }
    }
    Ok(())
}

/// Returns the value of a setting in a file. TOML has types: a number in quotes is not a number.
fn value_of(setting: &Setting, kind: &ValueKind) -> Option<Value> {
    match kind {
        ValueKind::Boolean(value) => setting.kind.boolean(*value),
        ValueKind::I64(value) => setting.kind.integer(u64::try_from(*value).ok()?),
        ValueKind::U64(value) => setting.kind.integer(*value),
        ValueKind::String(text) => setting.kind.text(text),
        _ => None,
    }
}

fn found(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("the text {text:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::Nil => "nothing".to_owned(),
        number_or_bool => number_or_bool.to_string(),
    }
}

/// Returns the settings in environment variables; variables of other programs are ignored.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    let mut ours = std::collections::HashMap::new();
    for (name, text) in variables {
        if name == RUST_LOG && !text.is_empty() {
            insert_text(&mut layer, "log.filter", &text, Origin::Environment(name))?;
        } else if name.starts_with(ENVIRONMENT_PREFIX) {
            ours.insert(name, text);
        }
    }
    // Two names that differ only in case would be one key, and either could win.
    if let Some(name) = ours.keys().find(|name| name.to_uppercase() != **name) {
        let key = key_of(name);
        return Err(unknown(&key, &Origin::Environment(name.clone())));
    }
    let source = Environment::with_prefix("DEED")
        .prefix_separator("__")
        .separator("__")
        .source(Some(ours));
    let values = source
        .collect()
        .map_err(|error| ConfigError::Environment(error.to_string()))?;
    // The order is fixed, so that of several mistakes the same one is reported each time.
    for (key, raw) in values.into_iter().collect::<BTreeMap<_, _>>() {
        let name = variable(&key);
        let text = raw
            .into_string()
            .map_err(|error| ConfigError::Environment(error.to_string()))?;
        insert_text(&mut layer, &key, &text, Origin::Environment(name))?;
    }
    Ok(layer)
}

/// Returns the name of a key's environment variable.
pub(super) fn variable(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.to_uppercase().replace('.', "__")
    )
}

fn key_of(variable: &str) -> String {
    let key = variable
        .strip_prefix(ENVIRONMENT_PREFIX)
        .unwrap_or(variable);
    key.to_lowercase().replace("__", ".")
}

/// Returns the settings in flags; the last flag of a key wins.
pub(super) fn flags(flags: &[(String, String, String)]) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (key, text, flag) in flags {
        insert_text(&mut layer, key, text, Origin::Flag(flag.clone()))?;
    }
    Ok(layer)
}

fn insert_text(
    layer: &mut Layer,
    key: &str,
    text: &str,
    origin: Origin,
) -> Result<(), ConfigError> {
    let setting = setting(key).ok_or_else(|| unknown(key, &origin))?;
    let value = setting
        .kind
        .parse(text)
        .ok_or_else(|| wrong(setting, format!("{text:?}"), origin.clone()))?;
    layer.insert(setting.key, (value, origin));
    Ok(())
}

fn wrong(setting: &Setting, found: String, origin: Origin) -> ConfigError {
    ConfigError::WrongType {
        key: setting.key.to_owned(),
        found,
        wanted: setting.kind.wanted(),
        origin,
    }
}

fn unknown(key: &str, origin: &Origin) -> ConfigError {
    let nearest = SETTINGS
        .iter()
        .map(|setting| setting.key)
        .min_by_key(|known| (distance(key, known), *known))
        .expect("there are settings");
    ConfigError::UnknownKey {
        key: key.to_owned(),
        nearest,
        origin: origin.clone(),
    }
}

/// Returns the number of letters to insert, remove or change to turn one key into the other
/// (Levenshtein). If only the levels before the last part differ, the last part decides.
fn distance(a: &str, b: &str) -> usize {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    letters(a, b).min(letters(&last(a), &last(b)) + 1)
}

fn letters(a: &str, b: &str) -> usize {
    // The time grows with the product of both lengths, so a hostile key is cut.
    let a: Vec<char> = a.chars().take(128).collect();
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
