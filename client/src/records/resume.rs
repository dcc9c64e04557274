//! Reading on behind what is no record: where the next record begins.

use super::{Around, BETWEEN, Begins, Records, brackets::Brackets, grammar::Grammar, is_bracket};

impl Records<'_> {
    /// Goes on behind a bad record: at a line that begins as it did, which may have been read as
    /// part of it, or behind its last bracket.
    pub(super) fn go_on(&mut self, grammar: &Grammar, begins: Begins, text: &[u8]) {
        let next = self.bytes.peek();
        // Where the bad record is not the first of its line, the next of what stands around it.
        let like = match (&self.around, begins.indent) {
            (Some(around), None) => around.begins,
            _ => begins,
        };
        if text.is_empty() {
            if let Some(byte) = next {
                self.pass_wrong(byte);
            }
            return;
        }
        if begins.indent.is_none() && self.around.is_some() {
            self.shape.learn_from_torn(text);
            self.bytes.give_back(&text[1..]);
            self.line = begins.line;
            self.indent = None;
            let open = Brackets::behind(grammar, next);
            return self.seek(like, text.len() - 1, Some(open));
        }
        if let Some(at) = next_like(text, like) {
            self.bytes.give_back(&text[at..]);
            let lines = text[..at].iter().filter(|byte| **byte == b'\n').count();
            self.line = begins.line + lines as u64;
            self.indent = Some(0);
            self.leave_unless(like, begins);
            return;
        }
        match next {
            Some(_) if begins.indent.is_some() && self.line > begins.line => {
                self.skip_lines(like, begins);
            }
            Some(byte) => self.skip(grammar, begins, byte),
            None => {}
        }
    }

    /// Returns true if what comes next in this line may be part of a bad record that shares it with others.
    pub(super) fn is_lost(&mut self, around: &Around) -> bool {
        let shares = around.member.is_some_and(|member| member.indent.is_none());
        let is_within = around.after_flaw && self.indent.is_none();
        let may_be = is_within && shares && self.shape.is_known();
        may_be && !self.bytes.starts_with(self.shape.bytes())
    }

    /// Passes what is left of a bad member of a list, of which nothing more is understood.
    pub(super) fn pass_rest(&mut self, around: Around, byte: u8) {
        let before = self.bytes.position();
        let (list, member) = (around.begins, around.member);
        self.around = Some(around);
        match member {
            Some(member) if member.indent.is_some() => {
                self.bump(byte);
                self.skip_lines(member, member);
            }
            Some(_) if !self.shape.bytes().is_empty() => {
                self.bump(byte);
                self.seek(list, 0, None);
            }
            _ => self.pass_wrong(byte),
        }
        self.passed_over += self.bytes.position() - before;
    }

    /// Goes on in a line that records share: at what begins as the records before did, or at a line
    /// that begins as the list's; or behind the last bracket of the bad record, if `open` says how
    /// many are open behind the next `swallowed` bytes.
    pub(super) fn seek(&mut self, list: Begins, mut swallowed: usize, mut open: Option<Brackets>) {
        let shape = self.shape.bytes().to_vec();
        let mut matched = 0;
        while let Some(byte) = self.bytes.peek() {
            if is_bracket(byte) && list.indent.is_some() && self.indent == list.indent {
                self.around = None;
                return;
            }
            let counted = open.as_ref().filter(|_| swallowed == 0);
            let is_outside = counted.is_some_and(Brackets::is_outside);
            if is_outside && matches!(byte, b',' | b']' | b'\n') {
                return;
            }
            self.bump(byte);
            matched = match shape.get(matched) {
                Some(next) if *next == byte => matched + 1,
                _ => usize::from(shape.first() == Some(&byte)),
            };
            if matched > 0 && matched == shape.len() {
                let lines = shape.iter().filter(|byte| **byte == b'\n').count();
                self.bytes.give_back(&shape);
                self.line -= lines as u64;
                self.indent = None;
                return;
            }
            let counted = open.as_mut().filter(|_| swallowed == 0);
            swallowed = swallowed.saturating_sub(1);
            if counted.is_some_and(|open| open.read(byte)) {
                return;
            }
        }
    }

    /// Passes a byte with which no value begins, and the rest of its line up to a comma or a list's end.
    pub(super) fn pass_wrong(&mut self, byte: u8) {
        self.bump(byte);
        while let Some(byte) = self.bytes.peek() {
            if matches!(byte, b',' | b']' | b'\n') {
                return;
            }
            self.bump(byte);
        }
    }

    /// Skips what is left of a bad value over many lines, of which brackets cannot be counted any more:
    /// to the line that closes it, which is indented as the one that begins it, or to one that begins
    /// as that did, or to the bracket of what stands around it.
    pub(super) fn skip_lines(&mut self, like: Begins, begins: Begins) {
        while let Some(byte) = self.bytes.peek() {
            if let (Some(indent), Some(of_value)) = (self.indent, begins.indent) {
                let closes = match begins.first {
                    b'{' => byte == b'}',
                    _ => byte == b']',
                };
                if indent == of_value && closes {
                    return self.bump(byte);
                }
                let is_behind = indent < of_value && matches!(byte, b'}' | b']');
                if is_behind || (indent == of_value && byte == b']') {
                    return;
                }
                if byte == like.first && like.indent == Some(indent) {
                    return self.leave_unless(like, begins);
                }
            }
            self.bump(byte);
        }
    }

    /// Leaves the value around the records if reading goes on at the like of that value.
    pub(super) fn leave_unless(&mut self, like: Begins, begins: Begins) {
        if begins.indent.is_none() && like.indent.is_some() {
            self.around = None;
        }
    }

    /// Skips to a line that begins as the bad value did, or behind its last bracket.
    pub(super) fn skip(&mut self, grammar: &Grammar, begins: Begins, next: u8) {
        let like = match (&self.around, begins.indent) {
            (Some(around), None) => around.begins,
            _ => begins,
        };
        let mut open = Brackets::behind(grammar, Some(next));
        while let Some(byte) = self.bytes.peek() {
            if open.is_outside() && matches!(byte, b',' | b']' | b'\n') {
                return;
            }
            if byte == like.first && like.indent.is_some() && self.indent == like.indent {
                self.leave_unless(like, begins);
                return;
            }
            let was = self.line;
            self.bump(byte);
            if self.line > was && self.around.is_some() && begins.indent.is_some() {
                return self.skip_lines(like, begins);
            }
            if open.read(byte) {
                return;
            }
        }
    }
}

/// The first line of a text behind its first that begins as `like` did: each line that was swallowed is
/// read again.
fn next_like(text: &[u8], like: Begins) -> Option<usize> {
    let indent = like.indent?;
    let begins_so = |line: &[u8]| {
        let mut white = 0;
        let first = line.iter().find(|byte| {
            white += usize::from(matches!(byte, b' ' | b'\t'));
            !matches!(byte, b' ' | b'\t') && !BETWEEN.contains(byte)
        });
        first == Some(&like.first) && white == indent
    };
    let ends = (0..text.len()).filter(|at| text[*at] == b'\n');
    let mut starts = ends
        .map(|end| end + 1)
        .filter(|start| begins_so(&text[*start..]));
    starts.next()
}
