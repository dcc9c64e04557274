//! The text form of trust policies.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> <k|any|all> <member>...
//! quorum <name|none>
//! ```
//!
//! Source: c2sp.org/tlog-policy, "Policy file syntax and structure".

use std::collections::HashMap;

use thiserror::Error;

use crate::key::{KeyError, SignatureType, VerifierKey};
use crate::policy::{Policy, PolicyLog, PolicyWitness, Rule};
use crate::text::parse_decimal;

/// The longest policy that is parsed, in bytes: some thousand keys.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;

/// The reason for which a file is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyParseError {
    /// The file is longer than is accepted.
    #[error("policy has {found} bytes, at most {POLICY_BYTES_MAX} are accepted")]
    TooLong {
        /// Bytes of the file.
        found: usize,
    },
    /// A line is malformed.
    #[error("policy line {line}: {problem}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The defect of the line.
        problem: PolicyLineError,
    },
    /// There is no quorum line.
    #[error("policy has no quorum line")]
    NoQuorum,
}

/// The defect of a line of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyLineError {
    /// The line has a control character other than tab and line feed.
    #[error("control character 0x{found:02x}")]
    ControlCharacter {
        /// The byte.
        found: u8,
    },
    /// The first word is none of the four keywords.
    #[error("starts with {found:?}, wanted log, witness, group or quorum")]
    Keyword {
        /// The first word.
        found: String,
    },
    /// There are too few or too many words.
    #[error("{words} words after {keyword}, wanted {wanted}")]
    WordCount {
        /// The first word.
        keyword: &'static str,
        /// The words after it.
        words: usize,
        /// The number of words that are wanted.
        wanted: &'static str,
    },
    /// The verifier key is refused.
    #[error("verifier key: {0}")]
    Key(KeyError),
    /// The verifier key is not UTF-8.
    #[error("verifier key is not UTF-8")]
    KeyNotUtf8,
    /// A witness's key is in a log line, or the other way round.
    #[error("key {name} has signature type 0x{found:02x}, a {keyword} has 0x{wanted:02x}")]
    KeyType {
        /// The first word.
        keyword: &'static str,
        /// The key's name.
        name: String,
        /// The key's type.
        found: u8,
        /// The type wanted.
        wanted: u8,
    },
    /// The public key was listed before, under any name.
    #[error("the public key of {name} is listed already")]
    DuplicateKey {
        /// The name of this key.
        name: String,
    },
    /// The name was defined before.
    #[error("the name {name:?} is defined already")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The name `none` was given to a witness or a group, or listed as a member.
    #[error("the name none stands for no quorum and nothing else")]
    ReservedName,
    /// The name is not defined on an earlier line.
    #[error("the name {name:?} is not defined on a line before")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// The name is a member of a group already.
    #[error("{name:?} is a member of a group already")]
    AlreadyMember {
        /// The name.
        name: String,
    },
    /// The threshold is neither `any` nor `all` nor a number from 1 to the members' count.
    #[error("threshold {found:?} of a group of {members}, wanted any, all or 1 to {members}")]
    Threshold {
        /// The threshold's text.
        found: String,
        /// The number of members.
        members: usize,
    },
    /// There is a second quorum line.
    #[error("there is a quorum line already")]
    SecondQuorum,
}

pub(crate) fn parse(policy: &[u8]) -> Result<Policy, PolicyParseError> {
    if policy.len() > POLICY_BYTES_MAX {
        return Err(PolicyParseError::TooLong {
            found: policy.len(),
        });
    }
    let mut parser = Parser::default();
    for (position, line) in policy.split(|byte| *byte == b'\n').enumerate() {
        parser
            .line(line)
            .map_err(|problem| PolicyParseError::Line {
                line: position + 1,
                problem,
            })?;
    }
    let quorum = parser.quorum.ok_or(PolicyParseError::NoQuorum)?;
    let Parser {
        logs,
        witnesses,
        rules,
        ..
    } = parser;
    Ok(Policy {
        logs,
        witnesses,
        rules,
        quorum,
    })
}

#[derive(Default)]
struct Parser<'a> {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    rules: Vec<Rule>,
    /// The meaning of each name, and whether it is a member of a group already.
    names: HashMap<&'a [u8], Name>,
    /// The outer option says whether there was a quorum line.
    quorum: Option<Option<usize>>,
}

struct Name {
    rule: usize,
    is_member: bool,
}

impl<'a> Parser<'a> {
    fn line(&mut self, line: &'a [u8]) -> Result<(), PolicyLineError> {
        if let Some(found) = line.iter().copied().find(|byte| is_forbidden(*byte)) {
            return Err(PolicyLineError::ControlCharacter { found });
        }
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let words: Vec<&[u8]> = line
            .split(is_space)
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", rest @ ..] => self.log(rest),
            [b"witness", rest @ ..] => self.witness(rest),
            [b"group", rest @ ..] => self.group(rest),
            [b"quorum", rest @ ..] => self.quorum(rest),
            [first, ..] => Err(PolicyLineError::Keyword {
                found: lossy(first),
            }),
        }
    }

    fn log(&mut self, words: &[&'a [u8]]) -> Result<(), PolicyLineError> {
        let (key, url) = match words {
            [key] => (key, None),
            [key, url] => (key, Some(lossy(url))),
            _ => return Err(word_count("log", words, "a key and perhaps a URL")),
        };
        let key = parse_key("log", SignatureType::Ed25519, key)?;
        if self
            .logs
            .iter()
            .any(|log| log.key.public_key() == key.public_key())
        {
            return Err(PolicyLineError::DuplicateKey {
                name: key.name().to_string(),
            });
        }
        self.logs.push(PolicyLog { key, url });
        Ok(())
    }

    fn witness(&mut self, words: &[&'a [u8]]) -> Result<(), PolicyLineError> {
        let (name, key, url) = match words {
            [name, key] => (name, key, None),
            [name, key, url] => (name, key, Some(lossy(url))),
            _ => {
                return Err(word_count(
                    "witness",
                    words,
                    "a name, a key and perhaps a URL",
                ));
            }
        };
        let key = parse_key("witness", SignatureType::Cosignature, key)?;
        if self
            .witnesses
            .iter()
            .any(|witness| witness.key.public_key() == key.public_key())
        {
            return Err(PolicyLineError::DuplicateKey {
                name: key.name().to_string(),
            });
        }
        self.define(name, Rule::Witness(self.witnesses.len()))?;
        self.witnesses.push(PolicyWitness {
            name: lossy(name),
            key,
            url,
        });
        Ok(())
    }

    fn group(&mut self, words: &[&'a [u8]]) -> Result<(), PolicyLineError> {
        let [name, threshold, members @ ..] = words else {
            return Err(word_count(
                "group",
                words,
                "a name, a threshold and members",
            ));
        };
        if members.is_empty() {
            return Err(word_count(
                "group",
                words,
                "a name, a threshold and members",
            ));
        }
        let threshold = parse_threshold(threshold, members.len())?;
        let members: Vec<usize> = members
            .iter()
            .map(|member| self.join(member))
            .collect::<Result<_, _>>()?;
        self.define(name, Rule::Group { threshold, members })
    }

    fn quorum(&mut self, words: &[&'a [u8]]) -> Result<(), PolicyLineError> {
        let [name] = words else {
            return Err(word_count("quorum", words, "one name"));
        };
        if self.quorum.is_some() {
            return Err(PolicyLineError::SecondQuorum);
        }
        self.quorum = Some(match *name {
            b"none" => None,
            name => Some(self.names.get(name).ok_or_else(|| unknown(name))?.rule),
        });
        Ok(())
    }

    fn define(&mut self, name: &'a [u8], rule: Rule) -> Result<(), PolicyLineError> {
        if name == b"none" {
            return Err(PolicyLineError::ReservedName);
        }
        if self.names.contains_key(name) {
            return Err(PolicyLineError::DuplicateName { name: lossy(name) });
        }
        self.names.insert(
            name,
            Name {
                rule: self.rules.len(),
                is_member: false,
            },
        );
        self.rules.push(rule);
        Ok(())
    }

    /// Looks up a member of a new group. A name may be a member once in the whole policy, so that
    /// no witness counts twice.
    fn join(&mut self, member: &[u8]) -> Result<usize, PolicyLineError> {
        if member == b"none" {
            return Err(PolicyLineError::ReservedName);
        }
        let name = self.names.get_mut(member).ok_or_else(|| unknown(member))?;
        if std::mem::replace(&mut name.is_member, true) {
            return Err(PolicyLineError::AlreadyMember {
                name: lossy(member),
            });
        }
        Ok(name.rule)
    }
}

fn parse_key(
    keyword: &'static str,
    wanted: SignatureType,
    text: &[u8],
) -> Result<VerifierKey, PolicyLineError> {
    let text = std::str::from_utf8(text).map_err(|_| PolicyLineError::KeyNotUtf8)?;
    let key = VerifierKey::parse(text).map_err(PolicyLineError::Key)?;
    if key.signature_type() != wanted {
        return Err(PolicyLineError::KeyType {
            keyword,
            name: key.name().to_string(),
            found: key.signature_type().to_byte(),
            wanted: wanted.to_byte(),
        });
    }
    Ok(key)
}

fn parse_threshold(word: &[u8], members: usize) -> Result<usize, PolicyLineError> {
    let number = match word {
        b"any" => Some(1),
        b"all" => Some(members),
        number => std::str::from_utf8(number)
            .ok()
            .and_then(|number| parse_decimal(number).ok())
            .and_then(|number| usize::try_from(number).ok()),
    };
    number
        .filter(|threshold| (1..=members).contains(threshold))
        .ok_or_else(|| PolicyLineError::Threshold {
            found: lossy(word),
            members,
        })
}

/// Returns true for control characters other than tab; the line feeds are gone by now.
fn is_forbidden(byte: u8) -> bool {
    byte != b'\t' && byte.is_ascii_control()
}

fn unknown(name: &[u8]) -> PolicyLineError {
    PolicyLineError::UnknownName { name: lossy(name) }
}

fn word_count(keyword: &'static str, words: &[&[u8]], wanted: &'static str) -> PolicyLineError {
    PolicyLineError::WordCount {
        keyword,
        words: words.len(),
        wanted,
    }
}

fn lossy(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}
