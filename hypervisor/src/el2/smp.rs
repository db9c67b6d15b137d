//! Starting the other CPUs, by PSCI or out of the firmware's spin table, each with a stack of its own.

use super::mmu;
use super::power::{self, Started};
use super::sysreg::{CTR_EL0, dsb, read};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use flatland::addr::{Addr, CpuId, Pa};
use platform::board::{Cpu, Enable};

/// How many CPUs are used at most; boot.S knows it.
pub(crate) const MAX: usize = 16;

/// What a starting CPU needs to know. boot.S knows this layout.
#[repr(C)]
struct Secondary {
    /// Its affinity and [`IN_USE`].
    mpidr: AtomicU64,
    stack: AtomicU64,
    argument: AtomicU64,
    unused: AtomicU64,
}

/// Set in an entry for a CPU: one of zeroes matches nobody, and has no place in the image. boot.S knows it.
const IN_USE: u64 = 1 << 63;

#[unsafe(no_mangle)]
static SECONDARIES: [Secondary; MAX] = [const {
    Secondary {
        mpidr: AtomicU64::new(0),
        stack: AtomicU64::new(0),
        argument: AtomicU64::new(0),
        unused: AtomicU64::new(0),
    }
}; MAX];

unsafe extern "C" {
    static secondary_start: u8;
}

/// The affinity fields of this CPU's MPIDR_EL1.
pub(crate) fn affinity() -> u64 {
    read!("mpidr_el1") & 0xff_00ff_ffff
}

/// Starts `cpu` as CPU number `n` on the stack whose RAM is at `stack`. True is: it was asked to start.
pub(crate) fn start(cpu: &Cpu, n: CpuId, stack: Addr<Pa>) -> Result<(), &'static str> {
    let top = mmu::map_stack(usize::from(n.0), stack).map_err(|_| "no table left to map its stack")?;
    let entry = SECONDARIES.get(usize::from(n.0)).ok_or("more CPUs than Flatland uses")?;
    entry.stack.store(top, Ordering::Relaxed);
    entry.argument.store(u64::from(n.0), Ordering::Relaxed);
    entry.mpidr.store(cpu.mpidr & 0xff_00ff_ffff | IN_USE, Ordering::Release);
    // It reads this with its caches off.
    clean(core::ptr::from_ref(entry) as u64, core::mem::size_of::<Secondary>() as u64);
    let at = mmu::image_pa((&raw const secondary_start) as u64);
    match cpu.enable {
        Enable::Psci => match power::cpu_on(cpu.mpidr, at) {
            Started::Yes => Ok(()),
            Started::No(why) => Err(why),
        },
        Enable::SpinTable { release } => {
            let slot = mmu::linear(Addr::new(release)) as *const AtomicU64;
            // SAFETY: the device tree gives this address as the CPU's release word (Devicetree specification 3.8.1); it
            // lies in RAM that `entry.rs` has mapped for it.
            unsafe { &*slot }.store(at, Ordering::Release);
            clean(slot as u64, 8);
            // SAFETY: SEV only wakes who waits.
            unsafe { asm!("sev", options(nomem, nostack, preserves_flags)) };
            Ok(())
        }
        Enable::Unknown => Err("the device tree gives no way to start it"),
    }
}

/// Cleans `bytes` at virtual address `at` to the point of coherency.
fn clean(at: u64, bytes: u64) {
    let line = 4_u64 << CTR_EL0::DMINLINE.read(read!("ctr_el0"));
    let mut next = at & !(line - 1);
    while next < at + bytes {
        // SAFETY: cleaning changes no value.
        unsafe { asm!("dc civac, {}", in(reg) next, options(nostack, preserves_flags)) };
        next += line;
    }
    dsb();
}
