//! The one who signs: an authority of the ledger, or a producer with a key, a session and contents.

mod authority;
mod contents;
mod key_files;
mod producer;
pub(crate) mod secret;
mod signing;
mod statement;

pub(crate) use authority::{
    Authority, AuthorityArgs, TrustReceiptJson, forget_if_refused, kept_authority, rejected,
};
pub(crate) use contents::ContentCommitter;
pub(crate) use key_files::{
    NewAuthority, already_exists, keys_directory, readable, write_new, write_private,
};
pub(crate) use signing::{OwnKey, SignArgs, SignMode};
pub(crate) use statement::{
    AuthorArgs, Producer, ProducerArgs, StatementAuthor, StatementReceipt, StatementReceiptJson,
};
