//! The evidence for an Intent, and the part of it that is missing.

use std::fmt;

/// Evidence that is there for an Intent: `context.evidence` in the policies.
///
/// `decision` and the approvals can arrive after the Intent; the rest is fixed with it. Approvals
/// are counted once a controller, and only under another control than the agent's; an approval with
/// a stronger authentication counts as one with a weaker one too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The Intent is signed by a key in force.
    pub signed: bool,
    /// It relies on a grant that covers it.
    pub grant: bool,
    /// It commits to what the act is called with.
    pub arguments: bool,
    /// It commits to what led to it.
    pub prompt: bool,
    /// It names the model.
    pub model: bool,
    /// A policy engine allowed it.
    pub decision: bool,
    /// Number of approvals.
    pub approvals: u32,
    /// Number of approvers who were authenticated by two factors or better.
    pub approvals_multi_factor: u32,
    /// Number of approvers who were authenticated in a way that resists phishing.
    pub approvals_phishing_resistant: u32,
}

/// Evidence that a waiting Intent lacks. Numbers say how many more, and are not 0.
///
/// A stronger approval counts as a weaker one too, so the needs of one Intent overlap: `2 approvals`
/// beside `approval with multi-factor authentication` are two approvals, one of them with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// An allow by a policy engine.
    Decision,
    /// Approvals, however authenticated.
    Approvals(u32),
    /// Approvals with two factors or better.
    ApprovalsMultiFactor(u32),
    /// Approvals that resist phishing.
    ApprovalsPhishingResistant(u32),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, how) = match self {
            Self::Decision => return f.write_str("decision"),
            Self::Approvals(count) => (*count, ""),
            Self::ApprovalsMultiFactor(count) => (*count, " with multi-factor authentication"),
            Self::ApprovalsPhishingResistant(count) => {
                (*count, " with phishing-resistant authentication")
            }
        };
        match count {
            1 => write!(f, "approval{how}"),
            count => write!(f, "{count} approvals{how}"),
        }
    }
}

/// The text for a part of the evidence that is missing, and its place in the order.
type Part = (&'static str, fn(&mut Evidence) -> &mut bool);

/// The evidence that is fixed with the Intent, in the order in which it is spoken of.
pub(super) const FIXED: [Part; 5] = [
    ("needs a signature", |evidence| &mut evidence.signed),
    ("needs a grant", |evidence| &mut evidence.grant),
    ("needs arguments to be committed", |evidence| {
        &mut evidence.arguments
    }),
    ("needs the prompt to be committed", |evidence| {
        &mut evidence.prompt
    }),
    ("needs the model to be named", |evidence| {
        &mut evidence.model
    }),
];

/// The evidence of `wanted` that `there` lacks, which has no less of anything. Needs that others imply
/// are left out.
pub(super) fn missing(there: &Evidence, wanted: &Evidence) -> Vec<Need> {
    let more = |of: fn(&Evidence) -> u32| of(wanted).saturating_sub(of(there));
    let any = more(|evidence| evidence.approvals);
    let multi_factor = more(|evidence| evidence.approvals_multi_factor);
    let phishing_resistant = more(|evidence| evidence.approvals_phishing_resistant);
    let mut needs = Vec::new();
    if wanted.decision && !there.decision {
        needs.push(Need::Decision);
    }
    if any > multi_factor.max(phishing_resistant) {
        needs.push(Need::Approvals(any));
    }
    if multi_factor > phishing_resistant {
        needs.push(Need::ApprovalsMultiFactor(multi_factor));
    }
    if phishing_resistant > 0 {
        needs.push(Need::ApprovalsPhishingResistant(phishing_resistant));
    }
    needs
}
