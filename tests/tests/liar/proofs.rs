//! `deed verify` with valid inclusion proofs of entries that contradict themselves, or that nobody
//! signed.

use deed_proto::v1::RiskTier;
use deed_tests::{
    liar::{Cast, ForgedLedger, Place, cast, clearance},
    process::{Deed, Ended},
};

use crate::{OK, does_not_verify, words};

type Forged = fn(&mut ForgedLedger, &mut Cast, [u8; 16]) -> Place;

/// Makes the proof of such an entry, and verifies it offline.
fn verified(forge: Forged) -> Ended {
    let mut forged = ForgedLedger::new("payments");
    let mut cast = Cast::in_ledger(&mut forged);
    let (task, _) = forged.opens(&mut cast.platform, RiskTier::Low);
    let place = forge(&mut forged, &mut cast, task);
    let deed = Deed::new("http://127.0.0.1:1", "payments");
    let files = forged.write_proof(&deed.file("proofs"), place.leaf);
    let [proof, entry, policy] =
        [&files.proof, &files.entry, &files.policy].map(|path| path.to_str().unwrap());
    deed.run(["verify", proof, "--entry", entry, "--policy", policy])
}

/// Checks that an entry is refused that no honest ledger can have.
#[track_caller]
fn refused(what: &str, says: &str, forge: Forged) {
    let ended = verified(forge);
    does_not_verify(what, &ended, says);
    assert!(!ended.stdout.contains("verified"), "{what}: {ended:#?}");
}

/// Checks that the author of an entry is reported as not checked, because the proof does not show
/// it.
#[track_caller]
fn author_is_open(what: &str, forge: Forged) {
    let ended = verified(forge).expect_code(OK);
    let words = words(&ended);
    for open in [
        "signature not checked received",
        "not checked author's signature: key ",
        "not checked key's standing: ",
        "not verified witness quorum, author's signature, key's standing, ",
    ] {
        assert!(words.contains(open), "{what}: {open}: {ended:#?}");
    }
    let of_log = "verified inclusion, head signature";
    assert!(words.ends_with(of_log), "{what}: {ended:#?}");
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let by_ledger =
        "the entry contradicts itself: author: is the ledger for the bodies that only it";
    refused(
        "an Intent by the ledger",
        by_ledger,
        |forged, cast, task| {
            forged.says_by_ledger(&mut cast.agent, Some(task), cast::intent(None, 1))
        },
    );
    refused("a Clearance by nobody", by_ledger, |forged, cast, task| {
        let said = cast::intent(None, 1);
        let intent = forged.says(&mut cast.agent, Some(task), said);
        let said = cast::decision(&intent, deed_proto::v1::Verdict::Allow);
        let decided = forged.says(&mut cast.engine, Some(task), said);
        forged.writes_unsigned(task, clearance(&intent, 8, &[&decided]))
    });
}

#[test]
fn a_signature_that_was_not_checked_is_not_verified() {
    author_is_open("64 bytes of 0xbb", |forged, cast, task| {
        let said = cast::intent(None, 1);
        forged.says_signed_so(&mut cast.agent, Some(task), said, [0xbb; 64])
    });
    author_is_open("a signature of something else", |forged, cast, task| {
        let (agent, some) = (&mut cast.agent, Some(task));
        let signature = *agent
            .envelope(some, cast::intent(None, 2))
            .signature
            .first_chunk()
            .unwrap();
        forged.says_signed_so(agent, some, cast::intent(None, 1), signature)
    });
    let alone = "the entry is one of a batch and has no signature of its own";
    refused("no manifest", alone, |forged, cast, task| {
        let said = cast::intent(None, 1);
        forged.says_batched_without_manifest(&mut cast.agent, Some(task), said)
    });
}

/// The control: a true signature is no reason to refuse, and is not reported as checked without a
/// key to check it with.
#[test]
fn a_true_entry_is_in_the_log() {
    let ended = verified(|forged, cast, task| {
        forged.says(&mut cast.agent, Some(task), cast::intent(None, 1))
    });
    let ended = ended.expect_code(OK);
    assert!(words(&ended).contains("the entry is leaf"), "{ended:#?}");
    author_is_open("a true signature", |forged, cast, task| {
        forged.says(&mut cast.agent, Some(task), cast::intent(None, 1))
    });
}
