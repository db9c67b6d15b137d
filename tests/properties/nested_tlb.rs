//! A hypervisor's TLBI for its guest, and its AT: which translations are forgotten, and what is answered where a table of the
//! guest's own is missing. Encodings are those of the Arm ARM, C5.4 and C5.5.

use crate::exits::{
    LEAF, VIRTUAL, begin, eret, leave, map_outer, model, outer_tables, ram, runs_guest, turn_on, write,
};
use flatland::addr::{Addr, CpuId, Size};
use flatland::arm::desc::{Desc, MemType};
use flatland::arm::el1::El1;
use flatland::arm::esr::ec;
use flatland::arm::exception::psr;
use flatland::devices::{FLASH_BANK, UART};
use flatland::frames::{HYPERVISOR, Use};
use flatland::host::Here;
use flatland::machine::Machine;
use flatland::next::Next;
use flatland::vcpu::Vcpu;
use flatland::vcpu::nested::{hcr, page};
use harness::cpu::{BoardPlan, Cpu, Op, Outcome, host, shown, try_host};

/// The guest's pages that are looked at.
const PAGES: std::ops::Range<u64> = 64..80;

/// SYS with X0.
fn sys(cpu: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, parts: [u64; 4], value: u64) {
    let [op1, crn, crm, op2] = parts;
    vcpu.registers.x[0] = value;
    let at = vcpu.registers.pc;
    assert_eq!(
        leave(cpu, here, vcpu, ec::SYSREG, 1 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1),
        Next::Resume
    );
    assert_eq!(vcpu.registers.pc, at + 4, "{parts:?} is done");
}

/// Enters the guest, whose stage 1 is off, and has it read a page. How many exits that took, and what came of it.
fn try_read(cpu: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, page: u64) -> (u32, Option<(Outcome, Next)>) {
    eret(cpu, here, vcpu, 0x1000, psr::EL1H);
    assert!(runs_guest(vcpu));
    cpu.set(El1::Sctlr, 0);
    cpu.insist(here, vcpu, Op::Read, page << 12)
}

/// The same of a page that it may read, and back to its hypervisor. How many exits it took.
fn read(cpu: &Cpu<'_>, here: Here<'_>, vcpu: &mut Vcpu, page: u64) -> u32 {
    let (exits, end) = try_read(cpu, here, vcpu, page);
    assert!(matches!(end, Some((Outcome::Done(_), _))), "page {page}: {end:?}");
    // HVC brings its hypervisor back.
    let _ = leave(cpu, here, vcpu, ec::HVC64, 0);
    assert!(!runs_guest(vcpu));
    exits
}

#[test]
fn a_tlbi_by_ipa_forgets_the_pages_it_names_and_no_others() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    for page in PAGES {
        map_outer(&cpu, here, page, ram(100 + page), 7);
    }
    begin(&cpu, here, vcpu, VIRTUAL);
    // A range: BaseADDR, NUM, SCALE, TG, the first address and its end.
    let range = |base: u64, num: u64, scale: u64, tg: u64| base | num << 39 | scale << 44 | tg << 46;
    let first = 66_u64;
    let cases = [
        // IPAS2E1IS, IPAS2LE1IS, IPAS2E1OS, IPAS2E1, IPAS2LE1OS, IPAS2LE1: one page. TTL does not matter.
        ([4, 8, 0, 1], first, 66..67),
        ([4, 8, 0, 5], first | 0b0111 << 44, 66..67),
        ([4, 8, 4, 0], first, 66..67),
        ([4, 8, 4, 1], first, 66..67),
        ([4, 8, 4, 4], first, 66..67),
        ([4, 8, 4, 5], first, 66..67),
        // RIPAS2E1IS, RIPAS2LE1IS, RIPAS2E1, RIPAS2E1OS, RIPAS2LE1, RIPAS2LE1OS: (NUM + 1) * 2^(5 * SCALE + 1) granules.
        ([4, 8, 0, 2], range(first, 0, 0, 1), 66..68),
        ([4, 8, 0, 6], range(first, 1, 0, 1), 66..70),
        ([4, 8, 4, 2], range(first, 2, 0, 1), 66..72),
        ([4, 8, 4, 3], range(first, 0, 1, 1), 66..80),
        ([4, 8, 4, 6], range(first, 3, 0, 1), 66..74),
        ([4, 8, 4, 7], range(first, 0, 0, 1), 66..68),
        ([4, 8, 0, 2], range(first | 1 << 37, 0, 0, 1), 66..68),
        // 16 KiB and 64 KiB: BaseADDR is in these.
        ([4, 8, 0, 2], range(17, 0, 0, 2), 68..76),
        ([4, 8, 0, 2], range(4, 0, 0, 3), 64..80),
        // Elsewhere; and all.
        ([4, 8, 0, 1], 1000, 0..0),
        ([4, 8, 0, 2], range(1000, 0, 0, 1), 0..0),
        ([4, 8, 0, 2], range(0, 1, 1, 1), 64..80),
    ];
    for (parts, value, forgotten) in cases {
        let _ = PAGES.map(|page| read(&cpu, here, vcpu, page)).sum::<u32>();
        assert_eq!(PAGES.map(|page| read(&cpu, here, vcpu, page)).sum::<u32>(), 0, "all are there");
        sys(&cpu, here, vcpu, parts, value);
        for page in PAGES {
            let exits = read(&cpu, here, vcpu, page);
            assert_eq!(
                exits > 0,
                forgotten.contains(&page),
                "page {page} after {parts:?} of {value:#x}: {exits} exits"
            );
        }
    }
}

#[test]
fn a_tlbi_of_a_vmid_is_for_that_alone() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    map_outer(&cpu, here, 64, ram(164), 7);
    begin(&cpu, here, vcpu, VIRTUAL);
    let vttbr = |vmid: u64| vmid << 48 | ram(16);
    let visit = |vcpu: &mut Vcpu, vmid: u64| {
        vcpu.nested_mut().unwrap().write(&cpu, page::VTTBR, vttbr(vmid));
        read(&cpu, here, vcpu, 64)
    };
    // By whose VTTBR_EL2, which TLBI, and whether those of VMID 1 and 2 are forgotten.
    let cases = [
        // VMALLS12E1IS, VMALLS12E1OS, VMALLS12E1; IPAS2E1IS.
        (1, [4, 8, 3, 6], 0, [true, false]),
        (2, [4, 8, 3, 6], 0, [false, true]),
        (2, [4, 8, 1, 6], 0, [false, true]),
        (1, [4, 8, 7, 6], 0, [true, false]),
        (2, [4, 8, 0, 1], 64, [false, true]),
        (7, [4, 8, 0, 1], 64, [false, false]),
        // ALLE1IS, ALLE1OS, ALLE1.
        (1, [4, 8, 3, 4], 0, [true, true]),
        (7, [4, 8, 1, 4], 0, [true, true]),
        (2, [4, 8, 7, 4], 0, [true, true]),
        // EL2's own, VAE2IS and ALLE2; and the guest's stage 1, VMALLE1IS, VAE1IS: what stage 2 says stays.
        (1, [4, 8, 3, 1], 64, [false, false]),
        (1, [4, 8, 7, 0], 0, [false, false]),
        (1, [0, 8, 3, 0], 0, [false, false]),
        (1, [0, 8, 3, 1], 64, [false, false]),
    ];
    for (vmid, parts, value, forgotten) in cases {
        let _ = (visit(vcpu, 1), visit(vcpu, 2));
        assert_eq!((visit(vcpu, 1), visit(vcpu, 2)), (0, 0));
        vcpu.nested_mut().unwrap().write(&cpu, page::VTTBR, vttbr(vmid));
        sys(&cpu, here, vcpu, parts, value);
        let exits = [1, 2].map(|vmid| visit(vcpu, vmid) > 0);
        assert_eq!(exits, forgotten, "by VMID {vmid}: {parts:?} of {value:#x}");
    }
}

/// A TLBI of stage 1 by a hypervisor whose guest has a stage 2 is for the guest's VMID alone; without, both have the VM's.
#[test]
fn a_tlbi_of_stage_1_is_for_the_vmid_that_the_guest_has() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    for (value, forgotten) in [(VIRTUAL, 0), (VIRTUAL & !hcr::VM, 1)] {
        begin(&cpu, here, vcpu, value);
        let before = model.tally();
        // VMALLE1IS. There is no shadow yet.
        sys(&cpu, here, vcpu, [0, 8, 3, 0], 0);
        let after = model.tally();
        assert_eq!((after.vmids - before.vmids, after.leaves, after.alls), (forgotten, before.leaves, before.alls));
    }
}

#[test]
fn a_translation_is_answered_though_nothing_of_the_guests_tables_is_in_the_shadow() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    // The guest's tables are its pages 0 to 2, which are the hypervisor's 20 to 22: VA 5 << 12 is its page 64.
    for n in 0..3 {
        map_outer(&cpu, here, n, ram(20 + n), 7);
    }
    map_outer(&cpu, here, 64, ram(164), 7);
    write(&cpu, here, ram(20), 1 << 12 | 3);
    write(&cpu, here, ram(21), 2 << 12 | 3);
    write(&cpu, here, ram(22) + 8 * 5, 64 << 12 | LEAF);
    for round in 0..3 {
        begin(&cpu, here, vcpu, VIRTUAL);
        // The guest's registers, from EL2: its stage 1 on.
        let (tcr, sctlr) = {
            turn_on(&cpu, 0);
            (cpu.get(El1::Tcr), cpu.get(El1::Sctlr))
        };
        begin(&cpu, here, vcpu, VIRTUAL);
        let nested = vcpu.nested_mut().unwrap();
        nested.write(&cpu, page::TTBR0, 0);
        nested.write(&cpu, page::TCR, tcr);
        nested.write(&cpu, page::SCTLR, sctlr);
        // ALLE1; then AT S12E1R and, by its stage 1 alone, AT S1E1R.
        sys(&cpu, here, vcpu, [4, 8, 7, 4], 0);
        sys(&cpu, here, vcpu, [4, 7, 8, 4], 5 << 12 | 0x77);
        assert_eq!(cpu.get(El1::Par) & 0xffff_ffff_f001, ram(164), "round {round}");
        sys(&cpu, here, vcpu, [0, 7, 8, 0], 5 << 12);
        assert_eq!(cpu.get(El1::Par) & 0xffff_ffff_f001, 64 << 12, "round {round}");
        // Where its hypervisor has taken a table away, stage 2 is at fault on a walk of stage 1: F, PTW, S, a translation fault.
        map_outer(&cpu, here, 1, ram(21), 0);
        write(&cpu, here, ram(18) + 8, 0);
        sys(&cpu, here, vcpu, [4, 8, 7, 4], 0);
        sys(&cpu, here, vcpu, [4, 7, 8, 4], 5 << 12);
        let par = cpu.get(El1::Par);
        assert_eq!((par & 1, par >> 8 & 3, par >> 1 & 0x3f), (1, 0b11, 0b00_0111), "{par:#x}");
        map_outer(&cpu, here, 1, ram(21), 7);
        // And where the page itself is gone, not on a walk.
        write(&cpu, here, ram(18) + 8 * 64, 0);
        sys(&cpu, here, vcpu, [4, 8, 7, 4], 0);
        sys(&cpu, here, vcpu, [4, 7, 8, 4], 5 << 12);
        let par = cpu.get(El1::Par);
        assert_eq!((par & 1, par >> 8 & 3, par >> 1 & 0x3f), (1, 0b10, 0b00_0111), "{par:#x}");
        map_outer(&cpu, here, 64, ram(164), 7);
        // Its own fault is the guest's: neither.
        sys(&cpu, here, vcpu, [4, 7, 8, 4], 6 << 12);
        assert_eq!((cpu.get(El1::Par) & 1, cpu.get(El1::Par) >> 8 & 3), (1, 0));
        // The hypervisor is where it was, with its own registers.
        assert!(!runs_guest(vcpu) && cpu.hcr() & hcr::VM != 0);
    }
}

#[test]
fn memory_of_a_guest_is_as_weak_as_the_weaker_of_both_stages() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    begin(&cpu, here, vcpu, VIRTUAL);
    // MemAttr of the hypervisor's descriptors (Arm ARM D8.6.6); ours is write-back.
    for attr in 0..16 {
        let word = ram(170) | LEAF | attr << 2 | 3 << 6;
        write(&cpu, here, ram(18) + 8 * 70, word);
        sys(&cpu, here, vcpu, [4, 8, 7, 4], 0);
        let (_, end) = try_read(&cpu, here, vcpu, 70);
        assert!(matches!(end, Some((Outcome::Done(_), _))), "MemAttr {attr:#b}: {end:?}");
        let Some((_, Desc::Leaf(_, found))) = model.translation(CpuId(0), Addr::new(70 << 12)) else {
            panic!("it is there")
        };
        let expected = match attr {
            0b0000..=0b0011 => MemType::Device,
            0b1111 => MemType::Normal,
            _ => MemType::NonCacheable,
        };
        assert_eq!(found.mem, expected, "MemAttr {attr:#b}");
        let _ = leave(&cpu, here, vcpu, ec::HVC64, 0);
    }
}

#[test]
fn a_guests_guest_reaches_a_device_that_its_hypervisor_maps() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    begin(&cpu, here, vcpu, VIRTUAL);
    map_outer(&cpu, here, 90, UART, 3);
    eret(&cpu, here, vcpu, 0x1000, psr::EL1H);
    assert!(runs_guest(vcpu));
    // PCellID0 to PCellID3 of the UART, by words: ISV, SAS, SRT; a translation fault at whichever level.
    for (n, (id, level)) in [0x0d, 0xf0, 0x05, 0xb1].into_iter().zip([3, 1, 2, 3]).enumerate() {
        let at = (90 << 12) + 0xff0 + n as u64 * 4;
        (vcpu.registers.far, vcpu.registers.hpfar, vcpu.registers.pc) = (at, at >> 12 << 4, 0x1000);
        assert_eq!(leave(&cpu, here, vcpu, ec::DABT_LOWER, 1 << 24 | 2 << 22 | 5 << 16 | 0b100 | level), Next::Resume);
        assert!(runs_guest(vcpu), "its hypervisor is not concerned");
        assert_eq!((vcpu.registers.x[5], vcpu.registers.pc), (id, 0x1004), "{at:#x}");
    }
}

#[test]
fn a_descriptor_that_is_none_at_its_level_is_a_fault_for_the_hypervisor() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    begin(&cpu, here, vcpu, VIRTUAL);
    // Bits 1:0 of a descriptor of level 3: a page is 0b11 (Arm ARM D8.3.2).
    for low in 0..4 {
        write(&cpu, here, ram(18) + 8 * 70, ram(170) & !3 | LEAF & !3 | 0b1111 << 2 | 3 << 6 | low);
        sys(&cpu, here, vcpu, [4, 8, 7, 4], 0);
        let (_, end) = try_read(&cpu, here, vcpu, 70);
        assert_eq!(matches!(end, Some((Outcome::Done(_), _))), low == 3, "{low:#b}: {end:?}");
        assert_eq!(runs_guest(vcpu), low == 3);
        if low == 3 {
            let _ = leave(&cpu, here, vcpu, ec::HVC64, 0);
        } else {
            // ESR_EL2: a translation fault at level 3.
            assert_eq!(cpu.get(El1::Esr) & 0x3f, 0b00_0111, "{low:#b}");
        }
    }
}

/// What has nothing to do with stage 2 is the guest's own to know, unless its hypervisor has a stage 2 for it or takes all of its
/// exceptions.
#[test]
fn an_external_abort_is_for_the_guest_where_its_hypervisor_has_no_part_in_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    for (value, is_guests) in [(VIRTUAL & !hcr::VM, true), (VIRTUAL, false)] {
        begin(&cpu, here, vcpu, value);
        eret(&cpu, here, vcpu, 0x1000, psr::EL1H);
        // A data abort, external, not on a walk.
        let _ = leave(&cpu, here, vcpu, ec::DABT_LOWER, 0b01_0000);
        assert_eq!(runs_guest(vcpu), is_guests, "{value:#x}");
    }
}

/// Whoever has shadow tables checked gets to know how many leaves there are, and that none is wrong.
#[test]
fn shadows_are_checked_where_that_is_wanted() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    for page in PAGES {
        map_outer(&cpu, here, page, ram(page + 100), 7);
    }
    begin(&cpu, here, vcpu, VIRTUAL);
    let summed = || {
        let _ = shown(here.host);
        here.host.sum_up();
        shown(here.host)
    };
    assert!(!summed().contains("shadows:"), "there was none");
    for page in PAGES {
        read(&cpu, here, vcpu, page);
    }
    for checks in [false, true] {
        here.host.pressure.overcommit.lock().checks = checks;
        cpu.pass(crate::pressure::SECOND);
        crate::pressure::manage(&cpu, here.host);
        let checked = here.host.pressure.overcommit.lock().checked;
        assert_eq!((checked.leaves >= 16, checked.wrong), (checks, 0), "{checked:?}");
    }
    let sum = summed();
    let filled = sum.split_once("shadows: filled=").and_then(|(_, rest)| rest.split_once(' ')?.0.parse::<u64>().ok());
    assert!(filled >= Some(16) && sum.contains(" wrong=0 "), "{sum}");
}

/// Flash is for a hypervisor that starts in it: to its guest there is nothing.
#[test]
fn a_guests_guest_finds_no_flash() {
    let model = model();
    let cpu = Cpu::new(&model);
    let plan = BoardPlan { nested: true, ..BoardPlan::new(1, &["one"]) };
    let host = try_host(&model, &plan, &[("flash", b"code"), ("flash-variables", &[0x5a; 5000])]).unwrap();
    let here = super::exits::here(host);
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    begin(&cpu, here, vcpu, VIRTUAL);
    map_outer(&cpu, here, 90, FLASH_BANK, 7);
    for op in [Op::Read, Op::Write] {
        eret(&cpu, here, vcpu, 0x1000, psr::EL1H);
        cpu.set(El1::Sctlr, 0);
        let (exits, end) = cpu.insist(here, vcpu, op, 90 << 12);
        assert!(exits < 4 && matches!(end, Some((Outcome::Exit, Next::Resume))), "{op:?}: {exits}, {end:?}");
        // It has taken an external abort of its own.
        assert!(runs_guest(vcpu));
        assert_eq!(cpu.get(El1::Esr) & 0x3f, 0b01_0000, "{op:?}");
        let _ = leave(&cpu, here, vcpu, ec::HVC64, 0);
    }
}

/// A walk of its guest's that comes to what its hypervisor has mapped as a device is a permission fault where that is protected (HCR_EL2.PTW),
/// and else finds what is there.
#[test]
fn tables_of_a_guest_are_no_device_where_that_is_protected() {
    let (ptw, device, normal) = (1 << 2, 0b0001, 0b1111);
    for (protects, attr, is_walk, faults) in [
        (ptw, device, true, true),
        (ptw, device, false, false),
        (ptw, normal, true, false),
        (0, device, true, false),
        (0, normal, true, false),
    ] {
        let model = model();
        let cpu = Cpu::new(&model);
        let here = super::exits::here(host(&model, true, false));
        let mut vcpu = here.slot.vcpu.lock();
        cpu.load(here, &vcpu);
        let vcpu = &mut *vcpu;
        outer_tables(&cpu, here);
        begin(&cpu, here, vcpu, VIRTUAL | protects);
        write(&cpu, here, ram(18) + 8 * 70, ram(170) | LEAF | attr << 2 | 3 << 6);
        eret(&cpu, here, vcpu, 0x1000, psr::EL1H);
        (vcpu.registers.far, vcpu.registers.hpfar) = (0x8000, 70 << 4);
        // A read; a translation fault at level 3; on a walk of stage 1 (S1PTW).
        let iss = if is_walk { 1 << 7 } else { 0 } | 0b00_0111;
        let mut next = Next::Resume;
        for _ in 0..8 {
            if runs_guest(vcpu) {
                next = leave(&cpu, here, vcpu, ec::DABT_LOWER, iss);
            }
        }
        assert_eq!((next, runs_guest(vcpu)), (Next::Resume, !faults), "{protects:#x}, {attr:#b}, a walk {is_walk}");
        if faults {
            // ESR_EL2: the same with a permission fault at the level of the hypervisor's leaf; HPFAR_EL2 says which page.
            assert_eq!(cpu.get(El1::Esr) & 0xff, 1 << 7 | 0b00_1111);
            assert_eq!(vcpu.nested().unwrap().own(&cpu, flatland::vcpu::nested::Own::Hpfar), 70 << 4);
        }
    }
}

/// Where a frame is wanted and the pool has none, tables of shadows that no vCPU is in are given back.
#[test]
fn shadows_that_nobody_is_in_are_given_back_where_frames_are_wanted() {
    let model = model();
    let cpu = Cpu::new(&model);
    let here = super::exits::here(host(&model, true, false));
    let mut vcpu = here.slot.vcpu.lock();
    cpu.load(here, &vcpu);
    let vcpu = &mut *vcpu;
    outer_tables(&cpu, here);
    map_outer(&cpu, here, 64, ram(164), 7);
    begin(&cpu, here, vcpu, VIRTUAL);
    read(&cpu, here, vcpu, 64);
    let before = here.vm.memory.lock().resident();
    assert!(before.shadows > 0);
    let mut hoard = Vec::new();
    while let Some(frame) = here.host.pool.lock().take(Size::Page, HYPERVISOR, Use::Hypervisor) {
        hoard.push(std::mem::ManuallyDrop::new(frame));
    }
    assert_eq!(here.host.starve(&cpu, here.vm), Next::Resume);
    assert_eq!(here.vm.memory.lock().resident().shadows, 0);
    assert!(here.host.pool.lock().counts().free >= before.shadows);
}
