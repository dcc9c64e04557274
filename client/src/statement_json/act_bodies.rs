//! Authority and evidence in JSON: grants, decisions, approvals, observations, and what the ledger
//! itself says.

use deed_proto::v1;
use serde::{Deserialize, Serialize};

use super::{
    bodies::{AmountJson, EffectJson, Wire, is_absent, mirror, names, nested},
    commitment::CommitmentJson,
    hex_bytes::HexBytes,
};

nested!(
    LeafRefJson = LeafRef,
    OutsideTokenJson = OutsideToken,
    AssertionJson = Assertion
);

mirror!(
    LeafRefJson = LeafRef {
        leaf_index: u64,
        leaf_hash: HexBytes,
    } + {}
);
mirror!(OutsideTokenJson = OutsideToken {
    kind: String,
    value: String,
} + {
    key_thumbprint: HexBytes,
});
mirror!(GrantJson = Grant {
    subject: String,
    actions: Vec<String>,
    resources: Vec<String>,
    expires_us: i64,
} + {
    subject_key: HexBytes,
    not_before_us: i64,
    uses: u64,
    amount: Option<AmountJson>,
    parent: HexBytes,
    outside_token: Option<OutsideTokenJson>,
    gateways: Vec<String>,
});
mirror!(GrantAcceptedJson = GrantAccepted { grant: HexBytes } + {});
mirror!(RevocationJson = Revocation { grant: HexBytes } + { reason: String });
mirror!(DecisionJson = Decision {
    intent: Option<LeafRefJson>,
    verdict: VerdictName,
    engine: String,
} + {
    policy_version: String,
    policy_digest: HexBytes,
    reason: String,
});
mirror!(ApprovalJson = Approval {
    intent: Option<LeafRefJson>,
    verdict: VerdictName,
    shown: Option<CommitmentJson>,
    shown_at_us: i64,
    opened_at_us: i64,
    decided_at_us: i64,
    strength: StrengthName,
} + {
    rationale: String,
    assertion: Option<AssertionJson>,
});
mirror!(
    AssertionJson = Assertion {
        format: String,
        data: HexBytes,
    } + {}
);
mirror!(ObservationJson = Observation {
    effects: Vec<EffectJson>,
} + {
    intent: Option<LeafRefJson>,
    reference: String,
    observed_at_us: i64,
});
mirror!(
    FindingDispositionJson = FindingDisposition {
        leaf_index: u64,
        number: u32,
        kind: DispositionName,
        reviewed_by: String,
        reason: String,
    } + {}
);
mirror!(TickJson = Tick { due_us: i64 } + { clock_us: i64 });
mirror!(
    ClearanceJson = Clearance {
        intent: Option<LeafRefJson>,
        policy_leaf: u64,
        evidence: Vec<LeafRefJson>,
    } + {}
);
mirror!(TaskReceiptJson = TaskReceipt {
    through_leaf: u64,
    count: u64,
    digest: HexBytes,
    trust_head: Option<LeafRefJson>,
    assessment_digest: HexBytes,
} + {
    requested: bool,
});

names!(VerdictName = Verdict { Allow, Deny });
names!(
    StrengthName = AuthenticationStrength {
        SingleFactor,
        MultiFactor,
        PhishingResistant,
    }
);
names!(
    DispositionName = DispositionKind {
        Reviewed,
        Explained,
        Disputed,
    }
);
