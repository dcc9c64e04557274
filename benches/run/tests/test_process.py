from __future__ import annotations

import os
import signal
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from run import process
from run.process import Unavailable


class ProcessTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_what_was_started_is_ended_with_the_block(self) -> None:
        sleeper = "import time; print('up', flush=True); time.sleep(600)"
        command = [sys.executable, "-c", sleeper]
        log = self.directory / "log"
        with (
            self.assertRaises(KeyboardInterrupt),
            process.started("sleeper", command, log) as child,
        ):
            child.wait_for(lambda: "up" in log.read_text())
            self.assertGreater(child.peak_memory_bytes(), 0)
            raise KeyboardInterrupt
        self.assertEqual(child.process.returncode, -signal.SIGTERM)

    def test_a_server_that_ends_is_named_with_its_last_words(self) -> None:
        command = [sys.executable, "-c", "print('port is taken'); raise SystemExit(3)"]
        with (
            self.assertRaisesRegex(Unavailable, "server ended with 3: port is taken"),
            process.started("server", command, self.directory / "log") as child,
        ):
            child.wait_for(lambda: False)

    def test_a_program_that_fails_says_why(self) -> None:
        self.assertEqual(
            process.run([sys.executable, "-c", "print(input())"], text="a"), "a\n"
        )
        with self.assertRaisesRegex(Unavailable, "ended with 1: no disk"):
            process.run([sys.executable, "-c", "raise SystemExit('no disk')"])

    def test_settings_for_deed_reach_no_program(self) -> None:
        with mock.patch.dict(os.environ, {"DEED_SERVER": "elsewhere"}):
            own = process.environment({"PGPORT": "1"})
        self.assertNotIn("DEED_SERVER", own)
        self.assertEqual(own["PGPORT"], "1")

    def test_the_workspace_is_on_a_disk_and_removed(self) -> None:
        place = mock.patch.dict(os.environ, {"DEED_BENCH_DIR": str(self.directory)})
        disk = mock.patch.object(process, "filesystem", return_value="ext4")
        with place, disk:
            with process.workspace() as space:
                (space / "file").touch()
            self.assertFalse(space.exists())
        memory = mock.patch.object(process, "filesystem", return_value="tmpfs")
        refused = self.assertRaisesRegex(Unavailable, "DEED_BENCH_DIR")
        with place, memory, refused, process.workspace():
            pass

    def test_signals_wait_for_the_end_of_a_block(self) -> None:
        # Where the tests run in the background, SIGINT may be ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        finished = False
        with self.assertRaises(KeyboardInterrupt), process.uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            finished = True
        self.assertTrue(finished)


if __name__ == "__main__":
    unittest.main()
