//! Starting: the directories, addresses and names that a server accepts.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
};

use deed_tests::{
    files,
    process::{ServerCommand, ServerProcess, deed_server, fsck, fsck_clean},
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
};
use tempfile::TempDir;
use tonic::Code;

use crate::{data_in, expect_words, up};

#[test]
fn a_directory_has_one_server() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (server, clients, ledger) = up(&data).await;
        let mut producer = Producer::new(ledger.id, 1);
        ledger.append(&clients, &producer.intents(5)).await;

        let second = ServerCommand::new(&data).refused();
        expect_words(&second, &["in use by another deed-server"]);
        let checked = fsck(&data).expect_code(1);
        expect_words(&checked, &["in use by another deed-server"]);

        // The first server is not affected.
        ledger.append(&clients, &producer.intents(5)).await;
        server.stop();
        fsck_clean(&data);
    });
}

#[test]
fn addresses_that_others_can_reach_are_refused() {
    let dir = TempDir::new().unwrap();
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.1:0",
        "[2001:db8::1]:0",
        "255.255.255.255:0",
        // Every address of this machine.
        ":0",
    ] {
        let ended = ServerCommand::new(&data_in(&dir)).listen(address).refused();
        let named = if address == ":0" { "[::]:0" } else { address };
        expect_words(&ended, &["loopback", named]);
        assert!(!data_in(&dir).exists(), "{address}: nothing was made");
    }
    // Any address of the loopback network is accepted.
    let server = ServerCommand::new(&data_in(&dir))
        .listen("127.0.0.2:0")
        .start();
    server.stop();
}

#[test]
fn a_port_that_is_taken_is_said_so() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (first, clients, ledger) = up(&data_in(&dir)).await;
        let other = dir.path().join("other");
        let taken = first.address();
        let ended = ServerCommand::new(&other).listen(taken).refused();
        expect_words(&ended, &["cannot listen", &taken.to_string()]);
        // The cause once, and in a line of its own.
        assert_eq!(ended.stderr.matches("os error").count(), 1, "{ended:#?}");
        let admin = ["--admin".to_owned(), taken.to_string()];
        let ended = ServerCommand::new(&other).arguments(admin).refused();
        expect_words(&ended, &["metrics and health", &taken.to_string()]);
        assert_eq!(ended.stderr.matches("os error").count(), 1, "{ended:#?}");
        ledger
            .append(&clients, &Producer::new(ledger.id, 1).intents(1))
            .await;
        first.stop();
        // Nothing prevents a second attempt.
        ServerCommand::new(&other).listen(taken).start().stop();
    });
}

#[test]
fn names_are_listened_on_and_every_address_is_said() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let server = ServerCommand::new(&data)
            .listen("localhost:0")
            .arguments(["--admin", "localhost:0"])
            .start();
        let said: Vec<SocketAddr> = said(&server);
        assert!(!said.is_empty());
        for address in &said {
            assert!(address.ip().is_loopback(), "{address}");
            assert_eq!(address.port(), server.address().port());
            let url = format!("http://{address}");
            let clients = Clients::open(&url).await;
            let status = clients.checkpoint("nobody").await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
        }
        let port = server.admin_address().port();
        deed_server(["health", "--address", &format!("localhost:{port}")]);
        server.stop();

        // All that localhost stands for, or none of it.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let ended = ServerCommand::new(&data)
            .listen(format!("localhost:{port}"))
            .refused();
        expect_words(&ended, &[&format!("cannot listen on 127.0.0.1:{port}: ")]);
        drop(taken);

        // RFC 6761 section 6.4: a name that is never found.
        let ended = ServerCommand::new(&data)
            .listen("nobody.invalid:0")
            .refused();
        expect_words(&ended, &["cannot listen on nobody.invalid:0: "]);

        // Every address, for somebody who says that it is meant.
        let server = ServerCommand::new(&data)
            .listen(":0")
            .arguments(["--insecure"])
            .start();
        let every = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
        let clients = Clients::open(&format!("http://{every}")).await;
        let status = clients.checkpoint("nobody").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        server.stop();

        // Where there is IPv6.
        if let Ok(socket) = TcpListener::bind("[::1]:0") {
            drop(socket);
            let server = ServerCommand::new(&data).listen("[::1]:0").start();
            assert!(server.address().is_ipv6());
            let clients = Clients::connect(&server).await;
            let status = clients.checkpoint("nobody").await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            server.stop();
        }
    });
}

/// The addresses that a server says it listens on.
fn said(server: &ServerProcess) -> Vec<SocketAddr> {
    let stdout = server.stdout();
    let addresses = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("listening on "));
    addresses.map(|address| address.parse().unwrap()).collect()
}

#[test]
fn wrong_usage_ends_with_2() {
    let dir = TempDir::new().unwrap();
    let command = || ServerCommand::new(&data_in(&dir));
    for command in [
        command().listen("nonsense"),
        command().listen("localhost"),
        command().listen("10.0.0.256:7733"),
        command().arguments(["--shards", "0"]),
        command().arguments(["--shards", "65"]),
        command().arguments(["--no-such-option"]),
    ] {
        command.refused().expect_code(2);
    }
    assert!(!data_in(&dir).exists());
}

#[test]
fn a_servers_name_never_changes() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let named = |name: &str| ServerCommand::new(&data).arguments(["--name", name]);
        expect_words(&named("").refused(), &["name", "text is wanted"]);
        for bad in ["A", "a b", "a+b", "/a", "a/", "ä"] {
            expect_words(&named(bad).refused(), &["server name"]);
        }
        let server = named("ledger.example.org").start();
        assert!(
            server.stdout().contains("ledger.example.org"),
            "{}",
            server.stdout()
        );
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        assert_eq!(ledger.info.origin, "ledger.example.org/logs/payments");
        server.stop();

        let ended = named("ledger.example.com").refused();
        expect_words(&ended, &["ledger.example.org", "ledger.example.com"]);
        // With or without the name, it is the same ledger. (Only GetLedger has the next log key.)
        let mut next_log_key = None;
        for command in [named("ledger.example.org"), ServerCommand::new(&data)] {
            let server = command.start();
            let clients = Clients::connect(&server).await;
            let mut found = TestLedger::find(&clients, "payments").await.info;
            let next = std::mem::take(&mut found.next_log_key);
            assert_eq!(found, ledger.info);
            assert_eq!(next_log_key.get_or_insert_with(|| next.clone()), &next);
            server.stop();
        }
    });
}

#[test]
fn directories_of_others_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "all of it").unwrap();
    let before = files::files(&foreign);
    let ended = ServerCommand::new(&foreign).refused();
    expect_words(&ended, &["thesis.txt", "not empty"]);
    assert_eq!(files::files(&foreign), before);

    let file = foreign.join("thesis.txt");
    expect_words(&ServerCommand::new(&file).refused(), &["thesis.txt"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "all of it");

    // The checker creates nothing either.
    let nothing = dir.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    for empty in [&foreign, &nothing, &dir.path().join("missing")] {
        expect_words(&fsck(empty).expect_code(1), &["holds no deed server"]);
    }
    assert!(files::files(&nothing).is_empty());
    assert!(!dir.path().join("missing").exists());
}
