//! What parses as a note prints as the same bytes, and verification copes with it.

use deed_tlog::{NoteSignature, SignedNote, VerifierKey};

const KNOWN: [&str; 2] = [
    include_str!("../../tests/golden/log.vkey"),
    include_str!("../../tests/golden/w1.vkey"),
];

pub(crate) fn run(data: &[u8]) {
    if let Ok(note) = SignedNote::parse(data) {
        assert_eq!(note.to_string().as_bytes(), data);
        assert!(note.text().ends_with('\n'));
        assert!((1..=64).contains(&note.signatures().len()));
        let known = KNOWN.map(|key| VerifierKey::parse(key).unwrap());
        if let Ok(verified) = note.verify(&known) {
            assert!(!verified.is_empty() && verified.len() <= note.signatures().len());
        }
    }
    if let Ok(lines) = NoteSignature::parse_lines(data) {
        let printed: String = lines.iter().map(ToString::to_string).collect();
        assert_eq!(printed.as_bytes(), data);
    }
}
