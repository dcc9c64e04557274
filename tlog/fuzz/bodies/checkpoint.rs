//! What parses as a checkpoint prints as the same text.

use deed_tlog::Checkpoint;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_text(), text);
        assert_eq!(text.matches('\n').count(), 3);
    }
}
