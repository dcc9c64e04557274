//! Files that appear whole or not at all, and survive a power failure once they are reported.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// The readers of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Everybody whom the umask allows.
    All,
    /// Only the owner of the file.
    Owner,
}

/// A file under way. What is written goes to a temporary file beside it, which is removed when
/// this is dropped; the file itself appears, or is replaced, with [`keep`](Self::keep).
///
/// A path that exists and is no regular file (a pipe, `/dev/stdout`) is written to directly.
#[derive(Debug)]
pub(crate) struct WholeFile {
    writer: BufWriter<File>,
    path: PathBuf,
    /// `None` once it is gone, or if there is none.
    temporary: Option<PathBuf>,
}

impl WholeFile {
    pub(crate) fn create(path: &Path, readers: Readers) -> io::Result<Self> {
        // Through symbolic links: the file is replaced, not the link to it.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(Self {
                writer: BufWriter::new(OpenOptions::new().write(true).open(&path)?),
                path,
                temporary: None,
            });
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!(".deed-{}.tmp", hex::encode(random));
        let temporary = directory_of(&path).join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(match readers {
                Readers::All => 0o666,
                Readers::Owner => 0o600,
            })
            .open(&temporary)?;
        Ok(Self {
            writer: BufWriter::new(file),
            path,
            temporary: Some(temporary),
        })
    }

    /// Puts the file in its place, and in place of what was there.
    pub(crate) fn keep(self) -> io::Result<()> {
        self.place(|from, to| fs::rename(from, to))
    }

    /// Puts the file in its place if there is none yet; else fails with
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists).
    pub(crate) fn keep_new(self) -> io::Result<()> {
        self.place(|from, to| fs::hard_link(from, to))
    }

    fn place(mut self, place: impl Fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        self.writer.flush()?;
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        self.writer.get_ref().sync_all()?;
        place(temporary, &self.path)?;
        // The name is in the directory, which is synced by itself.
        sync_directory(directory_of(&self.path))
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // After a rename there is none any more.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Makes a directory and those above it, and syncs the names of those that were made.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    make_directory_with(path, 0o777)
}

/// Makes a directory that only its owner may open, and those above it.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    make_directory_with(path, 0o700)?;
    // An existing directory may be open to others.
    let permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn make_directory_with(path: &Path, mode: u32) -> io::Result<()> {
    let make = || DirBuilder::new().mode(mode).create(path);
    let made = match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory_with(directory_of(path), 0o777)?;
            make()
        }
        made => made,
    };
    match made {
        Ok(()) => sync_directory(directory_of(path)),
        // Perhaps made a moment ago and not synced yet, by a process that runs beside this one;
        // or made long ago in a directory that is not ours to open.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            match sync_directory(directory_of(path)) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            }
        }
        Err(error) => Err(error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("receipts");
        fs::write(&path, "old").unwrap();
        let mut file = WholeFile::create(&path, Readers::All).unwrap();
        file.write_all(b"half").unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(names(directory.path()), ["receipts"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");

        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = WholeFile::create(&link, Readers::All).unwrap();
        file.write_all(b"new").unwrap();
        file.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(directory.path()), ["link", "receipts"]);
    }

    #[test]
    fn a_secret_is_for_its_owner_and_replaces_none() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("a/b/keys");
        make_private_directory(&keys).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o755)).unwrap();
        make_private_directory(&keys).unwrap();
        assert_eq!(mode(&keys), 0o700);

        let path = keys.join("secret");
        for (round, text) in ["first", "second"].iter().enumerate() {
            let mut file = WholeFile::create(&path, Readers::Owner).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let kept = file.keep_new().map_err(|error| error.kind());
            let expected = [Ok(()), Err(io::ErrorKind::AlreadyExists)];
            assert_eq!(kept, expected[round]);
        }
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(&keys), ["secret"]);
    }

    #[test]
    fn what_is_no_regular_file_is_written_to() {
        let mut file = WholeFile::create(Path::new("/dev/null"), Readers::All).unwrap();
        file.write_all(b"nothing").unwrap();
        file.keep().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
