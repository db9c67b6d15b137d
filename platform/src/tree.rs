//! The board's flattened device tree, safe to read whatever the boot loader handed over.
//!
//! Key types: [`Tree`], made by [`Tree::new`] from bytes that [`check`](check::check) has accepted, and [`Node`], which
//! knows its ancestors and so can do what crate `fdt` cannot: translate `reg` through `ranges`.
//!
//! Invariants: nothing here panics or recurses without bound, whatever the bytes are; an address that leaves this room is
//! one the CPU can use. Of `fdt` only functions are called that [`check`] makes safe; path and alias look-up are our own,
//! because an alias that names itself sends `fdt` into endless recursion.
//!
//! Follows the Devicetree Specification v0.4: 2.3 (standard properties), 3.1 to 3.6 (required nodes), 5.3 (reservations).

pub mod check;
mod ranges;

pub use check::{TreeError, blob_size, tidy};

use crate::Range;
use arrayvec::ArrayVec;
use check::DEPTH_LIMIT;
use core::fmt;
use fdt::Fdt;
use fdt::node::FdtNode;

/// A checked device tree.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    fdt: Fdt<'a>,
}

impl<'a> Tree<'a> {
    /// Checks the tree at the start of `blob`, which may be longer than the tree.
    ///
    /// Fails where the tree is damaged: the boot loader's fault. A tree with FDT_NOPs wants [`tidy`] first.
    pub fn new(blob: &'a [u8]) -> Result<Self, TreeError> {
        match Fdt::new(check::check(blob)?) {
            Ok(fdt) => Ok(Self { fdt }),
            Err(_) => Err(TreeError { offset: 0, what: "the header is damaged" }),
        }
    }

    /// Finds the root node.
    pub fn root(&self) -> Node<'_, 'a> {
        Node { path: self.fdt.all_nodes().next().into_iter().collect() }
    }

    /// Finds a node by its full path (`/soc/serial@7e201000`), a component without `@` matching any unit address.
    pub fn node(&self, path: &str) -> Option<Node<'_, 'a>> {
        let mut node = self.root();
        for part in path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty()) {
            node = node.child(part)?;
        }
        Some(node)
    }

    /// Finds a node by a full path or by an alias, anything from `:` on ignored, as in `stdout-path`.
    pub fn resolve(&self, name: &str) -> Option<Node<'_, 'a>> {
        let name = name.split(':').next()?;
        if name.starts_with('/') {
            return self.node(name);
        }
        self.node("/aliases").and_then(|aliases| self.node(aliases.text(name)?))
    }

    /// Finds the node with this `phandle`.
    pub fn phandle(&self, phandle: u32) -> Option<Node<'_, 'a>> {
        self.find(|node| node.phandle() == Some(phandle))
    }

    /// Finds the first node that is `wanted`, depth first, in the order of the tree.
    pub fn find(&self, wanted: impl Fn(&Node<'_, 'a>) -> bool) -> Option<Node<'_, 'a>> {
        let mut found = None;
        self.visit(&mut |node| {
            if wanted(node) {
                found = Some(node.clone());
            }
            found.is_none()
        });
        found
    }

    /// Finds the first enabled node that is `compatible` with any of these.
    pub fn compatible(&self, any: &[&str]) -> Option<Node<'_, 'a>> {
        self.find(|node| node.is_compatible(any) && node.is_enabled())
    }

    /// Shows `visitor` every node, depth first, until it returns false.
    pub fn visit<'t>(&'t self, visitor: &mut dyn FnMut(&Node<'t, 'a>) -> bool) {
        descend(&mut self.root(), visitor);
    }

    /// Lists the `/memreserve/` entries, entries without size or beyond the address space left out.
    pub fn reservations(&self) -> impl Iterator<Item = Range> + '_ {
        self.fdt
            .memory_reservations()
            .filter_map(|entry| {
                let (start, size) = (u64::try_from(entry.address().addr()), u64::try_from(entry.size()));
                Range::sized(start.ok()?, size.ok()?)
            })
            .filter(|range| !range.is_empty())
    }
}

fn descend<'t, 'a>(node: &mut Node<'t, 'a>, visitor: &mut dyn FnMut(&Node<'t, 'a>) -> bool) -> bool {
    if !visitor(node) {
        return false;
    }
    let Some(last) = node.path.last().copied() else { return true };
    for child in last.children() {
        // The depth was checked, so there is room.
        if node.path.try_push(child).is_err() {
            continue;
        }
        let go_on = descend(node, visitor);
        node.path.pop();
        if !go_on {
            return false;
        }
    }
    true
}

/// A node, with the nodes above it.
#[derive(Debug, Clone)]
pub struct Node<'t, 'a> {
    /// From the root to this node.
    path: ArrayVec<FdtNode<'t, 'a>, DEPTH_LIMIT>,
}

impl<'t, 'a> Node<'t, 'a> {
    /// Tells the name, unit address included; empty for the root.
    pub fn name(&self) -> &'a str {
        match self.path.last() {
            Some(node) if self.path.len() > 1 => node.name,
            _ => "",
        }
    }

    /// Finds the node above.
    pub fn parent(&self) -> Option<Self> {
        let mut path = self.path.clone();
        path.pop();
        if path.is_empty() { None } else { Some(Self { path }) }
    }

    /// Lists the nodes directly below.
    pub fn children(&self) -> impl Iterator<Item = Self> {
        let below = self.path.last().map(|node| node.children()).into_iter().flatten();
        below.filter_map(|child| {
            let mut path = self.path.clone();
            path.try_push(child).ok()?;
            Some(Self { path })
        })
    }

    /// Finds a child by name; without `@` the name matches any unit address.
    pub fn child(&self, name: &str) -> Option<Self> {
        self.children().find(|child| child.name() == name || child.name().split('@').next() == Some(name))
    }

    /// Reads a property's bytes.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        Some(self.path.last()?.property(name)?.value)
    }

    /// Reads a property of one cell.
    pub fn cell(&self, name: &str) -> Option<u32> {
        Some(u32::from_be_bytes(self.property(name)?.try_into().ok()?))
    }

    /// Reads a property of one or two cells.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.property(name)?;
        if value.len() > 8 { None } else { Cells(value).number(value.len() / 4).filter(|_| value.len() >= 4) }
    }

    /// Reads a property that is one string, up to its zero byte.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.texts(name).next()
    }

    /// Lists the strings of a property that holds several.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.property(name).unwrap_or_default();
        value.split(|&byte| byte == 0).filter(|text| !text.is_empty()).filter_map(|text| str::from_utf8(text).ok())
    }

    /// Lists the cells of a property.
    pub fn cells(&self, name: &str) -> Cells<'a> {
        Cells(self.property(name).unwrap_or_default())
    }

    /// Tells whether the node's `compatible` names any of these.
    pub fn is_compatible(&self, any: &[&str]) -> bool {
        self.texts("compatible").any(|one| any.contains(&one))
    }

    /// Tells whether neither the node nor one above it has a `status` other than `okay` (or the old `ok`).
    pub fn is_enabled(&self) -> bool {
        self.path.iter().all(|node| match node.property("status") {
            Some(status) => matches!(status.value, b"okay\0" | b"ok\0" | b"okay" | b"ok"),
            None => true,
        })
    }

    /// Reads the node's own phandle.
    pub fn phandle(&self) -> Option<u32> {
        self.cell("phandle").or_else(|| self.cell("linux,phandle"))
    }

    /// Reads a property from this node or from the nearest node above that has it.
    pub fn inherited(&self, name: &str) -> Option<u32> {
        let property = self.path.iter().rev().find_map(|node| node.property(name))?;
        Some(u32::from_be_bytes(property.value.try_into().ok()?))
    }

    /// Lists the windows of `reg` as the CPU sees them, `ranges` of every bus above applied.
    ///
    /// An item is `None` where its window cannot be reached from the CPU: a bus above has no `ranges`, or none that holds
    /// the whole window. The list ends where `reg` is cut short.
    pub fn windows(&self) -> impl Iterator<Item = Option<Range>> + '_ {
        self.reg(|address, size| ranges::to_cpu(&self.path, address, size))
    }

    /// Lists the windows of `reg` as the bus above sees them.
    pub fn windows_below(&self) -> impl Iterator<Item = Option<Range>> + '_ {
        self.reg(Range::sized)
    }

    fn reg(&self, window: impl Fn(u64, u64) -> Option<Range>) -> impl Iterator<Item = Option<Range>> {
        let (address_cells, size_cells) = ranges::cells_at(&self.path, self.path.len().saturating_sub(2));
        let mut reg = self.cells("reg");
        core::iter::from_fn(move || {
            if reg.is_empty() || address_cells == 0 {
                return None;
            }
            let address = reg.number(address_cells)?;
            let size = reg.number(size_cells)?;
            Some(window(address, size))
        })
    }

    /// Reads window `index` of `reg` as the CPU sees it. Nothing where it is missing, empty or out of the CPU's reach.
    pub fn window(&self, index: usize) -> Option<Range> {
        self.windows().nth(index).flatten().filter(|window| !window.is_empty())
    }
}

/// Writes the node's full path.
impl fmt::Display for Node<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.len() < 2 {
            return f.write_str("/");
        }
        self.path.iter().skip(1).try_for_each(|node| write!(f, "/{}", node.name))
    }
}

/// The cells of a property: big-endian words of 32 bits, taken from the front.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'a>(&'a [u8]);

impl<'a> From<&'a [u8]> for Cells<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Cells<'_> {
    /// Tells whether no whole cell is left.
    pub const fn is_empty(&self) -> bool {
        self.0.len() < 4
    }

    /// Takes a number of `count` cells. Nothing where fewer are left, or where the number does not fit 64 bits; the cells
    /// are gone then too.
    pub fn number(&mut self, count: usize) -> Option<u64> {
        let Some((number, rest)) = count.checked_mul(4).and_then(|bytes| self.0.split_at_checked(bytes)) else {
            self.0 = &[];
            return None;
        };
        self.0 = rest;
        number.chunks_exact(4).try_fold(0, |sum: u64, cell| {
            let cell = u32::from_be_bytes(cell.try_into().ok()?);
            if sum >> 32 == 0 { Some(sum << 32 | u64::from(cell)) } else { None }
        })
    }
}

impl Iterator for Cells<'_> {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        self.number(1).and_then(|cell| u32::try_from(cell).ok())
    }
}

#[cfg(test)]
mod tests;
