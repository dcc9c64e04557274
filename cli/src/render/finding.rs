//! Findings for people and scripts.

use deed_client::Basis;
use deed_evidence::Micros;
use deed_proto::v1;
use serde::Serialize;

use super::{
    folded,
    names::{self, words},
    shown,
};

#[derive(Serialize)]
pub(crate) struct FindingJson {
    pub(crate) leaf_index: u64,
    pub(crate) number: u32,
    pub(crate) kind: String,
    pub(crate) severity: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task: String,
    about_leaf: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    contradicts_leaf: Option<u64>,
    at_us: i64,
    pub(crate) detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disposition_leaf: Option<u64>,
    /// `checked` or `servers_word`.
    basis: &'static str,
}

impl FindingJson {
    pub(crate) fn new(finding: &v1::Finding, basis: Basis) -> Self {
        Self {
            leaf_index: finding.leaf_index,
            number: finding.number,
            kind: names::finding(finding.kind()),
            severity: names::severity(finding.severity()),
            task: hex::encode(&finding.task),
            about_leaf: finding.about_leaf,
            contradicts_leaf: finding.contradicts_leaf,
            at_us: finding.at_us,
            detail: finding.detail.clone(),
            disposition: finding
                .disposition_leaf
                .map(|_| names::disposition(finding.disposition())),
            disposition_leaf: finding.disposition_leaf,
            basis: names::basis(basis),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}.{}  {}: {}",
            self.leaf_index,
            self.number,
            self.severity,
            words(&self.kind)
        )];
        lines.push(folded("at", &shown(Micros::new(self.at_us))));
        if !self.task.is_empty() {
            lines.push(folded("task", &self.task));
        }
        lines.push(folded("about leaf", &self.about_leaf.to_string()));
        if let Some(leaf) = self.contradicts_leaf {
            lines.push(folded("against leaf", &leaf.to_string()));
        }
        if !self.detail.is_empty() {
            lines.push(folded("detail", &self.detail));
        }
        if let (Some(kind), Some(leaf)) = (&self.disposition, self.disposition_leaf) {
            lines.push(folded("disposition", &format!("{kind}, at leaf {leaf}")));
        }
        lines.join("\n")
    }
}
