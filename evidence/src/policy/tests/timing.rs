use super::*;
#[test]
fn timing() {
    let policy = default_policy();
    let waits = Evidence {
        decision: false,
        approvals: 0,
        ..FULL
    };
    let run = |name: &str, policy: &EvidencePolicy, request: &Request<'_>| {
        for _ in 0..200 {
            std::hint::black_box(policy.judge(request));
        }
        let n = 2000;
        let mut best = std::time::Duration::MAX;
        for _ in 0..5 {
            let t = std::time::Instant::now();
            for _ in 0..n {
                std::hint::black_box(policy.judge(std::hint::black_box(request)));
            }
            best = best.min(t.elapsed() / n);
        }
        let mut judging = policy.judging();
        judging.judge(request);
        println!(
            "{name}: {best:?} for {} units, {:.1} ns each; estimate {:?}",
            judging.spent(),
            best.as_nanos() as f64 / judging.spent() as f64,
            policy.cost()
        );
    };
    for (name, evidence) in [
        ("clears", FULL),
        ("waits", waits),
        (
            "lacks",
            Evidence {
                signed: false,
                ..FULL
            },
        ),
    ] {
        run(name, &policy, &request(RiskTier::Payment, evidence));
    }
    let a = "a".repeat(1024);
    let dear = |text: String, evidence| match EvidencePolicy::compile(&text, DEFAULT_SCHEMA) {
        Ok(p) => run(
            &text[..text.len().min(150)].replace('\n', " "),
            &p,
            &Request {
                resource: &a,
                controller: Some(&a[..512]),
                agent: &a[..512],
                ..request(RiskTier::Low, evidence)
            },
        ),
        Err(e) => println!("REFUSED {e}"),
    };
    let permit = |c: &str| format!("permit (principal, action, resource) when {{ {c} }};");
    dear(
        permit(&format!("resource.name like \"*{}b\"", "a".repeat(60))).repeat(3),
        FULL,
    );
    dear(permit("resource.name like \"orders/*\"").repeat(60), FULL);
    dear(permit("resource == Resource::\"x\"").repeat(150), FULL);
    dear(permit("principal in Agent::\"x\"").repeat(120), FULL);
    dear(permit("principal.controller == \"x\"").repeat(120), FULL);
    dear(
        permit(&format!(
            "[{}].contains(context.tier)",
            (0..200)
                .map(|n| format!("\"{n}\""))
                .collect::<Vec<_>>()
                .join(",")
        )),
        FULL,
    );
    dear(
        permit(&format!(
            "[{}].containsAny([{}])",
            vec!["context"; 20].join(","),
            vec!["context"; 19].join(",")
        )),
        FULL,
    );
    dear(
        permit(&format!(
            "[{}].contains(context.tier)",
            vec!["resource.name"; 60].join(",")
        )),
        FULL,
    );
    dear(
        permit(&format!(
            "[{}].containsAll([{}])",
            (0..100)
                .map(|n| format!("\"{n}\""))
                .collect::<Vec<_>>()
                .join(","),
            (0..40)
                .map(|n| format!("\"{n}\""))
                .collect::<Vec<_>>()
                .join(",")
        )),
        FULL,
    );
    dear(
        permit(&vec!["context.evidence.approvals + 1 > 3"; 30].join(" || ")),
        waits,
    );
    dear(permit("context.evidence.approvals * 1 >= 16"), waits);
    dear(
        permit("{a: context, b: {c: context}} == {a: context, b: {c: context}}").repeat(20),
        FULL,
    );
    dear(
        format!(
            "permit (principal, action in [{}], resource);",
            vec!["Action::\"any\""; 200].join(",")
        ),
        FULL,
    );
}
