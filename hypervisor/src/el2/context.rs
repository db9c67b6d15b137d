//! The registers that make a CPU be a vCPU: EL1's context, saved and restored at a switch and never at an exit, and FP
//! on first use.

use super::cpu;
use super::sysreg::{isb, read, write};
use aarch64_cpu::asm::barrier;
use flatland::addr::Addr;
use flatland::arm::el1::{Context, El1};
use flatland::arm::el2::{El2Registers, Traps};
use flatland::arm::trap::cptr::{TCPAC, TFP};
use flatland::vcpu::Fp;
use flatland::vcpu::nested::hcr;

macro_rules! context {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// Reads one register of the loaded vCPU.
        #[inline(always)]
        pub(crate) fn get(register: El1) -> u64 {
            match register { $(El1::$name => read!($text)),* }
        }

        /// Writes one register of the loaded vCPU.
        #[inline(always)]
        pub(crate) fn set(register: El1, value: u64) {
            match register { $(El1::$name => write!($text, value)),* }
        }

        /// Takes EL1's registers off this CPU.
        pub(crate) fn save(context: &mut Context) {
            $(context.set(El1::$name, read!($text));)*
        }

        /// Puts EL1's registers onto this CPU, all but TCR_EL1, SCTLR_EL1 and the timer: see [`load`].
        fn restore(context: &Context) {
            $(if !matches!(El1::$name, El1::Tcr | El1::Sctlr | El1::CntvCtl) {
                write!($text, context.get(El1::$name));
            })*
        }
    };
}

context! {
    Sctlr = "sctlr_el1", Cpacr = "cpacr_el1", Ttbr0 = "ttbr0_el1", Ttbr1 = "ttbr1_el1", Tcr = "tcr_el1",
    Mair = "mair_el1", Amair = "amair_el1", Vbar = "vbar_el1", Contextidr = "contextidr_el1",
    Esr = "esr_el1", Far = "far_el1", Afsr0 = "afsr0_el1", Afsr1 = "afsr1_el1", Par = "par_el1",
    Elr = "elr_el1", Spsr = "spsr_el1", SpEl0 = "sp_el0", SpEl1 = "sp_el1",
    TpidrEl0 = "tpidr_el0", TpidrroEl0 = "tpidrro_el0", TpidrEl1 = "tpidr_el1",
    Csselr = "csselr_el1", Cntkctl = "cntkctl_el1", CntvCtl = "cntv_ctl_el0", CntvCval = "cntv_cval_el0",
    Mdscr = "mdscr_el1",
}

/// TCR_EL1.EPD0 and EPD1: no walks.
const NO_WALKS: u64 = 1 << 7 | 1 << 23;

/// Forbids walks of stage 1, and then turns it on, so that nothing is translated that is not in a TLB already.
///
/// A speculative AT or walk between the two halves of a switch could cache a translation of one VM's stage 1 under the
/// other's VMID (Cortex-A72 erratum 1319367, A57 1319537). The order matters: a stage 1 that its guest has off must not
/// be on while its tables may be walked; so [`allow_walks`] goes back the same way.
pub(crate) fn no_walks() {
    write!("tcr_el1", read!("tcr_el1") | NO_WALKS);
    isb();
    write!("sctlr_el1", read!("sctlr_el1") | 1);
    isb();
}

/// Gives the vCPU its stage 1 (SCTLR_EL1, TCR_EL1) back, when everything else is in place.
pub(crate) fn allow_walks(sctlr: u64, tcr: u64) {
    isb();
    write!("sctlr_el1", sctlr);
    isb();
    write!("tcr_el1", tcr);
    isb();
}

/// Makes this CPU be the vCPU with `context` and, of EL2, `el2`.
pub(crate) fn load(context: &Context, el2: &El2Registers) {
    no_walks();
    write!("vttbr_el2", el2.vttbr);
    write!("vtcr_el2", el2.vtcr);
    write!("vmpidr_el2", el2.vmpidr);
    write!("cntvoff_el2", el2.cntvoff);
    if cpu::has_ras() {
        // VDISR_EL2 is the guest's DISR_EL1, which nothing traps (Arm ARM D24.5.2): it would keep what another wrote.
        write!("S3_4_C12_C1_1", 0);
    }
    if let Some(traps) = &el2.nested {
        control(traps);
    }
    restore(context);
    allow_walks(context.get(El1::Sctlr), context.get(El1::Tcr));
    // The timer last: its comparison uses CNTVOFF_EL2 and CNTV_CVAL_EL0.
    write!("cntv_ctl_el0", context.get(El1::CntvCtl));
    isb();
}

/// EL2's control registers for a vCPU that has an EL2 of its own.
fn control(traps: &Traps) {
    if traps.vncr != 0 {
        // VNCR_EL2 is an address of EL2's own translation regime (Arm ARM D24.2.209).
        write!("S3_4_C2_C2_0", super::mmu::linear(Addr::new(traps.vncr)));
    }
    write!("hcr_el2", cpu::hcr() & !hcr::PTW | traps.hcr);
    write!("vpidr_el2", traps.vpidr);
    write!("mdcr_el2", cpu::mdcr() | traps.mdcr);
    write!("cnthctl_el2", u64::from(!traps.counter));
    let fp = if traps.fp { TFP } else { 0 };
    let cpacr = if traps.cpacr { TCPAC } else { 0 };
    write!("cptr_el2", read!("cptr_el2") & !TCPAC | fp | cpacr);
}

/// Whether HCR_EL2.VSE is set.
pub(crate) fn has_abort() -> bool {
    read!("hcr_el2") & hcr::VSE != 0
}

/// EL2's control registers as all other vCPUs have them.
pub(crate) fn uncontrol() {
    write!("hcr_el2", cpu::hcr());
    write!("vpidr_el2", cpu::midr());
    write!("mdcr_el2", cpu::mdcr());
    write!("cnthctl_el2", 1);
    write!("cptr_el2", read!("cptr_el2") & !TCPAC);
    isb();
}

/// Drops what this CPU caches of the stage 1 of the VM it is.
pub(crate) fn forget_stage1() {
    // SAFETY: invalidation only costs time.
    unsafe { core::arch::asm!("dsb nshst", "tlbi vmalle1", "dsb nsh", "isb", options(nostack, preserves_flags)) };
}

/// Makes this CPU be nobody: no timer of a vCPU fires, no guest's walks are made.
///
/// The vCPU may go on elsewhere, and wait there for TLB and cache maintenance and for stores that it has issued here. A
/// DSB waits for what its own CPU has issued (Arm ARM B2.3.12), so that is done before it is let go.
pub(crate) fn unload() {
    write!("cntv_ctl_el0", 0);
    no_walks();
    barrier::dsb(barrier::ISH);
}

unsafe extern "C" {
    fn fp_save(to: *mut Fp);
    fn fp_load(from: *const Fp);
}

/// CPTR_EL2 with E2H clear: RES1 bits, SVE and SME trapped with them; trace and activity monitors trapped.
const CPTR: u64 = 0x33ff | 1 << 20 | 1 << 30;

/// Traps the guest's use of FP, or not.
pub(crate) fn trap_fp(trap: bool) {
    write!("cptr_el2", read!("cptr_el2") & TCPAC | CPTR | if trap { TFP } else { 0 });
    isb();
}

/// Puts a vCPU's FP registers onto this CPU and lets it use them.
pub(crate) fn load_fp(fp: &Fp) {
    trap_fp(false);
    // SAFETY: `fp` is a valid, 16-byte aligned Fp with the layout fp.S reads; EL2 itself uses no FP register.
    unsafe { fp_load(fp) };
}

/// Takes a vCPU's FP registers off this CPU and traps their next use.
pub(crate) fn save_fp(fp: &mut Fp) {
    // A guest hypervisor may have them trap for its guest, though they are loaded.
    trap_fp(false);
    // SAFETY: as above; FP accesses do not trap.
    unsafe { fp_save(fp) };
    trap_fp(true);
}
