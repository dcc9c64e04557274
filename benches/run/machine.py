"""Describes the machine: processor, hash and signature speed, and what a sync takes."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from run.process import Unavailable, filesystem, run

SYNC_SECONDS = 1.0
PAGE = bytes(4096)


def describe(directory: Path) -> dict[str, str]:
    """Returns what a reader needs to judge figures that were measured with data in `directory`."""
    cores = os.cpu_count() or 0
    sync = sync_ms(directory)
    return {
        "processor": f"{cores} cores of {processor(Path('/proc/cpuinfo').read_text())}",
        "memory": f"{memory_gib(Path('/proc/meminfo').read_text()):.0f} GiB",
        "system": f"Linux {os.uname().release}, {filesystem(directory)}",
        "load before": f"{os.getloadavg()[0]:.2f} processes in the last minute",
        "fdatasync of 4 KiB": f"median {sync[0]:.2f} ms, 99th percentile {sync[1]:.2f} ms",
        "SHA-256 of 256 bytes (OpenSSL, a core)": _or_why(sha256),
        "Ed25519 (OpenSSL, a core)": _or_why(ed25519),
    }


def processor(cpuinfo: str) -> str:
    """Returns the processor's name and those of its extensions that matter for hashes."""
    name = (
        _field(cpuinfo, "model name")
        or _field(cpuinfo, "Model")
        or "an unknown processor"
    )
    flags = (_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split()
    known = {
        "sha_ni": "SHA-NI",
        "sha2": "SHA-2",
        "avx2": "AVX2",
        "avx512ifma": "AVX-512 IFMA",
    }
    extensions = [known[flag] for flag in known if flag in flags]
    return f"{name} ({', '.join(extensions)})" if extensions else name


def memory_gib(meminfo: str) -> float:
    """Returns the memory of the machine."""
    return int((_field(meminfo, "MemTotal") or "0 kB").split()[0]) / (1 << 20)


def sync_ms(directory: Path) -> tuple[float, float]:
    """Measures writing 4 KiB over a file that is there already, and syncing it.

    Returns the median and the 99th percentile in milliseconds.
    """
    path = directory / "sync"
    taken: list[float] = []
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, bytes(1 << 20), 0)
        os.fsync(file)
        until = time.monotonic() + SYNC_SECONDS
        while time.monotonic() < until:
            start = time.perf_counter()
            os.pwrite(file, PAGE, 4096 * (len(taken) % 256))
            os.fdatasync(file)
            taken.append((time.perf_counter() - start) * 1000)
    finally:
        os.close(file)
        path.unlink()
    taken.sort()
    return statistics.median(taken), taken[int(0.99 * (len(taken) - 1))]


def sha256() -> str:
    output = run(
        [openssl(), "speed", "-mr", "-seconds", "1", "-bytes", "256", "sha256"]
    )
    return f"{parse_sha256(output) / 256 / 1e6:.1f} million/s"


def parse_sha256(output: str) -> float:
    """Returns bytes a second of what `openssl speed -mr sha256` prints."""
    found = re.search(r"^\+F:\d+:sha256:([\d.]+)", output, re.MULTILINE)
    if found is None:
        raise Unavailable("openssl speed printed no figure for SHA-256")
    return float(found[1])


def ed25519(processes: int = 1) -> str:
    sign, verify = ed25519_rates(processes)
    return f"signs {sign:,.0f}/s, verifies {verify:,.0f}/s"


def ed25519_rates(processes: int) -> tuple[float, float]:
    """Returns how many signatures so many processes make and verify a second, all together."""
    many = ["-multi", str(processes)] if processes > 1 else []
    return parse_ed25519(
        run([openssl(), "speed", "-mr", *many, "-seconds", "1", "ed25519"])
    )


def parse_ed25519(output: str) -> tuple[float, float]:
    """Returns signatures made and verified a second of what `openssl speed -mr` prints."""
    found = re.search(
        r"^\+F\d+:\d+:253:Ed25519:([\d.]+):([\d.]+)", output, re.MULTILINE
    )
    if found is None:
        raise Unavailable("openssl speed printed no figure for Ed25519")
    return float(found[1]), float(found[2])


def openssl() -> str:
    path = shutil.which("openssl")
    if path is None:
        raise Unavailable("openssl is missing: apt-get install openssl")
    return path


def _or_why(measure: Callable[[], str]) -> str:
    try:
        return measure()
    except Unavailable as error:
        return f"not measured: {error}"


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None
