//! The checker leaves no trace: what it looks at may be on a volume that nobody can write.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use deed_proto::v1;
use deed_tests::{
    contents::{Content, committing},
    files,
    process::{ServerProcess, fsck_clean},
    rpc::accepted,
    run,
    statements::{Producer, envelope},
};
use tempfile::TempDir;

use crate::{data_in, up};

/// Every file and directory with all that writing to it, or creating something in it, would change.
fn traces(data: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u64)> {
    let mut waiting = vec![data.to_owned()];
    let mut traces = BTreeMap::new();
    while let Some(path) = waiting.pop() {
        let metadata = fs::metadata(&path).unwrap();
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let trace = (
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.len(),
        );
        traces.insert(path, trace);
    }
    traces
}

/// Takes away the right to write, from directories too, or gives it back to the owner.
fn set_writable(path: &Path, writable: bool) {
    let metadata = fs::metadata(path).unwrap();
    let mode = metadata.permissions().mode();
    let mode = if writable {
        mode | 0o200
    } else {
        mode & !0o222
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            set_writable(&entry.unwrap().path(), writable);
        }
    }
}

#[test]
fn the_checker_writes_nothing_and_needs_no_right_to() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (server, clients, ledger) = up(&data).await;
        let mut producer = Producer::new(ledger.id, 1);
        ledger.append(&clients, &producer.intents(700)).await;
        let [arguments, prompt] = [1, 2].map(|number| Content::new(number, vec![7; 3000]));
        let with_contents = v1::Envelope {
            attachments: vec![arguments.attachment(), prompt.attachment()],
            ..envelope(&producer.make(committing("orders/7", &arguments, &prompt)))
        };
        let request = ledger.request_of(vec![with_contents]);
        let answer = clients.append(request).await.unwrap();
        accepted(&answer.results[0]);
        server.stop();
        // Once with all of it in the log, which has to be read, and once in sorted files.
        for flushed in [false, true] {
            if flushed {
                ServerProcess::start(&data).stop();
            }
            fs::remove_file(data.join("lock")).unwrap();
            set_writable(&data, false);
            let before = (traces(&data), files::fingerprint(&data));
            let report = fsck_clean(&data);
            assert!(report.contains("contents: 2 open"), "{report}");
            let after = (traces(&data), files::fingerprint(&data));
            set_writable(&data, true);
            assert!(!data.join("lock").exists(), "no lock was made");
            assert_eq!(before, after);
        }
    });
}
