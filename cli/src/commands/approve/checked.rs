//! The act that an approver is asked about, and the checks of it that are made here.

use deed_client::{AuthorError, KnownAuthor, Leaf, Ledger, ProvenStatement, TrustHistory};
use deed_evidence::entry::Entry;
use deed_proto::v1::{self, Author, KeyRole, statement::Body};
use deed_tlog::{Hash, LeafIndex};

use super::stands::Stands;
use crate::{
    args::intent_at,
    failure::{CommandResult, Failure},
};

/// An Intent that is in the log, that is an act, and whose author is who it says.
pub(super) struct Asked {
    pub(super) found: ProvenStatement,
    pub(super) intended: v1::Intent,
    pub(super) author: KnownAuthor,
    /// The state of the Intent, computed here.
    pub(super) stands: Stands,
    pub(super) grant: Option<Granted>,
    pub(super) opened: Option<Opened>,
    /// True if the task has openings, and none of them is by somebody who may open a task.
    pub(super) opened_by_others: bool,
    /// The newest trust statement that the server showed.
    pub(super) newest_trust: LeafIndex,
}

/// The grant that the Intent relies on.
pub(super) struct Granted {
    pub(super) found: ProvenStatement,
    pub(super) grant: v1::Grant,
    /// The author of the grant, or the reason why the named author did not write it.
    pub(super) author: Result<KnownAuthor, String>,
    /// The use that was made of the grant, by the server's word.
    pub(super) spent: Option<v1::GrantInfo>,
}

/// The statement that opened the task: by a platform or an authority, whose signature was checked.
pub(super) struct Opened {
    pub(super) found: ProvenStatement,
    pub(super) opened: v1::TaskOpened,
    pub(super) author: Result<KnownAuthor, String>,
}

/// Fetches the Intent at a leaf and all that it rests on. What does not verify is an error, and so is an
/// Intent that is no act; one that nobody signed is an error unless that is `allowed`.
pub(super) async fn asked(ledger: &Ledger, leaf: u64, allowed: bool) -> CommandResult<Asked> {
    let (found, intended) = intent_at(ledger, leaf).await?;
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
    let task = found.task().ok_or_else(|| {
        Failure::does_not_verify(format!(
            "the Intent at leaf {leaf} is of no task, so it is no act"
        ))
    })?;
    let judged = ledger.judged_task(task).await?;
    let stands = Stands::of(&judged, leaf)?;
    let told = judged.report;
    let (mut opened, mut opened_by_others) = (None, false);
    for entry in &told.entries {
        let Some(Body::TaskOpened(body)) = entry.body() else {
            continue;
        };
        let author = author_of(ledger, &history, entry).await?;
        if author.as_ref().is_ok_and(may_open) && is_without_breach(entry) {
            opened_by_others = false;
            opened = Some(Opened {
                opened: body.clone(),
                author: named(author),
                found: entry.clone(),
            });
            break;
        }
        opened_by_others = true;
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
        let mut infos = told.grants.iter();
        let spent = infos.find(|info| info.leaf_index == leaf.get());
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
        stands,
        grant,
        opened,
        opened_by_others,
        newest_trust: history.newest(),
    })
}

/// Returns true if the ledger's rules let such an author open tasks. Else an agent would choose its
/// own risk tier, and with it what is asked of it.
fn may_open(author: &KnownAuthor) -> bool {
    match &author.record {
        Some(record) => record.role == KeyRole::Platform,
        // An authority has no record.
        None => author.key.is_some(),
    }
}

/// Returns true if a statement has no form that the rules refuse from version 2 on.
fn is_without_breach(found: &ProvenStatement) -> bool {
    let entry = Entry::parse(&found.entry);
    entry.is_ok_and(|entry| {
        let header = entry.statement();
        header.is_ok_and(|header| header.breach.is_none())
    })
}

fn named(author: Result<KnownAuthor, AuthorError>) -> Result<KnownAuthor, String> {
    author.map_err(|error| error.to_string())
}

/// Returns the author of an entry that is in the log. A statement of a batch is followed to its
/// manifest first. The outer error is the server's, or a batch that does not hold.
async fn author_of(
    ledger: &Ledger,
    history: &TrustHistory,
    found: &ProvenStatement,
) -> CommandResult<Result<KnownAuthor, AuthorError>> {
    let fails = |error: &dyn std::fmt::Display| {
        Failure::does_not_verify(format!("the entry at leaf {}: {error}", found.index))
    };
    let entry = Entry::parse(&found.entry).map_err(|error| fails(&error))?;
    let header = entry.statement().map_err(|error| fails(&error))?;
    let mut batch_key = None;
    if entry.author == Author::Batched {
        let key = |id| history.public_key(id).cloned();
        let proven = ledger.prove_batched(Leaf::Index(found.index), None, key);
        let proven = match proven.await {
            Err(deed_client::Error::Refused {
                code: tonic::Code::FailedPrecondition,
                ..
            }) => {
                return Err(fails(
                    &"it is one of a batch, and the server shows no manifest that covers it: \
                      nobody's signature stands behind it",
                ));
            }
            proven => proven?,
        };
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
