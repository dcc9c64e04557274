//! The one place where errors become gRPC statuses, and those of HTTP.

pub(crate) mod http;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use deed_engine::{
    append::AppendError,
    content::ContentError,
    ledger::{read::ReadError, registry::LedgerRegistryError},
    pressure::{LimitReached, RETRY_AFTER, quota::OverQuota},
    shard::NoAnswer,
    store::{StoreError, disk::NoSpace, recover::LoadError},
};
use deed_tlog::TreeSize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// Time after which a caller may try again that was refused for a full disk: an operator has to act
/// first.
const NO_SPACE_RETRY_AFTER: Duration = Duration::from_secs(10);

/// The reason for which a request has no answer.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The request is malformed: a list of fields, each with a description of what is wrong with
    /// it.
    Malformed(Vec<(String, String)>),
    NotFound(String),
    AlreadyExists(String),
    /// An index or a size is beyond the tree.
    BeyondTree {
        message: String,
        size: TreeSize,
    },
    /// The tree has not grown to the size that the caller has seen.
    Behind {
        size: TreeSize,
        min_size: u64,
        retry_after: Duration,
    },
    /// Too many bytes wait already.
    Overloaded {
        retry_after: Duration,
    },
    /// The caller has used up a quota.
    Quota {
        what: String,
        retry_after: Duration,
    },
    /// The caller holds as much as it may; waiting does not help.
    Full(String),
    /// The disk is nearly full.
    NoSpace(NoSpace),
    /// The caller shows no credential where one is needed, or an invalid one.
    Unauthenticated(String),
    /// The caller is known and lacks the role.
    Forbidden(String),
    /// The request is well-formed and the present state forbids it.
    Precondition {
        reason: &'static str,
        message: String,
        metadata: HashMap<String, String>,
    },
    /// The caller should try again; whether the request was carried out is unknown.
    Unavailable(String),
    /// Another writer's turn came first; the caller should send the same again.
    Superseded {
        retry_after: Duration,
    },
    /// Stored data contradicts itself.
    Damaged(String),
    /// An error in this program.
    Internal(String),
}

impl ApiError {
    pub(crate) fn field(field: &str, what: impl Into<String>) -> Self {
        Self::Malformed(vec![(field.to_owned(), what.into())])
    }
}

impl From<NoAnswer> for ApiError {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Stopped => Self::Unavailable(
                "the server stopped before it could answer; send the same bytes again".to_owned(),
            ),
            NoAnswer::Superseded => Self::Superseded {
                retry_after: RETRY_AFTER,
            },
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Field { field, what } => Self::field(field, what),
            AppendError::Overloaded => Self::Overloaded {
                retry_after: RETRY_AFTER,
            },
            AppendError::Quota(over) => over.into(),
            AppendError::NoSpace(no_space) => no_space.into(),
            AppendError::Unavailable(what) => Self::Unavailable(what),
            AppendError::Twins {
                message,
                commitments,
            } => Self::Precondition {
                reason: "CONTENT_TWINS",
                message,
                metadata: [("commitments".to_owned(), commitments)].into(),
            },
            AppendError::Stopped => NoAnswer::Stopped.into(),
            AppendError::Superseded => NoAnswer::Superseded.into(),
            AppendError::LedgerRegistry(error) => error.into(),
            AppendError::Content(error) => error.into(),
            AppendError::Read(error) => error.into(),
            AppendError::Defect(what) => Self::Internal(what),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        if error.is_damage() {
            Self::Damaged(what)
        } else {
            Self::Internal(what)
        }
    }
}

impl From<NoSpace> for ApiError {
    fn from(no_space: NoSpace) -> Self {
        Self::NoSpace(no_space)
    }
}

impl From<LimitReached> for ApiError {
    fn from(limit: LimitReached) -> Self {
        let LimitReached { what, retry_after } = limit;
        Self::Quota { what, retry_after }
    }
}

impl From<OverQuota> for ApiError {
    fn from(over: OverQuota) -> Self {
        let OverQuota { what, retry_after } = over;
        Self::Quota { what, retry_after }
    }
}

impl From<LedgerRegistryError> for ApiError {
    fn from(error: LedgerRegistryError) -> Self {
        match error {
            LedgerRegistryError::NotFound { .. } => Self::NotFound(error.to_string()),
            LedgerRegistryError::AlreadyExists { .. } => Self::AlreadyExists(error.to_string()),
            LedgerRegistryError::Name => Self::field("name", error.to_string()),
            LedgerRegistryError::AuthorityKeys(what) => Self::field("authority_keys", what),
            LedgerRegistryError::Load {
                cause: LoadError::Store(cause),
                ..
            } => cause.into(),
            LedgerRegistryError::Load { .. } => Self::Damaged(error.to_string()),
            LedgerRegistryError::Overloaded => Self::Overloaded {
                retry_after: RETRY_AFTER,
            },
            LedgerRegistryError::Defect(what) => Self::Internal(what),
            LedgerRegistryError::Store(error) => error.into(),
            LedgerRegistryError::Superseded => NoAnswer::Superseded.into(),
            LedgerRegistryError::Random(_) => Self::Internal(error.to_string()),
            LedgerRegistryError::Stopped | LedgerRegistryError::Clock(_) => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::BeyondTree { size, .. } => Self::BeyondTree {
                message: error.to_string(),
                size,
            },
            ReadError::NotFound(message) => Self::NotFound(message),
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<ContentError> for ApiError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Mismatch { .. } => Self::field("commitment", error.to_string()),
            ContentError::TooLarge { .. } | ContentError::Size { .. } => {
                Self::field("size", error.to_string())
            }
            ContentError::Erased { leaf, .. } => Self::Precondition {
                reason: "CONTENT_ERASED",
                message: error.to_string(),
                metadata: HashMap::from([("erasure_leaf".to_owned(), leaf.to_string())]),
            },
            ContentError::Unknown { .. } => Self::NotFound(error.to_string()),
            ContentError::Quota { .. } => Self::Full(error.to_string()),
            ContentError::NoSpace(no_space) => Self::NoSpace(no_space),
            ContentError::TooManyTasks { max, .. } => Self::Precondition {
                reason: "TOO_MANY_TASKS",
                message: error.to_string(),
                metadata: HashMap::from([("tasks_max".to_owned(), max.to_string())]),
            },
            ContentError::Busy => Self::Overloaded {
                retry_after: RETRY_AFTER,
            },
            ContentError::Damaged { .. } => Self::Damaged(error.to_string()),
            ContentError::Stopped => NoAnswer::Stopped.into(),
            ContentError::Random(_) => Self::Internal(error.to_string()),
            ContentError::Store(error) => error.into(),
        }
    }
}

impl From<ApiError> for Status {
    fn from(refusal: ApiError) -> Self {
        match refusal {
            ApiError::Malformed(fields) => {
                let message = fields
                    .iter()
                    .map(|(field, what)| format!("{field}: {what}"))
                    .collect::<Vec<_>>()
                    .join("; ");
                let violations = fields
                    .into_iter()
                    .map(|(field, what)| FieldViolation::new(field, what))
                    .collect::<Vec<_>>();
                let details = ErrorDetails::with_bad_request(violations);
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
            ApiError::NotFound(message) => Self::not_found(message),
            ApiError::AlreadyExists(message) => Self::already_exists(message),
            ApiError::BeyondTree { message, size } => {
                let metadata = HashMap::from([("tree_size".to_owned(), size.to_string())]);
                let details = ErrorDetails::with_error_info("BEYOND_TREE", "deed.v1", metadata);
                Self::with_error_details(Code::OutOfRange, message, details)
            }
            ApiError::Behind {
                size,
                min_size,
                retry_after,
            } => {
                let message = format!(
                    "the ledger has {size} leaves here, and min_size is {min_size}; try again in {} ms",
                    retry_after.as_millis()
                );
                let metadata = HashMap::from([("tree_size".to_owned(), size.to_string())]);
                let mut details = ErrorDetails::with_error_info("BEHIND", "deed.v1", metadata);
                details.set_retry_info(Some(retry_after));
                Self::with_error_details(Code::Unavailable, message, details)
            }
            ApiError::Overloaded { retry_after } => {
                let message = format!(
                    "too much waits to be written already; try again in {} ms",
                    retry_after.as_millis()
                );
                let details = ErrorDetails::with_retry_info(Some(retry_after));
                Self::with_error_details(Code::ResourceExhausted, message, details)
            }
            ApiError::Quota { what, retry_after } => {
                let message = format!("{what}; try again in {} ms", retry_after.as_millis());
                let details = ErrorDetails::with_retry_info(Some(retry_after));
                Self::with_error_details(Code::ResourceExhausted, message, details)
            }
            ApiError::Full(message) => {
                let details =
                    ErrorDetails::with_error_info("STORED_BYTES", "deed.v1", HashMap::new());
                Self::with_error_details(Code::ResourceExhausted, message, details)
            }
            ApiError::NoSpace(no_space) => {
                let metadata = [
                    ("free_bytes".to_owned(), no_space.free_bytes.to_string()),
                    ("floor_bytes".to_owned(), no_space.floor_bytes.to_string()),
                ];
                let mut details =
                    ErrorDetails::with_error_info("NO_SPACE", "deed.v1", HashMap::from(metadata));
                details.set_retry_info(Some(NO_SPACE_RETRY_AFTER));
                Self::with_error_details(Code::ResourceExhausted, no_space.to_string(), details)
            }
            ApiError::Unauthenticated(message) => Self::unauthenticated(message),
            ApiError::Forbidden(message) => Self::permission_denied(message),
            ApiError::Precondition {
                reason,
                message,
                metadata,
            } => {
                let details = ErrorDetails::with_error_info(reason, "deed.v1", metadata);
                Self::with_error_details(Code::FailedPrecondition, message, details)
            }
            ApiError::Unavailable(message) => Self::unavailable(message),
            ApiError::Superseded { retry_after } => {
                let message = format!(
                    "another writer's turn came first; send the same again in {} ms",
                    retry_after.as_millis()
                );
                let mut details =
                    ErrorDetails::with_error_info("SUPERSEDED", "deed.v1", HashMap::new());
                details.set_retry_info(Some(retry_after));
                Self::with_error_details(Code::Unavailable, message, details)
            }
            ApiError::Damaged(what) => hidden(Code::DataLoss, "stored data is damaged", &what),
            ApiError::Internal(what) => hidden(Code::Internal, "something went wrong here", &what),
        }
    }
}

/// Writes the inner text to the log, and gives the caller an id to ask the operator about.
fn hidden(code: Code, message: &str, inner: &str) -> Status {
    let mut id = [0; 6];
    // Without randomness the id is of no use, but the status still is.
    let _ = getrandom::fill(&mut id);
    let id = hex::encode(id);
    tracing::error!(%id, error = inner, "request failed");
    Status::new(
        code,
        format!("{message}; the operator finds more under the id {id}"),
    )
}
