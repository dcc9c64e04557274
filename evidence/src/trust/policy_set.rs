//! The checks of a PolicySet before it is a trust statement, and before it is recorded.

use deed_proto::v1;

use super::TrustStatement;
use crate::{
    Problem, WireError,
    policy::{self, CEDAR_VERSION, StoredPolicy},
};

/// Checks what the set says of its texts, and keeps these. They are not compiled: that takes much
/// longer than anything else a statement asks for, so whoever needs it does it when it is known who
/// signed ([`check`]).
pub(super) fn parse(set: &v1::PolicySet) -> Result<TrustStatement, WireError> {
    let digest = policy::digest(&set.policies, &set.schema);
    if set.digest[..] != digest[..] {
        let what = format!(
            "{} where the policies and the schema have {}",
            hex::encode(&set.digest),
            hex::encode(digest)
        );
        return Err(wrong("digest", what));
    }
    Ok(TrustStatement::PolicySet {
        policy: StoredPolicy::new(&set.policies, &set.schema, &set.cedar_version),
        // Which rules it may bring is looked at where statements are parsed.
        rules_version: set.rules_version,
    })
}

/// Compiles a set that is to be recorded. What it says of itself comes first: it is cheap, and
/// another version of Cedar would explain the rest.
pub(super) fn check(policy: &StoredPolicy) -> Result<(), WireError> {
    let version = policy.cedar_version();
    if version != CEDAR_VERSION {
        let what = format!("version {version} where {CEDAR_VERSION} is evaluated");
        return Err(wrong("cedar_version", what));
    }
    match policy.compiled() {
        Ok(_) => Ok(()),
        Err(error) if error.is_of_schema() => Err(wrong("schema", error.summary())),
        Err(error) => Err(wrong("policies", error.summary())),
    }
}

fn wrong(field: &str, what: String) -> WireError {
    WireError::new(format!("policy_set.{field}"), Problem::Policy(what))
}

#[cfg(test)]
mod tests {
    use deed_proto::v1::{self, statement::Body};
    use deed_tlog::{Hash, KeyName, LeafIndex, NoteSigner, Origin, SigningKey};

    use crate::{
        LedgerId, Micros, Problem, WireError,
        genesis::Genesis,
        policy::{self, CEDAR_VERSION, DEFAULT_POLICIES, DEFAULT_SCHEMA, StoredPolicy},
        signature::key_id,
        statement,
        trust::{PolicyInForce, TrustState, TrustStatement},
    };

    fn set(policies: &str, schema: &str) -> v1::PolicySet {
        v1::PolicySet {
            policies: policies.to_owned(),
            schema: schema.to_owned(),
            digest: policy::digest(policies, schema).to_vec().into(),
            cedar_version: CEDAR_VERSION.to_owned(),
            rules_version: 2,
            reason: String::new(),
        }
    }

    fn parse(set: v1::PolicySet) -> Result<Option<TrustStatement>, WireError> {
        let payload = statement::encode(&v1::Statement {
            ledger_id: vec![0x11; 32].into(),
            producer: "deed:authority".to_owned(),
            session: vec![0x55; 16].into(),
            body: Some(Body::PolicySet(set)),
            ..v1::Statement::default()
        });
        TrustStatement::parse(&payload.unwrap())
    }

    fn stored(policies: &str) -> StoredPolicy {
        StoredPolicy::new(policies, DEFAULT_SCHEMA, CEDAR_VERSION)
    }

    fn refused(set: v1::PolicySet) -> (String, String) {
        let checked = parse(set).and_then(|said| said.unwrap().check_policy());
        let error = checked.unwrap_err();
        assert!(matches!(error.problem, Problem::Policy(_)), "{error}");
        (error.field, error.problem.to_string())
    }

    #[test]
    fn a_set_of_policies_is_compiled_when_it_is_checked_and_not_when_it_is_parsed() {
        let policy = stored(DEFAULT_POLICIES);
        let parsed = parse(set(DEFAULT_POLICIES, DEFAULT_SCHEMA)).unwrap();
        let rules_version = 2;
        let wanted = TrustStatement::PolicySet {
            policy,
            rules_version,
        };
        assert_eq!(parsed.as_ref(), Some(&wanted));
        let Some(TrustStatement::PolicySet { policy, .. }) = &parsed else {
            panic!("{parsed:?}");
        };
        assert!(!policy.is_compiled());
        parsed.as_ref().unwrap().check_policy().unwrap();
        assert!(policy.is_compiled());
    }

    #[test]
    fn a_recorded_set_of_another_version_of_cedar_is_no_fault_of_the_log() {
        for (version, policies, faulty) in [
            (CEDAR_VERSION, "this is no policy", true),
            ("4.0", "this is no policy", false),
            ("9.0", DEFAULT_POLICIES, false),
        ] {
            let set = v1::PolicySet {
                cedar_version: version.to_owned(),
                ..set(policies, DEFAULT_SCHEMA)
            };
            let said = parse(set).unwrap().unwrap();
            assert_eq!(said.check_recorded_policy().is_err(), faulty, "{version}");
            assert!(said.check_policy().is_err(), "{version}");
        }
    }

    #[test]
    fn what_it_says_of_itself_must_be_so() {
        let good = || set(DEFAULT_POLICIES, DEFAULT_SCHEMA);
        for (field, changed) in [
            (
                "policy_set.digest",
                v1::PolicySet {
                    digest: vec![1; 32].into(),
                    ..good()
                },
            ),
            (
                "policy_set.cedar_version",
                v1::PolicySet {
                    cedar_version: "4.5".to_owned(),
                    ..good()
                },
            ),
        ] {
            assert_eq!(refused(changed).0, field);
        }
    }

    #[test]
    fn cedars_words_name_the_text_and_the_place() {
        let (field, words) = refused(set("\n permit (principal);", DEFAULT_SCHEMA));
        assert_eq!(field, "policy_set.policies");
        assert!(words.contains("2:19: "), "{words}");
        let (field, words) = refused(set("permit (principal, action, resource);", "entity 1;"));
        assert_eq!(field, "policy_set.schema");
        assert!(words.contains("1:8: "), "{words}");
        let many = "permit (principal, action, resource) when { context.x };".repeat(200);
        let (field, words) = refused(set(&many, DEFAULT_SCHEMA));
        assert_eq!(field, "policy_set.policies");
        assert!(
            words.len() < 2_200 && words.contains("200 in all"),
            "{words}"
        );
    }

    #[test]
    fn the_trust_state_has_the_newest_policy_and_its_rules() {
        let origin = "deed.example/logs/policies";
        let name: KeyName = origin.parse().unwrap();
        let authority = SigningKey::from_seed(&[3; 32]);
        let mut trust = TrustState::genesis(
            LedgerId::new(Hash::new([0x11; 32])),
            &Genesis {
                origin: Origin::new(origin).unwrap(),
                log_key: NoteSigner::from_seed(name, &[1; 32]).verifier_key().clone(),
                authority_keys: vec![*authority.public_key().as_bytes()],
                created_at: Micros::new(1),
                nonce: [4; 32],
                rules_version: 1,
            },
        );
        assert_eq!((trust.policy(), trust.rules_version()), (None, 1));
        for (leaf, policies) in [
            (7, DEFAULT_POLICIES),
            (9, "forbid (principal, action, resource);"),
        ] {
            let said = parse(set(policies, DEFAULT_SCHEMA)).unwrap().unwrap();
            let (at, leaf) = (Micros::new(2), LeafIndex::new(leaf));
            let signer = key_id(authority.public_key());
            trust.judge(&said, signer, at).unwrap();
            trust.apply(&said, at, leaf, Hash::new([9; 32]));
            let policy = stored(policies);
            assert_eq!(trust.policy(), Some(&PolicyInForce { policy, leaf }));
            assert_eq!(trust.rules_version(), 2);
        }
    }
}
