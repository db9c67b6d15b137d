//! The drivers over plain memory: what they write where, and what they make of what they read.
//!
//! Memory does not react, so a register shows the last value written and every poll sees what was there before. That is
//! enough to check offsets, bits and the order of decisions; the devices themselves are checked on QEMU's boards.

use platform::Range;
use platform::gic::{Ack, PRIORITY, Stuck, Trigger, v2, v3};
use platform::power::watchdog;
use platform::uart::{Port, mini, pl011};
use std::marker::PhantomData;

/// A device's registers in plain memory.
struct Plain<T> {
    words: Vec<u64>,
    registers: PhantomData<T>,
}

impl<T> Plain<T> {
    fn new() -> Self {
        assert!(align_of::<T>() <= align_of::<u64>());
        Self { words: vec![0; size_of::<T>().div_ceil(8)], registers: PhantomData }
    }

    fn on<R>(&mut self, act: impl FnOnce(&T) -> R) -> R {
        // SAFETY: the vector is as large as T and aligned for it; T is made of integer registers, for which every bit
        // pattern is valid; it is borrowed exclusively for as long as the reference lives.
        act(unsafe { &*self.words.as_mut_ptr().cast::<T>() })
    }

    fn byte(&self, at: usize) -> u8 {
        self.words[at / 8].to_le_bytes()[at % 8]
    }

    fn set_byte(&mut self, at: usize, value: u8) {
        let mut bytes = self.words[at / 8].to_le_bytes();
        bytes[at % 8] = value;
        self.words[at / 8] = u64::from_le_bytes(bytes);
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|byte| self.byte(at + byte)))
    }

    fn set_word(&mut self, at: usize, value: u32) {
        for (byte, value) in value.to_le_bytes().into_iter().enumerate() {
            self.set_byte(at + byte, value);
        }
    }
}

#[test]
fn a_pl011_takes_bytes_until_its_fifo_is_full() {
    let mut uart = Plain::<pl011::Registers>::new();
    assert!(uart.on(|registers| Port::Pl011(registers).put(b'x')));
    assert_eq!(uart.word(0), u32::from(b'x'));
    uart.set_word(0x18, 1 << 5);
    assert!(!uart.on(|registers| Port::Pl011(registers).put(b'y')));
    assert_eq!(uart.word(0), u32::from(b'x'));
}

#[test]
fn a_pl011_gives_what_came_without_error() {
    let mut uart = Plain::<pl011::Registers>::new();
    uart.set_word(0, 0x800 | u32::from(b'q'));
    assert_eq!(uart.on(|registers| Port::Pl011(registers).get()), Some(b'q'), "an overrun spoils others, not this one");
    uart.set_word(0, 0x100 | u32::from(b'q'));
    assert_eq!(uart.on(|registers| Port::Pl011(registers).get()), None, "a framing error");
    uart.set_word(0, u32::from(b'q'));
    uart.set_word(0x18, 1 << 4);
    assert_eq!(uart.on(|registers| Port::Pl011(registers).get()), None, "an empty FIFO");
}

#[test]
fn a_pl011_in_use_keeps_its_format_and_an_unused_one_gets_one() {
    let mut uart = Plain::<pl011::Registers>::new();
    uart.on(|registers| Port::Pl011(registers).adopt());
    assert_eq!((uart.word(0x2c), uart.word(0x30), uart.word(0x44)), (0x70, 0x301, 0x7ff));
    uart.set_word(0x2c, 0x1a);
    uart.set_word(0x38, 0x50);
    uart.on(|registers| Port::Pl011(registers).adopt());
    assert_eq!((uart.word(0x2c), uart.word(0x38)), (0x1a, 0));
    assert_eq!((uart.word(0x24), uart.word(0x28)), (0, 0), "the divisor is the firmware's");
}

#[test]
fn a_pl011_interrupts_for_what_was_asked() {
    let mut uart = Plain::<pl011::Registers>::new();
    uart.on(|registers| Port::Pl011(registers).enable_rx_interrupt());
    uart.on(|registers| Port::Pl011(registers).enable_tx_interrupt());
    assert_eq!(uart.word(0x38), 0x70);
    uart.on(|registers| Port::Pl011(registers).disable_tx_interrupt());
    assert_eq!(uart.word(0x38), 0x50);
    uart.set_word(0x40, 0x70);
    uart.on(|registers| Port::Pl011(registers).acknowledge());
    assert_eq!(uart.word(0x44), 0x20, "what has come in is announced until it is taken");
    uart.on(|registers| Port::Pl011(registers).disable_rx_interrupt());
    assert_eq!(uart.word(0x38), 0);
}

#[test]
fn flushing_ends_even_if_the_line_never_does() {
    let mut uart = Plain::<pl011::Registers>::new();
    assert!(uart.on(|registers| Port::Pl011(registers).flush()));
    uart.set_word(0x18, 1 << 3);
    assert!(!uart.on(|registers| Port::Pl011(registers).flush()));
}

#[test]
fn a_mini_uart_looks_at_its_line_status_first() {
    let mut uart = Plain::<mini::Registers>::new();
    assert!(!uart.on(|registers| Port::Mini(registers).put(b'x')));
    assert_eq!(uart.on(|registers| Port::Mini(registers).get()), None);
    uart.set_word(0x14, 0x61);
    assert!(uart.on(|registers| Port::Mini(registers).put(b'x')));
    assert_eq!(uart.on(|registers| Port::Mini(registers).get()), Some(b'x'));
    assert!(uart.on(|registers| Port::Mini(registers).flush()));
}

#[test]
fn a_mini_uart_enables_receiving_with_the_bits_the_manual_forgot() {
    let mut uart = Plain::<mini::Registers>::new();
    uart.set_word(0x0c, 0x80);
    uart.on(|registers| Port::Mini(registers).adopt());
    assert_eq!((uart.word(0x0c), uart.word(0x04), uart.word(0x20)), (3, 0, 3));
    uart.on(|registers| Port::Mini(registers).enable_rx_interrupt());
    assert_eq!(uart.word(0x04), 0xd);
    uart.on(|registers| Port::Mini(registers).enable_tx_interrupt());
    assert_eq!(uart.word(0x04), 0xf);
    uart.on(|registers| Port::Mini(registers).disable_tx_interrupt());
    uart.on(|registers| Port::Mini(registers).acknowledge());
    assert_eq!((uart.word(0x04), uart.word(0x08)), (0xd, 0), "the FIFOs are not cleared");
    uart.on(|registers| Port::Mini(registers).disable_rx_interrupt());
    assert_eq!(uart.word(0x04), 0xc);
}

/// A GICv2 distributor of 96 INTIDs, read by the CPU with interface 2.
fn gicd() -> Plain<v2::Distributor> {
    let mut gicd = Plain::new();
    gicd.set_word(0x004, 2);
    gicd.set_word(0x800, 0x0404_0404);
    gicd
}

#[test]
fn a_gicv2_distributor_is_set_up_as_far_as_it_has_interrupts() {
    let mut gicd = gicd();
    gicd.set_word(0x084, u32::MAX);
    gicd.on(v2::Distributor::init);
    for (at, value) in [(0x180, 0), (0x184, u32::MAX), (0x188, u32::MAX), (0x18c, 0), (0x384, u32::MAX), (0x084, 0)] {
        assert_eq!(gicd.word(at), value, "at {at:#x}");
    }
    let near = |base: usize| [31, 32, 95, 96].map(|intid| gicd.byte(base + intid));
    assert_eq!(near(0x400), [0, PRIORITY, PRIORITY, 0]);
    assert_eq!(near(0x800), [0, 4, 4, 0]);
    assert_eq!(gicd.word(0), 1);
}

#[test]
fn each_cpu_sets_up_its_own_private_interrupts() {
    let mut gicd = gicd();
    gicd.on(v2::Distributor::init_cpu);
    let words = [0x100, 0x180, 0x280, 0x380, 0xf10, 0xf1c].map(|at| gicd.word(at));
    assert_eq!(words, [0xffff, 0xffff_0000, 0xffff_0000, u32::MAX, u32::MAX, u32::MAX]);
    assert_eq!([0, 31, 32].map(|intid| gicd.byte(0x400 + intid)), [PRIORITY, PRIORITY, 0]);
    assert_eq!(gicd.word(0), 0, "forwarding is not a CPU's business");
}

#[test]
fn a_gicv2_for_one_cpu_has_no_targets_to_read() {
    let mut gicd = Plain::<v2::Distributor>::new();
    assert_eq!(gicd.on(v2::Distributor::own_mask), 1);
}

#[test]
fn a_gicv2_interrupt_has_its_bit_in_every_array() {
    let mut gicd = gicd();
    gicd.on(|gicd| {
        gicd.enable(33);
        gicd.disable(34);
        gicd.set_active(35);
        gicd.clear_active(27);
        gicd.set_pending(36);
        gicd.set_priority(37, 0x80);
        gicd.set_target(38, 2);
        gicd.set_target(27, 2);
        gicd.set_trigger(39, Trigger::Edge);
        gicd.set_trigger(5, Trigger::Edge);
    });
    for (at, value) in [(0x104, 2), (0x184, 4), (0x304, 8), (0x380, 1 << 27), (0x204, 16), (0xc08, 2 << 14), (0xc00, 0)]
    {
        assert_eq!(gicd.word(at), value, "at {at:#x}");
    }
    assert_eq!((gicd.byte(0x425), gicd.byte(0x826), gicd.byte(0x81b)), (0x80, 2, 0));
    assert!(gicd.on(|gicd| gicd.is_pending(36) && gicd.is_active(35) && !gicd.is_pending(35)));
    gicd.on(|gicd| gicd.set_trigger(39, Trigger::Level));
    assert_eq!(gicd.word(0xc08), 0);
}

#[test]
fn interrupts_that_no_gic_has_change_nothing() {
    let mut gicd = gicd();
    let before = gicd.words.clone();
    gicd.on(|gicd| {
        for intid in [1020, 1023, 1024, 8192, u32::MAX] {
            gicd.enable(intid);
            gicd.set_priority(intid, 1);
            gicd.set_target(intid, 1);
            gicd.set_trigger(intid, Trigger::Edge);
            gicd.send_sgi(1, intid);
            assert!(!gicd.is_active(intid));
        }
    });
    assert_eq!(gicd.words, before);
}

#[test]
fn an_sgi_goes_to_the_cpus_in_the_mask() {
    let mut gicd = gicd();
    gicd.on(|gicd| gicd.send_sgi(0b1010, 7));
    assert_eq!(gicd.word(0xf00), 0x000a_0007);
}

#[test]
fn a_gicv2_cpu_interface_splits_the_end_of_an_interrupt() {
    let mut gicc = Plain::<v2::CpuInterface>::new();
    gicc.set_word(0x00, 0x1e0);
    gicc.set_word(0x0c, 1023);
    gicc.set_word(0xd4, 5);
    gicc.on(v2::CpuInterface::init);
    assert_eq!(gicc.word(0x00), 0x3e1, "enabled, EOImode, the firmware's bypass bits");
    assert_eq!((gicc.word(0x04), gicc.word(0xd4)), (0xff, 0));
    assert_eq!(gicc.on(v2::CpuInterface::ack), None);
    gicc.set_word(0x0c, 3 << 10 | 1);
    let ack = gicc.on(v2::CpuInterface::ack).unwrap();
    assert_eq!(Some(ack), Ack::new(0xc01));
    gicc.on(|gicc| gicc.eoi(ack));
    assert_eq!((gicc.word(0x10), gicc.word(0x1000)), (0xc01, 0));
    gicc.on(|gicc| gicc.deactivate(ack));
    assert_eq!(gicc.word(0x1000), 0xc01);
}

#[test]
fn gich_has_its_halves_joined_and_its_list_registers_bounded() {
    let mut gich = Plain::<v2::VirtualInterface>::new();
    gich.set_word(0x04, 0x9000_0003);
    gich.set_word(0x10, 1);
    gich.set_word(0x24, 1);
    gich.set_word(0x30, 0xf);
    gich.on(|gich| {
        assert_eq!((gich.list_registers(), gich.misr(), gich.eisr(), gich.elrsr()), (4, 1, 1 << 32, 0xf));
        gich.set_lr(3, 0x1234);
        gich.set_lr(64, 0x5678);
        gich.set_hcr(1);
        gich.set_vmcr(2);
        gich.set_apr(3);
        assert_eq!((gich.lr(3), gich.lr(64)), (0x1234, 0));
    });
    assert_eq!([0x00, 0x08, 0xf0, 0x10c].map(|at| gich.word(at)), [1, 2, 3, 0x1234]);
}

#[test]
fn a_gicv3_distributor_routes_by_affinity() {
    let mut gicd = Plain::<v3::Distributor>::new();
    gicd.set_word(0x004, 1);
    assert_eq!(gicd.on(|gicd| gicd.init(0xff_81ab_cdef)), Ok(()));
    assert_eq!(gicd.word(0), 0x13);
    for at in [0x084, 0x184, 0x284, 0x384] {
        assert_eq!((gicd.word(at - 4), gicd.word(at), gicd.word(at + 4)), (0, u32::MAX, 0), "at {at:#x}");
    }
    assert_eq!([31, 32, 63, 64].map(|intid| gicd.byte(0x400 + intid)), [0, PRIORITY, PRIORITY, 0]);
    let route = |intid: usize| (gicd.word(0x6000 + 8 * intid), gicd.word(0x6004 + 8 * intid));
    assert_eq!([31, 32, 63, 64].map(route), [(0, 0), (0xab_cdef, 0xff), (0xab_cdef, 0xff), (0, 0)]);
}

#[test]
fn a_gicv3_that_never_settles_is_reported() {
    let mut gicr = Plain::<v3::Redistributor>::new();
    gicr.set_word(0x0, 1 << 3);
    assert_eq!(gicr.on(|gicr| gicr.disable(27)), Err(Stuck));
    gicr.set_word(0x14, 1 << 1 | 1 << 2);
    assert_eq!(gicr.on(v3::Redistributor::init), Err(Stuck));
    assert_eq!(gicr.word(0x14), 1 << 2, "it has been asked to wake up");
}

#[test]
fn a_redistributor_owns_the_private_interrupts() {
    let mut gicr = Plain::<v3::Redistributor>::new();
    assert_eq!(gicr.on(v3::Redistributor::init), Ok(()));
    let words = [0x80, 0x100, 0x180, 0x280, 0x380, 0x400, 0x41c].map(|at| gicr.word(0x1_0000 + at));
    assert_eq!(words, [u32::MAX, 0xffff, 0xffff_0000, u32::MAX, u32::MAX, 0xa0a0_a0a0, 0xa0a0_a0a0]);
    gicr.on(|gicr| {
        gicr.enable(27);
        gicr.set_active(27);
        gicr.set_trigger(27, Trigger::Edge);
        gicr.enable(32);
        gicr.set_trigger(32, Trigger::Edge);
        assert!(gicr.is_active(27) && !gicr.is_active(59));
    });
    let words = [0x100, 0x300, 0xc00, 0xc04, 0xc08].map(|at| gicr.word(0x1_0000 + at));
    assert_eq!(words, [1 << 27, 1 << 27, 0, 2 << 22, 0]);
    let mut gicd = Plain::<v3::Distributor>::new();
    gicd.on(|gicd| gicd.enable(27));
    assert_eq!(gicd.word(0x100), 0, "the distributor leaves them alone");
}

/// A board's redistributors: at each address the affinity and the lower half of GICR_TYPER.
fn found(regions: &[Range], stride: Option<u64>, frames: &[(u64, u32, u32)], mpidr: u64) -> Option<u64> {
    let mut devices: Vec<_> = frames.iter().map(|_| Plain::<v3::Redistributor>::new()).collect();
    for (device, &(_, affinity, typer)) in devices.iter_mut().zip(frames) {
        device.set_word(0x8, typer);
        device.set_word(0xc, affinity);
    }
    // SAFETY: as in `Plain::on`; the devices outlive the search and nobody else touches them meanwhile.
    let registers: Vec<_> = devices.iter().map(|device| unsafe { &*device.words.as_ptr().cast() }).collect();
    let at = |base| registers[frames.iter().position(|frame| frame.0 == base).expect("a redistributor is here")];
    v3::find(regions, stride, mpidr, at).map(|(base, _)| base)
}

#[test]
fn the_redistributor_of_a_cpu_is_found_over_regions_strides_and_virtual_lpi_frames() {
    let regions = [Range { start: 0x10_0000, end: 0x18_0000 }, Range { start: 0x20_0000, end: 0x24_0000 }];
    // The first has virtual LPIs, hence four frames; the second is the last of its region.
    let frames =
        [(0x10_0000, 0, 2), (0x14_0000, 1, 1 << 4), (0x20_0000, 0x0100_0000, 0), (0x22_0000, 0x0100_0001, 1 << 4)];
    assert_eq!(found(&regions, None, &frames, 0x8000_0001), Some(0x14_0000), "bit 31 of MPIDR is no affinity");
    assert_eq!(found(&regions, None, &frames, 0x1_0000_0001), Some(0x22_0000));
    assert_eq!(found(&regions, None, &frames, 7), None);
    let frames = [(0x10_0000, 0, 0), (0x14_0000, 1, 0), (0x20_0000, 2, 0)];
    assert_eq!(found(&regions, Some(0x4_0000), &frames, 2), Some(0x20_0000), "the device tree's stride counts");
}

#[test]
fn an_sgi_register_names_the_cpu_by_its_affinity() {
    assert_eq!(v3::sgi1r(0x12_0034_5607, 9), 0x12 << 48 | 0x34 << 32 | 9 << 24 | 0x56 << 16 | 1 << 7);
    assert_eq!(v3::sgi1r(0x11, 0), 1 << 44 | 1 << 1);
}

#[test]
fn the_watchdog_is_armed_with_password_and_partition() {
    let mut pm = Plain::<watchdog::Registers>::new();
    pm.set_word(0x1c, 0x0000_0132);
    pm.set_word(0x20, 0x0000_1155);
    pm.on(watchdog::Registers::restart);
    assert_eq!([0x1c, 0x20, 0x24].map(|at| pm.word(at)), [0x5a00_0122, 0x5a00_1000, 0x5a00_000a]);
    pm.on(watchdog::Registers::halt);
    assert_eq!(pm.word(0x20), 0x5a00_1555);
}
