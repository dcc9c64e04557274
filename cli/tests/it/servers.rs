//! Several servers: how they are named, and what is said of them.

use crate::scene::{code, scene, stderr};

/// An address at which nobody listens.
fn dead() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn servers_are_named_with_commas_or_one_by_one() {
    let scene = scene().await;
    (1..5).for_each(|seed| scene.fake.add_leaf(seed));
    let (dead, live) = (dead(), scene.fake.url());
    let both = format!("{dead},{live}");
    for arguments in [
        &["head", "--json", "--server", &both][..],
        &["--server", &dead, "--server", &live, "head", "--json"],
        &["ledger", "list", "--json", "--server", &both],
    ] {
        assert_eq!(scene.json(arguments).await["size"], 5, "{arguments:?}");
    }
    let mut command = scene.command(&["head"]);
    let output = command.env("DEED_SERVER", &both).output().await.unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let other = self::dead();
    let neither = format!("{dead},{other}");
    let output = scene.run(&["head", "--server", &neither]).await;
    assert_eq!(code(&output), 3, "{output:?}");
    let words = stderr(&output);
    assert!(words.contains(&dead) && words.contains(&other), "{words}");
}

#[tokio::test]
async fn a_copy_that_is_behind_is_told_from_a_ledger_that_was_put_back() {
    let scene = scene().await;
    (1..6).for_each(|seed| scene.fake.add_leaf(seed));
    let copy = scene.fake.twin(4).await;
    let (live, behind) = (scene.fake.url(), copy.url());
    assert_eq!(scene.json(&["head", "--json"]).await["size"], 6);
    // Beside a server that has it all, the copy is passed over.
    let both = format!("{behind},{live}");
    let output = scene.run(&["head", "--server", &both]).await;
    assert_eq!(code(&output), 0, "{output:?}");
    let words = stderr(&output);
    let said = format!("{behind} is behind, {live} is asked: ");
    assert!(words.contains(&said), "{words}");
    // Alone, it cannot show that it goes on to what was signed.
    let output = scene.run(&["head", "--server", &behind]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    let words = stderr(&output);
    assert!(words.contains("was put back to an older copy, or has forked"));
    assert!(words.contains("fork-"), "{words}");
}
