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
//! | 7 | [`hwstate`] |
//! | 8 | [`exit`] |
//! | 9 | [`run`] |
//!
//! # Locks
//!
//! Order: `loader → overcommit → scanner → ticking → sending → switch → balloon → disk → nic → flash → el2_shadows → memory → compressor → frames → devices → vgic → queue → console`;
//! one of a kind at a time, but of `memory` two where a frame goes from one VM to another, that of the lower number first. `entropy` is taken under none. The locks of `el2/` (heap, disk) are taken under any of these and hold none.
//!
//! A device's line is set under the lock of that device: set after it, an old level could replace a newer one, and an
//! interrupt be lost.
//!
//! # Glossary
//!
//! | word | what it is here |
//! |---|---|
//! | board, CPU | physical |
//! | VM, vCPU, guest | virtual; what runs in a VM |
//! | L1, L2 | a guest that is a hypervisor, and its guest |
//! | world | which of the two a vCPU with an EL2 of its own has on the CPU |
//! | frame, page | 4 KiB of PA; 4 KiB of IPA |
//! | leaf, table, root, hole | a descriptor that maps; what holds descriptors; the first; a descriptor that maps nothing, and why |
//! | shadow | a stage 2 of ours, L2 IPA to PA, composed of L1's and of the VM's (KVM: nested `kvm_s2_mmu`) |
//! | resolve, fill | make a leaf of a VM's table, or of a shadow, allow an access |
//! | kill, forget | drop shadow leaves of a page that changes; drop what L1's TLBI names |
//! | break, publish | make a leaf invalid, with its TLBI; make a descriptor valid, with its barrier |
//! | split, join | a block into pages, pages into a block |
//! | exit, cause | a guest leaves; why a VM ends |
//! | next | what the run loop does after an exit |
//! | kick | a vCPU has to look at its interrupts |
//! | fold | take into the vGIC what list registers say (KVM: `fold_lr_state`) |
//! | pool | the board's frames |
//! | share, merge, freeze, lend | frames of several leaves: to be one, to become one, to be made read-only for it, of the bundle |
//! | pack, swap, evict | compress a page; write it to the board's disk; whichever |
//! | bundle, manifest | the images and the device tree source that say which VMs there are |

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
pub mod policy;
pub mod run;
pub mod sched;
pub mod stage2;
pub mod vcpu;
pub mod vgic;
pub mod vm;
