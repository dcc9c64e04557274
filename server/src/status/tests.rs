//! Tests of the statuses that callers get for errors of the engine.

use deed_evidence::CommitmentDigest;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::ApiError;
use deed_engine::{
    append::AppendError, content::ContentError, ledger::registry::LedgerRegistryError,
    pressure::RETRY_AFTER, shard::NoAnswer, store::disk::NoSpace,
};

fn status(error: impl Into<ApiError>) -> Status {
    error.into().into()
}

#[test]
fn a_full_queue_names_a_time_to_come_back() {
    let status = status(AppendError::Overloaded);
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|retry| retry.retry_delay);
    assert_eq!(retry, Some(RETRY_AFTER));
}

/// Clients send again what is UNAVAILABLE, and not before the time that is named.
#[test]
fn a_superseded_request_is_to_be_sent_again() {
    for status in [
        status(NoAnswer::Superseded),
        status(AppendError::Superseded),
        status(LedgerRegistryError::Superseded),
    ] {
        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "SUPERSEDED");
        let retry = details.retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(retry, Some(RETRY_AFTER));
    }
}

#[test]
fn a_full_disk_names_its_reason_and_a_time_to_come_back() {
    let no_space = NoSpace {
        free_bytes: 1,
        floor_bytes: 2,
        kept_for: "the log",
    };
    for error in [
        ApiError::from(AppendError::NoSpace(no_space)),
        ApiError::from(ContentError::NoSpace(no_space)),
    ] {
        let status = status(error);
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "NO_SPACE");
        assert!(details.retry_info().unwrap().retry_delay.is_some());
    }
}

#[test]
fn a_quota_of_contents_names_no_time_to_come_back() {
    let status = status(ContentError::Quota {
        held: 1,
        wanted: 2,
        max: 2,
    });
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("have some erased"), "{status}");
    let details = status.get_error_details();
    assert!(details.retry_info().is_none(), "waiting does not help");
}

#[test]
fn what_is_damaged_is_told_without_its_inner_text() {
    let status = status(ContentError::Damaged {
        digest: CommitmentDigest::new([1; 32]),
        what: "piece 7".to_owned(),
    });
    assert_eq!(status.code(), Code::DataLoss);
    assert!(!status.message().contains("piece 7"), "{status}");
}
