//! `Actions.AwaitClearance`: the state of an Intent, until evidence can no longer change it.

use std::sync::Arc;

use deed_evidence::{RULES_ASSESSED, TaskId, assess::layers};
use deed_proto::v1::{self, IntentState};
use futures::{StreamExt as _, stream};
use tonic::Response;

use super::{
    Answers, Context,
    answer::{Reading, respond},
    stopping,
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
    let room = reading.room();
    let mut watching = Watching {
        heads: ledger.watch(),
        reading,
        leaf,
        said: None,
    };
    let share = watching.reading.take_room(PROOF_ROOM).await?;
    let first = watching
        .look()
        .await?
        .ok_or_else(|| ApiError::NotFound(format!("there is no Intent at leaf {leaf}")))?;
    watching.reading.made(share, &first);
    watching.said = Some(first.clone());
    let going = (!is_final(&first)).then_some(watching);
    let rest = stream::unfold(going, |watching| async {
        let mut watching = watching?;
        match watching.next().await {
            Ok(answer) => {
                let going = (!is_final(&answer)).then_some(watching);
                Some((Ok(answer), going))
            }
            Err(refusal) => Some((Err(refusal.into()), None)),
        }
    });
    let answers = stream::once(async { Ok(first) }).chain(rest);
    Ok(respond(&room, answers))
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

fn is_final(answer: &v1::ClearanceResponse) -> bool {
    answer.state() != IntentState::Waiting
}

struct Watching {
    reading: Reading,
    heads: Heads,
    leaf: u64,
    said: Option<v1::ClearanceResponse>,
}

impl Watching {
    async fn next(&mut self) -> Result<v1::ClearanceResponse, ApiError> {
        loop {
            tokio::select! {
                biased;
                () = self.reading.context.stopped() => return Err(stopping()),
                changed = self.heads.changed() => changed.map_err(|_| stopping())?,
            }
            let share = self.reading.take_room(PROOF_ROOM).await?;
            self.reading.require()?;
            let Some(answer) = self.look().await? else {
                continue;
            };
            let moved = self.said.as_ref().is_none_or(|said| {
                (said.state, &said.missing, &said.denied)
                    != (answer.state, &answer.missing, &answer.denied)
            });
            if moved {
                self.reading.made(share, &answer);
                self.said = Some(answer.clone());
                return Ok(answer);
            }
        }
    }

    async fn look(&mut self) -> Result<Option<v1::ClearanceResponse>, ApiError> {
        self.heads.mark_unchanged();
        let (number, leaf) = (self.reading.ledger.number, self.leaf);
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
        let (found, cut) = self
            .reading
            .context
            .read_settled(&self.reading.caller, &self.reading.ledger, read)
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
