use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use deed_client::records::{Record, Records};
use proptest::prelude::*;

use super::*;

fn mapping(name: &str) -> &'static Mapping {
    static KUBERNETES: LazyLock<Mapping> = LazyLock::new(|| parsed("kubernetes"));
    static CLOUDTRAIL: LazyLock<Mapping> = LazyLock::new(|| parsed("cloudtrail"));
    match name {
        "kubernetes" => &KUBERNETES,
        _ => &CLOUDTRAIL,
    }
}

fn parsed(name: &str) -> Mapping {
    Mapping::parse(shipped(name).unwrap()).unwrap()
}

/// What a log amounts to.
#[derive(Debug, Default, PartialEq)]
struct Read {
    /// `kind resource`; with `?` behind it where it names no object.
    effects: Vec<String>,
    nothing: usize,
    bad: usize,
}

/// All that a source amounts to, with what each observation is.
fn read(mapping: &Mapping, source: impl std::io::Read + Send) -> (Read, Vec<Mapped>) {
    let (mut read, mut seen) = (Read::default(), Vec::new());
    for record in Records::new(source, mapping.lists()) {
        let value = record
            .map_err(|_| ())
            .and_then(|Record { text, .. }| serde_json::from_str::<Value>(&text).map_err(|_| ()));
        let Ok(value) = value else {
            read.bad += 1;
            continue;
        };
        for part in mapping.records(value) {
            match mapping.map(&part) {
                Ok(Reading::Seen(mapped)) => seen.push(mapped),
                Ok(Reading::Nothing(_)) => read.nothing += 1,
                Err(_) => read.bad += 1,
            }
        }
    }
    let name = |effect: &v1::Effect, mark| format!("{} {}{mark}", effect.kind, effect.resource);
    for mapped in &seen {
        read.effects
            .extend(mapped.effects.iter().map(|effect| name(effect, "")));
        read.effects
            .extend(mapped.claims.iter().map(|effect| name(effect, "?")));
    }
    (read, seen)
}

fn of_text(name: &str, text: &str) -> (Read, Vec<Mapped>) {
    read(mapping(name), text.as_bytes())
}

/// The awkward logs beside the checkout, or beside a folder that it is in.
fn awkward() -> Option<PathBuf> {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.find_map(|folder| {
        let path = folder.join("shared/data/imports");
        path.is_dir().then_some(path)
    });
    let required = std::env::var("DEED_REQUIRE_SHARED").is_ok_and(|value| value == "1");
    assert!(
        found.is_some() || !required,
        "shared/data/imports is missing"
    );
    if found.is_none() {
        eprintln!("SKIPPED: shared/data/imports is not there");
    }
    found
}

const TRAIL: &str = "arn:aws:cloudtrail:eu-central-1:111122223333:trail/trail";
const IAM: &str = "arn:aws:iam::111122223333";

/// File, mapping, effects, records that say nothing, bad records.
type Row<'a> = (&'a str, &'a str, Vec<String>, usize, usize);

fn table() -> Vec<Row<'static>> {
    let k8s = "kubernetes";
    let trail = "cloudtrail";
    let list = |effects: &[&str]| effects.iter().map(|&one| one.to_owned()).collect();
    let bucket_and_trail = || {
        vec![
            "s3.amazonaws.com:DeleteBucket arn:aws:s3:::b1".to_owned(),
            format!("cloudtrail.amazonaws.com:StopLogging {TRAIL}"),
        ]
    };
    let attached = || {
        let kind = "iam.amazonaws.com:AttachUserPolicy";
        [
            format!("{kind} {IAM}:user/mallory"),
            format!("{kind} arn:aws:iam::aws:policy/AdministratorAccess"),
        ]
    };
    vec![
        ("k01-dryrun.jsonl", k8s, list(&[]), 2, 0),
        (
            "k02-exec-get.jsonl",
            k8s,
            list(&["k8s.pods/exec k8s:shop/pods/web-1"]),
            0,
            0,
        ),
        (
            "k02-exec-post.jsonl",
            k8s,
            list(&["k8s.pods/exec k8s:shop/pods/web-1"]),
            0,
            0,
        ),
        ("k04-reviews.jsonl", k8s, list(&[]), 2, 0),
        (
            "k05-scale.jsonl",
            k8s,
            list(&[
                "k8s.deployments/scale k8s:shop/deployments/checkout",
                "k8s.serviceaccounts/token k8s:shop/serviceaccounts/agent",
            ]),
            0,
            0,
        ),
        (
            "k08-aks.jsonl",
            k8s,
            list(&["k8s.delete k8s:shop/pods/web-1"]),
            0,
            0,
        ),
        (
            "k09-eventlist-pretty.json",
            k8s,
            list(&["k8s.delete k8s:shop/pods/web-1"]),
            0,
            0,
        ),
        (
            "k11-torn.log",
            k8s,
            list(&[
                "k8s.delete k8s:shop/pods/web-1",
                "k8s.delete k8s:shop/pods/web-2",
            ]),
            0,
            1,
        ),
        ("t01-array-pretty.json", trail, bucket_and_trail(), 0, 0),
        ("t03-records-pretty.json", trail, bucket_and_trail(), 0, 0),
        ("t04-bom.json", trail, bucket_and_trail(), 0, 0),
        ("t04-records.json.gz", trail, bucket_and_trail(), 0, 0),
        ("t05-login-failure.jsonl", trail, list(&[]), 1, 0),
        ("t06-old-reads.jsonl", trail, list(&[]), 3, 0),
        ("t06-string-readonly.jsonl", trail, list(&[]), 1, 0),
        (
            "t12-iam.jsonl",
            trail,
            [
                vec![format!("iam.amazonaws.com:CreateUser {IAM}:user/mallory")],
                attached().to_vec(),
                vec![
                    "dynamodb.amazonaws.com:DeleteTable \
                     arn:aws:dynamodb:eu-central-1:111122223333:table/orders"
                        .to_owned(),
                ],
            ]
            .concat(),
            0,
            0,
        ),
        (
            "t12-run-instances.jsonl",
            trail,
            ["i-0new1", "i-0new2"]
                .map(|id| {
                    format!(
                        "ec2.amazonaws.com:RunInstances \
                         arn:aws:ec2:eu-central-1:111122223333:instance/{id}"
                    )
                })
                .to_vec(),
            0,
            0,
        ),
        (
            "t16-notify-events.jsonl",
            trail,
            list(&["s3.amazonaws.com:DeleteBucket arn:aws:s3:::b1"]),
            0,
            0,
        ),
        ("one-attach.jsonl", trail, attached().to_vec(), 0, 0),
        ("one-read.jsonl", trail, list(&[]), 1, 0),
        (
            "o01-otlp.jsonl",
            "o01-otlp.toml",
            list(&["span execute_tool refund"]),
            0,
            0,
        ),
        // A mapping that names nothing of the record makes claims.
        ("o02-float.jsonl", "o02.toml", list(&["k r?"]), 0, 0),
        ("o02-ns.jsonl", "o02.toml", list(&["k r?"]), 0, 0),
        (
            "o02-offset-nocolon.jsonl",
            "o02.toml",
            list(&["k r?"]),
            0,
            0,
        ),
    ]
}

#[test]
fn each_awkward_log_gives_what_it_says() {
    let Some(folder) = awkward() else { return };
    let find = |name: &str| match shipped(name) {
        Some(text) => Mapping::parse(text).unwrap(),
        None => {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            Mapping::parse(&text).unwrap()
        }
    };
    for (file, mapping, effects, nothing, bad) in table() {
        let (found, _) = read(&find(mapping), File::open(folder.join(file)).unwrap());
        let expected = Read {
            effects,
            nothing,
            bad,
        };
        assert_eq!(found, expected, "{file}");
    }
    let times = [
        ("o02-float.jsonl", 1_795_485_420_123_000),
        ("o02-ns.jsonl", 1_795_485_420_000_000),
        ("o02-offset-nocolon.jsonl", 1_795_514_400_000_000),
    ];
    for (file, time) in times {
        let (_, seen) = read(&find("o02.toml"), File::open(folder.join(file)).unwrap());
        assert_eq!(seen[0].observed_at_us, time, "{file}");
    }
    // A key that no resource may have costs its record, where the statement is made.
    let (found, _) = read(
        mapping("cloudtrail"),
        File::open(folder.join("t09-control-key.jsonl")).unwrap(),
    );
    assert_eq!(found.effects.len(), 3);
}

fn k8s(fields: &str) -> String {
    format!(
        r#"{{"auditID": "a", "stage": "ResponseComplete", "level": "Request",
            "stageTimestamp": "2026-11-24T10:00:00.1Z", {fields}}}"#
    )
    .replace('\n', " ")
}

/// An event of an act on a pod.
fn of_pod(verb: &str, uri: &str, subresource: &str, code: u16, more: &str) -> String {
    let subresource = match subresource {
        "" => String::new(),
        name => format!(r#", "subresource": "{name}""#),
    };
    k8s(&format!(
        r#""verb": "{verb}", "requestURI": "{uri}", "responseStatus": {{"code": {code}}},
           "objectRef": {{"resource": "pods", "namespace": "shop", "name": "web-1"{subresource}}}
           {more}"#
    ))
}

#[test]
fn kubernetes_tells_apart_what_acts_and_what_does_not() {
    let effect = |text: &str| Read {
        effects: vec![text.to_owned()],
        ..Read::default()
    };
    let nothing = || Read {
        nothing: 1,
        ..Read::default()
    };
    let body = r#", "requestObject": {"kind": "DeleteOptions", "dryRun": ["All"]}"#;
    let eviction =
        r#", "requestObject": {"kind": "Eviction", "deleteOptions": {"dryRun": ["All"]}}"#;
    for (event, expected) in [
        (of_pod("delete", "/x", "", 200, ""), effect("k8s.delete k8s:shop/pods/web-1")),
        (of_pod("delete", "/x?a=b&dryRun=All", "", 200, ""), nothing()),
        (of_pod("delete", "/x?d%72yRu%6e=All", "", 200, ""), nothing()),
        (of_pod("delete", "/x?fieldManager=dryRun", "", 200, ""), effect("k8s.delete k8s:shop/pods/web-1")),
        (of_pod("delete", "/x", "", 200, body), nothing()),
        (of_pod("create", "/x", "eviction", 201, eviction), nothing()),
        (of_pod("create", "/x", "eviction", 201, ""), effect("k8s.pods/eviction k8s:shop/pods/web-1")),
        (of_pod("create", "/x", "eviction", 429, ""), nothing()),
        (of_pod("create", "/x", "binding", 201, ""), effect("k8s.pods/binding k8s:shop/pods/web-1")),
        (of_pod("patch", "/x", "status", 200, ""), effect("k8s.pods/status k8s:shop/pods/web-1")),
        (of_pod("patch", "/x", "", 200, ""), effect("k8s.patch k8s:shop/pods/web-1")),
        (of_pod("patch", "/x", "ephemeralcontainers", 200, ""), effect("k8s.pods/ephemeralcontainers k8s:shop/pods/web-1")),
        // Whatever a caller adds to the query, an exec runs.
        (of_pod("get", "/x/exec?command=rm&dryRun=All", "exec", 101, ""), effect("k8s.pods/exec k8s:shop/pods/web-1")),
        (of_pod("get", "/x/attach", "attach", 101, ""), effect("k8s.pods/attach k8s:shop/pods/web-1")),
        (of_pod("create", "/x/portforward", "portforward", 101, ""), effect("k8s.pods/portforward k8s:shop/pods/web-1")),
        (of_pod("get", "/x/exec", "exec", 403, ""), nothing()),
        (of_pod("get", "/x/proxy/metrics", "proxy", 200, ""), nothing()),
        (of_pod("create", "/x/proxy/orders", "proxy", 200, ""), effect("k8s.pods/proxy k8s:shop/pods/web-1")),
        (of_pod("get", "/api/v1/nodes/n/proxy/exec/shop/web-1/c?command=rm", "proxy", 101, ""), effect("k8s.pods/proxy k8s:shop/pods/web-1")),
        (of_pod("get", "/x/log", "log", 200, ""), nothing()),
        (of_pod("watch", "/x", "", 200, ""), nothing()),
        (of_pod("delete", "/x", "", 404, ""), nothing()),
        (of_pod("delete", "/x", "", 200, "").replace("ResponseComplete", "RequestReceived"), nothing()),
        (of_pod("delete", "/x", "", 500, "").replace("ResponseComplete", "Panic"), nothing()),
        // Another group's pods are other things.
        (
            of_pod("delete", "/x", "", 200, "").replace(r#""namespace""#, r#""apiGroup": "metrics.k8s.io", "namespace""#),
            effect("k8s.delete k8s:shop/pods.metrics.k8s.io/web-1"),
        ),
        // The server makes the name.
        (
            of_pod("create", "/x", "", 201, "").replace(r#", "name": "web-1""#, ""),
            effect("k8s.create k8s:shop/pods?"),
        ),
        (
            of_pod("create", "/x", "", 201, r#", "responseObject": {"metadata": {"name": "web-x7"}}"#)
                .replace(r#", "name": "web-1""#, ""),
            effect("k8s.create k8s:shop/pods/web-x7"),
        ),
        (
            of_pod("deletecollection", "/x?labelSelector=a", "", 200, "").replace(r#", "name": "web-1""#, ""),
            effect("k8s.deletecollection k8s:shop/pods"),
        ),
        (
            of_pod("deletecollection", "/x", "", 200, r#", "responseObject": {"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}"#)
                .replace(r#", "name": "web-1""#, ""),
            Read {
                effects: vec![
                    "k8s.deletecollection k8s:shop/pods/a".to_owned(),
                    "k8s.deletecollection k8s:shop/pods/b".to_owned(),
                ],
                ..Read::default()
            },
        ),
        (
            k8s(r#""verb": "delete", "requestURI": "/x", "responseStatus": {"code": 200},
                "objectRef": {"resource": "namespaces", "namespace": "old", "name": "old", "apiVersion": "v1"}"#),
            effect("k8s.delete k8s:namespaces/old"),
        ),
        (
            k8s(r#""verb": "update", "requestURI": "/x", "responseStatus": {"code": 200},
                "objectRef": {"resource": "certificatesigningrequests", "name": "c", "subresource": "approval",
                "apiGroup": "certificates.k8s.io"}"#),
            effect("k8s.certificatesigningrequests/approval k8s:certificatesigningrequests/c"),
        ),
        (
            k8s(r#""verb": "create", "requestURI": "/x", "responseStatus": {"code": 201},
                "objectRef": {"resource": "localsubjectaccessreviews", "namespace": "shop", "apiGroup": "authorization.k8s.io"}"#),
            nothing(),
        ),
        // Somebody's own reviews are things like others.
        (
            k8s(r#""verb": "create", "requestURI": "/x", "responseStatus": {"code": 201},
                "objectRef": {"resource": "codereviews", "namespace": "shop", "name": "r", "apiGroup": "example.org"}"#),
            effect("k8s.create k8s:shop/codereviews.example.org/r"),
        ),
        (
            k8s(r#""verb": "post", "requestURI": "/logs/x", "responseStatus": {"code": 200}"#),
            effect("k8s.post k8s:nonresource?"),
        ),
        // Not understood: a verb that nobody knows, no answer, no audit event.
        (of_pod("frobnicate", "/x", "", 200, ""), Read { bad: 1, ..Read::default() }),
        (of_pod("delete", "/x", "", 0, ""), Read { bad: 1, ..Read::default() }),
        (r#"{"kind": "Event", "reason": "Killing"}"#.to_owned(), Read { bad: 1, ..Read::default() }),
    ] {
        assert_eq!(of_text("kubernetes", &event).0, expected, "{event}");
    }
}

#[test]
fn kubernetes_says_who_acted_as_whom_and_what_is_doubtful() {
    let event = of_pod(
        "delete",
        "/x",
        "",
        200,
        r#", "user": {"username": "admin"}, "impersonatedUser": {"username": "agent"}"#,
    );
    let (_, seen) = of_text("kubernetes", &event);
    let keys = [
        ("k8s-audit", "a"),
        ("k8s-impersonated", "agent"),
        ("k8s-user", "admin"),
    ];
    let keys = keys.map(|(kind, value)| (kind.to_owned(), value.to_owned()));
    assert_eq!(seen[0].correlation_keys, keys);
    assert_eq!(seen[0].doubts, [""; 0]);
    let (_, seen) = of_text("kubernetes", &event.replace("\"Request\"", "\"Metadata\""));
    assert_eq!(seen[0].doubts.len(), 1);
}

#[test]
fn kubernetes_events_are_observations() {
    let log = include_str!("../../../tests/data/kubernetes.jsonl");
    let (found, seen) = of_text("kubernetes", log);
    assert_eq!(
        found,
        Read {
            effects: vec![
                "k8s.patch k8s:shop/deployments/checkout".to_owned(),
                "k8s.delete k8s:namespaces/old-shop".to_owned(),
            ],
            nothing: 3,
            bad: 0,
        }
    );
    assert_eq!(seen[0].reference, "0d5b4f9e-0000-4000-8000-000000000001");
    // What wraps events: a list in a message, text in text, both.
    let line = log.lines().nth(1).unwrap();
    let text = serde_json::to_string(line).unwrap();
    for wrapped in [
        format!(r#"{{"log": {text}}}"#),
        format!(r#"{{"events": [{{"message": {text}}}]}}"#),
        format!(r#"{{"records": [{{"properties": {{"log": {text}}}}}]}}"#),
        format!(r#"{{"kind": "EventList", "items": [{line}]}}"#),
        format!(r#"{{"_source": {line}}}"#),
        text.clone(),
    ] {
        let (again, _) = of_text("kubernetes", &wrapped);
        assert_eq!(again.effects, found.effects[..1], "{wrapped}");
    }
}

fn aws(name: &str, source: &str, fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    format!(
        r#"{{"eventTime": "2026-11-24T10:00:00Z", "eventSource": "{source}.amazonaws.com",
            "eventName": "{name}", "awsRegion": "eu-central-1", "recipientAccountId": "1",
            "eventID": "e"{comma} {fields}}}"#
    )
    .replace('\n', " ")
}

#[test]
fn cloudtrail_tells_apart_what_acts_and_what_does_not() {
    let params = |json: &str| format!(r#""requestParameters": {json}"#);
    let three = r#"{"instancesSet": {"items": [{"instanceId": "i-1"}, {"instanceId": "i-2"}, {"instanceId": "i-3"}]}}"#;
    for (event, effects, nothing) in [
        (
            aws("TerminateInstances", "ec2", &params(three)),
            vec![
                "arn:aws:ec2:eu-central-1:1:instance/i-1",
                "arn:aws:ec2:eu-central-1:1:instance/i-2",
                "arn:aws:ec2:eu-central-1:1:instance/i-3",
            ],
            0,
        ),
        (aws("DescribeInstances", "ec2", ""), vec![], 1),
        (
            aws("DescribeInstances", "ec2", r#""readOnly": "true""#),
            vec![],
            1,
        ),
        // What reads by its name and says that it writes does.
        (
            aws(
                "GetFederationToken",
                "sts",
                r#""readOnly": "false", "userIdentity": {"arn": "arn:aws:iam::1:user/u"}"#,
            ),
            vec!["arn:aws:iam::1:user/u"],
            0,
        ),
        (
            aws("Gettysburg", "x", r#""resources": [{"ARN": "arn:x:1"}]"#),
            vec!["arn:x:1"],
            0,
        ),
        (
            aws(
                "ConsoleLogin",
                "signin",
                r#""responseElements": {"ConsoleLogin": "Failure"}"#,
            ),
            vec![],
            1,
        ),
        (
            aws(
                "SwitchRole",
                "signin",
                r#""responseElements": {"SwitchRole": "Failure"}"#,
            ),
            vec![],
            1,
        ),
        (
            aws(
                "ConsoleLogin",
                "signin",
                r#""responseElements": {"ConsoleLogin": "Success"}, "userIdentity": {"arn": "arn:aws:iam::1:user/u"}"#,
            ),
            vec!["arn:aws:iam::1:user/u"],
            0,
        ),
        (
            aws("DeleteTable", "dynamodb", r#""errorCode": "AccessDenied""#),
            vec![],
            1,
        ),
        (
            aws("DeleteTable", "dynamodb", r#""errorMessage": "no""#),
            vec![],
            1,
        ),
        (
            aws(
                "DeleteTable",
                "dynamodb",
                r#""errorCode": null, "requestParameters": {"tableName": "t"}"#,
            ),
            vec!["arn:aws:dynamodb:eu-central-1:1:table/t"],
            0,
        ),
        (
            aws(
                "DeleteTable",
                "dynamodb",
                &params(r#"{"tableName": "arn:aws:dynamodb:eu-central-1:2:table/t"}"#),
            ),
            vec!["arn:aws:dynamodb:eu-central-1:2:table/t"],
            0,
        ),
        (
            aws(
                "AddUserToGroup",
                "iam",
                &params(r#"{"userName": "u", "groupName": "g"}"#),
            ),
            vec!["arn:aws:iam::1:user/u", "arn:aws:iam::1:group/g"],
            0,
        ),
        (
            aws(
                "CreateAccessKey",
                "iam",
                r#""requestParameters": null, "responseElements": {"accessKey": {"userName": "u"}}"#,
            ),
            vec!["arn:aws:iam::1:user/u"],
            0,
        ),
        (
            aws(
                "CreatePolicy",
                "iam",
                r#""responseElements": {"policy": {"arn": "arn:aws:iam::1:policy/p"}}"#,
            ),
            vec!["arn:aws:iam::1:policy/p"],
            0,
        ),
        (
            aws(
                "PutObject",
                "s3",
                &params(r#"{"bucketName": "b", "key": "k/x"}"#),
            ),
            vec!["arn:aws:s3:::b/k/x"],
            0,
        ),
        (
            aws("PutBucketPolicy", "s3", &params(r#"{"bucketName": "b"}"#)),
            vec!["arn:aws:s3:::b"],
            0,
        ),
        (
            aws(
                "DeleteObjects",
                "s3",
                &params(r#"{"bucketName": "b", "delete": ""}"#),
            ),
            vec!["arn:aws:s3:::b?"],
            0,
        ),
        (
            aws(
                "CreateVolume",
                "ec2",
                r#""responseElements": {"volumeId": "v-1"}"#,
            ),
            vec!["arn:aws:ec2:eu-central-1:1:volume/v-1"],
            0,
        ),
        (
            aws(
                "CreateTags",
                "ec2",
                &params(
                    r#"{"resourcesSet": {"items": [{"resourceId": "i-1"}, {"resourceId": "i-2"}, {"resourceId": "vol-1"}, {"resourceId": "tgw-1"}]}}"#,
                ),
            ),
            vec![
                "arn:aws:ec2:eu-central-1:1:instance/i-1",
                "arn:aws:ec2:eu-central-1:1:instance/i-2",
                "arn:aws:ec2:eu-central-1:1:volume/vol-1",
                "aws:ec2/tgw-1",
            ],
            0,
        ),
        (
            aws(
                "ScheduleKeyDeletion",
                "kms",
                r#""resources": [{"ARN": "arn:aws:kms:eu-central-1:1:key/k", "type": "AWS::KMS::Key"}]"#,
            ),
            vec!["arn:aws:kms:eu-central-1:1:key/k"],
            0,
        ),
        (
            aws(
                "DeleteFunction20150331",
                "lambda",
                &params(r#"{"functionName": "f"}"#),
            ),
            vec!["arn:aws:lambda:eu-central-1:1:function:f"],
            0,
        ),
        (
            aws(
                "DeleteDBInstance",
                "rds",
                &params(r#"{"dBInstanceIdentifier": "d"}"#),
            ),
            vec!["arn:aws:rds:eu-central-1:1:db:d"],
            0,
        ),
        (
            aws("SendEmail", "ses", ""),
            vec!["aws:eu-central-1/ses.amazonaws.com?"],
            0,
        ),
        (
            aws("DeleteThing", "new", &params(r#"{"name": "n"}"#)),
            vec!["aws:eu-central-1/1/new/name/n"],
            0,
        ),
        (
            aws(
                "DeleteBucket",
                "s3",
                r#""eventCategory": "NetworkActivity""#,
            ),
            vec![],
            1,
        ),
    ] {
        let (found, _) = of_text("cloudtrail", &event);
        let resources: Vec<_> = found
            .effects
            .iter()
            .map(|effect| effect.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(
            (&resources, found.nothing, found.bad),
            (&effects, nothing, 0),
            "{event}"
        );
    }
    let lookup = aws("DeleteTable", "dynamodb", &params(r#"{"tableName": "t"}"#));
    let lookup = format!(
        r#"{{"Events": [{{"EventId": "e", "ReadOnly": "false", "CloudTrailEvent": {}}}], "NextToken": "x"}}"#,
        serde_json::to_string(&lookup).unwrap()
    );
    assert_eq!(of_text("cloudtrail", &lookup).0.effects.len(), 1);
    let digest = r#"{"awsAccountId": "1", "digestStartTime": "2026-11-24T10:00:00Z"}"#;
    for bad in [
        digest,
        &aws("DeleteTable", "dynamodb", r#""readOnly": "maybe""#),
    ] {
        assert_eq!(of_text("cloudtrail", bad).0.bad, 1, "{bad}");
    }
}

#[test]
fn cloudtrail_events_are_observations() {
    let log = include_str!("../../../tests/data/cloudtrail.jsonl");
    let (found, seen) = of_text("cloudtrail", log);
    // Reads and refused calls changed nothing.
    assert_eq!((seen.len(), found.nothing, found.bad), (3, 2, 0));
    assert_eq!(
        found.effects,
        [
            "s3.amazonaws.com:DeleteObject arn:aws:s3:::records/customer/7.json",
            // No account: the parameters name it.
            "ec2.amazonaws.com:TerminateInstances aws:instance/i-0abc",
            "ses.amazonaws.com:SendEmail aws:eu-central-1/ses.amazonaws.com?",
        ]
    );
    assert_eq!(seen[0].observed_at_us, 1_795_485_420_000_000);
    assert_eq!(seen[0].reference, "11111111-2222-4333-8444-000000000001");
    let key = ("aws-request".to_owned(), "EXAMPLE0001".to_owned());
    assert!(seen[0].correlation_keys.contains(&key));
}

#[test]
fn a_mapping_of_ones_own_tells_nothing_from_what_is_not_understood() {
    let text = r#"
        what = "booking"
        time = "{/t}"
        expect = [{ pointer = "/type", exists = true }]
        [[nothing]]
        because = "a quote"
        only = [{ pointer = "/type", in = ["quote"] }]
        [[only]]
        pointer = "/code"
        less_than = 400
        [[only]]
        pointer = "/verb"
        not_in = ["get", "list"]
        [[only]]
        pointer = "/error"
        exists = false
        [[let]]
        name = "shop"
        value = "{/shop}"
        capture = '^shop-(\d+)$'
        [[effect]]
        each = "/lines"
        of = [{ pointer = "@/n", at_least = 1 }]
        kind = "k"
        resource = "{$shop}/{@/id}"
        amount = "{@/cents}"
        currency = "EUR"
        [[effect]]
        otherwise = true
        only = [{ pointer = "/lines", exists = false }]
        kind = "k"
        resource = "whatever"
    "#;
    let mapping = Mapping::parse(text).unwrap();
    let map = |json: &str| mapping.map(&serde_json::from_str(json).unwrap());
    let good = r#"{"type": "b", "t": 1795485420.5, "code": 200, "verb": "put", "shop": "shop-7",
        "lines": [{"id": "a", "n": 1, "cents": "5"}, {"id": "b", "n": 0}, {"id": "c", "n": 2}]}"#;
    let Ok(Reading::Seen(mapped)) = map(good) else {
        panic!("{:?}", map(good))
    };
    let resources: Vec<_> = mapped.effects.iter().map(|one| &one.resource[..]).collect();
    assert_eq!(resources, ["7/a", "7/c"]);
    assert_eq!(mapped.effects[0].amount.as_ref().unwrap().minor_units, 5);
    assert_eq!(mapped.observed_at_us, 1_795_485_420_500_000);
    // A text that is the same for every record names no object.
    let vague = map(r#"{"type": "b", "t": 1, "code": 200, "verb": "put"}"#);
    assert!(
        matches!(vague, Ok(Reading::Seen(Mapped { effects, claims, .. }))
        if effects.is_empty() && claims.len() == 1)
    );
    for (json, because) in [
        (r#"{"type": "quote"}"#, "a quote"),
        (r#"{"type": "b", "code": 400, "verb": "put"}"#, FILTERED),
        (r#"{"type": "b", "verb": "put"}"#, FILTERED),
        (r#"{"type": "b", "code": 200, "verb": "list"}"#, FILTERED),
        (
            r#"{"type": "b", "code": 200, "verb": "put", "error": "no"}"#,
            FILTERED,
        ),
    ] {
        assert_eq!(
            map(json),
            Ok(Reading::Nothing(because.to_owned())),
            "{json}"
        );
    }
    for (json, says) in [
        (r#"{"t": 1, "code": 200, "verb": "put"}"#, "no booking"),
        (good.replace("1795485420.5", "null").as_str(), "no time"),
        (
            good.replace("1795485420.5", "\"soon\"").as_str(),
            "its time",
        ),
        (good.replace("\"5\"", "\"5.5\"").as_str(), "its amount"),
        (good.replace("shop-7", "seven").as_str(), "what was changed"),
        ("[1]", "no object"),
    ] {
        let error = map(json).unwrap_err();
        assert!(error.contains(says), "{json}: {error}");
    }
}

#[test]
fn mistakes_in_a_mapping_are_named() {
    let effect = "[[effect]]\nkind=\"k\"\nresource=\"{/r}\"";
    for (text, says) in [
        ("time = \"{/t}\"\neffect = []".to_owned(), "at least one"),
        (format!("time = \"{{t}}\"\n{effect}"), "JSON pointer"),
        (format!("time = \"{{/t}}\"\ntmie = 1\n{effect}"), "tmie"),
        (effect.to_owned(), "time"),
        (format!("time = \"{{$t}}\"\n{effect}"), "no [[let]]"),
        (
            "time = \"{/t}\"\n[[effect]]\nkind = \"k\"".to_owned(),
            "needs a resource",
        ),
        (
            format!("time = \"{{/t}}\"\nexpect = [{{ pointer = \"/a\" }}]\n{effect}"),
            "says nothing",
        ),
        (
            format!("time = \"{{/t}}\"\n[[nothing]]\nbecause = \"b\"\nonly = []\n{effect}"),
            "needs a condition",
        ),
    ] {
        let error = Mapping::parse(&text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

proptest! {
    /// Records come in any files, cut anywhere between two of them, in any order, any number of
    /// times: the same is seen.
    #[test]
    fn the_same_records_are_seen_however_they_come(
        order in prop::collection::vec((0..8_usize, 0..4_usize), 1..30),
    ) {
        let events: Vec<String> = (0..8)
            .map(|n| of_pod("delete", "/x", "", 200, "").replace("\"a\"", &format!("\"a{n}\"")).replace("web-1", &format!("web-{n}")))
            .collect();
        let seen = |text: &str| -> HashSet<String> {
            of_text("kubernetes", text).1.iter().map(|one| format!("{one:?}")).collect()
        };
        let mut whole = HashSet::new();
        let mut pieces = HashSet::new();
        for (n, form) in order {
            let event = &events[n];
            whole.extend(seen(event));
            let file = match form {
                0 => format!("{event}\r\n{event}\r\n"),
                1 => format!("[{event},\n{event}]"),
                2 => format!("\u{feff}{{\"kind\": \"EventList\", \"items\": [\n{event}\n]}}\n"),
                _ => serde_json::to_string_pretty(&serde_json::from_str::<Value>(event).unwrap()).unwrap(),
            };
            pieces.extend(seen(&file));
        }
        prop_assert_eq!(pieces, whole);
    }
}
