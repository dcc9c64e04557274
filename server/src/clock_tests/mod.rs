//! Clocks that leap, ahead and back, while a server runs and while it does not.

mod machine;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use deed_engine::{
    clock::{Clock as _, SystemClock, confirmation, keeper::Timekeeper},
    offline::fsck,
};
use deed_evidence::Micros;
use deed_proto::v1::{self, FindingKind, statement::Body};
use tempfile::TempDir;

use crate::{
    options::ClockOptions,
    testing::{Authority, Producer, TestClock, briefs, log_of, policy_set},
};
use machine::Machine;

const NAME: &str = "one";
const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
const YEAR_US: i64 = 365 * DAY_US;
/// Some day in 2023.
const BEGIN_US: i64 = 1_700_000_000 * SECOND_US;

#[test]
fn a_leap_ahead_is_neither_ticked_nor_recorded_and_ends_when_the_clock_comes_back() {
    let mut machine = Machine::boots_at(BEGIN_US);
    machine.begin_ledger();
    machine.ticks();
    assert_eq!(machine.admin().ready(), Ok(()));
    let size = machine.size();

    machine.clock.set(BEGIN_US + YEAR_US);
    machine.ticks();
    assert_eq!(machine.size(), size, "no deadline has fired");
    let why = machine.refused();
    assert!(
        why.contains("leapt 31536000 s ahead") && why.contains("clock confirm"),
        "{why}"
    );
    assert!(machine.not_ready().contains("leapt"));
    let observed = machine.admin().observed();
    assert!(!observed.on_time);
    assert_eq!(observed.clock_refusals, [("ahead", 1), ("behind", 0)]);
    let refused = machine.engine().create("two").err().unwrap();
    assert!(refused.contains("leapt"), "{refused}");

    machine.clock.set(BEGIN_US);
    machine.clock.pass(3 * SECOND_US);
    assert_eq!(briefs(&machine.append().unwrap()), ["accepted 2"]);
    assert_eq!(machine.admin().ready(), Ok(()));
    assert!(machine.admin().observed().on_time);
    // A long time that has really passed is no leap.
    machine.clock.pass(40 * DAY_US);
    machine.ticks();
    assert!(machine.size() > size + 1, "its deadline has fired");
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.entries();
}

#[test]
fn a_restart_does_not_make_a_leap_true() {
    let mut machine = Machine::boots_at(BEGIN_US);
    machine.begin_ledger();
    machine.ticks();
    let size = machine.size();
    machine.clock.set(BEGIN_US + 7 * DAY_US);
    for _ in 0..2 {
        machine.stop();
        machine.start();
        machine.ticks();
        // The ledger is not in memory, and a deadline in it has passed.
        assert_eq!(machine.size(), size);
        assert!(machine.refused().contains("leapt 604800 s"));
        assert!(machine.not_ready().contains("leapt"));
    }
    // After another boot only the entries are left to compare with: the server may have been off
    // for a week.
    machine.stop();
    machine.clock.boots("second boot");
    machine.start();
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.append().unwrap();
    // A time more than 30 days ahead is not believed.
    machine.stop();
    machine.clock.boots("third boot");
    machine.clock.set(BEGIN_US + 38 * DAY_US);
    machine.start();
    machine.ticks();
    let why = machine.refused();
    assert!(why.contains("2678400 s ahead of everything"), "{why}");
    assert!(machine.not_ready().contains("ahead of everything"));
    machine.clock.set(BEGIN_US + 8 * DAY_US);
    machine.append().unwrap();
    assert_eq!(machine.admin().ready(), Ok(()));
}

#[test]
fn an_operator_confirms_a_leap_and_the_log_says_so() {
    let mut machine = Machine::boots_at(BEGIN_US);
    machine.begin_ledger();
    machine.ticks();
    let leapt = BEGIN_US + YEAR_US;
    machine.clock.set(leapt);
    machine.refused();
    // A time that the clock does not show changes nothing.
    machine.confirms(BEGIN_US);
    machine.ticks();
    assert!(machine.not_ready().contains("leapt"));
    assert_eq!(machine.size(), 2);

    machine.clock.pass(SECOND_US);
    machine.confirms(leapt);
    machine.ticks();
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.append().unwrap();
    machine.append().unwrap();
    let entries = machine.entries();
    let (at, Body::Tick(tick)) = &entries[1] else {
        panic!("{entries:?}");
    };
    assert_eq!((*at, tick.clock_us), (leapt + SECOND_US, leapt));
    let ticks = entries
        .iter()
        .filter(|(_, body)| matches!(body, Body::Tick(_)));
    assert_eq!(ticks.count(), 1, "once in each ledger");
    let found = machine.findings();
    let confirmed = |one: &&v1::Finding| one.detail.contains("the operator confirmed");
    let confirmed: Vec<_> = found.iter().filter(confirmed).collect();
    assert_eq!(confirmed.len(), 1, "{found:?}");
    assert_eq!(confirmed[0].kind(), FindingKind::ClockSkew);
    // The confirmation holds after a restart, and after a boot.
    for boot in ["first boot", "second boot"] {
        machine.stop();
        machine.clock.boots(boot);
        machine.start();
        machine.ticks();
        machine.append().unwrap();
        assert_eq!(machine.admin().ready(), Ok(()));
    }
    let ticks = machine.entries();
    let ticks = ticks
        .iter()
        .filter(|(_, body)| matches!(body, Body::Tick(_)));
    assert_eq!(ticks.count(), 1);
}

#[test]
fn a_clock_that_is_set_back_is_told_and_comes_to_it() {
    let mut machine = Machine::boots_at(BEGIN_US);
    machine.begin_ledger();
    // The clock goes back by less than what counts as a leap.
    machine.clock.set(BEGIN_US - 30 * SECOND_US);
    machine.ticks();
    let why = machine.refused();
    assert!(
        why.contains("30000000 us behind") && why.contains("clock confirm"),
        "{why}"
    );
    assert!(machine.not_ready().contains("behind the time of 1 ledgers"));
    let observed = machine.admin().observed();
    assert!(!observed.on_time);
    assert_eq!(observed.clock_refusals, [("ahead", 0), ("behind", 1)]);
    machine.clock.pass(29 * SECOND_US);
    machine.append().unwrap();
    assert_eq!(machine.admin().ready(), Ok(()));
}

#[test]
fn a_clock_that_is_set_back_dates_nothing_back_in_an_idle_ledger() {
    let mut machine = Machine::boots_at(BEGIN_US);
    machine.begin_ledger();
    machine.ticks();
    let size = machine.size();
    let hour_us = 3_600 * SECOND_US;
    machine.clock.pass(12 * hour_us);
    let right = machine.clock.now().get();
    // No entry is newer than this time, so entries alone do not show the fault.
    machine.clock.set(right - 6 * hour_us);
    for _ in 0..2 {
        machine.ticks();
        let why = machine.refused();
        assert!(
            why.contains("was set back") && why.contains("21600 s behind the time that has passed"),
            "{why}"
        );
        assert!(machine.not_ready().contains("was set back"));
        assert_eq!(machine.size(), size);
        machine.stop();
        machine.start();
    }
    let refused = machine.engine().create("two").err().unwrap();
    assert!(refused.contains("was set back"), "{refused}");
    let observed = machine.admin().observed();
    assert!(!observed.on_time);
    assert_eq!(observed.clock_refusals, [("ahead", 0), ("behind", 1)]);

    machine.clock.set(right);
    machine.append().unwrap();
    assert_eq!(machine.admin().ready(), Ok(()));
    // The fault also ends when an operator confirms that the clock was wrong before.
    machine.clock.set(right - 6 * hour_us);
    machine.refused();
    machine.confirms(right - 6 * hour_us);
    machine.ticks();
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.append().unwrap();
    let last = machine.entries().pop().unwrap();
    assert_eq!(last.0, right, "its time stands still");
}

#[test]
fn a_ledger_whose_time_is_ahead_goes_on_when_an_operator_says_so() {
    // The clock is wrong from the beginning, and nothing shows it.
    let wrong = BEGIN_US + YEAR_US;
    let mut machine = Machine::boots_at(wrong);
    machine.begin_ledger();
    machine.append().unwrap();
    machine.stop();
    machine.clock.boots("second boot");
    machine.clock.set(BEGIN_US);
    machine.start();
    machine.ticks();
    let why = machine.refused();
    assert!(why.contains("31536000 s behind"), "{why}");
    assert!(machine.not_ready().contains("behind everything"));

    machine.confirms(BEGIN_US);
    machine.clock.pass(2 * SECOND_US);
    machine.ticks();
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.append().unwrap();
    let entries = machine.entries();
    let [.., (still, Body::Tick(tick)), (then, Body::Intent(_))] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!((*still, *then), (wrong, wrong), "its time stands still");
    assert_eq!(tick.clock_us, BEGIN_US);
    let found = machine.findings();
    assert!(
        found
            .iter()
            .any(|one| one.detail.contains("31536000 s behind the ledger's time")),
        "{found:?}"
    );
    // The confirmation also holds after a restart, and no second entry records it.
    let size = machine.size();
    machine.stop();
    machine.start();
    machine.ticks();
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.append().unwrap();
    assert_eq!(machine.size(), size + 1);
    // A clock that is set back once more is not believed because of the earlier confirmation.
    machine.clock.set(BEGIN_US - 60 * SECOND_US);
    assert!(machine.refused().contains("behind"));
    machine.clock.set(BEGIN_US + 4 * SECOND_US);
    // The ledger goes on when the clock has reached its time.
    machine.clock.pass(YEAR_US);
    machine.append().unwrap();
    let last = machine.entries().pop().unwrap();
    assert_eq!(last.0, wrong + 4 * SECOND_US);
}

#[test]
fn a_confirmation_that_was_wrong_is_mended_by_another() {
    let mut machine = Machine::boots_at(BEGIN_US);
    machine.begin_ledger();
    machine.append().unwrap();
    machine.clock.set(BEGIN_US + YEAR_US);
    machine.ticks();
    machine.refused();
    machine.confirms(BEGIN_US + YEAR_US);
    machine.ticks();
    machine.append().unwrap();
    // The other clock that the operator looked at was wrong as well.
    machine.clock.set(BEGIN_US + 10 * SECOND_US);
    machine.ticks();
    machine.refused();
    machine.confirms(BEGIN_US + 10 * SECOND_US);
    machine.ticks();
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.append().unwrap();
    let entries = machine.entries();
    let [.., (still, Body::Tick(tick)), (then, Body::Intent(_))] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!(still, then, "its time stands still");
    assert!(*still >= BEGIN_US + YEAR_US);
    assert!(tick.clock_us < BEGIN_US + YEAR_US);
}

#[test]
fn a_clock_that_is_set_right_slowly_is_followed() {
    let machine = Machine::boots_at(BEGIN_US);
    let clock = &machine.engine().appends.clock;
    let mut ahead = 0;
    for _ in 0..100_000 {
        machine.clock.pass(10 * SECOND_US);
        // The clock drifts by 500 ppm, as fast as adjtime moves it, and ends far beyond the bound.
        ahead += 5_000;
        machine.clock.set(machine.clock.now().get() + 5_000);
        clock.read().unwrap();
    }
    assert!(ahead > 60 * SECOND_US);
    // Several small leaps add up to a large one.
    let leap = |us: i64| {
        machine.clock.set(machine.clock.now().get() + us);
        machine.clock.pass(SECOND_US);
        clock.read()
    };
    leap(40 * SECOND_US).unwrap();
    leap(40 * SECOND_US).unwrap_err();
}

#[test]
fn what_is_collected_is_not_old_by_a_clock_that_leapt() {
    let machine = Machine::boots_at(BEGIN_US);
    let clock = &machine.engine().appends.clock;
    clock.read().unwrap();
    machine.clock.set(BEGIN_US + YEAR_US);
    machine.clock.pass(SECOND_US);
    assert_eq!(clock.now(), Micros::new(BEGIN_US + SECOND_US));
}

/// The time that a running server has believed counts like an entry, even if recent entries bear a
/// time that stands still.
#[test]
fn what_was_believed_last_counts_after_a_boot() {
    let mut machine = Machine::boots_at(BEGIN_US + YEAR_US);
    machine.begin_ledger();
    machine.stop();
    machine.clock.boots("second boot");
    machine.clock.set(BEGIN_US);
    machine.start();
    machine.ticks();
    machine.refused();
    machine.confirms(BEGIN_US);
    machine.ticks();
    machine.append().unwrap();
    machine.clock.pass(40 * DAY_US);
    machine.ticks();
    machine.append().unwrap();
    machine.stop();
    machine.clock.boots("third boot");
    machine.start();
    assert_eq!(machine.admin().ready(), Ok(()));
    machine.append().unwrap();
}

/// Such a ledger has no entries of its own. Its log shows the confirmed clock by its receive times.
#[test]
fn a_ledger_of_rules_1_whose_time_is_ahead_goes_on_when_an_operator_says_so() {
    let wrong = BEGIN_US + YEAR_US;
    let mut machine = Machine::boots_at(wrong);
    let ledger = machine.engine().create_under(1, NAME).unwrap();
    let mut authority = Authority::new(ledger.id);
    machine.producer = Some(Producer::new(ledger.id, 1));
    drop(ledger);
    machine.append().unwrap();
    machine.stop();
    machine.clock.boots("second boot");
    machine.clock.set(BEGIN_US);
    machine.start();
    assert!(machine.refused().contains("31536000 s behind"));

    machine.confirms(BEGIN_US);
    machine.clock.pass(2 * SECOND_US);
    machine.ticks();
    let ready = "ready\n1 ledger(s) have a time that is ahead of the clock, which was confirmed: they go \
                 on, and their time stands still\n";
    // The second round comes after a restart.
    for size in [3, 4] {
        assert_eq!(machine.admin().ready(), Ok(()));
        machine.append().unwrap();
        assert_eq!(machine.admin().ready_words(), ready);
        assert_eq!(machine.size(), size);
        machine.stop();
        fsck::check(machine.data_dir(), &mut |_| {}).unwrap();
        machine.start();
    }
    let times = |machine: &Machine| -> Vec<_> {
        let entries = machine.entries().into_iter();
        entries.map(|(at, _)| at).collect()
    };
    let now = BEGIN_US + 2 * SECOND_US;
    assert_eq!(times(&machine), [wrong, now, now]);
    // A clock that is set back once more is not believed because of the earlier confirmation.
    machine.clock.set(BEGIN_US - 10 * SECOND_US);
    assert!(machine.refused().contains("behind"));
    assert!(machine.not_ready().contains("behind the time of 1 ledgers"));
    machine.clock.set(now);

    // Once the rules allow it, the ledger records the confirmation in an entry before anything
    // else.
    let policies = "permit (principal, action, resource);";
    let raises = authority.says(Body::PolicySet(policy_set(policies)));
    let raised = machine.engine().append(NAME, vec![raises]).unwrap();
    assert_eq!(briefs(&raised), ["accepted 4"]);
    machine.append().unwrap();
    machine.append().unwrap();
    let entries = machine.entries();
    let [
        ..,
        (raised, Body::PolicySet(_)),
        (said, Body::Tick(tick)),
        one,
        two,
    ] = &entries[..]
    else {
        panic!("{entries:?}");
    };
    assert_eq!((*raised, *said, tick.clock_us), (now, wrong, BEGIN_US));
    assert_eq!((one.0, two.0), (wrong, wrong));
    assert!(
        machine
            .findings()
            .iter()
            .any(|one| one.detail.contains("31536000 s behind the ledger's time"))
    );
    machine.stop();
    fsck::check(machine.data_dir(), &mut |_| {}).unwrap();

    // A ledger whose time the clock has reached is an ordinary one.
    machine.start();
    machine.clock.pass(YEAR_US);
    machine.append().unwrap();
    assert_eq!(machine.admin().ready_words(), "ready\n");
    assert_eq!(times(&machine).last(), Some(&(wrong + 2 * SECOND_US)));
}

#[test]
fn a_confirmation_is_for_a_server_of_another_user() {
    let dir = TempDir::new().unwrap();
    let now = SystemClock.now();
    let refused = confirmation::confirm(dir.path(), now).unwrap_err();
    assert!(refused.to_string().contains("holds no server.key"));
    fs::write(dir.path().join("server.key"), "").unwrap();
    let other = confirmation::confirm(dir.path(), Micros::new(7 * SECOND_US)).unwrap_err();
    let said = other.to_string();
    let seconds = now.get() / SECOND_US;
    assert!(
        said.contains(" s away from 7;") && !said.contains(&now.get().to_string()),
        "{said}"
    );
    assert!(said.contains(&seconds.to_string()[..8]), "{said}");

    // The server's directory does not belong to root: a link that lies there is not followed.
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "as it was").unwrap();
    let unfinished = dir.path().join("clock-confirmed.unfinished");
    std::os::unix::fs::symlink(&elsewhere, &unfinished).unwrap();
    let confirmed = confirmation::confirm(dir.path(), now).unwrap();
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "as it was");
    let written = dir.path().join("clock-confirmed");
    let mode = fs::symlink_metadata(written).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644, "a file that everybody may read");
    assert_eq!(confirmation::read(dir.path()).unwrap(), Some(confirmed));
}

#[test]
fn a_confirmation_that_cannot_be_read_is_told() {
    let mut machine = Machine::boots_at(BEGIN_US);
    machine.begin_ledger();
    machine.ticks();
    machine.clock.set(BEGIN_US + YEAR_US);
    let file = machine.data_dir().join("clock-confirmed");
    // A directory behaves like a file that this user may not read: `open` works, and reading fails.
    fs::create_dir(&file).unwrap();
    let clock = &machine.engine().appends.clock;
    let told = log_of(|| {
        assert_eq!(clock.take_confirmation(), None);
        assert_eq!(clock.take_confirmation(), None);
    });
    let lines = told.lines().filter(|line| line.contains("ERROR"));
    assert_eq!(lines.count(), 1, "once: {told}");
    assert!(told.contains("confirms nothing"), "{told}");
    let why = machine.not_ready();
    assert!(
        why.contains("leapt") && why.contains("; clock-confirmed cannot be read: "),
        "{why}"
    );
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "soon").unwrap();
    machine.ticks();
    let why = machine.not_ready();
    assert!(why.contains("does not hold what it should"), "{why}");
    machine.confirms(BEGIN_US + YEAR_US);
    machine.ticks();
    assert_eq!(machine.admin().ready(), Ok(()));
}

/// Without a boot id a restart of the server cannot be told from one of the machine.
#[test]
fn a_machine_that_does_not_tell_its_boots_is_warned_of() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::at(BEGIN_US);
    let open = || {
        let (clock, dir) = (Arc::clone(&clock), dir.path().to_owned());
        Timekeeper::open(clock as _, ClockOptions::default(), Some(dir), Vec::new());
    };
    let told = log_of(open);
    assert!(told.contains("WARN") && told.contains("boot_id"), "{told}");
    clock.boots("first boot");
    assert_eq!(log_of(open), "");

    // This machine has both, also under the delivered systemd unit.
    #[cfg(target_os = "linux")]
    assert!(SystemClock.boot_id().is_some() && SystemClock.since_boot().is_some());
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/deed-server.service");
    let unit = fs::read_to_string(unit).unwrap();
    let mut hiding = unit.lines().filter(|line| line.starts_with("ProcSubset"));
    assert_eq!(hiding.next(), None, "/proc/sys is hidden");
}
