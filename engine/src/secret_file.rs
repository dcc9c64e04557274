//! Checks of files with secrets, which others must not read.
//!
//! The rule is that of ssh, with exceptions for the ways in which service managers and container
//! platforms hand out secrets: only owner and group may have any permission. A group may read the
//! file if it was *given* to the server, which shows in its place (below `$CREDENTIALS_DIRECTORY`)
//! or in its owner (another user, as with Kubernetes' `fsGroup` and `defaultMode: 0440`). A file of
//! the server's own user is for that user alone.

use std::{
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// A file that others can read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposed {
    mode: u32,
    given: bool,
}

impl Exposed {
    /// Returns the file's permission bits.
    #[must_use]
    pub fn mode(self) -> u32 {
        self.mode
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = if self.given {
            "`chmod 640` it, or mount it with mode 0440 for the server's group (in Kubernetes \
             fsGroup and defaultMode: 0440)"
        } else {
            "`chmod 600` it (its group may read it if it lies below $CREDENTIALS_DIRECTORY or \
             belongs to another user)"
        };
        write!(
            f,
            "it has mode {:04o}, so others can read or change it: {right}",
            self.mode
        )
    }
}

/// Opens a regular file. Others are refused: a pipe or a device may keep its reader waiting for
/// ever.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        let why = "it is not a regular file; put one in its place";
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}

/// Returns the mode of a directory in which every user may put files, also in place of the
/// server's; `None` for any other directory.
pub(crate) fn open_to_all(directory: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
    Ok((mode & 0o002 != 0).then_some(mode))
}

/// Checks a file's mode and owner.
///
/// # Errors
/// [`Exposed`] if others can read or write the file.
pub fn check(path: &Path, metadata: &Metadata) -> Result<(), Exposed> {
    let mode = metadata.permissions().mode() & 0o777;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let given = metadata.uid() != rustix::process::geteuid().as_raw()
        || credentials.is_some_and(|directory| is_below(path, &directory));
    if is_secret(mode, given) {
        Ok(())
    } else {
        Err(Exposed { mode, given })
    }
}

fn is_secret(mode: u32, given: bool) -> bool {
    let allowed = if given { 0o740 } else { 0o700 };
    mode & !allowed == 0
}

fn is_below(path: &Path, directory: &Path) -> bool {
    // Links and dots are resolved: the real place counts.
    match (fs::canonicalize(path), fs::canonicalize(directory)) {
        (Ok(path), Ok(directory)) => path.starts_with(directory),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_read_only_what_was_given_and_others_nothing() {
        for (mode, own, given) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o440, false, true),
            (0o640, false, true),
            (0o460, false, false),
            (0o604, false, false),
            (0o444, false, false),
            (0o644, false, false),
        ] {
            let found = (is_secret(mode, false), is_secret(mode, true));
            assert_eq!(found, (own, given), "{mode:o}");
        }
    }

    #[test]
    fn nothing_but_files_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        for path in [pipe.as_path(), dir.path()] {
            let error = open(path).unwrap_err();
            assert!(error.to_string().contains("regular file"), "{error}");
        }
        fs::write(dir.path().join("key"), "").unwrap();
        assert!(open(&dir.path().join("key")).is_ok());
    }

    #[test]
    fn a_directory_that_all_may_write_to_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, told) in [
            (0o700, None),
            (0o2775, None),
            (0o777, Some(0o777)),
            (0o1777, Some(0o1777)),
        ] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_all(dir.path()).unwrap(), told, "{mode:o}");
        }
    }

    #[test]
    fn what_lies_below_a_directory_is_told_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, link) = (dir.path().join("inside"), dir.path().join("link"));
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("key"), "").unwrap();
        fs::write(dir.path().join("key"), "").unwrap();
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        assert!(is_below(&link.join("key"), &inside));
        assert!(!is_below(&inside.join("../key"), &inside));
        assert!(!is_below(&inside.join("none"), &inside));
    }

    #[test]
    fn the_error_says_what_to_do() {
        for given in [false, true] {
            let error = Exposed { mode: 0o644, given }.to_string();
            assert!(error.contains("0644") && error.contains("chmod"), "{error}");
        }
    }
}
