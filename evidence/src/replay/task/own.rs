//! Entries that the ledger itself writes for a task, which must follow from what stands before
//! them.

use bytes::Bytes;
use deed_proto::v1::{self, statement::Body};
use prost::Message as _;

use super::{Close, Receipted, TaskReplay};
use crate::{
    Micros,
    entry::Entry,
    replay::{
        Fault,
        assessment::{body_of, is_requested, same},
    },
    statement::{BodyKind, Header},
};

impl TaskReplay {
    /// Before a statement or a manifest at leaf `index`: time comes to `at`, and what the ledger had
    /// to write for the task must be there.
    pub(super) fn advance_time(&mut self, index: u64, at: Micros) -> Result<(), Fault> {
        let inside = index <= self.unit_end;
        if !inside {
            self.nothing_is_pending(index)?;
        }
        self.advance(index, at)?;
        if inside {
            return Ok(());
        }
        self.nothing_is_pending(index)
    }

    pub(super) fn advance(&mut self, index: u64, at: Micros) -> Result<(), Fault> {
        self.at = at;
        let Some((assessor, mut past, trust)) = self.machine() else {
            return Ok(());
        };
        // All of it: where the ledger wrote Ticks in between, they are not among these entries.
        assessor.advance(&mut past, trust, index, at)?;
        while assessor.is_due(at) {
            assessor.advance(&mut past, trust, index, at)?;
        }
        Ok(())
    }

    pub(super) fn nothing_is_pending(&mut self, index: u64) -> Result<(), Fault> {
        while let Some(entry) = self.pending_entry(index)? {
            if !self.is_close(&entry, |close| close.ends) {
                let body = body_of(&entry).name();
                return Err(Fault::LeftOut { body });
            }
        }
        Ok(())
    }

    /// Returns true if an entry clears an Intent that the ledger may have judged otherwise, because it
    /// was later than these entries show. Then it is no lie that it is there, or not: the state of the
    /// act is compared.
    fn is_close(&self, entry: &Bytes, so: fn(Close) -> bool) -> bool {
        let decoded = Entry::parse(entry).ok();
        let decoded = decoded.and_then(|entry| v1::Statement::decode(entry.payload).ok());
        match decoded.and_then(|decoded| decoded.body) {
            Some(Body::Clearance(clearance)) => {
                let intent = clearance.intent.map(|intent| intent.leaf_index);
                let close = intent.filter(|leaf| self.intents.contains(leaf));
                close.and_then(|leaf| self.close(leaf)).is_some_and(so)
            }
            _ => false,
        }
    }

    /// The next entry that the ledger has to write for this task.
    fn pending_entry(&mut self, index: u64) -> Result<Option<Bytes>, Fault> {
        let (at, task) = (self.at, self.task);
        let Some((assessor, mut past, trust)) = self.machine() else {
            return Ok(None);
        };
        while assessor.has_pending() {
            let Some(entry) = assessor.ledger_entry(&mut past, trust, index, at)? else {
                return Ok(None);
            };
            // A Tick, or what belongs to a task that an Observation named.
            let ours = Entry::parse(&entry)?.statement()?.task == Some(task);
            if ours {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// An entry of the ledger itself: what stands before it must call for it.
    pub(super) fn ledgers_own(
        &mut self,
        index: u64,
        bytes: &Bytes,
        header: &Header<'_>,
        at: Micros,
    ) -> Result<(), Fault> {
        let body = header.body;
        if index <= self.unit_end {
            return Err(Fault::InsideBatch);
        }
        if self.assessor.is_none() {
            return Err(Fault::BeyondRules { body: body.name() });
        }
        self.at = at;
        let mut wanted = self.pending_entry(index)?;
        if wanted.is_none() {
            self.advance(index, at)?;
            wanted = self.pending_entry(index)?;
        }
        if wanted.is_none() && body == BodyKind::TaskReceipt && is_requested(bytes) {
            let task = self.task;
            if let Some((assessor, mut past, _)) = self.machine() {
                assessor.request_receipt(&mut past, task)?;
            }
            wanted = self.pending_entry(index)?;
        }
        if wanted.is_none() && self.is_close(bytes, |close| close.begins) {
            return Ok(());
        }
        let wanted = wanted.ok_or(Fault::Uncalled { body: body.name() })?;
        if body == BodyKind::TaskReceipt && body_of(&wanted) == body {
            self.receipt(index, &wanted, bytes)
        } else {
            same(&wanted, bytes, body)
        }
    }

    /// A receipt must be the one that is owed. The digest over the task's assessment may differ: it
    /// holds at which leaves time had passed, and the numbers of findings among those of other tasks.
    fn receipt(&mut self, index: u64, wanted: &Bytes, found: &Bytes) -> Result<(), Fault> {
        let body = BodyKind::TaskReceipt.name();
        let owed = receipt_in(wanted)?.ok_or(Fault::False { body })?;
        let said = receipt_in(found)?.ok_or(Fault::False { body })?;
        // As the running digest is counted here: an earlier receipt with another assessment digest
        // has another hash than the machine knows.
        let owed = v1::TaskReceipt {
            through_leaf: self.running.last_leaf,
            count: self.running.count,
            digest: Bytes::copy_from_slice(self.running.digest.as_bytes()),
            ..owed
        };
        let same_assessment = owed.assessment_digest == said.assessment_digest;
        let but_for_that = v1::TaskReceipt {
            assessment_digest: owed.assessment_digest.clone(),
            ..said.clone()
        };
        if owed != but_for_that {
            return Err(Fault::False { body });
        }
        self.receipts.push(Receipted {
            leaf: index,
            through_leaf: said.through_leaf,
            count: said.count,
            same_assessment,
        });
        Ok(())
    }
}

fn receipt_in(entry: &Bytes) -> Result<Option<v1::TaskReceipt>, Fault> {
    let parsed = Entry::parse(entry)?;
    let decoded = v1::Statement::decode(parsed.payload).unwrap_or_default();
    Ok(match decoded.body {
        Some(Body::TaskReceipt(receipt)) => Some(receipt),
        _ => None,
    })
}
