//! Every target over its seeds and over mutations of them; the same ones in each run.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use wherry_fuzz::TARGETS;

/// How many mutations of each seed are tried.
const MUTATIONS: u64 = 200;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Cuts, repeats, swaps and overwrites; takes pieces of the other seeds.
fn mutate(random: &mut StdRng, seed: &[u8], others: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    const TOKENS: [&[u8]; 12] = [
        b"null",
        b"-1",
        b"1e999",
        b"\"\"",
        b"{}",
        b"[]",
        b"$patch",
        b"\xff",
        b"\0",
        b"/",
        b"9223372036854775808",
        b",",
    ];
    let mut out = seed.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=out.len());
        let end = random.random_range(at..=out.len()).min(at + 40);
        match random.random_range(0..5) {
            0 => drop(out.drain(at..end)),
            1 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            2 => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                out.splice(at..end.min(at + token.len()), token.iter().copied());
            }
            3 if at < out.len() => out[at] ^= 1 << random.random_range(0..8),
            _ => {
                let other = &others[random.random_range(0..others.len())].1;
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len()).min(from + 60);
                out.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    out
}

#[test]
fn no_input_breaks_a_promise() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (number, (path, seed)) in seeds.iter().enumerate() {
            target(seed);
            for mutation in 0..MUTATIONS {
                let mut random = StdRng::seed_from_u64((number as u64) << 32 | mutation);
                let input = mutate(&mut random, seed, &seeds);
                if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                    panic!("{name}, mutation {mutation} of {}: {}", path.display(), input.escape_ascii());
                }
            }
        }
    }
}
