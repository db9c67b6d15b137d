//! What a manifest asks for, and what a board can give.

use crate::addr::Mac;
use alloc::vec::Vec;

/// The name of the archive's first member.
pub const MANIFEST: &str = "manifest.dtb";

/// What a board can give, which a manifest may not exceed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most vCPUs of a VM: 8 with a GICv2, 16 with a GICv3.
    pub vcpus: u16,
    /// The number of CPUs, which `affinity` may name from 0; at most 64.
    pub cpus: u16,
    /// The most memory of a VM, in bytes.
    pub memory: u64,
}

impl Limits {
    /// What holds for every board: for use where the board is not known, as when a bundle is made.
    pub const ANY_BOARD: Self = Self { vcpus: 16, cpus: 64, memory: 255 << 30 };
}

/// What becomes of a VM that cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnCrash {
    /// It stays down and its memory goes back to the pool.
    #[default]
    Stop,
    /// It starts again from pristine images.
    Restart,
    /// As `Stop`, with the memory around its PC and its stack in the report.
    Dump,
}

/// What a first touch of a VM's memory allocates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Granule {
    /// 2 MiB where it can be had: fewer faults, shorter walks.
    #[default]
    Block,
    /// 4 KiB: nothing that is not used.
    Page,
}

/// What the boot modules of a VM are, by the names of their nodes: what `multiboot,` stands before in its device tree (Xen's
/// `docs/misc/arm/device-tree/booting.txt`).
pub const MODULES: [&str; 3] = ["kernel", "ramdisk", "device-tree"];

/// A file that a hypervisor finds beside its own kernel: its first guest's kernel, say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module<'a> {
    /// Which of [`MODULES`] it is.
    pub kind: &'static str,
    /// The file.
    pub data: &'a [u8],
    /// The command line that goes with it.
    pub bootargs: &'a str,
}

/// The most disks of a VM.
pub const MOST_DISKS: usize = 8;

/// A disk of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpec<'a> {
    /// Its name, like a VM's: the guest reads it as the serial number.
    pub name: &'a str,
    /// What is on it at first: whole sectors of 512 bytes, at least one. What the VM writes is its own.
    pub image: &'a [u8],
    /// Whether it may not be written.
    pub read_only: bool,
}

impl DiskSpec<'_> {
    /// How many bytes of IPAs are for its blocks, in whole blocks of 2 MiB.
    pub const fn block_bytes(&self) -> u64 {
        (self.image.len() as u64).next_multiple_of(2 << 20)
    }
}

/// The most network devices of a VM.
pub const MOST_NETS: usize = 4;

/// The most network devices at a switch: a frame's ports are the bits of a word.
pub const MOST_PORTS: usize = 32;

/// A network device of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetSpec<'a> {
    /// Its name, like a VM's, for the operator.
    pub name: &'a str,
    /// The name of the switch that it is at, at which the VM has no other.
    pub switch: &'a str,
    /// Its address, unlike any other's at the switch; nobody's group.
    pub mac: Mac,
    /// Whether the VM may send frames from other addresses too, and gets those to addresses that it has sent from.
    pub promiscuous: bool,
}

/// One VM, as its manifest wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmSpec<'a> {
    /// Its name: 1 to 15 of `[a-z0-9-]`, unlike any other in the bundle.
    pub name: &'a str,
    /// How many vCPUs, at least 1.
    pub vcpus: u16,
    /// Bytes of RAM: a multiple of 2 MiB, at least one.
    pub memory: u64,
    /// Its weight when CPU time is short.
    pub shares: u32,
    /// The kernel's image, in any form that [`image`](super::image) knows; nothing only where there is flash.
    pub kernel: Option<&'a [u8]>,
    /// The initial RAM disk, passed on as it is.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub bootargs: &'a str,
    /// Further files for a kernel that is a hypervisor: at most one of each kind.
    pub modules: Vec<Module<'a>>,
    /// Its disks, in the order in which the guest finds them.
    pub disks: Vec<DiskSpec<'a>>,
    /// Its network devices, in the order in which the guest finds them.
    pub nets: Vec<NetSpec<'a>>,
    /// What becomes of it when it crashes.
    pub on_crash: OnCrash,
    /// The CPUs that may run it, bit n for CPU n. All ones where the manifest does not say.
    pub affinity: u64,
    /// After how many seconds without a sign of life it counts as crashed.
    pub watchdog: Option<u32>,
    /// What a first touch allocates.
    pub granule: Granule,
    /// Bytes of RAM that it gets whatever the others need; all of it where the manifest does not say.
    pub min: Option<u64>,
    /// The VMs that it may share equal pages with: those of the same name here.
    pub domain: Option<&'a str>,
    /// Whether it starts at EL2, to be a hypervisor itself.
    pub nested: bool,
    /// Whether its EL2 runs at EL0 though the CPUs have FEAT_NV2.
    pub by_traps: bool,
    /// What its flash holds at first, firmware and then variables: it starts in the former. The latter may be empty.
    pub flash: Option<[&'a [u8]; 2]>,
}

impl VmSpec<'_> {
    /// How many bytes of IPAs behind RAM are for blocks of its disks.
    pub fn block_bytes(&self) -> u64 {
        self.disks.iter().map(DiskSpec::block_bytes).sum()
    }

    /// How many bytes of memory it may have in all: RAM, and what it may change of its disks.
    pub fn most_bytes(&self) -> u64 {
        self.memory + self.disks.iter().filter(|disk| !disk.read_only).map(DiskSpec::block_bytes).sum::<u64>()
    }
}

/// How the board's memory is managed, as the manifest wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicySpec<'a> {
    /// The most bytes of RAM for guests, their tables included; all there are where the manifest does not say.
    pub pool: Option<u64>,
    /// The idle-memory tax in percent.
    pub tax: Option<u8>,
    /// How much of what sharing saves must be there to be copied, in percent.
    pub risk: Option<u8>,
    /// How much of one CPU the scanner may use, in percent.
    pub scan_cpu: Option<u8>,
    /// The name of the partition of the board's disk to swap to; where the manifest does not say, all of a disk that is blank.
    pub swap: Option<&'a str>,
}
