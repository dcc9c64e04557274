//! Grants: who may do what, handed down and narrowed.

use bytes::Bytes;
use deed_proto::v1::{EvidencePart, FindingKind, GrantState, LayerState, TaskState};
use deed_tlog::Hash;

use super::{
    CHAIN_MAX, SHARED_MAX,
    act::copied_of,
    assessor::{Assessor, Author, EntryContext, View},
    body::{Effect, Grant, Quantity},
    cells::{self, CellKey, GrantList, GrantName, Relied, Scope, name_of},
    table::{self, Event, Machine, State},
};
use crate::{KeyId, Micros, TaskId, trust::TrustState};

/// Whether a pattern covers a name, or another pattern: exact, or a prefix that ends in `/*`;
/// compared as bytes.
#[must_use]
pub fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') => name.starts_with(prefix),
        _ => pattern == name,
    }
}

fn all_covered(patterns: &[String], names: &[String]) -> bool {
    let covered = |name: &String| patterns.iter().any(|pattern| covers(pattern, name));
    names.iter().all(covered)
}

/// Where a grant stands at effective time `at`.
#[must_use]
pub fn state_at(grant: &cells::Grant, task_closed: bool, at: Micros) -> GrantState {
    let kept = match grant.state() {
        GrantState::Invalid => return GrantState::Invalid,
        GrantState::Revoked => return GrantState::Revoked,
        GrantState::Pending => State::Pending,
        _ if is_spent(grant) => State::Exhausted,
        _ => State::Active,
    };
    let moved = |event| table::find(Machine::Grant, kept, event).is_some();
    if task_closed && moved(Event::TaskEnded) {
        GrantState::TaskClosed
    } else if at.get() >= grant.expires_us && moved(Event::TimeOver) {
        GrantState::Expired
    } else if kept == State::Pending || at.get() < grant.not_before_us {
        GrantState::Pending
    } else if kept == State::Exhausted {
        GrantState::Exhausted
    } else {
        GrantState::Active
    }
}

/// Where a grant stands for whoever would act under it, and the leaf of the grant that this comes
/// from: `chain` begins with the grant and ends at its root. A part is worth no more than what it is
/// a part of, so what stands worst in the chain decides; of equals the nearest.
#[must_use]
pub fn effective_state<'g>(
    chain: impl IntoIterator<Item = &'g cells::Grant>,
    registry: &TrustState,
    task_closed: bool,
    at: Micros,
) -> (GrantState, u64) {
    const fn badness(state: GrantState) -> u8 {
        match state {
            GrantState::Active => 0,
            GrantState::Pending => 1,
            GrantState::Exhausted => 2,
            GrantState::Expired => 3,
            GrantState::TaskClosed => 4,
            GrantState::Revoked => 5,
            GrantState::Invalid | GrantState::Unspecified => 6,
        }
    }
    let mut worst = (GrantState::Active, None);
    for grant in chain {
        let state = match state_at(grant, task_closed, at) {
            GrantState::Invalid => GrantState::Invalid,
            _ if giver_is_revoked(registry, grant).is_some() => GrantState::Revoked,
            state => state,
        };
        if worst.1.is_none() || badness(state) > badness(worst.0) {
            worst = (state, Some(grant.leaf));
        }
    }
    worst
        .1
        .map_or((GrantState::Unspecified, 0), |leaf| (worst.0, leaf))
}

/// The leaf at which the key that handed a grant on was revoked. An authority's is not looked at.
fn giver_is_revoked(registry: &TrustState, grant: &cells::Grant) -> Option<Option<u64>> {
    let giver = KeyId::from_slice(&grant.issuer_key).and_then(|key| registry.key(key))?;
    giver.revoked_at?;
    Some(giver.revoked_leaf.map(deed_tlog::LeafIndex::get))
}

fn is_spent(grant: &cells::Grant) -> bool {
    let uses = grant.uses > 0 && grant.uses_spent >= grant.uses;
    uses || grant
        .minor_units
        .is_some_and(|most| grant.amount_spent >= most)
}

/// The reason to deny an Intent of less than nothing.
pub(super) const NEGATIVE: &str = "the Intent's amount is negative";

/// What a grant shows for an Intent.
pub(super) struct Shown {
    /// Its leaf, if it is there.
    pub(super) leaf: Option<u64>,
    pub(super) layer: LayerState,
    /// What speaks against it; empty if the Intent may rely on it.
    pub(super) against: Vec<Against>,
    /// The grant and those above it.
    chain: Vec<Hash>,
    /// What the chain shows of itself, whether or not it bears this act.
    pub(super) founded: LayerState,
    /// True if the grant is this agent's.
    pub(super) is_subject: bool,
    /// Keys that handed a grant of the chain on, or accepted it.
    pub(super) relied: Vec<Relied>,
    /// Producers that may carry out what is cleared under it.
    pub(super) gateways: Vec<String>,
    /// Resources that it covers: names and patterns.
    pub(super) resources: Vec<String>,
}

/// One thing that speaks against a grant.
pub(super) struct Against {
    pub(super) kind: FindingKind,
    pub(super) detail: String,
    pub(super) contradicts: Option<u64>,
}

/// An objection to a statement: kind, detail, and what that contradicts.
pub(super) type Objection = (FindingKind, String, Option<u64>);

/// Who wants to do what under a grant.
pub(super) struct Wanted<'a> {
    pub(super) task: TaskId,
    pub(super) agent: &'a str,
    pub(super) key: Option<KeyId>,
    pub(super) action: &'a str,
    pub(super) resource: &'a str,
    pub(super) amount: Option<Quantity<'a>>,
    pub(super) expected: &'a [Effect],
}

impl Assessor {
    pub(super) fn granted<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        task: TaskId,
        leaf_hash: &Hash,
        said: &Grant,
    ) -> Result<(), V::Error> {
        let name = CellKey::Grant(*leaf_hash);
        let mut grant = new_grant(here, voice, task, said);
        let scope = Scope {
            actions: said.actions.clone(),
            resources: said.resources.clone(),
            gateways: said.gateways.clone(),
        };
        let mut against = self.task_takes_grants(view, task)?;
        let mut left_out = None;
        let event = match &said.parent {
            None => {
                let may = voice.is_authority() || !voice.is_signed();
                if !may && against.is_none() {
                    let detail = "a grant without a parent is an authority's to give";
                    against = Some((FindingKind::WrongRole, detail.to_owned(), None));
                }
                Event::Granted
            }
            Some(parent) => {
                let name = *parent;
                let found = self
                    .cells
                    .look::<Box<cells::Grant>, _>(view, CellKey::Grant(name))?
                    .cloned();
                match found {
                    Some(parent) if parent.task == grant.task => {
                        grant.parent_leaf = Some(parent.leaf);
                        grant.depth = parent.depth + 1;
                        let signed = !voice.is_claim() && parent.rooted() == LayerState::Proven;
                        grant.set_rooted(if signed {
                            LayerState::Proven
                        } else {
                            LayerState::Claimed
                        });
                        let covers = self
                            .cells
                            .look::<Box<Scope>, _>(view, CellKey::Scope(name))?;
                        let none = Scope::default();
                        let scopes = (covers.map_or(&none, |covers| &**covers), &scope);
                        match escalates(&parent, &grant, scopes, voice) {
                            None => Event::Delegated,
                            Some(detail) => {
                                let leaf = Some(parent.leaf);
                                let kind = FindingKind::DelegationEscalation;
                                against = against.or(Some((kind, detail.to_owned(), leaf)));
                                Event::Escalated
                            }
                        }
                    }
                    _ => {
                        let detail = "the parent is no grant of this task";
                        against = Some((FindingKind::UnknownGrant, detail.to_owned(), None));
                        Event::Escalated
                    }
                }
            }
        };
        let row = table::find(Machine::Grant, State::New, event);
        grant.set_state(match row.map(|row| row.to) {
            _ if against.is_some() => GrantState::Invalid,
            Some(State::Active) => GrantState::Active,
            Some(State::Pending) => GrantState::Pending,
            _ => GrantState::Invalid,
        });
        if let (Some((kind, value)), None) = (&said.outside_token, &against) {
            let token = CellKey::Token(name_of(kind, value));
            let names: &mut GrantList = self.cells.change_or_default(view, token)?;
            let rank = match grant.rooted() {
                _ if voice.is_authority() => 2,
                LayerState::Proven => 1,
                _ => 0,
            };
            left_out = names.add(GrantName {
                hash: Bytes::copy_from_slice(leaf_hash.as_bytes()),
                rank,
                leaf: here.leaf,
                task: grant.task.clone(),
            });
        }
        self.cells.put(name, Box::new(grant));
        self.cells.put(CellKey::Scope(*leaf_hash), Box::new(scope));
        if let Some((kind, detail, contradicts)) = against {
            self.find(view, here, kind, Some(task), here.leaf, contradicts, detail)?;
        }
        // What nobody proves makes room without a word.
        match left_out.filter(|left_out| left_out.rank > 0) {
            Some(left_out) => self.token_left_out(view, here, &left_out),
            None => Ok(()),
        }
    }

    /// Finds a grant for which there is no room any more under its outside token.
    fn token_left_out<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        left_out: &GrantName,
    ) -> Result<(), V::Error> {
        let (leaf, task) = (left_out.leaf, TaskId::from_slice(&left_out.task));
        let kind = FindingKind::NotCompared;
        let detail = format!(
            "more than {SHARED_MAX} grants stand for one outside token; the use of it after the end of \
             its task is not found for this one"
        );
        self.find(view, here, kind, task, leaf, None, detail)
    }

    fn task_takes_grants<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
    ) -> Result<Option<Objection>, V::Error> {
        let task = self.cells.task(view, task)?;
        Ok(match task.map(|task| (task.state(), task.closed_leaf)) {
            Some((TaskState::Open, _)) => None,
            Some((TaskState::Closed, closed)) => Some((
                FindingKind::TaskClosed,
                "the task has ended".to_owned(),
                closed,
            )),
            _ => {
                let detail = "the task was never opened";
                Some((FindingKind::UnknownTask, detail.to_owned(), None))
            }
        })
    }

    fn task_has_ended<V: View>(&mut self, view: &mut V, task: TaskId) -> Result<bool, V::Error> {
        let task = self.cells.task(view, task)?;
        Ok(task.is_some_and(|task| task.state() == TaskState::Closed))
    }

    pub(super) fn grant_accepted<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        task: TaskId,
        name: &Hash,
    ) -> Result<(), V::Error> {
        let ended = self.task_has_ended(view, task)?;
        let key = CellKey::Grant(*name);
        let Some(grant) = self.cells.change::<Box<cells::Grant>, _>(view, key)? else {
            let detail = "there is no such grant to accept";
            return self.find(
                view,
                here,
                FindingKind::UnknownGrant,
                Some(task),
                here.leaf,
                None,
                detail,
            );
        };
        let (kind, detail) = if grant.task[..] != task.as_bytes()[..] {
            (FindingKind::UnknownGrant, "the grant is another task's")
        } else if !is_subject(grant, voice.producer, voice.key) {
            (
                FindingKind::WrongRole,
                "a grant is accepted by its subject, with its key",
            )
        } else if !accepts(grant, voice, table_state(grant, ended, here.at)) {
            (
                FindingKind::OutOfPlace,
                "the grant does not wait for an acceptance",
            )
        } else {
            grant.set_state(GrantState::Active);
            grant.accepted_leaf = Some(here.leaf);
            grant.accepted_signed = !voice.is_claim();
            grant.accepted_key = copied_of(voice.key.as_ref().map(|key| &key.as_bytes()[..]));
            grant.accepted_at_us = here.at.get();
            return Ok(());
        };
        let leaf = Some(grant.leaf);
        self.find(view, here, kind, Some(task), here.leaf, leaf, detail)
    }

    pub(super) fn grant_revoked<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        task: TaskId,
        name: &Hash,
    ) -> Result<(), V::Error> {
        let key = CellKey::Grant(*name);
        let ended = self.task_has_ended(view, task)?;
        let found = self.cells.change::<Box<cells::Grant>, _>(view, key)?;
        let (kind, detail) = match found {
            Some(grant) if grant.task[..] != task.as_bytes()[..] => {
                (FindingKind::UnknownGrant, "the grant is another task's")
            }
            Some(grant)
                if table::find(
                    Machine::Grant,
                    table_state(grant, ended, here.at),
                    Event::Revoked,
                )
                .is_none() =>
            {
                (
                    FindingKind::OutOfPlace,
                    "the grant had ended, or never was one",
                )
            }
            Some(grant) => {
                grant.set_state(GrantState::Revoked);
                grant.revoked_leaf = Some(here.leaf);
                return Ok(());
            }
            None => (
                FindingKind::UnknownGrant,
                "there is no such grant to revoke",
            ),
        };
        self.find(view, here, kind, Some(task), here.leaf, None, detail)
    }

    /// What the grant `name` shows for an Intent, and everything that speaks against it.
    pub(super) fn show_grant<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        name: &Hash,
        wanted: &Wanted<'_>,
    ) -> Result<Shown, V::Error> {
        let mut shown = Shown {
            leaf: None,
            layer: LayerState::Contradicted,
            founded: LayerState::Contradicted,
            is_subject: false,
            against: Vec::new(),
            chain: Vec::new(),
            relied: Vec::new(),
            gateways: Vec::new(),
            resources: Vec::new(),
        };
        let mut next = Some(*name);
        let mut layer = LayerState::Proven;
        while let Some(name) = next {
            let first = shown.chain.is_empty();
            let grant = self
                .cells
                .look::<Box<cells::Grant>, _>(view, CellKey::Grant(name))?;
            let Some(grant) = grant.cloned() else {
                shown.add(FindingKind::UnknownGrant, "there is no such grant", None);
                return Ok(shown);
            };
            let grant = &*grant;
            if first {
                if grant.task[..] != wanted.task.as_bytes()[..] {
                    let leaf = Some(grant.leaf);
                    shown.add(
                        FindingKind::UnknownGrant,
                        "the grant is another task's",
                        leaf,
                    );
                    return Ok(shown);
                }
                shown.leaf = Some(grant.leaf);
                shown.is_subject = is_subject(grant, wanted.agent, wanted.key);
                if !shown.is_subject {
                    let detail = "the grant is another subject's, or for another key";
                    shown.add(FindingKind::UnknownGrant, detail, Some(grant.leaf));
                }
                let covers = self
                    .cells
                    .look::<Box<Scope>, _>(view, CellKey::Scope(name))?;
                let none = Scope::default();
                let covers = covers.map_or(&none, |covers| &**covers);
                scope(&mut shown, grant, covers, wanted);
                // A part names none that its parent does not name.
                shown.gateways.clone_from(&covers.gateways);
                if !wanted.expected.is_empty() {
                    shown.resources.clone_from(&covers.resources);
                }
            }
            in_force(&mut shown, here.registry, grant, here.at);
            limits(&mut shown, grant, wanted.amount);
            let accepted = grant.parent.is_empty() || grant.accepted_signed;
            if grant.rooted() != LayerState::Proven || !accepted {
                layer = LayerState::Claimed;
            }
            next = Hash::try_from(&grant.parent[..]).ok();
            shown.chain.push(name);
            let accepted_leaf = grant.accepted_leaf.unwrap_or(0);
            for (key, leaf, at_us) in [
                (&grant.issuer_key, grant.leaf, grant.at_us),
                (&grant.accepted_key, accepted_leaf, grant.accepted_at_us),
            ] {
                if !key.is_empty() {
                    shown.relied.push(Relied {
                        key: key.clone(),
                        leaf,
                        at_us,
                        part: EvidencePart::Delegation.into(),
                    });
                }
            }
            if shown.chain.len() > CHAIN_MAX as usize {
                break;
            }
        }
        shown.founded = layer;
        if shown.against.is_empty() {
            shown.layer = layer;
        }
        Ok(shown)
    }

    /// Charges a use, and the amount in minor units, to the grant and everything above it.
    pub(super) fn charge<V: View>(
        &mut self,
        view: &mut V,
        shown: &Shown,
        minor_units: Option<i64>,
    ) -> Result<(), V::Error> {
        for name in &shown.chain {
            let key = CellKey::Grant(*name);
            if let Some(grant) = self.cells.change::<Box<cells::Grant>, _>(view, key)? {
                grant.uses_spent = grant.uses_spent.saturating_add(1);
                if let (Some(_), Some(minor_units)) = (grant.minor_units, minor_units) {
                    // `limits` has seen that it fits.
                    grant.amount_spent = grant.amount_spent.saturating_add(minor_units);
                }
            }
        }
        Ok(())
    }
}

impl GrantList {
    /// Adds a grant. If there are 24, one of those that are founded worst gives way, the newest of them;
    /// that one is returned.
    fn add(&mut self, name: GrantName) -> Option<GrantName> {
        self.grants.push(name);
        if self.grants.len() <= SHARED_MAX {
            return None;
        }
        let worst = self.grants.iter().map(|name| name.rank).min();
        let at = self
            .grants
            .iter()
            .rposition(|name| Some(name.rank) == worst);
        at.map(|at| self.grants.remove(at))
    }
}

impl Shown {
    fn add(&mut self, kind: FindingKind, detail: &str, contradicts: Option<u64>) {
        self.against.push(Against {
            kind,
            detail: detail.to_owned(),
            contradicts,
        });
    }
}

fn new_grant(
    here: EntryContext<'_>,
    voice: Author<'_>,
    task: TaskId,
    said: &Grant,
) -> cells::Grant {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let rooted = if voice.is_authority() {
        LayerState::Proven
    } else {
        LayerState::Claimed
    };
    cells::Grant {
        leaf: here.leaf,
        task: bytes(task.as_bytes()),
        subject: said.subject.clone(),
        subject_key: said
            .subject_key
            .map_or_else(Bytes::new, |key| bytes(key.as_bytes())),
        not_before_us: said.not_before.get(),
        expires_us: said.expires.get(),
        uses: said.uses,
        minor_units: said.amount.as_ref().map(|amount| amount.minor_units),
        currency: said
            .amount
            .as_ref()
            .map_or_else(String::new, |a| a.currency.clone()),
        parent: said
            .parent
            .map_or_else(Bytes::new, |hash| bytes(hash.as_bytes())),
        parent_leaf: None,
        depth: 1,
        state: 0,
        rooted: rooted.into(),
        accepted_leaf: None,
        accepted_signed: false,
        uses_spent: 0,
        amount_spent: 0,
        revoked_leaf: None,
        issuer_key: match voice.key {
            Some(key) if !voice.is_authority() => bytes(key.as_bytes()),
            _ => Bytes::new(),
        },
        at_us: here.at.get(),
        accepted_key: Bytes::new(),
        accepted_at_us: 0,
    }
}

/// Where a grant stands for what would move it. Other than for those who ask, one whose time has not
/// come waits for nothing but that.
fn table_state(grant: &cells::Grant, task_closed: bool, at: Micros) -> State {
    match state_at(grant, task_closed, at) {
        GrantState::Pending if grant.state() == GrantState::Pending => State::Pending,
        GrantState::Pending | GrantState::Active => State::Active,
        GrantState::Exhausted => State::Exhausted,
        GrantState::Expired => State::Expired,
        GrantState::Revoked => State::Revoked,
        GrantState::TaskClosed => State::TaskClosed,
        GrantState::Invalid | GrantState::Unspecified => State::Invalid,
    }
}

/// Returns true if the grant waits for its subject's acceptance, or has only a claimed one, and this one
/// is proven.
fn accepts(grant: &cells::Grant, voice: Author<'_>, state: State) -> bool {
    let displaces = state == State::Active
        && grant.accepted_leaf.is_some()
        && !grant.accepted_signed
        && !voice.is_claim();
    displaces || table::find(Machine::Grant, state, Event::Accepted).is_some()
}

fn is_subject(grant: &cells::Grant, producer: &str, key: Option<KeyId>) -> bool {
    let same_key = match KeyId::from_slice(&grant.subject_key) {
        Some(wanted) => key == Some(wanted),
        None => true,
    };
    grant.subject == producer && same_key
}

/// How a grant goes beyond its parent; `None` if it does not.
fn escalates(
    parent: &cells::Grant,
    grant: &cells::Grant,
    (above, below): (&Scope, &Scope),
    voice: Author<'_>,
) -> Option<&'static str> {
    let within = |most: u64, wanted: u64| most == 0 || (wanted != 0 && wanted <= most);
    let amount_within = match (parent.minor_units, grant.minor_units) {
        (None, _) => true,
        (Some(most), Some(wanted)) => parent.currency == grant.currency && wanted <= most,
        (Some(_), None) => false,
    };
    if !voice.is_authority() && !is_subject(parent, voice.producer, voice.key) {
        Some("only the subject of a grant, with its key, hands it on")
    } else if parent.state() == GrantState::Invalid {
        Some("the parent never was a grant")
    } else if grant.depth > CHAIN_MAX {
        Some("the chain has more than 8 grants")
    } else if !all_covered(&above.actions, &below.actions) {
        Some("its actions go beyond the parent's")
    } else if !all_covered(&above.resources, &below.resources) {
        Some("its resources go beyond the parent's")
    } else if grant.not_before_us < parent.not_before_us || grant.expires_us > parent.expires_us {
        Some("its time goes beyond the parent's")
    } else if !below
        .gateways
        .iter()
        .all(|one| above.gateways.contains(one))
    {
        Some("its gateways go beyond the parent's")
    } else if !within(parent.uses, grant.uses) {
        Some("its uses go beyond the parent's")
    } else if !amount_within {
        Some("its amount goes beyond the parent's")
    } else {
        None
    }
}

fn scope(shown: &mut Shown, grant: &cells::Grant, covers_of: &Scope, wanted: &Wanted<'_>) {
    let covered = |patterns: &[String], name| patterns.iter().any(|pattern| covers(pattern, name));
    if !covered(&covers_of.actions, wanted.action) {
        let detail = "the grant does not cover the action";
        shown.add(FindingKind::ScopeExceeded, detail, Some(grant.leaf));
    }
    if !covered(&covers_of.resources, wanted.resource) {
        let detail = "the grant does not cover the resource";
        shown.add(FindingKind::ScopeExceeded, detail, Some(grant.leaf));
    }
}

fn in_force(shown: &mut Shown, registry: &TrustState, grant: &cells::Grant, at: Micros) {
    let leaf = Some(grant.leaf);
    match grant.state() {
        GrantState::Invalid => {
            shown.add(
                FindingKind::DelegationEscalation,
                "the grant never was one",
                leaf,
            );
        }
        GrantState::Revoked => {
            shown.add(
                FindingKind::ExpiredGrant,
                "the grant was revoked",
                grant.revoked_leaf,
            );
        }
        GrantState::Pending => {
            let detail = "the grant was not accepted by its subject";
            shown.add(FindingKind::DelegationUnaccepted, detail, leaf);
        }
        _ => {}
    }
    if at.get() >= grant.expires_us {
        shown.add(FindingKind::ExpiredGrant, "the grant has expired", leaf);
    } else if at.get() < grant.not_before_us {
        shown.add(
            FindingKind::ExpiredGrant,
            "the grant is not in force yet",
            leaf,
        );
    }
    if let Some(revoked) = giver_is_revoked(registry, grant) {
        let detail = "the key that handed the grant on was revoked";
        shown.add(FindingKind::RevokedKeyUse, detail, revoked);
    }
}

fn limits(shown: &mut Shown, grant: &cells::Grant, amount: Option<Quantity<'_>>) {
    let leaf = Some(grant.leaf);
    if grant.uses > 0 && grant.uses_spent >= grant.uses {
        shown.add(
            FindingKind::LimitExceeded,
            "the uses of the grant are spent",
            leaf,
        );
    }
    let Some(most) = grant.minor_units else {
        return;
    };
    let detail = match amount {
        None => Some("the grant has a bound on amounts, and the Intent names none"),
        Some(amount) if amount.currency != grant.currency => {
            Some("the grant's amount is in another currency")
        }
        Some(amount) if amount.minor_units < 0 => Some(NEGATIVE),
        Some(amount) => match grant.amount_spent.checked_add(amount.minor_units) {
            Some(sum) if sum <= most => None,
            _ => Some("the amount goes beyond what is left of the grant"),
        },
    };
    if let Some(detail) = detail {
        shown.add(FindingKind::LimitExceeded, detail, leaf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_as_bytes() {
        for (pattern, name, wanted) in [
            ("orders/7", "orders/7", true),
            ("orders/7", "orders/77", false),
            ("orders/*", "orders/7", true),
            ("orders/*", "orders/7/items", true),
            ("orders/*", "orders", false),
            ("orders/*", "ordersX/7", false),
            ("orders*", "orders7", false),
            ("orders*", "orders*", true),
            ("*", "orders", false),
            ("*", "*", true),
            ("a/*", "a/b/*", true),
            ("a/b/*", "a/*", false),
            ("a/b", "a/*", false),
            ("Orders/*", "orders/7", false),
        ] {
            assert_eq!(covers(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
