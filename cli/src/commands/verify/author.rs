//! The author of an entry: its signature, and the state of the key.

use bytes::Bytes;
use deed_client::{AuthorError, KnownAuthor};
use deed_evidence::{KeyId, entry::Entry, signature, statement::Header};
use deed_proto::v1::{Author, PayloadType};
use deed_tlog::{LeafIndex, PublicKey, TreeHead};

use super::{Check, Given, SIGNATURE, STANDING, State, Trust};

/// Signature and standing of an entry that nobody signed, where a key was to have.
fn of_missing_signature(author: Author, key: &PublicKey) -> [Check; 2] {
    let key = signature::key_id(key);
    let nobody = match author {
        Author::Ledger => "nobody signed it, the ledger itself is the author",
        _ => "nobody signed it",
    };
    [
        Check::new(
            SIGNATURE,
            State::Failed,
            format!("{nobody}; key {key} was to have"),
        ),
        Check::new(
            STANDING,
            State::NotChecked,
            format!("without its signature, key {key} speaks for nobody here"),
        ),
    ]
}

/// Signature and standing of an entry that is in no batch.
pub(super) fn of_author(
    given: &Given,
    head: &TreeHead,
    index: LeafIndex,
    bytes: &Bytes,
    entry: &Entry<'_>,
    header: &Header<'_>,
) -> [Check; 2] {
    if let (None, Some(key)) = (entry.signature, &given.key) {
        return of_missing_signature(entry.author, key);
    }
    if entry.author == Author::Ledger {
        let detail = "the ledger itself is the author: nobody signs, its word is in the head";
        let follows = "whether what the ledger says follows from the entries before it is for deed \
                       audit";
        return [
            Check::new(SIGNATURE, State::NothingToCheck, detail),
            Check::new(STANDING, State::NotChecked, follows),
        ];
    }
    let author = given.trust.as_ref().map(|trust| {
        let author = trust.history.author(index, bytes, entry, header, None);
        (trust, author)
    });
    let signature = match (entry.signature, &given.key, &author) {
        (None, ..) => Check::new(
            SIGNATURE,
            State::NothingToCheck,
            "the statement is unsigned: its producer is claimed",
        ),
        (Some(signed), Some(key), _) => {
            let (wanted, found) = (signature::key_id(key), signed.key());
            let payload_type = PayloadType::Statement;
            let verified = signature::verify(key, payload_type, entry.payload, signed.signature);
            match verified {
                _ if wanted != found => Check::new(
                    SIGNATURE,
                    State::Failed,
                    format!("it is by key {found}, not by {wanted}"),
                ),
                Ok(()) => Check::new(
                    SIGNATURE,
                    State::Checked,
                    format!("key {found} signed the statement"),
                ),
                Err(error) => Check::new(SIGNATURE, State::Failed, error.to_string()),
            }
        }
        (Some(signed), None, Some((trust, author))) => {
            // The signature is verified with the key from the trust file even if the author is wrong in
            // another way.
            let (id, payload_type) = (signed.key(), PayloadType::Statement);
            let verified = trust
                .history
                .public_key(id)
                .map(|key| signature::verify(key, payload_type, entry.payload, signed.signature));
            match verified {
                Some(Ok(())) => Check::new(
                    SIGNATURE,
                    State::Checked,
                    format!("key {id} signed the statement"),
                ),
                Some(Err(error)) => Check::new(SIGNATURE, State::Failed, error.to_string()),
                None => {
                    let why = author.as_ref().err().map(ToString::to_string);
                    Check::new(SIGNATURE, State::Failed, why.unwrap_or_default())
                }
            }
        }
        (Some(signed), None, None) => Check::new(
            SIGNATURE,
            State::NotChecked,
            format!(
                "key {} is named, and its signature was not looked at: that takes --trust or --key",
                signed.key()
            ),
        ),
    };
    let standing = match author {
        Some((trust, author)) => of_standing(trust, head, author, header),
        None => match entry.signature {
            Some(signed) => Check::new(STANDING, State::NotChecked, standing_unknown(signed.key())),
            None => Check::new(
                STANDING,
                State::NotChecked,
                "whether the producer has a key, and so must sign, takes --trust",
            ),
        },
    };
    [signature, standing]
}

pub(super) fn standing_unknown(key: KeyId) -> String {
    format!("whether key {key} spoke for the producer at that leaf takes --trust")
}

/// Checks the standing of an author in the tree of `head`. A trust file under another head cannot prove
/// that the key was in force: it may be of another fork, or lack later statements. Statements against the
/// key in it are reported anyway.
pub(super) fn of_standing(
    trust: &Trust,
    head: &TreeHead,
    author: Result<Option<KnownAuthor>, AuthorError>,
    header: &Header<'_>,
) -> Check {
    let other_head = (trust.head != *head).then(|| {
        format!(
            "the trust file is under another head ({} leaves) than the proof ({} leaves): make both \
             with one deed prove",
            trust.head.size, head.size
        )
    });
    let author = match (author, other_head) {
        (Err(error), None) => return Check::new(STANDING, State::Failed, error.to_string()),
        (Err(error), Some(other)) => {
            return Check::new(STANDING, State::Failed, format!("{error} ({other})"));
        }
        (Ok(_), Some(other)) => return Check::new(STANDING, State::NotChecked, other),
        (Ok(author), None) => author,
    };
    let author = match author {
        Some(author) => author,
        None => {
            let detail = "the ledger itself is the author";
            return Check::new(STANDING, State::NothingToCheck, detail);
        }
    };
    if header.body.is_trust() && !author.complete {
        let left_out = "the trust file leaves this trust statement out, and it is in the same tree";
        return Check::new(STANDING, State::Failed, left_out);
    }
    let producer = header.producer;
    let mut detail = match (author.key, &author.record) {
        (None, _) => format!("no key was registered for {producer}, so it may speak unsigned"),
        (Some(key), None) => format!("key {key} was an authority of the ledger at that leaf"),
        (Some(key), Some(record)) => format!(
            "key {key} spoke for {producer} at that leaf: registered at leaf {}, for controller {}",
            record.registered_leaf, record.controller
        ),
    };
    if let Some(leaf) = author.revoked_leaf {
        detail += &format!("; it was revoked later, at leaf {leaf}");
    }
    let newest = trust.history.newest();
    detail += &if author.complete {
        format!("; no trust statement before that leaf is left out (the newest shown is {newest})")
    } else {
        format!(
            "; not checked: that no trust statement stands between leaf {newest}, the newest that \
             is shown, and that leaf"
        )
    };
    Check::new(STANDING, State::Checked, detail)
}
