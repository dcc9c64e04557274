//! File descriptors: the number that the process may have, and its distribution.
//!
//! A connection needs a descriptor, and so does the next file of the store. A store that cannot
//! open a file ends the server, so connections must never take the last descriptor. The share of
//! each side is fixed at the start: the soft limit is raised to the hard one, and settings that do
//! not fit are lowered, connections first, or refused.

use deed_engine::content::KEY_FILES_OPEN;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use crate::options::ServerOptions;

/// Descriptors for everything that is not counted separately: standard streams, listening sockets,
/// connections that arrive and have no place yet, the runtime's own, both databases' logs,
/// directories and files that are being written, and files that are read now and then.
const RESERVE: u64 = 160;

/// Lowest values to which settings are lowered.
const CONNECTIONS_MIN: u64 = 64;
const STORE_FILES_MIN: u64 = 128;

/// Largest limit that is asked for. A hard limit may be infinite, and the soft one has to be a
/// number.
const RAISED_MAX: u64 = 1 << 20;

/// The settings need more descriptors than the process may have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "this process may open {limit} files, and these settings need {needed} at least (connections, \
     files of the store and a reserve): raise the limit (LimitNOFILE= in systemd, ulimits.nofile in \
     Docker, `ulimit -Hn` in a shell), or lower shards or admin.connections"
)]
pub struct DescriptorError {
    limit: u64,
    needed: u64,
}

/// The descriptors of each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    connections: u64,
    store_files: u64,
    /// All other parts together.
    fixed: u64,
}

impl Shares {
    fn of(options: &ServerOptions) -> Self {
        let admin_connections = match options.admin {
            Some(_) => options.admin_connections as u64,
            None => 0,
        };
        Self {
            connections: options.limits.connections as u64,
            store_files: options.store.open_files as u64,
            // Each shard keeps its slot of the head guard open.
            fixed: RESERVE + u64::from(KEY_FILES_OPEN) + options.shards as u64 + admin_connections,
        }
    }

    fn sum(self) -> u64 {
        self.connections
            .saturating_add(self.store_files)
            .saturating_add(self.fixed)
    }

    /// Lowers connections until all parts fit `limit`, and then the store's files.
    fn fitted(mut self, limit: u64) -> Result<Self, DescriptorError> {
        let lower = |share: u64, min: u64, others: u64| {
            let left = limit.saturating_sub(others);
            share.min(left.max(min))
        };
        let others = self.store_files.saturating_add(self.fixed);
        self.connections = lower(self.connections, CONNECTIONS_MIN, others);
        let others = self.connections.saturating_add(self.fixed);
        self.store_files = lower(self.store_files, STORE_FILES_MIN, others);
        let needed = self.sum();
        if needed > limit {
            return Err(DescriptorError { limit, needed });
        }
        Ok(self)
    }
}

/// Raises the process's limit as far as possible, and lowers `options` to fit it.
///
/// # Errors
/// [`DescriptorError`] if they do not fit even at their lowest.
pub(crate) fn fit(options: &mut ServerOptions) -> Result<(), DescriptorError> {
    let wanted = Shares::of(options);
    let limit = raise();
    let fitted = wanted.fitted(limit)?;
    for (setting, wanted, fitted) in [
        ("limits.connections", wanted.connections, fitted.connections),
        ("store.open_files", wanted.store_files, fitted.store_files),
    ] {
        if fitted < wanted {
            tracing::warn!(
                setting,
                wanted,
                in_force = fitted,
                limit,
                "lowered: the process may not open as many files; raise its limit (LimitNOFILE= in \
                 systemd, ulimits.nofile in Docker) or lower the setting"
            );
        }
    }
    let number = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
    options.limits.connections = number(fitted.connections);
    options.store.open_files = number(fitted.store_files);
    Ok(())
}

/// Raises the soft limit to the hard one; returns the limit in force.
fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(RAISED_MAX);
    let hard = limit.maximum.unwrap_or(RAISED_MAX).min(RAISED_MAX);
    if soft >= hard {
        return soft;
    }
    let raised = Rlimit {
        current: Some(hard),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => hard,
        // Some sandboxes forbid it; the limit in force may be enough all the same.
        Err(error) => {
            tracing::debug!(%error, soft, hard, "the limit of open files stays as it is");
            soft
        }
    }
}

/// Returns the number of descriptors that the process may have; `None` for no limit.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Returns the number of descriptors that the process has open, where Linux reports it.
pub(crate) fn open() -> Option<u64> {
    let listed = std::fs::read_dir("/proc/self/fd").ok()?;
    // One descriptor belongs to the listing itself.
    Some((listed.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Shares = Shares {
        connections: 1024,
        store_files: 512,
        fixed: 289,
    };

    #[test]
    fn the_defaults_are_what_is_reckoned_with() {
        let mut options = ServerOptions::new("unused");
        options.admin = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into());
        assert_eq!(Shares::of(&options), DEFAULTS);
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(DEFAULTS.fitted(1825), Ok(DEFAULTS));
        assert_eq!(DEFAULTS.fitted(u64::MAX), Ok(DEFAULTS));
        let endless = Shares {
            connections: u64::MAX,
            ..DEFAULTS
        };
        assert_eq!(endless.fitted(65_536).unwrap().sum(), 65_536);
    }

    /// Under every limit the shares fit, and the store's is lowered last.
    #[test]
    fn connections_give_way_before_the_store() {
        for limit in 0..1825 {
            match DEFAULTS.fitted(limit) {
                Ok(shares) => {
                    assert_eq!(shares.sum(), limit, "{limit}");
                    assert_eq!(shares.fixed, DEFAULTS.fixed);
                    assert!(shares.connections >= CONNECTIONS_MIN);
                    assert!(shares.store_files >= STORE_FILES_MIN);
                    let untouched = shares.store_files == DEFAULTS.store_files;
                    assert!(untouched || shares.connections == CONNECTIONS_MIN);
                }
                Err(error) => {
                    let needed = DEFAULTS.fixed + CONNECTIONS_MIN + STORE_FILES_MIN;
                    assert_eq!(error, DescriptorError { limit, needed });
                    assert!(limit < needed);
                }
            }
        }
        // The usual soft limit, with a hard one that is no higher.
        let usual = DEFAULTS.fitted(1024).unwrap();
        assert_eq!((usual.connections, usual.store_files), (223, 512));
    }

    #[test]
    fn settings_below_the_least_are_left_there() {
        let few = Shares {
            connections: 2,
            store_files: 64,
            fixed: 100,
        };
        assert_eq!(few.fitted(166), Ok(few));
        assert_eq!(few.fitted(165).unwrap_err().needed, 166);
        let error = few.fitted(165).unwrap_err().to_string();
        for word in ["165", "166", "LimitNOFILE", "ulimit"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised_and_told() {
        let raised = raise();
        assert_eq!(limit(), Some(raised));
        assert_eq!(raise(), raised);
        assert!(open().is_none_or(|open| (3..raised).contains(&open)));
    }
}
