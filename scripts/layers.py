#!/usr/bin/env python3
"""Checks that modules import only from below, and crates only what they may.

Three things are held against the data in this file:

- the arrows between the workspace's crates,
- the outside crates that the pure crates take,
- the order of the modules of each layered crate: a module may import modules that stand
  before it in `MODULES`, and no others. So there is no circle.

Code that only tests compile is not looked at. `--self-test` shows that each check can fail.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What a crate of the workspace may depend on within it, also for its tests; besides, each may name
# `features`, which has no code.
CRATES: dict[str, set[str]] = {
    "proto": set(),
    "tlog": set(),
    "evidence": {"proto", "tlog"},
    "files": set(),
    "migrations": set(),
    "features": set(),
    "engine": {"proto", "tlog", "evidence", "files", "migrations", "testkit"},
    "server": {"proto", "tlog", "evidence", "files", "engine", "testkit"},
    "client": {"proto", "tlog", "evidence", "files", "testkit"},
    "cli": {"proto", "tlog", "evidence", "files", "client", "testkit"},
    "testkit": {"proto", "tlog", "evidence", "client"},
    "benches": {"proto", "tlog", "evidence", "engine", "server", "testkit"},
    "tests": {"proto", "tlog", "evidence", "client", "testkit"},
}

# All that these crates may take from outside, apart from their tests. The pure ones have neither a
# runtime, nor sockets, files, settings or logging: what they need of these comes in as an argument.
# The engine has no face: no gRPC, HTTP, command line, settings or traces.
OUTSIDE: dict[str, set[str]] = {
    "tlog": {"base64", "ed25519-dalek", "rs_merkle", "sha2", "thiserror"},
    "evidence": {
        "blake3",
        "bytes",
        "cedar-policy",
        "cedar-policy-core",
        "hex",
        "idna_adapter",
        "prost",
        "serde_json",
        "sha2",
        "thiserror",
        "url",
    },
    "engine": {
        "base64",
        "blake3",
        "bytes",
        "chacha20poly1305",
        "futures",
        "getrandom",
        "governor",
        "hex",
        "memchr",
        "parking_lot",
        "prometheus-client",
        "prost",
        "prost-types",
        "rocksdb",
        "rustix",
        "self_cell",
        "sha2",
        "thiserror",
        "tokio",
        "tracing",
        "zeroize",
    },
}

# The modules of each layered crate, lowest first.
MODULES: dict[str, list[str]] = {
    "engine": [
        "cause",
        "secret_file",
        "store",
        "options",
        "clock",
        "ledger_name",
        "metrics",
        "identity",
        "guard",
        "pressure",
        "content",
        "admission",
        "ledger",
        "shard",
        "search",
        "append",
        "data_dir",
        "offline",
        "bench",
        "testing",
    ],
    "server": [
        "address",
        "options",
        "principal",
        "telemetry",
        "listener",
        "status",
        "access",
        "cors",
        "blocking",
        "context",
        "grpc",
        "http",
        "background",
        "descriptors",
        "admin",
        "services",
        "start_error",
        "serve",
        "config",
    ],
}

TOKEN = re.compile(
    r"""
      (?P<skip> \s+ | //[^\n]* )
    | (?P<block> /\* )
    | (?P<raw> b?r(?P<hashes>\#*)".*?"(?P=hashes) )
    | (?P<string> b?"(?:\\.|[^"\\])*" )
    | (?P<char> b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^'\\])' )
    | (?P<word> (?:r\#)?[A-Za-z_][A-Za-z0-9_]* )
    | (?P<colons> :: )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """A word, `::` or a single sign, and the line that it stands in."""

    text: str
    line: int


@dataclass(frozen=True)
class Import:
    """A path that begins at the crate's root, and where it is written."""

    file: Path
    line: int
    path: tuple[str, ...]


def tokens(source: str) -> list[Token]:
    """Returns the words and signs of `source`, without comments, strings and characters."""
    found: list[Token] = []
    at = 0
    line = 1
    while at < len(source):
        match = TOKEN.match(source, at)
        assert match is not None
        end = match.end()
        if match["block"]:
            end = block_comment_end(source, at)
        elif match["word"] or match["colons"] or match["other"]:
            found.append(Token(match.group(), line))
        line += source.count("\n", at, end)
        at = end
    return found


def block_comment_end(source: str, at: int) -> int:
    """Returns the position after the comment that begins at `at`; comments nest."""
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(source, at):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(source)


def closing(code: list[Token], at: int) -> int:
    """Returns the index of the bracket that closes the one at `at`."""
    pairs = {"{": "}", "[": "]", "(": ")"}
    opening = code[at].text
    depth = 0
    for index in range(at, len(code)):
        if code[index].text == opening:
            depth += 1
        elif code[index].text == pairs[opening]:
            depth -= 1
            if depth == 0:
                return index
    raise ValueError(f"line {code[at].line}: nothing closes this {opening}")


def without_tests(code: list[Token]) -> list[Token]:
    """Returns `code` without the items that stand behind `#[cfg(test)]`."""
    kept: list[Token] = []
    at = 0
    while at < len(code):
        if [token.text for token in code[at : at + 7]] != list("#[") + [
            "cfg",
            "(",
            "test",
            ")",
            "]",
        ]:
            kept.append(code[at])
            at += 1
            continue
        at += 7
        # The item ends with its first block, or with a semicolon or comma in front of that.
        while at < len(code) and code[at].text not in ("{", ";", ","):
            at = closing(code, at) + 1 if code[at].text in ("(", "[") else at + 1
        if at < len(code) and code[at].text == "{":
            at = closing(code, at)
        at += 1
    return kept


def leaves(
    code: list[Token], at: int, prefix: tuple[str, ...]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields each path of the tree at `at`, with its line, behind `prefix`."""
    path = prefix
    line = code[at].line
    while at < len(code):
        text = code[at].text
        if text == "{":
            end = closing(code, at)
            at += 1
            while at < end:
                yield from leaves(code, at, path)
                while at < end and code[at].text != ",":
                    at = closing(code, at) if code[at].text == "{" else at
                    at += 1
                at += 1
            return
        if text == "*" or re.match(r"[A-Za-z_]", text):
            path = (*path, text)
            at += 1
            if at < len(code) and code[at].text == "::":
                at += 1
                continue
        break
    yield line, path


def absolute(path: tuple[str, ...], module: tuple[str, ...]) -> tuple[str, ...] | None:
    """Returns `path`, written in `module`, from the crate's root; None for another crate's."""
    if path[0] == "crate":
        return path[1:]
    if path[0] not in ("self", "super"):
        return None
    here = list(module)
    rest = list(path)
    while rest and rest[0] in ("self", "super"):
        if rest.pop(0) == "super":
            if not here:
                return None
            here.pop()
    return (*here, *rest)


def imports(code: list[Token], module: tuple[str, ...], file: Path) -> Iterator[Import]:
    """Yields what `code` names by `crate::` and `super::`, in declarations and in between."""
    inner: list[tuple[int, str]] = []
    for at, token in enumerate(code):
        while inner and at >= inner[-1][0]:
            inner.pop()
        if token.text == "mod" and at + 2 < len(code) and code[at + 2].text == "{":
            inner.append((closing(code, at + 2), code[at + 1].text))
            continue
        if (
            token.text not in ("crate", "super", "self")
            or at + 1 >= len(code)
            or not (
                code[at + 1].text == "::"
                or (token.text != "self" and code[at + 1].text == "as")
            )
        ):
            continue
        if at > 0 and code[at - 1].text == "::":
            continue
        here = (*module, *(name for _, name in inner))
        for line, path in leaves(code, at, ()):
            resolved = absolute(path, here)
            if resolved is not None:
                # The root itself, under another name, hides what is reached through it.
                yield Import(file, line, resolved or ("*",))


def modules(code: list[Token]) -> Iterator[str]:
    """Yields the modules that `code` declares and that lie in files of their own."""
    for at, token in enumerate(code):
        if token.text == "mod" and at + 2 < len(code) and code[at + 2].text == ";":
            yield code[at + 1].text


def walk(
    file: Path, folder: Path, module: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[Import]]]:
    """Yields each module from `file` down, whose own modules lie in `folder`, and its imports."""
    code = without_tests(tokens(file.read_text(encoding="utf-8")))
    yield module, list(imports(code, module, file))
    for name in modules(code):
        below = folder / name
        flat = folder / f"{name}.rs"
        yield from walk(
            flat if flat.exists() else below / "mod.rs", below, (*module, name)
        )


def check_modules(root: Path, crate: str, order: list[str]) -> Iterator[str]:
    """Yields what is wrong with the imports of `crate`, whose modules stand in `order`."""
    source = root / crate / "src"
    found = list(walk(source / "lib.rs", source, ()))
    declared = {module[0] for module, _ in found if module}
    for name in sorted(declared - set(order)):
        yield f"{crate}: the module {name} has no place in the order of layers"
    for name in order:
        if name not in declared:
            yield f"{crate}: the order of layers names {name}, and there is no such module"
    for module, taken in found:
        if not module:
            continue
        for use in taken:
            at = f"{use.file.relative_to(root)}:{use.line}"
            target = use.path[0]
            if target not in declared:
                yield f"{at}: name the module of {'::'.join(use.path)}, so that its layer can be seen"
            elif (
                target in order
                and module[0] in order
                and order.index(target) > order.index(module[0])
            ):
                yield f"{at}: {module[0]} imports {'::'.join(use.path)} from above its layer"


def dependencies(
    manifest: Path, tables: Iterable[str], shared: dict[str, object]
) -> set[str]:
    """Returns the names of the packages in `tables` of the manifest, under any target.

    `shared` are the workspace's dependencies, which may rename a package as well.
    """
    parsed = tomllib.loads(manifest.read_text(encoding="utf-8"))
    found: set[str] = set()
    for part in [parsed, *parsed.get("target", {}).values()]:
        for table in tables:
            for name, wanted in part.get(table, {}).items():
                if isinstance(wanted, dict) and wanted.get("workspace"):
                    wanted = shared.get(name)
                found.add(
                    wanted.get("package", name) if isinstance(wanted, dict) else name
                )
    return found


def check_crates(
    root: Path, crates: dict[str, set[str]], outside: dict[str, set[str]]
) -> Iterator[str]:
    """Yields which crates depend on what they may not."""
    workspace = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))[
        "workspace"
    ]
    members = set(workspace["members"])
    shared = workspace.get("dependencies", {})
    for name in sorted(members ^ set(crates)):
        yield f"{name} is not both a member of the workspace and a crate of scripts/layers.py"
    own = {f"deed-{name}" for name in members}
    for crate in sorted(members & set(crates)):
        manifest = root / crate / "Cargo.toml"
        every = dependencies(
            manifest,
            ("dependencies", "dev-dependencies", "build-dependencies"),
            shared,
        )
        allowed = {f"deed-{name}" for name in (*crates[crate], "features")}
        for name in sorted((every & own) - allowed):
            yield f"{crate}/Cargo.toml: {crate} may not depend on {name}"
        if crate in outside:
            tables = ("dependencies", "build-dependencies")
            taken = dependencies(manifest, tables, shared) - own
            for name in sorted(taken - outside[crate]):
                yield f"{crate}/Cargo.toml: {name} is not among what {crate} may take from outside"


def check_container(root: Path) -> Iterator[str]:
    """Yields which crates a container build would not be given."""
    parsed = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))
    given = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in parsed["workspace"]["members"]:
        if f"!{name}" not in given:
            yield f".dockerignore: `!{name}` is missing, so the container build lacks that crate"


def check(root: Path) -> list[str]:
    """Returns all that is wrong in the workspace at `root`."""
    wrong = list(check_crates(root, CRATES, OUTSIDE))
    wrong += check_container(root)
    for crate, order in MODULES.items():
        wrong.extend(check_modules(root, crate, order))
    return wrong


def self_test() -> None:
    """Fails unless each check notices what it is for, and nothing else."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)

        def write(path: str, text: str) -> None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")

        def expect(wrong: Iterable[str], *parts: str) -> None:
            got = list(wrong)
            assert len(got) == len(parts) and all(
                part in line for part, line in zip(parts, got, strict=True)
            ), f"expected {parts}, got {got}"

        write("Cargo.toml", '[workspace]\nmembers = ["low", "high"]\n')
        write(
            "low/Cargo.toml",
            '[dependencies]\nsha2 = "1"\n[dev-dependencies]\ntokio = "1"\n',
        )
        write("high/Cargo.toml", "[dependencies]\ndeed-low = { workspace = true }\n")
        write(".dockerignore", "*\n!low\n!higher\n")
        expect(check_container(root), "`!high` is missing")
        crates: dict[str, set[str]] = {"low": set(), "high": {"low"}}
        expect(check_crates(root, crates, {"low": {"sha2"}}))
        expect(
            check_crates(root, crates, {"low": set()}),
            "sha2 is not among what low may take",
        )
        expect(
            check_crates(root, {"low": set(), "high": set()}, {}),
            "high may not depend on deed-low",
        )
        expect(check_crates(root, {"low": set()}, {}), "high is not both a member")
        write(
            "low/Cargo.toml",
            '[target."cfg(unix)".dependencies]\nclock = { package = "tokio" }\n',
        )
        expect(
            check_crates(root, crates, {"low": {"sha2"}}),
            "tokio is not among what low may take",
        )
        write(
            "low/Cargo.toml", "[dev-dependencies]\ndeed-high = { path = '../high' }\n"
        )
        expect(check_crates(root, crates, {}), "low may not depend on deed-high")
        write(
            "Cargo.toml",
            '[workspace]\nmembers = ["low", "high"]\n'
            '[workspace.dependencies]\nother = { package = "deed-high", path = "high" }\n',
        )
        write("low/Cargo.toml", "[dependencies]\nother = { workspace = true }\n")
        expect(check_crates(root, crates, {}), "low may not depend on deed-high")

        write(
            "low/src/lib.rs",
            "mod a;\npub mod b;\n#[cfg(test)]\nmod testing;\nuse b::B;\n",
        )
        write("low/src/b/mod.rs", "mod part;\nuse crate::a::A;\n")
        write("low/src/b/part.rs", "use super::super::a::{A, C};\nuse super::B;\n")
        order = ["a", "b"]
        good = (
            '//! crate::b\n/* crate::b /* crate::b */ crate::b */\nconst T: &str = "crate::b";\n'
            "const R: &str = r#\"\"crate::b\"#;\nfn f<'a>(c: &'a char) -> bool { *c == '\"' }\n"
            "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n"
        )
        write("low/src/a.rs", good)
        expect(check_modules(root, "low", order))
        expect(check_modules(root, "low", ["b", "a"]), *["from above"] * 3)
        expect(check_modules(root, "low", ["b"]), "a has no place")
        expect(check_modules(root, "low", [*order, "c"]), "names c")
        for renamed in [
            "use super as up;",
            "use crate as root;",
            "use super::{self as up};",
        ]:
            write("low/src/a.rs", renamed)
            expect(check_modules(root, "low", order), "name the module of *")
        for bad in [
            "use crate::b::B;",
            "use crate::{a::A, b::{B, part::C}};",
            "pub use super::b::B;",
            "fn f() { crate::b::f() }",
            "mod inner { use super::super::b::B; }",
            "#[cfg(test)]\nuse std::fs;\nuse crate::b::B;",
        ]:
            write("low/src/a.rs", good + bad)
            got = list(check_modules(root, "low", order))
            assert got and all(
                "low/src/a.rs:1" in line and "from above" in line for line in got
            ), (bad, got)
        write("low/src/a.rs", "use crate::B;\n")
        expect(check_modules(root, "low", order), "name the module of B")


def main() -> int:
    """Prints what is wrong, and returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--self-test", action="store_true", help="show that each check can fail"
    )
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent
    )
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return 0
    wrong = check(arguments.root)
    for line in wrong:
        print(f"layers: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
