//! Registers and scenes as conformance suites look at them, and accesses nobody should make.

use flatland::addr::{IntId, VcpuId};
use flatland::arm::gic::{ListRegister, Mask, SgiRegister, Version, gicd, gicr, hcr};
use flatland::vgic::{Line, Lists, Vgic};
use harness::effort;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

const CPU0: VcpuId = VcpuId(0);
const CPU1: VcpuId = VcpuId(1);
const OPEN: Mask = Mask { priority: 0xf8, groups: 3 };

fn put(vgic: &mut Vgic, offset: u64, size: u8, value: u64) {
    let _ = vgic.dist_write(CPU0, offset, size, value);
}

fn get(vgic: &Vgic, offset: u64) -> u64 {
    vgic.dist_read(CPU0, offset, 4)
}

/// Ends a match arm, whatever came out.
fn done<T>(_: T) {}

/// Takes the only pending list entry, of a GICv2.
fn take(lists: &mut Lists) -> ListRegister {
    let mut found = None;
    for lr in &mut lists.lr[..usize::from(lists.used)] {
        let entry = ListRegister::from_v2(*lr as u32);
        if entry.pending {
            *lr = ListRegister { pending: false, active: true, ..entry }.v2().into();
            assert_eq!(found.replace(entry), None);
        }
    }
    found.expect("something pending")
}

/// Ends whatever is active.
fn end(lists: &mut Lists) {
    for lr in &mut lists.lr[..usize::from(lists.used)] {
        *lr = ListRegister { active: false, ..ListRegister::from_v2(*lr as u32) }.v2().into();
    }
}

fn byte_access(vgic: &mut Vgic, base: u64, mask: u32) {
    put(vgic, base, 4, 0xff7f_bfff);
    assert_eq!(get(vgic, base), u64::from(0xff7f_bfff & mask));
    assert_eq!(vgic.dist_read(CPU0, base + 1, 1), u64::from(0xbf & mask >> 8));
    put(vgic, base + 1, 1, 0x78);
    assert_eq!(get(vgic, base), u64::from(0xff7f_78ff & mask));
    assert_eq!(vgic.dist_read(CPU0, base + 2, 2), u64::from(0xff7f & mask >> 16));
    assert_eq!(vgic.dist_read(CPU0, base + 1, 2), 0, "misaligned");
    assert_eq!(vgic.dist_read(CPU0, base, 8), 0, "too wide");
}

#[test]
fn a_gicv2_says_what_it_is_and_does_not_change_its_mind() {
    let mut vgic = Vgic::new(Version::V2, 3, 64, 4);
    assert_eq!(get(&vgic, gicd::TYPER), 2 << 5 | 2);
    assert_eq!(get(&vgic, 0xfe8) >> 4 & 15, 2);
    for offset in [gicd::TYPER, gicd::IIDR, 0xfe8, 0x800, 0xc00, 0x1000, 0x6100] {
        let before = get(&vgic, offset);
        put(&mut vgic, offset, 4, !before);
        assert_eq!(get(&vgic, offset), before, "{offset:#x}");
    }
    put(&mut vgic, gicd::CTLR, 4, u64::MAX);
    assert_eq!(get(&vgic, gicd::CTLR), 3);
    assert_eq!(get(&vgic, 0x100), 0xffff, "SGIs are always enabled");
    put(&mut vgic, 0x180, 4, 0xffff);
    assert_eq!(get(&vgic, 0x100), 0xffff);
    assert_eq!(get(&vgic, 0xc00), 0xaaaa_aaaa, "SGIs are edge-triggered");
    put(&mut vgic, 0xc08, 4, 0xffff_ffff);
    assert_eq!(get(&vgic, 0xc08), 0xaaaa_aaaa);
}

#[test]
fn priorities_and_targets_take_bytes_and_end_where_the_interrupts_end() {
    for version in [Version::V2, Version::V3] {
        let mut vgic = Vgic::new(version, 3, 64, 4);
        byte_access(&mut vgic, 0x420, 0xf8f8_f8f8);
        put(&mut vgic, 0x45c, 4, 0xffff_ffff);
        assert_eq!(get(&vgic, 0x45c), 0xf8f8_f8f8);
        put(&mut vgic, 0x460, 4, 0xffff_ffff);
        assert_eq!(get(&vgic, 0x460), 0);
    }
    let mut vgic = Vgic::new(Version::V2, 3, 64, 4);
    byte_access(&mut vgic, 0x820, 0x0707_0707);
    put(&mut vgic, 0x860, 4, 0xffff_ffff);
    assert_eq!(get(&vgic, 0x860), 0);
    assert_eq!(vgic.dist_read(CPU1, 0x800, 4), 0x0202_0202);
    let mut alone = Vgic::new(Version::V2, 1, 64, 4);
    put(&mut alone, 0x820, 4, 0xffff_ffff);
    assert_eq!(get(&alone, 0x820) | get(&alone, 0x800), 0);
}

#[test]
fn a_gicv3_says_what_it_is() {
    let mut vgic = Vgic::new(Version::V3, 18, 64, 4);
    put(&mut vgic, gicd::CTLR, 4, 0x8000_0002);
    assert_eq!(get(&vgic, gicd::CTLR), 0x52);
    assert_eq!(get(&vgic, gicd::TYPER), 2 | 9 << 19 | 1 << 24 | 1 << 25);
    assert_eq!(get(&vgic, 0xffe8) >> 4 & 15, 3);
    assert_eq!(get(&vgic, 0x6000), 0);
    // Private interrupts are in the redistributor only.
    put(&mut vgic, 0x100, 4, 0xffff_ffff);
    assert_eq!(get(&vgic, 0x100), 0);
    assert_eq!(vgic.redist_read(CPU0, 0x1_0100, 4), 0);
    let last = VcpuId(17);
    assert_eq!(vgic.redist_read(last, gicr::TYPER, 8), 0x101 << 32 | 17 << 8 | 1 << 4);
    assert_eq!(vgic.redist_read(last, gicr::TYPER + 4, 4), 0x101);
    assert_eq!(vgic.redist_read(VcpuId(16), gicr::TYPER, 8), 0x100 << 32 | 16 << 8);
    assert_eq!(vgic.redist_read(last, 0xffe8, 4) >> 4 & 15, 3);
    assert_eq!(vgic.redist_read(last, gicr::WAKER, 4), 6);
    let _ = vgic.redist_write(last, gicr::WAKER, 4, 0);
    assert_eq!(vgic.redist_read(last, gicr::WAKER, 4), 0);
    assert_eq!(vgic.redist_size(), 18 << 17);
    // Routes, as a whole and in halves; bit 31 asks for any one CPU, which there is not.
    put(&mut vgic, 0x6100, 8, 0x12_8000_0101);
    assert_eq!(vgic.dist_read(CPU0, 0x6100, 8), 0x12_0000_0101);
    put(&mut vgic, 0x6104, 4, 0);
    assert_eq!(vgic.dist_read(CPU0, 0x6100, 8), 0x101);
    put(&mut vgic, gicd::CTLR, 4, 1);
    put(&mut vgic, 0x104, 4, 1);
    assert!(vgic.dist_write(CPU0, 0x204, 4, 1).contains(last));
}

#[test]
fn sources_of_one_sgi_come_one_after_the_other() {
    let mut vgic = Vgic::new(Version::V2, 3, 32, 4);
    put(&mut vgic, gicd::CTLR, 4, 1);
    let mut lists = Lists::new();
    vgic.fill(CPU1, &mut lists, OPEN);
    for from in [2, 0] {
        assert!(vgic.dist_write(VcpuId(from), gicd::SGIR, 4, 2 << 16 | 7).contains(CPU1));
    }
    assert_eq!(vgic.dist_read(CPU1, gicd::SPENDSGIR + 7, 1), 5);
    assert_eq!(vgic.dist_read(CPU1, gicd::CPENDSGIR + 4, 4), 5 << 24);
    for from in [0, 2] {
        let _ = vgic.refill(CPU1, &mut lists, OPEN);
        let taken = take(&mut lists);
        assert_eq!((taken.intid, taken.source, taken.eoi), (7, from, from == 0));
        let _ = vgic.refill(CPU1, &mut lists, OPEN);
        assert_eq!(ListRegister::from_v2(lists.lr[0] as u32).source, from, "the end must find the source");
        end(&mut lists);
    }
    let _ = vgic.fold(CPU1, &mut lists);
    assert!(!vgic.deliverable(CPU1, OPEN));
    let _ = vgic.dist_write(CPU1, gicd::SPENDSGIR + 3, 1, 0xff);
    assert_eq!(vgic.dist_read(CPU1, gicd::SPENDSGIR, 4), 7 << 24);
    let _ = vgic.dist_write(CPU1, gicd::CPENDSGIR, 4, 3 << 24);
    assert_eq!(vgic.dist_read(CPU1, gicd::SPENDSGIR + 3, 1), 4);
    assert_eq!(vgic.dist_read(CPU1, 0x200, 4), 8);
}

#[test]
fn a_handler_may_clear_the_active_state_itself() {
    let mut vgic = Vgic::new(Version::V2, 1, 32, 4);
    put(&mut vgic, gicd::CTLR, 4, 1);
    let mut lists = Lists::new();
    for _ in 0..2 {
        put(&mut vgic, gicd::SGIR, 4, 2 << 24 | 1);
        let _ = vgic.refill(CPU0, &mut lists, OPEN);
        assert_eq!(take(&mut lists).intid, 1);
        let _ = vgic.fold(CPU0, &mut lists);
        assert_eq!(get(&vgic, 0x300), 2);
        put(&mut vgic, 0x380, 4, 2);
        assert_eq!(get(&vgic, 0x300), 0);
        vgic.fill(CPU0, &mut lists, OPEN);
        assert_eq!(lists.used, 0);
    }
}

#[test]
fn sgis_of_a_gicv3_are_for_one_group_and_for_those_named() {
    let mut vgic = Vgic::new(Version::V3, 20, 32, 4);
    put(&mut vgic, gicd::CTLR, 4, 3);
    for id in 0..20 {
        let _ = vgic.redist_write(VcpuId(id), 0x1_0100, 4, 0xffff);
        let _ = vgic.redist_write(VcpuId(id), 0x1_0080, 4, 0xff00);
    }
    let to = |vgic: &mut Vgic, register, value| vgic.sgi1r(CPU1, register, value).map(|v| v.0).collect::<Vec<_>>();
    assert_eq!(to(&mut vgic, SgiRegister::Sgi1r, 9 << 24 | 1 << 16 | 0b1010), [17, 19]);
    assert_eq!(to(&mut vgic, SgiRegister::Sgi1r, 1 << 24 | 1), []);
    assert_eq!(to(&mut vgic, SgiRegister::Sgi0r, 1 << 24 | 1), [0]);
    assert_eq!(to(&mut vgic, SgiRegister::Asgi1r, 2 << 24 | 1), [0]);
    assert_eq!(to(&mut vgic, SgiRegister::Sgi1r, 1 << 44 | 9 << 24 | 1), []);
    assert_eq!(to(&mut vgic, SgiRegister::Sgi1r, 1 << 40 | 12 << 24).len(), 19);
    assert_eq!(vgic.redist_read(CPU1, 0x1_0200, 4), 0);
}

#[test]
fn an_edge_is_listed_active_and_pending_only_at_the_priority_it_was_taken_at() {
    let mut vgic = Vgic::new(Version::V2, 1, 32, 4);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 1), (0xc08, 2), (0x204, 1)] {
        put(&mut vgic, offset, 4, value);
    }
    let mut lists = Lists::new();
    vgic.fill(CPU0, &mut lists, OPEN);
    assert_eq!(take(&mut lists).intid, 32);
    for (priority, pending) in [(0, true), (0x80, false)] {
        put(&mut vgic, 0x420, 1, priority);
        assert!(vgic.pend(CPU0, IntId(32)).contains(CPU0));
        let _ = vgic.refill(CPU0, &mut lists, OPEN);
        let entry = ListRegister::from_v2(lists.lr[0] as u32);
        assert_eq!((entry.active, entry.pending, entry.eoi), (true, pending, !pending));
    }
}

#[test]
fn an_edge_is_not_listed_active_and_pending_while_others_have_no_place() {
    let mut vgic = Vgic::new(Version::V2, 1, 32, 2);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 7), (0xc08, 0x2a), (0x204, 1)] {
        put(&mut vgic, offset, 4, value);
    }
    let mut lists = Lists::new();
    vgic.fill(CPU0, &mut lists, OPEN);
    assert_eq!(take(&mut lists).intid, 32);
    for (more, both) in [(1, true), (2, true), (4, false)] {
        put(&mut vgic, 0x204, 4, more);
        let _ = vgic.refill(CPU0, &mut lists, OPEN);
        let entry = ListRegister::from_v2(lists.lr[0] as u32);
        assert_eq!((entry.intid, entry.active, entry.pending, entry.eoi), (32, true, both, !both));
        assert_eq!(lists.hcr & hcr::NPIE != 0, !both);
    }
}

#[test]
fn a_timer_carries_its_physical_interrupt_until_the_guest_is_done() {
    let mut vgic = Vgic::new(Version::V3, 1, 32, 1);
    let timer = IntId(27);
    vgic.map_hw(CPU0, timer, IntId(26));
    put(&mut vgic, gicd::CTLR, 4, 3);
    let _ = vgic.redist_write(CPU0, 0x1_0100, 4, 1 << 27);
    assert!(!vgic.hw_active(CPU0, timer));
    assert!(vgic.set_line(CPU0, timer, Line::High).contains(CPU0));
    assert!(vgic.hw_active(CPU0, timer));
    let mut lists = Lists::new();
    vgic.fill(CPU0, &mut lists, OPEN);
    assert_eq!(lists.lr[0], 1 << 62 | 1 << 61 | 26 << 32 | 27);
    // Taken; folded; still the physical one's to end.
    lists.lr[0] ^= 3 << 62;
    let _ = vgic.refill(CPU0, &mut lists, OPEN);
    assert!(vgic.hw_active(CPU0, timer));
    assert_eq!(lists.lr[0], 1 << 63 | 1 << 61 | 26 << 32 | 27);
    // Ended in hardware, and it comes again before anybody looked at the lists.
    lists.lr[0] ^= 1 << 63;
    assert!(vgic.set_line(CPU0, timer, Line::High).contains(CPU0));
    let _ = vgic.refill(CPU0, &mut lists, OPEN);
    assert_eq!(lists.lr[0] >> 62, 1);
    // The timer was switched off before it was taken.
    let _ = vgic.fold(CPU0, &mut lists);
    let _ = vgic.set_line(CPU0, timer, Line::Low);
    assert!(!vgic.hw_active(CPU0, timer) && !vgic.deliverable(CPU0, OPEN));
}

#[test]
fn what_wakes_depends_on_priority_and_groups() {
    let mut vgic = Vgic::new(Version::V2, 1, 32, 4);
    put(&mut vgic, gicd::CTLR, 4, 1);
    put(&mut vgic, 0x104, 4, 2);
    put(&mut vgic, 0x421, 1, 0x80);
    assert!(!vgic.set_line(CPU0, IntId(33), Line::High).is_empty());
    assert!(vgic.needs_fill(CPU0));
    for (priority, groups, wakes) in [(0x88, 1, true), (0x80, 1, false), (0x88, 2, false), (0xff, 3, true)] {
        assert_eq!(vgic.deliverable(CPU0, Mask { priority, groups }), wakes, "{priority:#x} {groups}");
    }
    put(&mut vgic, gicd::CTLR, 4, 2);
    assert!(!vgic.deliverable(CPU0, OPEN));
    let shown = vgic.view(CPU0).to_string();
    assert!(shown.contains("vcpu 0: groups 10") && shown.contains("pending 00000002"), "{shown}");
    assert!(shown.contains("enabled 00000002") && shown.contains("active 00000000"), "{shown}");
}

/// Both groups are on; what the CPU interface does not let through of them wakes nobody.
#[test]
fn a_group_that_is_closed_wakes_nobody() {
    let mut vgic = Vgic::new(Version::V3, 1, 32, 4);
    put(&mut vgic, gicd::CTLR, 4, 3);
    // SPI 32 in group 0, 33 in group 1.
    put(&mut vgic, 0x84, 4, 2);
    put(&mut vgic, 0x104, 4, 3);
    for (pending, groups, wakes) in
        [(1, 1, true), (1, 2, false), (2, 1, false), (2, 2, true), (3, 1, true), (3, 2, true), (3, 0, false)]
    {
        put(&mut vgic, 0x284, 4, 3);
        put(&mut vgic, 0x204, 4, pending);
        let mask = Mask { priority: 0xf8, groups };
        assert_eq!(vgic.deliverable(CPU0, mask), wakes, "{pending:#b} through {groups:#b}");
    }
}

#[test]
fn a_reset_forgets_everything_but_the_mapping() {
    let mut vgic = Vgic::new(Version::V3, 2, 64, 4);
    vgic.map_hw(CPU1, IntId(27), IntId(27));
    vgic.map_hw(CPU0, IntId(40), IntId(55));
    let new = format!("{vgic:?}");
    for (offset, value) in [(0, 3), (0x104, 9), (0x204, 9), (0x304, 2), (0x420, 8), (0x84, 7), (0xc08, 2)] {
        put(&mut vgic, offset, 4, value);
    }
    put(&mut vgic, 0x6100, 8, 1);
    let _ = vgic.redist_write(CPU1, 0x1_0100, 4, 0xffff_ffff);
    vgic.fill(CPU0, &mut Lists::new(), OPEN);
    vgic.reset();
    assert_eq!(format!("{vgic:?}"), new);
}

#[test]
fn no_access_whatever_brings_it_down() {
    let calls = Cell::new(0_u64);
    let step = any::<(u8, u16, u64, u8, u64)>();
    let strategy = (any::<bool>(), any::<u16>(), any::<u32>(), any::<u8>(), vec(step, 0..300));
    TestRunner::new(Config { cases: effort(2000) as u32, failure_persistence: None, ..Config::default() })
        .run(&strategy, |(v2, vcpus, spis, room, steps)| {
            let version = if v2 { Version::V2 } else { Version::V3 };
            let mut vgic = Vgic::new(version, vcpus % 80, spis % 400, room % 20);
            let mut lists = Lists::new();
            for (op, cpu, offset, size, value) in steps {
                calls.set(calls.get() + 1);
                // Mostly near what there is.
                let vcpu = VcpuId(if op & 0x80 != 0 { cpu } else { cpu % 9 });
                let intid = IntId(if op & 0x40 != 0 { value as u32 } else { value as u32 % 300 });
                let offset = if op & 0x40 != 0 { offset } else { offset % 0x1_1000 };
                let size = if op & 0x20 != 0 { 1 << (size & 3) } else { size };
                let mask = Mask { priority: size, groups: op & 3 };
                match op % 16 {
                    0..3 => done(vgic.dist_write(vcpu, offset, size, value)),
                    3 => done(vgic.dist_read(vcpu, offset, size)),
                    4 | 5 => done(vgic.redist_write(vcpu, offset, size, value)),
                    6 => done(vgic.redist_read(vcpu, offset, size)),
                    7 => done(vgic.sgi1r(vcpu, SgiRegister::Sgi1r, value)),
                    8 => done(vgic.set_line(vcpu, intid, if op & 16 != 0 { Line::High } else { Line::Low })),
                    9 => done(vgic.pend(vcpu, intid)),
                    10 => done(vgic.deactivate(vcpu, value)),
                    11 => vgic.map_hw(vcpu, intid, IntId(offset as u32 % 1100)),
                    12 => {
                        done((vgic.deliverable(vcpu, mask), vgic.hw_active(vcpu, intid), vgic.view(vcpu).to_string()))
                    }
                    13 => {
                        // Lists that no hardware would give back.
                        lists.lr[0] = value;
                        lists.used = size;
                        lists.hcr |= u32::from(op >> 4) << hcr::EOI_COUNT_SHIFT;
                        done(vgic.fold(vcpu, &mut lists));
                    }
                    _ => done(vgic.refill(vcpu, &mut lists, mask)),
                }
                assert!(lists.used <= 16);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    println!("hostile accesses: {}", calls.get());
}

#[test]
fn a_route_is_read_in_halves_as_it_is_whole() {
    let mut vgic = Vgic::new(Version::V3, 4, 64, 4);
    for (intid, route) in [(32, 1), (33, 3), (70, 2), (95, 1 << 31), (34, 0x12_0000_0003)] {
        let at = gicd::IROUTER + 8 * intid;
        put(&mut vgic, at, 8, route);
        let whole = vgic.dist_read(CPU0, at, 8);
        assert_eq!([0, 4].map(|half| get(&vgic, at + half)), [whole & 0xffff_ffff, whole >> 32], "SPI {intid}");
        assert_eq!((whole & 0xff, whole >> 32), (route & 0xff, route >> 32), "SPI {intid}");
        // Each half alone, and the other stays.
        for (half, value) in [(4, 0x34), (0, 2), (4, 0), (0, 1)] {
            let before = vgic.dist_read(CPU0, at, 8);
            put(&mut vgic, at + half, 4, value);
            let expected = before & !(0xffff_ffff << (half * 8)) | value << (half * 8);
            assert_eq!(vgic.dist_read(CPU0, at, 8), expected, "SPI {intid}, half {half}");
        }
        put(&mut vgic, at + 4, 4, 0x34);
        let before = vgic.dist_read(CPU0, at, 8);
        for byte in 0..8 {
            put(&mut vgic, at + byte, 1, before >> (byte * 8) & 0xff);
            assert_eq!(vgic.dist_read(CPU0, at, 8), before, "SPI {intid}, byte {byte}");
        }
    }
}

#[test]
fn what_deactivates_traps_where_there_is_such_a_trap() {
    // GICC_DIR of a GICv2 has a page of its own, and no control.
    for (version, traps) in [(Version::V2, false), (Version::V3, true)] {
        let mut vgic = Vgic::new(version, 1, 32, 4);
        let mut lists = Lists::new();
        vgic.fill(CPU0, &mut lists, OPEN);
        assert_eq!((lists.hcr & hcr::EN != 0, lists.hcr & hcr::TDIR != 0), (true, traps), "{version:?}");
    }
}

#[test]
fn the_identification_registers_are_those_of_arms_controllers() {
    // PIDR4, PIDR0, PIDR1, PIDR2, CIDR0 to CIDR3; all others are zero (IHI 0048B 4.3.18, IHI 0069H 12.1).
    let expected = |offset: u64, part_0: u64, part_2: u64, part_4: u64| match offset & 0xff {
        0xd0 => part_4,
        0xe0 => part_0,
        0xe4 => 0xb4,
        0xe8 => part_2,
        0xf0 => 0x0d,
        0xf4 => 0xf0,
        0xf8 => 0x05,
        0xfc => 0xb1,
        _ => 0,
    };
    let v2 = Vgic::new(Version::V2, 1, 32, 4);
    let v3 = Vgic::new(Version::V3, 1, 32, 4);
    for offset in (0xfd0..0x1000).step_by(4) {
        assert_eq!(get(&v2, offset), expected(offset, 0x90, 0x2b, 0x04), "{offset:#x}");
        let at = offset + 0xf000;
        assert_eq!(get(&v3, at), expected(at, 0x92, 0x3b, 0x44), "{at:#x}");
        assert_eq!(v3.redist_read(CPU0, at, 4), expected(at, 0x93, 0x3b, 0x44), "{at:#x}");
    }
    // By Arm, 0x43b; the product is ours.
    for vgic in [&v2, &v3] {
        assert_eq!(get(vgic, gicd::IIDR), u64::from(b'F') << 24 | 0x43b);
    }
    assert_eq!(v3.redist_read(CPU0, gicr::IIDR, 4), u64::from(b'F') << 24 | 0x43b);
}

#[test]
fn each_interrupt_is_level_or_edge_as_it_was_written() {
    for version in [Version::V2, Version::V3] {
        let mut vgic = Vgic::new(version, 1, 96, 4);
        let mut edges = [false; 128];
        for (n, value) in
            [0xaaaa_aaaa_u64, 0, 0x8000_0002, 0xff00_00ff, 0x1234_5678, 0xffff_ffff, 0x0f0f_0f0f].iter().enumerate()
        {
            for word in 2..8 {
                let value = value.rotate_left(4 * (word as u32 + n as u32)) & 0xffff_ffff;
                put(&mut vgic, gicd::ICFGR + 4 * word, 4, value);
                for i in 0..16 {
                    // The upper bit of two; the lower is reserved.
                    edges[(word * 16 + i) as usize] = value >> (2 * i + 1) & 1 != 0;
                }
            }
            for word in 2..8 {
                let read = get(&vgic, gicd::ICFGR + 4 * word);
                let expected = (0..16).map(|i| u64::from(edges[(word * 16 + i) as usize]) << (2 * i + 1)).sum::<u64>();
                assert_eq!(read, expected, "{version:?}, word {word}, round {n}");
            }
        }
        // What is edge-triggered stays pending when its line has fallen.
        for intid in 32..128 {
            let _ = vgic.set_line(CPU0, IntId(intid), Line::High);
            let _ = vgic.set_line(CPU0, IntId(intid), Line::Low);
            let pends = get(&vgic, 0x200 + u64::from(intid / 32) * 4) >> (intid % 32) & 1 != 0;
            assert_eq!(pends, edges[intid as usize], "{version:?}, INTID {intid}");
        }
    }
}

#[test]
fn no_register_is_read_by_a_size_or_at_an_address_that_it_has_not() {
    let mut vgic = Vgic::new(Version::V3, 2, 64, 4);
    put(&mut vgic, 0x6100, 8, 0x12_0000_0001);
    assert_eq!(vgic.dist_read(CPU0, 0x6100, 8), 0x12_0000_0001);
    for (offset, size) in [(0x6104, 8), (0x60fc, 8), (0x6101, 4), (0x6102, 8)] {
        assert_eq!(vgic.dist_read(CPU0, offset, size), 0, "{size} bytes at {offset:#x}");
        let _ = vgic.dist_write(CPU0, offset, size, u64::MAX);
        assert_eq!(vgic.dist_read(CPU0, 0x6100, 8), 0x12_0000_0001, "{size} bytes at {offset:#x}");
    }
    // Nor are there parts of GICD_SGIR; of all of it, the sender's own SGI 0.
    let mut v2 = Vgic::new(Version::V2, 2, 64, 4);
    for (offset, size, value, pending) in [(3, 1, 2, 0), (2, 2, 0x200, 0), (0, 2, 0, 0), (0, 4, 0x200_0000, 1)] {
        let _ = v2.dist_write(CPU0, gicd::SGIR + offset, size, value);
        assert_eq!(v2.dist_read(CPU0, 0x200, 4), pending, "{size} bytes at {offset}");
    }
    // A GICv2 has nothing of eight bytes, and no routes.
    let v2 = Vgic::new(Version::V2, 2, 64, 4);
    for offset in [0, 8, 0x400, 0x6100] {
        assert_eq!(v2.dist_read(CPU0, offset, 8), 0);
    }
    assert_eq!(get(&v2, 0x6100), 0);
}

/// What of a GICv2's lists is active: its interrupts and their priorities.
fn active(lists: &Lists) -> Vec<(u32, u8)> {
    let entries = lists.lr[..usize::from(lists.used)].iter().map(|lr| ListRegister::from_v2(*lr as u32));
    entries.filter(|entry| entry.active).map(|entry| (entry.intid, entry.priority)).collect()
}

#[test]
fn an_interrupt_made_active_by_decree_is_where_it_was_taken_or_is_routed() {
    let mut vgic = Vgic::new(Version::V2, 2, 64, 4);
    put(&mut vgic, gicd::CTLR, 4, 1);
    // SPIs 32 and 33 to the first vCPU, 34 to the second, 35 to nobody.
    put(&mut vgic, 0x820, 4, 0x00_02_01_01);
    put(&mut vgic, 0x420, 4, 0x80_80_80_80);
    put(&mut vgic, 0x104, 4, 0xf);
    put(&mut vgic, 0xc08, 4, 0xaa);
    let mut lists = [Lists::new(), Lists::new()];
    // The first vCPU takes 32; then it is routed to the other, and its priority changes.
    put(&mut vgic, 0x204, 4, 1);
    vgic.fill(CPU0, &mut lists[0], OPEN);
    assert_eq!(take(&mut lists[0]).intid, 32);
    let _ = vgic.fold(CPU0, &mut lists[0]);
    put(&mut vgic, 0x820, 1, 2);
    let kicks = vgic.dist_write(CPU0, 0x420, 1, 0x10);
    assert_eq!(kicks.collect::<Vec<_>>(), [CPU0], "who holds it, and not who would get it");
    // All are made active, 32 again.
    let kicks = vgic.dist_write(CPU0, 0x304, 4, 0xf);
    assert_eq!((kicks.contains(CPU0), kicks.contains(CPU1)), (true, true));
    vgic.fill(CPU0, &mut lists[0], OPEN);
    vgic.fill(CPU1, &mut lists[1], OPEN);
    assert_eq!(active(&lists[0]), [(32, 0x80), (33, 0x80)], "as it was taken");
    assert_eq!(active(&lists[1]), [(34, 0x80)]);
    assert_eq!(get(&vgic, 0x304), 0xf);
    // And inactive: nobody has it.
    let _ = vgic.fold(CPU0, &mut lists[0]);
    let kicks = vgic.dist_write(CPU1, 0x384, 4, 0b0101);
    assert_eq!((kicks.contains(CPU0), kicks.contains(CPU1)), (true, true));
    vgic.fill(CPU0, &mut lists[0], OPEN);
    let _ = vgic.refill(CPU1, &mut lists[1], OPEN);
    assert_eq!((active(&lists[0]), active(&lists[1])), (vec![(33, 0x80)], vec![]));
    assert_eq!(get(&vgic, 0x304), 0b1010);
}

#[test]
fn what_is_in_a_list_is_pending_without_being_taken_back() {
    let mut vgic = Vgic::new(Version::V2, 1, 32, 4);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 7), (0xc08, 0x2)] {
        put(&mut vgic, offset, 4, value);
    }
    // An edge, a level and one made pending by its register.
    assert!(vgic.pend(CPU0, IntId(32)).contains(CPU0));
    assert!(vgic.set_line(CPU0, IntId(33), Line::High).contains(CPU0));
    put(&mut vgic, 0x204, 4, 4);
    assert_eq!(get(&vgic, 0x204), 7);
    let mut lists = Lists::new();
    vgic.fill(CPU0, &mut lists, OPEN);
    assert_eq!((lists.used, get(&vgic, 0x204)), (3, 7));
    let _ = vgic.set_line(CPU0, IntId(33), Line::Low);
    assert_eq!(get(&vgic, 0x204), 5);
}

#[test]
fn a_source_is_taken_back_alone() {
    let mut vgic = Vgic::new(Version::V2, 4, 32, 4);
    put(&mut vgic, gicd::CTLR, 4, 1);
    let sources = |vgic: &Vgic, sgi: u64| vgic.dist_read(CPU1, gicd::SPENDSGIR + sgi, 1);
    for sgi in [3, 4] {
        let _ = vgic.dist_write(CPU1, gicd::SPENDSGIR + sgi, 1, 0xf);
    }
    for (gone, left) in [(0b0010, 0b1101), (0b0010, 0b1101), (0b1001, 0b0100), (0xf0, 0b0100), (0b0100, 0)] {
        let _ = vgic.dist_write(CPU1, gicd::CPENDSGIR + 3, 1, gone);
        assert_eq!((sources(&vgic, 3), sources(&vgic, 4)), (left, 0xf), "after {gone:#b}");
        assert_eq!(vgic.dist_read(CPU1, 0x200, 4), if left == 0 { 1 << 4 } else { 3 << 3 });
        assert_eq!(vgic.dist_read(CPU0, 0x200, 4), 0);
    }
}

#[test]
fn a_line_that_comes_again_while_it_is_in_a_list_is_pending() {
    let mut vgic = Vgic::new(Version::V3, 1, 32, 4);
    let timer = IntId(27);
    vgic.map_hw(CPU0, timer, IntId(27));
    put(&mut vgic, gicd::CTLR, 4, 3);
    let _ = vgic.redist_write(CPU0, 0x1_0100, 4, 1 << 27);
    let pends = |vgic: &Vgic| vgic.redist_read(CPU0, 0x1_0200, 4) >> 27 & 1 != 0;
    let _ = vgic.set_line(CPU0, timer, Line::High);
    assert!(pends(&vgic));
    vgic.fill(CPU0, &mut Lists::new(), OPEN);
    assert!(pends(&vgic) && vgic.hw_active(CPU0, timer), "in the list");
    let _ = vgic.set_line(CPU0, timer, Line::High);
    assert!(pends(&vgic) && vgic.hw_active(CPU0, timer), "and again");
    let _ = vgic.set_line(CPU0, timer, Line::Low);
    assert!(!pends(&vgic) && !vgic.hw_active(CPU0, timer));
    // Active and pending again.
    let _ = vgic.redist_write(CPU0, 0x1_0300, 4, 1 << 27);
    assert!(vgic.hw_active(CPU0, timer));
    let _ = vgic.set_line(CPU0, timer, Line::High);
    assert!(vgic.hw_active(CPU0, timer));
    let _ = vgic.redist_write(CPU0, 0x1_0380, 4, 1 << 27);
    assert!(vgic.hw_active(CPU0, timer));
    let _ = vgic.set_line(CPU0, timer, Line::Low);
    assert!(!vgic.hw_active(CPU0, timer));
}

#[test]
fn one_made_active_while_a_list_has_it_is_as_it_was_taken() {
    let mut vgic = Vgic::new(Version::V2, 1, 32, 4);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 3), (0xc08, 0xa), (0x204, 1), (0x420, 0x8080)] {
        put(&mut vgic, offset, 4, value);
    }
    let mut lists = Lists::new();
    vgic.fill(CPU0, &mut lists, OPEN);
    assert_eq!(take(&mut lists).intid, 32);
    let _ = vgic.fold(CPU0, &mut lists);
    vgic.fill(CPU0, &mut lists, OPEN);
    assert_eq!(active(&lists), [(32, 0x80)]);
    // It is in the list; nobody reads that back before the write.
    put(&mut vgic, 0x420, 4, 0x1010);
    put(&mut vgic, 0x304, 4, 3);
    let _ = vgic.fold(CPU0, &mut lists);
    vgic.fill(CPU0, &mut lists, OPEN);
    let mut both = active(&lists);
    both.sort();
    assert_eq!(both, [(32, 0x80), (33, 0x10)], "33 was never taken");
}

#[test]
fn one_that_is_pending_for_another_is_not_listed_so_where_it_is_active() {
    let mut vgic = Vgic::new(Version::V2, 2, 32, 4);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 1), (0xc08, 2), (0x820, 1)] {
        put(&mut vgic, offset, 4, value);
    }
    let mut lists = [Lists::new(), Lists::new()];
    assert!(vgic.pend(CPU0, IntId(32)).contains(CPU0));
    vgic.fill(CPU0, &mut lists[0], OPEN);
    assert_eq!(take(&mut lists[0]).intid, 32);
    let _ = vgic.fold(CPU0, &mut lists[0]);
    for (target, pending) in [(1, true), (2, false), (0, false), (3, true)] {
        put(&mut vgic, 0x820, 1, target);
        let _ = vgic.pend(CPU0, IntId(32));
        vgic.fill(CPU0, &mut lists[0], OPEN);
        vgic.fill(CPU1, &mut lists[1], OPEN);
        let entry = ListRegister::from_v2(lists[0].lr[0] as u32);
        assert_eq!((entry.intid, entry.active, entry.pending), (32, true, pending), "target {target:#b}");
        assert_eq!(lists[1].used, 0, "it is active elsewhere");
        let _ = vgic.fold(CPU0, &mut lists[0]);
        let _ = vgic.fold(CPU1, &mut lists[1]);
    }
}

#[test]
fn one_that_is_active_is_not_pending_because_its_neighbour_is() {
    let mut vgic = Vgic::new(Version::V2, 1, 32, 4);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 3), (0xc08, 0b1010), (0x820, 1), (0x821, 1)] {
        put(&mut vgic, offset, if (0x820..0xc00).contains(&offset) { 1 } else { 4 }, value);
    }
    let mut lists = Lists::new();
    let _ = vgic.pend(CPU0, IntId(32));
    vgic.fill(CPU0, &mut lists, OPEN);
    assert_eq!(take(&mut lists).intid, 32);
    let _ = vgic.fold(CPU0, &mut lists);
    let _ = vgic.pend(CPU0, IntId(33));
    vgic.fill(CPU0, &mut lists, OPEN);
    let mut entries = lists.lr[..2].iter().map(|lr| ListRegister::from_v2(*lr as u32));
    let one = entries.find(|entry| entry.intid == 32).expect("it is listed");
    assert_eq!((lists.used, one.active, one.pending), (2, true, false));
}

/// GICR_TYPER, in words and whole: processor number, affinity, and whether it is the last.
#[test]
fn a_redistributor_says_whose_it_is() {
    let vgic = Vgic::new(Version::V3, 18, 32, 4);
    for n in 0..18_u16 {
        let affinity = u64::from(n / 16) << 8 | u64::from(n % 16);
        let expected = affinity << 32 | u64::from(n) << 8 | if n == 17 { 1 << 4 } else { 0 };
        assert_eq!(vgic.redist_read(VcpuId(n), 8, 8), expected, "{n}");
        assert_eq!(
            [8, 12].map(|at| vgic.redist_read(VcpuId(n), at, 4)),
            [expected & 0xffff_ffff, expected >> 32],
            "{n}"
        );
    }
}

/// Made active by decree while another has it in its list, an SPI stays where it is, wherever it is routed by then.
#[test]
fn one_made_active_while_a_list_has_it_stays_with_who_has_it() {
    let mut vgic = Vgic::new(Version::V2, 2, 32, 4);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 2), (0xc08, 0xa), (0x820, 0x0101), (0x204, 2)] {
        put(&mut vgic, offset, 4, value);
    }
    let mut lists = [Lists::new(), Lists::new()];
    vgic.fill(CPU0, &mut lists[0], OPEN);
    assert_eq!(take(&mut lists[0]).intid, 33);
    put(&mut vgic, 0x821, 1, 2);
    put(&mut vgic, 0x304, 4, 2);
    let _ = vgic.fold(CPU0, &mut lists[0]);
    vgic.fill(CPU1, &mut lists[1], OPEN);
    vgic.fill(CPU0, &mut lists[0], OPEN);
    assert_eq!((active(&lists[0]).len(), active(&lists[1]).len()), (1, 0));
}

/// A line that falls while it was low already is no news to who has its interrupt.
#[test]
fn a_line_that_is_low_does_not_fall() {
    let mut vgic = Vgic::new(Version::V2, 1, 64, 4);
    for (offset, value) in [(gicd::CTLR, 1), (0x104, 7)] {
        put(&mut vgic, offset, 4, value);
    }
    let mut lists = Lists::new();
    let _ = vgic.set_line(CPU0, IntId(32), Line::High);
    let _ = vgic.set_line(CPU0, IntId(34), Line::High);
    vgic.fill(CPU0, &mut lists, OPEN);
    assert!(vgic.set_line(CPU0, IntId(32), Line::Low).contains(CPU0), "a list has it pending");
    assert!(!vgic.set_line(CPU0, IntId(32), Line::Low).contains(CPU0));
    assert!(!vgic.set_line(CPU0, IntId(33), Line::Low).contains(CPU0), "no list has it");
}
