//! Deed's protocol: the messages of `deed.v1` and its gRPC services.
//!
//! The `.proto` files under `proto/deed/v1` are the documentation of every rpc, field, unit,
//! limit and error; this crate only holds what is generated from them: messages and services in
//! [`v1`], the rules of fields in [`rules`].
//!
//! Architecture invariant: no logic but the codec's bound on what decoding may cost. Whether a
//! message is canonical, and what it means, is said by `deed-evidence`.

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
