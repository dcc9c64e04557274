use super::of_text;

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
    assert_eq!(of_text("cloudtrail", digest).0.nothing, 1);
    let unclear = aws("DeleteTable", "dynamodb", r#""readOnly": "maybe""#);
    for bad in [r#"{"eventName": "DeleteTable"}"#, &unclear] {
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
