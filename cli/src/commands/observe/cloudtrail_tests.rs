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

/// The cases are lines of text: the call and its service, the fields of the event, the resources.
#[test]
fn cloudtrail_names_what_was_changed_or_claims() {
    let cases = include_str!("../../../tests/data/cloudtrail_cases.txt").lines();
    for case in cases.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let parts: Vec<_> = case.split('|').map(str::trim).collect();
        let [call, fields, expected] = parts[..] else {
            panic!("{case}");
        };
        let (name, source) = call.split_once(' ').unwrap();
        let (found, _) = of_text("cloudtrail", &aws(name, source, fields));
        let resources: Vec<_> = found
            .effects
            .iter()
            .map(|effect| effect.split_once(' ').unwrap().1)
            .collect();
        let expected: Vec<_> = expected.split_whitespace().collect();
        let nothing = usize::from(expected.is_empty());
        assert_eq!(
            (resources, found.nothing, found.bad),
            (expected, nothing, 0),
            "{case}"
        );
    }
}

#[test]
fn cloudtrail_reads_lists_of_events_and_refuses_unclear_ones() {
    let lookup = aws(
        "DeleteTable",
        "dynamodb",
        r#""requestParameters": {"tableName": "t"}"#,
    );
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
