//! From yes and no to what becomes of an Intent.

use super::{
    Duties, Evidence, Need, Request,
    cost::Budget,
    evaluate::{Answer, Question, Stage, State, Unanswered},
    evidence::{FIXED, missing},
    program::{Program, Rule},
};

/// More approvals than this are not waited for.
pub(super) const APPROVALS_MAX: u32 = 16;

/// Most policies that are named where some cannot be evaluated.
const ERRORS_MAX: usize = 8;

/// The policy's ruling on an Intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It may be acted on.
    Cleared(Duties),
    /// Evidence is missing that may still come.
    Waiting {
        /// The least that is enough: not empty, each kind at most once, in ascending order.
        missing: Vec<Need>,
        /// Duties once it is cleared with no more than that.
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
        /// These policies with the reasons, sorted: not empty. The same in every build.
        diagnostics: Vec<String>,
    },
}

/// The judgement of one Intent, which may be about several resources: they share one budget.
pub struct Judging<'a> {
    program: &'a Program,
    budget: Budget,
    /// The states of the policies with each resource that was judged.
    judged: Vec<Vec<State>>,
}

impl<'a> Judging<'a> {
    pub(super) fn new(program: &'a Program) -> Self {
        Self {
            program,
            budget: Budget::new(),
            judged: Vec::new(),
        }
    }

    /// Judges one resource by the evidence that is there; requests of one Intent differ in nothing
    /// else. `None` if the ruling is one that was given for another of them. Never panics, whatever
    /// the request says.
    pub fn judge(&mut self, request: &Request<'_>) -> Option<Ruling> {
        let judged = self.judge_without(request, None);
        judged.map(|(ruling, _)| ruling)
    }

    /// The same. Says of what is cleared also whether it would not be with `less` of the evidence that
    /// can come, if that is given.
    pub fn judge_without(
        &mut self,
        request: &Request<'_>,
        less: Option<&Evidence>,
    ) -> Option<(Ruling, bool)> {
        let ruling = self.rule(request, less);
        ruling.unwrap_or_else(|unanswered| Some((unanswered.into(), false)))
    }

    /// Units spent so far, of `JUDGEMENT_UNITS_MAX`.
    #[must_use]
    pub const fn spent(&self) -> u64 {
        self.budget.spent()
    }

    fn rule(
        &mut self,
        request: &Request<'_>,
        less: Option<&Evidence>,
    ) -> Result<Option<(Ruling, bool)>, Unanswered> {
        let program = self.program;
        if !program.reads_resource && !self.judged.is_empty() {
            return Ok(None);
        }
        let question = Question::new(program, request, &mut self.budget)?;
        let there = request.evidence;
        let stage = question.stage(&there, &mut self.budget)?;
        let differs = |(rule, state): (&Rule, &State)| {
            *state == State::Open && rule.reads_resource_from(rule.steady)
        };
        let mut known = self.judged.iter();
        if known.any(|states| *states == stage.states)
            && !program.rules.iter().zip(&stage.states).any(differs)
        {
            return Ok(None);
        }
        self.judged.push(stage.states.clone());
        let mut search = Search {
            question: &question,
            stage,
            budget: &mut self.budget,
            program,
            asked: Vec::new(),
        };
        match search.ask(&there)? {
            Answer::Allow(duties) => {
                let enough = match less {
                    Some(less) => search.allows(less)?.is_some(),
                    None => true,
                };
                return Ok(Some((Ruling::Cleared(duties), !enough)));
            }
            Answer::Error(errors) => return Ok(Some((failed(errors), false))),
            Answer::Deny(_) => {}
        }
        let most = obtainable(&there);
        let ruling = match search.ask(&most)? {
            Answer::Allow(duties) => {
                let (least, duties) = search.least(&there, most, duties)?;
                let missing = missing(&there, &least);
                Ruling::Waiting { missing, duties }
            }
            Answer::Error(errors) => failed(errors),
            Answer::Deny(forbids) if forbids.is_empty() => Ruling::Denied {
                reasons: search.what_was_lacking(most)?,
            },
            Answer::Deny(reasons) => Ruling::Denied { reasons },
        };
        Ok(Some((ruling, false)))
    }
}

impl From<Unanswered> for Ruling {
    fn from(unanswered: Unanswered) -> Self {
        let diagnostics = vec![unanswered.to_string()];
        Self::Error { diagnostics }
    }
}

fn failed(mut errors: Vec<String>) -> Ruling {
    let more = errors.len().saturating_sub(ERRORS_MAX);
    errors.truncate(ERRORS_MAX);
    if more > 0 {
        errors.push(format!("policies beyond these: {more}"));
    }
    Ruling::Error {
        diagnostics: errors,
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

/// Looks for evidence that is enough.
struct Search<'q, 'b> {
    question: &'q Question<'q>,
    program: &'q Program,
    stage: Stage,
    budget: &'b mut Budget,
    /// The evidence that was asked with, as far as it is read, and the answers.
    asked: Vec<(Evidence, Answer)>,
}

impl Search<'_, '_> {
    fn ask(&mut self, evidence: &Evidence) -> Result<Answer, Unanswered> {
        let read = self.program.reads.of(evidence);
        if let Some((_, answer)) = self.asked.iter().find(|(asked, _)| *asked == read) {
            return Ok(answer.clone());
        }
        let answer = self.question.ask(&self.stage, evidence, self.budget)?;
        self.asked.push((read, answer.clone()));
        Ok(answer)
    }

    /// The duties of an allow; none for anything else.
    fn allows(&mut self, evidence: &Evidence) -> Result<Option<Duties>, Unanswered> {
        Ok(match self.ask(evidence)? {
            Answer::Allow(duties) => Some(duties),
            Answer::Deny(_) | Answer::Error(_) => None,
        })
    }

    /// The first evidence that is allowed; `best`, if none is.
    fn first_allowed(
        &mut self,
        best: (Evidence, Duties),
        candidates: impl IntoIterator<Item = Evidence>,
    ) -> Result<(Evidence, Duties), Unanswered> {
        for evidence in candidates {
            if let Some(duties) = self.allows(&evidence)? {
                return Ok((evidence, duties));
            }
        }
        Ok(best)
    }

    /// The least evidence between `there` and `most` that is allowed, as `most` is, and its duties.
    ///
    /// In this order: without a decision if that is enough; the fewest approvals, were they all of
    /// the strongest kind; then the fewest of the strongest kind, then of the one below. One kind is
    /// never more than the kind that it is a part of. Policies need not be monotone
    /// (`approvals == 2`), so every number that can make a difference is tried, from below; each step
    /// keeps what the steps before it found.
    fn least(
        &mut self,
        there: &Evidence,
        most: Evidence,
        duties: Duties,
    ) -> Result<(Evidence, Duties), Unanswered> {
        let asks = &self.program.asks;
        let decision = there.decision;
        let best = self.first_allowed((most, duties), [Evidence { decision, ..most }])?;

        let base = best.0;
        let fewest = asks.candidates(&[0, 1, 2], there.approvals, base.approvals);
        let fewest = fewest.map(|approvals| Evidence {
            approvals,
            approvals_multi_factor: approvals.max(there.approvals_multi_factor),
            approvals_phishing_resistant: approvals.max(there.approvals_phishing_resistant),
            ..base
        });
        let best = self.first_allowed(best, fewest)?;

        let base = best.0;
        let (low, high) = (
            there.approvals_phishing_resistant,
            base.approvals_phishing_resistant,
        );
        let fewest = asks.candidates(&[2], low, high);
        let fewest = fewest.map(|approvals_phishing_resistant| Evidence {
            approvals_phishing_resistant,
            ..base
        });
        let best = self.first_allowed(best, fewest)?;

        let base = best.0;
        let lowest = base.approvals_phishing_resistant;
        let low = there.approvals_multi_factor.max(lowest);
        let fewest = asks.candidates(&[1], low, base.approvals_multi_factor);
        let fewest = fewest.map(|approvals_multi_factor| Evidence {
            approvals_multi_factor,
            ..base
        });
        self.first_allowed(best, fewest)
    }

    /// The evidence that the Intent itself should have had. `most` is denied, and by no forbid.
    fn what_was_lacking(&mut self, most: Evidence) -> Result<Vec<String>, Unanswered> {
        let mut whole = most;
        for (_, part) in FIXED {
            *part(&mut whole) = true;
        }
        // Evidence that the Intent brings along is asked for with other values from here on.
        self.stage.forget_evidence();
        if self.allows(&whole)?.is_none() {
            return Ok(vec!["no policy permits it".to_owned()]);
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
            if self.allows(&less)?.is_some() {
                whole = less;
            } else {
                reasons.push(reason.to_owned());
            }
        }
        Ok(reasons)
    }
}
