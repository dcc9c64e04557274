//! From Cedar's yes and no to what becomes of an Intent.

use super::{
    Duties, Evidence, Need, Request,
    compile::Compiled,
    evaluate::{Answer, Question},
    evidence::{FIXED, missing},
};

/// More approvals than this are not waited for.
const APPROVALS_MAX: u32 = 16;

/// What the policy says of an Intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It may be acted on.
    Cleared(Duties),
    /// Evidence is missing that may still come.
    Waiting {
        /// The least that is enough: not empty, each kind at most once, in ascending order.
        missing: Vec<Need>,
        /// What will be owed once it is cleared with no more than that.
        duties: Duties,
    },
    /// It must not be, whatever still comes.
    Denied {
        /// The policies that forbid it, or the fixed evidence that it lacks, or that nothing
        /// permits it: not empty; policies by their names, sorted.
        reasons: Vec<String>,
    },
    /// The policies could not be evaluated, which counts as no.
    Error {
        /// Cedar's words, sorted: not empty.
        diagnostics: Vec<String>,
    },
}

pub(super) fn judge(compiled: &Compiled, request: &Request<'_>) -> Ruling {
    let question = match Question::new(compiled, request) {
        Ok(question) => question,
        Err(diagnostics) => return Ruling::Error { diagnostics },
    };
    let there = &request.evidence;
    match question.ask(there) {
        Answer::Allow(duties) => return Ruling::Cleared(duties),
        Answer::Error(diagnostics) => return Ruling::Error { diagnostics },
        Answer::Deny(_) => {}
    }
    let most = obtainable(there);
    match question.ask(&most) {
        Answer::Allow(duties) => {
            let (least, duties) = least(&question, there, most, duties);
            let missing = missing(there, &least);
            Ruling::Waiting { missing, duties }
        }
        Answer::Error(diagnostics) => Ruling::Error { diagnostics },
        Answer::Deny(forbids) if forbids.is_empty() => Ruling::Denied {
            reasons: what_was_lacking(&question, most),
        },
        Answer::Deny(reasons) => Ruling::Denied { reasons },
    }
}

/// All evidence that can still come has come.
fn obtainable(there: &Evidence) -> Evidence {
    Evidence {
        decision: true,
        approvals: APPROVALS_MAX.max(there.approvals),
        approvals_multi_factor: APPROVALS_MAX.max(there.approvals_multi_factor),
        approvals_phishing_resistant: APPROVALS_MAX.max(there.approvals_phishing_resistant),
        ..*there
    }
}

/// The least evidence between `there` and `most` that is allowed, as `most` is, and its duties.
///
/// In this order: without a decision if that is enough; the fewest approvals, were they all of the
/// strongest kind; then the fewest of the strongest kind, then of the one below. One kind is never
/// more than the kind that it is a part of. Policies need not be monotone (`approvals == 2`), so
/// every number is tried, from below; each step keeps what the steps before it found.
fn least(
    question: &Question<'_>,
    there: &Evidence,
    most: Evidence,
    duties: Duties,
) -> (Evidence, Duties) {
    let first_allowed = |best, mut candidates: Box<dyn Iterator<Item = Evidence>>| {
        candidates
            .find_map(|evidence| Some((evidence, question.allows(&evidence)?)))
            .unwrap_or(best)
    };
    let decision = there.decision;
    let best = first_allowed(
        (most, duties),
        Box::new(std::iter::once(Evidence { decision, ..most })),
    );

    let (base, there) = (best.0, *there);
    let fewest = (there.approvals..=base.approvals).map(move |approvals| Evidence {
        approvals,
        approvals_multi_factor: approvals.max(there.approvals_multi_factor),
        approvals_phishing_resistant: approvals.max(there.approvals_phishing_resistant),
        ..base
    });
    let best = first_allowed(best, Box::new(fewest));

    let base = best.0;
    let counts = there.approvals_phishing_resistant..=base.approvals_phishing_resistant;
    let fewest = counts.map(move |approvals_phishing_resistant| Evidence {
        approvals_phishing_resistant,
        ..base
    });
    let best = first_allowed(best, Box::new(fewest));

    let base = best.0;
    let lowest = base.approvals_phishing_resistant;
    let counts = there.approvals_multi_factor.max(lowest)..=base.approvals_multi_factor;
    let fewest = counts.map(move |approvals_multi_factor| Evidence {
        approvals_multi_factor,
        ..base
    });
    first_allowed(best, Box::new(fewest))
}

/// What the Intent itself should have had. `most` is denied, and by no forbid.
fn what_was_lacking(question: &Question<'_>, most: Evidence) -> Vec<String> {
    let mut whole = most;
    for (_, part) in FIXED {
        *part(&mut whole) = true;
    }
    if question.allows(&whole).is_none() {
        return vec!["no policy permits it".to_owned()];
    }
    // Take away what is not missed; what remains is.
    let mut reasons = Vec::new();
    for (reason, part) in FIXED {
        let mut there = most;
        if *part(&mut there) {
            continue;
        }
        let mut less = whole;
        *part(&mut less) = false;
        if question.allows(&less).is_some() {
            whole = less;
        } else {
            reasons.push(reason.to_owned());
        }
    }
    reasons
}
