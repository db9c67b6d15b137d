//! The virtual interrupt controller of one VM: GICv2 or GICv3, as pure state.
//!
//! [`Vgic`] holds every interrupt's state as bits, a word per bank of 32: banks of private interrupts per vCPU
//! (`Local`), banks of SPIs for all (`Shared`). What a guest writes to GICD and GICR changes the words ([`dist`],
//! [`redist`], `words`); [`Vgic::fill`] makes list registers of them and [`Vgic::fold`] takes those back ([`cpu`]).
//! The CPU interface itself is hardware: ICV_* registers, or the GICV page.
//!
//! # Who must do what
//!
//! - The [`Lists`] of a vCPU stay in hardware as long as nothing changes. [`Vgic::needs_fill`] says that something did:
//!   copy them (and the EOIcount of ICH_HCR_EL2) back, [`Vgic::refill`] with the [`Mask`](crate::arm::gic::Mask) that
//!   VMCR says now, write lists and HCR again. The same after a maintenance interrupt, and a fold whenever the vCPU is
//!   unloaded or waits.
//! - Before an access for which [`Vgic::touches_state`] holds: fold the vCPU that makes it.
//! - [`Kicks`](crate::next::Kicks) name the vCPUs whose lists are out of date, the accessing one perhaps among them.
//! - For interrupts mapped to physical ones ([`Vgic::map_hw`]): after a fold, and before the next fill, tell the level
//!   with [`Vgic::set_line`] if it fell, and make the physical interrupt's active state what [`Vgic::hw_active`] says.
//! - Writes of DIR (ICC_DIR_EL1 traps by TDIR; GICC_DIR lies in a page of its own, to be left unmapped): fold, then
//!   [`Vgic::deactivate`]. The hardware cannot find an interrupt that had no room in the lists.
//!
//! # Invariants
//!
//! - `listed` is set exactly for the entries of some vCPU's lists; an interrupt is in one list at most.
//! - What a list carries is taken out of `latch` (or `line`, if mapped) and remembered in `lent` (`lent_line`): whatever
//!   comes on top while the list is in hardware is kept apart, and folding merges. Nothing is lost or taken twice.
//! - An SPI that is active or listed has a `holder`, the vCPU it must come back to, whatever its target is now.
//!
//! # Known limits
//!
//! - Reads of ISPENDR and ISACTIVER do not stop other vCPUs: what their lists say of an SPI is seen after their next fold.
//! - Ends of interrupts that had no room are matched by the priority they were taken at. A guest that makes one inactive
//!   by ICACTIVER and ends it nevertheless, while more are active than there are list registers, ends another.
//!
//! Follows IHI 0048B (GICv2) and IHI 0069H (GICv3), with one security state, no LPIs and no 1-of-N routing.

pub mod cpu;
pub mod dist;
pub mod redist;
mod show;
mod state;
mod v2;
mod v3;
mod words;

pub use cpu::Lists;
pub use show::View;
use state::{Bank, NOBODY, SGIS, bits, place};
pub use state::{Line, Vgic};
