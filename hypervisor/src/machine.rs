//! The one seam: what thought may ask of the machine.
//!
//! [`Machine`] is implemented by `el2/` and by the tests as an adversary that remembers translations and
//! delays stores. Everything above `el2/` is generic over it and touches memory, TLBs and caches in no other way.

use crate::addr::{Addr, CpuId, IntId, Ipa, Pa, Size, Vmid};
use crate::arm::debug::Debug;
use crate::arm::el1::{Context, El1};
use crate::arm::el2::El2Registers;
use crate::arm::esr::Access;
use crate::arm::gic::Interface;
use core::sync::atomic::AtomicU64;

/// The words of one 4 KiB frame. Atomics, because a guest may write while we look.
pub type Words = [AtomicU64; 512];

/// Which cached translations the hardware has to forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forget {
    /// Those of one leaf of this size, under this VMID: by IPA, with the stage-1 follow-up (Arm ARM D8.14).
    Leaf(Vmid, Addr<Ipa>, Size),
    /// All of one VMID, stages 1 and 2.
    Vmid(Vmid),
    /// All of every VMID.
    All,
}

/// How far a cleaned range must be seen (Arm ARM B2.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// By every observer, with caches off too: point of coherency.
    Coherency,
    /// By instruction fetch: point of unification, and [`Machine::invalidate_instructions`].
    Unification,
}

/// The address that PAR_EL1 has for `va`; nothing where it has a fault (F; Arm ARM D24.2.147).
pub fn output(par: u64, va: u64) -> Option<Addr<Ipa>> {
    (par & 1 == 0).then(|| Addr::new(par & 0x000f_ffff_ffff_f000 | va & 0xfff))
}

/// Whose access a translation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// EL0's.
    El0,
    /// EL1's, whatever its PSTATE.PAN is.
    El1,
    /// EL1's with PSTATE.PAN set (FEAT_PAN2).
    El1Pan,
}

/// What the machine does for us. Addresses handed in must be of RAM that the frame pool knows; that is an invariant of
/// the callers, not a check made here.
pub trait Machine {
    /// How often something was allocated from the heap since boot began.
    fn allocations(&self) -> u64 {
        0
    }

    /// Whether an interrupt waits for this CPU.
    fn is_interrupt_pending(&self) -> bool {
        false
    }

    /// Reads the descriptor at `at`, 64-bit single-copy atomic.
    fn load(&self, at: Addr<Pa>) -> u64;
    /// Writes the descriptor at `at`, 64-bit single-copy atomic. Seen by table walkers after [`Machine::publish`].
    fn store(&self, at: Addr<Pa>, value: u64);
    /// The words of the frame at `frame`, which must be aligned to 4 KiB.
    fn frame(&self, frame: Addr<Pa>) -> &Words;
    /// Zeroes `frames` frames from the one at `start` on.
    fn zero(&self, start: Addr<Pa>, frames: u64);
    /// Makes earlier stores seen by every table walker (DSB ISHST, Arm ARM D8.2.6) and by this CPU's next instruction.
    fn publish(&self);
    /// Makes every CPU forget cached translations, and waits for it.
    fn forget(&self, what: Forget);
    /// Cleans `bytes` from `start` to `point`.
    fn clean(&self, start: Addr<Pa>, bytes: u64, point: Point);
    /// Makes every CPU's instruction caches forget everything.
    fn invalidate_instructions(&self);
    /// Reads a register of the vCPU that is loaded on this CPU.
    fn get(&self, register: El1) -> u64;
    /// Writes a register of the vCPU that is loaded on this CPU.
    fn set(&self, register: El1, value: u64);
    /// Takes EL1's registers of the loaded vCPU off this CPU and puts others on, and EL2's with them.
    fn exchange(&self, off: &mut Context, on: &Context, el2: &El2Registers);
    /// Gives this CPU the breakpoints and watchpoints of `debug`, whose vCPU is loaded and in its EL2 (`at_el2`) or not.
    fn load_debug(&self, debug: &Debug, at_el2: bool);
    /// Whether a virtual SError waits for the loaded vCPU to take it (HCR_EL2.VSE).
    fn has_abort(&self) -> bool;
    /// Makes this CPU forget what it caches of the loaded vCPU's stage 1.
    fn forget_stage1(&self);
    /// Translates `va` by the stage 1 that is on this CPU (AT S1E1x, S1E1xP, S1E0x) and returns what PAR_EL1 then holds.
    fn probe(&self, va: u64, access: Access, whose: Whose) -> u64;
    /// Where stage 1 on this CPU has `va`, whoever may do what there; nothing where it is not mapped. There is no page that
    /// EL1 may not read by stage 1 (Arm ARM D8.4.1), and AT S1E1R looks neither at PSTATE.PAN nor at TCR_EL1.E0PD.
    #[inline(always)]
    fn translate(&self, va: u64) -> Option<Addr<Ipa>> {
        output(self.probe(va, Access::Read, Whose::El1), va)
    }
    /// CLIDR_EL1, and the CCSIDR_EL1 that the loaded vCPU's CSSELR_EL1 selects.
    fn caches(&self) -> [u64; 2];
    /// The instruction at `va` as EL0 of the loaded vCPU would fetch it, read once; nothing where it is not to be had at once. The lock of the VM's memory is held meanwhile, so that the page stays its own.
    #[inline(always)]
    fn instruction(&self, _va: u64) -> Option<u32> {
        None
    }
    /// Code of the vectors that do accesses of a virtual EL2 at EL0 to its page, a page of words, and 0 where an HVC or what else is there is to
    /// be ([`crate::memory::el2_vectors`]); nothing where there is none.
    fn el0_vectors(&self) -> &[u32] {
        &[]
    }
    /// The system counter.
    fn now(&self) -> u64;
    /// Makes a CPU ask the queue.
    fn signal(&self, cpu: CpuId);
    /// Makes a CPU look at the requests to the vCPU that it runs.
    fn nudge(&self, cpu: CpuId);
    /// Reads the first `lr.len()` list registers of this CPU back, and the interface's control register.
    fn read_lists(&self, lr: &mut [u64]) -> u32;
    /// Writes list registers and control register.
    fn write_lists(&self, lr: &[u64], control: u32);
    /// What this CPU's virtual interface is like: ICH_VTR_EL2.
    fn interface_type(&self) -> u64;
    /// Puts the state of a virtual interface onto this CPU, whose list registers are empty.
    fn load_interface(&self, interface: &Interface);
    /// Takes the state of the virtual interface off this CPU; its first `lists` list registers are emptied.
    fn save_interface(&self, interface: &mut Interface, lists: usize);
    /// What this CPU's virtual interface lets through: ICH_VMCR_EL2 or GICH_VMCR.
    fn interface(&self) -> u64;
    /// Makes this CPU's physical private interrupt inactive, so that it can come again.
    fn release(&self, intid: IntId);
    /// How many blocks of 4 KiB the board's disk has to swap to: 0 without a disk, and from when it has failed for good.
    fn swap_blocks(&self) -> u32;
    /// Writes a frame, as CPUs with caches see it, to a block of the disk. False: what the block holds is undefined.
    ///
    /// Waits, for seconds if the disk is broken, and may say so on the console. No store to the frame may be under way:
    /// it is mapped nowhere or read-only, and that was published and forgotten. What was stored past the caches is seen
    /// once they have been cleaned to [`Point::Coherency`].
    fn swap_out(&self, block: u32, frame: Addr<Pa>) -> bool;
    /// Reads a block of the disk into a frame that nobody else uses: waits as [`Machine::swap_out`] does. False: what the
    /// frame holds is undefined. Who maps it for a guest cleans it as any frame that was just written.
    fn swap_in(&self, block: u32, frame: Addr<Pa>) -> bool;
}
