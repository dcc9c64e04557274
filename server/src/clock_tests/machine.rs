//! A machine whose clock the test sets, with a server that it starts and stops.

use std::{path::Path, sync::Arc, time::Duration};

use deed_evidence::{Micros, entry::Entry, replay::Replay};
use deed_proto::v1::{self, statement::Body};
use prost::Message as _;
use tempfile::TempDir;

use super::{DAY_US, NAME};
use deed_engine::{
    append::AppendError,
    clock::{Clock as _, confirmation},
};

use crate::{
    admin::{Admin, NotReady},
    background::ticker,
    testing::{Engine, Producer, TASK, TestClock, block_on, briefs, context, context_that_stays},
};

pub(super) struct Machine {
    pub(super) dir: TempDir,
    pub(super) clock: Arc<TestClock>,
    pub(super) engine: Option<Engine>,
    pub(super) producer: Option<Producer>,
}

impl Machine {
    /// Boots a machine at `now`, with a server that has no ledgers.
    pub(super) fn boots_at(now: i64) -> Self {
        let clock = TestClock::at(now);
        clock.boots("first boot");
        let dir = TempDir::new().unwrap();
        let mut machine = Self {
            dir,
            clock,
            engine: None,
            producer: None,
        };
        machine.start();
        machine
    }

    pub(super) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn start(&mut self) {
        let engine = Engine::open_at(self.dir.path(), Arc::clone(&self.clock), |disk| disk);
        self.engine = Some(engine);
    }

    pub(super) fn stop(&mut self) {
        self.engine.take().unwrap().close();
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// Creates a ledger with a task that ends in a day, and an Intent that lapses then.
    pub(super) fn begin_ledger(&mut self) {
        let ledger = self.engine().create(NAME).unwrap();
        let mut producer = Producer::new(ledger.id, 1);
        let deadline_us = self.clock.now().get() + DAY_US;
        let opened = v1::TaskOpened {
            requested_by: "https://example.org/people/dee".to_owned(),
            risk_tier: v1::RiskTier::Low.into(),
            deadline_us,
            ..v1::TaskOpened::default()
        };
        let opened = producer.opens(TASK, opened);
        self.producer = Some(producer);
        let answer = self.engine().append(NAME, vec![opened]).unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
    }

    pub(super) fn append(&mut self) -> Result<v1::AppendResponse, AppendError> {
        let producer = self.producer.as_mut().unwrap();
        let before = producer.clone();
        let envelope = producer.intent("orders/1");
        let appended = self.engine().append(NAME, vec![envelope]);
        if appended.is_err() {
            self.producer = Some(before);
        }
        appended
    }

    #[track_caller]
    pub(super) fn refused(&mut self) -> String {
        match self.append() {
            Err(AppendError::Unavailable(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Runs the ticker for some seconds, in which no real time passes.
    pub(super) fn ticks(&self) {
        let (context, _stop) = context(self.engine());
        block_on(async {
            let mut ahead = 0;
            for _ in 0..3 {
                ahead = ticker::round(&context, ahead).await;
            }
        });
    }

    pub(super) fn admin(&self) -> Admin {
        Admin {
            context: context_that_stays(self.engine()),
            stuck: Duration::from_secs(3600),
        }
    }

    pub(super) fn not_ready(&self) -> String {
        let NotReady(why) = self.admin().ready().unwrap_err();
        why
    }

    pub(super) fn confirms(&self, time: i64) {
        confirmation::note(self.data_dir(), Micros::new(time)).unwrap();
    }

    pub(super) fn size(&self) -> u64 {
        let ledger = self.engine().registry.ledger(NAME).unwrap();
        ledger.readable().size().get()
    }

    /// Replays the ledger; returns receive times and bodies of all entries but the genesis entry.
    #[track_caller]
    pub(super) fn entries(&self) -> Vec<(i64, Body)> {
        let ledger = self.engine().registry.ledger(NAME).unwrap();
        let entries = self.engine().store.entries(ledger.number, 0);
        let entries: Vec<_> = entries.map(|item| item.unwrap().1).collect();
        Replay::over(&entries).unwrap();
        let read = entries.iter().skip(1).map(|bytes| {
            let entry = Entry::parse(bytes).unwrap();
            let body = v1::Statement::decode(entry.payload).unwrap().body.unwrap();
            (entry.received_at.get(), body)
        });
        read.collect()
    }

    pub(super) fn findings(&self) -> Vec<v1::Finding> {
        let ledger = self.engine().registry.ledger(NAME).unwrap();
        let entries = self.engine().store.entries(ledger.number, 0);
        let entries: Vec<_> = entries.map(|item| item.unwrap().1).collect();
        let replay = Replay::over(&entries).unwrap();
        replay.findings().cloned().collect()
    }
}
