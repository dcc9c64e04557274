//! The free space of the store's file system, and three floors for it.
//!
//! Above the first floor everything is accepted. Below it contents are refused: the rest is kept
//! for the log, and contents that no statement names are collected at once. Below the second floor
//! statements are refused, too: a write that fails for lack of space would end the server, because
//! it would be unknown how much of it is on the disk. Erasures are still accepted, because they
//! make room, until the last floor: an erasure is written before anything is freed. All of this
//! ends by itself when there is room again.
//!
//! A thread looks at the disk. A caller gets what the thread saw last, and does not wait for a file
//! system that hangs.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

/// Interval between two looks. Whatever is written within it must fit below the floors.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bytes that erasures leave free at least, unless the log's own floor is lower: enough for the
/// log, the keys of contents and their compactions, until space is given back.
const ERASURE_FLOOR_BYTES: u64 = 32 << 20;

/// The floors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    /// Bytes that contents leave free at least.
    pub contents_floor_bytes: u64,
    /// Part of the file system, in per cent, that contents leave free at least; the larger of both
    /// counts.
    pub contents_floor_percent: u64,
    /// Bytes that statements leave free at least.
    pub log_floor_bytes: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            contents_floor_bytes: 1 << 30,
            contents_floor_percent: 5,
            log_floor_bytes: 512 << 20,
        }
    }
}

/// Bytes of a file system, and whether it is mounted read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
    pub read_only: bool,
}

/// There is too little free space for what is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the server's disk has {} MiB free, of which {} MiB are kept for {kept_for}: nothing was stored; \
     try again when the operator has made room",
    .free_bytes >> 20,
    .floor_bytes >> 20
)]
pub struct NoSpace {
    pub free_bytes: u64,
    pub floor_bytes: u64,
    pub kept_for: &'static str,
}

type Look = Box<dyn Fn() -> io::Result<Space> + Send + Sync>;

/// The file system of a store.
pub struct Disk {
    watched: Arc<Watched>,
    /// The thread that looks ends when this is dropped.
    _until: Option<mpsc::Sender<()>>,
    options: DiskOptions,
    contents_refused: AtomicU64,
    statements_refused: AtomicU64,
    /// Notified when something was refused, so that contents that nothing names are collected.
    pressed: Notify,
}

/// A file system, and the result of the last look at it.
struct Watched {
    look: Look,
    seen: Mutex<Seen>,
}

struct Seen {
    space: Result<Space, String>,
    /// Time at which a look began that has not ended.
    looking: Option<Instant>,
    /// True if a test has set the space.
    pretended: bool,
}

impl Watched {
    fn look(&self) {
        self.seen.lock().looking = Some(Instant::now());
        // The lock is not held here, because the call may hang.
        let space = (self.look)().map_err(|error| error.to_string());
        let mut seen = self.seen.lock();
        seen.looking = None;
        if !seen.pretended {
            seen.space = space;
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl Disk {
    /// Watches the file system of `directory`, as long as the returned value lives.
    pub fn of(directory: &Path, options: DiskOptions) -> Self {
        let directory: PathBuf = directory.to_owned();
        Self::watched(options, Box::new(move || look(&directory)))
    }

    fn watched(options: DiskOptions, look: Look) -> Self {
        let disk = Self::new(options, look);
        let watched = Arc::clone(&disk.watched);
        let (until, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("disk-space".to_owned());
        let looking = thread.spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                watched.look();
            }
        });
        if let Err(error) = looking {
            tracing::error!(%error, "no thread watches the disk's space: a full disk will end the server");
            disk.watched.seen.lock().space = Err(format!("no thread watches it: {error}"));
        }
        Self {
            _until: Some(until),
            ..disk
        }
    }

    /// Looks once, before it returns.
    fn new(options: DiskOptions, look: Look) -> Self {
        let space = look().map_err(|error| error.to_string());
        let seen = Seen {
            space,
            looking: None,
            pretended: false,
        };
        Self {
            watched: Arc::new(Watched {
                look,
                seen: Mutex::new(seen),
            }),
            _until: None,
            options,
            contents_refused: AtomicU64::default(),
            statements_refused: AtomicU64::default(),
            pressed: Notify::new(),
        }
    }

    /// Returns the result of the last look, or the reason for which it failed.
    pub fn seen(&self) -> Result<Space, String> {
        self.watched.seen.lock().space.clone()
    }

    /// Returns the result of the last look; `None` if it failed, which is no reason to refuse
    /// anything.
    pub fn space(&self) -> Option<Space> {
        self.seen().ok()
    }

    /// Returns the time for which a look has waited for the file system; `None` if none waits.
    pub fn silent_for(&self) -> Option<Duration> {
        let looking = self.watched.seen.lock().looking;
        looking.map(|since| since.elapsed())
    }

    /// Fails unless contents of `bytes` bytes may be stored.
    ///
    /// # Errors
    /// [`NoSpace`] if they may not.
    pub(crate) fn room_for_contents(&self, bytes: u64) -> Result<(), NoSpace> {
        let allowed = self.check_contents(bytes);
        if allowed.is_err() {
            self.contents_refused.fetch_add(1, Relaxed);
            self.pressed.notify_one();
        }
        allowed
    }

    /// Returns `Some` if there is too little space for contents of whatever size.
    pub fn is_pressed(&self) -> Option<NoSpace> {
        self.check_contents(0).err()
    }

    fn check_contents(&self, bytes: u64) -> Result<(), NoSpace> {
        let Some(space) = self.space() else {
            return Ok(());
        };
        let DiskOptions {
            contents_floor_bytes,
            contents_floor_percent,
            log_floor_bytes,
        } = self.options;
        let part = space.total_bytes / 100 * contents_floor_percent;
        // The floor is never below the log's: contents are refused first.
        let floor_bytes = contents_floor_bytes.max(part).max(log_floor_bytes);
        check(space, bytes, floor_bytes, "the log")
    }

    /// Fails unless statements may be recorded; counts the refusal.
    ///
    /// # Errors
    /// [`NoSpace`] if they may not.
    pub fn room_for_log(&self) -> Result<(), NoSpace> {
        self.statements(self.check_log())
    }

    /// Fails unless contents may be erased.
    ///
    /// # Errors
    /// [`NoSpace`] if they may not.
    pub(crate) fn room_for_erasure(&self) -> Result<(), NoSpace> {
        let floor_bytes = self.options.log_floor_bytes.min(ERASURE_FLOOR_BYTES);
        let space = self.space();
        self.statements(space.map_or(Ok(()), |space| {
            check(space, 0, floor_bytes, "what is recorded already")
        }))
    }

    fn statements(&self, allowed: Result<(), NoSpace>) -> Result<(), NoSpace> {
        if allowed.is_err() {
            self.statements_refused.fetch_add(1, Relaxed);
            self.pressed.notify_one();
        }
        allowed
    }

    /// Fails unless statements may be recorded; counts nothing.
    pub fn check_log(&self) -> Result<(), NoSpace> {
        let Some(space) = self.space() else {
            return Ok(());
        };
        check(
            space,
            0,
            self.options.log_floor_bytes,
            "what is recorded already",
        )
    }

    /// Returns when something was refused for lack of space.
    pub async fn pressed(&self) {
        self.pressed.notified().await;
    }

    /// Returns how often contents, and requests to append, were refused.
    pub fn refused(&self) -> [(&'static str, u64); 2] {
        [
            ("contents", self.contents_refused.load(Relaxed)),
            ("statements", self.statements_refused.load(Relaxed)),
        ]
    }
}

fn check(
    space: Space,
    bytes: u64,
    floor_bytes: u64,
    kept_for: &'static str,
) -> Result<(), NoSpace> {
    let free_bytes = space.free_bytes;
    if free_bytes >= floor_bytes.saturating_add(bytes) {
        return Ok(());
    }
    Err(NoSpace {
        free_bytes,
        floor_bytes,
        kept_for,
    })
}

fn look(directory: &Path) -> io::Result<Space> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(Space {
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        read_only: disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

impl Disk {
    /// Sets the free space, out of 100 GiB, for tests.
    pub fn pretend(&self, free_bytes: u64) {
        let space = Space {
            free_bytes,
            total_bytes: 100 << 30,
            read_only: false,
        };
        let mut seen = self.watched.seen.lock();
        seen.space = Ok(space);
        seen.pretended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_leave_room_for_the_log_and_the_log_for_itself() {
        let options = DiskOptions {
            contents_floor_bytes: 20 << 20,
            contents_floor_percent: 0,
            log_floor_bytes: 10 << 20,
        };
        let disk = Disk::new(options, Box::new(|| Err(io::Error::other("no"))));
        disk.pretend(100 << 20);
        assert!(disk.room_for_contents(80 << 20).is_ok());
        let refused = disk.room_for_contents((80 << 20) + 1).unwrap_err();
        assert_eq!(
            (refused.free_bytes, refused.floor_bytes),
            (100 << 20, 20 << 20)
        );
        assert!(refused.to_string().contains("100 MiB free"), "{refused}");
        assert!(disk.is_pressed().is_none());
        disk.pretend(19 << 20);
        assert!(disk.room_for_contents(0).is_err() && disk.is_pressed().is_some());
        assert!(disk.room_for_log().is_ok());
        disk.pretend(9 << 20);
        assert!(disk.room_for_log().is_err());
        assert_eq!(disk.refused(), [("contents", 2), ("statements", 1)]);
        // The refusals end by themselves when there is room.
        disk.pretend(100 << 20);
        assert!(disk.room_for_log().is_ok() && disk.room_for_contents(1).is_ok());
    }

    #[test]
    fn erasures_are_taken_with_less_room_and_not_without_any() {
        let disk = Disk::new(
            DiskOptions::default(),
            Box::new(|| Err(io::Error::other("no"))),
        );
        disk.pretend(100 << 20);
        assert!(disk.room_for_log().is_err() && disk.room_for_erasure().is_ok());
        disk.pretend(31 << 20);
        let refused = disk.room_for_erasure().unwrap_err();
        assert_eq!(refused.floor_bytes, ERASURE_FLOOR_BYTES);
        assert_eq!(disk.refused(), [("contents", 0), ("statements", 2)]);
    }

    #[test]
    fn the_larger_floor_counts_and_the_logs_own_is_the_least() {
        let with = |bytes, percent, log| {
            let options = DiskOptions {
                contents_floor_bytes: bytes,
                contents_floor_percent: percent,
                log_floor_bytes: log,
            };
            let look = || {
                Ok(Space {
                    free_bytes: 30,
                    total_bytes: 1000,
                    read_only: false,
                })
            };
            let disk = Disk::new(options, Box::new(look));
            disk.is_pressed().map(|pressed| pressed.floor_bytes)
        };
        assert_eq!(with(30, 3, 30), None);
        assert_eq!(with(31, 3, 0), Some(31));
        assert_eq!(with(0, 5, 0), Some(50));
        assert_eq!(with(0, 0, 40), Some(40));
    }

    #[test]
    fn a_system_that_does_not_say_refuses_nothing() {
        let look = || Err(io::Error::other("no"));
        let disk = Disk::new(DiskOptions::default(), Box::new(look));
        assert!(disk.room_for_log().is_ok() && disk.room_for_contents(1).is_ok());
        let real = Disk::of(Path::new("/"), DiskOptions::default());
        assert!(real.space().is_some());
    }

    /// Statements are recorded, and probes answered, while the disk's state is unknown.
    #[test]
    fn nobody_waits_for_a_file_system_that_hangs() {
        let (looks, looked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        answer.send(30 << 30).unwrap();
        let answers = Mutex::new(answers);
        let look = move || {
            let _ = looks.send(());
            let free_bytes = answers.lock().recv().map_err(io::Error::other)?;
            Ok(Space {
                free_bytes,
                total_bytes: 100 << 30,
                read_only: false,
            })
        };
        let disk = Disk::watched(DiskOptions::default(), Box::new(look));
        let a_look_begins = || looked.recv_timeout(Duration::from_secs(60)).unwrap();
        a_look_begins();
        // From here on the file system hangs.
        a_look_begins();
        assert_eq!(disk.space().unwrap().free_bytes, 30 << 30);
        assert!(disk.room_for_log().is_ok() && disk.room_for_contents(1).is_ok());
        assert!(disk.silent_for().is_some());
        // The disk is seen again when the file system answers.
        answer.send(0).unwrap();
        a_look_begins();
        assert!(disk.room_for_log().is_err());
        // Dropping waits for no thread.
        drop(disk);
        drop(answer);
    }
}
