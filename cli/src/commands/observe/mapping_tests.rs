use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use deed_client::records::{Record, Records};
use proptest::prelude::*;

use super::*;
use crate::commands::observe::sender::Maker;
use kubernetes::of_pod;

#[path = "cloudtrail_tests.rs"]
mod cloudtrail;
#[path = "kubernetes_tests.rs"]
mod kubernetes;

fn mapping(name: &str) -> &'static Mapping {
    static KUBERNETES: LazyLock<Mapping> = LazyLock::new(|| parsed("kubernetes"));
    static CLOUDTRAIL: LazyLock<Mapping> = LazyLock::new(|| parsed("cloudtrail"));
    match name {
        "kubernetes" => &KUBERNETES,
        _ => &CLOUDTRAIL,
    }
}

fn parsed(name: &str) -> Mapping {
    Mapping::parse(shipped(name).unwrap()).unwrap()
}

/// The result of mapping a log.
#[derive(Debug, Default, PartialEq)]
struct Read {
    /// `kind resource`; with `?` behind it where it names no object.
    effects: Vec<String>,
    nothing: usize,
    bad: usize,
}

/// All that a source amounts to, with what each observation is.
fn read(mapping: &Mapping, source: impl std::io::Read + Send) -> (Read, Vec<Mapped>) {
    let (mut read, mut seen) = (Read::default(), Vec::new());
    for record in Records::new(source, mapping.lists()) {
        let value = record
            .map_err(|_| ())
            .and_then(|Record { text, .. }| parse(&text).map_err(|_| ()));
        let Ok(value) = value else {
            read.bad += 1;
            continue;
        };
        for part in mapping.records(value) {
            match mapping.map(&part) {
                Ok(Reading::Seen(mapped)) => seen.push(mapped),
                Ok(Reading::Nothing(_)) => read.nothing += 1,
                Err(_) => read.bad += 1,
            }
        }
    }
    let name = |effect: &v1::Effect, mark| format!("{} {}{mark}", effect.kind, effect.resource);
    for mapped in &seen {
        read.effects
            .extend(mapped.effects.iter().map(|effect| name(effect, "")));
        read.effects
            .extend(mapped.claims.iter().map(|effect| name(effect, "?")));
    }
    (read, seen)
}

fn of_text(name: &str, text: &str) -> (Read, Vec<Mapped>) {
    read(mapping(name), text.as_bytes())
}

/// The awkward logs beside the checkout, or beside a folder that it is in.
fn awkward() -> Option<PathBuf> {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.find_map(|folder| {
        let path = folder.join("shared/data/imports");
        path.is_dir().then_some(path)
    });
    let required = std::env::var("DEED_REQUIRE_SHARED").is_ok_and(|value| value == "1");
    assert!(
        found.is_some() || !required,
        "shared/data/imports is missing"
    );
    if found.is_none() {
        eprintln!("SKIPPED: shared/data/imports is not there");
    }
    found
}

const TRAIL: &str = "arn:aws:cloudtrail:eu-central-1:111122223333:trail/trail";
const IAM: &str = "arn:aws:iam::111122223333";

/// File, mapping, effects, records that say nothing, bad records.
type Row<'a> = (&'a str, &'a str, Vec<String>, usize, usize);

fn table() -> Vec<Row<'static>> {
    let k8s = "kubernetes";
    let trail = "cloudtrail";
    let list = |effects: &[&str]| effects.iter().map(|&one| one.to_owned()).collect();
    let bucket_and_trail = || {
        vec![
            "s3.amazonaws.com:DeleteBucket arn:aws:s3:::b1".to_owned(),
            format!("cloudtrail.amazonaws.com:StopLogging {TRAIL}"),
        ]
    };
    let attached = || {
        let kind = "iam.amazonaws.com:AttachUserPolicy";
        [
            format!("{kind} {IAM}:user/mallory"),
            format!("{kind} arn:aws:iam::aws:policy/AdministratorAccess"),
        ]
    };
    vec![
        ("k01-dryrun.jsonl", k8s, list(&[]), 2, 0),
        (
            "k02-exec-get.jsonl",
            k8s,
            list(&["k8s.pods/exec k8s:shop/pods/web-1"]),
            0,
            0,
        ),
        (
            "k02-exec-post.jsonl",
            k8s,
            list(&["k8s.pods/exec k8s:shop/pods/web-1"]),
            0,
            0,
        ),
        ("k04-reviews.jsonl", k8s, list(&[]), 2, 0),
        (
            "k05-scale.jsonl",
            k8s,
            list(&[
                "k8s.deployments/scale k8s:shop/deployments/checkout",
                "k8s.serviceaccounts/token k8s:shop/serviceaccounts/agent",
            ]),
            0,
            0,
        ),
        (
            "k08-aks.jsonl",
            k8s,
            list(&["k8s.delete k8s:shop/pods/web-1?"]),
            0,
            0,
        ),
        (
            "k09-eventlist-pretty.json",
            k8s,
            list(&["k8s.delete k8s:shop/pods/web-1?"]),
            0,
            0,
        ),
        (
            "k11-torn.log",
            k8s,
            list(&[
                "k8s.delete k8s:shop/pods/web-1?",
                "k8s.delete k8s:shop/pods/web-2?",
            ]),
            0,
            1,
        ),
        ("t01-array-pretty.json", trail, bucket_and_trail(), 0, 0),
        ("t03-records-pretty.json", trail, bucket_and_trail(), 0, 0),
        ("t04-bom.json", trail, bucket_and_trail(), 0, 0),
        ("t04-records.json.gz", trail, bucket_and_trail(), 0, 0),
        ("t05-login-failure.jsonl", trail, list(&[]), 1, 0),
        ("t06-old-reads.jsonl", trail, list(&[]), 3, 0),
        ("t06-string-readonly.jsonl", trail, list(&[]), 1, 0),
        (
            "t12-iam.jsonl",
            trail,
            [
                vec![format!("iam.amazonaws.com:CreateUser {IAM}:user/mallory")],
                attached().to_vec(),
                vec![
                    "dynamodb.amazonaws.com:DeleteTable \
                     arn:aws:dynamodb:eu-central-1:111122223333:table/orders"
                        .to_owned(),
                ],
            ]
            .concat(),
            0,
            0,
        ),
        (
            "t12-run-instances.jsonl",
            trail,
            ["i-0new1", "i-0new2"]
                .map(|id| {
                    format!(
                        "ec2.amazonaws.com:RunInstances \
                         arn:aws:ec2:eu-central-1:111122223333:instance/{id}"
                    )
                })
                .to_vec(),
            0,
            0,
        ),
        (
            "t16-notify-events.jsonl",
            trail,
            list(&["s3.amazonaws.com:DeleteBucket arn:aws:s3:::b1"]),
            0,
            0,
        ),
        ("one-attach.jsonl", trail, attached().to_vec(), 0, 0),
        ("one-read.jsonl", trail, list(&[]), 1, 0),
        (
            "o01-otlp.jsonl",
            "o01-otlp.toml",
            list(&["span execute_tool refund"]),
            0,
            0,
        ),
        // A mapping that names nothing of the record makes claims.
        ("o02-float.jsonl", "o02.toml", list(&["k r?"]), 0, 0),
        ("o02-ns.jsonl", "o02.toml", list(&["k r?"]), 0, 0),
        (
            "o02-offset-nocolon.jsonl",
            "o02.toml",
            list(&["k r?"]),
            0,
            0,
        ),
    ]
}

#[test]
fn each_awkward_log_gives_what_it_says() {
    let Some(folder) = awkward() else { return };
    let find = |name: &str| match shipped(name) {
        Some(text) => Mapping::parse(text).unwrap(),
        None => {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            Mapping::parse(&text).unwrap()
        }
    };
    for (file, mapping, effects, nothing, bad) in table() {
        let (found, _) = read(&find(mapping), File::open(folder.join(file)).unwrap());
        let expected = Read {
            effects,
            nothing,
            bad,
        };
        assert_eq!(found, expected, "{file}");
    }
    let times = [
        ("o02-float.jsonl", 1_795_485_420_123_000),
        ("o02-ns.jsonl", 1_795_485_420_000_000),
        ("o02-offset-nocolon.jsonl", 1_795_514_400_000_000),
    ];
    for (file, time) in times {
        let (_, seen) = read(&find("o02.toml"), File::open(folder.join(file)).unwrap());
        assert_eq!(seen[0].observed_at_us, time, "{file}");
    }
    // A key that no resource may have costs its record, where the statement is made.
    let (found, _) = read(
        mapping("cloudtrail"),
        File::open(folder.join("t09-control-key.jsonl")).unwrap(),
    );
    assert_eq!(found.effects.len(), 3);
}

#[test]
fn a_mapping_of_ones_own_tells_nothing_from_what_is_not_understood() {
    let text = r#"
        what = "booking"
        time = "{/t}"
        expect = [{ pointer = "/type", exists = true }]
        [[nothing]]
        because = "a quote"
        only = [{ pointer = "/type", in = ["quote"] }]
        [[only]]
        pointer = "/code"
        less_than = 400
        [[only]]
        pointer = "/verb"
        not_in = ["get", "list"]
        [[only]]
        pointer = "/error"
        exists = false
        [[let]]
        name = "shop"
        value = "{/shop}"
        capture = '^shop-(\d+)$'
        [[effect]]
        each = "/lines"
        of = [{ pointer = "@/n", at_least = 1 }]
        kind = "k"
        resource = "{$shop}/{@/id}"
        amount = "{@/cents}"
        currency = "EUR"
        [[effect]]
        otherwise = true
        only = [{ pointer = "/lines", exists = false }]
        kind = "k"
        resource = "whatever"
    "#;
    let mapping = Mapping::parse(text).unwrap();
    let map = |json: &str| mapping.map(&serde_json::from_str(json).unwrap());
    let good = r#"{"type": "b", "t": 1795485420.5, "code": 200, "verb": "put", "shop": "shop-7",
        "lines": [{"id": "a", "n": 1, "cents": "5"}, {"id": "b", "n": 0}, {"id": "c", "n": 2, "cents": 7}]}"#;
    let Ok(Reading::Seen(mapped)) = map(good) else {
        panic!("{:?}", map(good))
    };
    let resources: Vec<_> = mapped.effects.iter().map(|one| &one.resource[..]).collect();
    assert_eq!(resources, ["7/a", "7/c"]);
    assert_eq!(mapped.effects[0].amount.as_ref().unwrap().minor_units, 5);
    assert_eq!(mapped.observed_at_us, 1_795_485_420_500_000);
    // A text that is the same for every record names no object.
    let vague = map(r#"{"type": "b", "t": 1, "code": 200, "verb": "put"}"#);
    assert!(
        matches!(vague, Ok(Reading::Seen(Mapped { effects, claims, .. }))
        if effects.is_empty() && claims.len() == 1)
    );
    for (json, because) in [
        (r#"{"type": "quote"}"#, "a quote"),
        (r#"{"type": "b", "code": 400, "verb": "put"}"#, FILTERED),
        (r#"{"type": "b", "verb": "put"}"#, FILTERED),
        (r#"{"type": "b", "code": 200, "verb": "list"}"#, FILTERED),
        (
            r#"{"type": "b", "code": 200, "verb": "put", "error": "no"}"#,
            FILTERED,
        ),
    ] {
        assert_eq!(
            map(json),
            Ok(Reading::Nothing(because.to_owned())),
            "{json}"
        );
    }
    for (json, says) in [
        (r#"{"t": 1, "code": 200, "verb": "put"}"#, "no booking"),
        (good.replace("1795485420.5", "null").as_str(), "no time"),
        (
            good.replace("1795485420.5", "\"soon\"").as_str(),
            "its time",
        ),
        (good.replace("\"5\"", "\"5.5\"").as_str(), "its amount"),
        // A field of the mapping that is null or missing makes the record unreadable.
        (good.replace("\"5\"", "null").as_str(), "its amount"),
        (
            good.replace("\"id\": \"a\",", "").as_str(),
            "what was changed",
        ),
        (good.replace("shop-7", "seven").as_str(), "what was changed"),
        ("[1]", "no object"),
    ] {
        let error = map(json).unwrap_err();
        assert!(error.contains(says), "{json}: {error}");
    }
}

#[test]
fn mistakes_in_a_mapping_are_named() {
    let effect = "[[effect]]\nkind=\"k\"\nresource=\"{/r}\"";
    for (text, says) in [
        ("time = \"{/t}\"\neffect = []".to_owned(), "at least one"),
        (format!("time = \"{{t}}\"\n{effect}"), "JSON pointer"),
        (format!("time = \"{{/t}}\"\ntmie = 1\n{effect}"), "tmie"),
        (effect.to_owned(), "time"),
        (format!("time = \"{{$t}}\"\n{effect}"), "no [[let]]"),
        (
            "time = \"{/t}\"\n[[effect]]\nkind = \"k\"".to_owned(),
            "needs a resource",
        ),
        (
            format!("time = \"{{/t}}\"\nexpect = [{{ pointer = \"/a\" }}]\n{effect}"),
            "says nothing",
        ),
        (
            format!("time = \"{{/t}}\"\n[[nothing]]\nbecause = \"b\"\nonly = []\n{effect}"),
            "needs a condition",
        ),
    ] {
        let error = Mapping::parse(&text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn nothing_of_a_record_is_dropped_unsaid() {
    let event = |n: usize| of_pod("patch", "/x", "", 200, "").replace("web-1", &format!("web-{n}"));
    // Two lists, one of them empty, or both with records.
    for (items, records) in [(vec![], vec![1, 2]), (vec![1], vec![2, 3])] {
        let list = |all: &[usize]| all.iter().map(|n| event(*n)).collect::<Vec<_>>().join(",");
        let text = format!(
            r#"[{{"items": [{}], "records": [{}]}}]"#,
            list(&items),
            list(&records)
        );
        let (found, _) = of_text("kubernetes", &text);
        assert_eq!(found.effects.len(), items.len() + records.len(), "{text}");
    }
    // A name that stands twice: a parser would drop one of them.
    let twice = event(1).replace(r#""verb": "patch""#, r#""verb": "patch", "verb": "get""#);
    let packed = serde_json::json!({"log": twice}).to_string();
    for text in [twice, packed] {
        assert_eq!(of_text("kubernetes", &text).0.bad, 1, "{text}");
    }
}

#[test]
fn a_doubt_makes_claims() {
    let text = r#"
        time = "{/t}"
        [[doubt]]
        because = "perhaps"
        only = [{ pointer = "/sure", empty = true }]
        [[effect]]
        kind = "k"
        resource = "{/r}"
    "#;
    let mapping = Mapping::parse(text).unwrap();
    for (sure, effects) in [("true", 1), ("false", 0), ("\"\"", 0), ("7", 1)] {
        let record = format!(r#"{{"t": 1, "r": "shop/7", "sure": {sure}}}"#);
        let Ok(Reading::Seen(mapped)) = mapping.map(&parse(&record).unwrap()) else {
            panic!("{record}")
        };
        assert_eq!(
            (mapped.effects.len(), mapped.claims.len()),
            (effects, 1 - effects)
        );
        assert_eq!(mapped.doubts.len(), 1 - effects);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A log is cut at any byte into any files, which come in any order, any number of times: no
    /// statement is made that the whole log does not give, and none is missing but of the records that a
    /// cut goes through. When the whole log has come too, the statements are the very same.
    #[test]
    fn the_same_statements_are_made_however_a_log_comes(
        forms in prop::collection::vec(0..4_usize, 1..10),
        cuts in prop::collection::vec(0..1_000_usize, 0..6),
        order in prop::collection::vec(0..6_usize, 0..8),
    ) {
        let mut log = Vec::new();
        let mut places = Vec::new();
        for (n, form) in forms.iter().enumerate() {
            let event = of_pod("patch", "/x", "", 200, r#", "user": {"username": "u"}"#)
                .replace("\"a\"", &format!("\"a{n}\""))
                .replace("web-1", &format!("web-{n}"));
            let (before, event, behind) = match form {
                0 => ("", event, "\n"),
                1 => ("[\n", event, "\n]\r\n"),
                2 => ("{\"kind\": \"EventList\", \"items\": [\n", event, "\n]}\n"),
                _ => {
                    let value: Value = serde_json::from_str(&event).unwrap();
                    ("", serde_json::to_string_pretty(&value).unwrap(), "\n")
                }
            };
            log.extend_from_slice(before.as_bytes());
            let begin = log.len();
            log.extend_from_slice(event.as_bytes());
            places.push((begin, log.len()));
            log.extend_from_slice(behind.as_bytes());
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|at| at * log.len() / 1_000).collect();
        cuts.extend([0, log.len()]);
        cuts.sort_unstable();
        let mut files: Vec<&[u8]> = cuts.windows(2).map(|cut| &log[cut[0]..cut[1]]).collect();
        let again: Vec<&[u8]> = order.iter().filter_map(|at| files.get(*at).copied()).collect();
        files.extend(again);
        for (at, other) in order.iter().enumerate() {
            let (at, other) = (at % files.len(), other % files.len());
            files.swap(at, other);
        }
        let whole = statements(&log);
        prop_assert_eq!(whole.len(), forms.len());
        let pieces: HashSet<_> = files.iter().flat_map(|file| statements(file)).collect();
        prop_assert!(pieces.is_subset(&whole));
        let is_cut = |place: &(usize, usize)| cuts.iter().any(|cut| place.0 < *cut && *cut < place.1);
        for (n, place) in places.iter().enumerate().filter(|(_, place)| !is_cut(place)) {
            let own = statements(&log[place.0..place.1]);
            prop_assert!(own.is_subset(&pieces), "{n} of {}", String::from_utf8_lossy(&log));
        }
        files.push(&log);
        let all: HashSet<_> = files.iter().flat_map(|file| statements(file)).collect();
        prop_assert_eq!(all, whole);
    }
}

/// Returns the bytes of the statements that a file gives.
fn statements(file: &[u8]) -> HashSet<Vec<u8>> {
    let maker = Maker {
        ledger_id: deed_evidence::LedgerId::new(deed_tlog::Hash::new([1; 32])),
        producer: "import:k8s".to_owned(),
        claimant: None,
        secret: [7; 32],
        task: None,
    };
    let (_, seen) = read(mapping("kubernetes"), file);
    let all = seen
        .iter()
        .flat_map(|mapped| maker.make(mapped, "", "").unwrap());
    all.map(|sent| sent.made.payload.to_vec()).collect()
}
