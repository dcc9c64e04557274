//! The words for what others saw of an act, against what the layer says.

use super::*;

fn act(outcome: OutcomeState, layer: LayerState, doubtful: bool) -> v1::ActInfo {
    v1::ActInfo {
        outcome: outcome.into(),
        layers: Some(v1::Layers {
            corroboration: layer.into(),
            ..v1::Layers::default()
        }),
        keys: vec![v1::ReliedKey {
            leaf_index: 12,
            part: EvidencePart::Observation.into(),
            doubtful,
            ..v1::ReliedKey::default()
        }],
        ..v1::ActInfo::default()
    }
}

#[test]
fn that_somebody_saw_the_same_goes_by_the_layer() {
    use {LayerState as L, OutcomeState as O};
    let says = |outcome, layer, doubtful| {
        let act = act(outcome, layer, doubtful);
        corroboration(&act, Basis::Checked)
    };
    let proof = "An independent system saw the same.";
    assert_eq!(says(O::Corroborated, L::Proven, false), proof);
    let word = corroboration(&act(O::Corroborated, L::Proven, false), Basis::ServersWord);
    assert!(word.ends_with("by the server's word."), "{word}");
    for (layer, doubtful, words) in [
        (L::Claimed, false, "It is claimed that"),
        (L::Missing, false, "It is claimed that"),
        (L::NotAsked, false, "It is claimed that"),
        (L::Unspecified, false, "It is claimed that"),
        (L::Contradicted, true, "by a key in doubt"),
        (L::Contradicted, false, "More was seen"),
    ] {
        let said = says(O::Corroborated, layer, doubtful);
        assert!(said.contains(words) && said != proof, "{layer:?}: {said}");
    }
    for outcome in [O::Contradicted, O::Unobserved, O::Unspecified] {
        let said = says(outcome, L::Claimed, false);
        assert!(said.contains("claim"), "{outcome:?}: {said}");
    }
    let against = says(O::Contradicted, L::Contradicted, false);
    assert_eq!(against, "What was seen is not what was declared.");
}

#[test]
fn only_what_the_layers_rest_on_was_seen() {
    let sound = act(OutcomeState::Corroborated, LayerState::Proven, false);
    assert!(counts(&sound, Basis::Checked, 12));
    assert!(!counts(&sound, Basis::Checked, 13), "of nobody's key");
    assert!(!counts(&sound, Basis::ServersWord, 12));
    let doubtful = act(OutcomeState::Corroborated, LayerState::Contradicted, true);
    assert!(!counts(&doubtful, Basis::Checked, 12));
    let mut approved = sound;
    approved.keys[0].part = EvidencePart::Approval.into();
    assert!(!counts(&approved, Basis::Checked, 12), "another part");
}
