//! The interrupt controller, GICv2 or GICv3 as the device tree says, behind one set of functions.
//!
//! Set up as Linux does without security: one group, priorities in steps of 8 so that 5 bits suffice. Interrupts below
//! 32 are this CPU's own. Follows IHI 0048B (GICv2) and IHI 0069H (GICv3).

mod v2;
mod v3;

use crate::{args, board, cpu, mmio};

/// No interrupt: what an acknowledge gives when there is none.
pub const SPURIOUS: u32 = 1023;
/// The lowest priority mask: everything comes through.
pub const ALL_PRIORITIES: u8 = 0xff;
/// What [`init`] gives every interrupt.
pub const DEFAULT_PRIORITY: u8 = 0xa0;

/// Distributor register: control.
pub const CTLR: u64 = 0x000;
/// Distributor register: type.
pub const TYPER: u64 = 0x004;
/// Distributor register: implementer.
pub const IIDR: u64 = 0x008;
/// Group, one bit an interrupt.
pub const IGROUPR: u64 = 0x080;
/// Set-enable.
pub const ISENABLER: u64 = 0x100;
/// Clear-enable.
pub const ICENABLER: u64 = 0x180;
/// Set-pending.
pub const ISPENDR: u64 = 0x200;
/// Clear-pending.
pub const ICPENDR: u64 = 0x280;
/// Set-active.
pub const ISACTIVER: u64 = 0x300;
/// Clear-active.
pub const ICACTIVER: u64 = 0x380;
/// Priority, a byte an interrupt.
pub const IPRIORITYR: u64 = 0x400;
/// Targets (GICv2), a byte an interrupt.
pub const ITARGETSR: u64 = 0x800;
/// Configuration, two bits an interrupt.
pub const ICFGR: u64 = 0xc00;

/// Who is to get an SGI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The sender.
    Me,
    /// One CPU, by index.
    Cpu(usize),
    /// All but the sender.
    Others,
}

/// How an interrupt line is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Pending while the line is up.
    Level,
    /// Pending from the rise of the line on.
    Edge,
}

/// What ending an interrupt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndMode {
    /// Priority drop and deactivation in one.
    Both,
    /// Priority drop only; [`deactivate`] does the rest.
    DropOnly,
}

/// An acknowledged interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The register as it was read: what has to be written to end it.
    pub raw: u32,
    /// The interrupt.
    pub intid: u32,
}

impl Taken {
    /// Returns which CPU interface sent this SGI (GICv2 only, else 0).
    pub fn source(self) -> u32 {
        if is_v2() { self.raw >> 10 & 7 } else { 0 }
    }
}

/// Returns whether the controller is a GICv2.
#[inline(always)]
pub fn is_v2() -> bool {
    args::gic_version() == 2
}

/// Calls the function of the version that is there.
macro_rules! by_version {
    ($function:ident($($argument:expr),*)) => {
        if is_v2() { v2::$function($($argument),*) } else { v3::$function($($argument),*) }
    };
}

/// Returns the address of a register of the bank that holds this interrupt.
fn bank(intid: u32, offset: u64) -> u64 {
    if intid < 32 && !is_v2() { v3::own_frame() + 0x1_0000 + offset } else { board::GICD + offset }
}

fn bit_register(intid: u32, offset: u64) -> u64 {
    bank(intid, offset) + u64::from(intid / 32) * 4
}

fn set(intid: u32, offset: u64) {
    mmio::write32(bit_register(intid, offset), 1 << (intid % 32));
}

fn get(intid: u32, offset: u64) -> bool {
    mmio::read32(bit_register(intid, offset)) >> (intid % 32) & 1 != 0
}

/// Sets up the distributor, and the CPU interface of this CPU, with all interrupts disabled.
pub fn init() {
    mmio::write32(board::GICD + CTLR, 0);
    by_version!(wait_distributor());
    for intid in (32..n_interrupts()).step_by(32) {
        if !is_v2() {
            mmio::write32(board::GICD + IGROUPR + u64::from(intid / 8), !0);
        }
        for clear in [ICENABLER, ICPENDR, ICACTIVER] {
            mmio::write32(board::GICD + clear + u64::from(intid / 8), !0);
        }
    }
    for intid in 32..n_interrupts() {
        if intid % 16 == 0 {
            mmio::write32(board::GICD + ICFGR + u64::from(intid / 4), 0);
        }
        set_priority(intid, DEFAULT_PRIORITY);
        set_target(intid, 0);
    }
    by_version!(enable_distributor());
    by_version!(wait_distributor());
    init_cpu();
}

/// Sets up this CPU's own interrupts (all disabled) and its CPU interface.
pub fn init_cpu() {
    by_version!(wake());
    for clear in [ICENABLER, ICPENDR, ICACTIVER] {
        mmio::write32(bank(0, clear), !0);
    }
    for intid in 0..32 {
        set_priority(intid, DEFAULT_PRIORITY);
    }
    mmio::write32(bank(16, ICFGR) + 4, 0);
    by_version!(enable_interface());
    set_mask(ALL_PRIORITIES);
}

/// Returns the number of interrupts the distributor has, its own 32 for each CPU included.
pub fn n_interrupts() -> u32 {
    ((mmio::read32(board::GICD + TYPER) & 31) + 1).saturating_mul(32).min(1020)
}

/// Enables an interrupt.
pub fn enable(intid: u32) {
    set(intid, ISENABLER);
}

/// Disables an interrupt, and waits until that has taken effect.
pub fn disable(intid: u32) {
    set(intid, ICENABLER);
    by_version!(wait_distributor());
}

/// Returns whether an interrupt is enabled.
pub fn is_enabled(intid: u32) -> bool {
    get(intid, ISENABLER)
}

/// Makes an interrupt pending. A GICv2 has no such register for SGIs: there, the sender is CPU interface 0.
pub fn set_pending(intid: u32) {
    if intid < 16 && is_v2() {
        mmio::write8(board::GICD + v2::SPENDSGIR + u64::from(intid), 1);
    } else {
        set(intid, ISPENDR);
    }
}

/// Makes an interrupt not pending.
pub fn clear_pending(intid: u32) {
    if intid < 16 && is_v2() {
        mmio::write8(board::GICD + v2::CPENDSGIR + u64::from(intid), 0xff);
    } else {
        set(intid, ICPENDR);
    }
}

/// Returns whether an interrupt is pending.
pub fn is_pending(intid: u32) -> bool {
    get(intid, ISPENDR)
}

/// Makes an interrupt active.
pub fn set_active(intid: u32) {
    set(intid, ISACTIVER);
}

/// Makes an interrupt inactive.
pub fn clear_active(intid: u32) {
    set(intid, ICACTIVER);
}

/// Returns whether an interrupt is active.
pub fn is_active(intid: u32) -> bool {
    get(intid, ISACTIVER)
}

/// Sets the priority of an interrupt: lower is more urgent.
pub fn set_priority(intid: u32, priority: u8) {
    mmio::write8(bank(intid, IPRIORITYR) + u64::from(intid), priority);
}

/// Returns the priority of an interrupt.
pub fn priority(intid: u32) -> u8 {
    mmio::read8(bank(intid, IPRIORITYR) + u64::from(intid))
}

/// Sets how the line of an interrupt is read.
pub fn set_trigger(intid: u32, trigger: Trigger) {
    let address = bank(intid, ICFGR) + u64::from(intid / 16) * 4;
    let bit = 2 << (intid % 16 * 2);
    let others = mmio::read32(address) & !bit;
    mmio::write32(address, if trigger == Trigger::Edge { others | bit } else { others });
}

/// Returns how the line of an interrupt is read.
pub fn trigger(intid: u32) -> Trigger {
    match mmio::read32(bank(intid, ICFGR) + u64::from(intid / 16) * 4) >> (intid % 16 * 2) & 2 {
        0 => Trigger::Level,
        _ => Trigger::Edge,
    }
}

/// Sends an SPI to a CPU.
pub fn set_target(intid: u32, index: usize) {
    by_version!(set_target(intid, index));
}

/// Returns whether this SPI goes to this CPU, and to no other.
pub fn is_target(intid: u32, index: usize) -> bool {
    by_version!(is_target(intid, index))
}

/// Sends an SGI.
#[inline(always)]
pub fn send(intid: u32, to: To) {
    by_version!(send(intid, to));
}

/// Acknowledges the most urgent pending interrupt: it becomes active and is this CPU's to end.
#[inline(always)]
pub fn acknowledge() -> Taken {
    by_version!(acknowledge())
}

/// Ends an interrupt: priority drop, and deactivation unless [`EndMode::DropOnly`].
#[inline(always)]
pub fn end(taken: Taken) {
    by_version!(end(taken));
}

/// Deactivates an interrupt whose priority was dropped.
pub fn deactivate(taken: Taken) {
    by_version!(deactivate(taken));
}

/// Sets what [`end`] does on this CPU.
pub fn set_end_mode(mode: EndMode) {
    by_version!(set_end_mode(mode));
}

/// Lets through only what is more urgent than `priority`.
pub fn set_mask(priority: u8) {
    by_version!(set_mask(priority));
}

/// Returns the priority mask.
pub fn mask() -> u8 {
    by_version!(mask())
}

/// Sets where a priority is cut into group (preempts) and subgroup (does not).
pub fn set_binary_point(point: u32) {
    by_version!(set_binary_point(point));
}

/// Returns the binary point.
pub fn binary_point() -> u32 {
    by_version!(binary_point())
}

/// Returns the priority of what is running; 0xff when nothing is.
pub fn running_priority() -> u8 {
    by_version!(running_priority())
}

/// Returns what an acknowledge would give, without taking it.
pub fn highest_pending() -> u32 {
    by_version!(highest_pending())
}

/// Disables everything of this CPU's and ends what is active: for the end of a test.
pub fn quiesce() {
    cpu::mask();
    loop {
        let taken = acknowledge();
        if taken.intid >= 1020 {
            break;
        }
        end(taken);
    }
    init();
}
