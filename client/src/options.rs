//! The options of a connection.

use std::{fmt, path::PathBuf, sync::Arc};

use deed_evidence::{LedgerId, Sequence, SessionId};
use deed_tlog::VerifierKey;

use crate::{access::Access, retry::RetryPolicy, trust::StateDir};

/// Verification of the server's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// Verifies everything.
    #[default]
    On,
    /// Verifies nothing, and pins, stores and compares nothing. Only for measuring the cost of
    /// verification.
    Off,
}

/// The options of a connection to a ledger.
#[derive(Debug, Clone)]
pub struct Options {
    /// Never empty.
    pub(crate) servers: Vec<String>,
    pub(crate) ledger: String,
    pub(crate) access: Access,
    pub(crate) state: Option<StateDir>,
    pub(crate) vkey: Option<VerifierKey>,
    pub(crate) verification: Verification,
    pub(crate) retry: RetryPolicy,
    pub(crate) link_interval_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) observer: Observer,
}

impl Options {
    /// The ledger `ledger` of the server at `server`, for example `http://127.0.0.1:7733`.
    ///
    /// Without [`state`](Self::state), trust lasts as long as the connection.
    #[must_use]
    pub fn new(server: impl Into<String>, ledger: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            ledger: ledger.into(),
            access: Access::new(),
            state: None,
            vkey: None,
            verification: Verification::On,
            retry: RetryPolicy::default(),
            link_interval_ms: 1_000,
            timeout_ms: 60_000,
            observer: Observer::default(),
        }
    }

    /// Adds a server that has the same ledger, for example a copy. A call that fails in a way that may pass
    /// goes to the next server, in the order in which they were added, and from the last to the first. All
    /// get the same credentials, and all of their heads have to be of one history.
    #[must_use]
    pub fn or_server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// Sets the credentials of the client, and the authorities that certify the server.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Keeps what is trusted in a directory, across connections and processes.
    #[must_use]
    pub fn state(mut self, state: StateDir) -> Self {
        self.state = Some(state);
        self
    }

    /// Demands this log key instead of trusting the one seen first: it is, or was, a key of the
    /// ledger.
    #[must_use]
    pub fn vkey(mut self, vkey: VerifierKey) -> Self {
        self.vkey = Some(vkey);
        self
    }

    /// Switches verification on or off.
    #[must_use]
    pub const fn verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// Sets how often a call is tried again after a failure that may pass.
    #[must_use]
    pub const fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how long verified heads may wait until they are proven to be consistent with each other and
    /// the newest is stored; the default is one second.
    #[must_use]
    pub const fn link_interval_ms(mut self, link_interval_ms: u64) -> Self {
        self.link_interval_ms = link_interval_ms;
        self
    }

    /// Sets how long to wait for an answer before the attempt counts as failed; the default is 60 seconds.
    /// For a stream: for its first message. An appender has its own
    /// ([`AppenderOptions::answer_timeout_ms`](crate::AppenderOptions::answer_timeout_ms)).
    #[must_use]
    pub const fn timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }

    /// Sets the function that is called with each [`Event`].
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Observer(Some(Arc::new(observer)));
        self
    }
}

/// An event that a person should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A ledger was seen for the first time, and is trusted from now on.
    Pinned {
        /// The origin of the ledger.
        origin: String,
        /// The log key of the ledger.
        vkey: String,
        /// The id of the ledger.
        ledger_id: LedgerId,
        /// The directory in which that is kept.
        kept_in: Option<PathBuf>,
    },
    /// Another log key of the ledger took over, as the one before it has signed.
    LogKeyRotated {
        /// The ledger's origin.
        origin: String,
        /// The new key.
        vkey: String,
        /// The smallest tree that it signs.
        first_size: u64,
    },
    /// Evidence of a fork was found earlier, and is still there.
    ForksKept {
        /// The number of forks.
        count: usize,
        /// The directory of their evidence.
        directory: PathBuf,
    },
    /// A server failed in a way that may pass, and the next one is asked.
    OtherServer {
        /// The address of the server that failed.
        failed: String,
        /// The address of the next one.
        next: String,
        /// The failure.
        reason: String,
        /// The server says that it has fewer leaves than this client has seen.
        behind: bool,
    },
    /// Something failed that may pass.
    Retrying {
        /// The attempt that comes, from 1.
        attempt: u32,
        /// After how long.
        pause_ms: u64,
        /// The failure.
        reason: String,
    },
    /// Heads could not be shown to be consistent with each other, or the newest could not be
    /// stored, in the background. It is tried again; after too many failures nothing of the
    /// ledger is believed any more.
    HeadsNotLinked {
        /// The failure.
        reason: String,
    },
    /// The server expects an earlier statement that is still held: it is sent again, with
    /// everything after it.
    WentBack {
        /// The session.
        session: SessionId,
        /// The sequence that the server expects.
        expected: Sequence,
    },
}

/// The function that is called with each [`Event`].
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Listener>>);

type Listener = dyn Fn(&Event) + Send + Sync;

impl Observer {
    pub(crate) fn report(&self, event: &Event) {
        tracing::debug!(?event);
        if let Some(observer) = &self.0 {
            observer(event);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Observer(..)"
        } else {
            "Observer(none)"
        })
    }
}
