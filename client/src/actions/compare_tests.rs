//! A difference between the server's report and its entries is either a lie or something that these
//! entries cannot decide.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use deed_evidence::{
    KeyId, Micros, TaskId,
    genesis::Genesis,
    replay::task::{Close, Signed, TaskReplay, TaskVerdict, Unshown},
};
use deed_proto::v1::{self, FindingKind, IntentState, LayerState, OutcomeState};
use deed_tlog::{Hash, KeyName, NoteSigner, Origin, SigningKey, TreeHead, TreeSize};

use super::*;
use crate::head::SignedHead;

const TASK: TaskId = TaskId::new([1; 16]);

/// A leaf that was given, and one that was not.
const GIVEN: u64 = 7;
const ELSEWHERE: u64 = 90;

fn verdict() -> TaskVerdict {
    let name = "deed.example/logs/compared";
    let log = NoteSigner::from_seed(KeyName::new(name).unwrap(), &[1; 32]);
    let genesis = Genesis {
        origin: Origin::new(name).unwrap(),
        log_key: log.verifier_key().clone(),
        authority_keys: vec![*SigningKey::from_seed(&[2; 32]).public_key().as_bytes()],
        created_at: Micros::new(1),
        nonce: [4; 32],
        rules_version: 2,
    };
    let replay = TaskReplay::begin(&genesis.to_entry().unwrap(), TASK).unwrap();
    replay.end(1).unwrap()
}

/// Returns a report of one act and the verdict over its entries, which agree.
fn both(state: IntentState) -> (Gathered, TaskVerdict) {
    let mut verdict = verdict();
    verdict.acts = vec![v1::ActInfo {
        intent_leaf: GIVEN,
        state: state.into(),
        layers: Some(v1::Layers::default()),
        ..v1::ActInfo::default()
    }];
    let reported = ProvenTask {
        info: verdict.info.clone(),
        entries: Vec::new(),
        grants: Vec::new(),
        acts: verdict.acts.clone(),
        findings: Vec::new(),
        head: SignedHead {
            head: TreeHead {
                size: TreeSize::new(100),
                root: Hash::new([0; 32]),
            },
            note: Bytes::new(),
        },
    };
    let gathered = Gathered {
        report: reported,
        given: BTreeMap::from([(GIVEN, Bytes::new())]),
        covered: BTreeMap::new(),
        missed: BTreeSet::new(),
        time_only: None,
        unreported: None,
        refused: None,
        task: TASK,
    };
    (gathered, verdict)
}

/// Returns the numbers of contradictions, and of differences that the entries cannot decide.
fn counts(gathered: &Gathered, verdict: &TaskVerdict) -> (usize, usize) {
    let compared = with(gathered, verdict);
    (compared.differences.len(), compared.by_word.len())
}

fn found(kind: FindingKind, leaf_index: u64, about_leaf: u64) -> v1::Finding {
    v1::Finding {
        leaf_index,
        about_leaf,
        kind: kind.into(),
        ..v1::Finding::default()
    }
}

#[test]
fn time_changes_some_layers_and_no_others() {
    let (mut gathered, verdict) = both(IntentState::Cleared);
    assert_eq!(counts(&gathered, &verdict), (0, 0));
    gathered.report.acts[0].state = IntentState::Overdue.into();
    assert_eq!(counts(&gathered, &verdict), (0, 1));
    let claim = |change: fn(&mut v1::Layers)| {
        let (mut gathered, verdict) = both(IntentState::Cleared);
        gathered.report.acts[0].state = IntentState::Overdue.into();
        change(gathered.report.acts[0].layers.as_mut().unwrap());
        counts(&gathered, &verdict)
    };
    assert_eq!(
        claim(|it| it.set_corroboration(LayerState::Missing)),
        (0, 2)
    );
    assert_eq!(claim(|it| it.set_intent(LayerState::Missing)), (0, 2));
    assert_eq!(claim(|it| it.set_approval(LayerState::Proven)), (1, 1));
    assert_eq!(claim(|it| it.set_authority(LayerState::Proven)), (1, 1));
    assert_eq!(claim(|it| it.set_identity(LayerState::Proven)), (1, 1));
    // An Outcome that nobody saw.
    let (mut gathered, mut verdict) = both(IntentState::Completed);
    verdict.acts[0].outcome = OutcomeState::Unobserved.into();
    let reported = &mut gathered.report.acts[0];
    reported.outcome = OutcomeState::Uncorroborated.into();
    let layers = reported.layers.as_mut().unwrap();
    layers.set_corroboration(LayerState::Missing);
    assert_eq!(counts(&gathered, &verdict), (0, 2));
    let layers = gathered.report.acts[0].layers.as_mut().unwrap();
    layers.set_result(LayerState::Proven);
    assert_eq!(counts(&gathered, &verdict), (1, 2));
    // Time alone clears no Intent.
    let (mut gathered, verdict) = both(IntentState::Waiting);
    gathered.report.acts[0].state = IntentState::Cleared.into();
    assert_eq!(counts(&gathered, &verdict), (1, 0));
}

#[test]
fn a_grant_that_ends_may_have_ended() {
    let close = |ends, begins| Close { ends, begins };
    for (own, reported, how, wanted) in [
        (IntentState::Cleared, IntentState::Denied, None, (1, 0)),
        (
            IntentState::Cleared,
            IntentState::Denied,
            Some(close(true, false)),
            (0, 1),
        ),
        (
            IntentState::Cleared,
            IntentState::Denied,
            Some(close(false, true)),
            (1, 0),
        ),
        (
            IntentState::Denied,
            IntentState::Waiting,
            Some(close(false, true)),
            (0, 1),
        ),
        (
            IntentState::Denied,
            IntentState::Cleared,
            Some(close(true, false)),
            (1, 0),
        ),
        // A permit does not come of it.
        (
            IntentState::Waiting,
            IntentState::Cleared,
            Some(close(true, true)),
            (1, 0),
        ),
    ] {
        let (mut gathered, mut verdict) = both(own);
        gathered.report.acts[0].state = reported.into();
        verdict.close.extend(how.map(|how| (GIVEN, how)));
        assert_eq!(
            counts(&gathered, &verdict),
            wanted,
            "{own:?} {reported:?} {how:?}"
        );
        // The same holds for a finding about the act.
        let denied = found(FindingKind::ExpiredGrant, GIVEN, GIVEN);
        gathered.report.findings.push(denied);
        let more = counts(&gathered, &verdict);
        let settled = usize::from(how.is_none());
        assert_eq!(more, (wanted.0 + settled, wanted.1 + 1 - settled));
    }
}

#[test]
fn what_depends_on_other_tasks_is_the_servers_word() {
    use FindingKind as F;
    let told_alone = |one: v1::Finding| {
        let (mut gathered, verdict) = both(IntentState::Cleared);
        gathered.report.findings.push(one);
        counts(&gathered, &verdict)
    };
    let own_alone = |one: v1::Finding| {
        let (gathered, mut verdict) = both(IntentState::Cleared);
        verdict.findings.push(one);
        counts(&gathered, &verdict)
    };
    let of_changes = v1::Finding {
        contradicts_leaf: Some(GIVEN),
        ..found(F::NotCompared, GIVEN, GIVEN)
    };
    for (one, reported, own) in [
        (found(F::NotCompared, GIVEN, GIVEN), (0, 1), (0, 1)),
        (of_changes, (1, 0), (1, 0)),
        (found(F::CompromisedKeyUse, GIVEN, GIVEN), (1, 0), (0, 1)),
        (found(F::TokenUsedAfterClose, GIVEN, GIVEN), (1, 0), (0, 1)),
        (found(F::EffectMismatch, GIVEN, GIVEN), (1, 0), (1, 0)),
        (found(F::EffectMismatch, ELSEWHERE, GIVEN), (0, 1), (1, 0)),
        (found(F::IntentLapsed, GIVEN, GIVEN), (0, 1), (1, 0)),
    ] {
        assert_eq!(told_alone(one.clone()), reported, "{one:?}");
        assert_eq!(own_alone(one.clone()), own, "{one:?}");
    }
    // An Observation that may be of another task's act.
    let (mut gathered, mut verdict) = both(IntentState::Completed);
    gathered.report.acts[0].observation_leaves = vec![GIVEN];
    gathered.report.acts[0].outcome = OutcomeState::Corroborated.into();
    assert_eq!(counts(&gathered, &verdict), (2, 0));
    verdict.unshown.push(Unshown::Correlated { leaf: GIVEN });
    assert_eq!(counts(&gathered, &verdict), (0, 2));
}

#[test]
fn what_was_too_much_to_be_fetched_is_the_servers_word() {
    let (mut gathered, verdict) = both(IntentState::Completed);
    let reported = &mut gathered.report.acts[0];
    reported.observation_leaves = vec![ELSEWHERE];
    reported.outcome = OutcomeState::Corroborated.into();
    reported
        .layers
        .as_mut()
        .unwrap()
        .set_corroboration(LayerState::Proven);
    assert_eq!(counts(&gathered, &verdict), (3, 0));
    gathered.missed.insert(ELSEWHERE);
    assert_eq!(counts(&gathered, &verdict), (0, 3));
    // It does not hide findings that the server leaves out.
    let (mut gathered, mut verdict) = both(IntentState::Completed);
    gathered.missed.insert(ELSEWHERE);
    verdict.findings = vec![found(FindingKind::EffectMismatch, GIVEN, GIVEN)];
    assert_eq!(counts(&gathered, &verdict), (1, 0));
}

#[test]
fn an_act_of_a_batch_in_doubt_may_be_none() {
    let (mut gathered, mut verdict) = both(IntentState::Cleared);
    gathered.report.acts.clear();
    assert_eq!(counts(&gathered, &verdict), (1, 0));
    let key = KeyId::new([3; 16]);
    let signed = Signed::Batch { key, manifest: 5 };
    verdict.signed.insert(GIVEN, signed);
    assert_eq!(counts(&gathered, &verdict), (1, 0));
    verdict.unshown.push(Unshown::Batch { manifest: 5 });
    assert_eq!(counts(&gathered, &verdict), (0, 1));
    assert_eq!(doubtful_batch(&verdict, GIVEN), Some(5));
}

#[test]
fn a_finding_about_something_of_another_task_is_the_same() {
    let (mut gathered, mut verdict) = both(IntentState::Cleared);
    let unknown = found(FindingKind::UnknownGrant, GIVEN, GIVEN);
    verdict.findings = vec![unknown.clone()];
    gathered.report.findings = vec![v1::Finding {
        contradicts_leaf: Some(ELSEWHERE),
        ..unknown
    }];
    assert_eq!(counts(&gathered, &verdict), (0, 0));
    // A grant whose parent is another task's: what is wrong with that, the whole ledger knows.
    gathered.report.findings[0].kind = FindingKind::LimitExceeded.into();
    assert_eq!(counts(&gathered, &verdict), (0, 2));
    gathered.report.findings.clear();
    assert_eq!(counts(&gathered, &verdict), (1, 0));
}

#[test]
fn dispositions_are_the_servers_word_and_must_be_there() {
    let (mut gathered, mut verdict) = both(IntentState::Cleared);
    let one = found(FindingKind::EffectMismatch, GIVEN, GIVEN);
    verdict.findings = vec![one.clone()];
    gathered.report.findings = vec![v1::Finding {
        disposition_leaf: Some(ELSEWHERE),
        disposition: v1::DispositionKind::Explained.into(),
        ..one
    }];
    // The disposition names a finding that does not exist.
    assert_eq!(counts(&gathered, &verdict), (1, 0));
    let disposes = |number: u32| {
        let statement = v1::Statement {
            ledger_id: Bytes::from_static(&[1; 32]),
            producer: "deed:authority".to_owned(),
            session: Bytes::from_static(&[1; 16]),
            sequence: 1,
            body: Some(Body::FindingDisposition(v1::FindingDisposition {
                leaf_index: GIVEN,
                number,
                kind: v1::DispositionKind::Explained.into(),
                reviewed_by: "https://example.org/people/eve".to_owned(),
                reason: "seen".to_owned(),
            })),
            ..v1::Statement::default()
        };
        let payload = statement::encode(&statement).unwrap();
        Entry::unsigned(&payload, Micros::new(1)).encode()
    };
    gathered.given.insert(ELSEWHERE, disposes(1));
    assert_eq!(counts(&gathered, &verdict), (1, 0));
    gathered.given.insert(ELSEWHERE, disposes(0));
    assert_eq!(counts(&gathered, &verdict), (0, 1));
}
