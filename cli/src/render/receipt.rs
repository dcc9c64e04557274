//! Receipts as JSON lines, and the count of them.

use bytes::Bytes;
use deed_client::Appended;
use deed_evidence::{Micros, assess::SKEW_US, statement};
use deed_proto::v1::Rejection;
use serde::Serialize;

use crate::{failure::Failure, render::shown};

/// The result of one statement.
#[derive(Serialize)]
pub(crate) struct ReceiptJson<'a> {
    /// The line of the input that it comes from, from 1; none if an earlier process read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf_hash: Option<String>,
    /// The leaf of the batch manifest whose signature covers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_leaf: Option<u64>,
    session: String,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inclusion_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_sequence: Option<u64>,
}

impl<'a> ReceiptJson<'a> {
    pub(crate) fn new(
        line: Option<u64>,
        run_id: Option<&'a str>,
        payload: &Bytes,
        item: &'a Appended,
    ) -> Self {
        // Made and checked on this side, so it has a header.
        let place = statement::parse(payload).ok();
        let place = place.map(|header| (header.session.to_string(), header.sequence.get()));
        let (session, sequence) = place.unwrap_or_default();
        let receipt = item.receipt();
        let rejection = match item {
            Appended::Rejected(rejection) => Some(rejection),
            _ => None,
        };
        let filled = |text: &'a String| Some(text.as_str()).filter(|text| !text.is_empty());
        Self {
            line,
            run_id,
            status: match item {
                Appended::Accepted(_) => "accepted",
                Appended::Duplicate(_) => "duplicate",
                Appended::Rejected(_) => "rejected",
            },
            leaf_index: receipt.map(|receipt| receipt.leaf_index.get()),
            leaf_hash: receipt.map(|receipt| receipt.leaf_hash.to_string()),
            manifest_leaf: receipt.and_then(|receipt| Some(receipt.manifest?.get())),
            session,
            sequence,
            received_at_us: receipt.map(|receipt| receipt.received_at.get()),
            inclusion_verified: receipt.map(|receipt| receipt.inclusion_verified),
            reason: rejection.map(reason),
            message: rejection.and_then(|rejection| filled(&rejection.message)),
            field: rejection.and_then(|rejection| filled(&rejection.field)),
            expected_sequence: rejection.and_then(|rejection| rejection.expected_sequence),
        }
    }
}

/// `REASON_SEQUENCE_NOT_NEXT` is `sequence_not_next`.
pub(crate) fn reason(rejection: &Rejection) -> String {
    let name = rejection.reason().as_str_name();
    name.strip_prefix("REASON_")
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// The number of statements by their result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    pub(crate) rejected: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, item: &Appended) {
        match item {
            Appended::Accepted(_) => self.accepted += 1,
            Appended::Duplicate(_) => self.duplicates += 1,
            Appended::Rejected(_) => self.rejected += 1,
        }
    }

    /// Fails if a statement was rejected, so that the command ends with 3 even if others were recorded.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.rejected {
            0 => Ok(()),
            rejected => Err(Failure::Unavailable(anyhow::anyhow!(
                "{rejected} statements were rejected; their receipts say why"
            ))),
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
    }
}

/// Returns a warning if a receive time lies in the future: it is the operator's word, and rules about time
/// depend on it. A time in the past needs no warning: the statement may be a duplicate.
pub(crate) fn from_the_future(received_at: Micros, now: Micros) -> Option<String> {
    let ahead = received_at.get().saturating_sub(now.get());
    (ahead > SKEW_US).then(|| {
        format!(
            "the server says that it received this at {}, which is {} s ahead of this machine's \
             clock: one of the two is wrong, and deadlines go by the server's",
            shown(received_at),
            ahead / 1_000_000
        )
    })
}
