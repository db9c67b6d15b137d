//! The balloon from a guest's driver to its VM's memory: what is asked for on the rings is done to the pages, and the operator's word
//! and the policy's come to the driver.

use crate::exits::{here, model};
use crate::mmio::access;
use crate::pressure::{SECOND, manage};
use flatland::devices::{GICD, VIRTIO};
use flatland::host::operator;
use flatland::host::{Here, Host};
use flatland::machine::Machine;
use flatland::memory::{Access, RAM_BASE};
use flatland::vcpu::Vcpu;
use flatland::vm::request;
use harness::cpu::{BoardPlan, Cpu, host_on, run_all, shown};
use harness::touch::resolve;
use std::sync::atomic::Ordering;

/// Registers of virtio-mmio (virtio 1.2, 4.2.2), and where a balloon's configuration has its fields (5.5.4).
const NOTIFY: u64 = VIRTIO + 0x50;
const INTERRUPT_STATUS: u64 = VIRTIO + 0x60;
const INTERRUPT_ACK: u64 = VIRTIO + 0x64;
const STATUS: u64 = VIRTIO + 0x70;
const TARGET: u64 = VIRTIO + 0x100;
const ACTUAL: u64 = VIRTIO + 0x104;
const POISON_VALUE: u64 = VIRTIO + 0x10c;

const INFLATE: u64 = 0;
const DEFLATE: u64 = 1;
const REPORT: u64 = 2;
/// VIRTIO_BALLOON_F_PAGE_REPORTING, and PAGE_POISON.
const REPORTING: u64 = 1 << 5;
const POISON: u64 = 1 << 4;

/// Where the driver has its rings, and buffers.
const RINGS: u64 = 0x10_0000;
const BUFFER: u64 = 0x18_0000;

struct Driver<'c, 'm> {
    cpu: &'c Cpu<'m>,
    here: Here<'static>,
    made: [u16; 3],
}

impl Driver<'_, '_> {
    fn put(&self, at: u64, bytes: &[u8]) {
        let at = RAM_BASE + at;
        self.here.vm.memory.lock().write(self.cpu, &self.here.host.pool, at, bytes).unwrap();
    }

    fn set(&self, vcpu: &mut Vcpu, at: u64, value: u64) {
        access(self.here, self.cpu, vcpu, at, Some(value));
    }

    /// Brings the device up with these features (virtio 1.2, 3.1.1).
    fn start(&self, vcpu: &mut Vcpu, features: u64, poison: u32) {
        for (offset, value) in [(0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x24, 0), (0x20, features), (0x70, 11)] {
            self.set(vcpu, VIRTIO + offset, value);
        }
        for n in 0..3 {
            let base = RAM_BASE.bits() + RINGS + n * 0x2000;
            for (offset, value) in
                [(0x30, n), (0x38, 8), (0x80, base), (0x90, base + 0x1000), (0xa0, base + 0x1800), (0x44, 1)]
            {
                self.set(vcpu, VIRTIO + offset, value);
            }
        }
        // Before DRIVER_OK (5.5.6).
        self.set(vcpu, POISON_VALUE, poison.into());
        self.set(vcpu, STATUS, 15);
    }

    /// Makes a buffer available, and tells of it.
    fn send(&mut self, vcpu: &mut Vcpu, queue: u64, at: u64, bytes: u32, is_writable: bool) {
        let base = RINGS + queue * 0x2000;
        let made = &mut self.made[queue as usize];
        let slot = *made % 8;
        *made += 1;
        let index = *made;
        let mut descriptor = at.to_le_bytes().to_vec();
        descriptor.extend(bytes.to_le_bytes());
        descriptor.extend([if is_writable { 2 } else { 0 }, 0, 0, 0]);
        self.put(base + u64::from(slot) * 16, &descriptor);
        self.put(base + 0x1004 + u64::from(slot) * 2, &slot.to_le_bytes());
        self.put(base + 0x1002, &index.to_le_bytes());
        self.set(vcpu, NOTIFY, queue);
    }

    fn used(&self, queue: u64) -> u16 {
        let mut bytes = [0; 2];
        let at = RAM_BASE + (RINGS + queue * 0x2000 + 0x1802);
        self.here.vm.memory.lock().read(self.cpu, &self.here.host.pool, at, &mut bytes).unwrap();
        let index = u16::from_le_bytes(bytes);
        // Each buffer came back in its order: its element names it (2.7.8).
        for n in index.saturating_sub(8)..index {
            let mut head = [0; 4];
            let at = RAM_BASE + (RINGS + queue * 0x2000 + 0x1804 + u64::from(n % 8) * 8);
            self.here.vm.memory.lock().read(self.cpu, &self.here.host.pool, at, &mut head).unwrap();
            assert_eq!(u32::from_le_bytes(head), u32::from(n % 8), "buffer {n} of queue {queue}");
        }
        index
    }

    /// Sends page numbers.
    fn pages(&mut self, vcpu: &mut Vcpu, queue: u64, pages: std::ops::Range<u64>) {
        let numbers: Vec<u8> =
            pages.flat_map(|page| ((RAM_BASE.bits() >> 12) as u32 + page as u32).to_le_bytes()).collect();
        self.put(BUFFER, &numbers);
        self.send(vcpu, queue, RAM_BASE.bits() + BUFFER, numbers.len() as u32, false);
    }

    /// Does what is left of the device's work. How often that took.
    fn rest(&self) -> u32 {
        for times in 0..1000 {
            if self.here.slot.requests.fetch_and(!request::SERVE, Ordering::Relaxed) & request::SERVE == 0 {
                return times;
            }
            let _ = self.here.host.serve_balloon(self.cpu, self.here);
        }
        panic!("the device is never done");
    }

    /// Whether its line, that of INTID 48, is up: GICD_ISPENDR1.
    fn is_up(&self, vcpu: &mut Vcpu) -> bool {
        access(self.here, self.cpu, vcpu, GICD + 0x204, None) >> (flatland::devices::virtio_intid(0).0 - 32) & 1 != 0
    }

    /// How many frames its VM has.
    fn frames(&self) -> u64 {
        self.here.vm.memory.lock().resident().frames
    }

    fn reads(&self, page: u64) -> u64 {
        let (mut word, at) = ([0; 8], RAM_BASE + (page << 12));
        let mut memory = self.here.vm.memory.lock();
        // As its guest does: what is read for others of a page that is not there is zero.
        let _ = resolve(&mut memory, self.cpu, &self.here.host.pool, at, Access::Read);
        memory.read(self.cpu, &self.here.host.pool, at, &mut word).unwrap();
        u64::from_le_bytes(word)
    }
}

/// A VM of 8 MiB whose pages from 1024 on are written to, and its driver.
fn begin<'c, 'm>(cpu: &'c Cpu<'m>, host: &'static Host) -> Driver<'c, 'm> {
    run_all(host);
    let driver = Driver { cpu, here: here(host), made: [0; 3] };
    cpu.pace.set(1);
    // The pages of its rings and buffers are there, too.
    for at in (RINGS..RINGS + 0x6000).chain(BUFFER..BUFFER + 0x2000).step_by(4096) {
        driver.put(at, &[0]);
    }
    for page in 1024..1900_u64 {
        driver.put(page << 12, &page.to_le_bytes());
    }
    driver
}

const PLAN: BoardPlan<'_> = BoardPlan { pool: Some("12M"), ..BoardPlan::new(1, &["one"]) };

#[test]
fn pages_in_the_balloon_are_the_boards_and_come_back_empty() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &PLAN);
    let mut driver = begin(&cpu, host);
    let mut vcpu = driver.here.slot.vcpu.lock();
    cpu.load(driver.here, &vcpu);
    let vcpu = &mut *vcpu;
    // MagicValue, Version, DeviceID, QueueNumMax, ConfigGeneration.
    let identity = [0, 4, 8, 0x34, 0xfc].map(|offset| access(driver.here, &cpu, vcpu, VIRTIO + offset, None));
    assert_eq!(identity[..3], [0x7472_6976, 2, 5]);
    assert!(identity[3] >= 8 && identity[4] == 0);
    driver.start(vcpu, REPORTING, 0);
    let before = driver.frames();
    let free = host.pool.lock().counts().free;
    driver.pages(vcpu, INFLATE, 1024..1088);
    assert_eq!((driver.rest(), driver.used(INFLATE)), (0, 1));
    assert_eq!((before - driver.frames(), host.pool.lock().counts().free - free), (64, 64));
    assert_eq!((access(driver.here, &cpu, vcpu, INTERRUPT_STATUS, None), driver.is_up(vcpu)), (1, true));
    driver.set(vcpu, INTERRUPT_ACK, 1);
    assert_eq!((access(driver.here, &cpu, vcpu, INTERRUPT_STATUS, None), driver.is_up(vcpu)), (0, false));
    assert_eq!(host.pool.costs().of(flatland::frames::Work::Inflate).0, 64);
    assert_eq!(driver.here.vm.memory.lock().resident().ballooned, 64);
    // Back again: they are zeroes.
    driver.pages(vcpu, DEFLATE, 1024..1056);
    assert_eq!((driver.rest(), driver.used(DEFLATE)), (0, 1));
    assert_eq!(driver.here.vm.memory.lock().resident().ballooned, 32);
    assert_eq!((driver.reads(1030), driver.reads(1100)), (0, 1100));
    // More than is done at a time; it is all done in the end.
    let before = driver.frames();
    driver.pages(vcpu, INFLATE, 1100..1800);
    assert_eq!(driver.used(INFLATE), 1, "the rest is for later");
    assert!(driver.rest() >= 1);
    assert_eq!((driver.used(INFLATE), driver.frames()), (2, before - 700));
    assert_eq!((driver.reads(1099), driver.reads(1800)), (1099, 1800), "its neighbours stay");
}

#[test]
fn pages_that_are_reported_are_dropped_with_all_that_was_in_them() {
    for poison in [None, Some(0_u32), Some(0x5555_5555)] {
        let model = model();
        let cpu = Cpu::new(&model);
        let host = host_on(&model, &PLAN);
        let mut driver = begin(&cpu, host);
        let mut vcpu = driver.here.slot.vcpu.lock();
        cpu.load(driver.here, &vcpu);
        let vcpu = &mut *vcpu;
        driver.start(vcpu, REPORTING | if poison.is_some() { POISON } else { 0 }, poison.unwrap_or(0));
        let before = driver.frames();
        driver.send(vcpu, REPORT, RAM_BASE.bits() + (1200 << 12), 300 << 12, true);
        driver.rest();
        assert_eq!((before - driver.frames(), driver.used(REPORT)), (300, 1), "poison {poison:x?}");
        assert_eq!((driver.reads(1199), driver.reads(1500)), (1199, 1500), "its neighbours stay");
        // They read as what the guest said its free pages are full of.
        let word = u64::from(poison.unwrap_or(0));
        assert_eq!(driver.reads(1333), word << 32 | word, "poison {poison:x?}");
    }
}

#[test]
fn what_the_driver_does_wrong_is_its_own() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &PLAN);
    let mut driver = begin(&cpu, host);
    let mut vcpu = driver.here.slot.vcpu.lock();
    cpu.load(driver.here, &vcpu);
    let vcpu = &mut *vcpu;
    for (at, bytes) in [(0x1000, 64), (RAM_BASE.bits() + (8 << 20) - 4, 64)] {
        driver.start(vcpu, REPORTING, 0);
        driver.made = [0; 3];
        for n in 0..3 {
            driver.put(RINGS + n * 0x2000 + 0x1000, &[0; 0x900]);
        }
        assert_eq!(access(driver.here, &cpu, vcpu, STATUS, None), 15);
        // Page numbers that lie outside of RAM.
        driver.send(vcpu, INFLATE, at, bytes, false);
        driver.rest();
        // DEVICE_NEEDS_RESET.
        assert_eq!(access(driver.here, &cpu, vcpu, STATUS, None) & 64, 64, "{at:#x}");
    }
}

/// Lets a second pass, with what is due.
fn second(cpu: &Cpu<'_>, host: &Host) {
    let end = cpu.now() + SECOND;
    while cpu.now() < end {
        cpu.pass(SECOND / 10);
        manage(cpu, host);
    }
}

/// Has the operator command something. What is answered.
fn command(cpu: &Cpu<'_>, host: &Host, line: &str) -> String {
    let _ = shown(host);
    for byte in line.bytes().chain(*b"\r") {
        operator::typed(host, cpu, byte);
    }
    for _ in 0..100 {
        if !operator::go_on(host, cpu) {
            return shown(host);
        }
    }
    panic!("{line} is never answered");
}

#[test]
fn the_operators_word_is_the_drivers_target() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &BoardPlan { pool: Some("14M"), ..BoardPlan::new(1, &["one"]) });
    let mut driver = begin(&cpu, host);
    let mut vcpu = driver.here.slot.vcpu.lock();
    cpu.load(driver.here, &vcpu);
    let vcpu = &mut *vcpu;
    operator::typed(host, &cpu, 0x1d);
    let said = command(&cpu, host, "balloon one 2M");
    assert!(said.contains("no driver"), "{said}");
    driver.start(vcpu, REPORTING, 0);
    assert_eq!(access(driver.here, &cpu, vcpu, TARGET, None), 0);
    let said = command(&cpu, host, "balloon one 2M");
    assert!(said.contains("asking it for 2048 KiB"), "{said}");
    second(&cpu, host);
    // In pages; virtio's interrupt for a changed configuration.
    assert_eq!(access(driver.here, &cpu, vcpu, TARGET, None), 512);
    assert_eq!((access(driver.here, &cpu, vcpu, INTERRUPT_STATUS, None), driver.is_up(vcpu)), (2, true));
    driver.set(vcpu, INTERRUPT_ACK, 2);
    // It does as it is told, and is not told again.
    driver.pages(vcpu, INFLATE, 1024..1536);
    driver.rest();
    driver.set(vcpu, ACTUAL, 512);
    driver.set(vcpu, INTERRUPT_ACK, 3);
    second(&cpu, host);
    assert_eq!(access(driver.here, &cpu, vcpu, INTERRUPT_STATUS, None), 0);
    let said = command(&cpu, host, "balloon one -");
    assert!(said.contains("policy"), "{said}");
    for _ in 0..10 {
        second(&cpu, host);
        let target = access(driver.here, &cpu, vcpu, TARGET, None);
        driver.set(vcpu, ACTUAL, target);
    }
    assert_eq!(access(driver.here, &cpu, vcpu, TARGET, None), 0, "there is memory enough");
    // More than it has is all it has.
    assert!(command(&cpu, host, "balloon one 100M").contains("asking"));
    second(&cpu, host);
    assert_eq!(access(driver.here, &cpu, vcpu, TARGET, None), 2048);
    host.stop(&cpu, driver.here.vm, flatland::next::Cause::Off);
    while host.settle(&cpu) {}
    let said = command(&cpu, host, "balloon one 2M");
    assert!(said.contains("it does not run"), "{said}");
}
