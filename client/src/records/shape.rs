//! The begin of the records of a list.

/// Bytes of it that count.
const SHAPE_BYTES: usize = 32;

/// The text that the records of a list begin with: the name of the first one's first member, and of several what
/// they have in common.
#[derive(Debug, Default)]
pub(super) struct Shape {
    sample: Vec<u8>,
    len: usize,
    is_common: bool,
    /// A whole record began so.
    is_known: bool,
}

impl Shape {
    /// Returns the bytes of the shape; empty if it is not known.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.sample[..self.len]
    }

    pub(super) const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Takes a record into account, if it is an object with a name in it.
    pub(super) fn learn(&mut self, text: &[u8]) {
        if name_len(&text[..text.len().min(SHAPE_BYTES)]) == 0 {
            return;
        }
        self.is_known = true;
        let bound = match self.is_common {
            true => self.len,
            false => self.sample.len(),
        };
        let pairs = self.sample[..bound].iter().zip(text);
        let common = pairs.take_while(|(one, other)| one == other).count();
        let name = name_len(&self.sample);
        if name > 0 && common >= name {
            (self.len, self.is_common) = (common, true);
            return;
        }
        self.sample = text[..text.len().min(SHAPE_BYTES)].to_vec();
        (self.len, self.is_common) = (name_len(&self.sample), false);
    }

    /// Takes a bad record into account where there was none before.
    pub(super) fn learn_from_torn(&mut self, text: &[u8]) {
        if self.sample.is_empty() {
            self.learn(text);
            self.is_known = false;
        }
    }
}

/// Returns the length of an object up to the colon behind its first name; 0 if it has none.
fn name_len(text: &[u8]) -> usize {
    let find = || {
        let quote = text.iter().position(|byte| *byte == b'"')?;
        let (before, name) = (&text[..quote], &text[quote + 1..]);
        let [b'{', white @ ..] = before else {
            return None;
        };
        let end = name.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        let rest = &name[end..];
        let colon = rest.iter().position(|byte| *byte == b':')?;
        let is_plain = rest[0] == b'"' && white.iter().all(u8::is_ascii_whitespace);
        let is_next = rest[1..colon].iter().all(u8::is_ascii_whitespace);
        (is_plain && is_next).then_some(quote + 1 + end + colon + 1)
    };
    find().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_begin_with_what_they_have_in_common() {
        let mut shape = Shape::default();
        let mut learned = |text: &str| {
            shape.learn(text.as_bytes());
            String::from_utf8(shape.bytes().to_vec()).unwrap()
        };
        assert_eq!(learned("7"), "");
        assert_eq!(learned(r#"{"kind": "Event", "id": 1}"#), r#"{"kind":"#);
        assert_eq!(
            learned(r#"{"kind": "Event", "id": 2}"#),
            r#"{"kind": "Event", "id": "#
        );
        assert_eq!(
            learned(r#"{"kind": "Event", "at": 2}"#),
            r#"{"kind": "Event", ""#
        );
        assert_eq!(
            learned(r#"{"kind": "Event", "id": 2}"#),
            r#"{"kind": "Event", ""#
        );
        assert_eq!(learned(r#"{ "a" : 1}"#), r#"{ "a" :"#);
        assert_eq!(learned("{}"), r#"{ "a" :"#);
    }
}
