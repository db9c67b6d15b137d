//! A page that a guest finds in each 2 MiB of its IPAs, and forgets again: what that makes the host keep is for the host to
//! bound, and to give back.
//!
//! The boot argument `until=MILLISECONDS` of the counter has the board reset and all begin anew until then.

use crate::l2::{HVC, Vm};
use crate::memory;
use crate::ops;
use crate::tables::ALL;
use rt::el2::tlb::{self, Forget};
use rt::{args, check_eq, psci, timer};

/// The first IPA, and the GiB from there on: of 36 bits what is not used otherwise.
const FROM: u64 = 4 << 30;
const GIB: u64 = 60;
/// How many IPAs it touches before all is forgotten.
const TOUCHES: u64 = 4096;

/// Runs the group.
pub(crate) fn run() {
    let mut vm = Vm::plain(0x31);
    let page = memory::take(4096, 4096);
    vm.map.map(FROM, memory::address(page), 3, ALL);
    // One table for each 2 MiB, and one table of that for each GiB.
    let pages = vm.map.slot(FROM, 2).load(core::sync::atomic::Ordering::SeqCst);
    for n in 1..512 {
        vm.map.put(FROM + (n << 21), 2, pages);
    }
    let blocks = vm.map.slot(FROM, 1).load(core::sync::atomic::Ordering::SeqCst);
    for n in 1..GIB {
        vm.map.put(FROM + (n << 30), 1, blocks);
    }
    let most = GIB * 512;
    for first in (0..most).step_by(TOUCHES as usize) {
        vm.cpu.x[0] = FROM + (first << 21);
        vm.cpu.x[1] = 1 << 21;
        vm.cpu.x[2] = TOUCHES.min(most - first);
        // ldr x3, [x0]; add x0, x0, x1; subs x2, x2, #1; b.ne to the first.
        let exit = vm.exec(&[0xf940_0003, 0x8b01_0000, 0xf100_0442, 0x54ff_ffa1, ops::hvc(0)]);
        check_eq!(exit.class(), HVC, "it finds the page at each place");
        check_eq!(vm.cpu.x[2], 0, "all of them");
        tlb::forget(Forget::Vm);
    }
    if timer::now() * 1000 / timer::frequency() < args::number("until", 0) {
        psci::system_reset();
    }
}
