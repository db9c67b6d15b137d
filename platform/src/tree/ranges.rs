//! From an address on a bus to the address the CPU uses: the `ranges` property, which crate `fdt` does not know.
//!
//! A node's `reg` speaks in its parent's address space. Each parent that is not the root maps its space into the one
//! above by `ranges`, a list of (child address, parent address, size): an empty one means that the spaces are the same,
//! none at all that they are not connected. Addresses of three cells (PCI) are understood where the first is zero.
//!
//! Follows the Devicetree Specification v0.4, 2.3.5 (`#address-cells`, `#size-cells`) and 2.3.8 (`ranges`).

use super::Cells;
use crate::Range;
use fdt::node::FdtNode;

/// Reads how many cells the children of node `index` of the path use for an address and for a size.
pub(super) fn cells_at(path: &[FdtNode<'_, '_>], index: usize) -> (usize, usize) {
    let cells = path.get(index).map(|node| node.cell_sizes()).unwrap_or_default();
    (cells.address_cells, cells.size_cells)
}

/// Translates a window in the address space of the last node's parent, or nothing where the CPU cannot reach all of it.
pub(super) fn to_cpu(path: &[FdtNode<'_, '_>], address: u64, size: u64) -> Option<Range> {
    let mut window = Range::sized(address, size)?;
    // The buses between the node and the root, the nearest first.
    for bus in (1..path.len().saturating_sub(1)).rev() {
        let ranges = path.get(bus)?.property("ranges")?.value;
        if !ranges.is_empty() {
            window = through(Cells(ranges), window, cells_at(path, bus), cells_at(path, bus.checked_sub(1)?).0)?;
        }
    }
    Some(window)
}

fn through(mut ranges: Cells<'_>, window: Range, (address, size): (usize, usize), parent: usize) -> Option<Range> {
    // An entry of no cells would never use the list up.
    if address.checked_add(size)?.checked_add(parent)? == 0 {
        return None;
    }
    while !ranges.is_empty() {
        let entry = (ranges.number(address), ranges.number(parent), ranges.number(size));
        let (Some(child), Some(above), Some(size)) = entry else { continue };
        if Range::sized(child, size).is_some_and(|range| range.holds(&window)) {
            return Range::sized(above.checked_add(window.start - child)?, window.size());
        }
    }
    None
}
