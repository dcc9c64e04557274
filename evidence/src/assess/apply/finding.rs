//! Making findings.

use bytes::Bytes;
use deed_proto::v1::{self, FindingKind};

use super::Apply;
use crate::{
    TaskId,
    assess::{
        View,
        act::task_of,
        cells::{Act, CellKey},
        digest, finding,
    },
};

/// The findings at the current leaf.
#[derive(Debug, Default)]
pub(in crate::assess) struct Findings {
    /// The leaf, and the number of its next finding.
    next: (u64, u32),
    /// Those since the statement began.
    found: Vec<v1::Finding>,
}

impl Findings {
    /// Begins to number at `leaf`, unless that is where the last finding arose.
    pub(in crate::assess) fn begin(&mut self, leaf: u64) {
        if self.next.0 != leaf {
            self.next = (leaf, 0);
        }
    }

    /// Begins with a statement at `leaf`: it is not told what was found before it.
    pub(in crate::assess) fn begin_statement(&mut self, leaf: u64) {
        self.begin(leaf);
        self.found.clear();
    }

    pub(in crate::assess) fn take(&mut self) -> Vec<v1::Finding> {
        std::mem::take(&mut self.found)
    }

    pub(in crate::assess) fn clear(&mut self) {
        self.found.clear();
    }
}

/// A finding that is being made; [`NewFinding::says`] adds it. Unless something else is said, it is in
/// the task of the statement that is applied, and about that statement.
#[must_use = "it is not added before `says`"]
pub(in crate::assess) struct NewFinding<'c, 'a, V> {
    apply: &'c mut Apply<'a, V>,
    kind: FindingKind,
    task: Option<TaskId>,
    about: u64,
    contradicts: Option<u64>,
}

impl<'a, V: View> Apply<'a, V> {
    /// Begins a finding. A serious one by the word of a statement that proves nothing of its author is
    /// a claim.
    pub(in crate::assess) fn find<'c>(&'c mut self, kind: FindingKind) -> NewFinding<'c, 'a, V> {
        NewFinding {
            kind,
            task: self.task,
            about: self.leaf,
            contradicts: None,
            apply: self,
        }
    }

    /// Begins a finding about a statement that does not fit what others have said. What nobody signed
    /// is a claim, and found as one.
    pub(in crate::assess) fn object<'c>(&'c mut self, kind: FindingKind) -> NewFinding<'c, 'a, V> {
        if self.author.is_signed() {
            self.find(kind)
        } else {
            self.find(FindingKind::UnprovenClaim)
        }
    }

    /// Makes findings that follow from proven statements alone, whoever's statement occasions them.
    pub(in crate::assess) fn by_proven<T>(&mut self, find: impl FnOnce(&mut Self) -> T) -> T {
        let claimed = std::mem::replace(&mut self.claimed, false);
        let found = find(self);
        self.claimed = claimed;
        found
    }
}

impl<V: View> NewFinding<'_, '_, V> {
    /// Makes it a finding about an act, in that act's task; the act remembers its kind.
    pub(in crate::assess) fn of(self, act: &mut Act) -> Self {
        act.note(self.kind);
        self.in_task(task_of(act)).about(act.leaf)
    }

    pub(in crate::assess) fn in_task(mut self, task: impl Into<Option<TaskId>>) -> Self {
        self.task = task.into();
        self
    }

    pub(in crate::assess) fn in_no_task(mut self) -> Self {
        self.task = None;
        self
    }

    /// Makes it a finding about the statement at `leaf`.
    pub(in crate::assess) fn about(mut self, leaf: u64) -> Self {
        self.about = leaf;
        self
    }

    /// Names the leaf of the entry that the statement contradicts.
    pub(in crate::assess) fn contradicts(mut self, leaf: impl Into<Option<u64>>) -> Self {
        self.contradicts = leaf.into();
        self
    }

    /// Names the statement that is applied as the one that is contradicted.
    pub(in crate::assess) fn contradicts_this(self) -> Self {
        let leaf = self.apply.leaf;
        self.contradicts(leaf)
    }

    /// Adds the finding, with `detail` as what is told of it.
    pub(in crate::assess) fn says(self, detail: impl Into<String>) -> Result<(), V::Error> {
        self.add(detail.into())
    }

    fn add(self, detail: String) -> Result<(), V::Error> {
        let Self {
            apply,
            kind,
            task,
            about,
            contradicts,
        } = self;
        let kind = if apply.claimed && finding::severity(kind) == v1::Severity::Serious {
            FindingKind::UnprovenClaim
        } else {
            kind
        };
        let leaf = apply.leaf;
        let number = apply.findings.next.1;
        apply.findings.next.1 += 1;
        let finding = v1::Finding {
            leaf_index: leaf,
            number,
            kind: kind.into(),
            severity: finding::severity(kind).into(),
            task: task.map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
            about_leaf: about,
            contradicts_leaf: contradicts,
            at_us: apply.at.get(),
            detail,
            disposition_leaf: None,
            disposition: 0,
        };
        apply.findings.found.push(finding.clone());
        let key = CellKey::Finding(leaf, number);
        apply.cells.put(key, Box::new(finding));
        let Some(task) = task else { return Ok(()) };
        let event = digest::Event::Finding {
            leaf,
            number,
            kind,
            about,
            contradicts,
        };
        if let Some(task) = apply.cells.change_task(task)? {
            task.note(&event);
            task.findings += 1;
        }
        Ok(())
    }
}
