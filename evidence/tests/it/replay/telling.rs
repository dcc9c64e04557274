//! What is told: whatever anybody may say of what there is.

use super::*;

impl Story {
    pub(crate) fn new(mut ledger: Ledger, policy: bool) -> Self {
        if policy {
            ledger.set_default_policy();
        }
        Self {
            ledger,
            seconds: 0,
            intents: Vec::new(),
            grants: Vec::new(),
            cleared: HashSet::new(),
            checked: 0,
            spent: HashMap::new(),
        }
    }

    pub(super) fn intent(&self, n: u8) -> Option<Place> {
        let newest = self.intents.len().checked_sub(1 + usize::from(n) % 4)?;
        self.intents.get(newest).cloned()
    }

    pub(super) fn grant(&self, n: u8) -> Option<Place> {
        let newest = self.grants.len().checked_sub(1 + usize::from(n) % 4)?;
        self.grants.get(newest).cloned()
    }

    /// The one who should, or somebody else.
    pub(super) fn who(&self, op: Op, usual: Who) -> Who {
        match op.who {
            0 => ANYBODY,
            n @ 1..=4 => CAST[(usize::from(n) + usize::from(op.a)) % CAST.len()],
            _ => usual,
        }
    }

    pub(crate) fn play(&mut self, op: Op) {
        self.seconds += match op.wait {
            0..8 => 0,
            8..12 => 1,
            12..15 => 40,
            _ => 4000,
        };
        self.ledger.at(self.seconds);
        let said = self.say(op);
        // What is refused leaves no trace.
        if let Some(Ok(place)) = said {
            match statement::parse(&place.payload).unwrap().body.name() {
                "intent" if !place.kinds().contains(&FindingKind::Equivocation) => {
                    self.intents.push(place);
                }
                "grant" => self.grants.push(place),
                _ => {}
            }
        }
        if op.b > 240 {
            self.give_evidence(op.a.is_multiple_of(2));
        }
        if (225..=240).contains(&op.b) {
            self.hand_on();
        }
        self.check();
    }

    /// The newest grant handed on, accepted and used, each by those who may.
    pub(super) fn hand_on(&mut self) {
        let Some(parent) = self.grants.last().cloned() else {
            return;
        };
        let (task, holder) = (self.task_of(&parent), self.subject(&parent));
        let next = if holder == AGENT { HELPER } else { AGENT };
        let limits = self.ledger.grant(parent.hash);
        let mut part = delegated(next, parent.hash);
        part.expires_us = limits.expires_us;
        part.uses = limits.uses;
        part.amount = limits.minor_units.map(amount);
        let part = self
            .ledger
            .try_say(holder, Some(task), Body::Grant(part), |_| {});
        let Ok(part) = part else { return };
        let act = Body::Intent(intent("orders/1", 1, Some(part.hash)));
        for body in [accepted(part.hash), act] {
            let _ = self.ledger.try_say(next, Some(task), body, |_| {});
        }
    }

    /// What the newest Intent that waits is waiting for, by those who may say it: by chance alone
    /// that hardly ever comes together.
    pub(super) fn give_evidence(&mut self, and_do_it: bool) {
        let waits = |place: &&Place| self.ledger.act(place.leaf).state() == IntentState::Waiting;
        let Some(of) = self.intents.iter().rev().find(waits).cloned() else {
            return;
        };
        let (task, now) = (self.task_of(&of), self.ledger.now());
        for (who, body) in [
            (ENGINE, decision(&of, Verdict::Allow)),
            (APPROVER, approval(&of, Verdict::Allow, now)),
        ] {
            // A key that was revoked says nothing.
            let _ = self.ledger.try_say(who, Some(task), body, |_| {});
        }
        if and_do_it {
            let mut done = outcome(&of, OutcomeStatus::Succeeded, Vec::new());
            if let Body::Outcome(made) = &mut done {
                made.tool_call = None;
            }
            let _ = self.ledger.try_say(AGENT, Some(task), done, |_| {});
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each body")]
    pub(super) fn say(&mut self, op: Op) -> Option<Result<Place, Refused>> {
        let Op { task, a, b, .. } = op;
        let task_id = Some(task);
        let (who, body) = match op.kind {
            0..3 => {
                let tier =
                    [RiskTier::Low, RiskTier::Payment, RiskTier::Deletion][usize::from(a % 3)];
                let deadline = if b.is_multiple_of(3) {
                    self.seconds + i64::from(b) + 1
                } else {
                    0
                };
                (self.who(op, PLATFORM), task_opened(tier, deadline))
            }
            3 => (self.who(op, PLATFORM), task_closed()),
            4..8 => {
                let subject = if a.is_multiple_of(4) { HELPER } else { AGENT };
                let mut grant = grant(subject);
                grant.uses = u64::from(b % 4);
                if b.is_multiple_of(3) {
                    grant.amount = Some(amount(i64::from(b) * 10));
                }
                if b.is_multiple_of(7) {
                    grant.expires_us = seconds(self.seconds + 60);
                }
                if b.is_multiple_of(11) {
                    grant.outside_token = Some(v1::OutsideToken {
                        kind: "jti".into(),
                        value: "token-1".into(),
                        key_thumbprint: Bytes::new(),
                    });
                }
                (self.who(op, AUTHORITY), Body::Grant(grant))
            }
            8..11 => {
                let parent = self.grant(a)?;
                let usual = self.subject(&parent);
                let next = if usual == AGENT { HELPER } else { AGENT };
                let limits = self.ledger.grant(parent.hash);
                let mut grant = delegated(next, parent.hash);
                grant.expires_us = limits.expires_us;
                grant.uses = limits.uses.saturating_sub(u64::from(b % 2));
                grant.amount = limits
                    .minor_units
                    .map(|most| amount(most - i64::from(b % 2)));
                match b {
                    0..20 => grant.uses += 1,
                    20..40 => grant.amount = None,
                    40..60 => grant.resources = vec!["*".into()],
                    60..80 => grant.expires_us += 1,
                    _ => {}
                }
                let task = self.task_of(&parent);
                let who = self.who(op, usual);
                return Some(
                    self.ledger
                        .try_say(who, Some(task), Body::Grant(grant), |_| {}),
                );
            }
            11..14 => {
                let grant = self.grant(a)?;
                let who = self.who(op, self.subject(&grant));
                let task = if b < 20 { task } else { self.task_of(&grant) };
                let body = accepted(grant.hash);
                return Some(self.ledger.try_say(who, Some(task), body, |_| {}));
            }
            14..21 => {
                let grant = self.grant(a);
                let usual = grant.as_ref().map_or(AGENT, |grant| self.subject(grant));
                let mut body = intent(&format!("orders/{}", b % 5), i64::from(b), None);
                let mut task = task;
                if let Some(grant) = grant {
                    body.grant = Bytes::copy_from_slice(grant.hash.as_bytes());
                    if b > 20 {
                        task = self.task_of(&grant);
                    }
                }
                match b {
                    0..10 => body.grant = vec![b; 32].into(),
                    10..20 => {
                        body.grant = Bytes::new();
                        if b.is_multiple_of(2) {
                            body.amount = None;
                        }
                    }
                    20..30 => body.resource = "mail/7".into(),
                    30..40 => body.amount = None,
                    40..50 => body.amount = Some(amount(-1)),
                    50..60 => body.prompt = None,
                    60..100 => body.deadline_us = seconds(self.seconds + 30),
                    _ => {}
                }
                let who = self.who(op, usual);
                let key = |made: &mut v1::Statement| {
                    if b.is_multiple_of(2) {
                        made.correlation_keys = vec![v1::CorrelationKey {
                            kind: "order".into(),
                            value: (b % 5).to_string(),
                        }];
                    }
                };
                return Some(
                    self.ledger
                        .try_say(who, Some(task), Body::Intent(body), key),
                );
            }
            21..24 => {
                let mut of = self.intent(a)?;
                let verdict = if b < 30 {
                    Verdict::Deny
                } else {
                    Verdict::Allow
                };
                let task = self.off(&mut of, b, task);
                let who = self.who(op, ENGINE);
                return Some(
                    self.ledger
                        .try_say(who, Some(task), decision(&of, verdict), |_| {}),
                );
            }
            24..27 => {
                let mut of = self.intent(a)?;
                let verdict = if b < 30 {
                    Verdict::Deny
                } else {
                    Verdict::Allow
                };
                let task = self.off(&mut of, b, task);
                let usual = if b.is_multiple_of(5) {
                    SECOND
                } else {
                    APPROVER
                };
                let who = self.who(op, usual);
                let mut body = approval(&of, verdict, self.ledger.now());
                if let (Body::Approval(body), 200..220) = (&mut body, b) {
                    body.opened_at_us = body.decided_at_us - 1;
                }
                return Some(self.ledger.try_say(who, Some(task), body, |_| {}));
            }
            27..30 => {
                let of = self.intent(a)?;
                let status = match b % 7 {
                    0 => OutcomeStatus::NotDone,
                    1 => OutcomeStatus::Failed,
                    2 => OutcomeStatus::Reverted,
                    _ => OutcomeStatus::Succeeded,
                };
                let effects = vec![effect("orders/1", i64::from(b % 3)); usize::from(b % 3)];
                let mut body = outcome(&of, status, effects);
                if let Body::Outcome(body) = &mut body {
                    match b {
                        0..10 => body.intent.as_mut().unwrap().payload_digest = vec![b; 32].into(),
                        10..20 => body.arguments = Some(committed("other")),
                        20..30 => body.response = None,
                        _ => body.arguments = Some(committed("intent.arguments")),
                    }
                }
                let task = if b < 240 { self.task_of(&of) } else { task };
                let who = self.who(op, AGENT);
                return Some(self.ledger.try_say(who, Some(task), body, |_| {}));
            }
            30..32 => {
                let of = self.intent(a);
                let named = of.as_ref().filter(|_| b.is_multiple_of(2));
                let effects = vec![effect("orders/1", i64::from(b % 3)); 1 + usize::from(b % 3)];
                let who = self.who(op, DOWNSTREAM);
                let task = match (&of, b) {
                    (Some(of), 40..) => Some(self.task_of(of)),
                    (_, 0..20) => None,
                    _ => Some(task),
                };
                let keys = |made: &mut v1::Statement| {
                    made.correlation_keys = vec![
                        v1::CorrelationKey {
                            kind: "jti".into(),
                            value: "token-1".into(),
                        },
                        v1::CorrelationKey {
                            kind: "order".into(),
                            value: (b % 5).to_string(),
                        },
                    ];
                };
                let body = observation(named, effects);
                return Some(self.ledger.try_say(who, task, body, keys));
            }
            32 => {
                let who = self.who(op, AGENT);
                let next = self.ledger.statement(who, None, heartbeat(0, 0)).sequence;
                (who, heartbeat(next, i64::from(b)))
            }
            33 => {
                let grant = self.grant(a)?;
                let task = if b < 30 { task } else { self.task_of(&grant) };
                let body = revocation(grant.hash);
                return Some(self.ledger.try_say(AUTHORITY, Some(task), body, |_| {}));
            }
            34 => {
                // Seldom, for nobody can speak any more after some of them.
                let who = CAST[usize::from(a) % CAST.len()];
                let since = b.is_multiple_of(2).then_some(1);
                return (op.who < 2).then(|| {
                    let body = key_revoked(who, since);
                    self.ledger.try_say(AUTHORITY, None, body, |_| {})
                });
            }
            35 => {
                let found: Vec<_> = self.ledger.kept.findings.keys().copied().collect();
                let (leaf, number) = found.get(usize::from(a)).copied().unwrap_or((1, 1));
                let body = Body::FindingDisposition(v1::FindingDisposition {
                    leaf_index: leaf,
                    number,
                    kind: DispositionKind::Explained.into(),
                    reviewed_by: "https://example.org/people/eve".into(),
                    reason: "seen".into(),
                });
                return Some(self.ledger.try_say(AUTHORITY, None, body, |_| {}));
            }
            36 => {
                self.batch(op);
                return None;
            }
            37 => {
                self.ledger.tick();
                return None;
            }
            38 => {
                self.ledger.request_receipt(task);
                return None;
            }
            _ => {
                let first = self.intent(a)?;
                let who = AGENT;
                let body = Body::Intent(intent("orders/9", i64::from(b), None));
                return Some(self.ledger.equivocate(who, &first, task_id, body));
            }
        };
        Some(self.ledger.try_say(who, task_id, body, |_| {}))
    }

    /// An Intent, what came of it, and evidence for an earlier one, under one signature.
    pub(super) fn batch(&mut self, op: Op) {
        let who = self.who(op, AGENT);
        let task = Some(op.task);
        let wanted = intent(
            "orders/1",
            i64::from(op.b),
            self.grant(op.a).map(|g| g.hash),
        );
        let wanted = Body::Intent(wanted);
        let made = self.ledger.statement(who, task, wanted.clone());
        let payload = statement::encode(&made).unwrap();
        let digest = deed_evidence::PayloadDigest::of(&payload);
        let done = Body::Outcome(v1::Outcome {
            intent: Some(v1::StatementRef {
                session: Bytes::new(),
                sequence: made.sequence,
                payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
            }),
            status: OutcomeStatus::Succeeded.into(),
            ..v1::Outcome::default()
        });
        let mut bodies = vec![(task, wanted), (task, done.clone()), (task, done)];
        if let Some(of) = self.intent(op.a) {
            let now = self.ledger.now();
            let task = Some(self.task_of(&of));
            bodies.push((task, decision(&of, Verdict::Allow)));
            bodies.push((task, approval(&of, Verdict::Allow, now)));
            bodies.push((task, approval(&of, Verdict::Deny, now)));
        }
        if let Ok(places) = self.ledger.try_say_batch(who, bodies) {
            self.intents.push(places[0].clone());
        }
    }

    /// Refers to another Intent than it says, or in another task.
    pub(super) fn off(&self, of: &mut Place, b: u8, task: u8) -> u8 {
        match b {
            240.. => task,
            230..240 => {
                of.hash = Hash::new([b; 32]);
                self.task_of(of)
            }
            220..230 => {
                of.leaf += 1;
                self.task_of(of)
            }
            _ => self.task_of(of),
        }
    }

    pub(super) fn task_of(&self, place: &Place) -> u8 {
        let header = statement::parse(&place.payload).unwrap();
        let of = |task: &u8| header.task == Some(self.ledger.task_id(*task));
        (0..=u8::MAX).find(of).unwrap_or(1)
    }

    pub(super) fn subject(&self, grant: &Place) -> Who {
        if self.ledger.grant(grant.hash).subject == AGENT.producer {
            AGENT
        } else {
            HELPER
        }
    }
}
