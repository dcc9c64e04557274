//! A bound on the evaluations that one Intent can cause.
//!
//! The least evidence that is enough is found by trying. Where policies only compare a number of
//! approvals with numbers that are written out, the answer can change at these alone; where they
//! calculate with it, every number up to the most is tried.

use std::collections::BTreeSet;

use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal};

use super::{
    judge::APPROVALS_MAX,
    program::{Fields, Read, children, read},
};

/// Kinds of approvals, from the weakest.
pub(super) const KINDS: [Fields; 3] = [
    Fields::APPROVALS,
    Fields::MULTI_FACTOR,
    Fields::PHISHING_RESISTANT,
];

/// The numbers of approvals at which an answer can change.
#[derive(Debug, Default)]
pub(super) struct Asks {
    kinds: [Numbers; 3],
    decision: bool,
}

#[derive(Debug, Default)]
struct Numbers {
    is_read: bool,
    /// Any number can make a difference.
    any: bool,
    /// Those from which on it can.
    from: BTreeSet<u32>,
}

impl Asks {
    pub(super) fn of<'e>(reads: Fields, exprs: impl Iterator<Item = &'e Expr>) -> Self {
        let mut asks = Self {
            decision: reads.overlaps(Fields::DECISION),
            ..Self::default()
        };
        for (numbers, kind) in asks.kinds.iter_mut().zip(KINDS) {
            numbers.is_read = reads.overlaps(kind);
        }
        exprs.for_each(|expr| asks.take(expr));
        asks
    }

    fn take(&mut self, expr: &Expr) {
        if let ExprKind::BinaryApp { op, arg1, arg2 } = expr.expr_kind()
            && let Some((kind, from)) = comparison(*op, arg1, arg2)
        {
            self.kinds[kind].from.extend(from);
            return;
        }
        match read(expr) {
            // As a part of something that is not looked into.
            Read::Fields(fields) => {
                for (numbers, kind) in self.kinds.iter_mut().zip(KINDS) {
                    numbers.any |= fields.overlaps(kind);
                }
            }
            Read::Nothing => {}
            Read::Parts => children(expr, &mut |part| self.take(part)),
        }
    }

    /// Numbers of approvals to try, if those of `kinds` grow together from `low` to `high`: the
    /// first that is allowed is one of them.
    pub(super) fn candidates(
        &self,
        kinds: &[usize],
        low: u32,
        high: u32,
    ) -> Box<dyn Iterator<Item = u32>> {
        if low > high || kinds.iter().any(|kind| self.kinds[*kind].any) {
            return Box::new(low..=high);
        }
        let mut all = BTreeSet::from([low]);
        for kind in kinds {
            let from = self.kinds[*kind].from.iter();
            all.extend(from.filter(|at| (low..=high).contains(*at)));
        }
        Box::new(all.into_iter())
    }

    /// Most evaluations that one Intent calls for while the least is looked for. (The same question
    /// is not asked twice, so a kind that nobody reads costs none.)
    pub(super) fn most(&self) -> u64 {
        let sweep = |kinds: &[usize]| {
            if kinds.iter().any(|kind| self.kinds[*kind].is_read) {
                self.candidates(kinds, 0, APPROVALS_MAX).count() as u64
            } else {
                0
            }
        };
        // With what is there, and with all that can come.
        2 + u64::from(self.decision) + sweep(&[0, 1, 2]) + sweep(&[2]) + sweep(&[1])
    }
}

/// A comparison of a number of approvals with one that is written out: the kind, and from which
/// numbers on its truth changes.
fn comparison(op: BinaryOp, arg1: &Expr, arg2: &Expr) -> Option<(usize, Vec<u32>)> {
    let (kind, number, kind_is_left) = match (kind(arg1), kind(arg2)) {
        (Some(kind), None) => (kind, literal(arg2)?, true),
        (None, Some(kind)) => (kind, literal(arg1)?, false),
        _ => return None,
    };
    let from = match (op, kind_is_left) {
        (BinaryOp::Less, true) | (BinaryOp::LessEq, false) => vec![number],
        (BinaryOp::LessEq, true) | (BinaryOp::Less, false) => vec![number.saturating_add(1)],
        (BinaryOp::Eq, _) => vec![number, number.saturating_add(1)],
        _ => return None,
    };
    // Beyond all numbers of approvals, or below: no change.
    let from = from.into_iter().filter_map(|at| u32::try_from(at).ok());
    Some((kind, from.collect()))
}

fn kind(expr: &Expr) -> Option<usize> {
    match read(expr) {
        Read::Fields(fields) => KINDS.iter().position(|kind| *kind == fields),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<i64> {
    match expr.expr_kind() {
        ExprKind::Lit(Literal::Long(number)) => Some(*number),
        _ => None,
    }
}
