//! What the device tree says about this run: `bootargs`, CPUs, RAM, GIC version. Read once, before any other CPU is on.

use crate::fdt::{self, Fdt};
use crate::{cpu, ram};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static TREE: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);
static CPUS: AtomicUsize = AtomicUsize::new(1);
static MPIDR: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];
static GIC: AtomicUsize = AtomicUsize::new(0);

/// Reads the tree at `address`, as start.S was given it.
pub(crate) fn read(address: u64) {
    // SAFETY: x0 at entry is a device tree by the boot protocol, mapped as RAM; the header is looked at first.
    let header = unsafe { core::slice::from_raw_parts(address as *const u8, 8) };
    let size = fdt::total_size(header).expect("x0 at entry is not a device tree");
    TREE.store(address, Ordering::Relaxed);
    SIZE.store(size, Ordering::Relaxed);
    let mut n_cpus = 0;
    let mut initrd = (0, 0);
    tree().walk(|p| match (p.node, p.child, p.name) {
        ("cpus", cpu, "reg") if cpu.starts_with("cpu@") && n_cpus < cpu::MAX => {
            MPIDR[n_cpus].store(fdt::number(p.value).unwrap_or(0), Ordering::Relaxed);
            n_cpus += 1;
        }
        (node, "", "reg") if node.starts_with("memory") && p.value.len() >= 16 => {
            let base = fdt::number(&p.value[..8]).unwrap_or(0);
            ram::set_end(base + fdt::number(&p.value[8..16]).unwrap_or(0));
        }
        ("chosen", "", "linux,initrd-start") => initrd.0 = fdt::number(p.value).unwrap_or(0),
        ("chosen", "", "linux,initrd-end") => initrd.1 = fdt::number(p.value).unwrap_or(0),
        (_, "", "compatible") => match fdt::text(p.value) {
            "arm,gic-v3" => GIC.store(3, Ordering::Relaxed),
            "arm,cortex-a15-gic" | "arm,gic-400" => GIC.store(2, Ordering::Relaxed),
            _ => {}
        },
        _ => {}
    });
    CPUS.store(n_cpus.max(1), Ordering::Relaxed);
    ram::reserve(address, size as u64, initrd);
}

/// Returns the device tree.
pub fn tree() -> Fdt<'static> {
    let (at, size) = (TREE.load(Ordering::Relaxed), SIZE.load(Ordering::Relaxed));
    assert!(at != 0, "the tree is not read yet");
    // SAFETY: `read` checked the header; `ram` hands out no memory within these bytes, so nobody writes them.
    Fdt(unsafe { core::slice::from_raw_parts(at as *const u8, size) })
}

/// Returns the boot arguments.
pub fn bootargs() -> &'static str {
    let mut found = "";
    tree().walk(|p| {
        if (p.node, p.child, p.name) == ("chosen", "", "bootargs") {
            found = fdt::text(p.value);
        }
    });
    found
}

/// Returns the text of `key=text` in the boot arguments.
pub fn value(key: &str) -> Option<&'static str> {
    bootargs().split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// Returns the decimal number of `key=number` in the boot arguments, or `default`.
pub fn number(key: &str, default: u64) -> u64 {
    value(key).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Returns whether `word` stands alone in the boot arguments.
pub fn flag(word: &str) -> bool {
    bootargs().split_whitespace().any(|w| w == word)
}

/// Returns whether to check what Flatland promises beyond what bare QEMU gives (boot argument `strict`).
pub fn strict() -> bool {
    flag("strict")
}

/// Returns how many CPUs the device tree names, at most [`cpu::MAX`].
pub fn n_cpus() -> usize {
    CPUS.load(Ordering::Relaxed)
}

/// Returns the affinity of the CPU with this index, as PSCI and the GIC name it.
pub fn mpidr(index: usize) -> u64 {
    MPIDR[index].load(Ordering::Relaxed)
}

/// Returns the version of the interrupt controller: 2 or 3 (0 if the tree names none).
pub fn gic_version() -> usize {
    GIC.load(Ordering::Relaxed)
}
