//! `deed policy`: what is checked offline, set by an authority, and shown.

use std::{fs, os::unix::fs::PermissionsExt as _};

use deed_client::{key, statement_json::StatementJson};
use deed_evidence::policy::{CEDAR_VERSION, DEFAULT_POLICIES, DEFAULT_SCHEMA, digest};
use deed_proto::v1::{self, statement::Body};
use deed_testkit::fake::{Lie, authority_key};

use crate::scene::{Scene, code, scene, stderr, words};

const AUTHORITY: [&str; 3] = ["--authority-key", "owner.pem", "--json"];

async fn scene_with_owner() -> Scene {
    let scene = scene().await;
    let path = scene.path("owner.pem");
    fs::write(&path, &*key::private_to_pem(&authority_key())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    scene
}

fn fits(text: &str) -> bool {
    text.lines().all(|line| line.chars().count() <= 80)
}

#[tokio::test]
async fn policies_are_checked_without_a_server() {
    let scene = scene().await;
    let one =
        "@id(\"reads\")\npermit (principal, action, resource)\nwhen { context.tier == \"low\" };";
    let two = "@id(\"large\") @keep(\"result\") @corroborate(\"3600\")\n\
               permit (principal, action, resource)\n\
               when { context.evidence.approvals >= 2 };\n\
               forbid (principal, action, resource)\n\
               when { context.tier == \"deletion\" };\n";
    fs::write(scene.path("one.cedar"), one).unwrap();
    fs::write(scene.path("two.cedar"), two).unwrap();
    let nowhere = ["--server", "http://127.0.0.1:1"];
    let check = ["policy", "check", "one.cedar", "two.cedar"];
    let json = [&check[..], &nowhere, &["--json"]].concat();
    let checked = scene.json(&json).await;
    assert_eq!(checked["valid"], true);
    let whole = digest(&format!("{one}\n{two}"), DEFAULT_SCHEMA);
    assert_eq!(checked["digest"], hex::encode(whole));
    let ids: Vec<_> = checked["policies"].as_array().unwrap().iter().collect();
    assert_eq!(ids[0]["id"], "reads");
    assert_eq!(
        (&ids[1]["id"], &ids[1]["effect"]),
        (&"large".into(), &"permit".into())
    );
    assert_eq!(ids[1]["keep"][0], "result");
    assert_eq!(ids[1]["corroborate_within_us"], 3_600_000_000_i64);
    assert_eq!(
        (&ids[2]["id"], &ids[2]["effect"]),
        (&"policy2".into(), &"forbid".into())
    );
    let output = scene.run(&check).await;
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && fits(&text), "{text}");
    assert!(
        text.contains("within 1h") && text.contains("reads"),
        "{text}"
    );

    // Places are those in the file.
    fs::write(
        scene.path("three.cedar"),
        "\npermit (principal, action, resource)\nwhen { 1 + };",
    )
    .unwrap();
    let check = ["policy", "check", "two.cedar", "three.cedar"];
    let output = scene.run(&check).await;
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("three.cedar:3:12: "), "{output:?}");
    let output = scene.run(&[&check[..], &["--json"]].concat()).await;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &json["valid"]), (1, &false.into()));
    assert_eq!(json["diagnostics"].as_array().unwrap().len(), 1);

    fs::write(scene.path("bad.cedarschema"), "entity\n 1;").unwrap();
    let check = words("policy check one.cedar --schema bad.cedarschema");
    let output = scene.run(&check).await;
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("bad.cedarschema:2:2: "),
        "{output:?}"
    );
    assert_eq!(code(&scene.run(&["policy", "check", "missing"]).await), 2);
    assert_eq!(code(&scene.run(&["policy", "check"]).await), 2);
}

#[tokio::test]
async fn policies_are_set_and_shown_as_they_were_at_any_leaf() {
    let scene = scene_with_owner().await;
    let output = scene.run(&["policy", "show"]).await;
    assert!(
        code(&output) == 2 && stderr(&output).contains("deed policy set"),
        "{output:?}"
    );

    let set = ["policy", "set", "--default", "--reason", "first"];
    let first = scene.json(&[&set[..], &AUTHORITY].concat()).await;
    assert_eq!(first["leaf_index"], 1);
    let shipped = hex::encode(digest(DEFAULT_POLICIES, DEFAULT_SCHEMA));
    assert_eq!(first["digest"], shipped.as_str());
    let shown = scene.json(&["policy", "show", "--json"]).await;
    assert_eq!(
        (&shown["leaf_index"], &shown["reason"]),
        (&1.into(), &"first".into())
    );
    assert_eq!(
        (&shown["digest"], &shown["rules_version"]),
        (&shipped.as_str().into(), &2.into())
    );
    assert_eq!(shown["cedar_version"], CEDAR_VERSION);
    assert_eq!(shown["policies"], DEFAULT_POLICIES);
    assert_eq!(shown["schema"], DEFAULT_SCHEMA);

    let own = "@id(\"none\") forbid (principal, action, resource);";
    fs::write(scene.path("own.cedar"), own).unwrap();
    let set = ["policy", "set", "own.cedar"];
    scene.json(&[&set[..], &AUTHORITY].concat()).await;
    let text = String::from_utf8(scene.run(&["policy", "show"]).await.stdout).unwrap();
    assert!(
        text.contains("leaf       2") && text.contains(own),
        "{text}"
    );
    let earlier = scene.json(&["policy", "show", "--at", "1", "--json"]).await;
    assert_eq!(earlier, shown);
    for (leaf, exit) in [("0", 2), ("2", 0), ("3", 2)] {
        let output = scene.run(&["policy", "show", "--at", leaf]).await;
        assert_eq!(code(&output), exit, "{leaf}: {output:?}");
    }
    scene.fake.lock().script.lie = Lie::TrustOmitted;
    let output = scene.run(&["policy", "show"]).await;
    assert_eq!(code(&output), 1, "nothing unverified is shown");
}

#[tokio::test]
async fn what_is_not_valid_is_not_recorded() {
    let scene = scene_with_owner().await;
    fs::write(
        scene.path("bad.cedar"),
        "permit (principal, action, resource) when { context.x };",
    )
    .unwrap();
    let set = ["policy", "set", "bad.cedar"];
    let output = scene.run(&[&set[..], &AUTHORITY].concat()).await;
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("bad.cedar:1:45: "), "{output:?}");
    assert_eq!(scene.fake.size(), 1);
    let both = ["policy", "set", "bad.cedar", "--default"];
    assert_eq!(code(&scene.run(&[&both[..], &AUTHORITY].concat()).await), 2);
    let none = ["policy", "set"];
    assert_eq!(code(&scene.run(&[&none[..], &AUTHORITY].concat()).await), 2);
}

#[test]
fn a_policy_set_in_json_is_the_same_as_in_its_binary_form() {
    let statement = v1::Statement {
        ledger_id: vec![1; 32].into(),
        producer: "deed:authority".to_owned(),
        session: vec![2; 16].into(),
        occurred_at_us: 7,
        body: Some(Body::PolicySet(v1::PolicySet {
            policies: "permit (principal, action, resource);\n".to_owned(),
            schema: DEFAULT_SCHEMA.to_owned(),
            digest: vec![3; 32].into(),
            cedar_version: CEDAR_VERSION.to_owned(),
            rules_version: 2,
            reason: "\"why\"".to_owned(),
        })),
        ..v1::Statement::default()
    };
    let json = serde_json::to_string(&StatementJson::from(statement.clone())).unwrap();
    assert!(json.contains("\"policy_set\""), "{json}");
    let defaults = deed_client::statement_json::Defaults {
        nonce: None,
        ledger_id: deed_evidence::LedgerId::new(deed_tlog::Hash::new([9; 32])),
        place: None,
        occurred_at: deed_evidence::Micros::new(1),
    };
    let read = StatementJson::parse(&json).unwrap();
    assert_eq!(read.into_statement(&defaults), Ok(statement));
}
