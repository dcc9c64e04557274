//! The short, deterministic run of fuzz targets inside of `cargo test`: of this crate's, and by
//! `#[path]` of others'. The same bodies run for hours under `cargo fuzz`.

use std::fs;
use std::path::Path;

/// What a target does with one input; panics where a property does not hold.
pub(crate) type Body = fn(&[u8]);

/// A target's name, what it does, and how many mutations of each seed it is run over.
pub(crate) type Target<'a> = (&'a str, Body, usize);

/// Mutations of each seed where a run takes some microseconds.
pub(crate) const MANY: usize = 3000;

/// Runs each target's body over its seeds in `fuzz/seeds` and over mutations of them, which put in
/// bytes of `telling` (those that mean something in the format) more often than others. Fails if a
/// target lacks seeds, or `fuzz/fuzz_targets` has other targets.
pub(crate) fn run_all(fuzz: &Path, targets: &[Target<'_>], telling: &[u8]) {
    for (name, body, mutations) in targets {
        assert!(
            fuzz.join("fuzz_targets")
                .join(format!("{name}.rs"))
                .is_file(),
            "{name}"
        );
        let seeds = read_all(&fuzz.join("seeds").join(name));
        assert!(seeds.len() >= 3, "{name}");
        let run = |data: &[u8]| {
            let _tells = Running { name, data };
            body(data);
        };
        for seed in &seeds {
            run(seed);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            for _ in 0..*mutations {
                run(&random.mutate(seed, &seeds, telling));
            }
        }
    }
    assert_eq!(
        fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count(),
        targets.len()
    );
}

/// Tells the input that a body panics on, which makes it a seed.
struct Running<'a> {
    name: &'a str,
    data: &'a [u8],
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.data.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} fails on {hex}", self.name);
        }
    }
}

fn read_all(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Marsaglia's xorshift: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn mutate(&mut self, seed: &[u8], seeds: &[Vec<u8>], telling: &[u8]) -> Vec<u8> {
        let mut data = seed.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(data.len() + 1);
            match self.below(7) {
                0 if at < data.len() => data[at] ^= 1 << self.below(8),
                1 if at < data.len() => data[at] = telling[self.below(telling.len())],
                2 if at < data.len() => drop(data.remove(at)),
                3 => data.insert(at, telling[self.below(telling.len())]),
                4 => data.truncate(at),
                5 => {
                    let piece = at..at + self.below(data.len() - at + 1);
                    let piece = data[piece].to_vec();
                    data.splice(at..at, piece);
                }
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let tail = &other[self.below(other.len() + 1)..];
                    data.truncate(at);
                    data.extend_from_slice(tail);
                }
            }
        }
        data
    }
}
