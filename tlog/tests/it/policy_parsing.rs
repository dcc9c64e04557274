//! The text form of trust policies.

use deed_tlog::{
    Cosigner, KeyError, KeyName, POLICY_BYTES_MAX, Policy, PolicyLineError, PolicyParseError,
};
use proptest::prelude::*;

const GOLDEN: &str = include_str!("../golden/policy.txt");
const LOG: &str = include_str!("../golden/log.vkey");

fn witness(i: u8) -> Cosigner {
    Cosigner::from_seed(KeyName::new(format!("w{i}")).unwrap(), &[i; 32])
}

#[test]
fn malformed_policies() {
    use PolicyLineError as E;
    let w0 = witness(0).verifier_key().to_string();
    let w1 = witness(1).verifier_key().to_string();
    // The same public key under another name, which gives another id.
    let alias = Cosigner::from_seed(KeyName::new("alias").unwrap(), &[0; 32]);
    let name = |name: &str| name.to_owned();
    let words = |keyword, words, wanted| E::WordCount {
        keyword,
        words,
        wanted,
    };
    let two = format!("witness a {w0}\nwitness b {w1}\n");
    for (text, line, problem) in [
        (
            format!("logs {LOG}"),
            1,
            E::Keyword {
                found: name("logs"),
            },
        ),
        (
            format!("# x\n\n LOG {LOG}"),
            3,
            E::Keyword { found: name("LOG") },
        ),
        ("log".into(), 1, words("log", 0, "a key and perhaps a URL")),
        (
            format!("log {LOG} url more"),
            1,
            words("log", 3, "a key and perhaps a URL"),
        ),
        (
            "witness a".into(),
            1,
            words("witness", 1, "a name, a key and perhaps a URL"),
        ),
        (
            format!("log {w0}"),
            1,
            E::KeyType {
                keyword: "log",
                name: name("w0"),
                found: 4,
                wanted: 1,
            },
        ),
        (
            format!("witness a {LOG}"),
            1,
            E::KeyType {
                keyword: "witness",
                name: name("deed.example/logs/golden"),
                found: 1,
                wanted: 4,
            },
        ),
        (
            "log x+00000000+Bg==".into(),
            1,
            E::Key(KeyError::UnsupportedType { found: 6 }),
        ),
        (
            format!("log {LOG}\nlog {LOG}"),
            2,
            E::DuplicateKey {
                name: name("deed.example/logs/golden"),
            },
        ),
        (
            format!("witness a {w0}\nwitness b {}", alias.verifier_key()),
            2,
            E::DuplicateKey {
                name: name("alias"),
            },
        ),
        (
            format!("witness a {w0}\nwitness a {w1}"),
            2,
            E::DuplicateName { name: name("a") },
        ),
        (
            format!("{two}group a any b"),
            3,
            E::DuplicateName { name: name("a") },
        ),
        (format!("witness none {w0}"), 1, E::ReservedName),
        (format!("{two}group none any a"), 3, E::ReservedName),
        (format!("{two}group g any none"), 3, E::ReservedName),
        (
            format!("{two}group g any a\nquorum G"),
            4,
            E::UnknownName { name: name("G") },
        ),
        (
            format!("{two}group g any c"),
            3,
            E::UnknownName { name: name("c") },
        ),
        (
            format!("{two}group g any a g"),
            3,
            E::UnknownName { name: name("g") },
        ),
        (
            format!("quorum a\n{two}"),
            1,
            E::UnknownName { name: name("a") },
        ),
        (
            format!("{two}group g any a a"),
            3,
            E::AlreadyMember { name: name("a") },
        ),
        (
            format!("{two}group g any a b\ngroup h any a"),
            4,
            E::AlreadyMember { name: name("a") },
        ),
        (
            format!("{two}group g"),
            3,
            words("group", 1, "a name, a threshold and members"),
        ),
        (
            format!("{two}group g any"),
            3,
            words("group", 2, "a name, a threshold and members"),
        ),
        (
            format!("{two}group g 0 a b"),
            3,
            E::Threshold {
                found: name("0"),
                members: 2,
            },
        ),
        (
            format!("{two}group g 3 a b"),
            3,
            E::Threshold {
                found: name("3"),
                members: 2,
            },
        ),
        (
            format!("{two}group g 01 a b"),
            3,
            E::Threshold {
                found: name("01"),
                members: 2,
            },
        ),
        (
            format!("{two}group g some a b"),
            3,
            E::Threshold {
                found: name("some"),
                members: 2,
            },
        ),
        ("quorum".into(), 1, words("quorum", 0, "one name")),
        (
            format!("{two}quorum a b"),
            3,
            words("quorum", 2, "one name"),
        ),
        ("quorum none\nquorum none".into(), 2, E::SecondQuorum),
        (
            "quorum none\r\n".into(),
            1,
            E::ControlCharacter { found: b'\r' },
        ),
        (
            "# \u{7f}\nquorum none".into(),
            1,
            E::ControlCharacter { found: 0x7f },
        ),
        (
            "\n\0\nquorum none".into(),
            2,
            E::ControlCharacter { found: 0 },
        ),
    ] {
        assert_eq!(
            Policy::parse(&text),
            Err(PolicyParseError::Line { line, problem }),
            "{text}"
        );
    }
    assert_eq!(Policy::parse(""), Err(PolicyParseError::NoQuorum));
    assert_eq!(Policy::parse(&two), Err(PolicyParseError::NoQuorum));
    let long = vec![b' '; POLICY_BYTES_MAX + 1];
    assert_eq!(
        Policy::parse(&long),
        Err(PolicyParseError::TooLong {
            found: POLICY_BYTES_MAX + 1
        })
    );
    let error = Policy::parse(format!("{two}group g 3 a b")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy line 3: threshold \"3\" of a group of 2, wanted any, all or 1 to 2"
    );
}

proptest! {
    #[test]
    fn white_space_and_comments_mean_nothing(
        gaps in prop::collection::vec("[ \t]{1,3}", 64),
        comments in prop::collection::vec("([ \t]{0,2}#[ -~\t]{0,9}\n|[ \t]{0,3}\n){0,2}", 16),
    ) {
        let mut gaps = gaps.iter().cycle();
        let mut comments = comments.iter().cycle();
        let mut text = String::new();
        for line in GOLDEN.lines() {
            text += comments.next().unwrap();
            for word in line.split_ascii_whitespace() {
                text += word;
                text += gaps.next().unwrap();
            }
            text += "\n";
        }
        prop_assert_eq!(Policy::parse(&text).unwrap(), Policy::parse(GOLDEN).unwrap());
    }
}
