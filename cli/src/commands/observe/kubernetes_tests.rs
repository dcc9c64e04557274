use super::{Read, of_text};

fn k8s(fields: &str) -> String {
    format!(
        r#"{{"auditID": "a", "stage": "ResponseComplete", "level": "Request",
            "stageTimestamp": "2026-11-24T10:00:00.1Z", {fields}}}"#
    )
    .replace('\n', " ")
}

/// An event of an act on a pod.
pub(super) fn of_pod(verb: &str, uri: &str, subresource: &str, code: u16, more: &str) -> String {
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
    let kept = r#", "requestObject": {"kind": "DeleteOptions", "apiVersion": "v1"}"#;
    let at = |level: &str, event: String| event.replace("\"Request\"", &format!("\"{level}\""));
    let of_all = |more: &str| {
        of_pod("deletecollection", "/x", "", 200, more).replace(r#", "name": "web-1""#, "")
    };
    let claim = || effect("k8s.delete k8s:shop/pods/web-1?");
    let of_group = |group: &str, event: String| {
        event.replace(
            r#""namespace""#,
            &format!(r#""apiGroup": "{group}", "namespace""#),
        )
    };
    for (event, expected) in [
        // The body of a delete says if it was a dry run; the body replaces the query.
        (of_pod("delete", "/x", "", 200, kept), effect("k8s.delete k8s:shop/pods/web-1")),
        (of_pod("delete", "/x?dryRun=All", "", 200, kept), effect("k8s.delete k8s:shop/pods/web-1")),
        (at("Metadata", of_pod("delete", "/x", "", 200, "")), claim()),
        (at("Metadata", of_pod("delete", "/x?dryRun=All", "", 200, "")), nothing()),
        (of_pod("delete", "/x", "", 200, r#", "annotations": {"audit.k8s.io/truncated": "true"}"#), claim()),
        (of_pod("delete", "/x", "", 200, kept).replace(r#""level": "Request","#, ""), claim()),
        (of_pod("delete", "/x", "", 200, kept).replace(r#""requestURI": "/x","#, ""), claim()),
        (of_pod("delete", "/x", "", 200, r#", "requestObject": {"dryRun": ["Most"]}"#), claim()),
        (of_group("shop.example", of_pod("delete", "/x", "", 200, "")), effect("k8s.delete k8s:shop/pods.shop.example/web-1?")),
        (at("Metadata", of_pod("create", "/x", "eviction", 201, "")), effect("k8s.pods/eviction k8s:shop/pods/web-1?")),
        (of_pod("create", "/x?dryRun=All", "eviction", 201, r#", "requestObject": {"kind": "Eviction"}"#), nothing()),
        // The query of any other request says if it was a dry run; a value that the API server does not
        // accept means no dry run.
        (at("Metadata", of_pod("patch", "/x?a&dryRun=%41ll", "", 200, "")), nothing()),
        (at("Metadata", of_pod("patch", "/x", "", 200, "")), effect("k8s.patch k8s:shop/pods/web-1")),
        (of_pod("patch", "/x?dryRun=All%zz", "", 200, ""), effect("k8s.patch k8s:shop/pods/web-1?")),
        (of_pod("patch", "/x?fieldManager=x?dryRun=All", "", 200, ""), effect("k8s.patch k8s:shop/pods/web-1?")),
        (of_pod("patch", "/x?a;dryRun=All", "", 200, ""), effect("k8s.patch k8s:shop/pods/web-1?")),
        (of_pod("create", "/x?dryRun=All", "token", 201, ""), effect("k8s.pods/token k8s:shop/pods/web-1?")),
        (of_pod("patch", "/x", "", 200, "").replace("ResponseComplete", "Panic"), effect("k8s.patch k8s:shop/pods/web-1?")),
        (
            of_group("subresources.kubevirt.io", of_pod("update", "/x", "stop", 202, r#", "requestObject": {"dryRun": ["All"]}"#)),
            nothing(),
        ),
        (
            of_group("subresources.kubevirt.io", of_pod("update", "/x", "stop", 202, "")),
            effect("k8s.pods.subresources.kubevirt.io/stop k8s:shop/pods.subresources.kubevirt.io/web-1?"),
        ),
        // The effects on a collection are the objects that the answer lists.
        (of_all(kept), effect("k8s.deletecollection k8s:shop/pods?")),
        (of_all(r#", "responseObject": {"kind": "PodList", "items": []}"#), nothing()),
        (of_all(r#", "responseObject": {"kind": "PodList"}"#), nothing()),
        (of_all(r#", "responseObject": {"kind": "Status", "status": "Success"}"#), effect("k8s.deletecollection k8s:shop/pods?")),
        (of_all(body), nothing()),
        (
            at("Metadata", of_all(r#", "responseObject": {"items": [{"metadata": {"name": "a"}}]}"#)),
            effect("k8s.deletecollection k8s:shop/pods/a?"),
        ),
        (
            of_all(r#", "responseObject": {"items": [{"metadata": {"name": "a", "namespace": "b"}}]}"#)
                .replace(r#" "namespace": "shop""#, r#" "apiVersion": "v1""#),
            effect("k8s.deletecollection k8s:b/pods/a"),
        ),
        (of_pod("delete", "/x", "", 200, ""), effect("k8s.delete k8s:shop/pods/web-1")),
        (of_pod("delete", "/x?a=b&dryRun=All", "", 200, ""), nothing()),
        (of_pod("delete", "/x?d%72yRu%6e=All", "", 200, ""), nothing()),
        (of_pod("delete", "/x?fieldManager=dryRun", "", 200, ""), effect("k8s.delete k8s:shop/pods/web-1")),
        (of_pod("delete", "/x", "", 200, body), nothing()),
        (of_pod("create", "/x", "eviction", 201, eviction), nothing()),
        (
            of_pod("create", "/x", "eviction", 201, r#", "requestObject": {"kind": "Eviction"}"#),
            effect("k8s.pods/eviction k8s:shop/pods/web-1"),
        ),
        (of_pod("create", "/x", "eviction", 429, ""), nothing()),
        (of_pod("create", "/x", "binding", 201, ""), effect("k8s.pods/binding k8s:shop/pods/web-1")),
        (of_pod("patch", "/x", "status", 200, ""), effect("k8s.pods/status k8s:shop/pods/web-1")),
        (of_pod("patch", "/x", "", 200, ""), effect("k8s.patch k8s:shop/pods/web-1")),
        (of_pod("patch", "/x", "ephemeralcontainers", 200, ""), effect("k8s.pods/ephemeralcontainers k8s:shop/pods/web-1")),
        // An exec runs even if the caller adds dryRun to the query.
        (of_pod("get", "/x/exec?command=rm&dryRun=All", "exec", 101, ""), effect("k8s.pods/exec k8s:shop/pods/web-1")),
        (of_pod("get", "/x/attach", "attach", 101, ""), effect("k8s.pods/attach k8s:shop/pods/web-1")),
        (of_pod("create", "/x/portforward", "portforward", 101, ""), effect("k8s.pods/portforward k8s:shop/pods/web-1")),
        (of_pod("get", "/x/exec", "exec", 403, ""), nothing()),
        (of_pod("get", "/x/proxy/metrics", "proxy", 200, ""), nothing()),
        (of_pod("create", "/x/proxy/orders", "proxy", 200, ""), effect("k8s.pods/proxy k8s:shop/pods/web-1")),
        (of_pod("get", "/api/v1/nodes/n/proxy/exec/shop/web-1/c?command=rm", "proxy", 101, ""), effect("k8s.pods/proxy k8s:shop/pods/web-1")),
        (of_pod("get", "/api/v1/nodes/n/proxy/%65xec/shop/web-1/c?command=rm", "proxy", 101, ""), effect("k8s.pods/proxy k8s:shop/pods/web-1")),
        (of_pod("get", "/x/log", "log", 200, ""), nothing()),
        (of_pod("watch", "/x", "", 200, ""), nothing()),
        (of_pod("delete", "/x", "", 404, ""), nothing()),
        (of_pod("delete", "/x", "", 200, "").replace("ResponseComplete", "RequestReceived"), nothing()),
        (of_pod("delete", "/x", "", 500, "").replace("ResponseComplete", "Panic"), nothing()),
        // Another group's pods are other things.
        (
            of_pod("delete", "/x", "", 200, "").replace(r#""namespace""#, r#""apiGroup": "metrics.k8s.io", "namespace""#),
            effect("k8s.delete k8s:shop/pods.metrics.k8s.io/web-1?"),
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
            effect("k8s.deletecollection k8s:shop/pods?"),
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
        (
            r#"{"category": "guard", "properties": {"log": "I1124 a line"}}"#.to_owned(),
            nothing(),
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
    assert_eq!((seen[0].doubts.len(), seen[0].effects.len()), (1, 0));
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
                // The log did not keep the body of this request.
                "k8s.delete k8s:namespaces/old-shop?".to_owned(),
            ],
            nothing: 3,
            bad: 0,
        }
    );
    assert_eq!(seen[0].reference, "0d5b4f9e-0000-4000-8000-000000000001");
    // Events may be wrapped: a list in a message, text in text, or both.
    let line = log.lines().nth(1).unwrap();
    let text = serde_json::to_string(line).unwrap();
    for wrapped in [
        format!(r#"{{"log": {text}}}"#),
        format!(r#"{{"events": [{{"message": {text}}}]}}"#),
        format!(r#"{{"records": [{{"properties": {{"log": {text}}}}}]}}"#),
        format!(r#"{{"kind": "EventList", "items": [{line}]}}"#),
        format!(r#"{{"_source": {line}}}"#),
        format!(r#"[[{line}]]"#),
        text.clone(),
    ] {
        let (again, _) = of_text("kubernetes", &wrapped);
        assert_eq!(again.effects, found.effects[..1], "{wrapped}");
    }
}
