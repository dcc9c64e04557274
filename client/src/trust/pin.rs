//! A ledger's identity, as checked at first use.

use deed_evidence::{LedgerId, genesis::Genesis};
use deed_proto::v1::LedgerInfo;
use deed_tlog::{Origin, VerifierKey};

use super::TrustError;

/// The identity of a trusted ledger: its origin, its first log key, and its id. All of them are in the genesis
/// entry and never change; [`KnownKeys`](super::KnownKeys) has the keys that came later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// First line of its checkpoints.
    pub origin: Origin,
    /// The key that signed its first tree heads.
    pub vkey: VerifierKey,
    /// Leaf hash of its genesis entry.
    pub ledger_id: LedgerId,
}

impl Pin {
    /// Computes the identity from the genesis entry, and checks that the other fields of the
    /// server's answer say the same, and that it is about the ledger `name`.
    ///
    /// Does not check that the entry is in the tree, nor that the log key that the server names is the
    /// genesis entry's or its successor.
    ///
    /// # Errors
    /// [`TrustError::Genesis`], [`TrustError::Contradiction`].
    pub fn from_info(info: &LedgerInfo, name: &str) -> Result<Self, TrustError> {
        let (genesis, ledger_id) =
            Genesis::from_entry(&info.genesis_entry).map_err(|error| TrustError::Genesis {
                reason: error.to_string(),
            })?;
        let pin = Self {
            origin: genesis.origin,
            vkey: genesis.log_key,
            ledger_id,
        };
        let named = pin
            .origin
            .as_str()
            .rsplit_once("/logs/")
            .map_or("", |(_, name)| name);
        for (what, claimed, genesis) in [
            (
                "ledger id",
                hex::encode(&info.ledger_id),
                ledger_id.to_string(),
            ),
            ("origin", info.origin.clone(), pin.origin.to_string()),
            ("ledger's name", info.name.clone(), named.to_owned()),
        ] {
            if claimed != genesis {
                return Err(TrustError::Contradiction {
                    what,
                    claimed,
                    genesis,
                });
            }
        }
        if named != name {
            return Err(TrustError::Contradiction {
                what: "ledger's name",
                claimed: name.to_owned(),
                genesis: named.to_owned(),
            });
        }
        Ok(pin)
    }
}
