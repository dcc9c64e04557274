//! The plan of a run: its statements in order, and which result answers which call.

use std::collections::{BTreeSet, VecDeque};

use deed_evidence::{Micros, PayloadDigest, Sequence};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::Hash;

use super::{
    confirmation::is_yes,
    making::FROM_KEY,
    message::{Act, Message, Role, ToolCall, ToolResult},
    tools::changes_something,
    transcript::Transcript,
};

/// The tool whose call hands the task to a person.
const HAND_OVER_TOOL: &str = "transfer_to_human_agents";
/// Most actions in a grant.
const GRANT_ACTIONS_MAX: usize = 64;
/// A grant is not used any more this long before it ends.
const GRANT_MARGIN_US: i64 = 60 * 60 * 1_000_000;

/// The part of a run that earlier imports recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Earlier {
    /// The sequence that the run's session takes next.
    pub next: Sequence,
    /// The run's grants, in the order of the log.
    pub grants: Vec<Given>,
    /// The last statement of the session in which this import's grantor speaks, if there is one.
    pub granted: Option<(Sequence, PayloadDigest)>,
    /// The time of the query: a grant that has ended by then permits no new act.
    pub at: Micros,
}

/// A grant that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Hash of its entry.
    pub leaf_hash: Hash,
    /// The permitted actions.
    pub actions: Vec<String>,
    /// Intents from this sequence on name the grant.
    pub from: Sequence,
    /// The end of the grant.
    pub expires: Micros,
}

/// A result that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The position of the result, for example `messages[4]`.
    pub place: String,
    /// The reason.
    pub reason: &'static str,
}

pub(super) struct Plan<'a> {
    /// Steps of the run, in order.
    pub(super) steps: VecDeque<Step<'a>>,
    pub(super) left_out: Vec<LeftOut>,
    /// Calls without a result.
    pub(super) unanswered: u64,
}

pub(super) enum Step<'a> {
    /// Opens the task, with the message that states its objective.
    Open(Option<&'a Message>),
    /// Grants the actions; needs the place of the statement before it.
    Grant(Vec<String>),
    /// Announces the call of this number.
    Intent(usize, &'a ToolCall),
    /// Approves the Intent before it, whose place it needs, with the message that the customer said yes to.
    Approval(&'a Message),
    /// Reports the result of the call of this number.
    Outcome(usize, &'a ToolCall, &'a ToolResult),
    /// Gives no statement; the message is part of the prompt of later calls.
    Said(&'a Message),
    Close(v1::TaskEnd),
}

/// A call that waits for its result.
struct Waiting<'a> {
    number: usize,
    call: &'a ToolCall,
    turn: usize,
}

struct Planner<'a, 'e> {
    plan: Plan<'a>,
    earlier: &'e Earlier,
    sequence: u64,
    opened: bool,
    calls: usize,
    /// Calls that follow each other with nothing between them are of one turn.
    turn: usize,
    turn_is_over: bool,
    waiting: Vec<Waiting<'a>>,
    handed_over: bool,
    /// The agent's last text, and the same if the customer's last word was a yes to it.
    shown: Option<&'a Message>,
    agreed: Option<&'a Message>,
    /// Actions that no grant covers yet, in the order of their first use.
    ungranted: Vec<&'a str>,
}

impl Step<'_> {
    pub(super) const fn needs_a_place(&self) -> bool {
        matches!(self, Self::Grant(_) | Self::Approval(_))
    }
}

impl Earlier {
    /// The grant that an Intent at this sequence names: the last that covers it.
    pub(super) fn grant(&self, action: &str, sequence: u64) -> Option<&Given> {
        let mut grants = self.grants.iter().rev();
        grants.find(|grant| {
            grant.from.get() <= sequence && grant.actions.iter().any(|name| name == action)
        })
    }

    fn lets(&self, action: &str, sequence: u64) -> bool {
        let grant = self.grant(action, sequence);
        grant.is_some_and(|grant| lasts(grant.expires, self.at))
    }
}

impl Given {
    /// Reads a grant of an import; `None` if the statement is no grant.
    #[must_use]
    pub fn read(leaf_hash: Hash, statement: &v1::Statement) -> Option<Self> {
        let Some(Body::Grant(grant)) = &statement.body else {
            return None;
        };
        let mut keys = statement.correlation_keys.iter();
        let from = keys.find(|key| key.kind == FROM_KEY);
        let from = from.and_then(|key| key.value.parse().ok()).unwrap_or(1);
        Some(Self {
            leaf_hash,
            actions: grant.actions.clone(),
            from: Sequence::new(from),
            expires: Micros::new(grant.expires_us),
        })
    }
}

/// Returns true if what ends then is still good for an import that begins now.
pub(super) const fn lasts(end: Micros, now: Micros) -> bool {
    end.get() > now.get().saturating_add(GRANT_MARGIN_US)
}

impl<'a> Plan<'a> {
    /// Plans the statements of a run. The plan of the first messages is the start of the plan of all
    /// messages, so a run that has grown continues where it was. (The closing statements are an exception:
    /// they are planned only if `is_over`.)
    pub(super) fn of(transcript: &'a Transcript, earlier: &Earlier, is_over: bool) -> Self {
        let mut planner = Planner {
            plan: Plan {
                steps: VecDeque::new(),
                left_out: Vec::new(),
                unanswered: 0,
            },
            earlier,
            sequence: 0,
            opened: false,
            calls: 0,
            turn: 0,
            turn_is_over: false,
            waiting: Vec::new(),
            handed_over: false,
            shown: None,
            agreed: None,
            ungranted: Vec::new(),
        };
        for message in &transcript.messages {
            planner.message(message);
        }
        planner.end(is_over)
    }
}

impl<'a> Planner<'a, '_> {
    fn message(&mut self, message: &'a Message) {
        let has_results = message.acts.iter().any(|act| matches!(act, Act::Result(_)));
        let has_calls = message.calls().next().is_some();
        match message.role {
            // Results come in a user's message, too, and are nobody's word.
            Role::User if message.text().is_some() || !has_results => {
                self.open(Some(message));
                self.turn_is_over = true;
                self.agreed = self.shown.filter(|_| message.text().is_some_and(is_yes));
            }
            Role::Assistant if !has_calls && !has_results => {
                let said = message.text().filter(|text| !text.is_empty());
                self.shown = said.map(|_| message);
            }
            _ => {}
        }
        for act in &message.acts {
            match act {
                Act::Call(call) => self.call(call),
                Act::Result(result) => self.result(result, &message.place),
            }
        }
        self.plan.steps.push_back(Step::Said(message));
    }

    fn open(&mut self, objective: Option<&'a Message>) {
        if !self.opened {
            self.opened = true;
            self.say(Step::Open(objective));
        }
    }

    fn say(&mut self, step: Step<'a>) -> u64 {
        self.plan.steps.push_back(step);
        self.sequence += 1;
        self.sequence - 1
    }

    fn call(&mut self, call: &'a ToolCall) {
        self.open(None);
        if std::mem::take(&mut self.turn_is_over) {
            self.turn += 1;
        }
        let number = self.calls;
        self.calls += 1;
        let sequence = self.say(Step::Intent(number, call));
        let is_new = sequence >= self.earlier.next.get();
        let name = call.name.as_str();
        if is_new && !self.earlier.lets(name, sequence) && !self.ungranted.contains(&name) {
            self.ungranted.push(name);
        }
        if let Some(shown) = self.agreed
            && changes_something(name)
        {
            self.say(Step::Approval(shown));
        }
        self.handed_over |= name == HAND_OVER_TOOL;
        self.waiting.push(Waiting {
            number,
            call,
            turn: self.turn,
        });
    }

    fn result(&mut self, result: &'a ToolResult, place: &str) {
        self.turn_is_over = !result.answers_last;
        match self.answered(result) {
            Ok(position) => {
                let Waiting { number, call, .. } = self.waiting.remove(position);
                self.say(Step::Outcome(number, call, result));
            }
            Err(reason) => self.plan.left_out.push(LeftOut {
                place: place.to_owned(),
                reason,
            }),
        }
    }

    /// Returns the waiting call that a result answers. By its id, and as ids repeat in real transcripts, the
    /// newest turn's first call that has it. Without one by the order within the newest turn. Never
    /// any other: an outcome that is given to another act is a lie about both.
    fn answered(&self, result: &ToolResult) -> Result<usize, &'static str> {
        if result.answers_last {
            let last = self.waiting.len().checked_sub(1);
            return last.ok_or("is a result and no call is before it");
        }
        let first_of_newest = |fits: &dyn Fn(&Waiting<'_>) -> bool| {
            let newest = self.waiting.iter().rev().find(|one| fits(one))?.turn;
            let fits = |one: &Waiting<'_>| one.turn == newest && fits(one);
            self.waiting.iter().position(fits)
        };
        let is_named = |call: &ToolCall| match &result.name {
            Some(name) => call.name == *name,
            None => true,
        };
        match &result.call_id {
            Some(id) => {
                let by_id = |one: &Waiting<'_>| one.call.id == *id || one.call.item_id == *id;
                let nameless = |one: &Waiting<'_>| {
                    one.turn == self.turn && one.call.id.is_empty() && is_named(one.call)
                };
                first_of_newest(&by_id)
                    .or_else(|| self.waiting.iter().position(nameless))
                    .ok_or("answers a call that was not made before, or has its result already")
            }
            None => {
                let in_order = |one: &Waiting<'_>| one.turn == self.turn && is_named(one.call);
                let found = self.waiting.iter().position(in_order);
                found.ok_or("names no call, and none of the last calls waits for it")
            }
        }
    }

    fn end(mut self, is_over: bool) -> Plan<'a> {
        if is_over {
            self.open(None);
            self.plan.steps.push_back(Step::Close(if self.handed_over {
                v1::TaskEnd::HandedOver
            } else {
                v1::TaskEnd::Completed
            }));
        }
        self.plan.unanswered = self.waiting.len() as u64;
        let is_open = |step: &Step<'_>| matches!(step, Step::Open(_));
        let opened = self
            .plan
            .steps
            .iter()
            .position(is_open)
            .map_or(0, |at| at + 1);
        for actions in self.ungranted.chunks(GRANT_ACTIONS_MAX).rev() {
            let actions: BTreeSet<&str> = actions.iter().copied().collect();
            let actions = actions.into_iter().map(str::to_owned).collect();
            self.plan.steps.insert(opened, Step::Grant(actions));
        }
        self.plan
    }
}
