//! Physical interrupts: the board's GIC as EL2 uses it, and which of its interrupts is for what.
//!
//! Interrupts are masked at EL2: one that arrives in a guest is an exit, one that arrives elsewhere waits until the run loop
//! takes it ([`flatland::run`]). EOImode is 1: the end of an interrupt drops its priority, and does not deactivate it.

use super::mmio::{self, Mmio};
use super::mmu::MapError;
use super::sysreg::{dsb, isb, read, write};
use super::{lists, percpu, smp};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use flatland::addr::CpuId;
use flatland::devices::VIRTUAL_TIMER_INTID;
use flatland::run::Irq;
use platform::board::{Board, Gic};
use platform::gic::{Ack, Trigger, v2, v3};
use spin::Once;

/// Tells a CPU that one of its vCPU's requests was set.
const NUDGE: u32 = 0;
/// Tells a CPU to ask the queue.
const SIGNAL: u32 = 1;
/// The board's interrupt controller, mapped.
enum Controller {
    V2 { dist: Mmio<v2::Distributor>, cpu: Mmio<v2::CpuInterface>, hyp: Mmio<v2::VirtualInterface> },
    V3 { dist: Mmio<v3::Distributor> },
}

struct Shared {
    controller: Controller,
    /// GICv2: each CPU's bit, as the distributor numbers CPU interfaces.
    masks: [AtomicU8; smp::MAX],
    /// GICv3: each CPU's MPIDR.
    mpidrs: [AtomicU64; smp::MAX],
    /// GICv3: each CPU's redistributor.
    redistributors: [Once<Mmio<v3::Redistributor>>; smp::MAX],
    maintenance: u32,
    hyp_timer: u32,
    virtual_timer: u32,
    uart: Option<u32>,
}

static SHARED: Once<Shared> = Once::new();

fn shared() -> Option<&'static Shared> {
    SHARED.get()
}

/// The virtual interface's control registers, on GICv2.
#[inline(always)]
pub(crate) fn hyp() -> Option<&'static v2::VirtualInterface> {
    match shared()?.controller {
        Controller::V2 { hyp, .. } => Some(hyp.get()),
        Controller::V3 { .. } => None,
    }
}

/// Maps and initialises the board's interrupt controller, once.
pub(crate) fn init(board: &Board) -> Result<(), MapError> {
    // SAFETY: the device tree says which GIC lies where; drivers only touch its registers.
    let controller = unsafe {
        match &board.gic {
            Gic::V2 { dist, cpu, hyp, .. } => Controller::V2 {
                dist: mmio::registers(dist.start)?,
                cpu: mmio::registers(cpu.start)?,
                hyp: mmio::registers(hyp.start)?,
            },
            Gic::V3 { dist, redists, .. } => {
                for region in redists {
                    super::mmu::map_device(*region)?;
                }
                Controller::V3 { dist: mmio::registers(dist.start)? }
            }
        }
    };
    let uart = board.uart.as_ref().map(|uart| uart.irq);
    match &controller {
        Controller::V2 { dist, .. } => {
            dist.init();
            if let Some(irq) = uart {
                dist.set_trigger(irq, Trigger::Level);
                dist.set_target(irq, dist.own_mask());
                dist.enable(irq);
            }
        }
        Controller::V3 { dist } => {
            // A distributor that does not settle is reported by the silence of its interrupts; booting goes on.
            let _ = dist.init(smp::affinity());
            if let Some(irq) = uart {
                dist.set_trigger(irq, Trigger::Level);
                dist.set_route(irq, smp::affinity());
                dist.enable(irq);
            }
        }
    }
    let (Gic::V2 { maintenance, .. } | Gic::V3 { maintenance, .. }) = board.gic;
    SHARED.call_once(|| Shared {
        controller,
        masks: [const { AtomicU8::new(0) }; smp::MAX],
        mpidrs: [const { AtomicU64::new(0) }; smp::MAX],
        redistributors: [const { Once::new() }; smp::MAX],
        maintenance,
        hyp_timer: board.timer.hyp,
        virtual_timer: board.timer.virt,
        uart,
    });
    Ok(())
}

/// Initialises this CPU's part of the interrupt controller.
pub(crate) fn init_cpu(board: &Board, me: CpuId) -> Result<(), &'static str> {
    let shared = shared().ok_or("the interrupt controller was not initialised")?;
    let slot = usize::from(me.0);
    let own = [shared.maintenance, shared.hyp_timer, shared.virtual_timer];
    match (&shared.controller, &board.gic) {
        (Controller::V3 { .. }, Gic::V3 { redists, redist_stride, .. }) => {
            let mpidr = smp::affinity();
            let found = v3::find(redists, *redist_stride, mpidr, |base| {
                // SAFETY: `init` mapped the redistributor regions; `find` stays inside of them.
                unsafe { mmio::mapped::<v3::Redistributor>(base) }.get()
            });
            let (base, _) = found.ok_or("no redistributor is this CPU's")?;
            // SAFETY: as above.
            let frame = unsafe { mmio::mapped::<v3::Redistributor>(base) };
            frame.init().map_err(|_| "its redistributor does not wake up")?;
            for intid in own {
                frame.set_trigger(intid, Trigger::Level);
                frame.enable(intid);
            }
            if let Some(mine) = shared.redistributors.get(slot) {
                mine.call_once(|| frame);
            }
            if let Some(mine) = shared.mpidrs.get(slot) {
                mine.store(mpidr, Ordering::Release);
            }
            // System registers, for us and for EL1 (ICC_SRE_EL2: SRE, DFB, DIB, Enable; IHI 0069H 12.2.27).
            write!("S3_4_C12_C9_5", 0xf);
            isb();
            // ICC_PMR_EL1: everything passes. ICC_CTLR_EL1.EOImode: ending is not deactivating. ICC_IGRPEN1_EL1: on.
            write!("S3_0_C4_C6_0", 0xff);
            write!("S3_0_C12_C12_4", 1 << 1);
            write!("S3_0_C12_C12_7", 1);
            isb();
        }
        (Controller::V2 { dist, cpu, .. }, _) => {
            dist.init_cpu();
            for intid in own {
                dist.enable(intid);
            }
            cpu.init();
            if let Some(mine) = shared.masks.get(slot) {
                mine.store(dist.own_mask(), Ordering::Release);
            }
        }
        (Controller::V3 { .. }, Gic::V2 { .. }) => return Err("the board changed its interrupt controller"),
    }
    lists::init();
    Ok(())
}

fn send(cpu: CpuId, intid: u32) {
    let Some(shared) = shared() else { return };
    // What was written for the other CPU is seen before the interrupt is.
    dsb();
    match &shared.controller {
        Controller::V2 { dist, .. } => {
            if let Some(mask) = shared.masks.get(usize::from(cpu.0)) {
                dist.send_sgi(mask.load(Ordering::Acquire), intid);
            }
        }
        Controller::V3 { .. } => {
            if let Some(mpidr) = shared.mpidrs.get(usize::from(cpu.0)) {
                write!("S3_0_C12_C11_5", v3::sgi1r(mpidr.load(Ordering::Acquire), intid));
                isb();
            }
        }
    }
}

/// Makes `cpu` ask the queue.
pub(crate) fn signal(cpu: CpuId) {
    send(cpu, SIGNAL);
}

/// Makes `cpu` look at its vCPU's requests.
pub(crate) fn nudge(cpu: CpuId) {
    send(cpu, NUDGE);
}

/// Sets or clears the active state of a private interrupt of this CPU.
fn set_active(intid: u32, active: bool) {
    let Some(shared) = shared() else { return };
    match &shared.controller {
        Controller::V2 { dist, .. } if active => dist.set_active(intid),
        Controller::V2 { dist, .. } => dist.clear_active(intid),
        Controller::V3 { .. } => {
            let mine = shared.redistributors.get(usize::from(percpu::cpu().0)).and_then(Once::get);
            match mine {
                Some(frame) if active => frame.set_active(intid),
                Some(frame) => frame.clear_active(intid),
                None => {}
            }
        }
    }
    dsb();
}

/// Makes the physical virtual-timer interrupt of this CPU active or not.
pub(crate) fn set_timer_active(active: bool) {
    if let Some(shared) = shared() {
        set_active(shared.virtual_timer, active);
    }
}

/// Makes a private interrupt of this CPU, as the virtual board numbers it, inactive.
pub(crate) fn release(intid: u32) {
    if intid == VIRTUAL_TIMER_INTID.0 {
        set_timer_active(false);
    }
}

/// Acknowledges the next interrupt: what it is for, and what ending it takes.
#[inline(always)]
pub(crate) fn acknowledge() -> Option<(Irq, Ack)> {
    let shared = shared()?;
    let ack = match &shared.controller {
        Controller::V2 { cpu, .. } => cpu.ack()?,
        Controller::V3 { .. } => {
            // INTIDs of SGIs, PPIs and SPIs have 10 bits.
            let ack = Ack::new(read!("S3_0_C12_C12_0") as u32)?;
            dsb();
            ack
        }
    };
    let intid = ack.intid();
    let irq = match intid {
        NUDGE => Irq::Nudge,
        SIGNAL => Irq::Signal,
        _ if intid == shared.hyp_timer => Irq::Deadline,
        _ if intid == shared.virtual_timer => Irq::VirtualTimer,
        _ if intid == shared.maintenance => Irq::Maintenance,
        _ if Some(intid) == shared.uart => Irq::Uart,
        _ => Irq::Other,
    };
    Some((irq, ack))
}

/// Ends an interrupt, and deactivates it unless its guest will.
#[inline(always)]
pub(crate) fn end(ack: Ack, deactivate: bool) {
    let Some(shared) = shared() else { return };
    match &shared.controller {
        Controller::V2 { cpu, .. } => {
            cpu.eoi(ack);
            if deactivate {
                cpu.deactivate(ack);
            }
        }
        Controller::V3 { .. } => {
            write!("S3_0_C12_C12_1", u64::from(ack.raw()));
            if deactivate {
                write!("S3_0_C12_C11_1", u64::from(ack.raw()));
            }
            isb();
        }
    }
}

/// Whether an interrupt waits for this CPU.
pub(crate) fn is_pending() -> bool {
    // At EL2 these are the physical ones, whatever HCR_EL2 says (Arm ARM D24.2.82).
    read!("isr_el1") & (1 << 7) != 0
}
