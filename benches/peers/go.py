"""Builds the peers that are written in Go, below cargo's target directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from run.process import Unavailable, run

MINUTES = 20


def tools(root: Path) -> Path:
    """Returns the directory of the programs that are built here."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or root / "target").resolve()
    return target / "bench-peers"


def install(directory: Path, version: str, packages: dict[str, str]) -> None:
    """Builds the programs of Go modules in `directory`, unless they are there.

    `packages` has the path of each package by the name of its program.
    """
    wanted = [
        path for name, path in packages.items() if not (directory / name).exists()
    ]
    if not wanted:
        return
    directory.mkdir(parents=True, exist_ok=True)
    command = [go(), "install", *(f"{path}@{version}" for path in wanted)]
    env = {"GOBIN": str(directory)}
    _run(command, env, directory)


def build(source: Path, program: Path) -> None:
    """Builds the Go program in the directory `source`."""
    program.parent.mkdir(parents=True, exist_ok=True)
    command = [go(), "build", "-buildvcs=false", "-o", str(program), "."]
    _run(command, {}, source)


def _run(command: list[str], env: dict[str, str], directory: Path) -> None:
    try:
        run(command, env=env, seconds=60 * MINUTES, cwd=directory)
    except Unavailable as error:
        needs = "it needs Go 1.26 or newer, and the Go module proxy (GOPROXY) once"
        raise Unavailable(f"{error}; {needs}") from error


def go() -> str:
    path = shutil.which("go")
    if path is None:
        raise Unavailable("Go is missing: install Go 1.26 or newer (https://go.dev/dl)")
    return path
