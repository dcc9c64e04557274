//! The way of an append request: it is checked, admitted, handed to its shard, and answered.

mod admitting;
mod answer;
mod contents;
mod cost;
mod error;
mod reasons;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deed_evidence::{Micros, RULES_ASSESSED, TaskId};
use deed_proto::v1;
use deed_tlog::TreeSize;

use self::{cost::Cost, error::blocking};
use crate::{
    admission::{AdmittedBatch, ENVELOPES_MAX, REQUEST_PAYLOAD_BYTES_MAX, Rejected, Sender},
    clock::keeper::{BEHIND_MAX_US, Timekeeper},
    content::ContentStore,
    ledger::{Ledger, PublishedTree, registry::LedgerRegistry, step::Confirmed},
    metrics::{Metrics, Stage},
    pressure::{AppendPermit, Overloaded, Pressure, Source, SourceKey, quota::OverQuota},
    shard::{Answer, NoAnswer, Reservation, Shards},
};
pub use answer::{Answered, InFlight, consistency, hashes};
pub use error::AppendError;

/// Takes append requests.
pub struct AppendService {
    pub registry: Arc<LedgerRegistry>,
    pub shards: Arc<Shards>,
    pub contents: Arc<ContentStore>,
    pub clock: Arc<Timekeeper>,
    pub pressure: Arc<Pressure>,
    pub queue_wait: Duration,
    pub metrics: Arc<Metrics>,
}

/// The treatment of a request whose principal has used up its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaPolicy {
    /// The request is refused.
    Refuse,
    /// The request is held back, and with it those behind it. It is refused if it would have to
    /// wait for longer than [`AppendService::queue_wait`].
    HoldBack,
}

/// A request that is within the limits; [`AppendService::check`] makes it.
pub struct CheckedRequest(v1::AppendRequest);

impl CheckedRequest {
    /// Returns the name of the request's ledger.
    pub fn ledger(&self) -> &str {
        &self.0.ledger
    }
}

/// A request whose envelopes are admitted, with its permits of the budgets.
struct AdmittedRequest<'s> {
    ledger: Arc<Ledger>,
    envelopes: usize,
    with_proofs: bool,
    consistency_from: Option<TreeSize>,
    received: Instant,
    batch: AdmittedBatch,
    rejected: Vec<Rejected>,
    room: AppendPermit,
    place: Reservation<'s>,
    answer_bytes: usize,
}

impl AdmittedRequest<'_> {
    /// Hands the admitted statements to their shard.
    fn queue(self, metrics: &Arc<Metrics>) -> InFlight {
        let (ledger, batch) = (&self.ledger, self.batch);
        let pending = (!batch.pieces().is_empty())
            .then(|| self.place.append(Arc::clone(ledger), batch, self.received));
        InFlight {
            ledger: self.ledger,
            envelopes: self.envelopes,
            with_proofs: self.with_proofs,
            consistency_from: self.consistency_from,
            rejected: self.rejected,
            pending,
            room: self.room,
            answer_bytes: self.answer_bytes,
            metrics: Arc::clone(metrics),
        }
    }
}

impl AppendService {
    /// Admits a request and queues the admitted statements. Returns before they are recorded, so
    /// that the next request of a stream can be taken.
    ///
    /// `since` is [`Shards::superseded`] when the caller began to send in this order. If a turn was
    /// superseded since, a request before this one may be void, and this one must not be recorded without
    /// it: its session would go on behind a gap.
    pub async fn begin(
        &self,
        ledger: Arc<Ledger>,
        request: CheckedRequest,
        sender: &Sender,
        source: &Source,
        on_quota: QuotaPolicy,
        since: u64,
    ) -> Result<InFlight, AppendError> {
        self.registry.store().disk().room_for_log()?;
        let admitted = self
            .take_in(ledger, request, sender, source, on_quota, since)
            .await?;
        Ok(admitted.queue(&self.metrics))
    }

    /// Checks that a request is within the limits, and that statements can be recorded at all.
    ///
    /// # Errors
    /// [`AppendError::Field`] names the field that is beyond a limit. [`AppendError::Stopped`] if a
    /// shard has failed: nothing is recorded any more then.
    pub fn check(&self, request: v1::AppendRequest) -> Result<CheckedRequest, AppendError> {
        check_request(&request)?;
        if self.shards.has_failed() {
            return Err(NoAnswer::Stopped.into());
        }
        Ok(CheckedRequest(request))
    }

    /// Waits for a request's permits, admits its envelopes, and stores the contents that came
    /// along.
    async fn take_in(
        &self,
        ledger: Arc<Ledger>,
        CheckedRequest(request): CheckedRequest,
        sender: &Sender,
        source: &Source,
        on_quota: QuotaPolicy,
        since: u64,
    ) -> Result<AdmittedRequest<'_>, AppendError> {
        let cost = Cost::of(&request);
        self.note_confirmed(&ledger).await?;
        let count = request.envelopes.len();
        let (room, place) = self.enter(source, &ledger, count, cost, on_quota).await?;
        if place.superseded != since {
            return Err(AppendError::Superseded);
        }
        let envelopes = request.envelopes;
        let admitted = self.admit(envelopes, &ledger, sender, source, cost).await?;
        let (received, mut batch, rejected, contents) = admitted;
        if !contents.is_empty() {
            self.hold_contents(&ledger, source, contents, &mut batch)
                .await?;
        }
        Ok(AdmittedRequest {
            ledger,
            envelopes: count,
            with_proofs: request.with_proofs,
            consistency_from: request.consistency_from.map(TreeSize::new),
            received,
            batch,
            rejected,
            room,
            place,
            answer_bytes: cost.answer_bytes,
        })
    }

    /// Makes the ledger write a receipt of `task`. The ledger is the author of the entry, but the
    /// caller asked for it: the caller is charged for the entry, and holds its bytes, as if it had
    /// sent it.
    pub async fn task_receipt(
        &self,
        ledger: &Arc<Ledger>,
        task: TaskId,
        source: &Source,
    ) -> Result<(Answer, AppendPermit), AppendError> {
        let cost = Cost::TASK_RECEIPT;
        self.registry.store().disk().room_for_log()?;
        self.note_confirmed(ledger).await?;
        let (mut room, place) = self
            .enter(source, ledger, 1, cost, QuotaPolicy::Refuse)
            .await?;
        let now = self.now_for(ledger)?;
        let answer = place
            .receipt(Arc::clone(ledger), task, now)
            .answer()
            .await?;
        room.answered(cost.answer_bytes);
        Ok((answer, room))
    }

    /// Charges a request to its principal's quota, and then waits for its permits.
    async fn enter(
        &self,
        source: &Source,
        ledger: &Ledger,
        statements: usize,
        cost: Cost,
        on_quota: QuotaPolicy,
    ) -> Result<(AppendPermit, Reservation<'_>), AppendError> {
        self.charge(source, statements, cost, on_quota).await?;
        let waiting = Instant::now();
        let reservation = self
            .shards
            .reserve(ledger, source.key(), cost.request_bytes);
        let room = self
            .pressure
            .room(source, ledger.number, cost.request_bytes, reservation);
        match tokio::time::timeout(self.queue_wait, room).await {
            Ok(Ok(held)) => {
                self.metrics.stage(Stage::Room, waiting.elapsed());
                Ok(held)
            }
            Err(_) | Ok(Err(Overloaded)) => {
                self.metrics.overloaded();
                let quotas = &self.pressure.quotas;
                quotas.give_back(source.principal.as_ref(), statements, cost.message_bytes);
                Err(AppendError::Overloaded)
            }
        }
    }

    /// Returns the time at which something that comes now is recorded in a ledger. If the ledger's
    /// own time is ahead of a clock that an operator has confirmed, this is the ledger's own time.
    fn now_for(&self, ledger: &Ledger) -> Result<Micros, AppendError> {
        let now = self.now()?;
        let readable = ledger.readable();
        if self.is_behind(ledger, &readable, now) {
            self.clock.refused(true);
            let behind = readable.effective_time.get().saturating_sub(now.get());
            return Err(AppendError::Unavailable(format!(
                "the server's clock is {behind} us behind the ledger's newest entry; nothing is recorded \
                 in it until the clock has come to that or an operator confirms it (deed-server clock \
                 confirm); try again later"
            )));
        }
        // A clock that is behind by less than the bound counts as it is. So does one that was
        // confirmed for a ledger of rules version 1, which has no entry that says so.
        let stands_still = readable.stands_still(now);
        Ok(if stands_still {
            now.max(readable.effective_time)
        } else {
            now
        })
    }

    /// Returns the time of the machine's clock, if the clock can be trusted.
    fn now(&self) -> Result<Micros, AppendError> {
        self.clock.read().map_err(|fault| {
            self.clock.refused(fault.is_behind());
            AppendError::Unavailable(fault.to_string())
        })
    }

    /// Makes a ledger record that an operator has confirmed the clock, if all entries are older
    /// than the confirmed time. Call it before anything else is recorded in the ledger.
    pub async fn note_confirmed(&self, ledger: &Arc<Ledger>) -> Result<(), AppendError> {
        let readable = ledger.readable();
        let newest = readable.effective_time;
        let said = readable
            .clock
            .is_some_and(|known| known.at_us == newest.get());
        // A confirmed time that is ahead of the clock by now was wrong: no more ledgers follow it.
        let is_void = |clock: Micros| {
            let now = self.now();
            now.is_ok_and(|now| clock.get() > now.get().saturating_add(BEHIND_MAX_US))
        };
        let clock = match self.clock.confirmed() {
            Some(clock) if newest < clock && !is_void(clock) => Some(clock),
            // The confirmation was kept outside of the ledger, whose rules had no entry for it. If
            // newer rules are in force by now, it is recorded.
            _ if !said => self.clock.ahead.confirmed(ledger.number, newest),
            _ => None,
        };
        match clock {
            Some(clock) => self.note_clock(ledger, clock).await,
            None => Ok(()),
        }
    }

    /// Makes a ledger record that an operator has confirmed the clock, if that is news there.
    pub async fn note_clock(&self, ledger: &Arc<Ledger>, clock: Micros) -> Result<(), AppendError> {
        let assesses = ledger.trust.read().rules_version() >= RULES_ASSESSED;
        if !assesses {
            return self.note_beside(ledger, clock).await;
        }
        let now = self.now()?;
        let reservation = self.shards.reserve(ledger, SourceKey::Server, 0).await;
        let confirmed = Confirmed { clock, now };
        reservation
            .clock(Arc::clone(ledger), confirmed)
            .answer()
            .await?;
        Ok(())
    }

    /// Notes outside of a ledger that an operator has confirmed the clock, if the ledger's time is
    /// ahead. This is for ledgers whose rules have no entry for it.
    async fn note_beside(&self, ledger: &Arc<Ledger>, clock: Micros) -> Result<(), AppendError> {
        let newest = ledger.readable().effective_time;
        let ahead = newest.get().saturating_sub(clock.get());
        let known = self.clock.ahead.confirmed(ledger.number, newest);
        if ahead <= BEHIND_MAX_US || known == Some(clock) {
            return Ok(());
        }
        let (keeper, number) = (Arc::clone(&self.clock), ledger.number);
        blocking(move || {
            keeper.ahead.note(number, newest, clock).map_err(|error| {
                let what = format!("the confirmed clock cannot be noted: {error}; try again later");
                AppendError::Unavailable(what)
            })
        })
        .await?;
        tracing::warn!(
            ledger = ledger.name(),
            ahead_us = ahead,
            "the ledger's time is ahead of the confirmed clock, and by rules version 1 it cannot say so in an \
             entry: what is recorded now bears the clock's time, which is before that of what is there"
        );
        Ok(())
    }

    /// Returns true if the clock is behind a ledger's time, and no operator has confirmed it.
    fn is_behind(&self, ledger: &Ledger, readable: &PublishedTree, now: Micros) -> bool {
        let newest = readable.effective_time;
        readable.is_ahead_of(now) && !self.clock.ahead.goes_on(ledger.number, newest, now)
    }

    /// Returns the ledgers in memory in which nothing is recorded, because the clock is behind
    /// their time.
    pub fn ahead(&self, now: Micros) -> Vec<Arc<Ledger>> {
        let mut ledgers = self.registry.all_loaded();
        ledgers.retain(|ledger| self.is_behind(ledger, &ledger.readable(), now));
        ledgers
    }

    /// Returns the number of ledgers in memory whose time is ahead of the clock, and that go on
    /// because an operator has confirmed the clock.
    pub fn standing_still(&self, now: Micros) -> usize {
        let ledgers = self.registry.all_loaded();
        let standing = ledgers.iter().filter(|ledger| {
            let readable = ledger.readable();
            let ahead = readable.effective_time.get().saturating_sub(now.get());
            ahead > BEHIND_MAX_US && !self.is_behind(ledger, &readable, now)
        });
        standing.count()
    }

    /// Charges a request to its principal's quota.
    async fn charge(
        &self,
        source: &Source,
        statements: usize,
        cost: Cost,
        on_quota: QuotaPolicy,
    ) -> Result<(), OverQuota> {
        let quotas = &self.pressure.quotas;
        let principal = source.principal.as_ref();
        let bytes = cost.message_bytes;
        match on_quota {
            QuotaPolicy::Refuse => quotas.take(principal, statements, bytes),
            QuotaPolicy::HoldBack => {
                let wait_max = self.queue_wait;
                quotas
                    .take_waiting(principal, statements, bytes, wait_max)
                    .await
            }
        }
    }
}

/// Checks that a request is within the limits.
fn check_request(request: &v1::AppendRequest) -> Result<(), AppendError> {
    let count = request.envelopes.len();
    if !(1..=ENVELOPES_MAX).contains(&count) {
        let what = format!("{count} given where 1 to {ENVELOPES_MAX} are allowed");
        return Err(AppendError::field("envelopes", what));
    }
    let bytes: usize = request
        .envelopes
        .iter()
        .map(|envelope| {
            let attached = envelope.attachments.iter();
            envelope.payload.len() + attached.map(|one| one.content.len()).sum::<usize>()
        })
        .sum();
    if bytes > REQUEST_PAYLOAD_BYTES_MAX {
        let what = format!(
            "{bytes} bytes of payloads and attachments where {REQUEST_PAYLOAD_BYTES_MAX} are allowed; send fewer \
             in a request"
        );
        return Err(AppendError::field("envelopes", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{
        shard::Disk,
        testing::{Engine, Producer, briefs},
    };

    #[test]
    fn a_clock_that_went_back_stops_admission_beyond_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        engine.clock.set(100_000_000);
        let ledger = engine.create("clock").unwrap();
        let mut producer = Producer::new(ledger.id, 1);
        let effective = |engine: &Engine| {
            engine
                .registry
                .ledger("clock")
                .unwrap()
                .readable()
                .effective_time
                .get()
        };

        engine.clock.set(100_000_000 - BEHIND_MAX_US);
        let answer = engine
            .append("clock", vec![producer.intent("just")])
            .unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
        // Effective time never goes back.
        assert_eq!(effective(&engine), 100_000_000);

        engine.clock.set(100_000_000 - BEHIND_MAX_US - 1);
        let refused = engine.append("clock", vec![producer.clone().intent("too far")]);
        assert!(
            matches!(refused, Err(AppendError::Unavailable(_))),
            "{refused:?}"
        );

        engine.clock.set(100_000_001);
        let answer = engine
            .append("clock", vec![producer.intent("again")])
            .unwrap();
        assert_eq!(briefs(&answer), ["accepted 2"]);
        assert_eq!(effective(&engine), 100_000_001);
        engine.close();
    }

    #[test]
    fn a_disk_that_is_nearly_full_stops_appends_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let ledger = engine.create("full").unwrap();
        let mut producer = Producer::new(ledger.id, 1);
        let disk = engine.store.disk();
        disk.pretend(511 << 20);
        let statement = producer.intent("first");
        let refused = engine.append("full", vec![statement.clone()]);
        assert!(
            matches!(refused, Err(AppendError::NoSpace(_))),
            "{refused:?}"
        );
        assert!(!engine.appends.shards.has_failed());
        // The same bytes are accepted as soon as there is space.
        disk.pretend(512 << 20);
        let answer = engine.append("full", vec![statement]).unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
        engine.close();
    }

    #[test]
    fn a_full_queue_answers_with_a_time_to_come_back_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (open_gate, gate) = mpsc::channel::<()>();
        let mut engine = Engine::open_on(dir.path(), |mut disk: Disk| Disk {
            commit: Box::new(move |batch| {
                // Each commit needs one token; when the sender is gone, all may pass.
                let _ = gate.recv();
                (disk.commit)(batch)
            }),
            guard: disk.guard,
        });
        open_gate.send(()).unwrap();
        open_gate.send(()).unwrap();
        let ledger = engine.create("full").unwrap();
        let other = engine.create("other").unwrap();
        engine.appends.queue_wait = Duration::from_millis(20);

        // Each request takes as much of the shard's budget as one ledger may hold: two of them
        // wait, and there is no room for a third.
        let big = "r".repeat(1000);
        let request = |ledger: &Ledger, session| -> Vec<_> {
            let mut producer = Producer::new(ledger.id, session);
            (0..400).map(|_| producer.intent(&big)).collect()
        };
        let (first, third) = (request(&ledger, 1), request(&ledger, 3));
        let second = request(&other, 2);
        let engine = &engine;
        std::thread::scope(|scope| {
            let held = || engine.appends.shards.waiting_bytes(&ledger);
            let mut waiting = Vec::new();
            for (id, name, envelopes) in [(1, "full", first), (2, "other", second)] {
                let before = held();
                let source = Source {
                    id,
                    ..engine.appends.pressure.unknown()
                };
                waiting.push(scope.spawn(move || engine.append_from(&source, name, envelopes)));
                // The requests come in order: the next one only when this one holds its permit.
                while held() == before {
                    std::thread::yield_now();
                }
            }
            // This is everything but the reserve for ledgers that hold nothing.
            assert_eq!(held(), 7 << 17);
            let refused = engine.append("full", third.clone());
            assert!(
                matches!(refused, Err(AppendError::Overloaded)),
                "{refused:?}"
            );

            drop(open_gate);
            for thread in waiting {
                let answer = thread.join().unwrap().unwrap();
                assert!(
                    briefs(&answer)
                        .iter()
                        .all(|brief| brief.starts_with("accepted"))
                );
            }
        });
        // An answer is sent only after everything that its request held has been given back.
        assert_eq!(engine.appends.shards.waiting_bytes(&ledger), 0);
        assert_eq!(engine.appends.pressure.held_bytes(), 0);
        let answer = engine.append("full", third).unwrap();
        assert_eq!(briefs(&answer).last().unwrap(), "accepted 800");
    }
}
