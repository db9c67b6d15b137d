//! Cache maintenance by set and way (DC ISW, CSW, CISW), which traps (HCR_EL2.TSW).
//!
//! It reaches the caches of the CPU that executes it alone, and a vCPU that goes on elsewhere leaves its lines behind. Who
//! still uses it wants one thing: all that is in the caches in memory, before it turns them off or starts another world
//! (U-Boot, EDK2). A guest does not know which physical address lies in which set, so no single set means anything to it;
//! all of them do. So the one operation that every such loop contains, that on way 0 of set 0, cleans and invalidates all
//! of the VM's memory by address, to the point of coherency and on all CPUs, and every other does nothing: loops that count
//! down end with it, those that count up begin with it and lose nothing that the hardware would have kept for them.
//!
//! The memory may be large. It is done piece by piece: the instruction is executed again until all is done, interrupts are
//! taken in between, and the memory's lock is held for one piece.
//!
//! Follows Arm ARM D7.5.9 (DC, the operand of set/way operations) and D24.2.52 (HCR_EL2.TSW, SWIO).

use crate::addr::Addr;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::vcpu::Vcpu;

/// Does a part of what the operation with this `operand` stands for, or all: true. Else it is to be executed again.
pub fn by_set_way<M: Machine>(m: &M, memory: &Memory, vcpu: &mut Vcpu, operand: u64) -> bool {
    // Way and set, bits 31:4; the level, bits 3:1, does not matter: each is followed by those below.
    if operand & 0xffff_fff0 != 0 {
        return true;
    }
    // A handler of an interrupt may come between, with a loop of its own.
    let (pc, at) = vcpu.cleaning;
    let from = if pc == vcpu.registers.pc { at } else { 0 };
    let rest = memory.flush(m, Addr::new(from));
    vcpu.cleaning = rest.map_or((0, 0), |at| (vcpu.registers.pc, at.bits()));
    rest.is_none()
}
