//! FindingDisposition.

use deed_proto::v1::{self, DispositionKind, FindingKind};

use super::Apply;
use crate::assess::{View, cells::CellKey};

impl<V: View> Apply<'_, V> {
    /// Notes what somebody says of the finding `number` at `leaf`.
    pub(super) fn disposition(
        &mut self,
        leaf: u64,
        number: u32,
        kind: DispositionKind,
    ) -> Result<(), V::Error> {
        let key = CellKey::Finding(leaf, number);
        let Some(finding) = self.cells.change::<Box<v1::Finding>>(key)? else {
            let detail = format!("there is no finding {leaf}.{number}");
            return self.find(FindingKind::OutOfPlace).in_no_task().says(detail);
        };
        finding.disposition_leaf = Some(self.leaf);
        finding.set_disposition(kind);
        Ok(())
    }
}
