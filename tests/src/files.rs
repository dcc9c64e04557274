//! Data directories of servers that do not run: copies, fingerprints, damage.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use deed_tlog::{Hash, leaf_hash};

/// Returns every file below a directory with its mode and a digest of its bytes, except the lock,
/// which its holder may change.
///
/// # Panics
/// If a file cannot be read.
#[must_use]
pub fn fingerprint(directory: &Path) -> BTreeMap<PathBuf, (u32, Hash)> {
    files(directory)
        .into_iter()
        .filter(|path| path != Path::new("lock"))
        .map(|path| {
            let whole = directory.join(&path);
            let mode = fs::metadata(&whole).expect("a file").permissions().mode();
            let digest = leaf_hash(&fs::read(&whole).expect("a file that can be read"));
            (path, (mode, digest))
        })
        .collect()
}

/// Returns the files below a directory, by their paths in it.
///
/// # Panics
/// If the directory cannot be read.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).expect("a directory") {
            let entry = entry.expect("an entry of it");
            if entry.file_type().expect("its type").is_dir() {
                waiting.push(entry.path());
            } else {
                let path = entry.path();
                found.push(
                    path.strip_prefix(directory)
                        .expect("it is below")
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

/// Copies a directory with everything in it.
///
/// # Panics
/// If a file cannot be read or written.
pub fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(&path);
        fs::create_dir_all(target.parent().expect("it is in a directory")).expect("a directory");
        fs::copy(from.join(&path), &target).expect("a copy");
    }
}

/// Returns the one file below a directory whose name ends with `suffix` and that contains these
/// bytes, and the offset of their last occurrence in it.
///
/// # Panics
/// If no file contains them, or several do.
#[must_use]
#[track_caller]
pub fn find(directory: &Path, suffix: &str, bytes: &[u8]) -> (PathBuf, usize) {
    let found: Vec<_> = files(directory)
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .filter_map(|path| {
            let path = directory.join(path);
            let content = fs::read(&path).expect("a file that can be read");
            let at = content
                .windows(bytes.len())
                .rposition(|window| window == bytes)?;
            Some((path, at))
        })
        .collect();
    match &found[..] {
        [one] => one.clone(),
        _ => panic!("looked for one {suffix} file with these bytes, found {found:?}"),
    }
}

/// Returns true if any file below a directory contains these bytes. The server may be running: a
/// file that it removes meanwhile is ignored.
///
/// # Panics
/// If a file cannot be read.
#[must_use]
pub fn contains(directory: &Path, bytes: &[u8]) -> bool {
    files(directory)
        .iter()
        .any(|path| match fs::read(directory.join(path)) {
            Ok(content) => content.windows(bytes.len()).any(|window| window == bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => panic!("{}: {error}", path.display()),
        })
}

/// Flips the lowest bit of one byte.
///
/// # Panics
/// If the file cannot be read or written.
pub fn flip(path: &Path, offset: usize) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64)
        .expect("a byte there");
    file.write_all_at(&[byte[0] ^ 1], offset as u64)
        .expect("a byte written");
}

/// Truncates a file to `length` bytes.
///
/// # Panics
/// If the file cannot be written.
pub fn cut(path: &Path, length: usize) {
    let file = File::options().write(true).open(path).expect("a file");
    file.set_len(length as u64).expect("a shorter file");
}

/// Returns the offset behind the last byte that is not zero.
///
/// # Panics
/// If all bytes are zero.
#[must_use]
pub fn end_of_content(path: &Path) -> usize {
    let content = fs::read(path).expect("a file that can be read");
    content
        .iter()
        .rposition(|&byte| byte != 0)
        .expect("some content")
        + 1
}
