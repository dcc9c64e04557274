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
            vec!["aws:eu-central-1/1/new/name/n?"],
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

/// Calls that did nothing say nothing, wherever they say so.
#[test]
fn cloudtrail_tells_what_did_not_happen() {
    let failed = r#"{"CredentialVerification": "Failure"}"#;
    for (name, source, fields) in [
        ("UpdateFunctionCode20150331v2", "lambda", r#""requestParameters": {"functionName": "f", "dryRun": true}"#.to_owned()),
        ("Invoke", "lambda", r#""requestParameters": {"functionName": "f", "invocationType": "DryRun"}"#.to_owned()),
        ("TerminateInstances", "ec2", r#""requestParameters": {"DryRun": "true", "instancesSet": {"items": [{"instanceId": "i-1"}]}}"#.to_owned()),
        ("DeleteNatGateway", "ec2", r#""requestParameters": {"DeleteNatGatewayRequest": {"DryRun": true, "NatGatewayId": "n"}}"#.to_owned()),
        ("UpdateRuleGroup", "network-firewall", r#""requestParameters": {"ruleGroupArn": "arn:x", "dry_run": true}"#.to_owned()),
        ("DeleteSecurityGroup", "ec2", r#""requestParameters": {"groupId": "sg-1"}, "responseElements": {"_return": false}"#.to_owned()),
        ("DeleteVpc", "ec2", r#""requestParameters": {"vpcId": "v"}, "responseElements": {"DeleteVpcResponse": {"return": "false"}}"#.to_owned()),
        ("CredentialVerification", "signin", format!(r#""serviceEventDetails": {failed}, "eventType": "AwsServiceEvent", "userIdentity": {{"userName": "a"}}"#)),
        ("UserAuthentication", "signin", format!(r#""additionalEventData": {failed}, "userIdentity": {{"arn": "arn:aws:iam::1:user/u"}}"#)),
    ] {
        let (found, _) = of_text("cloudtrail", &aws(name, source, &fields));
        assert_eq!((&found.effects[..], found.nothing), (&[][..], 1), "{name} {fields}");
    }
}

/// Effects name exactly what was changed; what is within something else, one of several, or known by a
/// name that others may have too, is a claim.
#[test]
fn cloudtrail_names_what_was_changed_or_claims() {
    const EC2: &str = "arn:aws:ec2:eu-central-1:1";
    let at = |service: &str, name: &str| format!("arn:aws:{service}:eu-central-1:1:{name}");
    let claimed = |name: String| format!("{name}?");
    for (name, source, fields, expected) in [
        // EventBridge.
        (
            "DeleteRule",
            "events",
            r#""requestParameters": {"name": "n", "eventBusName": "staging"}"#,
            at("events", "rule/staging/n"),
        ),
        (
            "DeleteRule",
            "events",
            r#""requestParameters": {"name": "n", "eventBusName": "default"}"#,
            at("events", "rule/n"),
        ),
        (
            "DeleteRule",
            "events",
            r#""requestParameters": {"name": "n"}"#,
            at("events", "rule/n"),
        ),
        (
            "DeleteRule",
            "events",
            r#""requestParameters": {"name": "n", "eventBusName": "arn:aws:events:eu-central-1:2:event-bus/s"}"#,
            claimed("aws:eu-central-1/1/events/name/n".to_owned()),
        ),
        (
            "DeleteEventBus",
            "events",
            r#""requestParameters": {"name": "n"}"#,
            at("events", "event-bus/n"),
        ),
        (
            "RemoveTargets",
            "events",
            r#""requestParameters": {"rule": "n", "ids": ["1"]}, "responseElements": {"failedEntryCount": 0}"#,
            claimed("aws:eu-central-1/events.amazonaws.com".to_owned()),
        ),
        (
            "DeleteSchedule",
            "scheduler",
            r#""requestParameters": {"name": "s", "groupName": "g"}"#,
            at("scheduler", "schedule/g/s"),
        ),
        (
            "DeleteSchedule",
            "scheduler",
            r#""requestParameters": {"name": "s"}"#,
            at("scheduler", "schedule/default/s"),
        ),
        // What a call makes, and of what.
        (
            "CreateSnapshot",
            "ec2",
            r#""requestParameters": {"volumeId": "vol-1"}, "responseElements": {"snapshotId": "snap-9", "volumeId": "vol-1"}"#,
            format!("{EC2}:snapshot/snap-9"),
        ),
        (
            "CreateVolume",
            "ec2",
            r#""responseElements": {"volumeId": "vol-7", "snapshotId": "snap-1"}"#,
            format!("{EC2}:volume/vol-7"),
        ),
        (
            "CreateDBSnapshot",
            "rds",
            r#""requestParameters": {"dBSnapshotIdentifier": "s1", "dBInstanceIdentifier": "prod"}"#,
            at("rds", "snapshot:s1"),
        ),
        (
            "CreateDBClusterSnapshot",
            "rds",
            r#""requestParameters": {"dBClusterSnapshotIdentifier": "s1", "dBClusterIdentifier": "prod"}"#,
            at("rds", "cluster-snapshot:s1"),
        ),
        (
            "CreateDBInstance",
            "rds",
            r#""requestParameters": {"dBInstanceIdentifier": "i1", "dBClusterIdentifier": "prod"}"#,
            at("rds", "db:i1"),
        ),
        // Names in a container.
        (
            "DeleteTable",
            "glue",
            r#""requestParameters": {"databaseName": "staging", "name": "orders"}"#,
            claimed("aws:eu-central-1/1/glue/name/orders".to_owned()),
        ),
        (
            "DeleteTable",
            "timestream",
            r#""requestParameters": {"databaseName": "a", "tableName": "t"}"#,
            claimed("aws:eu-central-1/1/timestream/a".to_owned()),
        ),
        (
            "StopTask",
            "ecs",
            r#""requestParameters": {"cluster": "prod", "task": "abc"}"#,
            claimed("aws:eu-central-1/ecs.amazonaws.com".to_owned()),
        ),
        (
            "StopTask",
            "ecs",
            r#""requestParameters": {"cluster": "arn:aws:ecs:eu-central-1:1:cluster/prod", "task": "abc"}"#,
            claimed("aws:eu-central-1/ecs.amazonaws.com".to_owned()),
        ),
        (
            "DeleteService",
            "ecs",
            r#""requestParameters": {"cluster": "prod", "service": "web"}"#,
            at("ecs", "service/prod/web"),
        ),
        (
            "DeleteService",
            "ecs",
            r#""requestParameters": {"cluster": "prod", "service": "arn:aws:ecs:eu-central-1:1:service/prod/web"}"#,
            at("ecs", "service/prod/web"),
        ),
        (
            "DeleteService",
            "ecs",
            r#""requestParameters": {"cluster": "arn:aws:ecs:eu-central-1:1:cluster/prod", "service": "web"}"#,
            claimed("aws:eu-central-1/ecs.amazonaws.com".to_owned()),
        ),
        (
            "DeleteCluster",
            "ecs",
            r#""requestParameters": {"cluster": "arn:aws:ecs:eu-central-1:1:cluster/prod"}"#,
            at("ecs", "cluster/prod"),
        ),
        (
            "DeleteNodegroup",
            "eks",
            r#""requestParameters": {"clusterName": "c", "nodegroupName": "n"}"#,
            claimed("aws:eu-central-1/1/eks/c".to_owned()),
        ),
        (
            "DeleteFunction20150331",
            "lambda",
            r#""requestParameters": {"functionName": "f", "qualifier": "3"}"#,
            claimed("aws:eu-central-1/1/lambda/f".to_owned()),
        ),
        (
            "DeleteFunction20150331",
            "lambda",
            r#""requestParameters": {"functionName": "f:3"}"#,
            claimed("aws:eu-central-1/1/lambda/f:3".to_owned()),
        ),
        (
            "DeleteFunction20150331",
            "lambda",
            r#""requestParameters": {"functionName": "9:function:f"}"#,
            claimed("aws:eu-central-1/1/lambda/9:function:f".to_owned()),
        ),
        (
            "DeleteAlias20150331",
            "lambda",
            r#""requestParameters": {"functionName": "f", "name": "live"}"#,
            claimed("aws:eu-central-1/1/lambda/name/live".to_owned()),
        ),
        (
            "DeleteItem",
            "dynamodb",
            r#""requestParameters": {"tableName": "t", "key": {"id": 1}}"#,
            claimed(at("dynamodb", "table/t")),
        ),
        (
            "CreateEventDataStore",
            "cloudtrail",
            r#""requestParameters": {"name": "n"}"#,
            claimed("aws:eu-central-1/1/cloudtrail/name/n".to_owned()),
        ),
        (
            "DeleteObject",
            "s3",
            r#""requestParameters": {"bucketName": "b", "key": "k", "versionId": "v"}"#,
            "arn:aws:s3:::b/k?".to_owned(),
        ),
        (
            "UploadPart",
            "s3",
            r#""requestParameters": {"bucketName": "b", "key": "k", "uploadId": "u", "partNumber": "1"}"#,
            "arn:aws:s3:::b/k?".to_owned(),
        ),
        (
            "DeleteBucketMetricsConfiguration",
            "s3",
            r#""requestParameters": {"bucketName": "b", "id": "m"}"#,
            "arn:aws:s3:::b?".to_owned(),
        ),
        (
            "DeleteAccessKey",
            "iam",
            r#""requestParameters": {"userName": "u", "accessKeyId": "A"}"#,
            "arn:aws:iam::1:user/u?".to_owned(),
        ),
        (
            "AttachVolume",
            "ec2",
            r#""requestParameters": {"volumeId": "v", "instanceId": "i"}"#,
            format!("{EC2}:volume/v?"),
        ),
        (
            "DeleteVolume",
            "ec2",
            r#""requestParameters": {"volumeId": "v"}"#,
            format!("{EC2}:volume/v"),
        ),
        (
            "DeleteLogStream",
            "logs",
            r#""requestParameters": {"logGroupName": "g", "logStreamName": "s"}"#,
            claimed("aws:eu-central-1/1/logs/g".to_owned()),
        ),
        // One ARN among the parameters, or in the list, and nothing beside it.
        (
            "DeleteTopic",
            "sns",
            r#""requestParameters": {"topicArn": "arn:aws:sns:eu-central-1:1:t"}"#,
            at("sns", "t"),
        ),
        (
            "StartExecution",
            "states",
            r#""requestParameters": {"stateMachineArn": "arn:aws:states:eu-central-1:1:stateMachine:m", "name": "e"}"#,
            claimed("aws:eu-central-1/1/states/name/e".to_owned()),
        ),
        (
            "DeleteMessage",
            "sqs",
            r#""requestParameters": {"queueUrl": "https://sqs.example/1/q", "receiptHandle": "h"}"#,
            "https://sqs.example/1/q?".to_owned(),
        ),
        (
            "PurgeQueue",
            "sqs",
            r#""requestParameters": {"queueUrl": "https://sqs.example/1/q"}"#,
            "https://sqs.example/1/q".to_owned(),
        ),
        (
            "RevokeGrant",
            "kms",
            r#""requestParameters": {"keyId": "1", "grantId": "g"}, "resources": [{"ARN": "arn:aws:kms:eu-central-1:1:key/1"}]"#,
            claimed(at("kms", "key/1")),
        ),
        (
            "ReEncrypt",
            "kms",
            r#""resources": [{"ARN": "arn:aws:kms:eu-central-1:1:key/1"}, {"ARN": "arn:aws:kms:eu-central-1:1:key/2"}]"#,
            claimed(at("kms", "key/1")),
        ),
        // Answers that name failures, states, a trial, or are not whole.
        (
            "BatchDeleteImage",
            "ecr",
            r#""requestParameters": {"repositoryName": "r"}, "responseElements": {"imageIds": [], "failures": [{}]}"#,
            claimed("aws:eu-central-1/1/ecr/r".to_owned()),
        ),
        (
            "PurgeQueue",
            "sqs",
            r#""requestParameters": {"queueUrl": "https://sqs.example/1/q"}, "responseElements": {"x": {"Failed": [1]}}"#,
            "https://sqs.example/1/q?".to_owned(),
        ),
        (
            "StopInstances",
            "ec2",
            r#""responseElements": {"instancesSet": {"items": [{"instanceId": "i", "previousState": {"name": "stopped"}}]}}"#,
            format!("{EC2}:instance/i?"),
        ),
        (
            "DeleteVolume",
            "ec2",
            r#""requestParameters": {"volumeId": "v", "deep": {"dryRun": "yes"}}"#,
            format!("{EC2}:volume/v?"),
        ),
        (
            "DeleteVolume",
            "ec2",
            r#""requestParameters": {"volumeId": "v", "dryRun": false}"#,
            format!("{EC2}:volume/v"),
        ),
        (
            "DeleteVolume",
            "ec2",
            r#""requestParameters": {"volumeId": "v"}, "addendum": {"reason": "UPDATED_DATA"}"#,
            format!("{EC2}:volume/v?"),
        ),
        // Identity Center's user is none of IAM's.
        (
            "UserAuthentication",
            "signin",
            r#""serviceEventDetails": {"UserAuthentication": "Success"}, "userIdentity": {"type": "Unknown", "userName": "alice"}"#,
            "aws:signin.amazonaws.com?".to_owned(),
        ),
        (
            "ConsoleLogin",
            "signin",
            r#""userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::1:user/u"}"#,
            "arn:aws:iam::1:user/u?".to_owned(),
        ),
    ] {
        let (found, _) = of_text("cloudtrail", &aws(name, source, fields));
        let resources: Vec<_> = found
            .effects
            .iter()
            .filter_map(|effect| Some(effect.split_once(' ')?.1))
            .collect();
        assert_eq!(resources, [expected], "{name} {fields}");
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
