//! Runs a search through a ledger, a bounded piece of work at a time.

use std::{ops::Range, vec};

use bytes::Bytes;
use deed_evidence::{
    Micros,
    entry::Entry,
    statement::{Term, terms},
};
use deed_proto::v1::{CorrelationKey, FindingKind, PayloadType};
use memchr::memmem::Finder;

use super::{
    SEGMENT_LEAVES, indexed_to,
    segment::{candidates, corrupt_leaf},
    term::TermHash,
    time::first_at,
};
use crate::{
    metrics::Looked,
    pressure::answers::CHUNK_BYTES,
    store::{LedgerNumber, Store, StoreError, pack::Unpacked, search::FindingAt},
};

/// Most work of one step, counted in entries that are examined: some milliseconds.
const STEP_WORK: u64 = 4096;

/// Work of reading a term's leaves in one segment, counted in entries.
const LOOKUP_WORK: u64 = 32;

/// Leaves that are scanned before the bound on work is checked again.
const SCAN_LEAVES: u64 = 1024;

/// Most entries of a page, and most bytes of them; the last entry may go beyond.
pub(crate) const PAGE_ENTRIES: usize = 64;
pub(crate) const PAGE_BYTES: usize = CHUNK_BYTES;

/// The filter of a search. An empty field, or `None`, matches everything.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub task: Bytes,
    pub agent: String,
    pub resource: String,
    pub action: String,
    pub trace_id: Bytes,
    pub correlation_key: Option<CorrelationKey>,
    /// Kind of a finding that the entry must have.
    pub finding: Option<FindingKind>,
}

impl Query {
    /// Returns the terms that the statement must have, the rarest kinds first.
    fn terms(&self) -> impl Iterator<Item = Term<'_>> {
        let correlation = self.correlation_key.as_ref().map(|key| Term::Correlation {
            kind: key.kind.as_bytes(),
            value: key.value.as_bytes(),
        });
        [
            correlation,
            given(&self.trace_id, Term::Trace),
            given(&self.task, Term::Task),
            given(self.resource.as_bytes(), Term::Resource),
            given(self.agent.as_bytes(), Term::Agent),
            given(self.action.as_bytes(), Term::Action),
        ]
        .into_iter()
        .flatten()
    }

    /// Returns the hashes to look up in the index, in the same order.
    fn hashes(&self) -> impl Iterator<Item = TermHash> {
        let finding = self.finding.map(TermHash::of_finding);
        finding
            .into_iter()
            .chain(self.terms().map(|term| TermHash::of(&term)))
    }

    /// Returns a finder for the bytes of the rarest term, which every matching entry contains;
    /// `None` without terms.
    fn finder(&self) -> Option<Finder<'static>> {
        let value = match self.terms().next()? {
            Term::Task(value)
            | Term::Agent(value)
            | Term::Resource(value)
            | Term::Action(value)
            | Term::Trace(value)
            | Term::Correlation { value, .. } => value,
        };
        Some(Finder::new(value).into_owned())
    }

    /// Returns true if an entry has all terms. Findings are not in entries, and not checked here.
    fn is_said_by(&self, bytes: &[u8]) -> Result<bool, String> {
        let mut missing: Vec<_> = self.terms().collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let entry = Entry::parse(bytes).map_err(|error| error.to_string())?;
        if entry.payload_type != PayloadType::Statement {
            return Ok(false);
        }
        terms(entry.payload, |term| {
            missing.retain(|wanted| *wanted != term);
        });
        Ok(missing.is_empty())
    }
}

fn given<'q>(value: &'q [u8], term: fn(&'q [u8]) -> Term<'q>) -> Option<Term<'q>> {
    (!value.is_empty()).then(|| term(value))
}

/// The range of a search.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Range of leaves, all of them in the tree.
    pub leaves: Range<u64>,
    /// Range of effective times: `from` is included, `until` is not.
    pub from: Option<Micros>,
    pub until: Option<Micros>,
    /// Most entries to find.
    pub limit: u64,
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub leaf: u64,
    pub entry: Bytes,
}

/// Entries that were found and not sent yet.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<Found>,
    bytes: usize,
}

impl Page {
    pub fn is_full(&self) -> bool {
        self.entries.len() >= PAGE_ENTRIES || self.bytes >= PAGE_BYTES
    }

    fn push(&mut self, found: Found) {
        self.bytes += found.entry.len();
        self.entries.push(found);
    }
}

/// A search that is under way.
#[derive(Debug)]
pub struct Cursor {
    ledger: LedgerNumber,
    query: Query,
    next: u64,
    end: u64,
    /// End of the requested leaves, before `until` narrowed it.
    asked_end: u64,
    /// Number of entries that may still be found.
    left: u64,
    indexed_to: u64,
    block: Option<Block>,
    /// Skips most entries before they are parsed: values are in them as plain bytes.
    finder: Option<Finder<'static>>,
    /// The pack that was read last, with its first leaf: matching entries often lie close together.
    pack: Option<(u64, Unpacked)>,
}

/// Leaves that are examined together.
#[derive(Debug)]
struct Block {
    end: u64,
    /// The leaves to examine, as distances from `first`; `None` for all of them.
    leaves: Option<vec::IntoIter<u16>>,
    first: u64,
}

impl Cursor {
    /// Begins a search in a tree of `size` leaves.
    pub fn new(
        store: &Store,
        ledger: LedgerNumber,
        size: u64,
        query: Query,
        bounds: Bounds,
    ) -> Result<Self, StoreError> {
        let Range { start, end } = bounds.leaves;
        let at = |time: Micros| first_at(store, ledger, size, time);
        Ok(Self {
            next: start.max(bounds.from.map_or(Ok(0), at)?),
            end: end.min(bounds.until.map_or(Ok(end), at)?),
            asked_end: end,
            left: bounds.limit,
            // The store may be a turn ahead of the published tree.
            indexed_to: indexed_to(store, ledger)?.min(size),
            block: None,
            finder: query.finder(),
            pack: None,
            ledger,
            query,
        })
    }

    /// Returns true if there is nothing more to examine.
    pub fn is_done(&self) -> bool {
        self.next >= self.end || self.left == 0
    }

    /// Returns the leaf below which everything in the requested range was examined.
    pub fn searched_to(&self) -> u64 {
        if self.next >= self.end {
            self.asked_end
        } else {
            self.next
        }
    }

    /// Returns the leaf up to which the index reached when the search began.
    pub fn indexed_to(&self) -> u64 {
        self.indexed_to
    }

    /// Continues until the page is full, the search is done, or the step's work is used up.
    pub fn step(&mut self, store: &Store, page: &mut Page) -> Result<Looked, StoreError> {
        let mut looked = Looked::default();
        let mut lookups = 0;
        let work = |looked: &Looked, lookups| looked.indexed + looked.scanned + lookups;
        while !self.is_done() && !page.is_full() && work(&looked, lookups) < STEP_WORK {
            let Some(mut block) = self.block.take() else {
                lookups += LOOKUP_WORK * self.query.hashes().count().max(1) as u64;
                self.block = Some(self.plan(store)?);
                continue;
            };
            if let Some(leaves) = &mut block.leaves {
                let Some(offset) = leaves.next() else {
                    self.next = block.end;
                    continue;
                };
                let leaf = block.first + u64::from(offset);
                let entry = self.entry(store, leaf)?;
                self.look_at(store, leaf, entry, page)?;
                looked.indexed += 1;
                self.block = Some(block);
            } else {
                looked.scanned += self.scan(store, block.end, page)?;
            }
        }
        Ok(looked)
    }

    /// Returns the leaves to examine next: the rest of an indexed segment, or a part of the leaves
    /// beyond the index.
    fn plan(&self, store: &Store) -> Result<Block, StoreError> {
        let mut hashes = self.query.hashes();
        if let Some(first_hash) = hashes.next().filter(|_| self.next < self.indexed_to) {
            let segment = self.next / SEGMENT_LEAVES;
            let first = segment * SEGMENT_LEAVES;
            let end = self.end.min(first + SEGMENT_LEAVES);
            let mut leaves = candidates(store, self.ledger, segment, first_hash)?;
            for hash in hashes {
                if leaves.is_empty() {
                    break;
                }
                let others = candidates(store, self.ledger, segment, hash)?;
                let mut others = others.into_iter().peekable();
                leaves.retain(|leaf| {
                    while others.next_if(|other| other < leaf).is_some() {}
                    others.next_if_eq(leaf).is_some()
                });
            }
            leaves.retain(|offset| (self.next..end).contains(&(first + u64::from(*offset))));
            let leaves = Some(leaves.into_iter());
            return Ok(Block { end, leaves, first });
        }
        let first = self.next;
        let end = self.end.min(first + SCAN_LEAVES);
        // Findings are few and have their own records, which name the entries to examine.
        let leaves = match self.query.finding {
            Some(kind) => Some(self.leaves_with(store, kind, first..end)?.into_iter()),
            None => None,
        };
        Ok(Block { end, leaves, first })
    }

    /// Returns the leaves with a finding of this kind, as distances from the first one.
    fn leaves_with(
        &self,
        store: &Store,
        kind: FindingKind,
        leaves: Range<u64>,
    ) -> Result<Vec<u16>, StoreError> {
        let mut found = Vec::new();
        for item in store.findings(self.ledger, FindingAt::leaf(leaves.start)) {
            let (at, finding) = item?;
            if at.leaf >= leaves.end {
                break;
            }
            if finding.kind() == kind {
                found.extend(u16::try_from(at.leaf - leaves.start));
            }
        }
        found.dedup();
        Ok(found)
    }

    /// Examines every leaf up to `end`, as far as the page has room; returns their number.
    fn scan(&mut self, store: &Store, end: u64, page: &mut Page) -> Result<u64, StoreError> {
        let begin = self.next;
        for item in store.entries(self.ledger, begin) {
            let (leaf, entry) = item?;
            if leaf != self.next {
                break;
            }
            self.look_at(store, leaf, entry, page)?;
            if self.next == end || self.is_done() || page.is_full() {
                return Ok(self.next - begin);
            }
        }
        Err(corrupt_leaf(self.ledger, self.next, "is missing"))
    }

    fn look_at(
        &mut self,
        store: &Store,
        leaf: u64,
        entry: Bytes,
        page: &mut Page,
    ) -> Result<(), StoreError> {
        self.next = leaf + 1;
        let finder = self.finder.as_ref();
        if finder.is_some_and(|finder| finder.find(&entry).is_none()) {
            return Ok(());
        }
        let said = self.query.is_said_by(&entry);
        if !said.map_err(|what| corrupt_leaf(self.ledger, leaf, &what))? {
            return Ok(());
        }
        if let Some(kind) = self.query.finding
            && self.leaves_with(store, kind, leaf..leaf + 1)?.is_empty()
        {
            return Ok(());
        }
        self.left -= 1;
        page.push(Found { leaf, entry });
        Ok(())
    }

    fn entry(&mut self, store: &Store, leaf: u64) -> Result<Bytes, StoreError> {
        if let Some((first, pack)) = &self.pack
            && let Some(position) = leaf.checked_sub(*first)
            && let Some(entry) = pack.entry(position)
        {
            return Ok(entry);
        }
        let (first, pack) = store.pack_of(self.ledger, leaf)?;
        let entry = pack.entry(leaf - first);
        self.pack = Some((first, pack));
        entry.ok_or_else(|| corrupt_leaf(self.ledger, leaf, "is missing"))
    }
}
