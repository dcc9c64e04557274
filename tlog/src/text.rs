//! The two textual encodings that all formats here share. Each value has exactly one encoding, so
//! that parsing and printing again returns the same bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// The text is not standard base64 in its one canonical form.
///
/// The alphabet is that of RFC 4648 section 4; padding is required, unused bits are zero
/// and there is no white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not canonical standard base64 ({chars} characters)")]
pub struct Base64Error {
    /// Length of the text in bytes.
    pub chars: usize,
}

/// The reason for which a text is not a decimal number in its one canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecimalError {
    /// The text is empty, or has a character that is no digit.
    #[error("not a decimal number")]
    NotDigits,
    /// There is a zero in front of other digits.
    #[error("decimal number with a leading zero")]
    LeadingZero,
    /// The number is above 2^64 - 1.
    #[error("decimal number beyond 64 bits")]
    TooLarge,
}

pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn decode_base64(text: &str) -> Result<Vec<u8>, Base64Error> {
    STANDARD
        .decode(text)
        .map_err(|_| Base64Error { chars: text.len() })
}

/// Parses ASCII digits; `str::parse` alone would also accept a plus sign and leading zeros.
pub(crate) fn parse_decimal(text: &str) -> Result<u64, DecimalError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::NotDigits);
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(DecimalError::LeadingZero);
    }
    text.parse().map_err(|_| DecimalError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_one_spelling() {
        assert_eq!(parse_decimal("0"), Ok(0));
        assert_eq!(parse_decimal("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(
            parse_decimal("18446744073709551616"),
            Err(DecimalError::TooLarge)
        );
        assert_eq!(
            parse_decimal("99999999999999999999999"),
            Err(DecimalError::TooLarge)
        );
        for bad in [
            "", "+1", "-1", " 1", "1 ", "1_0", "0x1", "\u{0661}", "1.0", "1\n",
        ] {
            assert_eq!(parse_decimal(bad), Err(DecimalError::NotDigits), "{bad:?}");
        }
        for bad in ["00", "01", "000"] {
            assert_eq!(
                parse_decimal(bad),
                Err(DecimalError::LeadingZero),
                "{bad:?}"
            );
        }
    }
}
