//! The parties of a forged ledger, and their usual statements.

use bytes::Bytes;
use deed_evidence::{
    LedgerId, PayloadDigest,
    commitment::{Salt, commit},
    policy::DEFAULT_POLICIES,
    signature,
};
use deed_proto::v1::{self, AuthenticationStrength, KeyRole, RiskTier, Verdict, statement::Body};
use deed_tlog::SigningKey;

use super::{ForgedLedger, Place};
use crate::{
    keys::{AUTHORITY, authority, key, registration_as, signed},
    statements::{Producer, policy_set},
};

/// A party with a key and a session.
#[derive(Debug, Clone)]
pub struct Voice {
    /// The producer, which makes the session's statements.
    pub producer: Producer,
    /// The key that signs them.
    pub key: SigningKey,
    role: KeyRole,
    controller: &'static str,
}

impl Voice {
    /// Returns a party whose key and session are derived from a number. The key is not registered
    /// yet.
    #[must_use]
    pub fn new(
        ledger: LedgerId,
        number: u8,
        role: KeyRole,
        producer: &str,
        controller: &'static str,
    ) -> Self {
        Self {
            producer: Producer::new(ledger, number.into()).named(producer),
            key: key(number),
            role,
            controller,
        }
    }

    /// Returns the authority that [`ForgedLedger::new`] names.
    #[must_use]
    pub fn authority(ledger: LedgerId) -> Self {
        Self {
            producer: Producer::new(ledger, 900).named(AUTHORITY),
            key: authority(),
            role: KeyRole::Unspecified,
            controller: "",
        }
    }

    /// Makes the next payload of the party's session, of a task or of none.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    #[track_caller]
    pub fn payload(&mut self, task: Option<[u8; 16]>, body: Body) -> Bytes {
        let task = task
            .as_ref()
            .map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task));
        let message = v1::Statement {
            task,
            ..self.producer.message(body)
        };
        self.producer.take(&message)
    }

    /// Makes the next payload and returns it in a signed envelope.
    ///
    /// # Panics
    /// If the body breaks a rule of form.
    #[track_caller]
    pub fn envelope(&mut self, task: Option<[u8; 16]>, body: Body) -> v1::Envelope {
        signed(&self.payload(task, body), &self.key)
    }

    /// Returns the body that registers the party's key.
    #[must_use]
    pub fn registration(&self, ledger: LedgerId) -> Body {
        let (name, controller) = (self.producer.name(), self.controller);
        let said = registration_as(ledger, &self.key, self.role, name, controller);
        Body::KeyRegistered(said)
    }

    /// Returns the body that revokes the party's key, which counts as compromised since a time if
    /// one is given.
    #[must_use]
    pub fn revocation(&self, compromised_since_us: Option<i64>) -> Body {
        Body::KeyRevoked(v1::KeyRevoked {
            key_id: self.key_id(),
            compromised_since_us,
            reason: String::new(),
        })
    }

    /// Returns the id of the party's key.
    #[must_use]
    pub fn key_id(&self) -> Bytes {
        Bytes::copy_from_slice(signature::key_id(self.key.public_key()).as_bytes())
    }
}

/// All parties of a payment. Each has a controller of its own, except the last two, which have the
/// agent's.
#[derive(Debug, Clone)]
pub struct Cast {
    /// Owns the ledger.
    pub authority: Voice,
    /// Opens and closes tasks.
    pub platform: Voice,
    /// Acts.
    pub agent: Voice,
    /// Approves.
    pub approver: Voice,
    /// Decides by rules.
    pub engine: Voice,
    /// Observes payments.
    pub bank: Voice,
    /// Decides by rules, under the agent's controller.
    pub own_engine: Voice,
    /// Approves, under the agent's controller.
    pub own_approver: Voice,
}

impl Cast {
    /// Registers the keys of all parties and sets the policies that Deed ships.
    pub fn in_ledger(ledger: &mut ForgedLedger) -> Self {
        let mut cast = Self::of(ledger.id());
        for registered in [
            &cast.platform,
            &cast.agent,
            &cast.approver,
            &cast.engine,
            &cast.bank,
            &cast.own_engine,
            &cast.own_approver,
        ] {
            let said = registered.registration(ledger.id());
            ledger.says(&mut cast.authority, None, said);
        }
        ledger.says(&mut cast.authority, None, shipped_policies());
        cast
    }

    /// Returns all parties, before any statement is made.
    #[must_use]
    pub fn of(ledger: LedgerId) -> Self {
        let support = "https://shop.example/support";
        let voice = |number, role, name: &str, controller| {
            Voice::new(ledger, number, role, name, controller)
        };
        Self {
            authority: Voice::authority(ledger),
            platform: voice(
                9,
                KeyRole::Platform,
                "spiffe://shop.example/platform",
                "https://shop.example/operations",
            ),
            agent: voice(10, KeyRole::Agent, "spiffe://shop.example/agent", support),
            approver: voice(
                11,
                KeyRole::Approver,
                "spiffe://shop.example/approver",
                "https://shop.example/finance",
            ),
            engine: voice(
                12,
                KeyRole::PolicyEngine,
                "spiffe://shop.example/engine",
                "https://shop.example/security",
            ),
            bank: voice(
                13,
                KeyRole::DownstreamSystem,
                "spiffe://bank.example/payments",
                "https://bank.example",
            ),
            own_engine: voice(
                14,
                KeyRole::PolicyEngine,
                "spiffe://shop.example/own-engine",
                support,
            ),
            own_approver: voice(
                15,
                KeyRole::Approver,
                "spiffe://shop.example/own-approver",
                support,
            ),
        }
    }
}

/// Returns the id of the task that a party opens with a nonce; no other function computes one.
#[must_use]
pub fn task_id(ledger: LedgerId, opener: &str, nonce: [u8; 16]) -> [u8; 16] {
    let named = [
        b"deed/task-id/v1\0",
        &ledger.as_bytes()[..],
        &nonce,
        opener.as_bytes(),
    ]
    .concat();
    let digest = PayloadDigest::of(&named);
    std::array::from_fn(|at| digest.as_bytes()[at])
}

/// Returns the body that opens a task with the id of [`task_id`].
#[must_use]
pub fn task_opened(nonce: [u8; 16], tier: RiskTier) -> Body {
    Body::TaskOpened(v1::TaskOpened {
        requested_by: "ticket:4711".to_owned(),
        risk_tier: tier.into(),
        nonce: Bytes::copy_from_slice(&nonce),
        ..v1::TaskOpened::default()
    })
}

/// Returns the body that closes a task.
#[must_use]
pub fn task_closed() -> Body {
    Body::TaskClosed(v1::TaskClosed {
        end: v1::TaskEnd::Completed.into(),
        reason: String::new(),
    })
}

/// Returns the policies that Deed ships, which require a decision and an approval of payments.
#[must_use]
pub fn shipped_policies() -> Body {
    Body::PolicySet(policy_set(DEFAULT_POLICIES))
}

/// Returns a commitment to bytes that are not stored.
#[must_use]
pub fn committed(number: u8) -> v1::Commitment {
    commit(&Salt::from_bytes([number; 32]), &[number], "text/plain")
}

/// Returns an amount in euro cents.
#[must_use]
pub fn euros(minor_units: i64) -> v1::Amount {
    v1::Amount {
        minor_units,
        currency: "EUR".to_owned(),
    }
}

/// Returns the effect of a refund.
#[must_use]
pub fn refunded(cents: i64) -> v1::Effect {
    v1::Effect {
        kind: "payments.refund".to_owned(),
        resource: "order/7".to_owned(),
        amount: Some(euros(cents)),
        ..v1::Effect::default()
    }
}

/// Returns an authority's grant to refund orders until a time.
#[must_use]
pub fn grant(subject: &Voice, expires_us: i64) -> Body {
    Body::Grant(v1::Grant {
        subject: subject.producer.name().to_owned(),
        actions: vec!["payments.refund".to_owned()],
        resources: vec!["order/*".to_owned()],
        expires_us,
        uses: 10,
        amount: Some(euros(100_000)),
        ..v1::Grant::default()
    })
}

/// Returns an Intent to refund under a grant, with all commitments that the shipped policies
/// require.
#[must_use]
pub fn intent(grant: Option<&Place>, cents: i64) -> Body {
    Body::Intent(v1::Intent {
        action: "payments.refund".to_owned(),
        resource: "order/7".to_owned(),
        amount: Some(euros(cents)),
        grant: grant.map_or_else(Bytes::new, |grant| grant.leaf_ref().leaf_hash),
        arguments: Some(committed(1)),
        prompt: Some(committed(2)),
        ..v1::Intent::default()
    })
}

/// Returns a policy engine's decision.
#[must_use]
pub fn decision(intent: &Place, verdict: Verdict) -> Body {
    Body::Decision(v1::Decision {
        intent: Some(intent.leaf_ref()),
        verdict: verdict.into(),
        engine: "opa".to_owned(),
        ..v1::Decision::default()
    })
}

/// Returns an approver's decision, a minute after it was shown.
#[must_use]
pub fn approval(intent: &Place, verdict: Verdict, decided_at_us: i64) -> Body {
    Body::Approval(v1::Approval {
        intent: Some(intent.leaf_ref()),
        verdict: verdict.into(),
        shown: Some(committed(5)),
        shown_at_us: decided_at_us - 60_000_000,
        opened_at_us: decided_at_us - 60_000_000,
        decided_at_us,
        strength: AuthenticationStrength::MultiFactor.into(),
        ..v1::Approval::default()
    })
}

/// Returns the Outcome of an Intent of [`intent`].
#[must_use]
pub fn outcome(intent: &Place, cents: i64) -> Body {
    Body::Outcome(v1::Outcome {
        intent: Some(intent.statement_ref()),
        status: v1::OutcomeStatus::Succeeded.into(),
        effects: vec![refunded(cents)],
        tool_call: Some(committed(3)),
        response: Some(committed(4)),
        arguments: Some(committed(1)),
        ..v1::Outcome::default()
    })
}

/// Returns the bank's Observation of an Intent's effect.
#[must_use]
pub fn observation(intent: &Place, cents: i64) -> Body {
    Body::Observation(v1::Observation {
        intent: Some(intent.leaf_ref()),
        effects: vec![refunded(cents)],
        ..v1::Observation::default()
    })
}
