//! CONTRIBUTING.md says step by step where a new statement body goes. The places must be there.

use std::path::Path;

#[test]
fn every_place_that_a_new_body_goes_to_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let (_, section) = text.split_once("## A new statement body\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    // What stands between backticks is every second part.
    let places: Vec<&str> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.contains('/'))
        .collect();
    assert!(places.len() >= 10, "{places:?}");
    for place in places {
        assert!(root.join(place).exists(), "{place} is not there");
    }
}
