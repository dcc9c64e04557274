//! Orphans: keys that belong to no content, with the time since which that is known.
//!
//! A crash leaves some. But if the store was restored from an older copy than its keys, every newer
//! key is an orphan, and the operator must have time to notice: so orphans are kept for as long as
//! contents that no leaf names.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};

use super::content_keys::KeyId;

/// Most orphans that are remembered. Others are kept, and wait until there is room to remember
/// them.
const REMEMBERED_MAX: usize = 1 << 16;

/// Number of orphans from which on a crash is no explanation.
const MANY: usize = 256;

/// The orphans, with the time, in microseconds, at which this process first saw each.
#[derive(Default)]
pub(super) struct Orphans {
    seen: BTreeMap<KeyId, i64>,
    told: bool,
}

impl Orphans {
    /// Records that the keys behind `after` up to `until` (up to the last, if `None`) were
    /// examined, and that `found`, in order, are the orphans among them. Returns those that have
    /// been orphans for `orphan_us`.
    pub(super) fn note(
        &mut self,
        after: Option<KeyId>,
        until: Option<KeyId>,
        found: &[KeyId],
        now_us: i64,
        orphan_us: i64,
    ) -> Vec<KeyId> {
        let stretch = (
            after.map_or(Unbounded, Excluded),
            until.map_or(Unbounded, Included),
        );
        let no_more: Vec<_> = self
            .seen
            .range(stretch)
            .map(|(id, _)| *id)
            .filter(|id| found.binary_search(id).is_err())
            .collect();
        for id in no_more {
            self.seen.remove(&id);
        }
        let mut ripe = Vec::new();
        for id in found {
            match self.seen.get(id) {
                Some(first_us) if first_us.saturating_add(orphan_us) <= now_us => ripe.push(*id),
                None if self.seen.len() < REMEMBERED_MAX => {
                    self.seen.insert(*id, now_us);
                }
                Some(_) | None => {}
            }
        }
        ripe
    }

    /// Logs, once, the result of the first look at all keys.
    pub(super) fn tell(&mut self, orphan_us: i64) {
        if std::mem::replace(&mut self.told, true) || self.seen.is_empty() {
            return;
        }
        let (keys, hours) = (self.seen.len(), orphan_us / 3_600_000_000);
        if keys < MANY {
            tracing::warn!(
                keys,
                hours,
                "keys of contents that the store does not have, as a crash leaves them; they are \
                 destroyed after that time"
            );
        } else {
            tracing::error!(
                keys,
                hours,
                "many keys of contents that the store does not have. If the store was put back \
                 from an older copy than content-keys, stop the server and put back the store \
                 that belongs to them: they are destroyed after that time"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use deed_evidence::CommitmentDigest;

    use super::*;
    use crate::store::LedgerNumber;

    fn key(number: u8) -> KeyId {
        (LedgerNumber(1), CommitmentDigest::new([number; 32]))
    }

    #[test]
    fn an_orphan_is_ripe_when_it_was_one_for_long_enough_without_a_break() {
        let mut orphans = Orphans::default();
        let all = [key(1), key(2), key(3)];
        assert_eq!(orphans.note(None, None, &all, 100, 50), []);
        // The second key has got its content, and only a part of the keys is examined.
        assert_eq!(orphans.note(Some(key(1)), Some(key(2)), &[], 120, 50), []);
        assert_eq!(orphans.note(None, None, &all, 149, 50), []);
        assert_eq!(orphans.note(None, None, &all, 150, 50), [key(1), key(3)]);
        assert_eq!(orphans.note(None, None, &all, 199, 50), all);
        assert_eq!(orphans.note(None, None, &[], 200, 50), []);
        assert!(orphans.seen.is_empty());
    }
}
