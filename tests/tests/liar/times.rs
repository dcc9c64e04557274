//! Receive times that go back.

use deed_proto::v1::RiskTier;
use deed_tests::{
    liar::{Cast, ForgedLedger, cast},
    process::Deed,
};

use crate::{OK, words};

const YEAR_US: i64 = 365 * 24 * 3_600_000_000;

/// A ledger of cleared acts, one of which was received so long before the one before it.
fn audited(back_us: i64) -> deed_tests::process::Ended {
    let mut forged = ForgedLedger::new("payments");
    let mut cast = Cast::in_ledger(&mut forged);
    let (task, _) = forged.opens(&mut cast.platform, RiskTier::Low);
    for cents in 1..6 {
        if cents == 4 {
            forged.at(forged.now() - back_us);
        }
        forged.says(&mut cast.agent, Some(task), cast::intent(None, cents));
    }
    let deed = Deed::new("http://127.0.0.1:1", "payments");
    let dir = deed.file("mirror");
    let policy = forged.write_mirror(&dir);
    let (dir, policy) = (dir.to_str().unwrap(), policy.to_str().unwrap());
    deed.run(["audit", "--dir", dir, "--policy", policy])
}

#[test]
fn time_does_not_go_back_by_years() {
    let ended = audited(0).expect_code(OK);
    assert!(words(&ended).starts_with("everything holds"), "{ended:#?}");
    for back_us in [3 * YEAR_US, YEAR_US, YEAR_US / 365] {
        let ended = audited(back_us);
        assert_ne!(ended.code(), Some(OK), "{back_us}: {ended:#?}");
        assert!(!words(&ended).contains("everything holds"), "{ended:#?}");
    }
}
