//! Measures appends until they are acknowledged, with a server and raw gRPC clients in one process,
//! over loopback. The clients verify nothing; `deed bench append` measures with verification.

use std::{cell::RefCell, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deed_benches::Statements;
use deed_evidence::LedgerId;
use deed_proto::v1::{self, append_result, ledger_client::LedgerClient};
use deed_server::{Server, ServerOptions, SystemClock};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Requests under way at once, and statements in each.
const REQUESTS: u64 = 32;
const BATCH: u64 = 256;

/// A stream of appends, one session.
struct Producer {
    statements: Statements,
    next: u64,
    requests: mpsc::Sender<v1::AppendRequest>,
    answers: Streaming<v1::AppendResponse>,
}

impl Producer {
    async fn open(mut client: LedgerClient<Channel>, id: LedgerId, session: [u8; 16]) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let opening = client.append_stream(ReceiverStream::new(receiver));
        let answers = opening.await.unwrap().into_inner();
        Self {
            statements: Statements::new(id, session),
            next: 0,
            requests,
            answers,
        }
    }

    fn request(&mut self, count: u64) -> v1::AppendRequest {
        let envelopes = self.statements.envelopes(self.next, count);
        self.next += count;
        v1::AppendRequest {
            ledger: "bench".to_owned(),
            envelopes,
            ..v1::AppendRequest::default()
        }
    }

    async fn send(&mut self, request: v1::AppendRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) {
        let answer = self.answers.message().await.unwrap().unwrap();
        assert!(
            answer.results.iter().all(|result| {
                matches!(result.result, Some(append_result::Result::Accepted(_)))
            })
        );
    }
}

fn appends(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions::new(dir.path());
    let server = runtime
        .block_on(Server::start(options, Arc::new(SystemClock)))
        .unwrap();
    let (client, id) = runtime.block_on(async {
        let endpoint = format!("http://{}", server.address());
        let channel = Channel::from_shared(endpoint)
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client = LedgerClient::new(channel);
        let created = client
            .create_ledger(v1::CreateLedgerRequest {
                name: "bench".to_owned(),
                authority_keys: vec![bytes::Bytes::from_static(&AUTHORITY_KEY)],
            })
            .await
            .unwrap()
            .into_inner();
        let id = created.ledger.unwrap().ledger_id;
        (
            client,
            LedgerId::new(deed_tlog::Hash::try_from(&id[..]).unwrap()),
        )
    });

    // Criterion runs a bench's closure several times, and each run needs a session of its own.
    let mut session = 0_u128;
    let mut open = || {
        session += 1;
        runtime.block_on(Producer::open(client.clone(), id, session.to_be_bytes()))
    };
    let mut group = c.benchmark_group("append_stream");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_statement_in_flight", |b| {
        let mut producer = open();
        b.iter(|| {
            runtime.block_on(async {
                let request = producer.request(1);
                producer.send(request).await;
                producer.receive().await;
            });
        });
    });
    group.throughput(Throughput::Elements(REQUESTS * BATCH));
    group.sample_size(20);
    group.bench_function("32_batches_of_256_in_flight", |b| {
        let producer = RefCell::new(open());
        b.iter_batched(
            // The time in which the client makes statements is not measured.
            || {
                (0..REQUESTS)
                    .map(|_| producer.borrow_mut().request(BATCH))
                    .collect::<Vec<_>>()
            },
            |requests| {
                let mut producer = producer.borrow_mut();
                runtime.block_on(async {
                    for request in requests {
                        producer.send(request).await;
                    }
                    for _ in 0..REQUESTS {
                        producer.receive().await;
                    }
                });
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    runtime.block_on(server.stop()).unwrap();
}

/// The public key of RFC 8032 section 7.1, test 1.
const AUTHORITY_KEY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

criterion_group!(benches, appends);
criterion_main!(benches);
