//! Files that the user names: read and written whole.

mod whole_file;

use std::{fs, io, io::Write as _, path::Path};

pub(crate) use deed_files::Readers;

use crate::failure::{CommandResult, Failure};
pub(crate) use whole_file::{WholeFile, make_directory, make_private_directory};

/// Writes a file that the user named, whole or not at all, replacing what is there.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> CommandResult {
    let write = || {
        let mut file = WholeFile::create(path, Readers::All)?;
        file.write_all(bytes)?;
        file.keep()
    };
    write().map_err(|error: io::Error| {
        Failure::Usage(
            anyhow::Error::new(error).context(format!("cannot write {}", path.display())),
        )
    })
}

/// Reads a file that the user named.
pub(crate) fn read_file(path: &Path) -> CommandResult<Vec<u8>> {
    fs::read(path).map_err(|error| {
        Failure::Usage(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    })
}

/// Reads a file of one of C2SP's text formats (a proof, a checkpoint, a policy), whose lines end with
/// LF alone. A mail program or an editor that made CRLF of it, or put a byte order mark before it, has
/// changed nothing that it says; no such file has either, so it is read as it was.
pub(crate) fn read_text_lines(path: &Path) -> CommandResult<Vec<u8>> {
    let bytes = read_file(path)?;
    let refused = |what: &str| Err(Failure::usage(format!("{}: {what}", path.display())));
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refused("it is UTF-16; save it as UTF-8");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut lines = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => {}
            b'\r' => return refused("its lines end with CR; they end with LF"),
            byte => lines.push(*byte),
        }
    }
    Ok(lines)
}

/// Reads a binary file that holds a checkpoint, whose lines end with LF. Where every LF has a CR before
/// it, something took the file for text on the way.
pub(crate) fn read_with_checkpoint(path: &Path) -> CommandResult<Vec<u8>> {
    let bytes = read_file(path)?;
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let has_cr = |at: usize| at > 0 && bytes[at - 1] == b'\r';
    if bytes.contains(&b'\n') && ends.all(|(at, _)| has_cr(at)) {
        let what = "its line ends were changed to CRLF; it is no text, so copy it again as it is";
        return Err(Failure::usage(format!("{}: {what}", path.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_marks_that_were_added_are_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.policy");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_text_lines(&path)
        };
        for bytes in [&b"a\nb\n"[..], b"a\r\nb\r\n", b"\xef\xbb\xbfa\r\nb\n"] {
            assert_eq!(read(bytes).unwrap(), b"a\nb\n");
        }
        let refused: [(&[u8], &str); 3] = [
            (b"a\rb\r", "CR"),
            (b"a\r\r\n", "CR"),
            (b"\xff\xfea\0", "UTF-16"),
        ];
        for (bytes, says) in refused {
            let Err(Failure::Usage(error)) = read(bytes) else {
                panic!("{bytes:?}")
            };
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
