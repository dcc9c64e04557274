//! The bodies of the fuzz targets, run over their committed seeds and a fixed number of
//! mutations of each. The same bodies run for hours under `cargo fuzz`.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/bodies/entry.rs"]
pub(crate) mod entry;
#[path = "../../fuzz/bodies/genesis.rs"]
pub(crate) mod genesis;
#[path = "../../fuzz/bodies/statement.rs"]
pub(crate) mod statement;

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 3] = [
    ("entry", entry::run),
    ("genesis", genesis::run),
    ("statement", statement::run),
];

const MUTATIONS_PER_SEED: usize = 3000;

#[test]
fn every_target_has_a_body_seeds_and_survives_mutations() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, body) in TARGETS {
        assert!(
            fuzz.join("fuzz_targets")
                .join(format!("{name}.rs"))
                .is_file(),
            "{name}"
        );
        let seeds = read_all(&fuzz.join("seeds").join(name));
        assert!(seeds.len() >= 3, "{name}");
        for seed in &seeds {
            body(seed);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            for _ in 0..MUTATIONS_PER_SEED {
                body(&random.mutate(seed, &seeds));
            }
        }
    }
    assert_eq!(
        fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count(),
        TARGETS.len()
    );
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

    fn mutate(&mut self, seed: &[u8], seeds: &[Vec<u8>]) -> Vec<u8> {
        const TELLING: &[u8] = b"\x00\x01\x08\x0a\x10\x12\x18\x1a\x20\x22\x38\x7f\x80\xff:/";
        let mut data = seed.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(data.len() + 1);
            match self.below(7) {
                0 if at < data.len() => data[at] ^= 1 << self.below(8),
                1 if at < data.len() => data[at] = TELLING[self.below(TELLING.len())],
                2 if at < data.len() => drop(data.remove(at)),
                3 => data.insert(at, TELLING[self.below(TELLING.len())]),
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
