//! The displayed state of a delegated grant is the one by which Intents under it are judged.

use serde_json::{Value, json};

use crate::story::{ALLOW, SET_UP, User};

/// The agent delegates a part of its grant at leaf 8 to a helper: leaf 10, accepted at leaf 11.
const HAND_ON: &str = r#"
deed keygen --out helper.pem
deed key register helper.pem --role agent \
     --producer spiffe://shop.example/helper \
     --controller https://shop.example/support
deed grant --key agent.pem --parent 8 --subject spiffe://shop.example/helper \
     --action payments.refund --resource order/7 --expires 10m --uses 1 \
     --amount 2000 --currency EUR
deed accept 10 --key helper.pem
"#;

/// The helper's Intent under the delegated grant.
const INTEND: &str = r#"
echo '{"order": 7, "cents": 1999}' > call.json
echo 'The parcel never came. Please refund order 7.' > prompt.txt
deed intend --key helper.pem --task $TASK --action payments.refund \
     --resource order/7 --amount 1999 --currency EUR --grant 10 \
     --arguments call.json --prompt prompt.txt
"#;

fn grants(user: &User) -> Vec<(Value, Value, Value)> {
    let task = user.object("deed task show $TASK");
    let grants = task["grants"].as_array().expect("grants").iter();
    grants
        .map(|grant| {
            let field = |name: &str| grant[name].clone();
            (
                field("leaf_index"),
                field("state"),
                field("state_from_leaf"),
            )
        })
        .collect()
}

/// Returns the text that a person reads, without line ends.
fn words(user: &User) -> String {
    let shown = user.run("deed task show $TASK").stdout;
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_part_of_a_grant_ends_with_it() {
    let user = User::new();
    user.run(SET_UP);
    user.run(ALLOW);
    user.run(HAND_ON);
    let active = |leaf: u64| (json!(leaf), json!("active"), Value::Null);
    assert_eq!(grants(&user), [active(8), active(10)]);
    let waits = user.run(INTEND);
    assert!(waits.stdout.contains("waiting for"), "{waits:#?}");
    let shown = words(&user);
    assert_eq!(shown.matches("; it is in force").count(), 2, "{shown}");

    user.run("deed revoke 8");
    let root = (json!(8), json!("revoked"), Value::Null);
    let part = (json!(10), json!("revoked"), json!(8));
    assert_eq!(grants(&user), [root, part]);
    let denied = user.try_run(INTEND).expect_code(1);
    assert!(denied.stdout.contains("denied"), "{denied:#?}");
    let shown = words(&user);
    let words = "it was revoked, as the grant at leaf 8 above it";
    assert!(shown.contains(words), "{shown}");
    user.ends();
}
