//! What an approver is asked about, and what of it was checked here.

use deed_client::{AuthorError, KnownAuthor, Leaf, Ledger, ProvenStatement, TrustHistory};
use deed_evidence::entry::Entry;
use deed_proto::v1::{self, Author, statement::Body};
use deed_tlog::{Hash, LeafIndex};

use super::super::arguments::intent;
use crate::cli::{Failure, Outcome};

/// An Intent that is in the log, and whose author is who it says.
pub(super) struct Asked {
    pub(super) found: ProvenStatement,
    pub(super) intended: v1::Intent,
    pub(super) author: KnownAuthor,
    pub(super) grant: Option<Granted>,
    pub(super) opened: Option<Opened>,
    /// The newest trust statement that the server showed.
    pub(super) newest_trust: LeafIndex,
}

/// The grant that the Intent relies on.
pub(super) struct Granted {
    pub(super) found: ProvenStatement,
    pub(super) grant: v1::Grant,
    /// Why its author is not who it says, if so.
    pub(super) author: Result<KnownAuthor, String>,
    /// What was used of it, by the server's word.
    pub(super) spent: Option<v1::GrantInfo>,
}

/// What opened the task.
pub(super) struct Opened {
    pub(super) found: ProvenStatement,
    pub(super) opened: v1::TaskOpened,
    pub(super) author: Result<KnownAuthor, String>,
}

/// Fetches the Intent at a leaf and all that it rests on. What does not verify is an error; an Intent
/// that nobody signed is one unless that is `allowed`.
pub(super) async fn asked(ledger: &Ledger, leaf: u64, allowed: bool) -> Outcome<Asked> {
    let (found, intended) = intent(ledger, leaf).await?;
    let trust = ledger.trust_chain().await?;
    let history = TrustHistory::new(trust.entries);
    let history = history.map_err(|error| Failure::does_not_verify(error.to_string()))?;
    let author = author_of(ledger, &history, &found)
        .await?
        .map_err(|error| Failure::does_not_verify(format!("the Intent at leaf {leaf}: {error}")))?;
    if author.key.is_none() && !allowed {
        return Err(Failure::does_not_verify(format!(
            "nobody signed the Intent at leaf {leaf}: that {} wants this is a claim of whoever sent \
             it. --unsigned asks about it all the same",
            found.statement.producer
        )));
    }
    // A task that the server does not tell is said to be unknown.
    let told = match found.task() {
        Some(task) => match ledger.task(task).await {
            Ok(told) => Some(told),
            Err(deed_client::Error::Refused { .. } | deed_client::Error::NotAllowed { .. }) => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let mut opened = None;
    let entries = told.iter().flat_map(|told| &told.entries);
    for entry in entries {
        if let Some(Body::TaskOpened(body)) = entry.body() {
            opened = Some(Opened {
                opened: body.clone(),
                author: named(author_of(ledger, &history, entry).await?),
                found: entry.clone(),
            });
            break;
        }
    }
    let mut grant = None;
    if let Ok(hash) = Hash::try_from(&intended.grant[..]) {
        let leaf = ledger.prove_leaf(Leaf::Hash(hash), None).await?.index;
        let entry = ledger.statement(leaf).await?;
        let Some(Body::Grant(body)) = entry.body() else {
            return Err(Failure::does_not_verify(format!(
                "what the Intent names as its grant, leaf {leaf}, is none"
            )));
        };
        let infos = told.iter().flat_map(|told| &told.grants);
        let spent = infos.into_iter().find(|info| info.leaf_index == leaf.get());
        grant = Some(Granted {
            grant: body.clone(),
            author: named(author_of(ledger, &history, &entry).await?),
            spent: spent.cloned(),
            found: entry,
        });
    }
    Ok(Asked {
        found,
        intended,
        author,
        grant,
        opened,
        newest_trust: history.newest(),
    })
}

fn named(author: Result<KnownAuthor, AuthorError>) -> Result<KnownAuthor, String> {
    author.map_err(|error| error.to_string())
}

/// Who is the author of an entry that is in the log. A statement of a batch is followed to its
/// manifest first. The outer error is the server's, or a batch that does not hold.
async fn author_of(
    ledger: &Ledger,
    history: &TrustHistory,
    found: &ProvenStatement,
) -> Outcome<Result<KnownAuthor, AuthorError>> {
    let fails = |error: &dyn std::fmt::Display| {
        Failure::does_not_verify(format!("the entry at leaf {}: {error}", found.index))
    };
    let entry = Entry::parse(&found.entry).map_err(|error| fails(&error))?;
    let header = entry.statement().map_err(|error| fails(&error))?;
    let mut batch_key = None;
    if entry.author == Author::Batched {
        let key = |id| history.public_key(id).cloned();
        let proven = ledger
            .prove_batched(Leaf::Index(found.index), None, key)
            .await?;
        if proven.path.statement_hash != found.hash {
            return Err(fails(&"the batch proof is of another entry"));
        }
        batch_key = Some(proven.path.key_id);
    }
    let author = history.author(found.index, &found.entry, &entry, &header, batch_key);
    match author.transpose() {
        Some(author) => Ok(author),
        None => Err(fails(&"the ledger itself is the author")),
    }
}
