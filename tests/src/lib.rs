//! The harness: boards under QEMU, the adversarial machine and a CPU on it.

pub mod cpu;
pub mod model;
pub mod qemu;
pub mod race;
pub mod script;
pub mod source;
pub mod touch;

/// How many of its `rounds` a test plays: FLATLAND_EFFORT per cent of them, or all; one at least.
pub fn effort(rounds: u64) -> u64 {
    let percent =
        std::env::var("FLATLAND_EFFORT").map_or(100, |text| text.parse().expect("FLATLAND_EFFORT is a number"));
    (rounds * percent / 100).max(1)
}
