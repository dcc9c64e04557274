//! `deed approve` asks a person about an Intent that nobody stands behind.

use deed_proto::v1::{RiskTier, Verdict};
use deed_tests::{
    liar::{Cast, ForgedLedger, Liar, Place, cast},
    process::Deed,
    run,
};

use crate::{OK, key_file, words};

type Said = fn(&mut ForgedLedger, &mut Cast, [u8; 16]) -> Place;

/// Approves an act that `said` puts into the ledger. That succeeds if `approves`; otherwise it
/// fails, and nothing is signed.
async fn asked(what: &str, approves: bool, said: Said) {
    let mut forged = ForgedLedger::new("payments");
    let mut cast = Cast::in_ledger(&mut forged);
    let (task, _) = forged.opens(&mut cast.platform, RiskTier::Payment);
    let leaf = said(&mut forged, &mut cast, task).leaf.to_string();
    let server = forged.serve().await;
    let before = server.size();
    let liar = Liar::before(&server.url()).await;
    for verdict in [&["--yes"][..], &["--yes", "--refuse"]] {
        let deed = Deed::new(&liar.url(), "payments");
        let key = key_file(&deed, "approver.pem", &cast.approver.key);
        let command = ["approve", &leaf, "--key", &key];
        let ended = deed.run([&command[..], verdict].concat());
        if approves {
            ended.expect_code(OK);
            continue;
        }
        assert_ne!(ended.code(), Some(OK), "{what}: {ended:#?}");
        let words = words(&ended);
        assert!(!words.contains("approved"), "{what}: {ended:#?}");
        assert_eq!(server.size(), before, "{what}: {ended:#?}");
        let asked = liar.asked();
        let sent = asked.iter().any(|rpc| rpc.starts_with("append"));
        assert!(!sent, "{what}: {asked:?}");
    }
}

#[test]
fn nobody_is_asked_about_what_nobody_signed() {
    run(async {
        asked("a signature that is none", false, |forged, cast, task| {
            let said = cast::intent(None, 5);
            forged.says_signed_so(&mut cast.agent, Some(task), said, [0xbb; 64])
        })
        .await;
        asked("no manifest", false, |forged, cast, task| {
            let said = cast::intent(None, 5);
            forged.says_batched_without_manifest(&mut cast.agent, Some(task), said)
        })
        .await;
        asked("the ledger's own", false, |forged, cast, task| {
            let said = cast::intent(None, 5);
            forged.says_by_ledger(&mut cast.agent, Some(task), said)
        })
        .await;
        asked("another producer's key", false, |forged, cast, task| {
            let payload = cast.agent.payload(Some(task), cast::intent(None, 5));
            forged.takes(&payload, &cast.bank)
        })
        .await;
        asked("a revoked key", false, |forged, cast, task| {
            let revoked = cast.agent.revocation(None);
            forged.says(&mut cast.authority, None, revoked);
            forged.says(&mut cast.agent, Some(task), cast::intent(None, 5))
        })
        .await;
    });
}

/// The controls: a true signature, alone and in a batch.
#[test]
fn what_the_agent_signed_can_be_approved() {
    run(async {
        asked("a signature", true, |forged, cast, task| {
            let until = forged.now() + 36_000_000_000;
            let grant = cast::grant(&cast.agent, until);
            let grant = forged.says(&mut cast.authority, Some(task), grant);
            let said = cast::intent(Some(&grant), 5);
            let intent = forged.says(&mut cast.agent, Some(task), said);
            let said = cast::decision(&intent, Verdict::Allow);
            forged.says(&mut cast.engine, Some(task), said);
            intent
        })
        .await;
        asked("a batch", true, |forged, cast, task| {
            let until = forged.now() + 36_000_000_000;
            let grant = cast::grant(&cast.agent, until);
            let grant = forged.says(&mut cast.authority, Some(task), grant);
            let said = [cast::intent(Some(&grant), 5)];
            forged.says_batch(&mut cast.agent, task, said).remove(0)
        })
        .await;
    });
}
