//! The depth to which a text of Cedar nests, found without parsing it.
//!
//! Cedar's parser builds its tree without recursion, and everything behind it (conversion,
//! validation, evaluation, dropping) walks that tree by recursion. Evaluation stops with an error
//! when little of the thread's stack is left, which would make a ruling depend on the thread; the
//! conversion does not even look. So what nests too deeply is refused first.

/// Highest [`depth`] of a text that is taken. Evaluation takes less than 1 KiB of stack a level
/// in a release build, and threads have 2 MiB at least.
pub(super) const DEPTH_MAX: usize = 128;

/// The kinds of brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// `<` is a comparison.
    Policies,
    /// `<` opens the element type of a set.
    Schema,
}

/// One pair of brackets, open.
#[derive(Default)]
struct Level {
    /// Operators since the last separator: chains like `a && b && c` are trees that lean to one
    /// side.
    chain: usize,
    /// Depth of the operand that is being read, and of the deepest one before it.
    operand: usize,
    operand_max: usize,
    /// The deepest part before the last separator.
    part_max: usize,
}

impl Level {
    fn operand_ends(&mut self) {
        self.operand_max = self.operand_max.max(self.operand);
        self.operand = 0;
    }

    fn part_ends(&mut self) {
        self.operand_ends();
        self.part_max = self.part_max.max(self.chain + self.operand_max);
        (self.chain, self.operand_max) = (0, 0);
    }
}

/// An upper bound of the depth of the tree that Cedar makes of `text`, good or not. Stops counting
/// soon after `limit`.
pub(super) fn depth(text: &str, syntax: Syntax, limit: usize) -> usize {
    let mut levels = vec![Level::default()];
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let Some(level) = levels.last_mut() else {
            break;
        };
        match byte {
            b'"' => {
                rest = after_string(rest);
                level.operand += 1;
            }
            b'/' if rest.first() == Some(&b'/') => rest = after_line(rest),
            b'(' | b'[' | b'{' => levels.push(Level::default()),
            b'<' if syntax == Syntax::Schema => levels.push(Level::default()),
            b')' | b']' | b'}' => close(&mut levels),
            b'>' if syntax == Syntax::Schema => close(&mut levels),
            b',' | b';' => level.part_ends(),
            b'&' | b'|' | b'+' | b'-' | b'*' => {
                level.chain += 1;
                level.operand_ends();
            }
            byte if is_word(byte) => {
                let length = rest.iter().take_while(|byte| is_word(**byte)).count();
                let word = &text.as_bytes()[text.len() - rest.len() - 1..][..length + 1];
                rest = &rest[length..];
                if matches!(word, b"if" | b"then" | b"else" | b"when" | b"unless") {
                    level.chain += 1;
                    level.operand_ends();
                } else {
                    level.operand += 1;
                }
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => level.operand += 1,
        }
        let open = levels.len();
        let here = levels.last().map_or(0, |level| level.chain + level.operand);
        if open > limit || here > limit {
            return open.max(here);
        }
    }
    while levels.len() > 1 {
        close(&mut levels);
    }
    levels.pop().map_or(0, |mut level| {
        level.part_ends();
        level.part_max
    })
}

/// The content of the brackets becomes a part of the operand around them. A bracket that was never
/// opened is left to the parser.
fn close(levels: &mut Vec<Level>) {
    if levels.len() > 1
        && let Some(mut inner) = levels.pop()
        && let Some(outer) = levels.last_mut()
    {
        inner.part_ends();
        outer.operand += inner.part_max + 1;
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => return after,
            b'\\' => after.get(1..).unwrap_or_default(),
            _ => after,
        };
    }
    rest
}

fn after_line(rest: &[u8]) -> &[u8] {
    let length = rest.iter().take_while(|byte| **byte != b'\n').count();
    &rest[length..]
}

#[cfg(test)]
mod tests {
    use super::{Syntax, depth};

    fn policies(text: &str) -> usize {
        depth(text, Syntax::Policies, 1_000)
    }

    #[test]
    fn what_nests_counts_and_what_stands_side_by_side_does_not() {
        let one = policies("permit (principal, action, resource) when { a.b == c };");
        let many = "permit (principal, action, resource) when { a.b == c };".repeat(200);
        assert_eq!(policies(&many), one);
        let set = format!("x when {{ [{}] }};", "\"a\", ".repeat(1_000));
        assert!(policies(&set) < 10, "{}", policies(&set));
        for chain in [
            "&& a ",
            "|| a.b ",
            "+ 1 ",
            "- 1 ",
            "* 1 ",
            ".a ",
            "[0] ",
            "!",
            "else if a then b ",
        ] {
            let long = format!("x when {{ a {} }};", chain.repeat(300));
            assert!(policies(&long) >= 300, "{chain}: {}", policies(&long));
        }
        for (open, close) in [("(", ")"), ("[", "]"), ("{a: ", "}"), ("f(", ")")] {
            let deep = format!("x when {{ {}1{} }};", open.repeat(300), close.repeat(300));
            assert!(policies(&deep) >= 300, "{open}: {}", policies(&deep));
            let cut_off = format!("x when {{ {}1", open.repeat(300));
            assert!(policies(&cut_off) >= 300, "{open}: {}", policies(&cut_off));
        }
    }

    #[test]
    fn texts_and_comments_hide_what_is_in_them() {
        let quiet = policies("a when { b == \"\" };");
        assert_eq!(
            policies("a when { b == \"((((\\\"((( && && \\\\\" };"),
            quiet
        );
        assert_eq!(policies("// (((((\na when { b == \"\" }; // [[["), quiet);
        assert_eq!(policies("\"never ends \\"), 1);
        assert_eq!(policies(")))"), 0);
    }

    #[test]
    fn sets_of_a_schema_nest() {
        let deep = format!("type A = {}Long{};", "Set<".repeat(300), ">".repeat(300));
        assert!(depth(&deep, Syntax::Schema, 1_000) >= 300);
        assert!(policies("a < b") < 10);
    }
}
