//! Admission of a request's envelopes. Long requests are checked on threads that may block, and a
//! caller who sends many of them delays only its own.

use std::{sync::Arc, time::Instant};

use deed_proto::v1;

use super::{
    AppendService,
    cost::Cost,
    error::{AppendError, blocking},
};
use crate::{
    admission::{Admission, AdmittedBatch, Contents, Rejected, Sender, is_trust_shaped},
    ledger::{Ledger, policies::Busy},
    metrics::Stage,
    pressure::Source,
};

/// Bounds on envelopes, bytes and trust statements of a short request, which is checked by the
/// thread that serves its connection: that takes well under a millisecond.
const SHORT_ENVELOPES: usize = 32;
const SHORT_BYTES: usize = 64 << 10;
const SHORT_TRUST_STATEMENTS: usize = 2;

fn is_short(envelopes: &[v1::Envelope]) -> bool {
    let bytes = |one: &v1::Envelope| {
        let attached = one.attachments.iter().map(|one| one.content.len());
        one.payload.len() + attached.sum::<usize>()
    };
    let is_trust = |one: &&v1::Envelope| is_trust_shaped(&one.payload);
    envelopes.len() <= SHORT_ENVELOPES
        && envelopes.iter().map(bytes).sum::<usize>() <= SHORT_BYTES
        && envelopes.iter().filter(is_trust).count() <= SHORT_TRUST_STATEMENTS
}

impl AppendService {
    /// Admits a request's envelopes, and returns the time of receipt with the result.
    pub(super) async fn admit(
        &self,
        envelopes: Vec<v1::Envelope>,
        ledger: &Arc<Ledger>,
        sender: &Sender,
        source: &Source,
        cost: Cost,
    ) -> Result<(Instant, AdmittedBatch, Vec<Rejected>, Contents), AppendError> {
        let (caller, count) = (source.key(), envelopes.len());
        let too_much_waits = || {
            self.metrics.overloaded();
            let quotas = &self.pressure.quotas;
            quotas.give_back(source.principal.as_ref(), count, cost.message_bytes);
            AppendError::Overloaded
        };
        let mut place = None;
        if !is_short(&envelopes) {
            let waiting = self.pressure.admissions.take(&caller, 1);
            let waiting = tokio::time::timeout(self.queue_wait, waiting).await;
            place = Some(waiting.map_err(|_| too_much_waits())?);
        }
        // The clock is read after the wait, so that the receive time is no older than it has to be.
        let received_at = self.now_for(ledger)?;
        let received = Instant::now();
        let holds_contents = self.contents.may_hold(ledger.number);
        let look_through = {
            let (ledger, sender) = (Arc::clone(ledger), sender.clone());
            move || {
                let admission = Admission {
                    ledger_id: ledger.id,
                    trust: &ledger.trust,
                    sender: &sender,
                    received_at,
                    holds_contents,
                    log_signers: Some(&ledger.log_signers),
                };
                admission.admit(&envelopes)
            }
        };
        let admitting = match place {
            None => look_through(),
            Some(place) => {
                blocking(move || {
                    let _place = place;
                    Ok(look_through())
                })
                .await?
            }
        };
        let verifications = &self.pressure.verifications;
        let mut admitting = admitting.verify(verifications, &caller).await;
        let sets = admitting.policies(&ledger.trust);
        if !sets.is_empty() {
            let policies = self.registry.policies();
            let checked = policies.check(ledger.number, &caller, sets, self.queue_wait);
            let refused = checked.await.map_err(|Busy| too_much_waits())?;
            for (envelope, why) in &refused {
                admitting.refuse_policy(*envelope, why);
            }
        }
        let (batch, rejected, contents) = admitting.finish();
        self.metrics.stage(Stage::Admission, received.elapsed());
        Ok((received, batch, rejected, contents))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use deed_proto::v1::statement::Body;
    use deed_tlog::SigningKey;

    use super::*;
    use crate::{
        append::QuotaPolicy,
        pressure::{Budget, BudgetPermit},
        testing::{AGENT, Authority, Engine, Producer, block_on, briefs, registration, signed},
    };

    fn connection(engine: &Engine, id: u64) -> Source {
        let unknown = engine.appends.pressure.unknown();
        Source { id, ..unknown }
    }

    /// Takes all permits that one source may hold at once.
    fn all_of(budget: &Budget, source: &Source) -> Vec<BudgetPermit> {
        let share = || budget.try_take(&source.key(), 1);
        std::iter::from_fn(share).collect()
    }

    #[test]
    fn long_requests_take_turns_and_short_ones_wait_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Engine::open(dir.path());
        engine.appends.queue_wait = Duration::from_millis(100);
        let ledger = engine.create("long").unwrap();
        let (one, other) = (connection(&engine, 1), connection(&engine, 2));
        let held = all_of(&engine.appends.pressure.admissions, &one);
        let mut producer = Producer::new(ledger.id, 1);
        let long = (0..=SHORT_ENVELOPES).map(|_| producer.intent("one of many"));
        let long: Vec<_> = long.collect();
        let refused = engine.append_from(&one, "long", long.clone());
        assert!(matches!(refused, Err(AppendError::Overloaded)));
        let short = vec![Producer::new(ledger.id, 2).intent("a single one")];
        let answer = engine.append_from(&one, "long", short).unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
        // Other callers do not wait for this one.
        let answer = engine.append_from(&other, "long", long.clone()).unwrap();
        assert_eq!(briefs(&answer)[..2], ["accepted 2", "accepted 3"]);
        drop(held);
        let answer = engine.append_from(&one, "long", long).unwrap();
        assert_eq!(briefs(&answer)[..2], ["duplicate 2", "duplicate 3"]);
        drop(ledger);
        engine.close();
    }

    #[test]
    fn what_authorities_say_is_long_after_a_few_statements() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let ledger = engine.create("trust").unwrap();
        let mut authority = Authority::new(ledger.id);
        let mut says = |seed| {
            let key = SigningKey::from_seed(&[seed; 32]);
            authority.says(Body::KeyRegistered(registration(ledger.id, &key, AGENT)))
        };
        let few: Vec<_> = (1..3).map(&mut says).collect();
        let more: Vec<_> = (1..4).map(&mut says).collect();
        assert!(is_short(&few) && !is_short(&more));
        drop(ledger);
        engine.close();
    }

    #[test]
    fn signatures_are_verified_in_turns() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let ledger = engine.create("signed").unwrap();
        let key = SigningKey::from_seed(&[3; 32]);
        let known = registration(ledger.id, &key, AGENT);
        let known = Authority::new(ledger.id).says(Body::KeyRegistered(known));
        let answer = engine.append("signed", vec![known]).unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
        let mut producer = Producer::new(ledger.id, 1);
        let request = v1::AppendRequest {
            ledger: "signed".to_owned(),
            envelopes: (0..8).map(|_| signed(producer.intent("a"), &key)).collect(),
            ..v1::AppendRequest::default()
        };
        let (one, other) = (connection(&engine, 1), connection(&engine, 2));
        let appends = &engine.appends;
        let request = appends.check(request).unwrap();
        let held = all_of(&appends.pressure.verifications, &one);
        let answer = block_on(async {
            let sender = Sender::anybody();
            let begun = appends.begin(
                Arc::clone(&ledger),
                request,
                &sender,
                &other,
                QuotaPolicy::Refuse,
                appends.shards.superseded(),
            );
            tokio::pin!(begun);
            let waits = tokio::time::timeout(Duration::from_millis(100), &mut begun).await;
            assert!(waits.is_err());
            drop(held);
            begun.await?.finish().await
        });
        let answer = answer.map(super::super::Answered::into_response).unwrap();
        assert_eq!(briefs(&answer)[0], "accepted 2");
        drop(ledger);
        engine.close();
    }
}
