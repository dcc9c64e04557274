//! Grant.

use bytes::Bytes;
use deed_proto::v1::{FindingKind, GrantState, LayerState, TaskState};
use deed_tlog::Hash;

use super::{Apply, Author};
use crate::{
    Micros, TaskId,
    assess::{
        CHAIN_MAX, SHARED_MAX, View,
        body::Grant,
        cells::{self, CellKey, GrantList, GrantName, Scope, name_of},
        grant::{Objection, covers, is_subject},
        table::{self, Event, Machine, State},
    },
};

impl<V: View> Apply<'_, V> {
    /// Adds a grant, or one that is none because its author may not give it.
    pub(super) fn grant(
        &mut self,
        task: TaskId,
        leaf_hash: &Hash,
        body: &Grant,
    ) -> Result<(), V::Error> {
        let name = CellKey::Grant(*leaf_hash);
        let mut grant = new_grant(self.leaf, self.at, self.author, task, body);
        let scope = Scope {
            actions: body.actions.clone(),
            resources: body.resources.clone(),
            gateways: body.gateways.clone(),
        };
        let mut against = self.task_takes_grants(task)?;
        let mut left_out = None;
        let author = self.author;
        let event = match &body.parent {
            None => {
                let may = self.author.is_authority() || !self.author.is_signed();
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
                    .look::<Box<cells::Grant>>(CellKey::Grant(name))?
                    .cloned();
                match found {
                    Some(parent) if parent.task == grant.task => {
                        grant.parent_leaf = Some(parent.leaf);
                        grant.depth = parent.depth + 1;
                        let signed =
                            !self.author.is_claim() && parent.rooted() == LayerState::Proven;
                        grant.set_rooted(if signed {
                            LayerState::Proven
                        } else {
                            LayerState::Claimed
                        });
                        let covers = self.cells.look::<Box<Scope>>(CellKey::Scope(name))?;
                        let none = Scope::default();
                        let scopes = (covers.map_or(&none, |covers| &**covers), &scope);
                        match escalates(&parent, &grant, scopes, author) {
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
        if let (Some((kind, value)), None) = (&body.outside_token, &against) {
            let token = CellKey::Token(name_of(kind, value));
            let names: &mut GrantList = self.cells.change_or_default(token)?;
            let rank = match grant.rooted() {
                _ if self.author.is_authority() => 2,
                LayerState::Proven => 1,
                _ => 0,
            };
            left_out = names.add(GrantName {
                hash: Bytes::copy_from_slice(leaf_hash.as_bytes()),
                rank,
                leaf: self.leaf,
                task: grant.task.clone(),
            });
        }
        self.cells.put(name, Box::new(grant));
        self.cells.put(CellKey::Scope(*leaf_hash), Box::new(scope));
        if let Some((kind, detail, contradicts)) = against {
            self.find(kind).contradicts(contradicts).says(detail)?;
        }
        // What nobody proves makes room without a word.
        match left_out.filter(|left_out| left_out.rank > 0) {
            Some(left_out) => self.token_left_out(&left_out),
            None => Ok(()),
        }
    }

    /// Finds a grant for which there is no room any more under its outside token.
    fn token_left_out(&mut self, left_out: &GrantName) -> Result<(), V::Error> {
        let (leaf, task) = (left_out.leaf, TaskId::from_slice(&left_out.task));
        let detail = format!(
            "more than {SHARED_MAX} grants stand for one outside token; the use of it after the end of \
             its task is not found for this one"
        );
        self.find(FindingKind::NotCompared)
            .in_task(task)
            .about(leaf)
            .says(detail)
    }

    fn task_takes_grants(&mut self, task: TaskId) -> Result<Option<Objection>, V::Error> {
        let task = self.cells.task(task)?;
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

fn new_grant(
    leaf: u64,
    at: Micros,
    author: Author<'_>,
    task: TaskId,
    body: &Grant,
) -> cells::Grant {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let rooted = if author.is_authority() {
        LayerState::Proven
    } else {
        LayerState::Claimed
    };
    cells::Grant {
        leaf,
        task: bytes(task.as_bytes()),
        subject: body.subject.clone(),
        subject_key: body
            .subject_key
            .map_or_else(Bytes::new, |key| bytes(key.as_bytes())),
        not_before_us: body.not_before.get(),
        expires_us: body.expires.get(),
        uses: body.uses,
        minor_units: body.amount.as_ref().map(|amount| amount.minor_units),
        currency: body
            .amount
            .as_ref()
            .map_or_else(String::new, |a| a.currency.clone()),
        parent: body
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
        issuer_key: match author.key {
            Some(key) if !author.is_authority() => bytes(key.as_bytes()),
            _ => Bytes::new(),
        },
        at_us: at.get(),
        accepted_key: Bytes::new(),
        accepted_at_us: 0,
    }
}

/// Says how a grant goes beyond its parent; `None` if it does not.
fn escalates(
    parent: &cells::Grant,
    grant: &cells::Grant,
    (above, below): (&Scope, &Scope),
    author: Author<'_>,
) -> Option<&'static str> {
    let within = |most: u64, wanted: u64| most == 0 || (wanted != 0 && wanted <= most);
    let amount_within = match (parent.minor_units, grant.minor_units) {
        (None, _) => true,
        (Some(most), Some(wanted)) => parent.currency == grant.currency && wanted <= most,
        (Some(_), None) => false,
    };
    if !author.is_authority() && !is_subject(parent, author.producer, author.key) {
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

fn all_covered(patterns: &[String], names: &[String]) -> bool {
    let covered = |name: &String| patterns.iter().any(|pattern| covers(pattern, name));
    names.iter().all(covered)
}
