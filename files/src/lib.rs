//! Files that appear whole or not at all, and outlast a power failure once they are said to be
//! there.
//!
//! A file is written under another name in the same directory and synced; then it gets its name, and
//! the directory is synced. A crash leaves the old file or the new one.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

/// The readers of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Everybody whom the umask lets.
    All,
    /// The owner alone.
    Owner,
}

/// A file under way. [`keep`](Self::keep) gives it its name.
#[derive(Debug)]
pub struct WholeFile {
    file: NamedTempFile<File>,
    path: PathBuf,
}

impl WholeFile {
    /// Begins the file at `path`, under a random name. If it is dropped, that file is removed.
    ///
    /// # Errors
    /// If no file can be made there.
    pub fn create(path: &Path, readers: Readers) -> io::Result<Self> {
        let mut names = Builder::new();
        names.prefix(".deed-").suffix(".tmp");
        Self::create_in(directory_of(path), &names, path, readers)
    }

    /// Begins the file at `path` as `unfinished`, a name in the same directory. What is there is
    /// removed before, so that the file gets the mode of `readers` and no link is followed. If the
    /// new file is dropped, it stays as `unfinished`: its owner may have to overwrite it.
    ///
    /// # Errors
    /// If no file can be made there.
    pub fn create_as(path: &Path, unfinished: &Path, readers: Readers) -> io::Result<Self> {
        match fs::remove_file(unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut names = Builder::new();
        names
            .prefix(unfinished.file_name().unwrap_or(OsStr::new("")))
            .rand_bytes(0)
            .disable_cleanup(true);
        Self::create_in(directory_of(unfinished), &names, path, readers)
    }

    fn create_in(
        directory: &Path,
        names: &Builder<'_, '_>,
        path: &Path,
        readers: Readers,
    ) -> io::Result<Self> {
        let mode = match readers {
            Readers::All => 0o666,
            Readers::Owner => 0o600,
        };
        // Opened here: the crate adds its path to the text of an error.
        let open = |unfinished: &Path| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(unfinished)
        };
        Ok(Self {
            file: names.make_in(directory, open)?,
            path: path.to_owned(),
        })
    }

    /// Returns the file that is written.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Gives the file its name, in place of what was there. Returns when both are on disk.
    ///
    /// # Errors
    /// If the file cannot be synced or renamed. It may have its name if only the directory cannot
    /// be synced.
    pub fn keep(self) -> io::Result<()> {
        let path = self.path.clone();
        self.rename()?;
        sync_directory_of(&path)
    }

    /// Gives the file its name if no file has it. Returns when both are on disk.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is a file; otherwise as
    /// [`keep`](Self::keep).
    pub fn keep_new(self) -> io::Result<()> {
        self.file().sync_all()?;
        self.file.persist_noclobber(&self.path)?;
        sync_directory_of(&self.path)
    }

    /// Gives the file its name, in place of what was there, and returns it open for reading and
    /// writing. The file is on disk; its name is when the caller has synced the directory
    /// ([`sync_directory_of`]).
    ///
    /// # Errors
    /// If the file cannot be synced or renamed.
    pub fn rename(self) -> io::Result<File> {
        self.file().sync_all()?;
        Ok(self.file.persist(&self.path)?)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

/// Writes `bytes` as the file at `path`, in place of what was there.
///
/// # Errors
/// If the file system refuses; the old file may then still be there.
pub fn replace(path: &Path, readers: Readers, bytes: &[u8]) -> io::Result<()> {
    let mut file = WholeFile::create(path, readers)?;
    file.write_all(bytes)?;
    file.keep()
}

/// Writes `bytes` as the file at `path`, in place of what was there, and as `unfinished` until it
/// is complete.
///
/// # Errors
/// As [`replace`].
pub fn replace_as(
    path: &Path,
    unfinished: &Path,
    readers: Readers,
    bytes: &[u8],
) -> io::Result<()> {
    let mut file = WholeFile::create_as(path, unfinished, readers)?;
    file.write_all(bytes)?;
    file.keep()
}

/// Writes `bytes` as the file at `path`, which must not exist yet.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it exists; otherwise as [`replace`].
pub fn create_new(path: &Path, readers: Readers, bytes: &[u8]) -> io::Result<()> {
    let mut file = WholeFile::create(path, readers)?;
    file.write_all(bytes)?;
    file.keep_new()
}

/// Syncs the directory in which `path` has its name.
///
/// # Errors
/// If it cannot be opened or synced.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Returns the directory in which `path` has its name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
        process::{Child, Command, Stdio},
        thread::sleep,
        time::Duration,
    };

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, Readers::All, b"old").unwrap();
        let mut file = WholeFile::create(&path, Readers::Owner).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()).len(), 2);
        drop(file);
        assert_eq!(names(dir.path()), ["file"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_ne!(mode(&path) & 0o400, 0);

        replace(&path, Readers::Owner, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_file_with_a_fixed_unfinished_name_gets_a_mode_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (path, unfinished) = (dir.path().join("secret"), dir.path().join("secret.new"));
        // A crash left this file, and others can read it.
        fs::write(&unfinished, "half of someth").unwrap();
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o644)).unwrap();
        for text in ["something else, and longer", "short"] {
            replace_as(&path, &unfinished, Readers::Owner, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(mode(&path), 0o600);
            assert!(!unfinished.exists());
        }
        // Somebody put a link there: it is removed, and not followed.
        let other = dir.path().join("other");
        std::os::unix::fs::symlink(&other, &unfinished).unwrap();
        replace_as(&path, &unfinished, Readers::Owner, b"again").unwrap();
        assert!(!other.exists());
        drop(WholeFile::create_as(&path, &unfinished, Readers::Owner).unwrap());
        assert_eq!(names(dir.path()), ["secret", "secret.new"]);
        assert_eq!(fs::read(&path).unwrap(), b"again");
    }

    #[test]
    fn a_new_file_replaces_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        create_new(&path, Readers::Owner, b"first").unwrap();
        let error = create_new(&path, Readers::Owner, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn an_error_is_the_systems_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/file");
        let expected = fs::write(&path, "").unwrap_err();
        for error in [
            replace(&path, Readers::All, b"").unwrap_err(),
            replace_as(&path, &dir.path().join("none/new"), Readers::All, b"").unwrap_err(),
            create_new(&path, Readers::All, b"").unwrap_err(),
        ] {
            assert_eq!(error.to_string(), expected.to_string());
            assert_eq!(error.kind(), expected.kind());
        }
        // A directory cannot be replaced by a file.
        fs::create_dir(dir.path().join("taken")).unwrap();
        let error = replace(&dir.path().join("taken"), Readers::All, b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(names(dir.path()), ["taken"]);
    }

    struct Writer(Child);

    impl Drop for Writer {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Names the file that a process of this test writes until it is killed.
    const WRITES: &str = "DEED_FILES_WRITES";

    #[test]
    fn a_killed_writer_leaves_the_old_file_or_the_new_one() {
        let contents = [vec![b'a'; 1 << 20], vec![b'b'; 200_000], Vec::new()];
        if let Some(path) = env::var_os(WRITES).map(PathBuf::from) {
            let unfinished = path.with_extension("new");
            loop {
                for bytes in &contents {
                    replace(&path, Readers::Owner, bytes).unwrap();
                    replace_as(&path, &unfinished, Readers::Owner, bytes).unwrap();
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, Readers::Owner, &contents[0]).unwrap();
        let mut unfinished = 0;
        for round in 0..30 {
            let before = fs::metadata(&path).unwrap().ino();
            let name = "tests::a_killed_writer_leaves_the_old_file_or_the_new_one";
            let writer = Writer(
                Command::new(env::current_exe().unwrap())
                    .args(["--exact", name])
                    .env(WRITES, &path)
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
            while fs::metadata(&path).unwrap().ino() == before {
                sleep(Duration::from_micros(200));
            }
            sleep(Duration::from_micros(round * 300));
            drop(writer);
            let left = fs::read(&path).unwrap();
            let whole = contents.contains(&left);
            assert!(whole, "round {round}: {} bytes", left.len());
            assert_eq!(mode(&path), 0o600);
            unfinished += usize::from(names(dir.path()).len() > 1);
        }
        assert!(unfinished > 0, "no writer was killed while it wrote");
    }
}
