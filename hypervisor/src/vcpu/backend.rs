//! How a virtual EL2 runs on the CPU: by FEAT_NV2 ([`super::nv2`]) or without, as a program at EL0 ([`super::el0`]).
//!
//! The two differ in where its own registers are while it runs, and in what of it traps. Who handles such a vCPU asks here, by what a
//! register is.

use super::Traps;
use super::el0_state::El0;
use super::nested::{Backend, Nested, Own, World, page};
use super::{el0, nv2};
use crate::arm::el1::{Context, El1};
use crate::arm::exception::psr;
use crate::arm::vncr::CPTR_RESET;
use crate::machine::Machine;

impl Nested {
    /// What there is of a virtual EL2 at EL0 besides; nothing with FEAT_NV2.
    #[inline(always)]
    pub const fn el0(&self) -> Option<&El0> {
        match &self.backend {
            Backend::Nv2 => None,
            Backend::El0(el0) => Some(el0),
        }
    }

    /// As after a reset.
    pub fn reset(&mut self) {
        let mut backend = self.backend.clone();
        if let Backend::El0(el0) = &mut backend {
            *el0 = el0.reset();
        }
        *self = Self::new(backend, self.version, self.page, self.lists);
    }

    /// EL1's registers as they are after a reset, where virtual EL2 needs others there than `context` has.
    pub fn reset_el1(&self, context: &mut Context) {
        match &self.backend {
            Backend::Nv2 => context.set(El1::Cpacr, Self::as_el1(Own::Cptr, CPTR_RESET)),
            Backend::El0(el0) => el0::reset_el1(el0, context),
        }
    }

    /// A register of virtual EL2 that is not in the page, while it runs.
    #[inline(always)]
    pub fn read_own<M: Machine>(&self, m: &M, register: Own) -> u64 {
        match self.backend {
            Backend::Nv2 => nv2::read_own(self, m, register),
            Backend::El0(_) => self.own(m, register),
        }
    }

    /// Sets such a register.
    #[inline(always)]
    pub fn write_own<M: Machine>(&mut self, m: &M, register: Own, value: u64) {
        match self.backend {
            Backend::Nv2 => nv2::write_own(self, m, register, value),
            Backend::El0(_) => el0::write_own(self, m, register, value),
        }
    }

    /// VBAR_EL2 and SCTLR_EL2, while virtual EL2 runs: of SCTLR_EL2, what exceptions that it takes depend on.
    #[inline(always)]
    pub fn vectors<M: Machine>(&self, m: &M) -> (u64, u64) {
        match self.backend {
            Backend::Nv2 => nv2::vectors(self, m),
            Backend::El0(_) => el0::vectors(self, m),
        }
    }

    /// ELR_EL2 and SPSR_EL2, while virtual EL2 runs.
    #[inline(always)]
    pub fn link<M: Machine>(&self, m: &M) -> (u64, u64) {
        match self.backend {
            Backend::Nv2 => (m.get(El1::Elr), m.get(El1::Spsr)),
            Backend::El0(_) => (self.own(m, Own::Elr), self.own(m, Own::Spsr)),
        }
    }

    /// Sets ELR_EL2 and SPSR_EL2, while virtual EL2 runs.
    #[inline(always)]
    pub fn set_link<M: Machine>(&mut self, m: &M, elr: u64, spsr: u64) {
        match self.backend {
            Backend::Nv2 => {
                m.set(El1::Elr, elr);
                m.set(El1::Spsr, spsr);
            }
            Backend::El0(_) => {
                self.set_own(m, Own::Elr, elr);
                self.set_own(m, Own::Spsr, spsr);
            }
        }
    }

    /// Sets ESR_EL2 and FAR_EL2, while virtual EL2 runs.
    #[inline(always)]
    pub fn set_syndrome<M: Machine>(&mut self, m: &M, esr: u64, far: u64) {
        match self.backend {
            Backend::Nv2 => {
                m.set(El1::Esr, esr);
                m.set(El1::Far, far);
            }
            Backend::El0(_) => {
                self.set_own(m, Own::Esr, esr);
                self.set_own(m, Own::Far, far);
            }
        }
    }

    /// Sets PAR_EL1, while virtual EL2 runs.
    pub fn set_par<M: Machine>(&self, m: &M, value: u64) {
        match self.backend {
            Backend::Nv2 => m.set(El1::Par, value),
            Backend::El0(_) => self.write(m, page::PAR, value),
        }
    }

    /// EL2's own control registers while virtual EL2 runs, on a CPU whose MIDR_EL1 is `midr`.
    #[inline(always)]
    pub fn traps_of_hypervisor(&self, midr: u64) -> Traps {
        match self.backend {
            Backend::Nv2 => nv2::traps_of_hypervisor(self, midr),
            Backend::El0(_) => el0::traps(midr),
        }
    }

    /// Makes EL1's registers for the hypervisor, which is to run again, ready in [`Nested::hypervisor_el1`].
    #[inline(always)]
    pub fn fetch_hypervisor<M: Machine>(&mut self, m: &M) {
        match self.backend {
            Backend::Nv2 => nv2::fetch_hypervisor(self, m),
            Backend::El0(_) => el0::fetch_hypervisor(self, m),
        }
    }

    /// What PSTATE is on the CPU for a virtual EL2 with `state`, whose mode does not count, that uses SP_EL2 (`own_stack`) or SP_EL0.
    #[inline(always)]
    pub fn run_at_el2<M: Machine>(&mut self, m: &M, state: u64, own_stack: bool) -> u64 {
        let state = state & !psr::MODE;
        match self.backend {
            Backend::Nv2 => state | if own_stack { psr::EL1H } else { psr::EL1T },
            Backend::El0(_) => {
                self.select_stack(m, own_stack);
                state | psr::EL0T
            }
        }
    }

    /// PSTATE on the CPU, as it would be if virtual EL2 ran at EL1.
    #[inline(always)]
    pub fn at_el1(&self, pstate: u64) -> u64 {
        match (&self.backend, &self.world) {
            (Backend::El0(el0), World::Hypervisor) => {
                pstate & !psr::MODE | if el0.own_stack { psr::EL1H } else { psr::EL1T }
            }
            _ => pstate,
        }
    }
}
