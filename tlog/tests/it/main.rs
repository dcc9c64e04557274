//! Everything that deed-tlog promises, checked from outside of the crate and against
//! definitions, oracles and vectors that were not made by it.

mod batch;
mod checkpoints;
mod ed25519_vectors;
mod fuzz;
mod growth;
mod keys;
mod largest;
mod merkle_vectors;
mod mutations;
mod notes;
mod oracles;
mod policies;
mod policy_parsing;
mod proofs;
mod reference;
mod shared;
mod store;
mod tlog_proofs;
