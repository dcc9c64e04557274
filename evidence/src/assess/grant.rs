//! Grants: who may do what, handed down and narrowed.

use deed_proto::v1::{EvidencePart, FindingKind, GrantState, LayerState, TaskState};
use deed_tlog::Hash;

use super::{
    CHAIN_MAX,
    apply::Apply,
    body::Quantity,
    cells::{self, CellKey, Relied, Scope},
    judgement::IntentRequest,
    table::{self, Event, Machine, State},
    view::View,
};
use crate::{KeyId, Micros, TaskId, trust::TrustState};

/// Returns true if a pattern covers a name, or another pattern: exact, or a prefix that ends in `/*`;
/// compared as bytes.
#[must_use]
pub fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') => name.starts_with(prefix),
        _ => pattern == name,
    }
}

/// The state of a grant at effective time `at`.
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

/// The state of a grant for whoever would act under it, and the leaf of the grant that decides it:
/// `chain` begins with the grant and ends at its root. A part is worth no more than what it is a part
/// of, so the worst state in the chain decides; of equals the nearest.
#[must_use]
pub fn effective_state<'g>(
    chain: impl IntoIterator<Item = &'g cells::Grant>,
    trust: &TrustState,
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
            _ if giver_is_revoked(trust, grant).is_some() => GrantState::Revoked,
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
fn giver_is_revoked(trust: &TrustState, grant: &cells::Grant) -> Option<Option<u64>> {
    let giver = KeyId::from_slice(&grant.issuer_key).and_then(|key| trust.key(key))?;
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

/// The grant of an Intent, with its chain.
pub(super) struct Shown {
    /// Its leaf, if it is there.
    pub(super) leaf: Option<u64>,
    pub(super) layer: LayerState,
    /// Objections to it; empty if the Intent may rely on it.
    pub(super) against: Vec<Against>,
    /// The grant and those above it.
    chain: Vec<Hash>,
    /// The proof of the chain itself, whether or not it bears this act.
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

/// An objection to a grant.
pub(super) struct Against {
    pub(super) kind: FindingKind,
    pub(super) detail: String,
    pub(super) contradicts: Option<u64>,
}

/// An objection to a statement: kind, detail, and what that contradicts.
pub(super) type Objection = (FindingKind, String, Option<u64>);

impl<V: View> Apply<'_, V> {
    pub(super) fn task_has_ended(&mut self, task: TaskId) -> Result<bool, V::Error> {
        let task = self.cells.task(task)?;
        Ok(task.is_some_and(|task| task.state() == TaskState::Closed))
    }

    /// Looks up the grant `name` and its chain for an Intent, and all that speaks against it.
    pub(super) fn show_grant(
        &mut self,
        name: &Hash,
        request: &IntentRequest<'_>,
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
            let grant = self.cells.look::<Box<cells::Grant>>(CellKey::Grant(name))?;
            let Some(grant) = grant.cloned() else {
                shown.add(FindingKind::UnknownGrant, "there is no such grant", None);
                return Ok(shown);
            };
            let grant = &*grant;
            if first {
                if grant.task[..] != request.task.as_bytes()[..] {
                    let leaf = Some(grant.leaf);
                    shown.add(
                        FindingKind::UnknownGrant,
                        "the grant is another task's",
                        leaf,
                    );
                    return Ok(shown);
                }
                shown.leaf = Some(grant.leaf);
                shown.is_subject = is_subject(grant, request.agent, request.key);
                if !shown.is_subject {
                    let detail = "the grant is another subject's, or for another key";
                    shown.add(FindingKind::UnknownGrant, detail, Some(grant.leaf));
                }
                let covers = self.cells.look::<Box<Scope>>(CellKey::Scope(name))?;
                let none = Scope::default();
                let covers = covers.map_or(&none, |covers| &**covers);
                scope(&mut shown, grant, covers, request);
                // A part names none that its parent does not name.
                shown.gateways.clone_from(&covers.gateways);
                if !request.expected.is_empty() {
                    shown.resources.clone_from(&covers.resources);
                }
            }
            in_force(&mut shown, self.trust, grant, self.at);
            limits(&mut shown, grant, request.amount);
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
    pub(super) fn charge(
        &mut self,
        shown: &Shown,
        minor_units: Option<i64>,
    ) -> Result<(), V::Error> {
        for name in &shown.chain {
            let key = CellKey::Grant(*name);
            if let Some(grant) = self.cells.change::<Box<cells::Grant>>(key)? {
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

impl Shown {
    fn add(&mut self, kind: FindingKind, detail: &str, contradicts: Option<u64>) {
        self.against.push(Against {
            kind,
            detail: detail.to_owned(),
            contradicts,
        });
    }
}

/// The state of a grant, as the table names it. Other than for those who ask, a grant whose time has
/// not come is active.
pub(super) fn machine_state(grant: &cells::Grant, task_closed: bool, at: Micros) -> State {
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

pub(super) fn is_subject(grant: &cells::Grant, producer: &str, key: Option<KeyId>) -> bool {
    let same_key = match KeyId::from_slice(&grant.subject_key) {
        Some(wanted) => key == Some(wanted),
        None => true,
    };
    grant.subject == producer && same_key
}

fn scope(shown: &mut Shown, grant: &cells::Grant, covers_of: &Scope, request: &IntentRequest<'_>) {
    let covered = |patterns: &[String], name| patterns.iter().any(|pattern| covers(pattern, name));
    if !covered(&covers_of.actions, request.action) {
        let detail = "the grant does not cover the action";
        shown.add(FindingKind::ScopeExceeded, detail, Some(grant.leaf));
    }
    if !covered(&covers_of.resources, request.resource) {
        let detail = "the grant does not cover the resource";
        shown.add(FindingKind::ScopeExceeded, detail, Some(grant.leaf));
    }
}

fn in_force(shown: &mut Shown, trust: &TrustState, grant: &cells::Grant, at: Micros) {
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
    if let Some(revoked) = giver_is_revoked(trust, grant) {
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
