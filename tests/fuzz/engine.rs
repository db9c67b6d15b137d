//! The generator: a seeded stream of random numbers, and mutations of bytes.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Random numbers that are the same in every run: xorshift64* (Vigna 2016); or numbers that an input gives.
pub(crate) struct Rng {
    state: u64,
    given: Option<std::collections::VecDeque<u8>>,
}

impl Rng {
    /// A stream of its own for each name.
    pub(crate) fn new(name: &str) -> Self {
        let mix = |state: u64, byte| (state ^ u64::from(byte)).rotate_left(9) | 1;
        Self { state: name.bytes().fold(0x9e37_79b9_7f4a_7c15, mix), given: None }
    }

    /// The numbers that `input` gives, eight bytes each, and zeroes after its end: a fuzzer that watches coverage
    /// chooses by them what a generator leaves to chance.
    #[allow(dead_code, reason = "tests/fuzz/coverage calls it")]
    pub(crate) fn given(input: &[u8]) -> Self {
        Self { state: 1, given: Some(input.to_vec().into()) }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        if let Some(given) = &mut self.given {
            let mut bytes = [0; 8];
            bytes.iter_mut().for_each(|byte| *byte = given.pop_front().unwrap_or(0));
            return u64::from_le_bytes(bytes);
        }
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() >> 16) as usize % end }
    }

    /// One of `items`, which are some.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A number that is likely to be at an edge.
    pub(crate) fn edge(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1,
            2,
            0x7f,
            0xff,
            0x7fff,
            0xffff,
            0x1f_ffff,
            0x4000_0000,
            0x7fff_ffff,
            0xffff_ffff,
            0x1_0000_0000,
            1 << 48,
            i64::MAX as u64,
            1 << 63,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.next() >> self.below(64),
            1 => 1 << self.below(64),
            2 => self.pick(&EDGES).wrapping_add(self.below(9) as u64).wrapping_sub(4),
            _ => *self.pick(&EDGES),
        }
    }
}

/// How many inputs a test tries: `FLATLAND_FUZZ`, or `default`.
pub(crate) fn count(default: usize) -> usize {
    match std::env::var("FLATLAND_FUZZ") {
        Ok(count) => count.parse().expect("FLATLAND_FUZZ is a number"),
        Err(_) => default,
    }
}

/// Says how many inputs were tried; past the capturing of the test harness, since it is to be seen when all is well.
pub(crate) fn report(name: &str, count: usize) {
    let _ = writeln!(std::io::stdout(), "fuzz {name}: {count} inputs");
}

/// Hands `check` each of the `seeds` and mutations of them, `default` inputs in all if the environment does not say
/// otherwise. An input that makes it panic is printed.
pub(crate) fn run(name: &str, default: usize, seeds: &[Vec<u8>], mut check: impl FnMut(&[u8], &mut Rng)) {
    let mut rng = Rng::new(name);
    let count = count(default).max(seeds.len());
    for n in 0..count {
        let input = match seeds.get(n) {
            Some(seed) => seed.clone(),
            None => mutate(&mut rng, seeds),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input, &mut rng))) {
            let shown: String = input.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(std::io::stderr(), "fuzz {name}: input {n} of {} bytes: {shown}", input.len());
            resume_unwind(panic);
        }
    }
    report(name, count);
}

/// One of the seeds, changed in 1 to 6 places.
pub(crate) fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.pick(seeds).clone();
    for _ in 0..=rng.below(6) {
        change(rng, &mut bytes, seeds);
    }
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    // Headers are at the front: half of the changes are made there.
    let reach = if rng.below(2) == 0 { bytes.len().min(160) } else { bytes.len() };
    let at = rng.below(reach);
    match rng.below(12) {
        0 => change_byte(bytes, at, |byte| byte ^ 1 << (at % 8)),
        1 => {
            let to = rng.next() as u8;
            change_byte(bytes, at, |_| to);
        }
        2 => {
            let to = *rng.pick(b"0123456789abcdefABCDEF\0/.-+xGMK");
            change_byte(bytes, at, |_| to);
        }
        3 => change_byte(bytes, at, |byte| byte.wrapping_add(1)),
        4 => overwrite(bytes, at, &rng.edge().to_be_bytes()[4..]),
        5 => overwrite(bytes, at & !3, &rng.edge().to_be_bytes()[4..]),
        6 => overwrite(bytes, at & !7, &rng.edge().to_le_bytes()),
        7 => overwrite(bytes, at, &rng.edge().to_le_bytes()[..2]),
        8 => bytes.truncate(at),
        9 => {
            let end = (at + 1 + rng.below(40)).min(bytes.len());
            if at < end {
                bytes.drain(at..end);
            }
        }
        10 => {
            let end = (at + 1 + rng.below(120)).min(bytes.len());
            let copy = bytes.get(at..end).unwrap_or_default().to_vec();
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        _ => {
            let other = rng.pick(seeds);
            let from = rng.below(other.len());
            let end = (from + 1 + rng.below(200)).min(other.len());
            overwrite(bytes, at, other.get(from..end).unwrap_or_default());
        }
    }
}

fn change_byte(bytes: &mut [u8], at: usize, with: impl Fn(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = with(*byte);
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, &to) in bytes.iter_mut().skip(at).zip(with) {
        *byte = to;
    }
}
