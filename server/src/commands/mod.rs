//! The subcommands, apart from running the server itself.

pub(crate) mod access;
