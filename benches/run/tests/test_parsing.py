from __future__ import annotations

import hashlib
import json
import unittest

from peers import nats, postgres, tessera
from run import deed, long, machine
from run.process import Unavailable

BENCH = {
    "verification": True,
    "statements": 509952,
    "statements_per_s": 169984.0,
    "latency_us": {"p50": 46463, "p99": 107967, "max": 121919},
    "rejected": 0,
}

PGBENCH = """pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: batch.sql
query mode: prepared
number of clients: 4
latency average = 3.456 ms
initial connection time = 5.1 ms
tps = 1157.404200 (without initial connection time)
"""


class DeedTest(unittest.TestCase):
    def test_bench_gives_rate_and_latencies(self) -> None:
        run = deed.parse_bench("registered a key\n" + json.dumps(BENCH) + "\n")
        self.assertEqual(run.value, 169984)
        self.assertEqual((run.p50_us, run.p99_us, run.max_us), (46463, 107967, 121919))

    def test_bench_of_contents_gives_contents(self) -> None:
        data = {
            name: BENCH[name] for name in ("verification", "latency_us", "rejected")
        }
        run = deed.parse_bench(json.dumps({**data, "contents_per_s": 1803.5}))
        self.assertEqual(run.value, 1803.5)

    def test_what_was_rejected_or_not_verified_does_not_count(self) -> None:
        for wrong in ({"rejected": 3}, {"verification": False}):
            with self.assertRaises(Unavailable):
                deed.parse_bench(json.dumps({**BENCH, **wrong}))

    def test_addresses_are_taken_from_whole_lines(self) -> None:
        log = "metrics and health on http://127.0.0.1:33851\nlistening on 127.0.0.1:17833\n"
        self.assertEqual(deed.address(log, "listening on "), "127.0.0.1:17833")
        admin = deed.address(log, "metrics and health on ")
        self.assertEqual(admin, "http://127.0.0.1:33851")
        self.assertIsNone(deed.address("listening on 127.0.0.1:17", "listening on "))

    def test_metric(self) -> None:
        text = "# TYPE deed_leaves gauge\ndeed_leaves 505609\ndeed_leaves_other 1\n"
        self.assertEqual(deed.metric(text, "deed_leaves"), 505609)
        with self.assertRaises(Unavailable):
            deed.metric(text, "deed")


class PeersTest(unittest.TestCase):
    def test_pgbench_counts_rows(self) -> None:
        self.assertAlmostEqual(postgres.parse_pgbench(PGBENCH, 1).value, 1157.4042)
        run = postgres.parse_pgbench(PGBENCH, 256)
        self.assertAlmostEqual(run.value, 1157.4042 * 256)

    def test_pgbench_that_failed_does_not_count(self) -> None:
        failed = PGBENCH + "number of failed transactions: 2 (0.1%)\n"
        for text in (failed, "no rate at all"):
            with self.assertRaises(Unavailable):
                postgres.parse_pgbench(text, 1)
        none = PGBENCH + "number of failed transactions: 0 (0.000%)\n"
        postgres.parse_pgbench(none, 1)

    def test_checkpoint(self) -> None:
        text = "deed.example/bench\n4711\nhash=\n\n— deed.example/bench sig\n"
        self.assertEqual(tessera.parse_checkpoint(text), 4711)
        with self.assertRaises(Unavailable):
            tessera.parse_checkpoint("404 page not found\n")

    def test_growth_is_between_the_changes(self) -> None:
        # 100 stood there before, so the first change is that at 1.0.
        seen = [(0.5, 100), (1.0, 300), (2.0, 500), (3.0, 1300)]
        self.assertEqual(tessera.growth_per_s(seen), 500)
        with self.assertRaises(Unavailable):
            tessera.growth_per_s(seen[:2])

    def test_keys_of_the_log_are_signed_note_keys(self) -> None:
        name, key_hash, _ = tessera.verifier_key().split("+", 2)
        signed = name.encode() + b"\n\x01" + tessera.PUBLIC
        self.assertEqual(key_hash, hashlib.sha256(signed).hexdigest()[:8])
        self.assertTrue(
            tessera.signer_key().startswith(f"PRIVATE+KEY+{name}+{key_hash}+")
        )

    def test_nats_driver(self) -> None:
        latency = {"p50": 517, "p99": 3545, "max": 47895}
        output = json.dumps({"messages": 4828, "per_s": 1609.3, "latency_us": latency})
        run = nats.parse_driver(output)
        self.assertEqual((run.value, run.p99_us), (1609.3, 3545))


class MachineTest(unittest.TestCase):
    def test_openssl(self) -> None:
        several = (
            "Got: +F6:0:253:Ed25519:1.0:2.0 from 0\n+F6:0:253:Ed25519:20350.03:7130.0\n"
        )
        self.assertEqual(machine.parse_ed25519(several), (20350.03, 7130.0))
        self.assertEqual(
            machine.parse_sha256("+H:256\n+F:6:sha256:624476907.87\n"), 624476907.87
        )
        with self.assertRaises(Unavailable):
            machine.parse_ed25519("unknown algorithm")

    def test_processor_and_memory(self) -> None:
        cpuinfo = "processor : 0\nmodel name\t: AMD EPYC\nflags\t: fpu sha_ni avx2\n"
        self.assertEqual(machine.processor(cpuinfo), "AMD EPYC (SHA-NI, AVX2)")
        self.assertEqual(machine.processor(""), "an unknown processor")
        self.assertEqual(machine.memory_gib("MemTotal:  25165824 kB\n"), 24)


class CriterionTest(unittest.TestCase):
    def test_median_is_in_microseconds(self) -> None:
        estimates = {
            "mean": {"point_estimate": 1.0},
            "median": {"point_estimate": 43210.0},
        }
        self.assertAlmostEqual(long.criterion_us(json.dumps(estimates)), 43.21)


if __name__ == "__main__":
    unittest.main()
