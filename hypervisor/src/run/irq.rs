//! Physical interrupts: taken between the steps of a CPU, in batches, and what each is for.
//!
//! EOImode is 1: the end of an interrupt drops its priority, and the virtual timer's stays active until its guest ends it.

use super::{Cpu, Irq};
use crate::host::{Here, Host};
use crate::hwstate::lists;
use crate::next::Next;
use crate::vcpu::Vcpu;
use crate::vm::request;
use core::sync::atomic::Ordering;

/// How many interrupts are taken at one exit, so that it ends.
const BATCH: usize = 16;

/// Takes the interrupts that wait for this CPU, on which a vCPU is `loaded` or none.
#[inline(never)]
pub(super) fn take<C: Cpu>(host: &Host, m: &C, mut loaded: Option<(Here<'_>, &mut Vcpu)>) -> Next {
    let mut next = Next::Resume;
    for _ in 0..BATCH {
        let Some((irq, ack)) = m.acknowledge() else { break };
        match irq {
            // The request is seen before its vCPU runs again.
            Irq::Nudge | Irq::Other => {}
            Irq::Signal => next = Next::Reschedule,
            Irq::Deadline => {
                m.set_deadline(None);
                next = Next::Reschedule;
            }
            Irq::Uart => {
                m.serve_uart(host);
                next = Next::Reschedule;
            }
            Irq::VirtualTimer | Irq::Maintenance => {
                if let Some((here, vcpu)) = &mut loaded {
                    of_vcpu(*here, m, vcpu, irq);
                }
            }
        }
        // After its cause is gone: levels would come again. The virtual timer's is its vCPU's to deactivate, if there is one.
        m.end(ack, loaded.is_none() || irq != Irq::VirtualTimer);
        if irq == Irq::Maintenance {
            // Its cause goes as the lists are filled, before the vCPU runs again: until then it would be all that comes.
            break;
        }
    }
    next
}

/// An interrupt that is about the loaded vCPU, whose lists have to be filled.
fn of_vcpu<C: Cpu>(here: Here<'_>, m: &C, vcpu: &mut Vcpu, irq: Irq) {
    if irq == Irq::VirtualTimer {
        lists::timer(here, vcpu);
    }
    here.slot.requests.fetch_or(request::REFILL, Ordering::Relaxed);
    if irq == Irq::VirtualTimer {
        // If it waits, it has to be woken; the queue knows.
        here.host.queue.wake(m, here.slot.entity);
    }
}
