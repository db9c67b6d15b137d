//! The machine as thought knows it, at EL2.

use super::mmu::linear;
use super::sysreg::{CTR_EL0, DCZID_EL0, dsb, isb, read, write};
use super::{context, debug, disk, irq, lists, masked};
use aarch64_cpu::asm::barrier;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use flatland::addr::{Addr, CpuId, IntId, Pa, Size};
use flatland::arm::debug::Debug;
use flatland::arm::el1::{Context, El1};
use flatland::arm::el2::El2Registers;
use flatland::arm::esr::Access;
use flatland::arm::gic::Interface;
use flatland::machine::{Forget, Machine, Point, Whose, Words};
use platform::blk::Way;

/// This CPU, as the [`Machine`] that the library uses.
#[derive(Clone, Copy)]
pub(crate) struct El2;

fn word(at: Addr<Pa>) -> &'static AtomicU64 {
    debug_assert!(at.bits().is_multiple_of(8));
    // SAFETY: callers hand in addresses of RAM that the frame pool knows ([`Machine`]'s invariant), which is in the
    // linear map for good, and descriptors are aligned; seen as an atomic, because table walkers and guests may write.
    unsafe { &*(linear(at) as *const AtomicU64) }
}

impl Machine for El2 {
    fn is_interrupt_pending(&self) -> bool {
        masked::between();
        irq::is_pending()
    }

    fn allocations(&self) -> u64 {
        super::heap::allocations()
    }

    #[inline(always)]
    fn load(&self, at: Addr<Pa>) -> u64 {
        word(at).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn store(&self, at: Addr<Pa>, value: u64) {
        word(at).store(value, Ordering::Release);
    }

    #[inline(always)]
    fn frame(&self, frame: Addr<Pa>) -> &Words {
        // SAFETY: as in `word`, for a whole aligned frame.
        unsafe { &*(linear(frame.align_down(Size::Page)) as *const Words) }
    }

    fn zero(&self, start: Addr<Pa>, frames: u64) {
        let at = linear(start);
        let bytes = frames << 12;
        let end = at + bytes;
        let zva = read!("dczid_el0");
        if !DCZID_EL0::DZP.is_set(zva) {
            let step = 4_u64 << DCZID_EL0::BS.read(zva);
            // SAFETY: frames of the pool, Normal memory in the linear map, owned by the caller, whole blocks: both ends are
            // multiples of four blocks, the largest of which is 2 KiB with 4 KiB frames only if DCZID_EL0 says 512 words.
            unsafe { each_line(at, end, step, Line::Zero) };
        } else {
            // SAFETY: as above.
            unsafe { core::ptr::write_bytes(at as *mut u64, 0, (bytes / 8) as usize) };
        }
    }

    #[inline(always)]
    fn publish(&self) {
        barrier::dsb(barrier::ISHST);
        isb();
    }

    fn forget(&self, what: Forget) {
        match what {
            Forget::Leaf(vmid, ipa, size) => under(u64::from(vmid.0), || {
                // By IPA to drop stage-2 translations; then all stage 1 of this VMID, since combined entries are not
                // found by IPA (Arm ARM D8.14.5). A block may have been cached in pieces of any size, so one address in
                // it suffices only because the invalidation applies to the whole leaf that the entry came from.
                let page = ipa.align_down(size).bits() >> 12;
                // SAFETY: invalidation only costs time.
                unsafe {
                    asm!("tlbi ipas2e1is, {}", in(reg) page, options(nostack, preserves_flags));
                    barrier::dsb(barrier::ISH);
                    asm!("tlbi vmalle1is", options(nostack, preserves_flags));
                };
                barrier::dsb(barrier::ISH);
                isb();
            }),
            Forget::Vmid(vmid) => under(u64::from(vmid.0), || {
                // SAFETY: as above.
                unsafe { asm!("tlbi vmalls12e1is", options(nostack, preserves_flags)) };
                barrier::dsb(barrier::ISH);
                isb();
            }),
            Forget::All => {
                barrier::dsb(barrier::ISHST);
                // SAFETY: as above. The instruction caches may be tagged by VMID.
                unsafe { asm!("tlbi alle1is", "ic ialluis", options(nostack, preserves_flags)) };
                barrier::dsb(barrier::ISH);
                isb();
            }
        }
    }

    fn clean(&self, start: Addr<Pa>, bytes: u64, point: Point) {
        let ctr = read!("ctr_el0");
        let line = 4_u64 << CTR_EL0::DMINLINE.read(ctr);
        let begin = linear(start) & !(line - 1);
        let end = linear(start) + bytes;
        let what = match point {
            Point::Coherency => Line::Clean,
            Point::Unification => Line::CleanForFetch,
        };
        // SAFETY: cleaning RAM in the linear map changes no value.
        unsafe { each_line(begin, end, line, what) };
        dsb();
        if point == Point::Unification {
            self.invalidate_instructions();
        }
    }

    fn invalidate_instructions(&self) {
        // The guest's virtual addresses are not ours, and caches may be indexed by them: all of it.
        // SAFETY: what is fetched next comes from where it came from first.
        unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
        dsb();
        isb();
    }

    #[inline(always)]
    fn get(&self, register: El1) -> u64 {
        context::get(register)
    }

    #[inline(always)]
    fn set(&self, register: El1, value: u64) {
        context::set(register, value);
    }

    #[inline]
    fn exchange(&self, off: &mut Context, on: &Context, el2: &El2Registers) {
        context::save(off);
        context::load(on, el2);
    }

    fn load_debug(&self, debug: &Debug, at_el2: bool) {
        debug::load(debug, at_el2);
    }

    fn has_abort(&self) -> bool {
        context::has_abort()
    }

    fn forget_stage1(&self) {
        context::forget_stage1();
    }

    fn interface_type(&self) -> u64 {
        lists::vtr()
    }

    fn load_interface(&self, interface: &Interface) {
        lists::load(interface);
    }

    fn save_interface(&self, interface: &mut Interface, lists: usize) {
        lists::save(interface, lists);
    }

    fn probe(&self, va: u64, access: Access, whose: Whose) -> u64 {
        let kept = context::get(El1::Par);
        // SAFETY: AT writes PAR_EL1 alone, which is put back.
        unsafe {
            match (access, whose) {
                (Access::Write, Whose::El1) => asm!("at s1e1w, {}", in(reg) va, options(nostack, preserves_flags)),
                (_, Whose::El1) => asm!("at s1e1r, {}", in(reg) va, options(nostack, preserves_flags)),
                (Access::Write, Whose::El0) => asm!("at s1e0w, {}", in(reg) va, options(nostack, preserves_flags)),
                (_, Whose::El0) => asm!("at s1e0r, {}", in(reg) va, options(nostack, preserves_flags)),
                // MSR PAN, #1; AT S1E1WP or S1E1RP; MSR PAN, #0: at EL2 without E2H that is about nothing else. CPUs without it
                // have no guest hypervisors, who alone ask.
                (Access::Write, Whose::El1Pan) => {
                    asm!(".inst 0xd500419f", "sys #0, c7, c9, #1, {}", ".inst 0xd500409f", in(reg) va,
                        options(nostack, preserves_flags))
                }
                (_, Whose::El1Pan) => {
                    asm!(".inst 0xd500419f", "sys #0, c7, c9, #0, {}", ".inst 0xd500409f", in(reg) va,
                        options(nostack, preserves_flags))
                }
            }
        };
        isb();
        let par = context::get(El1::Par);
        context::set(El1::Par, kept);
        par
    }

    fn caches(&self) -> [u64; 2] {
        [read!("clidr_el1"), read!("ccsidr_el1")]
    }

    fn el0_vectors(&self) -> &[u32] {
        unsafe extern "C" {
            static el0_vectors: [u32; 1024];
        }
        // SAFETY: el0_vectors.S has a page of words there, which nobody writes.
        unsafe { &el0_vectors }
    }

    #[inline(always)]
    fn instruction(&self, va: u64) -> Option<u32> {
        let kept = context::get(El1::Par);
        // SAFETY: AT writes PAR_EL1 alone, which is put back.
        unsafe { asm!("at s12e0r, {}", in(reg) va, options(nostack, preserves_flags)) };
        isb();
        let par = context::get(El1::Par);
        context::set(El1::Par, kept);
        // F, or Device memory (ATTR; Arm ARM D24.2.147): only frames of RAM are mapped as Normal by stage 2.
        if par & 1 != 0 || par >> 60 == 0 {
            return None;
        }
        let pa = Addr::new(par & 0x000f_ffff_ffff_f000 | va & 0xffc);
        // SAFETY: a frame that stage 2 maps is in the linear map, and stays the VM's while the lock is held; aligned to 4.
        let word = unsafe { &*(linear(pa) as *const AtomicU32) };
        Some(word.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // No earlier than what stands before it (Arm ARM D12.2.2).
        isb();
        read!("cntpct_el0")
    }

    fn signal(&self, cpu: CpuId) {
        irq::signal(cpu);
    }

    fn nudge(&self, cpu: CpuId) {
        irq::nudge(cpu);
    }

    fn read_lists(&self, lr: &mut [u64]) -> u32 {
        lists::read_back(lr)
    }

    fn write_lists(&self, lr: &[u64], control: u32) {
        lists::write_all(lr, control);
    }

    fn interface(&self) -> u64 {
        lists::vmcr()
    }

    fn release(&self, intid: IntId) {
        irq::release(intid.0);
    }

    fn swap_blocks(&self) -> u32 {
        disk::blocks()
    }

    fn swap_out(&self, block: u32, frame: Addr<Pa>) -> bool {
        disk::transfer(Way::Out, block, frame)
    }

    fn swap_in(&self, block: u32, frame: Addr<Pa>) -> bool {
        disk::transfer(Way::In, block, frame)
    }
}

/// What is done to a cache line.
#[derive(Clone, Copy)]
enum Line {
    Zero,
    Clean,
    CleanForFetch,
}

/// Does `what` to each line of `step` bytes from `at` up to `end`, four at a turn while there are as many: zeroing and
/// cleaning a block is what a first touch costs.
///
/// # Safety
/// The range must be RAM in the linear map; to be zeroed, the caller's own and a multiple of `step`.
#[inline(always)]
unsafe fn each_line(mut at: u64, end: u64, step: u64, what: Line) {
    macro_rules! lines {
        ($operation:literal) => {
            while at < end {
                if end - at >= 4 * step {
                    // SAFETY: the caller's promise.
                    unsafe {
                        asm!($operation, "add {a}, {a}, {s}", $operation, "add {a}, {a}, {s}", $operation,
                            "add {a}, {a}, {s}", $operation, "add {a}, {a}, {s}",
                            a = inout(reg) at, s = in(reg) step, options(nostack, preserves_flags))
                    };
                } else {
                    // SAFETY: the caller's promise.
                    unsafe {
                        asm!($operation, "add {a}, {a}, {s}", a = inout(reg) at, s = in(reg) step,
                            options(nostack, preserves_flags))
                    };
                }
            }
        };
    }
    match what {
        Line::Zero => lines!("dc zva, {a}"),
        Line::Clean => lines!("dc civac, {a}"),
        Line::CleanForFetch => lines!("dc cvau, {a}"),
    }
}

/// Does `work` with VTTBR_EL2's VMID being `vmid`: TLB maintenance applies to the current one.
fn under(vmid: u64, work: impl FnOnce()) {
    barrier::dsb(barrier::ISHST);
    let current = read!("vttbr_el2");
    if current >> 48 == vmid {
        return work();
    }
    // No walk may start under the borrowed VMID with this vCPU's stage 1.
    let (tcr, sctlr) = (context::get(El1::Tcr), context::get(El1::Sctlr));
    context::no_walks();
    write!("vttbr_el2", vmid << 48);
    isb();
    work();
    write!("vttbr_el2", current);
    context::allow_walks(sctlr, tcr);
}
