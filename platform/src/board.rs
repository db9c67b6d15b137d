//! What a board consists of, as data.
//!
//! Key types: [`Board`], read from the device tree once at boot by [`Board::from_tree`] and never changed, and
//! [`BoardError`], which names the place in the tree and a remedy. Nothing here touches a device.
//!
//! Invariants: every address is a CPU physical address; every interrupt is a GIC INTID (PPIs from 16, SPIs from 32); lists
//! of ranges are sorted and merged. Whatever the tree says, reading it does not panic.

mod facts;
mod gic;
mod serial;

pub use serial::guess;

use crate::Range;
use crate::tree::{Node, Tree, TreeError};
use arrayvec::{ArrayString, ArrayVec};
use core::fmt;

/// The facts about a board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Board {
    /// All RAM, as whole frames, sorted and merged.
    pub memory: ArrayVec<Range, 16>,
    /// What may not be handed out, as whole frames, sorted and merged: `/memreserve/`, `/reserved-memory` and the pages
    /// of the spin table. The initial ramdisk, the device tree itself and the running image are not in it.
    pub reserved: ArrayVec<Range, 32>,
    /// The CPUs that may be used, in the order of the tree.
    pub cpus: ArrayVec<Cpu, 16>,
    /// How to call PSCI, if there is one.
    pub psci: Option<Conduit>,
    /// The interrupt controller.
    pub gic: Gic,
    /// The timers of each CPU.
    pub timer: Timer,
    /// The serial line to speak on, if any is usable.
    pub uart: Option<Uart>,
    /// The base of the BCM2835 power management block (1 page), which restarts the board.
    pub watchdog: Option<u64>,
    /// The slots that virtio devices may be in, most of them empty, in the order of the tree: the first and 31 more at
    /// most that lie in the same 2 MiB.
    pub virtio: ArrayVec<Slot, 32>,
    /// What the boot loader put into memory as the initial ramdisk, to the byte.
    pub initrd: Option<Range>,
    /// The command line, if there is one of at most 512 bytes.
    pub bootargs: Option<ArrayString<512>>,
    /// A random number from the boot loader, if it gave one (`/chosen/kaslr-seed`).
    pub seed: Option<u64>,
    /// Random bytes from the boot loader, as far as it gave some (`/chosen/rng-seed`).
    pub random: ArrayVec<u8, 64>,
    /// Every device window the hypervisor itself touches, as whole frames, sorted and merged, for its own map. The GIC's
    /// virtual CPU interface is not in it: that one only guests touch; nor are the slots of virtio devices, most of which
    /// are looked at once.
    pub mmio: ArrayVec<Range, 16>,
}

/// A CPU of the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// The affinity fields of its MPIDR_EL1: Aff3 in bits 39 to 32, Aff2 to Aff0 in bits 23 to 0.
    pub mpidr: u64,
    /// How it is started.
    pub enable: Enable,
}

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enable {
    /// By PSCI CPU_ON.
    Psci,
    /// By writing an entry address (64 bits, cleaned to the point of coherency) to `release`, then SEV.
    SpinTable {
        /// The physical address of the 64-bit word the CPU polls.
        release: u64,
    },
    /// In a way we do not know; a board of one CPU need not say.
    Unknown,
}

/// The instruction that calls the firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// SMC, to EL3.
    Smc,
    /// HVC, to EL2: of no use to a hypervisor, unless it runs on another one.
    Hvc,
}

/// The interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gic {
    /// GICv2 with the virtualization extensions.
    V2 {
        /// The distributor, GICD.
        dist: Range,
        /// The CPU interface, GICC.
        cpu: Range,
        /// The virtual interface control registers, GICH.
        hyp: Range,
        /// The virtual CPU interface, GICV: mapped into guests as their GICC.
        virt: Range,
        /// The maintenance interrupt, a PPI.
        maintenance: u32,
    },
    /// GICv3, its CPU interface in system registers.
    V3 {
        /// The distributor, GICD.
        dist: Range,
        /// The regions that hold the redistributors, GICR.
        redists: ArrayVec<Range, 8>,
        /// The bytes from one redistributor to the next, where it is not what GICR_TYPER tells.
        redist_stride: Option<u64>,
        /// The maintenance interrupt, a PPI.
        maintenance: u32,
    },
}

/// The INTIDs of a CPU's generic timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// The EL2 physical timer (CNTHP).
    pub hyp: u32,
    /// The virtual timer (CNTV).
    pub virt: u32,
    /// The non-secure EL1 physical timer (CNTP).
    pub phys: u32,
}

/// A serial port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Which driver it takes.
    pub kind: UartKind,
    /// Where its registers start.
    pub base: u64,
    /// How many bytes of registers there are.
    pub size: u64,
    /// Its INTID, level-sensitive.
    pub irq: u32,
    /// The clock it divides, in Hz, where the tree says.
    pub clock_hz: Option<u32>,
}

/// The kinds of serial ports there are drivers for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UartKind {
    /// Arm PrimeCell PL011.
    Pl011,
    /// The mini-UART among the BCM2835's auxiliary peripherals.
    BcmAux,
}

/// A slot for a virtio device: registers of virtio-mmio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Where the registers start, a multiple of four.
    pub base: u64,
    /// Whether the device sees what the CPUs have in their caches (`dma-coherent`).
    pub is_coherent: bool,
}

/// Says why a tree does not describe a board Flatland can run on: where, what, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BoardError {
    /// The path of the node, cut if very long, or the byte of the blob.
    pub place: ArrayString<80>,
    /// What is wrong.
    pub what: &'static str,
    /// What the operator can do.
    pub remedy: &'static str,
}

impl BoardError {
    fn at(place: &dyn fmt::Display, what: &'static str, remedy: &'static str) -> Self {
        Self { place: cut(place), what, remedy }
    }
}

/// Writes as much of `text` as fits.
fn cut<const N: usize>(text: &dyn fmt::Display) -> ArrayString<N> {
    let mut place = ArrayString::new();
    // A path that is too long ends with the last component that fits.
    let _ = fmt::write(&mut place, format_args!("{text}"));
    place
}

impl From<TreeError> for BoardError {
    fn from(error: TreeError) -> Self {
        Self {
            place: cut(&format_args!("byte {:#x} of the device tree", error.offset)),
            what: error.what,
            remedy: "hand over an undamaged device tree in x0",
        }
    }
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.what, self.remedy)
    }
}

impl core::error::Error for BoardError {}

impl Board {
    /// Reads the board from the device tree at the start of `blob`. A tree from a boot loader goes through
    /// [`tidy`](crate::tree::tidy) first. Takes some 30 KiB of stack; 48 KiB are enough for any tree.
    ///
    /// Fails where the tree is damaged or lacks what no hypervisor can do without; that is the fault of whoever made the
    /// tree or started the board, and the error says which and what to do.
    pub fn from_tree(blob: &[u8]) -> Result<Self, BoardError> {
        let tree = Tree::new(blob)?;
        let (gic, controller) = gic::find(&tree)?;
        let cpus = facts::cpus(&tree)?;
        let mut board = Self {
            memory: facts::memory(&tree)?,
            reserved: facts::reserved(&tree, &cpus),
            cpus,
            psci: facts::psci(&tree),
            gic,
            timer: facts::timer(&tree, &controller)?,
            uart: serial::find(&tree, Some(&controller)),
            watchdog: facts::watchdog(&tree),
            virtio: facts::virtio(&tree),
            initrd: facts::initrd(&tree),
            bootargs: facts::bootargs(&tree),
            seed: tree.node("/chosen").and_then(|chosen| chosen.number("kaslr-seed")),
            random: facts::random(&tree),
            mmio: ArrayVec::new(),
        };
        board.mmio = board.windows()?;
        Ok(board)
    }

    /// Finds the serial line of a board whose tree [`Board::from_tree`] refuses, to say so on it. Its interrupt is not
    /// known. Nothing where the tree cannot even be read.
    pub fn last_words(blob: &[u8]) -> Option<Uart> {
        serial::find(&Tree::new(blob).ok()?, None)
    }

    fn windows(&self) -> Result<ArrayVec<Range, 16>, BoardError> {
        let mut all = ArrayVec::new();
        let mut add = |range: Range| {
            let full = |_| BoardError::at(&"/", "too many device windows", "this is a limit of Flatland");
            crate::range::insert(&mut all, range.frames_around()).map_err(full)
        };
        match &self.gic {
            Gic::V2 { dist, cpu, hyp, .. } => [dist, cpu, hyp].into_iter().try_for_each(|range| add(*range))?,
            Gic::V3 { dist, redists, .. } => [dist].into_iter().chain(redists).try_for_each(|range| add(*range))?,
        }
        if let Some(range) = self.uart.and_then(|uart| Range::sized(uart.base, uart.size)) {
            add(range)?;
        }
        if let Some(range) = self.watchdog.and_then(|base| Range::sized(base, crate::range::FRAME)) {
            add(range)?;
        }
        Ok(all)
    }
}

/// Writes one fact per line, the same for boot log, monitor and tests.
impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cpu in &self.cpus {
            write!(f, "cpu       {:#x} ", cpu.mpidr)?;
            match cpu.enable {
                Enable::Psci => writeln!(f, "psci")?,
                Enable::SpinTable { release } => writeln!(f, "spin-table {release:#x}")?,
                Enable::Unknown => writeln!(f, "no known way to start")?,
            }
        }
        for range in &self.memory {
            writeln!(f, "memory    {range} {} KiB", range.size() / 1024)?;
        }
        for range in &self.reserved {
            writeln!(f, "reserved  {range}")?;
        }
        if let Some(conduit) = self.psci {
            writeln!(f, "psci      {}", if conduit == Conduit::Smc { "smc" } else { "hvc" })?;
        }
        self.gic.fmt(f)?;
        writeln!(f, "timer     hyp {} virt {} phys {}", self.timer.hyp, self.timer.virt, self.timer.phys)?;
        if let Some(uart) = self.uart {
            let kind = if uart.kind == UartKind::Pl011 { "pl011" } else { "bcm2835-aux" };
            writeln!(f, "uart      {kind} {:#x} irq {}", uart.base, uart.irq)?;
        }
        if let Some(base) = self.watchdog {
            writeln!(f, "watchdog  {base:#x}")?;
        }
        if let Some(first) = self.virtio.first() {
            writeln!(f, "virtio    {} slots from {:#x}", self.virtio.len(), first.base)?;
        }
        if let Some(range) = self.initrd {
            writeln!(f, "initrd    {range}")?;
        }
        if let Some(line) = &self.bootargs {
            writeln!(f, "bootargs  {line}")?;
        }
        Ok(())
    }
}

/// Writes the controller's parts, one per line.
impl fmt::Display for Gic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V2 { dist, cpu, hyp, virt, maintenance } => {
                writeln!(f, "gic       v2 dist {dist} maintenance {maintenance}")?;
                writeln!(f, "gic       cpu {cpu} hyp {hyp} virt {virt}")
            }
            Self::V3 { dist, redists, redist_stride, maintenance } => {
                writeln!(f, "gic       v3 dist {dist} maintenance {maintenance}")?;
                for range in redists {
                    write!(f, "gic       redist {range}")?;
                    match redist_stride {
                        Some(stride) => writeln!(f, " stride {stride:#x}")?,
                        None => writeln!(f)?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// What every part of the reading wants: the error for a node.
fn wrong(node: &Node<'_, '_>, what: &'static str, remedy: &'static str) -> BoardError {
    BoardError::at(node, what, remedy)
}

#[cfg(test)]
mod tests;
