//! The choices that the bytes of an input make.

use bytes::Bytes;
use deed_proto::v1::{self, Verdict};

use crate::ledger::{
    AGENT, ANYBODY, APPROVER, AUTHORITY, COLLEAGUE, DOWNSTREAM, ENGINE, HELPER, IMPORTER, PLATFORM,
    SECOND, Who, committed,
};

/// Choices.
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Small ones, and those at which arithmetic ends.
    pub(super) fn number(&mut self) -> i64 {
        match self.byte() % 8 {
            0 => 0,
            1 => 1,
            2 => i64::from(self.byte()),
            3 => -i64::from(self.byte()),
            4 => i64::from(self.byte()) * 100,
            5 => i64::MAX - i64::from(self.byte()),
            6 => i64::MIN + i64::from(self.byte()),
            _ => {
                let mut bytes = [0; 8];
                bytes.fill_with(|| self.byte());
                i64::from_le_bytes(bytes)
            }
        }
    }

    /// Around a moment, or anything.
    pub(super) fn moment(&mut self, now: i64) -> i64 {
        const SECOND_US: i64 = 1_000_000;
        let us = match self.byte() % 8 {
            0 => return 0,
            1 => 0,
            2 => i64::from(self.byte()) * SECOND_US,
            3 => i64::from(self.byte()) * -SECOND_US,
            4 => i64::from(self.byte()) * 3600 * SECOND_US,
            5 => i64::from(self.byte()) * 10_000,
            6 => i64::from(self.byte()) * -10_000,
            _ => return self.number(),
        };
        now.saturating_add(us)
    }

    pub(super) fn who(&mut self) -> Who {
        self.pick(&[
            AUTHORITY, PLATFORM, AGENT, HELPER, APPROVER, COLLEAGUE, ENGINE, DOWNSTREAM, IMPORTER,
            SECOND, ANYBODY,
        ])
    }

    /// A task, or none.
    pub(super) fn task(&mut self) -> Option<u8> {
        self.pick(&[Some(1), Some(2), Some(3), None])
    }

    pub(super) fn amount(&mut self) -> Option<v1::Amount> {
        let currency = self.pick(&["", "EUR", "USD"]);
        (!currency.is_empty()).then(|| v1::Amount {
            minor_units: self.number(),
            currency: currency.into(),
        })
    }

    pub(super) fn resource(&mut self) -> String {
        self.pick(&["orders/7", "orders/8", "orders/*", "mail/1", "*"])
            .into()
    }

    pub(super) fn commitment(&mut self) -> Option<v1::Commitment> {
        let name = self.pick(&["", "one", "other"]);
        (!name.is_empty()).then(|| committed(name))
    }

    pub(super) fn verdict(&mut self) -> i32 {
        self.pick(&[Verdict::Allow, Verdict::Deny]).into()
    }

    pub(super) fn effects(&mut self) -> Vec<v1::Effect> {
        let count = self.byte() % 4;
        let one = |_| v1::Effect {
            kind: self.pick(&["refund.created", "mail.sent"]).into(),
            resource: self.resource(),
            external_id: self.pick(&["", "R-1", "R-2"]).into(),
            amount: self.amount(),
            before_digest: Bytes::new(),
            after_digest: self.pick(&[&[][..], &[7; 32]]).to_vec().into(),
        };
        (0..count).map(one).collect()
    }

    pub(super) fn token(&mut self) -> Option<v1::OutsideToken> {
        let value = self.pick(&["", "T-1", "T-2"]);
        (!value.is_empty()).then(|| v1::OutsideToken {
            kind: "token".into(),
            value: value.into(),
            key_thumbprint: Bytes::new(),
        })
    }

    /// What other systems call it, tokens among that.
    pub(super) fn correlation_keys(&mut self) -> Vec<v1::CorrelationKey> {
        let which = self.byte();
        let known = [
            ("order", "7"),
            ("order", "8"),
            ("token", "T-1"),
            ("token", "T-2"),
        ];
        let chosen = known.iter().enumerate();
        let chosen = chosen.filter(|(bit, _)| which & (1 << bit) != 0);
        chosen
            .map(|(_, (kind, value))| v1::CorrelationKey {
                kind: (*kind).into(),
                value: (*value).into(),
            })
            .collect()
    }
}
