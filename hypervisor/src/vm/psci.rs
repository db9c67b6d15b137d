//! PSCI 1.1, SMCCC discovery and PV time for guests (Arm DEN0022, DEN0028, DEN0057).

use super::{Power, Vm, stolen};
use crate::addr::VcpuId;
use crate::arm::smccc::{self, Call};
use crate::arm::speculation::Speculation;
use crate::next::{Cause, Kicks, Next};
use crate::vcpu::Vcpu;

/// What a call leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What the vCPU does next.
    pub next: Next,
    /// Who else must look up.
    pub kicks: Kicks,
    /// X0 on return, if the call returns.
    pub x0: Option<u64>,
}

impl Outcome {
    #[inline(always)]
    fn value(value: i64) -> Self {
        Self { next: Next::Resume, kicks: Kicks::NONE, x0: Some(value.cast_unsigned()) }
    }

    const fn ends(next: Next) -> Self {
        Self { next, kicks: Kicks::NONE, x0: None }
    }
}

/// Answers a call that asks about nothing but what there is: the version, mostly. These need no VM, no lock and no outcome.
#[inline(always)]
pub const fn fact(function: u32, x1: u64) -> Option<i64> {
    match Call::decode(function) {
        Call::PsciVersion => Some(smccc::PSCI_VERSION_1_1),
        Call::SmcccVersion => Some(smccc::SMCCC_VERSION_1_1),
        Call::SmcccArchFeatures if is_workaround(x1) => None,
        // By which PV time is found (DEN0057 3.1).
        Call::SmcccArchFeatures if matches!(asked(x1), Call::PvTimeFeatures) => Some(0),
        Call::PvTimeFeatures if matches!(asked(x1), Call::PvTimeFeatures | Call::PvTimeStolen) => Some(0),
        Call::PvTimeFeatures => Some(smccc::NOT_SUPPORTED),
        Call::PsciFeatures | Call::SmcccArchFeatures => Some(smccc::features((x1 & 0xffff_ffff) as u32)),
        // No trusted OS that could have to move.
        Call::MigrateInfoType => Some(2),
        Call::Unknown => Some(smccc::NOT_SUPPORTED),
        _ => None,
    }
}

/// The call that X1 names.
const fn asked(x1: u64) -> Call {
    Call::decode((x1 & 0xffff_ffff) as u32)
}

/// Whether X1 names one of the calls against attacks by speculation.
const fn is_workaround(x1: u64) -> bool {
    matches!(asked(x1), Call::Workaround)
}

/// Answers what is asked about, or done by, the calls against attacks by speculation; nothing for any other.
pub const fn workaround(speculation: &Speculation, function: u32, x1: u64) -> Option<i64> {
    match Call::decode(function) {
        Call::SmcccArchFeatures if is_workaround(x1) => Some(speculation.offers((x1 & 0xffff_ffff) as u32)),
        // What it stands for has been done on the way here, if anything is.
        Call::Workaround if speculation.offers(function) == smccc::NOT_SUPPORTED => Some(smccc::NOT_SUPPORTED),
        Call::Workaround => Some(0),
        _ => None,
    }
}

/// Answers the call in `vcpu`'s X0 to X3 that is no [`fact`].
pub fn call(vm: &Vm, vcpu: &Vcpu) -> Outcome {
    let [id, x1, x2, x3] = [vcpu.registers.x[0], vcpu.registers.x[1], vcpu.registers.x[2], vcpu.registers.x[3]];
    // The function id is W0; SMC32 calls have 32-bit arguments (DEN0028 2.4, 3.1).
    let function = (id & 0xffff_ffff) as u32;
    let narrow = |x: u64| if smccc::is_64bit(function) { x } else { x & 0xffff_ffff };
    match Call::decode(function) {
        Call::CpuOn => cpu_on(vm, narrow(x1), narrow(x2), narrow(x3)),
        Call::AffinityInfo => Outcome::value(affinity_info(vm, narrow(x1), narrow(x2))),
        Call::CpuOff => Outcome::ends(Next::Off),
        // Every power state is treated as standby: the vCPU comes back behind the call at the next interrupt, which
        // PSCI allows for any state that was asked for (DEN0022 5.4.1).
        Call::CpuSuspend => Outcome { next: Next::WaitForInterrupt, kicks: Kicks::NONE, x0: Some(0) },
        Call::SystemOff => Outcome::ends(Next::Stop(Cause::Off)),
        Call::SystemReset => Outcome::ends(Next::Stop(Cause::Reset)),
        // Type 0 is the architectural warm reset; others are the vendor's, and there are none.
        Call::SystemReset2 if narrow(x1) & 0xffff_ffff == 0 => Outcome::ends(Next::Stop(Cause::Reset)),
        Call::SystemReset2 => Outcome::value(smccc::INVALID_PARAMETERS),
        Call::PvTimeStolen => {
            if let Some(slot) = vm.slot(vcpu.id) {
                slot.stolen.ask();
            }
            // An address below 2^32.
            Outcome::value(stolen::address(vcpu.id).cast_signed())
        }
        _ => Outcome::value(smccc::NOT_SUPPORTED),
    }
}

fn find(vm: &Vm, target: u64) -> Option<VcpuId> {
    let n = vm.slots.iter().position(|slot| slot.mpidr == target)?;
    // At most 64 vCPUs.
    Some(VcpuId(n as u16))
}

fn cpu_on(vm: &Vm, target: u64, pc: u64, context: u64) -> Outcome {
    let Some(vcpu) = find(vm, target) else { return Outcome::value(smccc::INVALID_PARAMETERS) };
    let Some(slot) = vm.slot(vcpu) else { return Outcome::value(smccc::INVALID_PARAMETERS) };
    if slot.turn_on(pc, context) {
        return Outcome { next: Next::Resume, kicks: Kicks::one(vcpu), x0: Some(0) };
    }
    Outcome::value(match slot.power() {
        Power::Pending => smccc::ON_PENDING,
        _ => smccc::ALREADY_ON,
    })
}

fn affinity_info(vm: &Vm, target: u64, level: u64) -> i64 {
    if level != 0 {
        return smccc::INVALID_PARAMETERS;
    }
    match find(vm, target).and_then(|vcpu| vm.slot(vcpu)) {
        Some(slot) => match slot.power() {
            Power::On => 0,
            Power::Off => 1,
            Power::Pending => 2,
        },
        None => smccc::INVALID_PARAMETERS,
    }
}
