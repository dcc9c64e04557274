//! Errors with their causes, each of which is told once.

use std::error::Error;

/// Returns an error and its causes in one line. A cause is left out if the words before it end with
/// it: an error of a library may both contain its cause and name it.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !line.ends_with(&words) {
            line += ": ";
            line += &words;
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("{words}")]
    struct Link {
        words: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(words: &[&'static str]) -> Option<Box<Link>> {
        let (&first, rest) = words.split_first()?;
        let source = chain(rest);
        Some(Box::new(Link {
            words: first,
            source,
        }))
    }

    #[test]
    fn each_cause_stands_once() {
        for (words, line) in [
            (&["a"][..], "a"),
            (&["a", "b", "c"], "a: b: c"),
            (&["a: b", "b"], "a: b"),
            (&["a: b: c", "b: c", "c"], "a: b: c"),
            // This error passes on the words of its cause.
            (&["a", "a", "b"], "a: b"),
            // Words in the middle are no repetition.
            (&["b is a", "b"], "b is a: b"),
            (&["a", "b", "a"], "a: b: a"),
        ] {
            assert_eq!(with_causes(&*chain(words).unwrap()), line);
        }
    }

    /// An error has its cause in its words, or names it as its source, but not both: a printed
    /// chain would repeat it.
    #[test]
    fn no_error_both_contains_and_names_its_cause() {
        let mut looked_at = 0;
        let mut both = Vec::new();
        for folder in ["src", "../server/src", "../migrations/src"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            each_file(&folder, &mut |path, text| {
                for (at, _) in text.match_indices("#[error(") {
                    looked_at += 1;
                    if contains_and_names(&text[at..]) {
                        let line = text[..at].matches('\n').count() + 1;
                        both.push(format!("{}:{line}", path.display()));
                    }
                }
            });
        }
        assert!(looked_at > 100, "{looked_at}");
        assert!(both.is_empty(), "rename the field to `cause`: {both:#?}");
        assert!(contains_and_names(
            "#[error(\"x: {0}\")]\n A(#[from] E),\n B"
        ));
        assert!(contains_and_names(
            "#[error(\"{source}\")]\n A {\n source: E },"
        ));
        assert!(!contains_and_names(
            "#[error(\"x: {0}\")]\n A(E),\n #[error(transparent)]\n B(#[from] E)"
        ));
    }

    /// Returns true if a variant, from its `#[error(` on, both contains and names its cause.
    fn contains_and_names(variant: &str) -> bool {
        let Some((words, rest)) = variant.split_once(")]") else {
            return false;
        };
        // The fields end where the next variant begins.
        let fields = rest.split("#[error(").next().unwrap_or_default();
        let fields = fields.split("\n}").next().unwrap_or_default();
        let unnamed =
            words.contains("{0") && ["#[from]", "#[source]"].iter().any(|a| fields.contains(a));
        unnamed || words.contains("{source")
    }

    fn each_file(folder: &Path, look: &mut dyn FnMut(&Path, &str)) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                each_file(&path, look);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("cause.rs")
            {
                look(&path, &fs::read_to_string(&path).unwrap());
            }
        }
    }
}
