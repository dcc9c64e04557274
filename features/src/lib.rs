//! Nothing: this crate only says which features other crates have. See its Cargo.toml.
