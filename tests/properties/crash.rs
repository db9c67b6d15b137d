//! What is said of a VM that crashed.

use crate::exits::{here, model};
use flatland::addr::Addr;
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::exit;
use flatland::memory::RAM_BASE;
use flatland::next::Cause;
use flatland::vm::State;
use harness::cpu::{BoardPlan, Cpu, host_on, run_all, shown};

/// 39 bits below, 4 KiB, nothing above.
const TCR: u64 = 25 | 1 << 23 | 16 << 16 | 0b10 << 30 | 2 << 32;

/// Has a VM crash, whose stage 1 maps its RAM at 0x4000_0000 as it is, two pages at 0x1000 to those at 16 KiB, and nothing else. What is
/// said of that.
fn crash(on_crash: &[u8], class: u64) -> Vec<String> {
    let model = model();
    let cpu = Cpu::new(&model);
    let plan = BoardPlan { keys: &[("on-crash", on_crash)], ..BoardPlan::new(1, &["one"]) };
    let host = host_on(&model, &plan);
    run_all(host);
    let here = here(host);
    let base = RAM_BASE.bits();
    let put = |at: u64, word: u64| {
        here.vm.memory.lock().write(&cpu, &host.pool, Addr::new(at), &word.to_le_bytes()).unwrap();
    };
    // Level 1, 2, 3: tables in the first pages; the pages at 16 KiB; a block of a GiB.
    put(base, base + 0x1003);
    put(base + 8, base | 0x701);
    put(base + 0x1000, base + 0x2003);
    put(base + 0x2008, base + 0x4703);
    put(base + 0x2010, base + 0x5703);
    for n in 0..0x400 {
        put(base + 0x4000 + n * 8, 0xabcd_0000 + n);
    }
    let mut vcpu = here.slot.vcpu.lock();
    vcpu.saved.set(El1::Ttbr0, base);
    vcpu.saved.set(El1::Tcr, TCR);
    vcpu.saved.set(El1::Sctlr, 1);
    vcpu.saved.set(El1::SpEl1, 0x2f44);
    vcpu.saved.set(El1::Vbar, 0x1234_5000);
    cpu.load(here, &vcpu);
    // Twenty exits are more than the eight that are remembered: HVC with an unknown function.
    for n in 0..20 {
        vcpu.registers.pc = 0x5000 + n * 4;
        vcpu.registers.x[0] = 0x1111;
        vcpu.registers.esr = ec::HVC64 << 26 | 1 << 25;
        let _ = exit::handle(here, &cpu, &mut vcpu);
    }
    (vcpu.registers.pc, vcpu.registers.pstate) = (0x1014, psr::EL1H);
    vcpu.registers.x[7] = 0x7777_0007;
    vcpu.registers.esr = class << 26 | 1 << 25 | 0b111;
    (vcpu.registers.far, vcpu.registers.hpfar) = (0x2010, (base + 0x5000) >> 12 << 4);
    let _ = shown(host);
    host.stop_with_report(&cpu, here.vm, &vcpu, Cause::Crash("it fell"));
    assert!(matches!(here.vm.life.state(), State::Stopping(Cause::Crash("it fell"))));
    let said = shown(host);
    said.lines().filter_map(|line| Some(line.split_once("one: ")?.1.to_string())).collect()
}

#[test]
fn a_crash_is_told_with_registers_exits_and_translations() {
    let lines = crash(b"stop\0", ec::DABT_LOWER);
    let text = lines.join("\n");
    assert_eq!(lines[0], "CRASH of vCPU 0: it fell");
    let base = RAM_BASE.bits();
    for part in [
        format!("pc  {:#018x}", 0x1014),
        format!("x7  {:#018x}", 0x7777_0007),
        format!("{:<15} {:#018x}", "TTBR0_EL1", base),
        format!("{:<15} {:#018x}", "VBAR_EL1", 0x1234_5000),
        "data abort from a lower EL".to_string(),
        // How the address translates at stage 1.
        format!(
            "stage 1 of 0x2010:   stage 1 level 1 at {}: {:#018x}",
            Addr::<flatland::addr::Ipa>::new(base),
            base + 0x1003
        ),
        format!("stage 1 level 3 at {}: {:#018x}", Addr::<flatland::addr::Ipa>::new(base + 0x2010), base + 0x5703),
        // And at stage 2, to its last level.
        format!("stage 2 of {}: level 3, descriptor at", Addr::<flatland::addr::Ipa>::new(base + 0x5010)),
    ] {
        assert!(text.contains(&part), "{part}:\n{text}");
    }
    // The last exits, the oldest first.
    let exits: Vec<_> = lines.iter().filter(|line| line.starts_with("exit at ")).collect();
    let last = format!("exit at {:#x}: HVC, esr {:#x}, far 0x0", 0x5000 + 19 * 4, ec::HVC64 << 26 | 1 << 25);
    assert_eq!((exits.len(), exits.last().unwrap().as_str()), (8, last.as_str()));
    assert!(exits.is_sorted(), "{exits:?}");
    assert!(!text.contains("stack") && !text.contains("code"), "{text}");
    // What is no abort has no address.
    let text = crash(b"stop\0", ec::HVC64).join("\n");
    assert!(text.contains("CRASH") && !text.contains("stage 1") && !text.contains("stage 2"), "{text}");
    assert!(crash(b"stop\0", ec::IABT_LOWER).join("\n").contains("stage 1 of 0x2010"));
}

#[test]
fn a_dump_shows_the_words_around_pc_and_those_on_the_stack() {
    let lines = crash(b"dump\0", ec::DABT_LOWER);
    let of = |what: &str| -> Vec<&String> { lines.iter().filter(|line| line.starts_with(what)).collect() };
    let row = |what: &str, at: u64| {
        let word = |at: u64| match at {
            0x1000..0x3000 => format!(" {:016x}", 0xabcd_0000 + (at - 0x1000) / 8),
            _ => " ----------------".to_string(),
        };
        format!("{what} {at:#018x}:{}", (0..4).map(|n| word(at + n * 8)).collect::<String>())
    };
    // Four words before PC's and four from there on: the page below is not mapped.
    assert_eq!(of("code"), [&row("code", 0xff0), &row("code", 0x1010)]);
    // 32 words from SP on; the last lie behind what is mapped.
    assert_eq!(
        of("stack"),
        (0..8).map(|n| row("stack", 0x2f40 + n * 32)).collect::<Vec<_>>().iter().collect::<Vec<_>>()
    );
}

/// A VM that is to start again when it crashes does so, but not for ever.
#[test]
fn who_crashes_again_and_again_is_left_alone() {
    for (on_crash, most) in [(&b"restart\0"[..], 10), (b"stop\0", 0)] {
        let model = model();
        let cpu = Cpu::new(&model);
        let host = host_on(&model, &BoardPlan { keys: &[("on-crash", on_crash)], ..BoardPlan::new(1, &["one"]) });
        let vm = &host.fleet.vms[0];
        host.begin(&cpu, vm);
        let crashes = (1..100).find(|_| {
            host.stop(&cpu, vm, Cause::Crash("it fell"));
            while host.settle(&cpu) {}
            matches!(vm.life.state(), State::Ended(_))
        });
        assert_eq!(crashes, Some(most + 1));
    }
}
