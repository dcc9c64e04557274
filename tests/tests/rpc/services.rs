//! Rules for all rpcs: unknown ledgers, health, reflection.

use std::collections::HashSet;

use deed_proto::v1::{self, get_inclusion_proof_request::Leaf};
use deed_tests::{rpc::Clients, run, statements::Producer};
use tonic::{Code, Status};

use crate::Set;

#[test]
fn unknown_ledgers_are_not_found_anywhere() {
    run(async {
        let set = Set::up().await;
        for name in [
            "nobody",
            "",
            "../payments",
            "Payments",
            "payments/",
            &"x".repeat(10_000),
        ] {
            let name = name.to_owned();
            let clients = &set.clients;
            let producer = &mut Producer::new(set.ledger.id, 1);
            let request = v1::AppendRequest {
                ledger: name.clone(),
                ..set.ledger.request(&producer.intents(1))
            };
            let mut answers = vec![clients.append(request.clone()).await.err()];
            answers.push(stream_error(clients, request).await);
            let by_name = v1::GetLedgerRequest { name: name.clone() };
            answers.push(clients.ledger.clone().get_ledger(by_name).await.err());
            answers.push(clients.checkpoint(&name).await.err());
            answers.push(match clients.watch(&name, None).await {
                Ok(mut heads) => heads.message().await.err(),
                Err(status) => Some(status),
            });
            answers.push(
                clients
                    .inclusion(&name, Some(Leaf::LeafIndex(0)), 0)
                    .await
                    .err(),
            );
            answers.push(clients.consistency(&name, 0, 0).await.err());
            answers.push(clients.entries(&name, 0, 0).await.err());
            for (rpc, status) in answers.into_iter().enumerate() {
                let status = status.unwrap_or_else(|| panic!("rpc {rpc} finds {name:?}"));
                assert_eq!(
                    status.code(),
                    Code::NotFound,
                    "rpc {rpc}, {name:?}: {status:?}"
                );
            }
        }
    });
}

async fn stream_error(clients: &Clients, request: v1::AppendRequest) -> Option<Status> {
    let requests = tokio_stream::once(request);
    match clients.append_stream(requests).await {
        Ok(mut answers) => answers.message().await.err(),
        Err(status) => Some(status),
    }
}

#[test]
fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    };

    run(async {
        let set = Set::up().await;
        let channel = set.clients.channel.clone();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        for service in ["", "deed.v1.Ledger", "deed.v1.Log"] {
            let service = service.to_owned();
            let answer = health
                .check(HealthCheckRequest { service })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
        }
        let service = "deed.v1.Nothing".to_owned();
        let unknown = health
            .check(HealthCheckRequest { service })
            .await
            .unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);

        let mut reflection =
            tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
                channel,
            );
        let mut ask = async |question: MessageRequest| {
            let request = tokio_stream::once(ServerReflectionRequest {
                host: String::new(),
                message_request: Some(question),
            });
            let answer = reflection.server_reflection_info(request).await.unwrap();
            let answer = answer.into_inner().message().await.unwrap().unwrap();
            answer.message_response.expect("an answer")
        };
        let MessageResponse::ListServicesResponse(services) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("not a list of services")
        };
        let services: HashSet<_> = services
            .service
            .into_iter()
            .map(|service| service.name)
            .collect();
        for wanted in ["deed.v1.Ledger", "deed.v1.Log", "grpc.health.v1.Health"] {
            assert!(services.contains(wanted), "{wanted} in {services:?}");
        }
        for symbol in [
            "deed.v1.Ledger",
            "deed.v1.Log",
            "deed.v1.Statement",
            "deed.v1.Entry",
        ] {
            let question = MessageRequest::FileContainingSymbol(symbol.to_owned());
            let MessageResponse::FileDescriptorResponse(files) = ask(question).await else {
                panic!("no file of {symbol}")
            };
            let name = symbol.rsplit('.').next().unwrap().as_bytes();
            let files = files.file_descriptor_proto;
            let found = files
                .iter()
                .any(|file| file.windows(name.len()).any(|at| at == name));
            assert!(found, "{symbol} is in its file");
        }
    });
}
