use std::io::{self, Write as _};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

/// Records in short: a text, or the line of a bad one.
fn read_from(source: impl Read + Send) -> Vec<Result<String, u64>> {
    let lists = vec!["Records".to_owned(), "items".to_owned()];
    let records = Records::new(source, lists).record_bytes_max(1_000);
    records
        .map(|one| match one {
            Ok(record) => Ok(record.text),
            Err(flaw) => Err(flaw.place.line),
        })
        .collect()
}

fn read(text: &str) -> Vec<Result<String, u64>> {
    read_from(text.as_bytes())
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn records_are_read_from_every_kind_of_file() {
    let (a, b) = (r#"{"a": 1}"#, r#"{"b": {"items": [2]}}"#);
    let both = vec![Ok(a.to_owned()), Ok(b.to_owned())];
    for text in [
        format!("{a}\n{b}\n"),
        format!("{a}\r\n\r\n{b}"),
        format!("\u{feff}{a}\n\u{feff}{b}"),
        format!("{a}{b}"),
        format!("\0\0{a}\n\u{1e}{b}\n"),
        format!("[{a}, {b}]"),
        format!("[\n  {a},\n  {b}\n]\n"),
        format!("{a},\n{b},\n"),
        format!("{{\"Records\": [{a},{b}]}}"),
        format!(
            "{{\"kind\": \"x\", \"metadata\": {{}},\n\"items\": [\n{a},\n{b}],\n\"z\": [\"] , \"]}}"
        ),
        format!("{{\"Records\": [{a}]}}\n{{\"Records\": []}}\n{{\"Records\": [{b}]}}\n[]"),
        format!("{{\"Records\": [{a}], \"items\": [{b}]}}"),
    ] {
        assert_eq!(read(&text), both, "{text}");
        assert_eq!(read_from(&packed(text.as_bytes())[..]), both, "{text}");
        let twice = packed(&packed(text.as_bytes()));
        assert_eq!(read_from(&twice[..]), both, "{text}");
    }
    // Two packed files, one behind the other.
    let joined = [packed(a.as_bytes()), packed(b.as_bytes())].concat();
    assert_eq!(read_from(&joined[..]), both);
    let pretty = "{\n  \"a\": [\n    {\n      \"b\": 1\n    }\n  ]\n}";
    assert_eq!(
        read(&format!("{pretty}\n{pretty}\n")),
        [Ok(pretty.to_owned()), Ok(pretty.to_owned())]
    );
    assert_eq!(read(""), []);
    assert_eq!(read(" \n \n"), []);
}

#[test]
fn a_bad_record_costs_itself() {
    let good = |text: &str| Ok(text.to_owned());
    for (text, expected) in [
        (
            "{\"a\": 1}\nnonsense\n{\"c\": 3}",
            vec![good("{\"a\": 1}"), good("nonsense"), good("{\"c\": 3}")],
        ),
        // Torn off within a text, behind a colon, a bracket, a comma; the last one at the end.
        ("{\"a\": \"x\n{\"c\": 3}", vec![Err(1), good("{\"c\": 3}")]),
        (
            "{\"a\":\r\n{\"c\": 3}\r\n{\"d\": 4}\r\n",
            vec![Err(1), good("{\"c\": 3}"), good("{\"d\": 4}")],
        ),
        ("{\"a\":\n{\"c\": 3}\n", vec![Err(1), good("{\"c\": 3}")]),
        (
            "{\"a\": [\n{\"c\": 3}\n{\"d\": 4}",
            vec![Err(1), good("{\"c\": 3}"), good("{\"d\": 4}")],
        ),
        (
            "{\"a\": {\"b\": 1,\n{\"c\": 3}",
            vec![Err(1), good("{\"c\": 3}")],
        ),
        ("{\"a\": 1}\n{\"b\": {\"", vec![good("{\"a\": 1}"), Err(2)]),
        // Wrong within, and balanced.
        ("{\"a\" 1}\n{\"c\": 3}", vec![Err(1), good("{\"c\": 3}")]),
        (
            "[{\"a\" 1}, {\"c\": 3}]\n{\"d\": 4}",
            vec![Err(1), good("{\"c\": 3}"), good("{\"d\": 4}")],
        ),
        ("[{\"a\": !}, {\"c\": 3}]", vec![Err(1), good("{\"c\": 3}")]),
        // A bracket that is missing swallows nothing.
        (
            "[\n  {\"a\": [\n  {\"c\": 3},\n  {\"d\": 4}\n]",
            vec![Err(2), good("{\"c\": 3}"), good("{\"d\": 4}")],
        ),
        // Bytes that begin no value, in the place of a record.
        ("[\n}", vec![Err(2)]),
        ("[\n<x>\n]", vec![Err(2)]),
        ("[\n#c\n{\"a\": 1}]", vec![Err(2), good("{\"a\": 1}")]),
        ("[}, {\"a\": 1}]", vec![Err(1), good("{\"a\": 1}")]),
        (
            "{\"Records\": [\n:,\n{\"a\": 1}\n]}\n{\"b\": 2}",
            vec![Err(2), good("{\"a\": 1}"), good("{\"b\": 2}")],
        ),
        // A list over many lines, one of its records torn off.
        (
            "[\n  {\"a\": \"x\n  {\"c\": 3},\n  {\"d\": 4}\n]",
            vec![Err(2), good("{\"c\": 3}"), good("{\"d\": 4}")],
        ),
        // A list a line, one of them torn off.
        (
            "{\"Records\": [{\"a\": 1}, {\"b\n{\"Records\": [{\"c\": 3}]}",
            vec![good("{\"a\": 1}"), Err(1), good("{\"c\": 3}")],
        ),
        (
            "{\"Records\": [{\"a\": 1} {\"b\": 2}]}\n{\"c\": 3}",
            vec![good("{\"a\": 1}"), good("{\"b\": 2}"), good("{\"c\": 3}")],
        ),
        (
            "[{\"c\": 3}, {\"a\" 1}]\n{\"d\": 4}",
            vec![good("{\"c\": 3}"), Err(1), good("{\"d\": 4}")],
        ),
        (
            "{\"Records\": [{\"a\": 1}",
            vec![good("{\"a\": 1}"), Err(1)],
        ),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    let long = format!("{{\"a\": \"{}\"}}\n{{\"c\": 3}}\n", "x".repeat(5_000));
    assert_eq!(read(&long), [Err(1), good("{\"c\": 3}")]);
    let long = format!("[{{\"a\": \"{}\"}}, {{\"c\": 3}}]", "x".repeat(5_000));
    assert_eq!(read(&long), [Err(1), good("{\"c\": 3}")]);
    let long = format!("{}\n{{\"c\": 3}}\n", "x".repeat(5_000));
    assert_eq!(read(&long), [Err(1), good("{\"c\": 3}")]);
    assert_eq!(
        read_from(&b"{\"a\": \"\xff\"}\n{\"c\": 3}"[..]),
        [Err(1), good("{\"c\": 3}")]
    );
}

/// Every short text: reading ends, and gives no more than there are bytes.
#[test]
fn reading_goes_on_with_every_byte() {
    const BYTES: &[u8] = b"[]{}:,\"\n";
    let lengths = [("", 4), ("[\n", 3), ("{\"a\": [{\"n\":1},", 3)];
    for (before, len) in lengths {
        for number in 0..BYTES.len().pow(len) {
            let digits = (0..len).map(|at| number / BYTES.len().pow(at) % BYTES.len());
            let text = before.bytes().chain(digits.map(|digit| BYTES[digit]));
            let text: Vec<u8> = text.collect();
            let all = Records::new(&text[..], vec!["a".to_owned()]).take(text.len() + 2);
            assert!(all.count() <= text.len() + 1, "{}", text.escape_ascii());
        }
    }
}

/// The other records of a list are read however one of them is damaged, in one line or in several.
#[test]
fn a_bad_record_of_a_list_costs_itself() {
    let event = |n: usize| {
        format!(
            r#"{{"kind":"Event","id":"e{n}","by":{{"kind":"User","in":["g",{{"x":1}}]}},"of":[{{"kind":"Pod"}}]}}"#
        )
    };
    let whole: Vec<String> = (0..6).map(event).collect();
    let mut damages: Vec<(String, bool)> = Vec::new();
    for (at, byte) in whole[3].bytes().enumerate() {
        if b"\"{}[]:,".contains(&byte) {
            let mut torn = whole[3].clone();
            torn.remove(at);
            damages.push((torn, true));
        }
        // Torn off, or with a line's end in it.
        let (before, behind) = whole[3].split_at(at);
        damages.push((before.to_owned(), false));
        damages.push((format!("{before}\n{behind}"), false));
    }
    // With the list's own brackets after the records this damage gives valid JSON, which holds them all.
    damages.retain(|(torn, _)| format!("{torn}]}}") != whole[3]);
    for (torn, is_one) in damages {
        for between in [",", ",\n", ", ", "\n,"] {
            for (before, behind) in [("[", "]"), ("{\"items\": [", "]}\n")] {
                let mut all = whole.clone();
                all[3].clone_from(&torn);
                let text = format!("{before}{}{behind}", all.join(between));
                let records = Records::new(text.as_bytes(), vec!["items".to_owned()]);
                let found: Vec<_> = records.take(100).collect();
                let good = found.iter().flatten().map(|record| &record.text);
                let good: Vec<_> = good.filter(|text| whole.contains(text)).collect();
                for n in [0, 1, 2, 4, 5] {
                    assert!(good.contains(&&whole[n]), "{n}: {text}");
                }
                let bad = found.len() - good.len();
                assert!(bad <= if is_one { 3 } else { 4 }, "{bad}: {text}");
            }
        }
    }
}

/// Commas between records that are missing, or too many, cost nothing; a line that is no record
/// costs itself.
#[test]
fn commas_of_a_list_do_not_count() {
    let records: Vec<String> = (0..5).map(|n| format!("{{\"n\": {n}}}")).collect();
    for between in ["\n", " ", ",,", ",\n,\n", "\n<x>\n"] {
        let text = format!("[\n{}\n]", records.join(between));
        let found = read(&text);
        let good: Vec<_> = found.into_iter().flatten().collect();
        assert_eq!(good, records, "{text}");
    }
}

/// A missing quote in an indented list makes only its own record unreadable.
#[test]
fn a_quote_that_is_missing_costs_one_record() {
    let event = |n: usize| {
        format!(
            "    {{\n      \"id\": \"e{n}\",\n      \"object\": {{\n        \"kind\": \"x\",\n        \
             \"list\": [\n          \"y\"\n        ]\n      }},\n      \"last\": {{\n        \"n\": {n}\n      \
             }}\n    }}"
        )
    };
    let whole: Vec<String> = (0..5).map(event).collect();
    let quotes: Vec<usize> = whole[2].match_indices('"').map(|(at, _)| at).collect();
    for at in quotes {
        let mut torn = whole.clone();
        torn[2].remove(at);
        let text = format!("{{\n  \"Records\": [\n{}\n  ]\n}}\n", torn.join(",\n"));
        let found = read(&text);
        let good: Vec<_> = found.iter().flatten().map(|text| text.trim()).collect();
        let expected: Vec<_> = [0, 1, 3, 4].map(|n| whole[n].trim()).into();
        assert_eq!(good, expected, "{text}");
        assert_eq!(found.len(), 5, "{text}");
    }
}

#[test]
fn records_and_flaws_say_where_they_are() {
    let text = "\n{\"a\": 1}\n[\n{\"b\": 2}, {\"c\" 3},\n{\"d\": 4}]";
    let all: Vec<_> = Records::new(text.as_bytes(), Vec::new()).collect();
    let places = all.iter().map(|one| match one {
        Ok(record) => (record.place.line, record.place.record),
        Err(flaw) => (flaw.place.line, flaw.place.record),
    });
    assert_eq!(places.collect::<Vec<_>>(), [(2, 1), (4, 2), (4, 3), (5, 4)]);
    let flaw = all[2].as_ref().unwrap_err();
    assert_eq!(
        flaw.to_string(),
        "line 4, record 3: it is no JSON: a colon is expected, in line 4"
    );
}

#[test]
fn what_cannot_be_unpacked_is_named() {
    let packings: [(&[u8], &str); 4] = [
        (b"\xff\xfe{\0}\0", "UTF-16"),
        (b"PK\x03\x04....", "zip"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (b"\xfd7zXZ\0....", "xz"),
    ];
    for (bytes, says) in packings {
        let all: Vec<_> = Records::new(bytes, Vec::new()).collect();
        let [Err(flaw)] = &all[..] else {
            panic!("{all:?}")
        };
        assert!(flaw.is_last && flaw.reason.contains(says), "{flaw}");
    }
    // Cut while it was sent: what came before counts.
    let mut noise = String::new();
    for n in 0..400_u32 {
        noise.push_str(&format!("{{\"n\": {}}}\n", n.wrapping_mul(2_654_435_761)));
    }
    let whole = packed(noise.as_bytes());
    let all: Vec<_> = Records::new(&whole[..whole.len() / 2], Vec::new()).collect();
    assert!(all.len() > 50, "{}", all.len());
    let last = all.last().unwrap().as_ref().unwrap_err();
    assert!(last.is_last, "{last}");
    let bad = all.iter().filter(|one| one.is_err());
    assert_eq!(bad.count(), 1, "{last}");
}

/// Gives some bytes at a time.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(into.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

proptest! {
    /// Reading never panics and always ends, and the result does not depend on how the bytes are split.
    #[test]
    fn any_bytes_are_read(text in r#"([{}\[\],:"\\ \n\ta1<#]|\n  |"a":|\{"Records": \[|\{"a": 1\}){0,60}"#, n in 1..9_usize) {
        let whole = read(&text);
        prop_assert!(whole.len() <= text.len() + 1);
        prop_assert_eq!(read_from(Drip(text.as_bytes(), n)), whole);
    }

    /// Lines that are torn off anywhere cost themselves.
    #[test]
    fn torn_lines_cost_themselves(lines in prop::collection::vec((0..40_usize, prop::bool::ANY), 1..12)) {
        let (mut text, mut good) = (String::new(), 0);
        for (n, (cut, torn)) in lines.iter().enumerate() {
            let line = format!(r#"{{"n": {n}, "in": {{"t": "a b", "l": [1, {{"x": 2}}]}}}}"#);
            if *torn {
                text.push_str(&line[..(*cut).min(line.len() - 1)]);
            } else {
                text.push_str(&line);
                good += 1;
            }
            text.push('\n');
        }
        let whole = |one: &Result<String, u64>| {
            one.as_ref().is_ok_and(|text| text.starts_with(r#"{"n""#))
        };
        prop_assert_eq!(read(&text).iter().filter(|one| whole(one)).count(), good);
    }
}
