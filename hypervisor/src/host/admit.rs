//! Who may start, and on how much memory: what the manifest promises against what the board has.

use super::Facts;
use crate::addr::{Addr, Pa, Size, VmId};
use crate::bundle::{Bundle, Diagnostic, VmSpec};
use crate::frames::{HYPERVISOR, Order, Pool, Use};
use crate::machine::{Machine, Point};
use crate::memory::{el2_shadow, shadow};
use crate::policy::admit::{Demand, admit as decide};
use crate::policy::{Level, Levels, MOST_VMS, Settings};
use crate::vm::device_tree;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// The name of the merge domain of VMs that do not merge at all.
const NONE: &str = "none";

/// What was decided.
pub(super) struct Admitted {
    /// How memory is managed.
    pub(super) settings: Settings,
    /// The frames there are to manage.
    pub(super) total: u64,
    /// Whether the VMs may have more than that together.
    pub(super) is_overcommitted: bool,
}

impl Admitted {
    /// Whether pages of a VM are merged: of those that have a domain, and of all where memory is promised that there is not.
    pub(super) fn merges(&self, spec: &VmSpec<'_>) -> bool {
        match spec.domain {
            Some(domain) => domain != NONE,
            None => self.is_overcommitted,
        }
    }
}

/// Bytes of heap for building and running the VMs of `bundle`: what was measured with 16 of 16 vCPUs each, and a quarter more; and
/// what loading one of them takes meanwhile, and the operator.
pub fn heap_for(bundle: &Bundle<'_>) -> u64 {
    let vm = |vm: &VmSpec<'_>| {
        let vcpus = u64::from(vm.vcpus);
        let nested = if vm.nested { (20 << 10) + vcpus * 2048 } else { 0 };
        (8 << 10)
            + vm.disks.len() as u64 * (6 << 10)
            + vm.nets.len() as u64 * (14 << 10)
            + vcpus * 3584
            + nested
            + device_tree::most_bytes(vm.vcpus, vm.bootargs, vm.modules.iter().map(|module| module.bootargs.len()))
    };
    (304 << 10) + bundle.vms.iter().map(vm).sum::<u64>()
}

/// Frames that a VM's EL2s take: a page of registers each, and tables where they run at EL0.
fn of_el2(facts: &Facts, vm: &VmSpec<'_>) -> u64 {
    let tables = if facts.runs_at_el0(vm) { el2_shadow::frames_for(vm.vcpus) } else { 0 };
    u64::from(vm.vcpus) + tables
}

/// Frames that tell a VM of stolen time.
pub(super) const STOLEN: u64 = 1;

/// Frames of tables for `bytes` of RAM: one for 2 MiB at most, and a few at the top.
fn tables(bytes: u64) -> u64 {
    bytes / Size::Block.bytes() + 16
}

/// Refuses VMs that would not have what the manifest promises them, and prepares the pool for the others.
pub(super) fn admit<M: Machine>(
    m: &M,
    pool: &mut Pool<'_>,
    facts: &Facts,
    bundle: &Bundle<'_>,
) -> Result<Admitted, Vec<Diagnostic>> {
    let defaults = Settings::default();
    let policy = bundle.policy;
    let settings = Settings {
        tax: policy.tax.unwrap_or(defaults.tax),
        risk: policy.risk.unwrap_or(defaults.risk),
        scan_cpu: policy.scan_cpu.unwrap_or(defaults.scan_cpu),
    };
    if let Some(limit) = policy.pool {
        withhold(pool, limit >> 12);
    }
    let free = pool.counts().free;
    let demand = |vm: &VmSpec<'_>| {
        let max = vm.most_bytes() >> 12;
        let shadows = if vm.nested { shadow::most_frames(vm.memory, free, vm.vcpus) + of_el2(facts, vm) } else { 0 };
        let overhead = tables(vm.memory + vm.block_bytes()) + STOLEN + shadows + super::banks::frames(vm);
        Demand { min: vm.min.unwrap_or(vm.memory) >> 12, max, overhead }
    };
    let demands: ArrayVec<Demand, MOST_VMS> = bundle.vms.iter().take(MOST_VMS).map(demand).collect();
    if let Err(refused) = decide(&demands, free, m.swap_blocks().into(), true) {
        let name = bundle.vms.get(usize::from(refused.vm.0)).map_or("?", |vm| vm.name);
        return Err(vec![Diagnostic {
            place: format!("/vms/{name}/memory"),
            what: format!(
                "{} KiB are wanted, {} KiB of the board's {} KiB are left",
                refused.wanted * 4,
                refused.left * 4,
                free * 4
            ),
            remedy: String::from(
                "give the VMs less memory or the board more, or write with \"min\" how little will do",
            ),
        }]);
    }
    let wanted: u64 = demands.iter().map(|demand| demand.max + demand.overhead).sum();
    let admitted = Admitted { settings, total: free, is_overcommitted: wanted > free };
    if admitted.is_overcommitted {
        // A table's frame for each block that is split while room is made, and frames for the store.
        pool.set_reserve(32 + free / 512, Levels::new(free).floor(Level::High));
        pool.swap = crate::frames::swap::Swap::new(m.swap_blocks());
    }
    set_domains(pool, bundle);
    if bundle.vms.iter().any(|vm| admitted.merges(vm)) {
        let (images, start) = facts.images;
        adopt(m, pool, start, images.len() as u64);
    }
    Ok(admitted)
}

/// Keeps all but `limit` frames from being used.
fn withhold(pool: &mut Pool<'_>, limit: u64) {
    while let Some(excess) = pool.counts().free.checked_sub(limit).filter(|excess| *excess > 0) {
        // The largest run that is no longer than the excess, or what there is.
        let mut order = Order::holding(excess.min(Order::MAX.frames())).unwrap_or(Order::PAGE);
        if order.frames() > excess {
            order = order.down().unwrap_or(Order::PAGE);
        }
        let frame = loop {
            match (pool.take(order, HYPERVISOR, Use::Hypervisor), order.down()) {
                (Some(frame), _) => break frame,
                (None, Some(down)) => order = down,
                (None, None) => return,
            }
        };
        pool.withhold(frame);
    }
}

/// VMs of one domain get the number of the first of them.
fn set_domains(pool: &mut Pool<'_>, bundle: &Bundle<'_>) {
    for (n, vm) in (0_u16..).zip(&bundle.vms) {
        let named = vm.domain.filter(|domain| *domain != NONE);
        let first = named.and_then(|domain| bundle.vms.iter().position(|other| other.domain == Some(domain)));
        // At most MOST_VMS VMs.
        pool.set_domain(VmId(n), first.map_or(n as u8, |first| first as u8));
    }
}

/// Makes the bundle's pages ones that guests can be lent: everybody sees them, caches on or off.
fn adopt<M: Machine>(m: &M, pool: &mut Pool<'_>, start: Addr<Pa>, bytes: u64) {
    let first = start.bits().next_multiple_of(Size::Page.bytes());
    let end = start.bits().saturating_add(bytes) & !(Size::Page.bytes() - 1);
    if let Some(bytes) = end.checked_sub(first).filter(|bytes| *bytes > 0) {
        let first = Addr::new(first);
        m.clean(first, bytes, Point::Coherency);
        m.clean(first, bytes, Point::Unification);
        pool.adopt((first, bytes));
    }
}
