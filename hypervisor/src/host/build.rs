//! Building a VM from what the manifest wants and what the board offers.

use super::Facts;
use super::admit::Admitted;
use super::lan::{Lan, nics_of};
use crate::addr::{Addr, Pa, Size, VcpuId, VmId};
use crate::arm::desc::Rights;
use crate::arm::gic::Version;
use crate::arm::vmsa::Geometry;
use crate::bundle::image::Plan;
use crate::bundle::place;
use crate::bundle::{self, Diagnostic, VmSpec};
use crate::devices::bus::Bus;
use crate::devices::{self, VIRTUAL_TIMER_INTID};
use crate::frames::{SharedPool, Use};
use crate::machine::Machine;
use crate::memory::el2_shadow::{self, El2Shadows};
use crate::memory::shadow;
use crate::memory::{Coherence, Granule, Layout, Memory};
use crate::sched::{CpuSet, Queue};
use crate::stage2::Refusal;
use crate::vcpu::el0_state::El0;
use crate::vcpu::nested::{Backend, Page};
use crate::vcpu::{Nested, Vcpu, VcpuKind};
use crate::vgic::Vgic;
use crate::vm::device_tree::{self, Description};
use crate::vm::{Gic, Life, LogOnce, NEVER, Slot, Vm};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64};
use spin::mutex::SpinMutex;

/// MPIDR_EL1 bit 31, which is one.
const MPIDR_RES1: u64 = 1 << 31;

/// Builds the VM `id`. What it cannot have is the operator's error.
pub(super) fn vm<M: Machine>(
    m: &M,
    pool: &SharedPool<'static>,
    facts: &Facts,
    queue: &mut Queue,
    id: VmId,
    (spec, plan): (VmSpec<'static>, Plan<'static>),
    (admitted, lans): (&Admitted, &[Lan]),
) -> Result<Vm, Diagnostic> {
    let mut memory = memory(m, pool, facts, id, &spec)?;
    if spec.nested {
        memory.prepare_shadows(spec.vcpus, shadow::most_tables(spec.memory, admitted.total));
    }
    let mut el2_shadows = if spec.nested { el2_shadows(m, pool, facts, &mut memory, &spec)? } else { None };
    let flash = super::banks::banks(m, pool, id, &spec)?;
    let merges = admitted.merges(&spec);
    let mut vgic = Vgic::new(version(facts.gic), spec.vcpus, devices::SPIS, facts.lists);
    let mut slots = Vec::new();
    for n in 0..spec.vcpus {
        // Several timers share the CPU's where there is an EL2: their interrupts are all ours to end.
        if !spec.nested {
            vgic.map_hw(VcpuId(n), VIRTUAL_TIMER_INTID, VIRTUAL_TIMER_INTID);
        }
        let mpidr = MPIDR_RES1 | facts.gic.mpidr(n);
        let has_pan = facts.ids.has_pan() && el2_shadows.is_none();
        let mut vcpu = Vcpu::new(VcpuId(n), mpidr, has_pan, facts.ids.has_ssbs());
        if spec.nested {
            let page = registers_page(m, pool, &spec, id)?;
            let backend = match &mut el2_shadows {
                None => Backend::Nv2,
                Some(shadows) => {
                    let vcpu = shadows.add_registers(m, pool, &mut memory, page).map_err(|_| no_tables(&spec))?;
                    Backend::El0(El0::new(shadows.upper_root(), vcpu, facts.pa_range.field()))
                }
            };
            vcpu.kind = VcpuKind::Nested(Box::new(Nested::new(backend, version(facts.gic), Page(page), facts.lists)));
        }
        let affinity = CpuSet::from_bits(spec.affinity);
        let entity = queue.add(id, VcpuId(n), spec.shares, affinity).map_err(|_| Diagnostic {
            place: format!("/vms/{}/vcpus", spec.name),
            what: String::from("the board has more vCPUs than Flatland schedules"),
            remedy: String::from("give the VMs fewer vCPUs"),
        })?;
        slots.push(Slot::new(vcpu, entity));
    }
    let stolen = pool.lock().take(Size::Page, id, Use::Table).ok_or_else(|| Diagnostic {
        place: format!("/vms/{}/memory", spec.name),
        what: String::from("there is no page for its stolen time"),
        remedy: String::from("give the board more RAM"),
    })?;
    let bus = Bus::new(devices::disk::disks_of(&spec), nics_of(usize::from(id.0), &spec, lans));
    Ok(Vm {
        id,
        name: spec.name.to_string(),
        root: memory.root(),
        gic: facts.gic,
        tree: tree(&spec, &plan, facts.gic)?,
        spec,
        plan,
        pages: memory.layout().all_bytes() >> 12,
        memory: SpinMutex::new(memory),
        el2_shadows: el2_shadows.map(SpinMutex::new),
        stolen: stolen.zero(m).into_table(),
        vgic: SpinMutex::new(vgic),
        bus,
        slots,
        life: Life::default(),
        offset: AtomicU64::new(0),
        alarm: AtomicU64::new(NEVER),
        starving: AtomicU64::new(0),
        entitled: AtomicU64::new(u64::MAX),
        blocked: AtomicBool::new(false),
        flash: SpinMutex::new(flash),
        merges,
        logged: SpinMutex::new(LogOnce::default()),
    })
}

const fn version(gic: Gic) -> Version {
    match gic {
        Gic::V2 => Version::V2,
        Gic::V3 => Version::V3,
    }
}

/// The device tree that it finds each time it starts.
fn tree(spec: &VmSpec<'_>, plan: &Plan<'_>, gic: Gic) -> Result<Vec<u8>, Diagnostic> {
    let modules = device_tree::modules_of(spec, plan);
    let tree = Description::of(spec, plan, gic, &modules).build();
    if tree.len() as u64 <= place::DTB_ROOM {
        return Ok(tree);
    }
    Err(Diagnostic {
        place: format!("/vms/{}/bootargs", spec.name),
        what: String::from("its device tree is too long"),
        remedy: String::from("shorten them"),
    })
}

/// What is wrong with a VM that is to start at EL2.
fn refused(spec: &VmSpec<'_>, what: &str, remedy: &str) -> Diagnostic {
    Diagnostic { place: format!("/vms/{}/nested", spec.name), what: String::from(what), remedy: String::from(remedy) }
}

fn no_tables(spec: &VmSpec<'_>) -> Diagnostic {
    refused(spec, "there is no room for its tables", "give the board more RAM")
}

/// The shadows of stage 1 for a VM whose EL2 runs at EL0; nothing for one that FEAT_NV2 helps.
fn el2_shadows<M: Machine>(
    m: &M,
    pool: &SharedPool<'static>,
    facts: &Facts,
    memory: &mut Memory,
    spec: &VmSpec<'_>,
) -> Result<Option<El2Shadows>, Diagnostic> {
    if !facts.runs_at_el0(spec) {
        return Ok(None);
    }
    let refuse = |_| no_tables(spec);
    let tables = el2_shadow::tables_for(spec.vcpus);
    let shadows = El2Shadows::new(m, pool, memory, (spec.vcpus, version(facts.gic)), tables).map_err(refuse)?;
    shadows.map(m, pool, memory).map_err(refuse)?;
    Ok(Some(shadows))
}

/// A page for the registers of a vCPU in a VM that starts at EL2.
fn registers_page<M: Machine>(
    m: &M,
    pool: &SharedPool<'static>,
    spec: &VmSpec<'_>,
    id: VmId,
) -> Result<Addr<Pa>, Diagnostic> {
    let frame = pool.lock().take(Size::Page, id, Use::Table);
    let frame = frame.ok_or_else(|| refused(spec, "there is no page for its registers", "give the board more RAM"))?;
    Ok(frame.zero(m).into_table())
}

fn memory<M: Machine>(
    m: &M,
    pool: &SharedPool<'static>,
    facts: &Facts,
    id: VmId,
    spec: &VmSpec<'_>,
) -> Result<Memory, Diagnostic> {
    let refuse = |what: String, remedy: &str| Diagnostic {
        place: format!("/vms/{}/memory", spec.name),
        what,
        remedy: String::from(remedy),
    };
    let end = devices::RAM_BASE.bits().saturating_add(spec.memory).saturating_add(spec.block_bytes());
    let geometry = Geometry::fitting(end, facts.pa_range)
        .ok_or_else(|| refuse(String::from("the CPUs' stage 2 does not reach that far"), "give it less memory"))?;
    let layout = Layout {
        owner: id,
        base: devices::RAM_BASE,
        bytes: spec.memory,
        blocks: spec.block_bytes(),
        geometry,
        vtcr: geometry.vtcr(facts.pa_range, facts.vmid_bits),
        granule: match spec.granule {
            bundle::Granule::Block => Granule::Block,
            bundle::Granule::Page => Granule::Page,
        },
        coherence: Coherence::Cleaned,
    };
    let mut memory = Memory::new(m, pool, layout)
        .map_err(|why| refuse(format!("its table cannot be made: {why:?}"), "give the board more RAM"))?;
    hand_through(m, pool, &mut memory, facts.gicv, spec.nested)
        .map_err(|why| refuse(format!("the virtual CPU interface cannot be mapped: {why:?}"), "report the board"))?;
    Ok(memory)
}

/// Lets a VM's memory, which is new or was released, have what is no RAM of its: tables of ours for its EL2, and the board's interface.
///
/// What is there already stays, as all is the first time.
pub(super) fn furnish<M: Machine>(m: &M, pool: &SharedPool<'static>, facts: &Facts, vm: &Vm) {
    let shadows = vm.el2_shadows.as_ref().map(SpinMutex::lock);
    let mut memory = vm.memory.lock();
    let _ = hand_through(m, pool, &mut memory, facts.gicv, vm.spec.nested);
    let _ = memory.map_kept(m, pool, Addr::new(devices::STOLEN), vm.stolen, Rights::R);
    if let Some(mut shadows) = shadows {
        let _ = shadows.map(m, pool, &mut memory);
        shadows.forget(m, None);
    }
}

/// Maps the board's virtual CPU interface of a GICv2, if it has one, where the guest expects GICC.
///
/// The first page only: GICC_DIR is in the second, which stays a hole and is emulated.
pub(super) fn hand_through<M: Machine>(
    m: &M,
    pool: &SharedPool<'static>,
    memory: &mut Memory,
    gicv: Option<u64>,
    is_nested: bool,
) -> Result<(), Refusal> {
    let Some(gicv) = gicv else { return Ok(()) };
    memory.map_device(m, pool, Addr::new(devices::GICC), Addr::new(gicv), Size::Page.bytes())?;
    if is_nested {
        // For its guests, while they have the interface: all of it.
        memory.map_device(m, pool, Addr::new(devices::GICV), Addr::new(gicv), devices::GICV_BYTES)?;
    }
    Ok(())
}
