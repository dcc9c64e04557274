//! An amount of money, or of another unit.

use clap::Args;
use deed_proto::v1;

/// A quantity.
#[derive(Args)]
pub(crate) struct AmountArgs {
    /// Amount in the currency's minor unit (cents for EUR)
    #[arg(
        long,
        value_name = "N",
        requires = "currency",
        allow_negative_numbers = true
    )]
    amount: Option<i64>,
    /// ISO 4217 code, or another unit in capital letters
    #[arg(long, value_name = "CODE", requires = "amount")]
    currency: Option<String>,
}

impl AmountArgs {
    pub(crate) fn amount(&self) -> Option<v1::Amount> {
        Some(v1::Amount {
            minor_units: self.amount?,
            currency: self.currency.clone()?,
        })
    }
}
