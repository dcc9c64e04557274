//! Deed's protocol: the messages of `deed.v1` and its gRPC services.
//!
//! The `.proto` files under `proto/deed/v1` document every rpc, field, unit, limit and error; this
//! crate holds only the code that is generated from them: messages and services in [`v1`], the rules
//! of fields in [`rules`].
//!
//! Architecture invariant: there is no logic here but the codec's bound on the cost of decoding.
//! `deed-evidence` decides whether a message is canonical, and what it means.

// Before the modules: they see a macro that stands above them.
include!(concat!(env!("OUT_DIR"), "/bodies.rs"));

mod codec;
pub mod rules;

pub use codec::{BoundedCodec, BoundedDecoder, FIELDS_MAX};

/// Version 1 of the protocol, and of everything that is hashed or signed.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("deed.v1");

    /// The encoded `google.protobuf.FileDescriptorSet` of this package, for reflection and for
    /// naming fields in errors.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/deed.v1.bin"));
}
