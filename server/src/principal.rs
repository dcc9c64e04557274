//! Principals: the names of callers, as text.

use std::{fmt::Write as _, sync::Arc};

use deed_evidence::Micros;
use thiserror::Error;
use x509_parser::{
    der_parser::asn1_rs::ToDer as _,
    oid_registry::Oid,
    prelude::{FromDer as _, GeneralName, X509Certificate},
    x509::AttributeTypeAndValue,
};

/// Longest principal, in bytes. SPIFFE allows 2,048; certificates' subjects have no limit.
pub const PRINCIPAL_BYTES_MAX: usize = 2048;

/// A text or a certificate that names no principal.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PrincipalError {
    /// The text is empty, too long, or not printable.
    #[error(
        "a principal has 1 to {PRINCIPAL_BYTES_MAX} bytes of printable text ({bytes} bytes found), \
         for example spiffe://example.org/agent"
    )]
    Text { bytes: usize },
    /// The bytes are not a certificate.
    #[error("the client certificate cannot be read")]
    Certificate,
    /// The certificate has a SPIFFE ID and further URIs.
    #[error(
        "the client certificate has a SPIFFE ID and {found} URIs in all; one with a SPIFFE ID has \
         no other URI"
    )]
    Uris { found: usize },
    /// The certificate names nobody.
    #[error("the client certificate has neither a SPIFFE ID nor a subject")]
    Nobody,
}

/// Checks a principal's text.
///
/// # Errors
/// [`PrincipalError::Text`] if it is empty, too long, or not printable.
pub fn check(principal: &str) -> Result<(), PrincipalError> {
    let printable = |c: char| !c.is_control();
    if (1..=PRINCIPAL_BYTES_MAX).contains(&principal.len())
        && principal.chars().all(printable)
        && principal.trim() == principal
    {
        Ok(())
    } else {
        Err(PrincipalError::Text {
            bytes: principal.len(),
        })
    }
}

/// Returns the principal of a client certificate (DER) whose signatures were verified before: its
/// SPIFFE ID, the only URI among its alternative names if that begins with `spiffe://`, or else its
/// subject.
///
/// Source: SPIFFE X.509-SVID section 2: a certificate has exactly one URI, and one with more is
/// refused.
///
/// # Errors
/// [`PrincipalError`] if it has a SPIFFE ID and another URI, or neither a SPIFFE ID nor a subject.
pub(crate) fn of_certificate(der: &[u8]) -> Result<Arc<str>, PrincipalError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| PrincipalError::Certificate)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PrincipalError::Certificate)?;
    let mut uris = Vec::new();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::URI(uri) = name {
            uris.push(*uri);
        }
    }
    let principal = match uris[..] {
        [only] if is_spiffe(only) => only.to_owned(),
        _ if uris.iter().any(|uri| is_spiffe(uri)) => {
            return Err(PrincipalError::Uris { found: uris.len() });
        }
        _ => subject(&certificate)?,
    };
    check(&principal)?;
    Ok(principal.into())
}

fn is_spiffe(uri: &str) -> bool {
    const SCHEME: &str = "spiffe://";
    let begin = uri.get(..SCHEME.len());
    // The comparison ignores case: a URI with this scheme in capitals claims to be a SPIFFE ID,
    // too.
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(SCHEME))
}

/// Returns the last second in which a certificate (DER) is valid.
///
/// Source: RFC 5280 section 4.1.2.5.
///
/// # Errors
/// [`PrincipalError::Certificate`] if the bytes are not a certificate.
pub(crate) fn certificate_ends(der: &[u8]) -> Result<Micros, PrincipalError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| PrincipalError::Certificate)?;
    let last_s = certificate.validity().not_after.timestamp();
    let ends_s = last_s.saturating_add(1);
    Ok(Micros::new(ends_s.saturating_mul(1_000_000)))
}

/// Returns a subject as text, the most specific part first.
///
/// Source: RFC 4514 sections 2.1 to 2.4.
fn subject(certificate: &X509Certificate<'_>) -> Result<String, PrincipalError> {
    let mut parts = Vec::new();
    for relative in certificate.subject().iter_rdn() {
        let mut part = String::new();
        for attribute in relative.iter() {
            if !part.is_empty() {
                part.push('+');
            }
            push_attribute(&mut part, attribute)?;
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(PrincipalError::Nobody);
    }
    parts.reverse();
    Ok(parts.join(","))
}

fn push_attribute(
    text: &mut String,
    attribute: &AttributeTypeAndValue<'_>,
) -> Result<(), PrincipalError> {
    let known = short_name(attribute.attr_type());
    match (known, attribute.as_str()) {
        (Some(name), Ok(value)) => {
            text.push_str(name);
            text.push('=');
            push_escaped(text, value);
        }
        // Types without a short name are written as numbers, and their values as BER.
        _ => {
            let value = attribute
                .attr_value()
                .to_der_vec()
                .map_err(|_| PrincipalError::Certificate)?;
            let _ = write!(
                text,
                "{}=#{}",
                attribute.attr_type().to_id_string(),
                hex::encode(value)
            );
        }
    }
    Ok(())
}

/// Returns the short name of an attribute type, by the table of RFC 4514 section 3.
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    Some(match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            // Section 2.4 demands this escape of NUL and allows it of all characters; these texts
            // end up in logs and tables.
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn principal(subject: &[(DnType, &str)], uris: &[&str]) -> Result<String, PrincipalError> {
        let mut params = CertificateParams::new(vec!["host.example.org".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        for uri in uris {
            let uri = SanType::URI((*uri).try_into().unwrap());
            params.subject_alt_names.push(uri);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        of_certificate(certificate.der()).map(|principal| principal.to_string())
    }

    #[test]
    fn the_spiffe_id_wins_over_the_subject() {
        let id = "spiffe://example.org/agent";
        let subject = [(DnType::CommonName, "agent")];
        assert_eq!(principal(&subject, &[id]).as_deref(), Ok(id));
        for other in ["https://example.org/", "spiffe://example.org/other", id] {
            for uris in [[id, other], [other, id]] {
                let refused = Err(PrincipalError::Uris { found: 2 });
                assert_eq!(principal(&subject, &uris), refused);
            }
        }
        assert_eq!(
            principal(&subject, &["https://example.org/"]).as_deref(),
            Ok("CN=agent")
        );
    }

    #[test]
    fn subjects_are_written_as_rfc_4514_says() {
        let subject = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Müller, Söhne + Co"),
            (DnType::CommonName, "#1 <agent> "),
        ];
        assert_eq!(
            principal(&subject, &[]).as_deref(),
            Ok(r"CN=\#1 \<agent\>\ ,O=Müller\, Söhne \+ Co,C=DE")
        );
        // A type without a short name is written as its number and the value's encoding (a
        // UTF8String).
        let subject = [(DnType::from_oid(&[1, 2, 3, 4]), "x")];
        assert_eq!(principal(&subject, &[]).as_deref(), Ok("1.2.3.4=#0c0178"));
        assert_eq!(principal(&[], &[]), Err(PrincipalError::Nobody));
        let subject = [(DnType::CommonName, "a\nb")];
        assert_eq!(principal(&subject, &[]).as_deref(), Ok(r"CN=a\0Ab"));
    }

    #[test]
    fn a_certificate_is_good_through_its_last_second() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let ends = Micros::new((1_893_456_000 + 1) * 1_000_000);
        assert_eq!(certificate_ends(certificate.der()), Ok(ends));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for bytes in [&[][..], &[0x30, 0x80], &[0xff; 64]] {
            let refused = Err(PrincipalError::Certificate);
            assert_eq!(certificate_ends(bytes), refused);
            assert_eq!(of_certificate(bytes), Err(PrincipalError::Certificate));
        }
    }

    #[test]
    fn principals_are_short_and_printable() {
        for bad in ["", " a", "a ", "a\tb", "a\u{7f}", &"a".repeat(2049)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "spiffe://example.org/agent", "CN=a b", "ä"] {
            assert!(check(good).is_ok(), "{good:?}");
        }
    }
}
