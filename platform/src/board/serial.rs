//! Choosing the serial line to speak on.
//!
//! The firmware's choice is `/chosen/stdout-path`; where that leads to nothing we can drive, the board's by its aliases
//! `serial0` to `serial9`, else the first enabled PL011, else the first mini-UART. A line that has a device at its other end
//! comes last, whoever names it: Raspberry Pi OS's tree has a `stdout-path` of `serial1` and turns the aliases round, so
//! that it leads to Bluetooth's PL011.
//!
//! Follows the bindings `pl011`, `brcm,bcm2835-aux-uart`, `serial` (a device on a serial line is a child node) and
//! `brcm,bcm2835-gpio` (the pins a line is led to).

use super::gic::Controller;
use super::{Uart, UartKind};
use crate::tree::{Node, Tree};

const PL011: [&str; 1] = ["arm,pl011"];
const BCM_AUX: [&str; 1] = ["brcm,bcm2835-aux-uart"];
const ALIASES: [&str; 10] =
    ["serial0", "serial1", "serial2", "serial3", "serial4", "serial5", "serial6", "serial7", "serial8", "serial9"];
/// The pin of a Raspberry Pi's header that every UART meant for people sends on (TXD, GPIO 14).
const HEADER: u32 = 14;

/// Chooses the UART, or none. Without a `controller` it is one to send on only, its interrupt not known.
pub(super) fn find(tree: &Tree<'_>, controller: Option<&Controller>) -> Option<Uart> {
    let usable = |node: &Node<'_, '_>| read(tree, controller, node);
    let chosen = tree.node("/chosen");
    let chosen =
        chosen.as_ref().and_then(|chosen| chosen.text("stdout-path").or_else(|| chosen.text("linux,stdout-path")));
    let named = |name| tree.resolve(name);
    let free = |node: &Node<'_, '_>| !is_wired(tree, node) && usable(node).is_some();
    let first = |of: &[&str]| tree.find(|node| node.is_compatible(of) && free(node));
    let best = chosen.into_iter().chain(ALIASES).filter_map(named).find(free);
    let best = best.or_else(|| first(&PL011)).or_else(|| first(&BCM_AUX));
    // What the firmware names is better than silence.
    best.or_else(|| named(chosen?)).and_then(|node| usable(&node))
}

/// Finds a serial line to send on where there is no tree to ask: where QEMU's `virt` and a Raspberry Pi 4 have a PL011, if one
/// says there that it is one. `read` reads a 32-bit register, and nothing is written. On the Raspberry Pi the line is the
/// mini-UART's where the firmware has switched that on.
pub fn guess(mut read: impl FnMut(u64) -> u32) -> Option<Uart> {
    // UARTPeriphID0 and UARTPCellID0 to 3 (DDI 0183, 3.3.15 and 3.3.16).
    const IDS: [(u64, u32); 5] = [(0xfe0, 0x11), (0xff0, 0x0d), (0xff4, 0xf0), (0xff8, 0x05), (0xffc, 0xb1)];
    const PI: u64 = 0xfe20_1000;
    // AUX_ENABLES, and AUX_MU_IO_REG behind it.
    const AUX: u64 = 0xfe21_5004;
    let base = [0x900_0000, PI].into_iter().find(|base| IDS.iter().all(|&(at, id)| read(base + at) & 0xff == id))?;
    let (kind, base) =
        if base == PI && read(AUX) & 1 != 0 { (UartKind::BcmAux, AUX + 0x3c) } else { (UartKind::Pl011, base) };
    Some(Uart { kind, base, size: kind.registers(), irq: 0, clock_hz: None })
}

/// Whether the line leads to a device and not to people: one that the tree names, or to other pins than the header's.
fn is_wired(tree: &Tree<'_>, node: &Node<'_, '_>) -> bool {
    let led_away = |group: Node<'_, '_>| {
        let mut pins = group.cells("brcm,pins").peekable();
        pins.peek().is_some() && pins.all(|pin| pin != HEADER)
    };
    node.children().any(|child| child.is_enabled() && child.property("compatible").is_some())
        || node.cells("pinctrl-0").filter_map(|group| tree.phandle(group)).any(led_away)
}

fn read(tree: &Tree<'_>, controller: Option<&Controller>, node: &Node<'_, '_>) -> Option<Uart> {
    let kind = if node.is_compatible(&PL011) {
        UartKind::Pl011
    } else if node.is_compatible(&BCM_AUX) {
        UartKind::BcmAux
    } else {
        return None;
    };
    let window = node.window(0).filter(|window| node.is_enabled() && window.size() >= kind.registers())?;
    let irq = controller.map_or(Some(0), |controller| controller.interrupt(node, 0))?;
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
