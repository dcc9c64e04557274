//! The options of the .proto files as Rust tables.

use std::{collections::BTreeSet, fmt::Write as _};

use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
    ReflectMessage as _, Value,
};

/// Messages that are hashed or signed start here.
const ROOTS: [&str; 3] = [
    "deed.v1.Statement",
    "deed.v1.BatchManifest",
    "deed.v1.Entry",
];

/// Rust source.
pub(crate) struct Tables {
    /// A table for each message.
    pub(crate) rules: String,
    /// The macro that names each body of a statement.
    pub(crate) bodies: String,
}

/// Writes the tables.
///
/// # Errors
/// Names the field whose rule is missing, or makes no sense for its type.
pub(crate) fn generate(pool: &DescriptorPool) -> Result<Tables, String> {
    let options = Options::of(pool)?;
    let mut rules = String::new();
    let mut ahead: Vec<MessageDescriptor> = Vec::new();
    for root in ROOTS {
        let root = pool.get_message_by_name(root);
        ahead.push(root.ok_or("a root is missing")?);
    }
    let statement = ahead[0].clone();
    let mut found = BTreeSet::new();
    while let Some(message) = ahead.pop() {
        if found.insert(message.full_name().to_owned()) {
            rules += &table(&options, &message)?;
            ahead.extend(message.fields().filter_map(|field| message_of(&field)));
        }
    }
    rules += &numbers(&statement);
    rules += &commitments(&statement);
    Ok(Tables {
        rules,
        bodies: bodies(&statement),
    })
}

/// The extensions of `rules.proto`.
struct Options {
    pool: DescriptorPool,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Result<Self, String> {
        for name in ["deed.v1.rule", "deed.v1.one_required"] {
            pool.get_extension_by_name(name)
                .ok_or_else(|| format!("rules.proto has no {name}"))?;
        }
        Ok(Self { pool: pool.clone() })
    }

    fn rule(&self, field: &FieldDescriptor) -> Option<Rule> {
        let options = field.options();
        let extension = self.pool.get_extension_by_name("deed.v1.rule")?;
        if !options.has_extension(&extension) {
            return None;
        }
        match options.get_extension(&extension).as_ref() {
            Value::Message(rule) => Some(Rule(rule.clone())),
            _ => None,
        }
    }

    fn is_required(&self, oneof: &OneofDescriptor) -> bool {
        let extension = self.pool.get_extension_by_name("deed.v1.one_required");
        extension.is_some_and(|extension| {
            oneof.options().get_extension(&extension).as_ref() == &Value::Bool(true)
        })
    }
}

/// A FieldRule.
struct Rule(DynamicMessage);

impl Rule {
    fn number(&self, name: &str) -> u32 {
        match self.0.get_field_by_name(name).as_deref() {
            Some(Value::U32(number)) => *number,
            _ => 0,
        }
    }

    /// The value's name in `v1::Characters`; `None` for the unspecified one.
    fn characters(&self) -> Option<String> {
        let field = self.0.descriptor().get_field_by_name("characters")?;
        let (Value::EnumNumber(number @ 1..=i32::MAX), Kind::Enum(of)) =
            (self.0.get_field(&field).into_owned(), field.kind())
        else {
            return None;
        };
        let value = of.get_value(number)?;
        let name = value.name().strip_prefix("CHARACTERS_")?;
        Some(name.split('_').map(capitalized).collect())
    }

    fn length(&self) -> Option<(u32, u32)> {
        match (
            self.number("bytes"),
            self.number("min_bytes"),
            self.number("max_bytes"),
        ) {
            (0, min, max) if max >= min.max(1) => Some((min.max(1), max)),
            (exact, 0, 0) if exact > 0 => Some((exact, exact)),
            _ => None,
        }
    }

    /// Names of the members that are set.
    fn set(&self) -> BTreeSet<String> {
        self.0
            .fields()
            .map(|(field, _)| field.name().to_owned())
            .collect()
    }
}

fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

/// The oneof that the field is a part of. The compiler makes one of each `optional` field, too.
fn oneof_of(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    let is_optional = field.field_descriptor_proto().proto3_optional();
    field.containing_oneof().filter(|_| !is_optional)
}

/// `TaskOpened` as `TASK_OPENED`.
fn upper(name: &str) -> String {
    let mut upper = String::new();
    for (position, character) in name.chars().enumerate() {
        if character.is_uppercase() && position > 0 {
            upper.push('_');
        }
        upper.extend(character.to_uppercase());
    }
    upper
}

/// `CONTROL` as `Control`.
fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{first}{}", rest.to_lowercase())
}

/// Fields in the order of their numbers.
fn ordered(message: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    fields
}

/// A field's part of the table.
struct Row {
    /// In Rust.
    text: String,
    name: String,
    json_required: bool,
    /// Short names of an enum's values.
    values: Vec<String>,
}

fn table(options: &Options, message: &MessageDescriptor) -> Result<String, String> {
    let mut rows = Vec::new();
    for field in ordered(message) {
        rows.push(row(options, &field).map_err(|why| format!("{}: {why}", field.full_name()))?);
    }
    let required = message
        .oneofs()
        .find(|oneof| options.is_required(oneof))
        .map(|oneof| oneof.name().to_owned());
    let mut text = format!(
        "/// The rules of `{full}`.\n\
         pub static {constant}: Message = Message {{\n\
         name: {name:?},\nfields: &[\n",
        full = message.full_name(),
        constant = upper(message.name()),
        name = message.name(),
    );
    for row in &rows {
        text += &row.text;
    }
    let _ = writeln!(text, "],\noneof_required: {required:?},");
    // In JSON what must be given stands first, unless one of several may be given.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    if message.fields().all(|field| oneof_of(&field).is_none()) {
        order.sort_by_key(|&index| !rows[index].json_required);
    }
    let names: Vec<&str> = order
        .iter()
        .map(|&index| rows[index].name.as_str())
        .collect();
    let _ = writeln!(text, "json: &JsonForm {{\nnames: &{names:?},\nfields: &[");
    for index in order {
        let Row {
            json_required,
            values,
            ..
        } = &rows[index];
        let _ = writeln!(
            text,
            "JsonField {{ index: {index}, required: {json_required}, values: &{values:?} }},"
        );
    }
    text += "],\n},\n};\n\n";
    Ok(text)
}

fn row(options: &Options, field: &FieldDescriptor) -> Result<Row, String> {
    let single_message = message_of(field).is_some() && !field.is_list();
    let rule = match options.rule(field) {
        Some(rule) => rule,
        None if single_message => Rule(empty_rule(options)?),
        None => return Err("has no rule; if any value will do, say `free`".to_owned()),
    };
    let mut left = rule.set();
    let mut take = |name: &str| left.remove(name);

    let mut values = Vec::new();
    let kind = match field.kind() {
        Kind::Uint64 => "Kind::U64".to_owned(),
        Kind::Uint32 => "Kind::U32".to_owned(),
        Kind::Bool => "Kind::Bool".to_owned(),
        Kind::Int64 => {
            let non_negative = take("not_negative");
            format!("Kind::I64 {{ non_negative: {non_negative} }}")
        }
        Kind::Enum(of) => {
            let prefix = format!("{}_", upper(of.name()));
            for (value, number) in of.values().zip(0..) {
                if value.number() != number {
                    return Err(format!("the enum has no value {number}"));
                }
                let short = value.name().strip_prefix(&prefix);
                values.push(short.unwrap_or(value.name()).to_lowercase());
            }
            format!("Kind::Enum {{ max: {} }}", values.len() - 1)
        }
        Kind::Bytes | Kind::String => {
            let (min, max) = rule.length().ok_or("say its length in bytes")?;
            for name in ["bytes", "min_bytes", "max_bytes"] {
                take(name);
            }
            if field.kind() == Kind::Bytes {
                format!("Kind::Bytes {{ min: {min}, max: {max} }}")
            } else {
                take("characters");
                let characters = rule.characters().ok_or("say its characters")?;
                format!(
                    "Kind::Text {{ min: {min}, max: {max}, characters: Characters::{characters} }}"
                )
            }
        }
        Kind::Message(message) => format!("Kind::Message(&{})", upper(message.name())),
        other => return Err(format!("there are no rules for the type {other:?}")),
    };

    let required = take("required");
    let json_required = take("json_required");
    let ascending = take("ascending");
    if ascending && !has_order(options, field) {
        let why = "only bytes, texts, and messages of one `bytes` field of fixed length can ascend";
        return Err(why.to_owned());
    }
    let (min_count, max_count) = (rule.number("min_count"), rule.number("max_count"));
    let presence = if field.is_list() {
        take("min_count");
        take("max_count");
        if max_count < min_count.max(1) {
            return Err("say how many elements it has at most".to_owned());
        }
        format!("Presence::Repeated {{ min: {min_count}, max: {max_count} }}")
    } else if ascending {
        return Err("only a repeated field can be ascending".to_owned());
    } else if oneof_of(field).is_some() {
        "Presence::OneOf".to_owned()
    } else if field.supports_presence() && message_of(field).is_none() {
        "Presence::Explicit".to_owned()
    } else if required {
        "Presence::Required".to_owned()
    } else {
        "Presence::Implicit".to_owned()
    };
    if required && presence != "Presence::Required" {
        return Err("cannot be required".to_owned());
    }
    let free = take("free");
    if !left.is_empty() {
        return Err(format!("{left:?} make no sense for its type"));
    }
    let others: BTreeSet<String> = rule.set();
    if free
        && others
            .iter()
            .any(|name| name != "free" && name != "json_required")
    {
        return Err(format!("it is free, and yet has rules: {others:?}"));
    }
    if !free && !single_message && others.iter().all(|name| name == "json_required") {
        return Err("has no rule; if any value will do, say `free`".to_owned());
    }
    Ok(Row {
        text: format!(
            "Field {{ number: {number}, name: {name:?}, kind: {kind}, presence: {presence}, \
             ascending: {ascending} }},\n",
            number = field.number(),
            name = field.name(),
        ),
        name: field.name().to_owned(),
        json_required: required || json_required || min_count > 0,
        values,
    })
}

/// Returns true if the order of a field's elements is the order of their bytes. Of messages that
/// holds where tag and length are the same in each: with one field, of `bytes` of one length.
fn has_order(options: &Options, field: &FieldDescriptor) -> bool {
    let Some(message) = message_of(field) else {
        return matches!(field.kind(), Kind::Bytes | Kind::String);
    };
    let mut fields = message.fields();
    let (Some(only), None) = (fields.next(), fields.next()) else {
        return false;
    };
    let rule = options.rule(&only);
    let length = rule.and_then(|rule| rule.length());
    only.kind() == Kind::Bytes && !only.is_list() && length.is_some_and(|(min, max)| min == max)
}

fn empty_rule(options: &Options) -> Result<DynamicMessage, String> {
    let rule = options.pool.get_message_by_name("deed.v1.FieldRule");
    Ok(DynamicMessage::new(rule.ok_or("no FieldRule")?))
}

/// Constants for the numbers of a statement's fields.
fn numbers(statement: &MessageDescriptor) -> String {
    let mut text =
        "/// Numbers of the fields of `deed.v1.Statement`.\npub mod number {\n".to_owned();
    for field in ordered(statement) {
        let _ = writeln!(
            text,
            "/// `{name}`\npub const {constant}: u32 = {number};",
            name = field.name(),
            constant = field.name().to_uppercase(),
            number = field.number(),
        );
    }
    text += "}\n\n";
    text
}

fn bodies_of(statement: &MessageDescriptor) -> Vec<(FieldDescriptor, MessageDescriptor)> {
    ordered(statement)
        .into_iter()
        .filter(|field| oneof_of(field).is_some())
        .filter_map(|field| Some((field.clone(), message_of(&field)?)))
        .collect()
}

/// The fields of bodies that commit to a content.
fn commitments(statement: &MessageDescriptor) -> String {
    let mut rows = String::new();
    let mut most = 0;
    for (body, message) in bodies_of(statement) {
        let mut count = 0;
        for field in ordered(&message) {
            if message_of(&field).is_some_and(|inner| inner.name() == "Commitment") {
                count += 1;
                let _ = writeln!(
                    rows,
                    "CommitmentField {{ body: {body_number}, field: {number}, \
                     name: \"{body}.{name}\" }},",
                    body_number = body.number(),
                    number = field.number(),
                    body = body.name(),
                    name = field.name(),
                );
            }
        }
        most = most.max(count);
    }
    format!(
        "/// Every field of a body that commits to a content, in ascending order.\n\
         pub static COMMITMENTS: &[CommitmentField] = &[\n{rows}];\n\n\
         /// The most of them that one body has.\n\
         pub const COMMITMENTS_MAX: usize = {most};\n"
    )
}

/// The macro that hands every body to another one.
fn bodies(statement: &MessageDescriptor) -> String {
    let mut rows = String::new();
    for (field, message) in bodies_of(statement) {
        let _ = writeln!(
            rows,
            "#[doc = {doc:?}] {kind} = {number}, {name:?};",
            doc = first_sentence(&message),
            kind = message.name(),
            number = field.number(),
            name = field.name(),
        );
    }
    format!(
        "/// Hands the bodies of a statement to the macro `$then`, in the order of their numbers:\n\
         /// the first sentence of its documentation, its message, its number, its name.\n\
         #[macro_export]\n\
         macro_rules! statement_bodies {{\n\
         ($then:ident) => {{\n$then! {{\n{rows}}}\n}};\n}}\n"
    )
}

/// How a message's comment begins.
fn first_sentence(message: &MessageDescriptor) -> String {
    let file = message.parent_file();
    let info = &file.file_descriptor_proto().source_code_info;
    let comment = info
        .iter()
        .flat_map(|info| &info.location)
        .find(|location| location.path == message.path())
        .map(|location| location.leading_comments().replace('\n', " "))
        .unwrap_or_default();
    let comment = comment.trim();
    let end = comment.find(". ").map_or(comment.len(), |end| end + 1);
    comment[..end]
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
