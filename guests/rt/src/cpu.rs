//! This CPU: who it is, its interrupt mask, its hints and barriers, and system registers by number.

use core::arch::asm;

/// Most CPUs a guest can have: `MAX_CPUS` of start.S.
pub const MAX: usize = 32;

/// Returns the index of this CPU: its place among the CPUs of the device tree, 0 for the one that was started first.
#[inline(always)]
pub fn index() -> usize {
    let index: usize;
    // SAFETY: reads a register that start.S wrote once and nobody writes again.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) index, options(nomem, nostack, preserves_flags)) };
    index
}

/// Reads a system register by the name the assembler knows it by: `read_register!("icc_pmr_el1")`.
#[macro_export]
macro_rules! read_register {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: an MRS changes no memory; where the register is missing, `exception` skips it and the value is 0.
        unsafe { core::arch::asm!(concat!("mrs {0}, ", $name), inout(reg) 0u64 => value, options(nostack)) };
        value
    }};
}

/// Writes a system register that cannot change how memory is seen; the caller's SAFETY says so.
macro_rules! write_register {
    ($name:expr, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack))
    }};
}
pub(crate) use write_register;

/// Tells the core (and an emulator that runs CPUs in turn) that this one waits for another.
#[inline(always)]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// Waits for an interrupt, masked or not, or anything else that wakes a core.
#[inline(always)]
pub fn wfi() {
    // SAFETY: WFI only waits; the barrier makes stores before it visible to whoever is to wake this CPU.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}

/// Waits for an event.
#[inline(always)]
pub fn wfe() {
    // SAFETY: WFE only waits.
    unsafe { asm!("wfe", options(nostack, preserves_flags)) };
}

/// Sends an event to all CPUs.
#[inline(always)]
pub fn sev() {
    // SAFETY: SEV only wakes; the barrier orders it after the stores it announces.
    unsafe { asm!("dsb sy", "sev", options(nostack, preserves_flags)) };
}

/// Completes all memory accesses and context changes before it returns.
#[inline(always)]
pub fn barrier() {
    // SAFETY: barriers.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// Synchronises the context only.
#[inline(always)]
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// Takes interrupts on this CPU from here on.
#[inline(always)]
pub fn unmask() {
    // SAFETY: the exception table stands since start.S; an interrupt finds its hook or is reported.
    unsafe { asm!("msr daifclr, #2", "isb", options(nostack, preserves_flags)) };
}

/// Takes no interrupts on this CPU from here on.
#[inline(always)]
pub fn mask() {
    // SAFETY: only delays interrupts.
    unsafe { asm!("msr daifset, #2", "isb", options(nostack, preserves_flags)) };
}

/// Runs `f` with interrupts masked, and puts the mask back as it was.
pub fn masked<R>(f: impl FnOnce() -> R) -> R {
    let before = read_register!("daif");
    mask();
    let result = f();
    // SAFETY: restores what was there.
    unsafe { write_register!("daif", before) };
    result
}

/// Returns whether an interrupt is pending at this CPU, masked or not (ISR_EL1.I).
pub fn irq_pending() -> bool {
    read_register!("isr_el1") & (1 << 7) != 0
}

/// Waits for ever.
pub fn park() -> ! {
    mask();
    loop {
        wfi();
    }
}

/// Moves the exception vectors to `address`, which must lie outside RAM, and takes an exception.
pub fn die_with_vectors_at(address: u64) -> ! {
    assert!(address & 0x7ff == 0 && address >= crate::ram::end(), "{address:#x} is not outside RAM");
    mask();
    // SAFETY: this CPU never again runs anything of this program: what it fetches next is outside RAM.
    unsafe { asm!("msr vbar_el1, {}", "isb", "udf #0", "b .", in(reg) address, options(noreturn)) };
}

/// Makes writers for registers that change nothing of this program: it uses neither them nor EL0.
macro_rules! writers {
    ($($writer:ident $name:literal;)*) => {$(
        #[doc = concat!("Writes ", $name, ", which nothing here depends on.")]
        pub fn $writer(value: u64) {
            // SAFETY: the program does not use this register (TTBR1 walks are off, there is no EL0).
            unsafe { write_register!($name, value) };
            isb();
        }
    )*};
}

writers! {
    write_contextidr "contextidr_el1";
    write_far "far_el1";
    write_afsr0 "afsr0_el1";
    write_ttbr1 "ttbr1_el1";
    write_tpidr_el0 "tpidr_el0";
    write_tpidrro_el0 "tpidrro_el0";
    write_par "par_el1";
    write_csselr "csselr_el1";
    write_disr "S3_0_C12_C1_1";
}

/// Cleans and invalidates the data caches by set and way, all levels that there are, as boot loaders do before they turn
/// them off; returns how many operations that took.
pub fn clean_by_set_way() -> u64 {
    let mut n = 0;
    // CLIDR_EL1.LoC; CCSIDR_EL1 has other fields with FEAT_CCIDX.
    for level in 0..read_register!("clidr_el1") >> 24 & 7 {
        write_csselr(level << 1);
        let size = read_register!("ccsidr_el1");
        let (ways, sets) = match read_register!("id_aa64mmfr2_el1") >> 20 & 0xf {
            0 => (size >> 3 & 0x3ff, size >> 13 & 0x7fff),
            _ => (size >> 3 & 0x1f_ffff, size >> 32 & 0xff_ffff),
        };
        let line = (size & 7) + 4;
        for way in (0..=ways).rev() {
            for set in (0..=sets).rev() {
                let operand = way.checked_shl((ways as u32).leading_zeros()).unwrap_or(0) | set << line | level << 1;
                // SAFETY: what is cleaned is kept.
                unsafe { core::arch::asm!("dc cisw, {}", in(reg) operand, options(nostack, preserves_flags)) };
                n += 1;
            }
        }
    }
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
    n
}

/// Writes the registers of translation once more with what they hold.
pub fn rewrite_translation() {
    macro_rules! again {
        ($($name:literal)*) => {$(
            let held = read_register!($name);
            // SAFETY: what is written is what was there.
            unsafe { write_register!($name, held) };
        )*};
    }
    again!("mair_el1" "amair_el1" "tcr_el1" "ttbr0_el1" "sctlr_el1");
    isb();
}
