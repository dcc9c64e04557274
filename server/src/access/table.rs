//! The one table of what each rpc and each HTTP path needs, used for every decision.

use super::role::Role;

/// The permission that a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing. A credential that is shown must be valid all the same.
    Open,
    /// The caller must say who they are.
    Authenticated,
    /// The caller needs one of these roles in the request's ledger.
    InLedger(&'static [Role]),
    /// The caller needs this role in every ledger.
    InServer(Role),
}

/// Every rpc and HTTP path, and each of their variants that has a row of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Append,
    AppendStream,
    CreateLedger,
    ListLedgers,
    GetLedger,
    GetTreeHead,
    WatchTreeHeads,
    GetInclusionProof,
    StatementProof,
    GetConsistencyProof,
    GetEntries,
    GetBatchProof,
    GetTrustChain,
    GetLogKeys,
    GetSession,
    PutContent,
    GetContent,
    EraseContent,
    AwaitClearance,
    RequestTaskReceipt,
    GetTask,
    Search,
    ListFindings,
    WatchFindings,
    HealthCheck,
    HealthWatch,
    Reflection,
    Checkpoint,
    HashTile,
    EntryBundle,
}

/// A row of [`TABLE`].
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) method: Method,
    /// The rpc's path, or the pattern of an HTTP path; a `?` begins the name of a variant.
    pub(crate) path: &'static str,
    pub(crate) need: Need,
    /// True if the request is a stream that may stay open; other requests must be sent within a
    /// bound.
    pub(crate) streams_in: bool,
}

const fn row(method: Method, path: &'static str, need: Need) -> Row {
    Row {
        method,
        path,
        need,
        streams_in: false,
    }
}

const fn streaming(method: Method, path: &'static str, need: Need) -> Row {
    Row {
        method,
        path,
        need,
        streams_in: true,
    }
}

/// Authorities append statements that change the trust state, producers all others. The kind of
/// each statement is known only when it was decoded, and is checked statement by statement.
const APPENDS: Need = Need::InLedger(&[Role::Append, Role::Authority]);
const READS: Need = Need::InLedger(&[Role::Read]);

/// The permission that each method needs. Tests compare the table with the descriptors of the
/// services and with the HTTP routes.
#[rustfmt::skip]
pub(crate) const TABLE: [Row; 30] = [
    row(Method::Append, "/deed.v1.Ledger/Append", APPENDS),
    streaming(Method::AppendStream, "/deed.v1.Ledger/AppendStream", APPENDS),
    row(Method::CreateLedger, "/deed.v1.Ledger/CreateLedger", Need::InServer(Role::Admin)),
    row(Method::ListLedgers, "/deed.v1.Ledger/ListLedgers", Need::Authenticated),
    row(Method::GetLedger, "/deed.v1.Ledger/GetLedger", Need::Open),
    row(Method::GetTreeHead, "/deed.v1.Log/GetTreeHead", Need::Open),
    row(Method::WatchTreeHeads, "/deed.v1.Log/WatchTreeHeads", Need::Open),
    row(Method::GetInclusionProof, "/deed.v1.Log/GetInclusionProof", Need::Open),
    // Without the role this would tell every caller how many statements a session has.
    row(Method::StatementProof, "/deed.v1.Log/GetInclusionProof?statement", READS),
    row(Method::GetConsistencyProof, "/deed.v1.Log/GetConsistencyProof", Need::Open),
    row(Method::GetEntries, "/deed.v1.Log/GetEntries", READS),
    row(Method::GetBatchProof, "/deed.v1.Log/GetBatchProof", READS),
    row(Method::GetTrustChain, "/deed.v1.Log/GetTrustChain", READS),
    row(Method::GetLogKeys, "/deed.v1.Log/GetLogKeys", Need::Open),
    row(Method::GetSession, "/deed.v1.Log/GetSession", READS),
    streaming(Method::PutContent, "/deed.v1.Content/PutContent", Need::InLedger(&[Role::Append])),
    row(Method::GetContent, "/deed.v1.Content/GetContent", Need::InLedger(&[Role::Audit])),
    row(Method::EraseContent, "/deed.v1.Content/EraseContent", Need::InLedger(&[Role::Authority])),
    row(Method::AwaitClearance, "/deed.v1.Actions/AwaitClearance", Need::InLedger(&[Role::Append, Role::Read])),
    row(Method::RequestTaskReceipt, "/deed.v1.Actions/RequestTaskReceipt", APPENDS),
    row(Method::GetTask, "/deed.v1.Actions/GetTask", READS),
    row(Method::Search, "/deed.v1.Actions/Search", READS),
    row(Method::ListFindings, "/deed.v1.Actions/ListFindings", READS),
    row(Method::WatchFindings, "/deed.v1.Actions/WatchFindings", READS),
    row(Method::HealthCheck, "/grpc.health.v1.Health/Check", Need::Open),
    row(Method::HealthWatch, "/grpc.health.v1.Health/Watch", Need::Open),
    streaming(Method::Reflection, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Open),
    row(Method::Checkpoint, "/logs/{ledger}/checkpoint", Need::Open),
    row(Method::HashTile, "/logs/{ledger}/tile/{level}/{*index}", Need::Open),
    row(Method::EntryBundle, "/logs/{ledger}/tile/entries/{*index}", READS),
];

// Rows stand in the order of the enum, so that a method is its row's index.
const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].method as usize == index);
        index += 1;
    }
};

impl Method {
    /// Returns the method's row.
    pub(crate) fn row(self) -> &'static Row {
        const ROWS: &[Row] = &TABLE;
        &ROWS[self as usize]
    }

    /// Returns the rpc with this path; `None` also for HTTP paths, whose handlers know their
    /// method.
    pub(crate) fn of_rpc(path: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|row| row.path == path)
            .map(|row| row.method)
            .filter(|method| !method.is_http())
    }

    /// Returns true if the method is a plain HTTP path.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Self::Checkpoint | Self::HashTile | Self::EntryBundle)
    }
}
