//! Flatland: an embedded AArch64 type-1 hypervisor that folds three dimensions into two.
//!
//! ```text
//! L2 IPA ──── L1's stage 2 ────▶ L1 IPA ──── our stage 2 ────▶ PA        three dimensions
//! Ipa2          Leaf<Ipa2,Ipa>     Ipa          Leaf<Ipa,Pa>     Pa
//!   └──────────────── shadow:  Leaf<Ipa2,Pa> ────────────────────▶        folded into two
//! ```
//!
//! This library is the thinking part: it forbids `unsafe`, knows no address of any board and builds on any host. The
//! binary beside it (`main.rs`, `el2/`) is the metal.
//!
//! # Floors
//!
//! A room may use rooms on lower floors and nothing else; `tests/house.rs` checks it.
//!
//! | floor | rooms |
//! |---|---|
//! | 0 | [`addr`], [`machine`], [`next`], [`arm`] |
//! | 1 | [`stage2`], [`frames`], [`policy`] |
//! | 2 | [`memory`], [`vgic`], [`sched`], [`bundle`] |
//! | 3 | [`vcpu`], [`devices`] |
//! | 4 | [`vm`] |
//! | 5 | [`monitor`] |
//! | 6 | [`host`] |
//! | 7 | [`hwstate`], [`operator`] |
//! | 8 | [`exit`] |
//! | 9 | [`run`] |
//!
//! # Locks
//!
//! Order: `loader → overcommit → scanner → balloon → flash → memory → compressor → frames → devices → vgic → queue → console`; one of a kind at a
//! time. The locks of `el2/` (heap, disk) are taken under any of these and hold none.
//!
//! A device's line is set under the lock of that device: set after it, an old level could replace a newer one, and an
//! interrupt be lost.
//!
//! # Glossary
//!
//! *board, CPU* (physical); *VM, vCPU, guest* (what runs in a VM); *L1/L2* (guest hypervisor, its guest); *frame* (4 KiB
//! of PA), *page* (4 KiB of IPA); *leaf, table, root, shadow, hole* (no leaf); *world* (of a vCPU with an EL2 that is on
//! the CPU: its hypervisor, or the guest of that); *resolve, fill, kill, fold, forget, publish, break, join, split, exit, cause, next, kick, pool, share, merge, freeze, lend, pack, swap, evict, order* (of the policy),
//! *bundle, manifest*.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod arm;
pub mod bundle;
pub mod devices;
pub mod exit;
pub mod frames;
pub mod host;
pub mod hwstate;
pub mod machine;
pub mod memory;
pub mod monitor;
pub mod next;
pub mod operator;
pub mod policy;
pub mod run;
pub mod sched;
pub mod stage2;
pub mod vcpu;
pub mod vgic;
pub mod vm;
