use crate::policy::{
    CEDAR_VERSION, DEFAULT_POLICIES, DEFAULT_SCHEMA, EvidencePolicy, POLICIES_BYTES_MAX,
    POLICIES_MAX, PolicyError, SCHEMA_BYTES_MAX, digest,
};

use super::{default_policy, policy};

fn error(policies: &str) -> PolicyError {
    EvidencePolicy::compile(policies, DEFAULT_SCHEMA).unwrap_err()
}

fn schema_error(schema: &str) -> PolicyError {
    EvidencePolicy::compile("permit (principal, action, resource);", schema).unwrap_err()
}

fn contains(list: &[String], wanted: &[&str]) {
    assert_eq!(list.len(), wanted.len(), "{list:#?}");
    for (found, wanted) in list.iter().zip(wanted) {
        assert!(found.contains(wanted), "{found:?} lacks {wanted:?}");
    }
}

#[test]
fn the_version_is_cedars() {
    let version = cedar_policy::get_lang_version();
    assert_eq!(
        CEDAR_VERSION,
        format!("{}.{}", version.major, version.minor)
    );
}

#[test]
fn the_digest_is_as_the_proto_says() {
    use sha2::{Digest as _, Sha256};
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 2];
    bytes.extend_from_slice(b"abc");
    let wanted: [u8; 32] = Sha256::digest(&bytes).into();
    assert_eq!(digest("ab", "c"), wanted);
    assert_ne!(digest("a", "bc"), wanted);
    let policy = default_policy();
    assert_eq!(policy.digest(), digest(DEFAULT_POLICIES, DEFAULT_SCHEMA));
    assert_eq!(policy.policies(), DEFAULT_POLICIES);
    assert_eq!(policy.schema(), DEFAULT_SCHEMA);
    assert_eq!(policy, default_policy());
    assert!(format!("{policy:?}").contains(&hex::encode(policy.digest())));
}

#[test]
fn texts_are_bounded() {
    let long = format!(
        "permit (principal, action, resource); //{}",
        "x".repeat(POLICIES_BYTES_MAX)
    );
    for (text, bytes) in [("", 0), (&*long, long.len())] {
        let wanted = PolicyError::PoliciesLength {
            found: bytes,
            max: POLICIES_BYTES_MAX,
        };
        assert_eq!(error(text), wanted);
    }
    let fits = &long[..POLICIES_BYTES_MAX];
    assert!(EvidencePolicy::compile(fits, DEFAULT_SCHEMA).is_ok());
    let long = format!("{DEFAULT_SCHEMA} //{}", "x".repeat(SCHEMA_BYTES_MAX));
    for (text, bytes) in [("", 0), (&*long, long.len())] {
        let wanted = PolicyError::SchemaLength {
            found: bytes,
            max: SCHEMA_BYTES_MAX,
        };
        assert_eq!(schema_error(text), wanted);
    }
}

#[test]
fn at_most_256_policies_and_at_least_one() {
    let most = "permit (principal, action, resource);".repeat(POLICIES_MAX);
    assert_eq!(policy(&most).infos().len(), POLICIES_MAX);
    let found = POLICIES_MAX + 1;
    let max = POLICIES_MAX;
    let more = format!("{most}forbid (principal, action, resource);");
    assert_eq!(error(&more), PolicyError::Count { found, max });
    assert_eq!(error("// none"), PolicyError::Count { found: 0, max });
}

#[test]
fn what_is_not_cedar_is_refused_with_its_place() {
    let PolicyError::Policies(list) = error("permit (principal, action, resource)\nwhen { 1 + };")
    else {
        panic!();
    };
    contains(&list, &["2:12: "]);
    let PolicyError::Schema(list) = schema_error("entity Agent;\nentity Agent = Long;") else {
        panic!();
    };
    contains(&list, &["2:16: "]);
    let PolicyError::Schema(list) = schema_error("entity Agent { a: Missing };") else {
        panic!();
    };
    contains(&list, &["Missing"]);
}

#[test]
fn what_does_not_fit_the_schema_is_refused_by_place() {
    let text = "permit (principal, action, resource)
when { context.amount.minor_units > 0 };
permit (principal, action == Action::\"undeclared\", resource);
@id(\"typo\")
permit (principal, action, resource)
when { context.evidence.aprovals > 0 && context.tier > 1 };
permit (principal is User, action, resource);";
    let PolicyError::Invalid(list) = error(text) else {
        panic!();
    };
    let places: Vec<_> = list
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert!(list.iter().any(|line| line.contains("amount")), "{list:#?}");
    assert!(
        list.iter().any(|line| line.contains("undeclared")),
        "{list:#?}"
    );
    assert!(list.iter().any(|line| line.contains("`typo`")), "{list:#?}");
    assert!(list.iter().any(|line| line.contains("User")), "{list:#?}");
    let lines: Vec<u32> = places
        .iter()
        .map(|place| place.split(':').next().unwrap().parse().unwrap())
        .collect();
    assert!(lines.is_sorted(), "{list:#?}");
    assert_eq!(error(text), PolicyError::Invalid(list));
}

#[test]
fn templates_are_refused() {
    let text = "@id(\"mine\") permit (principal == ?principal, action, resource);
        permit (principal, action, resource in ?resource);";
    let PolicyError::Templates(list) = error(text) else {
        panic!();
    };
    assert_eq!(list, ["mine", "policy1"]);
}

#[test]
fn annotations_are_read_strictly() {
    for (annotation, wanted) in [
        ("@keep(\"tool_call,screenshot\")", "found \"screenshot\""),
        ("@keep(\"\")", "found \"\""),
        ("@keep", "found \"\""),
        ("@keep(\"result,result\")", "twice"),
        ("@corroborate(\"0\")", "found \"0\""),
        ("@corroborate(\"31536001\")", "1 to 31536000"),
        ("@corroborate(\"+1\")", "seconds"),
        ("@corroborate(\"1 day\")", "seconds"),
        ("@corroborate(\"99999999999999999999\")", "seconds"),
        ("@corrobate(\"60\")", "@corrobate is unknown"),
        ("@id(\"\")", "1 to 128 bytes"),
        ("@id(\"a\\nb\")", "cannot be seen"),
    ] {
        let text = format!("{annotation} permit (principal, action, resource);");
        let PolicyError::Annotations(list) = error(&text) else {
            panic!("{annotation}");
        };
        contains(&list, &[wanted]);
    }
    let forbid = "@id(\"x\") @keep(\"result\") forbid (principal, action, resource);";
    let PolicyError::Annotations(list) = error(forbid) else {
        panic!();
    };
    contains(&list, &["x: @keep belongs on a permit"]);
    let good = "@id(\"x\") @description(\"y\") @corroborate(\"31536000\")
        permit (principal, action, resource);";
    let policy = policy(good);
    assert_eq!(policy.infos()[0].name, "x");
    assert_eq!(
        policy.infos()[0].duties.corroborate_within_us,
        Some(31_536_000_000_000)
    );
}

#[test]
fn names_are_used_once() {
    let twice = "@id(\"x\") permit (principal, action, resource);
        @id(\"x\") forbid (principal, action, resource);";
    let number = "permit (principal, action, resource);
        @id(\"policy0\") forbid (principal, action, resource);";
    for text in [twice, number] {
        let PolicyError::Annotations(list) = error(text) else {
            panic!();
        };
        contains(&list, &["two policies have this @id"]);
    }
}

#[test]
fn warnings_are_kept() {
    let text = "permit (principal, action, resource) when { false };";
    contains(policy(text).warnings(), &["1:1: "]);
}

/// The thread's stack is as small as any that compiles policies.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    thread.spawn(test).unwrap().join().unwrap();
}

#[test]
fn what_nests_deeply_is_refused_before_it_is_read() {
    on_a_small_stack(|| {
        for (open, inner, close) in [
            ("(", "true", ")"),
            ("[", "1", "]"),
            ("{a: ", "1", "}"),
            ("if true then ", "1", " else 1"),
            ("", "true", " && true"),
            ("", "1", " + 1"),
            ("", "context", ".a"),
            ("", "context", "[\"a\"]"),
            ("", "context", ".f(1)"),
            ("!", "true", ""),
            ("-", "1", ""),
            ("f(", "1", ""),
            ("((((", "1", ""),
        ] {
            let room = POLICIES_BYTES_MAX - 60;
            let times = room / (open.len() + close.len());
            for times in [times - 10, 129, 200] {
                let text = format!(
                    "permit (principal, action, resource) when {{ {}{inner}{} }};",
                    open.repeat(times),
                    close.repeat(times)
                );
                let found = EvidencePolicy::compile(&text, DEFAULT_SCHEMA).unwrap_err();
                assert!(
                    matches!(found, PolicyError::Nesting { .. }),
                    "{open}{close}: {found}"
                );
            }
        }
        let nested = format!(
            "type A = {}Long{};",
            "Set<".repeat(3_000),
            ">".repeat(1_000)
        );
        let found = schema_error(&nested);
        assert!(matches!(found, PolicyError::Nesting { .. }));
        assert!(found.is_of_schema());
        let whens = "when { true } ".repeat(1_000);
        let text = format!("permit (principal, action, resource) {whens};");
        assert!(matches!(error(&text), PolicyError::Nesting { .. }));
    });
}

#[test]
fn what_is_just_not_too_deep_is_evaluated_on_a_small_stack() {
    on_a_small_stack(|| {
        for (open, inner, close) in [
            ("(", "true", ")"),
            ("if true then ", "true", " else true"),
            ("", "true", " && true"),
            ("", "1", " + 1"),
            ("[", "1", "]"),
            ("{a: ", "1", "}"),
        ] {
            let deepest = (1..128).rev().find_map(|times| {
                let (open, close) = (open.repeat(times), close.repeat(times));
                let expression = format!("{open}{inner}{close}");
                let text = format!(
                    "permit (principal, action, resource)
                     when {{ ({expression}) == ({expression}) }};"
                );
                match EvidencePolicy::compile(&text, DEFAULT_SCHEMA) {
                    Ok(policy) => Some((times, policy)),
                    Err(PolicyError::Nesting { .. } | PolicyError::Cost { .. }) => None,
                    Err(other) => panic!("{open}: {other}"),
                }
            });
            let (times, policy) = deepest.unwrap();
            assert!(times >= 20, "{open}{close}: {times}");
            let request = super::request(deed_proto::v1::RiskTier::Low, super::FULL);
            let ruling = policy.judge(&request);
            assert_eq!(
                ruling,
                super::Ruling::Cleared(super::NO_DUTIES),
                "{open}{close}"
            );
        }
    });
}

#[test]
fn schemas_that_declare_too_much_are_refused() {
    let types: Vec<_> = (0..30).map(|number| format!("T{number}")).collect();
    let types = types.join(", ");
    let many = format!(
        "entity {types};
         action \"any\" appliesTo {{ principal: [{types}], resource: [{types}] }};"
    );
    assert!(matches!(
        schema_error(&many),
        PolicyError::Combinations { .. }
    ));
}

#[test]
fn types_that_grow_when_written_out_are_refused() {
    let schema = |types: &mut dyn Iterator<Item = String>| {
        let types: String = types.collect();
        format!(
            "type T0 = {{ a: Long }}; {types} entity Agent; entity Resource;
             action \"any\" appliesTo {{ principal: Agent, resource: Resource, context: T9 }};"
        )
    };
    let wide = |number: u32| format!("type T{number} = {{ a: T{0}, b: T{0} }};", number - 1);
    let deep = |number: u32| format!("type T{number} = {{ a: T{} }};", number - 1);
    let found = schema_error(&schema(&mut (1..=40).map(wide)));
    assert!(matches!(found, PolicyError::Types { .. }), "{found}");
    on_a_small_stack(move || {
        let found = schema_error(&schema(&mut (1..=500).map(deep)));
        assert!(matches!(found, PolicyError::Types { .. }), "{found}");
        // Types whose names lead from one deep record into the next: the first of them is the deepest.
        let records = |number: u32| {
            let (open, close) = ("{x:".repeat(38), "}".repeat(38));
            format!("type T{number} = {open} T{} {close};", number + 1)
        };
        let last = "type T90 = { a: Long };".to_owned();
        let found = schema_error(&schema(&mut (10..90).map(records).chain([last])));
        assert!(matches!(found, PolicyError::Types { .. }), "{found}");
        for fits in [
            schema(&mut (1..=9).map(wide)),
            schema(&mut (1..=60).map(deep)),
        ] {
            let policies = "permit (principal, action, resource);";
            EvidencePolicy::compile(policies, &fits).unwrap();
        }
        let itself =
            schema(&mut ["type T9 = { a: T8 }; type T8 = { a: T9 };".to_owned()].into_iter());
        let found = schema_error(&itself);
        assert!(matches!(found, PolicyError::Schema(_)), "{found}");
    });
}
