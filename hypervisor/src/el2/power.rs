//! Turning CPUs on and the board off: PSCI by SMC or HVC, or the board's watchdog.

use super::mmio::{self, Mmio};
use super::uart;
use core::arch::asm;
use flatland::arm::speculation::WORKAROUND_2;
use flatland::host::Host;
use platform::board::{Board, Conduit};
use platform::power::{psci, watchdog};
use spin::Once;

struct Means {
    psci: Option<Conduit>,
    watchdog: Option<Mmio<watchdog::Registers>>,
}

const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;

static MEANS: Once<Means> = Once::new();

/// Remembers what the board offers.
pub(crate) fn init(board: &Board) {
    let watchdog = board.watchdog.and_then(|base| {
        // SAFETY: the device tree says that a BCM2835 power manager lies there.
        unsafe { mmio::registers(base) }.ok()
    });
    MEANS.call_once(|| Means { psci: board.psci, watchdog });
}

/// Whether a CPU was asked to start.
pub(crate) enum Started {
    /// It was.
    Yes,
    /// It was not, for this reason.
    No(&'static str),
}

/// Asks the firmware to start the CPU `mpidr` at physical address `entry`.
pub(crate) fn cpu_on(mpidr: u64, entry: u64) -> Started {
    let Some(conduit) = MEANS.get().and_then(|means| means.psci) else {
        return Started::No("the device tree has no PSCI node");
    };
    match psci::decode(call(conduit, &psci::Call::cpu_on(mpidr, entry, 0))) {
        Ok(_) => Started::Yes,
        Err(_) => Started::No("the firmware refused to start it"),
    }
}

fn call(conduit: Conduit, call: &psci::Call) -> u64 {
    ask(conduit, call.registers())
}

/// What the firmware says to SMCCC_ARCH_FEATURES of `function`; NOT_SUPPORTED where there is none that knows the call. An
/// SMC where there is no firmware at EL3 that expects it may never return, so only a PSCI node with that conduit, version
/// 1.0 and SMCCC 1.1 make us ask (DEN0028 A.4).
pub(crate) fn arch_features(function: u32) -> i32 {
    // The answers have 32 bits.
    let asked = |function: u32, x1: u32| ask(Conduit::Smc, [function.into(), x1.into(), 0, 0]) as i32;
    match MEANS.get().and_then(|means| means.psci) {
        Some(Conduit::Smc)
            if asked(psci::Function::Version.id(), 0) >= 0x1_0000
                && asked(psci::Function::Features.id(), SMCCC_VERSION) >= 0
                && asked(SMCCC_VERSION, 0) >= 0x1_0001 =>
        {
            asked(SMCCC_ARCH_FEATURES, function)
        }
        _ => -1,
    }
}

/// 128 bits of the firmware's true random numbers (Arm DEN0098: TRNG_VERSION, TRNG_RND64), if it has some. A board without EL3 whose firmware
/// is at EL2 is not asked, as above.
pub(crate) fn firmware_random() -> Option<[u64; 2]> {
    const TRNG_VERSION: u64 = 0x8400_0050;
    const TRNG_RND64: u64 = 0xc400_0053;
    // It is asked by features of another first, which says whether there is SMCCC 1.1.
    if arch_features(SMCCC_ARCH_FEATURES) < 0 || (ask(Conduit::Smc, [TRNG_VERSION, 0, 0, 0]) as i32) < 0x1_0000 {
        return None;
    }
    let (x0, x2, x3): (u64, u64, u64);
    // SAFETY: as in `ask`.
    unsafe {
        asm!("smc #0", inout("x0") TRNG_RND64 => x0, inout("x1") 128_u64 => _, out("x2") x2, out("x3") x3,
            clobber_abi("C"), options(nostack));
    }
    (x0 == 0).then_some([x2, x3])
}

/// Tells the firmware, which has [`WORKAROUND_2`], that no load may pass a store by speculation on this CPU.
pub(crate) fn forbid_store_bypass() {
    ask(Conduit::Smc, [WORKAROUND_2.into(), 1, 0, 0]);
}

fn ask(conduit: Conduit, [mut x0, x1, x2, x3]: [u64; 4]) -> u64 {
    // SAFETY: SMCCC: the firmware may change x0 to x17 and nothing of ours in memory (DEN0028 2.6).
    unsafe {
        match conduit {
            Conduit::Smc => asm!("smc #0", inout("x0") x0, in("x1") x1, in("x2") x2, in("x3") x3,
                clobber_abi("C"), options(nostack)),
            Conduit::Hvc => asm!("hvc #0", inout("x0") x0, in("x1") x1, in("x2") x2, in("x3") x3,
                clobber_abi("C"), options(nostack)),
        }
    }
    x0
}

/// Every VM is over: says so on the last line, and turns the board off.
pub(crate) fn all_over(host: &Host) -> ! {
    static ONE: spin::mutex::SpinMutex<()> = spin::mutex::SpinMutex::new(());
    let guard = ONE.lock();
    host.sum_up();
    super::masked::sum_up(host);
    let mut console = host.console.lock();
    match host.fleet.crashed() {
        0 => console.log(format_args!("all VMs ended: ok")),
        n => console.log(format_args!("all VMs ended: {n} crashed")),
    }
    if let Some(port) = uart::port() {
        while !console.is_drained() {
            console.drain(|byte| port.put(byte));
        }
    }
    core::mem::forget(guard);
    off()
}

/// Turns the board off.
pub(crate) fn off() -> ! {
    finish(psci::Function::SystemOff, |watchdog| watchdog.halt())
}

/// Restarts the board.
pub(crate) fn restart() -> ! {
    finish(psci::Function::SystemReset, |watchdog| watchdog.restart())
}

/// What a panic ends in: the board turned off, so that nobody waits for it and the words on the UART stay last.
pub(crate) fn after_panic() -> ! {
    off()
}

fn finish(function: psci::Function, by_watchdog: impl Fn(&watchdog::Registers)) -> ! {
    if let Some(port) = uart::port() {
        port.flush();
    }
    if let Some(means) = MEANS.get() {
        if let Some(conduit) = means.psci {
            call(conduit, &psci::Call::plain(function));
        }
        if let Some(watchdog) = means.watchdog {
            by_watchdog(watchdog.get());
        }
    }
    park()
}

/// Leaves this CPU out, for good.
pub(crate) fn park() -> ! {
    loop {
        aarch64_cpu::asm::wfe();
    }
}
