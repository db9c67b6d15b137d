//! What a vCPU has besides when it has an EL2 of its own.
//!
//! Such a vCPU is in one of two worlds on the CPU's EL1: its *hypervisor* (virtual EL2 and, with TGE, its EL0; KVM:
//! `is_hyp_ctxt`), or the *guest* of that (virtual EL1 and EL0). EL1's registers on the CPU are those of whoever runs. The other's are here: the
//! hypervisor's in [`Nested::hypervisor_el1`]; the guest's in the page that VNCR_EL2 names, where the hypervisor reads and writes
//! them without leaving, as it does with those registers of EL2 that only matter when the guest runs.
//!
//! What the hypervisor writes there is seen by us when we look: HCR_EL2 above all. Whether it runs with E2H decides what its
//! accesses mean to the hardware (HCR_EL2.NV1), so a change of that bit is acted on at the next exit. Until its first
//! ERET to a guest its writes of EL1's translation registers are exits for that purpose ([`Nested::settled`]).

use crate::addr::{Addr, Pa};
use crate::arm::el1::{Context, El1};
use crate::arm::esr::ec;
use crate::arm::gic::{self, Version};
pub use crate::arm::trap::hcr;
use crate::arm::vncr::{CPTR_RESET, SCTLR_RESET};
pub use crate::arm::vncr::{Own, page};
use crate::machine::{Machine, Words};
use crate::memory::Root;
use crate::vcpu::el0_state::El0;
use crate::vcpu::{Interface, Timer};
use core::sync::atomic::Ordering::Relaxed;

macro_rules! guests {
    ($($register:ident = $offset:expr),* $(,)?) => {
        /// Takes the guest's EL1 registers out of the page, where they lie while the hypervisor runs. CNTV_* among them.
        fn take_guest(words: &Words, context: &mut Context) {
            $(context.set(El1::$register, words[const { $offset as usize >> 3 }].load(Relaxed));)*
        }

        /// Puts them there.
        fn put_guest(words: &Words, context: &Context) {
            $(words[const { $offset as usize >> 3 }].store(context.get(El1::$register), Relaxed);)*
        }
    };
}

guests! {
    Cpacr = page::CPACR, Contextidr = page::CONTEXTIDR, Sctlr = page::SCTLR, Tcr = page::TCR, Afsr0 = page::AFSR0,
    Afsr1 = page::AFSR1, Esr = page::ESR, Mair = page::MAIR, Amair = page::AMAIR, Spsr = page::SPSR,
    CntvCval = page::CNTV_CVAL, CntvCtl = page::CNTV_CTL, Ttbr0 = page::TTBR0, Ttbr1 = page::TTBR1, Far = page::FAR,
    Elr = page::ELR, SpEl1 = page::SP_EL1, Vbar = page::VBAR,
}

macro_rules! common {
    ($($register:ident),*) => {
        /// Takes from the CPU what both worlds see the same.
        pub(super) fn share<M: Machine>(m: &M, context: &mut Context) {
            $(context.set(El1::$register, m.get(El1::$register));)*
        }
    };
}

common!(SpEl0, TpidrEl0, TpidrroEl0, TpidrEl1, Par, Csselr, Mdscr);

/// How a virtual EL2 runs.
#[derive(Clone, Debug)]
pub enum Backend {
    /// At EL1, with the help of FEAT_NV2.
    Nv2,
    /// At EL0.
    El0(El0),
}

/// Which of a vCPU's two worlds is on the CPU.
#[derive(Debug)]
pub enum World {
    /// Virtual EL2.
    Hypervisor,
    /// Virtual EL1.
    Guest(Guest),
}

/// What there is of a guest while it runs.
#[derive(Debug, Default)]
pub struct Guest {
    /// What its memory is entered by, where it has a stage 2 of its hypervisor's.
    pub shadow: Option<Root>,
    /// The page that its hypervisor's VNCR_EL2 names, where it has an EL2 of its own.
    pub page: Option<Addr<Pa>>,
    /// Whether the CPU's virtual interrupt interface is its: the hypervisor takes interrupts itself (IMO).
    pub lends_interface: bool,
}

/// The page that VNCR_EL2 names: a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page(pub Addr<Pa>);

impl Page {
    /// A register in the page.
    #[inline(always)]
    pub fn read<M: Machine>(self, m: &M, offset: u64) -> u64 {
        m.frame(self.0).get((offset >> 3) as usize).map_or(0, |word| word.load(Relaxed))
    }

    /// Sets a register in the page.
    #[inline(always)]
    pub fn write<M: Machine>(self, m: &M, offset: u64, value: u64) {
        if let Some(word) = m.frame(self.0).get((offset >> 3) as usize) {
            word.store(value, Relaxed);
        }
    }
}

/// What a vCPU with an EL2 of its own has besides.
#[derive(Debug)]
pub struct Nested {
    /// How its EL2 runs on the CPU.
    pub backend: Backend,
    /// The version of its interrupt controller, by whose format the list registers in the page are.
    pub version: Version,
    /// The page that VNCR_EL2 names.
    pub page: Page,
    /// The bits that there are of HCR_EL2.
    hcr_bits: u64,
    /// Which world is on the CPU.
    pub world: World,
    /// Whether EL1's registers on the CPU are arranged for a hypervisor with HCR_EL2.E2H set.
    pub vhe: bool,
    /// Whether it has entered a guest since its reset.
    pub settled: bool,
    /// The hypervisor's EL1 registers while the guest runs.
    pub hypervisor_el1: Context,
    /// The guest's on their way between CPU and page.
    pub guest_el1: Context,
    /// EL2's physical timer.
    pub hp: Timer,
    /// EL2's virtual timer while it is not on the CPU.
    pub hv: Timer,
    /// How many list registers there are.
    pub lists: u8,
    /// Until when the CPU's own timer watches those of its timers that are not on the CPU: all ones if there is no need.
    pub watched: u64,
    /// How many of the guest's list registers are on the CPU.
    pub lent: usize,
    /// Room for them.
    pub lr: [u64; 16],
    /// The interrupts whose lines were up when they were set last: bit n for INTID 16 + n.
    pub lines: u16,
}

/// Bits of HCR_EL2 that a hypervisor at EL0 does not have: VHE and nested virtualization.
const ABSENT_AT_EL0: u64 = hcr::E2H | hcr::NV | hcr::NV1 | hcr::AT | hcr::NV2;
/// The interrupts whose lines follow from its registers: INTIDs 25 to 28, and 30. After a reset all are set anew.
const LINES: u16 = 0b0101_1110_0000_0000;
/// CurrentEL at EL2.
const CURRENT_EL: u64 = 2 << 2;

impl Nested {
    /// As after a reset, with the page at `page`, which the caller clears.
    pub fn new(backend: Backend, version: Version, page: Page, lists: u8) -> Self {
        let hcr_bits = match backend {
            Backend::Nv2 => u64::MAX,
            Backend::El0(_) => !ABSENT_AT_EL0,
        };
        Self {
            backend,
            version,
            page,
            hcr_bits,
            world: World::Hypervisor,
            vhe: false,
            settled: false,
            hypervisor_el1: Context::reset(),
            guest_el1: Context::zeroed(),
            hp: Timer::default(),
            hv: Timer::default(),
            lists,
            watched: 0,
            lent: 0,
            lr: [0; 16],
            lines: LINES,
        }
    }

    /// Clears the page and gives its registers their reset values. The guest's EL1 registers among them.
    pub fn reset_page<M: Machine>(&self, m: &M, midr: u64, mpidr: u64) {
        m.zero(self.page.0, 1);
        put_guest(m.frame(self.page.0), &Context::reset());
        self.write(m, page::HCR, 0);
        self.write(m, page::VPIDR, midr);
        self.write(m, page::VMPIDR, mpidr);
        self.set_own(m, Own::Sctlr, SCTLR_RESET);
        self.set_own(m, Own::Cptr, CPTR_RESET);
        self.write(m, page::MIDR, midr);
        self.write(m, page::MPIDR, mpidr);
        self.write(m, page::CURRENT_EL, CURRENT_EL);
    }

    /// A register in the page.
    #[inline(always)]
    pub fn read<M: Machine>(&self, m: &M, offset: u64) -> u64 {
        self.page.read(m, offset)
    }

    /// Sets a register in the page.
    #[inline(always)]
    pub fn write<M: Machine>(&self, m: &M, offset: u64, value: u64) {
        self.page.write(m, offset, value);
    }

    /// A register of EL2's own as the page has it. Where EL1's registers have it while the hypervisor runs with E2H, this is not it.
    #[inline(always)]
    pub fn own<M: Machine>(&self, m: &M, register: Own) -> u64 {
        self.read(m, register.offset())
    }

    /// Sets it in the page, and nothing else.
    #[inline(always)]
    pub fn set_own<M: Machine>(&self, m: &M, register: Own, value: u64) {
        self.write(m, register.offset(), value);
    }

    /// EL1's virtual timer as the page has it, by its own counter.
    #[inline(always)]
    pub fn virtual_timer<M: Machine>(&self, m: &M) -> Timer {
        Timer { ctl: self.read(m, page::CNTV_CTL), cval: self.read(m, page::CNTV_CVAL) }
    }

    /// EL1's physical timer as the page has it.
    #[inline(always)]
    pub fn physical_timer<M: Machine>(&self, m: &M) -> Timer {
        Timer { ctl: self.read(m, page::CNTP_CTL), cval: self.read(m, page::CNTP_CVAL) }
    }

    /// Puts EL1's physical timer into the page.
    #[inline(always)]
    pub fn set_physical_timer<M: Machine>(&self, m: &M, timer: Timer) {
        self.write(m, page::CNTP_CTL, timer.ctl);
        self.write(m, page::CNTP_CVAL, timer.cval);
    }

    /// HCR_EL2 as the hypervisor has it.
    #[inline(always)]
    pub fn hcr<M: Machine>(&self, m: &M) -> u64 {
        self.read(m, page::HCR) & self.hcr_bits
    }

    /// Sets it.
    pub fn write_hcr<M: Machine>(&self, m: &M, value: u64) {
        self.write(m, page::HCR, value & self.hcr_bits);
    }

    /// Whether EL0 is the hypervisor's own (HCR_EL2.E2H and TGE).
    #[inline(always)]
    pub fn is_host<M: Machine>(&self, m: &M) -> bool {
        const BOTH: u64 = hcr::E2H | hcr::TGE;
        self.hcr(m) & BOTH == BOTH
    }

    /// Whether an exception from EL1 to EL1 says that it came from EL2: for a hypervisor that runs there, ours, or its guest where
    /// HCR_EL2 has that be one (Arm ARM J1.1 AArch64.TakeException: NV without NV1, or with NV2).
    pub fn reports_el2<M: Machine>(&self, m: &M) -> bool {
        let hcr = self.hcr(m);
        self.guest().is_none_or(|guest| {
            hcr & hcr::NV != 0 && (hcr & hcr::NV1 == 0 || hcr & hcr::NV2 != 0 && guest.page.is_some())
        })
    }

    /// The guest, if it is what runs.
    #[inline(always)]
    pub const fn guest(&self) -> Option<&Guest> {
        match &self.world {
            World::Hypervisor => None,
            World::Guest(guest) => Some(guest),
        }
    }

    /// Whether the guest runs and has the CPU's virtual interrupt interface.
    #[inline(always)]
    pub fn lends_interface(&self) -> bool {
        self.guest().is_some_and(|guest| guest.lends_interface)
    }

    /// Whether its hypervisor has stage 2 on for the guest.
    #[inline(always)]
    pub fn has_stage2<M: Machine>(&self, m: &M) -> bool {
        self.hcr(m) & hcr::VM != 0
    }

    /// Makes EL1's registers for the guest ready in [`Nested::guest_el1`]: out of the page and, for what both see, from the CPU.
    pub fn fetch_guest<M: Machine>(&mut self, m: &M) {
        take_guest(m.frame(self.page.0), &mut self.guest_el1);
        share(m, &mut self.guest_el1);
        match &self.backend {
            Backend::Nv2 if !self.vhe => self.guest_el1.set(El1::Cntkctl, m.get(El1::Cntkctl)),
            Backend::Nv2 => self.guest_el1.set(El1::Cntkctl, self.read(m, page::CNTKCTL)),
            Backend::El0(_) => self.fetch_guest_of_el0(m),
        }
    }

    /// Keeps the guest's registers, as they came from the CPU into [`Nested::guest_el1`], in the page.
    pub fn keep_guest<M: Machine>(&mut self, m: &M) {
        put_guest(m.frame(self.page.0), &self.guest_el1);
        self.write(m, page::CNTKCTL, self.guest_el1.get(El1::Cntkctl));
        if let Backend::El0(_) = self.backend {
            self.keep_guest_of_el0(m);
        }
    }

    /// The guest's interface, out of the page.
    pub fn guest_interface<M: Machine>(&self, m: &M) -> Interface {
        let mut interface = Interface { vmcr: self.read(m, page::ICH_VMCR), ..Interface::default() };
        let places = interface.ap0r.iter_mut().zip(&mut interface.ap1r);
        for (n, (ap0r, ap1r)) in places.enumerate().take(gic::active_registers(m.interface_type())) {
            // They have 32 bits.
            *ap0r = self.read(m, page::ICH_AP0R + n as u64 * 8) as u32;
            *ap1r = self.read(m, page::ICH_AP1R + n as u64 * 8) as u32;
        }
        interface
    }

    /// Keeps the guest's interface in the page.
    pub fn keep_interface<M: Machine>(&self, m: &M, interface: &Interface) {
        self.write(m, page::ICH_VMCR, interface.vmcr);
        let places = interface.ap0r.iter().zip(&interface.ap1r);
        for (n, (ap0r, ap1r)) in places.enumerate().take(gic::active_registers(m.interface_type())) {
            self.write(m, page::ICH_AP0R + n as u64 * 8, u64::from(*ap0r));
            self.write(m, page::ICH_AP1R + n as u64 * 8, u64::from(*ap1r));
        }
    }
}

/// Whether an exception class is one that HPFAR_EL2 belongs to.
pub const fn has_hpfar(class: u64) -> bool {
    matches!(class, ec::IABT_LOWER | ec::DABT_LOWER)
}
