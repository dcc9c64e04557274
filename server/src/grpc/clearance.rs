//! `Actions.AwaitClearance`: the state of an Intent, until evidence can no longer change it.

use std::sync::Arc;

use deed_evidence::{RULES_ASSESSED, TaskId, assess::layers};
use deed_proto::v1::{self, IntentState};
use tonic::Response;

use super::{
    Answers, Context,
    answer::{Messages, Reading, Step},
};
use deed_engine::{
    ledger::{Ledger, read::Heads},
    pressure::answers::PROOF_ROOM,
    store::Store,
};

use crate::{
    access::{Caller, table::Method},
    status::ApiError,
};

/// Follows the Intent at `leaf`. The first message is made here, so that a missing Intent is an
/// error of the call.
pub(super) async fn watch(
    context: &Context,
    caller: Caller,
    ledger: &Arc<Ledger>,
    leaf: u64,
) -> Result<Response<Answers<v1::ClearanceResponse>>, ApiError> {
    assessed(ledger)?;
    let reading = context.open_reading(caller, Method::AwaitClearance, ledger)?;
    let mut watching = Watching {
        heads: ledger.watch(),
        leaf,
        said: None,
    };
    let share = reading.take_room(PROOF_ROOM).await?;
    let first = watching
        .look(&reading)
        .await?
        .ok_or_else(|| ApiError::NotFound(format!("there is no Intent at leaf {leaf}")))?;
    reading.made(share, &first);
    let more = watching.unless_final(&first);
    Ok(reading.stream(Some(first), more))
}

/// Fails unless the ledger's rules include the assessment.
pub(super) fn assessed(ledger: &Ledger) -> Result<(), ApiError> {
    let found = ledger.trust.read().rules_version();
    if found >= RULES_ASSESSED {
        return Ok(());
    }
    Err(ApiError::Precondition {
        reason: "RULES_VERSION",
        message: format!(
            "the ledger follows rules version {found}, under which nothing is assessed; an \
             authority brings it to {RULES_ASSESSED} with `deed policy set`"
        ),
        metadata: [("rules_version".to_owned(), found.to_string())].into(),
    })
}

struct Watching {
    heads: Heads,
    leaf: u64,
    said: Option<v1::ClearanceResponse>,
}

impl Messages for Watching {
    type Message = v1::ClearanceResponse;

    async fn next(mut self, reading: &Reading) -> Step<v1::ClearanceResponse, Self> {
        loop {
            reading.changed(&mut self.heads).await?;
            let share = reading.take_room(PROOF_ROOM).await?;
            reading.require()?;
            let Some(answer) = self.look(reading).await? else {
                continue;
            };
            let moved = self.said.as_ref().is_none_or(|said| {
                (said.state, &said.missing, &said.denied)
                    != (answer.state, &answer.missing, &answer.denied)
            });
            if moved {
                reading.made(share, &answer);
                let more = self.unless_final(&answer);
                return Ok((Some(answer), more));
            }
        }
    }
}

impl Watching {
    /// Goes on behind `answer`, unless evidence can no longer change it.
    fn unless_final(mut self, answer: &v1::ClearanceResponse) -> Option<Self> {
        self.said = Some(answer.clone());
        (answer.state() == IntentState::Waiting).then_some(self)
    }

    async fn look(&mut self, reading: &Reading) -> Result<Option<v1::ClearanceResponse>, ApiError> {
        self.heads.mark_unchanged();
        let (number, leaf) = (reading.ledger.number, self.leaf);
        let read = move |store: &Store| {
            let Some(act) = store.act(number, leaf)? else {
                return Ok(None);
            };
            let task = match TaskId::from_slice(&act.task) {
                Some(task) => store.task(number, task)?,
                None => None,
            };
            Ok(Some((layers::standing(&act, task.as_ref()), act)))
        };
        let (found, cut) = reading
            .context
            .read_settled(&reading.caller, &reading.ledger, read)
            .await?;
        Ok(found.map(|(state, act)| v1::ClearanceResponse {
            state: state.into(),
            missing: act.missing,
            denied: act.denied,
            clearance_leaf: act.clearance_leaf,
            tree_size: cut.size.get(),
            checkpoint: cut.checkpoint.clone(),
        }))
    }
}
