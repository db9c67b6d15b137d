//! Finding the interrupt controller, and turning interrupt specifiers into INTIDs.
//!
//! Key types: [`Controller`], the node whose specifiers we understand. The specifier of a GIC is (type, number, flags):
//! type 0 an SPI (INTID 32 + number), 1 a PPI (INTID 16 + number), 2 an extended SPI (4096 + number), 3 an extended PPI
//! (1056 + number); GICv3 nodes may have a fourth cell.
//!
//! Follows the bindings `arm,gic` and `arm,gic-v3`, the Devicetree Specification v0.4, 2.4 (interrupts), and the GIC
//! architecture (IHI 0069H, 2.2.1) for the ranges of INTIDs.

use super::{BoardError, Gic, wrong};
use crate::tree::{Cells, Node, Tree};
use arrayvec::ArrayVec;

const V2: [&str; 6] = [
    "arm,gic-400",
    "arm,cortex-a15-gic",
    "arm,cortex-a7-gic",
    "arm,cortex-a9-gic",
    "arm,gic-v2",
    "brcm,brahma-b15-gic",
];
const V3: [&str; 1] = ["arm,gic-v3"];

/// The interrupt controller's node, as interrupts refer to it.
pub(super) struct Controller {
    phandle: Option<u32>,
    cells: usize,
}

/// Finds the first enabled GIC and reads its windows.
pub(super) fn find(tree: &Tree<'_>) -> Result<(Gic, Controller), BoardError> {
    let version3 = tree.compatible(&V3);
    let Some(node) = version3.clone().or_else(|| tree.compatible(&V2)) else {
        let remedy = "Flatland runs on GICv2 with virtualization extensions and on GICv3";
        return Err(BoardError::at(&"/", "no interrupt controller that Flatland knows", remedy));
    };
    let cells = node.cell("#interrupt-cells").and_then(|cells| usize::try_from(cells).ok());
    let Some(cells) = cells.filter(|cells| (3..=4).contains(cells)) else {
        return Err(wrong(&node, "#interrupt-cells is neither 3 nor 4", "correct the device tree"));
    };
    let controller = Controller { phandle: node.phandle(), cells };
    let Some(maintenance) = controller.own(&node) else {
        let remedy = "on QEMU's virt, start with -machine virtualization=on";
        return Err(wrong(&node, "no maintenance interrupt, so no virtualization extensions", remedy));
    };
    let gic = if version3.is_some() { v3(&node, maintenance) } else { v2(&node, maintenance) };
    Ok((gic?, controller))
}

fn v2(node: &Node<'_, '_>, maintenance: u32) -> Result<Gic, BoardError> {
    let windows = (node.window(0), node.window(1), node.window(2), node.window(3));
    let (Some(dist), Some(cpu), Some(hyp), Some(virt)) = windows else {
        let remedy = "on QEMU's virt, start with -machine virtualization=on";
        return Err(wrong(node, "the windows of GICD, GICC, GICH and GICV are not all in reach", remedy));
    };
    // The offset of GICC_DIR, the last register we use, and the size of each block (IHI 0048B.b, 4.1.3 and 5.3).
    if dist.size() < 0x1000 || cpu.size() < 0x1004 || hyp.size() < 0x200 {
        return Err(wrong(node, "a window of the GIC is too small", "correct the device tree"));
    }
    Ok(Gic::V2 { dist, cpu, hyp, virt, maintenance })
}

fn v3(node: &Node<'_, '_>, maintenance: u32) -> Result<Gic, BoardError> {
    let regions = node.cell("#redistributor-regions").unwrap_or(1);
    let regions = usize::try_from(regions).unwrap_or(usize::MAX);
    let Some(dist) = node.window(0).filter(|dist| dist.size() >= 0x1_0000) else {
        return Err(wrong(node, "the distributor's window is missing or too small", "correct the device tree"));
    };
    let mut redists = ArrayVec::new();
    for region in node.windows().skip(1).take(regions) {
        let Some(region) = region.filter(|region| region.size() >= 0x2_0000) else {
            return Err(wrong(node, "a redistributor region cannot be reached", "correct the device tree"));
        };
        if redists.try_push(region).is_err() {
            return Err(wrong(node, "more redistributor regions than 8", "this is a limit of Flatland"));
        }
    }
    if redists.is_empty() {
        return Err(wrong(node, "no redistributor region", "correct the device tree"));
    }
    let redist_stride = node.number("redistributor-stride").filter(|&stride| stride != 0);
    if redist_stride.is_some_and(|stride| stride % 0x1_0000 != 0) {
        return Err(wrong(node, "redistributor-stride is not a multiple of 64 KiB", "correct the device tree"));
    }
    Ok(Gic::V3 { dist, redists, redist_stride, maintenance })
}

impl Controller {
    /// Reads interrupt `index` of a device as an INTID. Nothing where it has none, or none of this controller's.
    pub(super) fn interrupt(&self, node: &Node<'_, '_>, index: usize) -> Option<u32> {
        if let Some(extended) = node.property("interrupts-extended") {
            // Each entry may belong to another controller, with cells of its own; ours alone are understood.
            let entry = extended.chunks_exact(4 * (self.cells + 1)).nth(index)?;
            let mut entry = Cells::from(entry);
            return if entry.next() == self.phandle { intid(entry) } else { None };
        }
        let parent = node.inherited("interrupt-parent");
        if parent.is_some() && parent != self.phandle {
            return None;
        }
        self.nth(node, index)
    }

    /// Reads the first interrupt of the controller's own node: what it raises itself.
    fn own(&self, node: &Node<'_, '_>) -> Option<u32> {
        // A controller whose interrupts go to itself need not say so.
        self.interrupt(node, 0).or_else(|| self.nth(node, 0))
    }

    fn nth(&self, node: &Node<'_, '_>, index: usize) -> Option<u32> {
        let entry = node.property("interrupts")?.chunks_exact(4 * self.cells).nth(index)?;
        intid(Cells::from(entry))
    }
}

fn intid(mut entry: Cells<'_>) -> Option<u32> {
    let (kind, number) = (entry.next()?, entry.next()?);
    match kind {
        0 if number < 988 => Some(32 + number),
        1 if number < 16 => Some(16 + number),
        2 if number < 1024 => Some(4096 + number),
        3 if number < 64 => Some(1056 + number),
        _ => None,
    }
}
