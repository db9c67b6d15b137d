//! One vCPU's interrupts in a few lines, for the monitor and the crash report.

use super::{Bank, Vgic};
use crate::addr::VcpuId;
use core::fmt;

/// Shows what one vCPU sees: [`Vgic::view`].
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    vgic: &'a Vgic,
    vcpu: VcpuId,
}

impl Vgic {
    /// One vCPU's interrupts, to be displayed: a line for the vCPU, and one for each bank in which anything is enabled,
    /// pending or active.
    pub const fn view(&self, vcpu: VcpuId) -> View<'_> {
        View { vgic: self, vcpu }
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = usize::from(self.vcpu.0);
        let Some(local) = self.vgic.locals.get(cpu) else { return write!(f, "gic: no vcpu {}", self.vcpu) };
        let lists = if self.vgic.needs_fill(self.vcpu) { "stale" } else { "fresh" };
        write!(f, "gic {:?} vcpu {}: groups {:02b}, lists {lists}", self.vgic.version, self.vcpu, self.vgic.groups)?;
        bank(f, 0, &local.bank, u32::MAX)?;
        for (n, (shared, (mine, held))) in self.vgic.spis.iter().zip(local.mine.iter().zip(local.held)).enumerate() {
            bank(f, n + 1, &shared.bank, mine | held)?;
        }
        Ok(())
    }
}

fn bank(f: &mut fmt::Formatter<'_>, n: usize, bank: &Bank, mask: u32) -> fmt::Result {
    let (enabled, pending, active) = (bank.enabled & mask, bank.pending() & mask, bank.active & mask);
    if enabled | pending | active == 0 {
        return Ok(());
    }
    write!(
        f,
        "\n  {:3}.. enabled {enabled:08x} pending {pending:08x} line {:08x} active {active:08x} group1 {:08x} listed {:08x}",
        n * 32,
        bank.line & mask,
        bank.group & mask,
        bank.listed & mask
    )
}
