//! Choosing the serial line to speak on.
//!
//! The firmware's choice is `/chosen/stdout-path`; where that leads to nothing we can drive, the first enabled PL011 that
//! has no device wired to it (on a Raspberry Pi 4 the first PL011 is Bluetooth's), else the first mini-UART.
//!
//! Follows the bindings `pl011`, `brcm,bcm2835-aux-uart` and `serial` (a device on a serial line is a child node).

use super::gic::Controller;
use super::{Uart, UartKind};
use crate::tree::{Node, Tree};

const PL011: [&str; 1] = ["arm,pl011"];
const BCM_AUX: [&str; 1] = ["brcm,bcm2835-aux-uart"];

/// Chooses the UART, or none.
pub(super) fn find(tree: &Tree<'_>, controller: &Controller) -> Option<Uart> {
    let usable = |node: &Node<'_, '_>| read(tree, controller, node);
    let first = |of: &[&str]| tree.find(|node| node.is_compatible(of) && !is_wired(node) && usable(node).is_some());
    let chosen = tree.node("/chosen");
    let chosen =
        chosen.as_ref().and_then(|chosen| chosen.text("stdout-path").or_else(|| chosen.text("linux,stdout-path")));
    let named = chosen.and_then(|name| tree.resolve(name)).and_then(|node| usable(&node));
    if named.is_none() {
        log::warn!("no usable UART at /chosen/stdout-path, looking for another");
    }
    named.or_else(|| usable(&first(&PL011).or_else(|| first(&BCM_AUX))?))
}

/// Whether a device is wired to the other end of the line.
fn is_wired(node: &Node<'_, '_>) -> bool {
    node.children().any(|child| child.is_enabled() && child.property("compatible").is_some())
}

fn read(tree: &Tree<'_>, controller: &Controller, node: &Node<'_, '_>) -> Option<Uart> {
    let kind = if node.is_compatible(&PL011) {
        UartKind::Pl011
    } else if node.is_compatible(&BCM_AUX) {
        UartKind::BcmAux
    } else {
        return None;
    };
    let window = node.window(0).filter(|window| node.is_enabled() && window.size() >= kind.registers())?;
    let irq = controller.interrupt(node, 0)?;
    Some(Uart { kind, base: window.start, size: window.size(), irq, clock_hz: clock(tree, node) })
}

impl UartKind {
    /// The least size of its window, in bytes.
    const fn registers(self) -> u64 {
        match self {
            Self::Pl011 => 0x4c,
            Self::BcmAux => 0x2c,
        }
    }
}

/// The rate of the first clock, where it is written in the tree.
fn clock(tree: &Tree<'_>, node: &Node<'_, '_>) -> Option<u32> {
    let fixed = |node: &Node<'_, '_>| node.cell("clock-frequency").filter(|&rate| rate != 0);
    fixed(node).or_else(|| fixed(&tree.phandle(node.cells("clocks").next()?)?))
}
