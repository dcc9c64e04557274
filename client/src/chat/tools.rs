//! The resources that calls of tools act on, and their effects.

use deed_evidence::LedgerId;
use deed_proto::v1;
use serde_json::{Map, Value};

use super::message::ToolCall;

/// BLAKE3 context. Never changes: a customer would get another name.
const USER_CONTEXT: &str = "deed.v1 import chat user";

/// The resources that a grant for an import covers: everything that [`Acting::resource`] can return. Ascending.
pub(super) const RESOURCES: [&str; 4] = ["flights/*", "reservations/*", "tools/*", "users/*"];

/// The currency of the amounts of the tools below. Their transcripts speak of dollars throughout.
const CURRENCY: &str = "USD";

/// Longest id that is taken for one.
const ID_BYTES_MAX: usize = 32;

/// A tool that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    Book,
    Cancel,
    UpdateFlights,
    UpdateBaggages,
    UpdatePassengers,
    SendCertificate,
}

impl Mutation {
    fn of(tool: &str) -> Option<Self> {
        Some(match tool {
            "book_reservation" => Self::Book,
            "cancel_reservation" => Self::Cancel,
            "update_reservation_flights" => Self::UpdateFlights,
            "update_reservation_baggages" => Self::UpdateBaggages,
            "update_reservation_passengers" => Self::UpdatePassengers,
            "send_certificate" => Self::SendCertificate,
            _ => return None,
        })
    }

    const fn effect(self) -> &'static str {
        match self {
            Self::Book => "reservation.booked",
            Self::Cancel => "reservation.cancelled",
            Self::UpdateFlights => "reservation.flights_updated",
            Self::UpdateBaggages => "reservation.baggages_updated",
            Self::UpdatePassengers => "reservation.passengers_updated",
            Self::SendCertificate => "certificate.sent",
        }
    }
}

/// Returns true if a tool changes something that the customer has to agree to.
pub(super) fn changes_something(tool: &str) -> bool {
    Mutation::of(tool).is_some()
}

/// Names users without their names: a user's id is often made of one.
pub(super) struct Pseudonyms<'a> {
    pub(super) ledger_id: LedgerId,
    pub(super) secret: &'a [u8; 32],
}

impl Pseudonyms<'_> {
    /// A pseudonym: the same for the same user in all imports with the same secret; it says nothing without it.
    fn user(&self, id: &str) -> String {
        let key = blake3::derive_key(USER_CONTEXT, self.secret);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(self.ledger_id.as_bytes());
        hasher.update(id.as_bytes());
        let mut name = [0; 16];
        hasher.finalize_xof().fill(&mut name);
        format!("users/{}", hex::encode(name))
    }
}

/// A call as an act.
pub(super) struct Acting {
    /// The resource: `reservations/<id>`, `users/<pseudonym>`, `flights/<from>-<to>`, or
    /// `tools/<tool>` where the arguments tell nothing that may stand in clear.
    pub(super) resource: String,
    /// The amount that the call moves, if its arguments tell.
    pub(super) amount: Option<v1::Amount>,
    mutation: Option<Mutation>,
}

impl Acting {
    pub(super) fn of(call: &ToolCall, users: &Pseudonyms<'_>) -> Self {
        let arguments = match serde_json::from_str(&call.arguments) {
            Ok(Value::Object(arguments)) => arguments,
            _ => Map::new(),
        };
        let mutation = Mutation::of(&call.name);
        Self {
            resource: resource(&arguments, users).unwrap_or_else(|| format!("tools/{}", call.name)),
            amount: match mutation {
                Some(Mutation::Book) => paid(&arguments),
                Some(Mutation::SendCertificate) => arguments.get("amount").and_then(minor_units),
                // The arguments of a change do not tell its price, and its result lists all payments of the
                // reservation, not only the one of this change.
                _ => None,
            }
            .map(|minor_units| v1::Amount {
                minor_units,
                currency: CURRENCY.to_owned(),
            }),
            mutation,
        }
    }

    /// Returns the effects of a call that succeeded with this result.
    pub(super) fn effects(self, result: &[u8]) -> Vec<v1::Effect> {
        let Some(mutation) = self.mutation else {
            return Vec::new();
        };
        let (resource, external_id) = match mutation {
            Mutation::Book => (booked(result).unwrap_or(self.resource), String::new()),
            Mutation::SendCertificate => (self.resource, certificate(result).unwrap_or_default()),
            _ => (self.resource, String::new()),
        };
        vec![v1::Effect {
            kind: mutation.effect().to_owned(),
            resource,
            external_id,
            amount: self.amount,
            ..v1::Effect::default()
        }]
    }
}

fn resource(arguments: &Map<String, Value>, users: &Pseudonyms<'_>) -> Option<String> {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    let airport = |name: &str| text(name).filter(|code| is_airport(code));
    if let Some(reservation) = text("reservation_id").and_then(reservation) {
        Some(reservation)
    } else if let Some(user) = text("user_id") {
        Some(users.user(user))
    } else if let (Some(from), Some(to)) = (airport("origin"), airport("destination")) {
        Some(format!("flights/{from}-{to}"))
    } else {
        None
    }
}

/// A model may write anything where an id belongs. What is not surely one stays out of the log.
fn reservation(id: &str) -> Option<String> {
    let is_id = !id.is_empty()
        && id.len() <= ID_BYTES_MAX
        && id
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    is_id.then(|| format!("reservations/{id}"))
}

fn is_airport(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// The reservation that a booking made.
fn booked(result: &[u8]) -> Option<String> {
    let result: Value = serde_json::from_slice(result).ok()?;
    reservation(result.get("reservation_id")?.as_str()?)
}

/// `Certificate <id> added to ...`
fn certificate(result: &[u8]) -> Option<String> {
    let result = std::str::from_utf8(result).ok()?;
    let (id, _) = result
        .strip_prefix("Certificate ")?
        .split_once(" added to ")?;
    let digits = id.strip_prefix("certificate_")?;
    let is_id = !digits.is_empty()
        && id.len() <= ID_BYTES_MAX
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_id.then(|| id.to_owned())
}

/// The sum of a booking's payments; `None` if one of them is not to be read.
fn paid(arguments: &Map<String, Value>) -> Option<i64> {
    let payments = arguments.get("payment_methods")?.as_array()?;
    if payments.is_empty() {
        return None;
    }
    payments.iter().try_fold(0_i64, |sum, payment| {
        sum.checked_add(minor_units(payment.get("amount")?)?)
    })
}

/// An amount in cents, exactly or not at all. The decimal digits are read, not the float: what it
/// prints is what was written, up to 15 digits.
fn minor_units(amount: &Value) -> Option<i64> {
    let Value::Number(amount) = amount else {
        return None;
    };
    let text = amount.to_string();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.as_str()),
    };
    let (whole, cents) = digits.split_once('.').unwrap_or((digits, ""));
    if digits.contains('.') && whole.len() > 13 {
        return None;
    }
    let cents = match cents.trim_end_matches('0').len() {
        0 => "00".to_owned(),
        // At most two digits are left of what is printed.
        1 | 2 => format!("{cents:0<2}")[..2].to_owned(),
        _ => return None,
    };
    // Exponents are no digits.
    let is_decimal = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_decimal(whole) || !is_decimal(&cents) {
        return None;
    }
    let units: i64 = format!("{whole}{cents}").parse().ok()?;
    Some(if negative { -units } else { units })
}

#[cfg(test)]
mod tests {
    use deed_tlog::Hash;
    use serde_json::json;

    use super::*;

    const USERS: Pseudonyms<'static> = Pseudonyms {
        ledger_id: LedgerId::new(Hash::new([1; 32])),
        secret: &[5; 32],
    };

    fn acting(tool: &str, arguments: &Value) -> Acting {
        let call = ToolCall {
            id: String::new(),
            item_id: String::new(),
            name: tool.to_owned(),
            arguments: arguments.to_string(),
            whole: Value::Null,
        };
        Acting::of(&call, &USERS)
    }

    #[test]
    fn amounts_are_exact_or_none() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("50", Some(5_000)),
            ("50.0", Some(5_000)),
            ("152.5", Some(15_250)),
            ("152.55", Some(15_255)),
            ("0.07", Some(7)),
            ("-3.10", Some(-310)),
            ("152.555", None),
            ("1e30", None),
            ("9999999999999.25", Some(999_999_999_999_925)),
            ("90071992547409.93", None),
            ("1e-7", None),
            ("92233720368547758.07", None),
            ("92233720368547758", Some(9_223_372_036_854_775_800)),
            ("92233720368547759", None),
            ("\"50\"", None),
            ("null", None),
        ] {
            let amount: Value = serde_json::from_str(text).unwrap();
            assert_eq!(minor_units(&amount), wanted, "{text}");
        }
    }

    #[test]
    fn what_a_call_acts_on() {
        for (arguments, wanted) in [
            (
                json!({"reservation_id": "EHGLP3", "user_id": "a"}),
                "reservations/EHGLP3",
            ),
            (
                json!({"origin": "JFK", "destination": "SEA"}),
                "flights/JFK-SEA",
            ),
            (json!({"origin": "JFK"}), "tools/t"),
            (
                json!({"origin": "New York", "destination": "SEA"}),
                "tools/t",
            ),
            (json!({"reservation_id": "Mia Li's"}), "tools/t"),
            (json!({"reservation_id": ""}), "tools/t"),
            (json!({"reservation_id": 7}), "tools/t"),
            (json!([1]), "tools/t"),
        ] {
            let acting = acting("t", &arguments);
            assert_eq!(acting.resource, wanted, "{arguments}");
            assert_eq!(acting.amount, None);
        }
        let user = |id| acting("t", &json!({"user_id": id})).resource;
        assert!(user("mia_li_3668").starts_with("users/"));
        assert_eq!(user("mia_li_3668").len(), "users/".len() + 32);
        assert_eq!(user("mia_li_3668"), user("mia_li_3668"));
        assert_ne!(user("mia_li_3668"), user("mia_li_3669"));
        for resource in [
            acting("t", &json!({"reservation_id": "A"})).resource,
            acting("t", &json!({"origin": "JFK", "destination": "SEA"})).resource,
            acting("t", &json!({})).resource,
            user("a"),
        ] {
            let covered = RESOURCES
                .iter()
                .any(|pattern| deed_evidence::assess::covers(pattern, &resource));
            assert!(covered, "{resource}");
        }
    }

    #[test]
    fn what_calls_change() {
        let booking = json!({"user_id": "a", "payment_methods": [
            {"payment_id": "p", "amount": 250}, {"payment_id": "q", "amount": 55.5}
        ]});
        let booked =
            acting("book_reservation", &booking).effects(b"{\"reservation_id\": \"HATHAT\"}");
        assert_eq!(booked.len(), 1);
        assert_eq!(
            (&*booked[0].kind, &*booked[0].resource),
            ("reservation.booked", "reservations/HATHAT")
        );
        let amount = booked[0].amount.as_ref().unwrap();
        assert_eq!((amount.minor_units, &*amount.currency), (30_550, "USD"));
        // A result that names no reservation: then whose it is.
        let unnamed = acting("book_reservation", &booking).effects(b"done");
        assert!(unnamed[0].resource.starts_with("users/"));

        let sent = acting("send_certificate", &json!({"user_id": "a", "amount": 150}))
            .effects(b"Certificate certificate_3221322 added to user a with amount 150.");
        assert_eq!(
            (&*sent[0].kind, &*sent[0].external_id),
            ("certificate.sent", "certificate_3221322")
        );
        assert_eq!(sent[0].amount.as_ref().unwrap().minor_units, 15_000);

        for (tool, kind) in [
            ("cancel_reservation", "reservation.cancelled"),
            ("update_reservation_flights", "reservation.flights_updated"),
            (
                "update_reservation_baggages",
                "reservation.baggages_updated",
            ),
            (
                "update_reservation_passengers",
                "reservation.passengers_updated",
            ),
        ] {
            let effects = acting(tool, &json!({"reservation_id": "A"})).effects(b"{}");
            assert_eq!(
                (&*effects[0].kind, &*effects[0].resource, &effects[0].amount),
                (kind, "reservations/A", &None)
            );
        }
        assert_eq!(acting("get_user_details", &json!({})).effects(b"{}"), []);
    }

    #[test]
    fn payments_that_are_not_to_be_read_give_no_sum() {
        for payments in [
            json!([]),
            json!(null),
            json!([{"amount": 1}, {"amount": "2"}]),
            json!([{"amount": 1}, {}]),
            json!([{"amount": 92_233_720_368_547_758_i64}, {"amount": 1}]),
        ] {
            let arguments = json!({"user_id": "a", "payment_methods": payments});
            assert_eq!(
                acting("book_reservation", &arguments).amount,
                None,
                "{payments}"
            );
        }
    }
}
