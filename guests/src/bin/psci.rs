//! Does PSCI answer as its specification says, by HVC and by SMC?
//!
//! On a board without anything behind SMC the instruction is UNDEFINED; that passes unless the boot argument `strict` is
//! given.

#![no_std]
#![no_main]

use rt::psci::{self, Conduit};
use rt::timer::{self, PATIENCE, Timer};
use rt::{args, check, check_eq, cpu, expect_exception, gic, mmio, println};

rt::guest!(main);

fn main() {
    through(Conduit::Hvc);
    let smc = expect_exception(|| {
        psci::call(Conduit::Smc, [psci::VERSION, 0, 0, 0]);
    });
    match smc {
        Some(_) if !args::strict() => println!("psci: nothing behind SMC"),
        Some(fault) => check!(false, "SMC reaches PSCI", "{fault:x?}"),
        None => through(Conduit::Smc),
    }
    suspend();
}

/// What time was stolen from this CPU, if the board tells (DEN0057).
fn stolen(conduit: Conduit) {
    const ARCH_FEATURES: u64 = 0x8000_0001;
    const FEATURES: u64 = 0xc500_0020;
    const STOLEN: u64 = 0xc500_0021;
    let call = |function, x1| psci::call(conduit, [function, x1, 0, 0])[0] as i64;
    if call(ARCH_FEATURES, FEATURES) as i32 != 0 {
        check!(!args::strict(), "{conduit:?}: stolen time is told");
        return;
    }
    check_eq!(call(FEATURES, FEATURES), 0, "{conduit:?}: PV_TIME_FEATURES");
    check_eq!(call(FEATURES, STOLEN), 0, "{conduit:?}: PV_TIME_ST");
    check_eq!(call(FEATURES, 0xc500_0030), -1, "{conduit:?}: no other");
    let at = call(STOLEN, 0) as u64;
    check!(at.is_multiple_of(64) && at > 0, "{conduit:?}: it is 64-byte aligned", "{at:#x}");
    check_eq!(mmio::read64(at), 0, "{conduit:?}: revision 0, no attributes");
    let fault = expect_exception(|| mmio::write64(at + 8, 1));
    check!(fault.is_some(), "{conduit:?}: it is only for reading");
}

/// The firmware's random numbers, if it has some (DEN0098).
fn random(conduit: Conduit) {
    const VERSION: u64 = 0x8400_0050;
    const FEATURES: u64 = 0x8400_0051;
    const RND32: u64 = 0x8400_0053;
    const RND64: u64 = 0xc400_0053;
    let call = |function, x1| psci::call(conduit, [function, x1, 0, 0]);
    let version = call(VERSION, 0)[0] as u32 as i32;
    if version < 0 {
        println!("psci: no random numbers by {conduit:?}");
        return;
    }
    println!("psci: random numbers by {conduit:?}");
    check!(version >= 0x1_0000, "{conduit:?}: TRNG 1.0 or later", "{version:#x}");
    for function in [VERSION, FEATURES, RND32, RND64] {
        check!(call(FEATURES, function)[0] as i32 >= 0, "{conduit:?}: TRNG has {function:#x}");
    }
    check_eq!(call(RND64, 0)[0] as i64, -2, "{conduit:?}: no bits are too few");
    check_eq!(call(RND64, 193)[0] as i64, -2, "{conduit:?}: 193 bits are too many");
    check_eq!(call(RND32, 97)[0] as i32, -2, "{conduit:?}: 97 bits are too many for 32-bit registers");
    let (one, other) = (call(RND64, 192), call(RND64, 192));
    check!(one[0] == 0 && other[0] == 0 && one[1..] != other[1..], "{conduit:?}: other numbers each time");
    check!(one[1..].iter().chain(&other[1..]).all(|word| *word != 0), "{conduit:?}: of all three registers");
    let few = call(RND64, 65);
    check!(few[1] == 0 && few[2] < 2, "{conduit:?}: no more bits than were asked for", "{few:x?}");
}

fn through(conduit: Conduit) {
    let call = |function, a, b| psci::call(conduit, [function, a, b, 0])[0];
    let result = |function, a, b| i64::from(call(function, a, b) as u32 as i32);
    let version = call(psci::VERSION, 0, 0);
    println!("psci: version {}.{} by {conduit:?}", version >> 16, version & 0xffff);
    check!(version >> 16 == 1 || version == 2, "{conduit:?}: a version that is known", "{version:#x}");
    if args::strict() {
        check_eq!(version, 0x1_0001, "{conduit:?}: PSCI 1.1");
    }
    for (function, name) in [
        (psci::VERSION, "PSCI_VERSION"),
        (psci::CPU_ON, "CPU_ON"),
        (psci::CPU_OFF, "CPU_OFF"),
        (psci::CPU_SUSPEND, "CPU_SUSPEND"),
        (psci::AFFINITY_INFO, "AFFINITY_INFO"),
        (psci::MIGRATE_INFO_TYPE, "MIGRATE_INFO_TYPE"),
        (psci::SYSTEM_OFF, "SYSTEM_OFF"),
        (psci::SYSTEM_RESET, "SYSTEM_RESET"),
        (psci::FEATURES, "PSCI_FEATURES"),
    ] {
        let got = result(psci::FEATURES, function, 0);
        check!(got >= 0, "{conduit:?}: FEATURES knows {name}", "{got}");
    }
    check_eq!(result(psci::FEATURES, 0x8400_00ff, 0), psci::NOT_SUPPORTED, "{conduit:?}: FEATURES of nothing");
    for function in [0x8400_001f, 0xc400_001f, 0x8600_ff01, 0xc600_0000, 0xbf00_ffff] {
        let got = result(function, 0, 0);
        check_eq!(got, psci::NOT_SUPPORTED, "{conduit:?}: {function:#x} is not supported");
    }
    random(conduit);
    stolen(conduit);
    let kind = result(psci::MIGRATE_INFO_TYPE, 0, 0);
    check!(kind == 2 || kind == psci::NOT_SUPPORTED, "{conduit:?}: no Trusted OS to migrate", "{kind}");
    let smccc = result(psci::SMCCC_VERSION, 0, 0);
    if args::strict() {
        check!(smccc >= 0x1_0001, "{conduit:?}: SMCCC 1.1 or later", "{smccc:#x}");
        check_eq!(result(psci::FEATURES, psci::SMCCC_VERSION, 0), 0, "{conduit:?}: SMCCC_VERSION is discoverable");
        check_eq!(result(psci::SMCCC_ARCH_FEATURES, psci::SMCCC_VERSION, 0), 0, "{conduit:?}: SMCCC_ARCH_FEATURES");
        // SMCCC_ARCH_WORKAROUND_1, 2 and 3: what is offered, or not needed, can be called.
        for workaround in [0x8000_8000, 0x8000_7fff, 0x8000_3fff] {
            let offered = result(psci::SMCCC_ARCH_FEATURES, workaround, 0);
            let called = result(workaround, 1, 0);
            let agree =
                (-2..2).contains(&offered) && (offered == psci::NOT_SUPPORTED) == (called == psci::NOT_SUPPORTED);
            check!(agree, "{conduit:?}: workaround {workaround:#x}", "offered as {offered}, returns {called}");
        }
        // ID_AA64PFR0_EL1.CSV2.
        if rt::read_register!("id_aa64pfr0_el1") >> 56 & 15 != 0 {
            let offered = result(psci::SMCCC_ARCH_FEATURES, 0x8000_8000, 0);
            check_eq!(offered, 1, "{conduit:?}: who has CSV2 needs no ARCH_WORKAROUND_1");
        }
        check_eq!(
            result(psci::SMCCC_ARCH_FEATURES, 0x8000_1234, 0),
            psci::NOT_SUPPORTED,
            "{conduit:?}: an unknown one"
        );
        let saved = psci::call(conduit, [psci::VERSION, 0x11, 0x22, 0x33]);
        check!(saved[1..] == [0x11, 0x22, 0x33], "{conduit:?}: a call keeps x1 to x3", "{saved:x?}");
    }
}

/// CPU_SUSPEND to standby returns when the timer is due, with all registers as they were.
fn suspend() {
    gic::init();
    gic::enable(Timer::Virtual.irq());
    let start = timer::now();
    Timer::Virtual.start(timer::micros(20_000));
    let result = psci::hvc(psci::CPU_SUSPEND, 0, 0, 0);
    if result == psci::NOT_SUPPORTED && !args::strict() {
        println!("psci: no CPU_SUSPEND");
        return;
    }
    check_eq!(result, psci::SUCCESS, "CPU_SUSPEND to standby succeeds");
    check!(
        timer::wait_until(PATIENCE, cpu::irq_pending) && timer::now() - start >= timer::micros(20_000),
        "CPU_SUSPEND ends with the timer"
    );
    Timer::Virtual.stop();
}
