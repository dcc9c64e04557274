//! Lines of stdin.

use std::io::{self, BufRead as _, Read as _};

use tokio::sync::mpsc;

/// Longest line that is read: the longest payload (60,000 bytes) as hex, and as much again for
/// names, spaces and escapes.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// Lines that are read ahead: at most 64 MiB.
const LINES_AHEAD: usize = 256;

/// Reads lines of stdin on a thread of its own: a read from a terminal cannot be given up.
pub(super) fn read_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = stdin
                .by_ref()
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut line)
                .and_then(|read| match read {
                    read if read > LINE_BYTES_MAX => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("longer than {LINE_BYTES_MAX} bytes"),
                    )),
                    read => Ok(read),
                });
            let (message, last) = match read {
                Ok(0) => return,
                Ok(_) => (Ok(line), false),
                Err(error) => (Err(error), true),
            };
            if sender.blocking_send(message).is_err() || last {
                return;
            }
        }
    });
    receiver
}
