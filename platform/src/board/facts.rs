//! Reading memory, CPUs, timers, slots of virtio devices and what the boot loader chose.
//!
//! What a board cannot run without is an error with a place and a remedy; what it can do without is an `Option`. A tree that
//! Linux boots with is never refused for a part of it: what Linux would leave out is left out with a warning, and so is
//! what goes beyond a limit of ours. Reservations never are: those that cannot be told apart take what lies between them,
//! since to hand out memory that the firmware uses would be worse.
//!
//! Follows the Devicetree Specification v0.4, 3.4 (`/memory`), 3.5 (`/reserved-memory`), 3.6 (`/chosen`), 3.7 and 3.8 (`/cpus`), and
//! the bindings `arm/cpus`, `arm/psci`, `timer/arm,arch_timer` and `virtio/mmio`.

use super::gic::Controller;
use super::{BoardError, Conduit, Cpu, Enable, Slot, Timer, wrong};
use crate::Range;
use crate::blk::Registers;
use crate::range::{insert, insert_or_join};
use crate::tree::{Node, Tree};
use arrayvec::{ArrayString, ArrayVec};

/// Where MPIDR_EL1 has affinity fields (Arm ARM, MPIDR_EL1): a CPU's `reg` has no other bits.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// What one table maps: 2 MiB, as a power of two.
const REACH: u32 = 21;

/// Reads all enabled memory nodes directly below the root, as whole frames.
pub(super) fn memory(tree: &Tree<'_>) -> Result<ArrayVec<Range, 16>, BoardError> {
    let mut memory = ArrayVec::new();
    let root = tree.root();
    for node in root.children().filter(|node| node.text("device_type") == Some("memory") && node.is_enabled()) {
        for window in node.windows() {
            let range = window.map(|window| window.frames_inside());
            if range.is_none_or(|range| insert(&mut memory, range).is_err()) {
                log::warn!("{node}: a stretch of memory is not used");
            }
        }
    }
    if memory.is_empty() {
        let remedy = "the boot loader has to fill in /memory; on QEMU's raspi4b, use -dtb with -kernel";
        return Err(BoardError::at(&"/memory", "the board has no memory", remedy));
    }
    Ok(memory)
}

/// Where a Raspberry Pi's firmware loads a kernel.
const KERNEL: u64 = 0x8_0000;

/// Reads `/memreserve/` and `/reserved-memory`, and adds the pages that waiting CPUs poll.
pub(super) fn reserved(tree: &Tree<'_>, cpus: &[Cpu]) -> ArrayVec<Range, 32> {
    let mut reserved = ArrayVec::new();
    for range in tree.reservations() {
        insert_or_join(&mut reserved, range.frames_around());
    }
    if let Some(parent) = tree.node("/reserved-memory") {
        // Children with a size but no address are wishes for the operating system, not facts.
        for node in parent.children().filter(Node::is_enabled) {
            // Without `ranges` the addresses can only be meant as they stand.
            for window in node.windows().zip(node.windows_below()).filter_map(|(window, bare)| window.or(bare)) {
                insert_or_join(&mut reserved, window.frames_around());
            }
        }
    }
    // The boot stub of a Raspberry Pi 4's firmware reserves a page for itself. One that stays, to answer PSCI, may be longer
    // than what it replaces; the kernel is loaded behind what there is room for.
    if tree.root().is_compatible(&["brcm,bcm2711"]) && psci(tree) == Some(Conduit::Smc) {
        insert_or_join(&mut reserved, Range { start: 0, end: KERNEL });
    }
    for cpu in cpus {
        if let Enable::SpinTable { release } = cpu.enable {
            insert_or_join(&mut reserved, Range { start: release, end: release.saturating_add(8) }.frames_around());
        }
    }
    reserved
}

/// Reads the CPUs that are not disabled.
pub(super) fn cpus(tree: &Tree<'_>) -> Result<ArrayVec<Cpu, 16>, BoardError> {
    let mut cpus = ArrayVec::<Cpu, 16>::new();
    let parent = tree.node("/cpus");
    let nodes = parent.iter().flat_map(Node::children);
    for node in nodes.filter(|node| node.text("device_type") == Some("cpu") && node.is_enabled()) {
        let mpidr = node.number("reg").filter(|mpidr| mpidr & !AFFINITY == 0);
        let other = mpidr.filter(|mpidr| cpus.iter().all(|cpu| cpu.mpidr != *mpidr));
        if other.is_none_or(|mpidr| cpus.try_push(Cpu { mpidr, enable: enable(&node) }).is_err()) {
            log::warn!("{node}: the CPU is not used");
        }
    }
    if cpus.is_empty() {
        return Err(BoardError::at(&"/cpus", "the board has no CPU", "correct the device tree"));
    }
    Ok(cpus)
}

fn enable(node: &Node<'_, '_>) -> Enable {
    match (node.text("enable-method"), node.number("cpu-release-addr")) {
        (Some("psci"), _) => Enable::Psci,
        // The word is written with one 64-bit store.
        (Some("spin-table"), Some(release)) if release % 8 == 0 => Enable::SpinTable { release },
        _ => Enable::Unknown,
    }
}

/// Finds out how PSCI is called.
pub(super) fn psci(tree: &Tree<'_>) -> Option<Conduit> {
    match tree.compatible(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])?.text("method")? {
        "smc" => Some(Conduit::Smc),
        "hvc" => Some(Conduit::Hvc),
        _ => None,
    }
}

/// Reads the interrupts of the generic timers, by name where they are named, else by place.
pub(super) fn timer(tree: &Tree<'_>, controller: &Controller) -> Result<Timer, BoardError> {
    let Some(node) = tree.compatible(&["arm,armv8-timer", "arm,armv7-timer"]) else {
        return Err(BoardError::at(&"/timer", "no generic timer (arm,armv8-timer)", "correct the device tree"));
    };
    let interrupt = |name: &str, place: usize| {
        let named = node.property("interrupt-names").is_some();
        let index = if named { node.texts("interrupt-names").position(|one| one == name)? } else { place };
        controller.interrupt(&node, index).filter(|intid| (16..32).contains(intid))
    };
    match (interrupt("hyp-phys", 3), interrupt("virt", 2), interrupt("phys", 1)) {
        (Some(hyp), Some(virt), Some(phys)) => Ok(Timer { hyp, virt, phys }),
        _ => Err(wrong(&node, "the EL2, virtual and physical timers lack PPIs", "correct the device tree")),
    }
}

/// Finds the BCM2835 power management block.
pub(super) fn watchdog(tree: &Tree<'_>) -> Option<u64> {
    let node = tree.compatible(&["brcm,bcm2711-pm", "brcm,bcm2835-pm", "brcm,bcm2835-pm-wdt"])?;
    Some(node.window(0)?.start)
}

/// Lists the slots that a virtio device may be in. One table of the hypervisor's map has to do for all of them.
pub(super) fn virtio(tree: &Tree<'_>) -> ArrayVec<Slot, 32> {
    let mut slots = ArrayVec::<Slot, 32>::new();
    tree.visit(&mut |node| {
        let is_ours = node.is_compatible(&["virtio,mmio"]) && node.is_enabled();
        let registers = size_of::<Registers>() as u64;
        if let Some(window) = node.window(0).filter(|window| is_ours && window.size() >= registers) {
            let base = window.start;
            let is_near = slots.first().is_none_or(|first| first.base >> REACH == base >> REACH);
            if is_near && base % 4 == 0 {
                // One that is left out is not used, and nothing breaks.
                let _ = slots.try_push(Slot { base, is_coherent: node.property("dma-coherent").is_some() });
            }
        }
        !slots.is_full()
    });
    slots
}

/// Reads where the initial ramdisk is; one that ends before it starts is none.
pub(super) fn initrd(tree: &Tree<'_>) -> Option<Range> {
    let chosen = tree.node("/chosen")?;
    let range = Range { start: chosen.number("linux,initrd-start")?, end: chosen.number("linux,initrd-end")? };
    if range.is_empty() { None } else { Some(range) }
}

/// Reads random bytes of the boot loader's; more than fit are left out.
pub(super) fn random(tree: &Tree<'_>) -> ArrayVec<u8, 64> {
    let bytes = tree.node("/chosen").and_then(|chosen| chosen.property("rng-seed")).unwrap_or_default();
    bytes.iter().copied().take(64).collect()
}

/// Reads the command line; one that does not fit is left out with a warning.
pub(super) fn bootargs(tree: &Tree<'_>) -> Option<ArrayString<512>> {
    let line = tree.node("/chosen")?.text("bootargs")?;
    let copy = ArrayString::from(line).ok();
    if copy.is_none() {
        log::warn!("/chosen/bootargs is longer than 512 bytes: ignored");
    }
    copy
}
