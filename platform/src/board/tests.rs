//! The boards we know, and what is missing where.

extern crate std;

use super::{Board, Conduit, Cpu, Enable, Gic, Slot, Timer, Uart, UartKind};
use crate::Range;
use std::string::ToString;
use std::vec::Vec;

const BCM2711: &[u8] = include_bytes!("../../fixtures/bcm2711.dtb");
const ODD: &[u8] = include_bytes!("../../fixtures/odd.dtb");
const VIRT_GICV2: &[u8] = include_bytes!("../../fixtures/virt-gicv2.dtb");
const VIRT_GICV3: &[u8] = include_bytes!("../../fixtures/virt-gicv3.dtb");

const fn range(start: u64, end: u64) -> Range {
    Range { start, end }
}

/// Changes every occurrence of `from` into `to`, which has the same length.
fn edited(blob: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut blob = blob.to_vec();
    let mut edits = 0;
    for at in 0..blob.len() - from.len() {
        if blob[at..].starts_with(from.as_bytes()) {
            blob[at..at + to.len()].copy_from_slice(to.as_bytes());
            edits += 1;
        }
    }
    assert!(edits > 0, "{from} is in the tree");
    blob
}

#[test]
fn qemu_virt_with_gicv3_is_read_whole() {
    let board = Board::from_tree(VIRT_GICV3).unwrap();
    assert_eq!(board.memory[..], [range(0x4000_0000, 0x8000_0000)]);
    assert!(board.reserved.is_empty());
    assert_eq!(board.cpus.len(), 4);
    assert_eq!(board.cpus[3], Cpu { mpidr: 3, enable: Enable::Psci });
    assert_eq!(board.psci, Some(Conduit::Smc));
    let redists = [range(0x80a_0000, 0x900_0000)].into_iter().collect();
    let dist = range(0x800_0000, 0x801_0000);
    assert_eq!(board.gic, Gic::V3 { dist, redists, redist_stride: None, maintenance: 25 });
    assert_eq!(board.timer, Timer { hyp: 26, virt: 27, phys: 30 });
    let uart = Uart { kind: UartKind::Pl011, base: 0x900_0000, size: 0x1000, irq: 33, clock_hz: Some(24_000_000) };
    assert_eq!(board.uart, Some(uart));
    assert_eq!(board.watchdog, None);
    assert_eq!(board.initrd, None);
    assert_eq!(board.bootargs, None);
    assert_eq!(board.mmio[..], [dist, range(0x80a_0000, 0x900_1000)]);
}

#[test]
fn qemu_virt_with_gicv2_has_all_four_windows() {
    let board = Board::from_tree(VIRT_GICV2).unwrap();
    let gic = Gic::V2 {
        dist: range(0x800_0000, 0x801_0000),
        cpu: range(0x801_0000, 0x802_0000),
        hyp: range(0x803_0000, 0x804_0000),
        virt: range(0x804_0000, 0x805_0000),
        maintenance: 25,
    };
    assert_eq!(board.gic, gic);
    assert_eq!(
        board.mmio[..],
        [range(0x800_0000, 0x802_0000), range(0x803_0000, 0x804_0000), range(0x900_0000, 0x900_1000)]
    );
}

#[test]
fn a_raspberry_pi_4_is_read_through_its_soc_bus() {
    let board = Board::from_tree(BCM2711).unwrap();
    let text = "\
cpu       0x0 spin-table 0xd8
cpu       0x1 spin-table 0xe0
cpu       0x2 spin-table 0xe8
cpu       0x3 spin-table 0xf0
memory    0x0-0x3b400000 970752 KiB
memory    0x40000000-0x80000000 1048576 KiB
reserved  0x0-0x1000
reserved  0x3ac00000-0x3ac02000
gic       v2 dist 0xff841000-0xff842000 maintenance 25
gic       cpu 0xff842000-0xff844000 hyp 0xff844000-0xff846000 virt 0xff846000-0xff848000
timer     hyp 26 virt 27 phys 30
uart      bcm2835-aux 0xfe215040 irq 125
watchdog  0xfe100000
initrd    0x8000000-0x8123456
bootargs  console=ttyS1,115200
";
    assert_eq!(board.to_string(), text);
    assert_eq!(
        board.mmio[..],
        [range(0xfe10_0000, 0xfe10_1000), range(0xfe21_5000, 0xfe21_6000), range(0xff84_1000, 0xff84_6000)]
    );
}

#[test]
fn slots_for_virtio_devices_are_listed_in_the_order_of_the_tree() {
    let slots: Vec<_> = (0..32).map(|n| Slot { base: 0xa00_0000 + n * 0x200, is_coherent: true }).collect();
    assert_eq!(Board::from_tree(VIRT_GICV3).unwrap().virtio[..], slots);
    assert_eq!(Board::from_tree(VIRT_GICV2).unwrap().virtio[..], slots);
    let board = Board::from_tree(&edited(VIRT_GICV3, "dma-coherent", "dma-incohere")).unwrap();
    assert!(board.virtio.iter().all(|slot| !slot.is_coherent));
    assert!(board.to_string().contains("\nvirtio    32 slots from 0xa000000\n"));
    // Slot 2 is moved away, and slot 3 is too small.
    let mut blob = VIRT_GICV3.to_vec();
    for (from, to) in
        [([0xa00_0400_u32, 0, 0x200], [0xa20_0400, 0, 0x200]), ([0xa00_0600, 0, 0x200], [0xa00_0600, 0, 8])]
    {
        let bytes = |cells: [u32; 3]| cells.map(u32::to_be_bytes).concat();
        let at = blob.windows(12).position(|window| *window == bytes(from)).unwrap();
        blob[at..at + 12].copy_from_slice(&bytes(to));
    }
    let board = Board::from_tree(&blob).unwrap();
    assert_eq!(board.virtio.len(), 30, "what one table does not map, or is no slot, is left out");
    assert_eq!(board.virtio[2].base, 0xa00_0800);
    assert!(Board::from_tree(BCM2711).unwrap().virtio.is_empty());
}

#[test]
fn a_pl011_with_a_device_on_its_line_is_no_console() {
    // Without a usable stdout-path only the PL011 of Bluetooth, a disabled one and the mini-UART are left.
    let board = Board::from_tree(&edited(BCM2711, "serial1:115200n8", "serial9:115200n8")).unwrap();
    assert_eq!(board.uart.unwrap().kind, UartKind::BcmAux);
    // Named by stdout-path it still is none, as in Raspberry Pi OS's tree, as long as there is another.
    let named = edited(BCM2711, "serial1:115200n8", "serial0:115200n8");
    assert_eq!(Board::from_tree(&named).unwrap().uart.unwrap().kind, UartKind::BcmAux);
    let board = Board::from_tree(&edited(&named, "brcm,bcm2835-aux-uart", "brcm,bcm2835-aux-none")).unwrap();
    assert_eq!(board.uart.unwrap().base, 0xfe20_1000);
    assert_eq!(board.uart.unwrap().irq, 153);
}

#[test]
fn an_odd_board_is_read_as_the_specification_says() {
    let board = Board::from_tree(ODD).unwrap();
    assert_eq!(board.memory[..], [range(0x8000_1000, 0x1_8000_0000)], "three banks in two nodes, in no order");
    assert_eq!(board.reserved[..], [range(0x8000_0000, 0x8001_1000)]);
    let cpus: Vec<_> = board.cpus.iter().map(|cpu| (cpu.mpidr, cpu.enable)).collect();
    let expected = [(0x100, Enable::Psci), (0x1_0000_0001, Enable::Psci), (3, Enable::Unknown)];
    assert_eq!(cpus, expected, "the disabled CPU is left out");
    assert_eq!(board.psci, Some(Conduit::Hvc));
    let redists = [range(0x2f10_0000, 0x2f18_0000), range(0x2f20_0000, 0x2f28_0000)].into_iter().collect();
    let dist = range(0x2f00_0000, 0x2f01_0000);
    assert_eq!(board.gic, Gic::V3 { dist, redists, redist_stride: Some(0x4_0000), maintenance: 25 });
    assert_eq!(board.timer, Timer { hyp: 26, virt: 27, phys: 30 });
    let uart = Uart { kind: UartKind::Pl011, base: 0x1020_1000, size: 0x1000, irq: 37, clock_hz: Some(48_000_000) };
    assert_eq!(board.uart, Some(uart), "stdout-path leads to a disabled bus");
    assert_eq!(board.initrd, Some(range(0x1_0000_0000, 0x1_0010_0001)));
}

#[test]
fn what_is_missing_is_named_with_place_and_remedy() {
    let error = |blob: &[u8]| Board::from_tree(blob).unwrap_err().to_string();
    assert!(error(&edited(VIRT_GICV3, "arm,gic-v3\0", "arm,gic-v9\0")).starts_with("/: no interrupt controller"));
    let armv8 = edited(VIRT_GICV3, "arm,armv7-timer", "arm,armv6-timer");
    assert!(Board::from_tree(&armv8).is_ok());
    assert!(error(&edited(&armv8, "arm,armv8-timer", "arm,armv9-timer")).starts_with("/timer: no generic timer"));
    assert!(error(&edited(VIRT_GICV3, "memory\0", "umbrel\0")).starts_with("/memory: the board has no memory"));
    assert!(error(&edited(VIRT_GICV3, "cpu\0", "gpu\0")).starts_with("/cpus: the board has no CPU"));
    assert!(error(b"no tree at all").contains("byte 0x0 of the device tree: no device tree starts here"));
}

#[test]
fn damage_to_optional_parts_costs_only_these() {
    let board = Board::from_tree(&edited(BCM2711, "bcm2835-aux-uart", "bcm2835-aux-wart")).unwrap();
    assert_eq!(board.uart, None);
    let board = Board::from_tree(&edited(BCM2711, "brcm,bcm2835-pm-wdt", "brcm,bcm2835-pm-wd2")).unwrap();
    assert_eq!(board.watchdog, Some(0xfe10_0000), "still a bcm2711-pm");
    let board = Board::from_tree(&edited(VIRT_GICV3, "smc\0", "abc\0")).unwrap();
    assert_eq!(board.psci, None);
    let board = Board::from_tree(&edited(BCM2711, "cpu-release-addr", "cpu-rebirth-addr")).unwrap();
    assert_eq!((board.cpus.len(), board.cpus[0].enable), (4, Enable::Unknown));
}

#[test]
fn a_board_that_is_refused_still_has_a_line_to_say_so() {
    for from in ["arm,gic-v3\0", "arm,armv8-timer\0arm,armv7-timer\0", "memory\0", "cpu\0"] {
        let blob = edited(VIRT_GICV3, from, &from.replace(|c: char| c.is_ascii_alphanumeric(), "x"));
        assert!(Board::from_tree(&blob).is_err(), "{from}");
        assert_eq!(Board::last_words(&blob).unwrap().base, 0x900_0000);
    }
    assert_eq!(Board::last_words(&edited(BCM2711, "arm,gic-400", "arm,gic-900")).unwrap().base, 0xfe21_5040);
    assert_eq!(Board::last_words(b"no tree at all"), None);
}

#[test]
fn without_a_tree_only_what_says_that_it_is_a_uart_is_one() {
    let pl011 = |base: u64, at: u64| match at.wrapping_sub(base) {
        0xfe0 => 0x11,
        0xff0 => 0x0d,
        0xff4 => 0xf0,
        0xff8 => 0x05,
        0xffc => 0xb1,
        _ => 0,
    };
    let base = |read: &dyn Fn(u64) -> u32| super::guess(read).map(|uart| (uart.kind, uart.base));
    assert_eq!(base(&|_| 0), None);
    assert_eq!(base(&|_| 0x11), None);
    assert_eq!(base(&|at| pl011(0x900_0000, at)), Some((UartKind::Pl011, 0x900_0000)));
    assert_eq!(base(&|at| pl011(0xfe20_1000, at)), Some((UartKind::Pl011, 0xfe20_1000)));
    let aux = |at| if at == 0xfe21_5004 { 1 } else { pl011(0xfe20_1000, at) };
    assert_eq!(base(&aux), Some((UartKind::BcmAux, 0xfe21_5040)));
}
