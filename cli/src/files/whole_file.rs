//! Files that the user names, which appear whole or not at all, and the directories for them.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use deed_files::{Readers, directory_of, sync_directory_of};

/// A file under way, as [`deed_files::WholeFile`]. A symbolic link is followed, and a path that
/// exists and is no regular file (a pipe, `/dev/stdout`) is written to directly.
#[derive(Debug)]
pub(crate) struct WholeFile {
    writer: BufWriter<Target>,
}

#[derive(Debug)]
enum Target {
    Whole(deed_files::WholeFile),
    Direct(File),
}

impl WholeFile {
    pub(crate) fn create(path: &Path, readers: Readers) -> io::Result<Self> {
        // Through symbolic links: the file is replaced, not the link to it.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let target = if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            Target::Direct(File::options().write(true).open(&path)?)
        } else {
            Target::Whole(deed_files::WholeFile::create(&path, readers)?)
        };
        let writer = BufWriter::new(target);
        Ok(Self { writer })
    }

    /// Puts the file in its place, and in place of what was there.
    pub(crate) fn keep(self) -> io::Result<()> {
        match self.writer.into_inner()? {
            Target::Whole(file) => file.keep(),
            Target::Direct(_) => Ok(()),
        }
    }

    /// Puts the file in its place if there is none yet; else fails with
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists).
    pub(crate) fn keep_new(self) -> io::Result<()> {
        match self.writer.into_inner()? {
            Target::Whole(file) => file.keep_new(),
            Target::Direct(_) => Ok(()),
        }
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

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Whole(file) => file.write(bytes),
            Self::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Whole(file) => file.flush(),
            Self::Direct(file) => file.flush(),
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
        Ok(()) => sync_directory_of(path),
        // Perhaps made a moment ago and not synced yet, by a process that runs beside this one;
        // or made long ago in a directory that is not ours to open.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            match sync_directory_of(path) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            }
        }
        Err(error) => Err(error),
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
