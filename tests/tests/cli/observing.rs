//! Logs of other systems, compared with declared acts: which records prove something, and which do
//! not.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{OK, Set, object};

const AGENT: &str = "spiffe://shop.example/agent";

impl Set {
    fn said(&self, line: &str) -> Value {
        let words = line.split_whitespace();
        object(&self.deed.run(words.chain(["--json"])).expect_code(OK))
    }

    /// Makes a key in `<name>.pem`, and registers it.
    fn key(&self, name: &str, registered: &str) {
        let file = self.deed.file(&format!("{name}.pem"));
        let file = file.display().to_string();
        let made = self.deed.run(["keygen", "--out", &file]);
        made.expect_code(OK);
        self.said(&format!(
            "key register {file} {registered} --controller https://{name}.example"
        ));
    }

    /// Records a task with one act of the agent and its Outcome; returns the task's id.
    fn act(&self, kind: &str, resource: &str, correlation: &str) -> String {
        let key = self.deed.file("agent.pem").display().to_string();
        let opened = self
            .said("task open --objective tidy --requested-by ticket:1 --tier low --deadline 1h");
        let task = opened["task"].as_str().unwrap().to_owned();
        let grant = self.said(&format!(
            "grant --task {task} --subject {AGENT} --action {kind} --resource {resource} --expires 1h"
        ));
        let intent = self.said(&format!(
            "intend --key {key} --task {task} --action {kind} --resource {resource} --grant {} \
             --correlation {correlation}",
            grant["leaf_index"]
        ));
        assert_eq!(intent["state"], "cleared", "{intent}");
        self.said(&format!(
            "complete {} succeeded --key {key} --effect kind={kind},resource={resource}",
            intent["leaf_index"]
        ));
        task
    }

    fn imports(&self, mapping: &str, record: &Value) -> Value {
        let log = self.deed.file("log").display().to_string();
        fs::write(&log, record.to_string()).unwrap();
        let key = self.deed.file("system.pem").display().to_string();
        self.said(&format!(
            "observe import {log} --mapping {mapping} --key {key}"
        ))
    }

    fn corroboration(&self, task: &str) -> String {
        let shown = self.said(&format!("task show {task}"));
        let layers = &shown["acts"][0]["layers"];
        layers["corroboration"].as_str().unwrap().to_owned()
    }
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_micros().to_string()
}

fn with_keys() -> Set {
    let set = Set::up();
    set.key("agent", &format!("--role agent --producer {AGENT}"));
    set.key(
        "system",
        "--role downstream-system --producer https://system.example/log --resource *",
    );
    set
}

#[test]
fn a_dry_run_proves_no_delete() {
    let set = with_keys();
    let task = set.act("k8s.delete", "k8s:shop/pods/web-1", "k8s-audit=a1");
    let delete = |uri: &str| {
        json!({"auditID": "a1", "stage": "ResponseComplete", "level": "Request", "verb": "delete",
               "requestURI": uri, "responseStatus": {"code": 200}, "stageTimestamp": now(),
               "objectRef": {"resource": "pods", "namespace": "shop", "name": "web-1"}})
    };
    let dry = set.imports(
        "kubernetes",
        &delete("/api/v1/namespaces/shop/pods/web-1?dryRun=All"),
    );
    assert_eq!(
        (&dry["accepted"], &dry["nothing"]["a dry run"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(set.corroboration(&task), "not_asked");
    // A delete without its body may have been a dry run, and so may one whose body was cut.
    for (name, value) in [
        ("level", json!("Metadata")),
        ("level", Value::Null),
        ("annotations", json!({"audit.k8s.io/truncated": "true"})),
    ] {
        let mut doubtful = delete("/api/v1/namespaces/shop/pods/web-1");
        doubtful[name] = value;
        let claimed = set.imports("kubernetes", &doubtful);
        assert_eq!(
            (&claimed["claims"], &claimed["effects"]),
            (&json!(1), &json!(0))
        );
        assert_eq!(set.corroboration(&task), "claimed", "{doubtful}");
    }
    let done = set.imports("kubernetes", &delete("/api/v1/namespaces/shop/pods/web-1"));
    assert_eq!(done["accepted"], 1);
    assert_eq!(set.corroboration(&task), "proven");
}

#[test]
fn what_names_no_object_proves_nothing() {
    let set = with_keys();
    let kind = "s3.amazonaws.com:DeleteObjects";
    let task = set.act(kind, "arn:aws:s3:::records", "aws-request=R1");
    let record = json!({"eventTime": now(), "eventSource": "s3.amazonaws.com",
        "eventName": "DeleteObjects", "awsRegion": "eu-central-1", "requestID": "R1", "eventID": "e1",
        "requestParameters": {"bucketName": "records", "delete": ""}});
    let imported = set.imports("cloudtrail", &record);
    assert_eq!(
        (&imported["accepted"], &imported["claims"]),
        (&json!(1), &json!(1))
    );
    let corroboration = set.corroboration(&task);
    assert_ne!(corroboration, "proven");
    assert_eq!(corroboration, "claimed");
}

#[test]
fn what_did_not_happen_or_elsewhere_proves_nothing() {
    let set = with_keys();
    let here = "eu-central-1:111122223333";
    let call = |source: &str, name: &str, parameters: Value| {
        json!({"eventTime": now(), "eventSource": format!("{source}.amazonaws.com"),
            "eventName": name, "awsRegion": "eu-central-1", "recipientAccountId": "111122223333",
            "eventID": name, "requestParameters": parameters})
    };
    let rule = format!("arn:aws:events:{here}:rule/nightly");
    let function = format!("arn:aws:lambda:{here}:function:f");
    let table = "aws:eu-central-1/111122223333/glue/name/orders".to_owned();
    let cases = [
        (
            &function,
            call(
                "lambda",
                "UpdateFunctionCode20150331v2",
                json!({"functionName": "f", "dryRun": true}),
            ),
            false,
        ),
        (
            &function,
            call(
                "lambda",
                "DeleteFunction20150331",
                json!({"functionName": "f", "qualifier": "3"}),
            ),
            false,
        ),
        (
            &rule,
            call(
                "events",
                "DeleteRule",
                json!({"name": "nightly", "eventBusName": "staging"}),
            ),
            false,
        ),
        (
            &table,
            call(
                "glue",
                "DeleteTable",
                json!({"databaseName": "staging", "name": "orders"}),
            ),
            false,
        ),
        (
            &rule,
            call("events", "DeleteRule", json!({"name": "nightly"})),
            true,
        ),
        (
            &function,
            call(
                "lambda",
                "DeleteFunction20150331",
                json!({"functionName": "f"}),
            ),
            true,
        ),
    ];
    for (n, (resource, mut record, is_there)) in cases.into_iter().enumerate() {
        let request = format!("R{n}");
        record["requestID"] = json!(request);
        let kind = format!(
            "{}:{}",
            record["eventSource"].as_str().unwrap(),
            record["eventName"].as_str().unwrap()
        );
        let task = set.act(&kind, resource, &format!("aws-request={request}"));
        set.imports("cloudtrail", &record);
        assert_eq!(set.corroboration(&task) == "proven", is_there, "{record}");
    }
}
