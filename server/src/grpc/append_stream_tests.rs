//! Tests of a stream of append requests whose caller has gone.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use deed_proto::v1;

use super::ledger::answer;
use deed_engine::{
    admission::Sender,
    append::{InFlight, QuotaPolicy},
    ledger::Ledger,
    shard::Disk,
};

use crate::testing::{Engine, Producer, block_on, briefs};

/// A generous bound on anything that a thread must do; no test measures it.
const LONG: Duration = Duration::from_secs(60);

/// Begins to append one statement of a session of its own.
async fn begin(engine: &Engine, ledger: &Arc<Ledger>, session: u8) -> InFlight {
    let appends = &engine.appends;
    let request = v1::AppendRequest {
        ledger: ledger.name().to_owned(),
        envelopes: vec![Producer::new(ledger.id, session).intent("r")],
        ..v1::AppendRequest::default()
    };
    let request = appends.check(request).unwrap();
    let (sender, source) = (Sender::anybody(), appends.pressure.unknown());
    let ledger = Arc::clone(ledger);
    let since = appends.shards.superseded();
    let begun = appends.begin(
        ledger,
        request,
        &sender,
        &source,
        QuotaPolicy::Refuse,
        since,
    );
    begun.await.unwrap()
}

#[test]
fn a_stream_whose_caller_has_gone_lets_go_of_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    // Turns end after each piece, and commits wait for a token each.
    let (open_gate, gate) = mpsc::channel::<()>();
    let (at_gate, arrived) = mpsc::channel();
    let engine = Engine::open_with(dir.path(), Duration::ZERO, |mut disk: Disk| Disk {
        commit: Box::new(move |batch| {
            let _ = at_gate.send(());
            let _ = gate.recv();
            (disk.commit)(batch)
        }),
        guard: disk.guard,
    });
    open_gate.send(()).unwrap();
    let ledger = engine.create("stream").unwrap();
    arrived.recv().unwrap();
    let first = block_on(begin(&engine, &ledger, 1));
    arrived.recv().unwrap();
    block_on(async {
        let waiting = begin(&engine, &ledger, 2).await;
        let (taking, taken) = tokio::sync::mpsc::channel(1);
        let (answering, answers) = tokio::sync::mpsc::channel(1);
        taking.send(Ok(waiting)).await.ok().unwrap();
        drop(answers);
        // The stream ends although the disk does not move, and nothing more will be sent.
        answer(taken, answering, LONG).await;
    });
    drop(open_gate);
    block_on(first.finish()).unwrap();
    let third = block_on(async { begin(&engine, &ledger, 3).await.finish().await });
    assert_eq!(briefs(&third.unwrap().into_response()), ["accepted 2"]);
    assert_eq!(engine.appends.metrics.abandonments(), 1);
    engine.close();
}
