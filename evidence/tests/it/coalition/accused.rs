//! An accused agent says anything.

use super::*;

impl Accused {
    /// Tells it. Returns the leaf of what the bank saw, too.
    pub(super) fn told(&self) -> (Telling, u64) {
        let mut telling = Telling::new(true);
        let mut number = 0;
        let mut between = |telling: &mut Telling| {
            for (_, who, said) in self.said.iter().filter(|(at, ..)| *at == number) {
                if let Some(place) = telling.utter(*who, *said) {
                    let announces = matches!(said, Utterance::Intends { .. });
                    telling.intents.extend(announces.then_some(place));
                }
            }
            number += 1;
            telling.step();
        };
        between(&mut telling);
        telling.says(PLATFORM, task_opened(RiskTier::Payment, 0));
        telling.grants();
        if self.another {
            let intent = telling.intends();
            telling.says(ENGINE, decision(&intent, Verdict::Allow));
            let said = approval(&intent, Verdict::Allow, telling.ledger.now());
            telling.says(APPROVER, said);
            let done = outcome(&intent, OutcomeStatus::Succeeded, Effects::Same.list());
            telling.says(AGENT, done);
            let seen = observation(Some(&intent), Effects::Same.list());
            telling.says(DOWNSTREAM, seen);
            // It is not spoken of any more: what is said is said of the other one.
            telling.intents.clear();
        }
        between(&mut telling);
        let mut act = None;
        if self.announced {
            act = Some(telling.intends());
        }
        between(&mut telling);
        if let (Some(act), Some(verdict)) = (&act, self.decided) {
            telling.says(ENGINE, decision(act, verdict));
        }
        between(&mut telling);
        if let (Some(act), Some(verdict)) = (&act, self.approved) {
            let said = approval(act, verdict, telling.ledger.now());
            telling.says(APPROVER, said);
        }
        between(&mut telling);
        let early = self.early.then(|| self.bank(&mut telling, act.as_ref()));
        between(&mut telling);
        let seen = early.unwrap_or_else(|| self.bank(&mut telling, act.as_ref()));
        between(&mut telling);
        if self.closes {
            telling
                .ledger
                .try_say(PLATFORM, Some(TASK), task_closed(), |_| {})
                .unwrap();
        }
        for (_, who, said) in self.said.iter().filter(|(at, ..)| *at >= ACCUSED_STEPS) {
            telling.utter(*who, *said);
        }
        // Longer than any confirmation may take.
        telling.ledger.at(200_000);
        telling.ledger.tick();
        (telling, seen.leaf)
    }

    /// The bank sees it: by the Intent if there is one.
    fn bank(&self, telling: &mut Telling, act: Option<&Place>) -> Place {
        let of = match self.named {
            Named::Intent(_) if act.is_none() => Named::Task,
            named => named,
        };
        let said = Utterance::Sees {
            of,
            effects: self.seen,
        };
        if let (Named::Intent(_), Some(act)) = (of, act) {
            let body = observation(Some(act), self.seen.list());
            telling.says(DOWNSTREAM, body)
        } else {
            telling.utter(DOWNSTREAM, said).expect("the bank is heard")
        }
    }
}

pub(super) fn accused() -> impl Strategy<Value = Accused> {
    // An undoing that nobody else has seen done is another matter, and so is what moves nothing.
    let seen = select(
        &[
            Effects::Same,
            Effects::Twice,
            Effects::More,
            Effects::OtherCurrency,
            Effects::NoAmount,
            Effects::OtherResource,
            Effects::OtherKind,
        ][..],
    );
    let named = prop_oneof![
        2 => Just(Named::Intent(Which::Newest)),
        1 => Just(Named::Order),
        1 => Just(Named::Task),
    ];
    let verdicts = select(
        &[
            (None, None),
            (Some(Verdict::Allow), None),
            (None, Some(Verdict::Allow)),
            (Some(Verdict::Deny), Some(Verdict::Allow)),
            (Some(Verdict::Allow), Some(Verdict::Deny)),
            (None, Some(Verdict::Deny)),
        ][..],
    );
    let said = (0..=ACCUSED_STEPS, select(&ACCUSED[..]), utterance());
    let said = proptest::collection::vec(said, 0..12);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (flags, verdicts, seen, named, said).prop_map(
        |((announced, another, early, closes), (decided, approved), seen, named, said)| Accused {
            announced,
            decided,
            approved,
            another,
            seen,
            named,
            early,
            closes,
            said,
        },
    )
}
