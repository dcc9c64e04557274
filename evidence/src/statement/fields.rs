//! The fields of a message that the walk has accepted: read without checking anything again, and
//! without allocating.

/// A field's value as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Raw<'a> {
    /// A number.
    Number(u64),
    /// Bytes, text, or another message.
    Text(&'a [u8]),
}

/// The fields of a message, in their order. Ends where the bytes are not a message.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// Those that hold bytes.
    pub(crate) fn texts(self) -> impl Iterator<Item = (u32, &'a [u8])> {
        self.filter_map(|(number, value)| match value {
            Raw::Text(bytes) => Some((number, bytes)),
            Raw::Number(_) => None,
        })
    }

    fn varint(&mut self) -> Option<u64> {
        if let [byte @ 0..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Some(u64::from(*byte));
        }
        let mut value = 0;
        for (position, &byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                self.0 = &self.0[position + 1..];
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let value = self.varint()?;
        match tag & 7 {
            0 => Some((number, Raw::Number(value))),
            2 => {
                let (bytes, rest) = self.0.split_at_checked(usize::try_from(value).ok()?)?;
                self.0 = rest;
                Some((number, Raw::Text(bytes)))
            }
            _ => None,
        }
    }
}

/// The values of these fields; empty where there is none.
pub(crate) fn texts<const N: usize>(message: &[u8], numbers: [u32; N]) -> [&[u8]; N] {
    let mut found: [&[u8]; N] = [&[]; N];
    for (number, value) in Fields(message).texts() {
        if let Some(at) = numbers.iter().position(|wanted| *wanted == number) {
            found[at] = value;
        }
    }
    found
}
