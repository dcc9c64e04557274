"""PostgreSQL with pgbench: rows of 256 bytes, each commit synced before it is acknowledged."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from run.process import (
    Child,
    Unavailable,
    as_user,
    can_connect,
    free_port,
    run,
    started,
)
from run.results import Run

MISSING = (
    "PostgreSQL is missing: apt-get install postgresql postgresql-contrib (Debian, Ubuntu), "
    "or put initdb, postgres, psql and pgbench in PATH"
)
DATABASE = "postgres"
OWNER = "deed_bench"
TABLE = """
CREATE TABLE statement (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payload bytea NOT NULL
);
"""
# The client sends each row of itself; the rows of a batch are made on the server, so that
# neither sending nor parsing them counts.
SCRIPTS = {
    "one": "INSERT INTO statement (payload) VALUES (:payload);\n",
    "batch": "INSERT INTO statement (payload)"
    " SELECT :payload::bytea FROM generate_series(1, 256);\n",
}
# What is safe stays on. The rest is what helps it: no checkpoint within a measurement.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "max_connections": "100",
}
# Clients, rows in one statement, and the title, by scenario.
SCENARIOS: dict[str, tuple[int, int, str]] = {
    "postgres.batches-4": (4, 256, "PostgreSQL, batches of 256, 4 clients"),
    "postgres.batches-16": (16, 256, "PostgreSQL, batches of 256, 16 clients"),
    "postgres.one": (1, 1, "PostgreSQL, one row at a time, one client"),
    "postgres.many": (64, 1, "PostgreSQL, one row a transaction, 64 clients"),
}


class Postgres:
    """A running server of a cluster that is made for the measurement."""

    def __init__(
        self, programs: Path, port: int, password: str, directory: Path, child: Child
    ) -> None:
        self.programs = programs
        self.directory = directory
        self.child = child
        self.env = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": OWNER,
            "PGPASSWORD": password,
            "PGDATABASE": DATABASE,
        }

    def sql(self, text: str) -> str:
        command = [str(self.programs / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        return run(command, env=self.env, text=text).strip()

    def pgbench(self, clients: int, rows: int, seconds: int) -> str:
        script = "one" if rows == 1 else "batch"
        command = [
            str(self.programs / "pgbench"),
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={clients}",
            f"--jobs={min(clients, os.cpu_count() or 1)}",
            f"--time={seconds}",
            f"--define=payload={'x' * 256}",
            f"--file={self.directory / script}.sql",
        ]
        return run(command, env=self.env)

    def measure(self, scenario: str, seconds: int, warmup_seconds: int) -> Run:
        """Measures on an empty table. The checkpoint after it is not part of its time."""
        clients, rows, _ = SCENARIOS[scenario]
        self.sql("TRUNCATE statement;")
        if warmup_seconds:
            self.pgbench(clients, rows, warmup_seconds)
        output = self.pgbench(clients, rows, seconds)
        self.sql("CHECKPOINT;")
        return parse_pgbench(output, rows)

    def version(self) -> str:
        return self.sql("SHOW server_version;")

    def check_settings(self) -> None:
        """Raises `Unavailable` if the server does not sync its commits."""
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            if self.sql(f"SHOW {name};") != "on":
                raise Unavailable(
                    f"PostgreSQL runs without {name}, so it does not compare"
                )


@contextmanager
def serving(directory: Path) -> Iterator[Postgres]:
    """Runs PostgreSQL on a new cluster below `directory`, on a free port of 127.0.0.1."""
    programs, user = find_programs(), unprivileged_user()
    directory.mkdir(mode=0o700)
    password = secrets.token_hex(16)
    for name, text in SCRIPTS.items():
        (directory / f"{name}.sql").write_text(text)
    passwords = directory / "password"
    passwords.touch(mode=0o600)
    passwords.write_text(password)
    if user is not None:
        account = pwd.getpwnam(user)
        for path in (directory, passwords):
            os.chown(path, account.pw_uid, account.pw_gid)
    data = directory / "data"
    make = [
        str(programs / "initdb"),
        f"--pgdata={data}",
        f"--username={OWNER}",
        f"--pwfile={passwords}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
    ]
    run(as_user(user, make), cwd=directory)
    port = free_port()
    settings = {
        **SETTINGS,
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(directory),
    }
    serve = [str(programs / "postgres"), "-D", str(data)]
    serve += [f"--{name}={value}" for name, value in settings.items()]
    # SIGINT is its fast shutdown: it does not wait for clients.
    with started(
        "postgres",
        as_user(user, serve),
        directory.with_name("postgres.log"),
        stop_by=signal.SIGINT,
        cwd=directory,
    ) as child:
        child.wait_for(lambda: can_connect(port))
        postgres = Postgres(programs, port, password, directory, child)
        child.wait_for(lambda: _answers(postgres))
        postgres.check_settings()
        postgres.sql(TABLE)
        yield postgres


def find_programs() -> Path:
    """Returns the directory of PostgreSQL's programs: that of PATH, or Debian's newest."""
    names = ("initdb", "postgres", "psql", "pgbench")
    in_path = shutil.which("initdb")
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    candidates = [Path(in_path).resolve().parent] if in_path else []
    candidates += sorted(debian, key=lambda bin: int(bin.parent.name), reverse=True)
    for directory in candidates:
        if all(os.access(directory / name, os.X_OK) for name in names):
            return directory
    raise Unavailable(MISSING)


def unprivileged_user() -> str | None:
    """Returns the user that PostgreSQL runs as, or None for the caller: it refuses root."""
    if os.geteuid() != 0:
        return None
    if shutil.which("setpriv") is None:
        raise Unavailable(
            "setpriv is missing: apt-get install util-linux, or do not run as root"
        )
    for user in ("postgres", "nobody"):
        try:
            pwd.getpwnam(user)
        except KeyError:
            continue
        return user
    raise Unavailable("there is no user postgres and none nobody: do not run as root")


def parse_pgbench(output: str, rows: int) -> Run:
    """Returns the rows a second of what pgbench prints, where a transaction has `rows` rows."""
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    if failed and int(failed[1]):
        raise Unavailable(f"pgbench: {failed[1]} transactions failed")
    rate = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
    if rate is None:
        # Its time includes connecting, which is not part of the rate.
        raise Unavailable(
            "pgbench made no transaction in this time: set DEED_BENCH_SECONDS to more"
        )
    return Run(float(rate[1]) * rows)


def _answers(postgres: Postgres) -> bool:
    try:
        postgres.sql("SELECT 1;")
    except Unavailable:
        return False
    return True
