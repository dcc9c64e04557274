"""Starts programs, and ends each of them by its own id, however the measurement ends."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

STOP_SECONDS = 30
ENDING = (signal.SIGINT, signal.SIGTERM)
# A directory there is in memory: a sync does nothing, and nothing can be compared.
MEMORY_FILESYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}


class Unavailable(Exception):
    """Something cannot be measured here; the message says what to do about it."""


class Child:
    """A program that runs beside this one."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raises `Unavailable` with the end of the log if the program has ended."""
        if self.process.poll() is not None:
            status = self.process.returncode
            raise Unavailable(f"{self.name} ended with {status}: {last_line(self.log)}")

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Waits until `condition` holds; raises `Unavailable` if it does not in time."""
        until = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > until:
                raise Unavailable(
                    f"{self.name} was not ready in {seconds:.0f} s: {last_line(self.log)}"
                )
            time.sleep(0.02)

    def peak_memory_bytes(self) -> int:
        """Returns the most memory that the process had resident so far."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise Unavailable(f"/proc/{self.pid}/status has no VmHWM")

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Ends the process, and waits until it has ended."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(by)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    stop_by: signal.Signals = signal.SIGTERM,
    cwd: Path | None = None,
) -> Iterator[Child]:
    """Runs a program for as long as the block does; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(env),
            cwd=cwd,
            # Ctrl-C at the terminal comes to this program, which then ends that one.
            start_new_session=True,
        )
    child = Child(name, process, log)
    try:
        yield child
    finally:
        with uninterrupted():
            child.stop(stop_by)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    seconds: float = 600,
    cwd: Path | None = None,
    text: str = "",
) -> str:
    """Runs a program to its end, and returns its standard output.

    Raises `Unavailable` with the last line of its standard error if it fails or takes too long.
    """
    name = Path(command[0]).name
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(env),
        cwd=cwd,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(text, timeout=seconds)
    except BaseException as error:
        # It leads a group of its own, so this ends what it started, too.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Unavailable(f"{name} took more than {seconds:.0f} s") from error
        raise
    if process.returncode != 0:
        lines = [line for line in errors.splitlines() if line.strip()]
        said = lines[-1] if lines else "it said nothing"
        raise Unavailable(f"{name} ended with {process.returncode}: {said}")
    return output


def environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the environment for a program: the caller's own, without settings for Deed."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DEED_")
    }
    own["NO_COLOR"] = "1"
    own.update(more or {})
    return own


@contextmanager
def workspace() -> Iterator[Path]:
    """Makes a directory on a disk, for every file of the measurement, and removes it after."""
    parent = Path(os.environ.get("DEED_BENCH_DIR") or tempfile.gettempdir()).resolve()
    if not parent.is_dir():
        raise Unavailable(
            f"{parent} is not a directory: set DEED_BENCH_DIR to one on a disk"
        )
    kind = filesystem(parent)
    if kind in MEMORY_FILESYSTEMS:
        raise Unavailable(
            f"{parent} is {kind}, which syncs nothing: set DEED_BENCH_DIR to a directory on a disk"
        )
    directory = Path(tempfile.mkdtemp(prefix="deed-bench.", dir=parent))
    # PostgreSQL runs as another user, in a directory of its own below this one.
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        with uninterrupted():
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait until the block is over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_in_order() -> None:
    """Makes SIGTERM end this program as Ctrl-C does: every block is left in order.

    That takes some seconds. Further signals do not disturb it.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        for one in ENDING:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(143)

    for one in ENDING:
        signal.signal(one, leave)


def raise_open_files() -> None:
    """Raises the number of open files to what is allowed: 1,024 writers need as many sockets."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def filesystem(path: Path) -> str:
    """Returns the kind of file system on which `path` lies."""
    best, kind = -1, "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        mount, of_mount = line.split()[1:3]
        if path.is_relative_to(mount) and len(mount) > best:
            best, kind = len(mount), of_mount
    return kind


def free_port() -> int:
    """Returns a port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def can_connect(port: int) -> bool:
    """Returns true if somebody listens on `port` of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def as_user(user: str | None, command: Sequence[str]) -> list[str]:
    """Returns the command that runs `command` as `user`, in the same process."""
    if user is None:
        return list(command)
    account = pwd.getpwnam(user)
    return [
        "setpriv",
        f"--reuid={account.pw_uid}",
        f"--regid={account.pw_gid}",
        "--clear-groups",
        "--",
        *command,
    ]


def last_line(log: Path) -> str:
    """Returns the last line of a log that is not blank."""
    lines = [
        line for line in log.read_text(errors="replace").splitlines() if line.strip()
    ]
    return lines[-1] if lines else "it said nothing"


def settle(children: Sequence[Child], seconds: float = 10) -> None:
    """Waits until `children` and their children use next to no processor, `seconds` at most.

    Else what one of them does in the background would be paid for by the next one.
    """
    until = time.monotonic() + seconds
    pids = {child.pid for child in children}
    before = cpu_ticks(pids)
    while time.monotonic() < until:
        time.sleep(0.5)
        now = cpu_ticks(pids)
        # Two ticks of 10 ms in half a second are 4 % of a core.
        if now - before <= 2:
            return
        before = now


def cpu_ticks(roots: set[int]) -> int:
    """Returns the ticks of processor time that `roots` and their children took so far."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = (
                int(stat.parent.name),
                stat.read_text().rpartition(")")[2].split(),
            )
        except (OSError, ValueError):
            continue
        if pid in roots or int(rest[1]) in roots:
            total += int(rest[11]) + int(rest[12])
    return total
