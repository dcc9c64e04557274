//! The names under which requests are counted: a fixed set, whatever callers request.

use std::collections::HashMap;

use deed_proto::v1;
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Names for requests over plain HTTP.
const CHECKPOINT: &str = "http/checkpoint";
const TILE: &str = "http/tile";

/// Name for everything else, also for paths that do not exist.
const OTHER: &str = "other";

/// A name, by its position in [`Rpcs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc(pub(super) usize);

/// All names.
#[derive(Debug)]
pub(super) struct Rpcs {
    names: Vec<(String, bool)>,
    by_path: HashMap<String, Rpc>,
}

impl Rpcs {
    /// Returns the names of the protocol's rpcs, of those of `further` descriptor sets, and of
    /// plain HTTP.
    pub(super) fn new(further: &[&[u8]]) -> Self {
        let mut rpcs = Self {
            names: Vec::new(),
            by_path: HashMap::new(),
        };
        for (name, unary) in [(OTHER, true), (CHECKPOINT, true), (TILE, true)] {
            rpcs.names.push((name.to_owned(), unary));
        }
        for encoded in [v1::FILE_DESCRIPTOR_SET].iter().chain(further) {
            let set = FileDescriptorSet::decode(*encoded).expect("the descriptors are well-formed");
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        let unary = !method.client_streaming() && !method.server_streaming();
                        let service = format!("{}.{}", file.package(), service.name());
                        rpcs.add(&format!("{service}/{}", method.name()), unary);
                    }
                }
            }
        }
        rpcs
    }

    fn add(&mut self, name: &str, unary: bool) {
        self.by_path
            .insert(format!("/{name}"), Rpc(self.names.len()));
        self.names.push((name.to_owned(), unary));
    }

    /// Returns the name that a path counts under.
    pub(super) fn of(&self, path: &str) -> Rpc {
        if let Some(rpc) = self.by_path.get(path) {
            return *rpc;
        }
        if !path.starts_with("/logs/") {
            Rpc(0)
        } else if path.ends_with("/checkpoint") {
            Rpc(1)
        } else if path.contains("/tile/") {
            Rpc(2)
        } else {
            Rpc(0)
        }
    }

    pub(super) fn name(&self, rpc: Rpc) -> &str {
        &self.names[rpc.0].0
    }

    /// Returns true if the rpc has one request and one answer, so that its time is meaningful.
    pub(super) fn is_unary(&self, rpc: Rpc) -> bool {
        self.names[rpc.0].1
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Rpc> {
        (0..self.names.len()).map(Rpc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_name_of_a_fixed_set() {
        let rpcs = Rpcs::new(&[]);
        for (path, name) in [
            ("/deed.v1.Ledger/Append", "deed.v1.Ledger/Append"),
            ("/deed.v1.Log/GetEntries", "deed.v1.Log/GetEntries"),
            ("/grpc.health.v1.Health/Check", "other"),
            ("/logs/payments/checkpoint", "http/checkpoint"),
            ("/logs/payments/tile/0/x001/067", "http/tile"),
            ("/logs/payments/tile/entries/000", "http/tile"),
            ("/logs/payments", "other"),
            ("/deed.v1.Ledger/Nothing", "other"),
            ("/", "other"),
        ] {
            assert_eq!(rpcs.name(rpcs.of(path)), name, "{path}");
        }
        assert!(rpcs.is_unary(rpcs.of("/deed.v1.Ledger/Append")));
        assert!(!rpcs.is_unary(rpcs.of("/deed.v1.Ledger/AppendStream")));
        assert!(!rpcs.is_unary(rpcs.of("/deed.v1.Log/GetEntries")));
    }
}
