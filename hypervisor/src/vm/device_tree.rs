//! The device tree a guest is handed: QEMU's `virt` board, as far as the virtual board has it.
//!
//! Key types: [`Description`], turned into bytes by [`Description::build`]. Addresses, interrupt numbers, node names and
//! compatibles are those of QEMU's `virt` (compare `qemu-system-aarch64 -machine virt,dumpdtb=FILE`); what it has and
//! this board does not (PCI, fw-cfg, GPIO, the GIC's MSI frames, the PMU) is left out, and a `hypervisor` node
//! with the VM's name is put in.
//!
//! The length of a tree does not depend on where the initrd lies, and is never more than [`crate::bundle::place::DTB_ROOM`].
//! Follows the Devicetree Specification 0.4 and Linux's bindings of `arm,gic-v3`, `arm,gic`, `arm,armv8-timer`,
//! `arm,psci`, `cfi-flash`, `arm,pl011`, `arm,pl031` and `virtio,mmio`.

use super::dtb::{Node, Value};
use crate::addr::IntId;
use crate::bundle::image::{FLASH_BANK, Plan};
use crate::bundle::place::{Ram, Stretch};
use crate::bundle::{MOST_DISKS, MOST_NETS, VmSpec};
use crate::devices::flash::Bank;
use crate::devices::{
    self, GICC, GICD, GICH, GICR, GICR_STRIDE, GICV, RAM_BASE, RTC, RTC_INTID, UART, UART_INTID, VIRTIO, VIRTIO_SLOTS,
    VIRTIO_STRIDE, virtio_intid,
};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const CLOCK: u32 = 0x8000;
const INTC: u32 = 0x8001;
/// The third cell of an interrupt.
const EDGE: u32 = 1;
const LEVEL: u32 = 4;
/// The timers, in the order of the binding: secure, non-secure, virtual and hypervisor, and EL2's virtual one.
const TIMERS: [IntId; 5] = [
    devices::SECURE_TIMER_INTID,
    devices::PHYSICAL_TIMER_INTID,
    devices::VIRTUAL_TIMER_INTID,
    devices::HYP_TIMER_INTID,
    devices::HYP_VIRTUAL_TIMER_INTID,
];

/// The cells of an interrupt: whether it is private, its number among those that are or are not, and how it is triggered.
const fn interrupt(intid: IntId, flags: u32) -> [u32; 3] {
    match intid.0.checked_sub(32) {
        Some(spi) => [0, spi, flags],
        None => [1, intid.0 - 16, flags],
    }
}

/// Which interrupt controller the board has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gic {
    /// GICv2: at most 8 vCPUs.
    V2,
    /// GICv3.
    V3,
}

impl Gic {
    /// The affinity fields of MPIDR_EL1 of vCPU `n`, as QEMU numbers them: 8 (GICv2) or 16 (GICv3) vCPUs in each Aff1.
    pub const fn mpidr(self, n: u16) -> u64 {
        let cluster = match self {
            Self::V2 => 8,
            Self::V3 => 16,
        };
        ((n / cluster) as u64) << 8 | (n % cluster) as u64
    }
}

/// What a guest's device tree says.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The VM's name.
    pub name: &'a str,
    /// Its RAM.
    pub ram: Ram,
    /// How many vCPUs it has.
    pub vcpus: u16,
    /// Its interrupt controller.
    pub gic: Gic,
    /// Where its initrd lies.
    pub initrd: Option<Stretch>,
    /// The kernel's command line.
    pub bootargs: &'a str,
    /// Where modules for a hypervisor lie, what they are, and their command lines.
    pub modules: &'a [(Stretch, &'static str, &'a str)],
    /// The virtio-mmio slots that have a device: bit n for slot n.
    pub virtio: u32,
    /// Whether it starts at EL2: then the GIC's maintenance interrupt and the virtual timer of EL2 are wired, and PSCI is
    /// called by SMC, since HVC leads to its own EL2.
    pub nested: bool,
    /// The bytes of its two banks of flash, if it has them.
    pub flash: Option<[u64; 2]>,
    /// Random bytes for the kernel: 8 for its layout (KASLR), the rest for its random numbers. May be empty.
    pub seed: &'a [u8],
}

/// Modules of a VM in its memory: where each lies, what it is, and its command line.
pub type Modules<'a> = Vec<(Stretch, &'static str, &'a str)>;

/// The modules of a VM where `plan` has them.
pub fn modules_of<'a>(spec: &VmSpec<'a>, plan: &Plan<'_>) -> Modules<'a> {
    let places = plan.modules.iter().zip(&spec.modules);
    places.map(|(place, module)| (*place, module.kind, module.bootargs)).collect()
}

/// How many bytes a virtio device takes in the tree at most.
pub const VIRTIO_BYTES: u64 = 144;

/// How many bytes the tree of a VM with one virtio device has at most, with modules of so many bytes of command lines.
pub fn most_bytes(vcpus: u16, bootargs: &str, modules: impl Iterator<Item = usize>) -> u64 {
    let modules: u64 = modules.map(|bootargs| 208 + bootargs as u64).sum();
    (2 << 10) + u64::from(vcpus) * 112 + bootargs.len() as u64 + modules
}

impl<'a> Description<'a> {
    /// What the tree of a VM says whose images go where `plan` has them.
    pub fn of(spec: &VmSpec<'a>, plan: &Plan<'_>, gic: Gic, modules: &'a [(Stretch, &'static str, &'a str)]) -> Self {
        Self {
            name: spec.name,
            ram: Ram { base: RAM_BASE, bytes: spec.memory },
            vcpus: spec.vcpus,
            gic,
            initrd: plan.initrd,
            bootargs: spec.bootargs,
            modules,
            // The balloon, and then disks and network devices, of which there are few.
            virtio: (2 << (spec.disks.len().min(MOST_DISKS) + spec.nets.len().min(MOST_NETS))) - 1,
            nested: spec.nested,
            flash: spec.flash.map(|images| images.map(|image| Bank::bytes_for(image.len()))),
            seed: &[],
        }
    }

    /// Makes the device tree, flattened.
    pub fn build(&self) -> Vec<u8> {
        let root = &mut Node::default();
        set(root, "interrupt-parent", INTC);
        flag(root, "dma-coherent");
        set(root, "model", "linux,dummy-virt");
        set(root, "#size-cells", 2_u32);
        set(root, "#address-cells", 2_u32);
        set(root, "compatible", "linux,dummy-virt");
        for node in [psci(self.nested), self.memory(), self.hypervisor()] {
            root.add(node);
        }
        if let Some(banks) = self.flash {
            root.add(flash(banks));
        }
        // 32, so it fits.
        for slot in (0..VIRTIO_SLOTS as u8).filter(|slot| self.virtio >> slot & 1 != 0) {
            root.add(virtio(slot));
        }
        for node in [rtc(), uart(), self.intc(), self.cpus(), self.timer(), clock(), aliases(), self.chosen()] {
            root.add(node);
        }
        root.flatten()
    }

    fn memory(&self) -> Node {
        let mut memory = node(&format!("memory@{:x}", self.ram.base.bits()));
        set(&mut memory, "reg", &[(self.ram.base.bits(), self.ram.bytes)][..]);
        set(&mut memory, "device_type", "memory");
        memory
    }

    fn hypervisor(&self) -> Node {
        let mut hypervisor = node("hypervisor");
        set(&mut hypervisor, "compatible", "flatland,vm");
        set(&mut hypervisor, "vm-name", self.name);
        hypervisor
    }

    fn intc(&self) -> Node {
        let mut intc = node(&format!("intc@{GICD:x}"));
        set(&mut intc, "phandle", INTC);
        match self.gic {
            Gic::V2 => {
                let regions = [(GICD, 0x1_0000), (GICC, 0x1_0000), (GICH, 0x1_0000), (GICV, 0x1_0000)];
                set(&mut intc, "reg", if self.nested { &regions[..] } else { &regions[..2] });
                set(&mut intc, "compatible", "arm,cortex-a15-gic");
            }
            Gic::V3 => {
                let redistributors = GICR_STRIDE.saturating_mul(self.vcpus.into());
                set(&mut intc, "reg", &[(GICD, 0x1_0000), (GICR, redistributors)][..]);
                set(&mut intc, "#redistributor-regions", 1_u32);
                set(&mut intc, "compatible", "arm,gic-v3");
            }
        }
        if self.nested {
            set(&mut intc, "interrupts", &interrupt(devices::MAINTENANCE_INTID, self.ppi_flags())[..]);
        }
        flag(&mut intc, "ranges");
        set(&mut intc, "#size-cells", 2_u32);
        set(&mut intc, "#address-cells", 2_u32);
        flag(&mut intc, "interrupt-controller");
        set(&mut intc, "#interrupt-cells", 3_u32);
        intc
    }

    fn cpus(&self) -> Node {
        let mut cpus = node("cpus");
        set(&mut cpus, "#size-cells", 0_u32);
        set(&mut cpus, "#address-cells", 1_u32);
        for n in 0..self.vcpus {
            // Aff3 is 0, so it fits.
            let mpidr = self.gic.mpidr(n) as u32;
            let mut cpu = node(&format!("cpu@{mpidr:x}"));
            set(&mut cpu, "reg", mpidr);
            set(&mut cpu, "enable-method", "psci");
            set(&mut cpu, "compatible", "arm,armv8");
            set(&mut cpu, "device_type", "cpu");
            cpus.add(cpu);
        }
        cpus
    }

    /// The flags of a private interrupt, which is a level. A GICv2's name the CPUs they are wired to, in bits 8 to 15.
    fn ppi_flags(&self) -> u32 {
        match self.gic {
            Gic::V2 => LEVEL | ((1 << self.vcpus.min(8)) - 1) << 8,
            Gic::V3 => LEVEL,
        }
    }

    fn timer(&self) -> Node {
        let mut timer = node("timer");
        let flags = self.ppi_flags();
        let timers = if self.nested { &TIMERS[..] } else { &TIMERS[..4] };
        let interrupts: Vec<u32> = timers.iter().flat_map(|&timer| interrupt(timer, flags)).collect();
        set(&mut timer, "interrupts", &interrupts[..]);
        flag(&mut timer, "always-on");
        set(&mut timer, "compatible", &["arm,armv8-timer", "arm,armv7-timer"][..]);
        timer
    }

    fn chosen(&self) -> Node {
        let mut chosen = node("chosen");
        if let Some(initrd) = self.initrd {
            set(&mut chosen, "linux,initrd-end", initrd.end());
            set(&mut chosen, "linux,initrd-start", initrd.start.bits());
        }
        if !self.bootargs.is_empty() {
            set(&mut chosen, "bootargs", self.bootargs);
        }
        set(&mut chosen, "stdout-path", uart_path().as_str());
        if !self.modules.is_empty() {
            flag(&mut chosen, "ranges");
            set(&mut chosen, "#size-cells", 2_u32);
            set(&mut chosen, "#address-cells", 2_u32);
        }
        for module in self.modules {
            chosen.add(self::module(module));
        }
        if let Some((layout, numbers)) = self.seed.split_first_chunk::<8>() {
            set(&mut chosen, "kaslr-seed", &layout[..]);
            if !numbers.is_empty() {
                set(&mut chosen, "rng-seed", numbers);
            }
        }
        chosen
    }
}

/// A boot module, as Xen looks for them.
fn module(&(place, kind, bootargs): &(Stretch, &'static str, &str)) -> Node {
    let mut module = node(&format!("module@{:x}", place.start.bits()));
    if !bootargs.is_empty() {
        set(&mut module, "bootargs", bootargs);
    }
    set(&mut module, "reg", &[(place.start.bits(), place.bytes)][..]);
    set(&mut module, "compatible", &[format!("multiboot,{kind}").as_str(), "multiboot,module"][..]);
    module
}

fn psci(nested: bool) -> Node {
    let mut psci = node("psci");
    set(&mut psci, "migrate", 0xc400_0005_u32);
    set(&mut psci, "cpu_on", 0xc400_0003_u32);
    set(&mut psci, "cpu_off", 0x8400_0002_u32);
    set(&mut psci, "cpu_suspend", 0xc400_0001_u32);
    set(&mut psci, "method", if nested { "smc" } else { "hvc" });
    set(&mut psci, "compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"][..]);
    psci
}

fn flash([firmware, variables]: [u64; 2]) -> Node {
    let mut flash = node("flash@0");
    set(&mut flash, "bank-width", 4_u32);
    set(&mut flash, "reg", &[(0, firmware), (FLASH_BANK, variables)][..]);
    set(&mut flash, "compatible", "cfi-flash");
    flash
}

fn virtio(slot: u8) -> Node {
    let at = VIRTIO + VIRTIO_STRIDE * u64::from(slot);
    let mut virtio = node(&format!("virtio_mmio@{at:x}"));
    flag(&mut virtio, "dma-coherent");
    set(&mut virtio, "interrupts", &interrupt(virtio_intid(slot), EDGE)[..]);
    set(&mut virtio, "reg", &[(at, VIRTIO_STRIDE)][..]);
    set(&mut virtio, "compatible", "virtio,mmio");
    virtio
}

fn rtc() -> Node {
    let mut rtc = node(&format!("pl031@{RTC:x}"));
    set(&mut rtc, "clock-names", "apb_pclk");
    set(&mut rtc, "clocks", CLOCK);
    set(&mut rtc, "interrupts", &interrupt(RTC_INTID, LEVEL)[..]);
    set(&mut rtc, "reg", &[(RTC, 0x1000)][..]);
    set(&mut rtc, "compatible", &["arm,pl031", "arm,primecell"][..]);
    rtc
}

fn uart() -> Node {
    let mut uart = node(&format!("pl011@{UART:x}"));
    set(&mut uart, "clock-names", &["uartclk", "apb_pclk"][..]);
    set(&mut uart, "clocks", &[CLOCK, CLOCK][..]);
    set(&mut uart, "interrupts", &interrupt(UART_INTID, LEVEL)[..]);
    set(&mut uart, "reg", &[(UART, 0x1000)][..]);
    set(&mut uart, "compatible", &["arm,pl011", "arm,primecell"][..]);
    uart
}

fn uart_path() -> String {
    format!("/pl011@{UART:x}")
}

fn clock() -> Node {
    let mut clock = node("apb-pclk");
    set(&mut clock, "phandle", CLOCK);
    set(&mut clock, "clock-output-names", "clk24mhz");
    set(&mut clock, "clock-frequency", 24_000_000_u32);
    set(&mut clock, "#clock-cells", 0_u32);
    set(&mut clock, "compatible", "fixed-clock");
    clock
}

fn aliases() -> Node {
    let mut aliases = node("aliases");
    set(&mut aliases, "serial0", uart_path().as_str());
    aliases
}

fn node(name: &str) -> Node {
    Node::new(name)
}

fn set(node: &mut Node, name: &'static str, value: impl Value) {
    node.set(name, value);
}

fn flag(node: &mut Node, name: &'static str) {
    node.set(name, &[0_u8; 0][..]);
}

#[cfg(test)]
mod tests {
    use super::{Description, Gic, most_bytes};
    use crate::addr::Addr;
    use crate::bundle::place::{DTB_ROOM, Ram, Stretch};
    use crate::devices::RAM_BASE;
    use alloc::string::{String, ToString};
    use dtoolkit::fdt::{Fdt, FdtNode};
    use dtoolkit::{Node, Property};

    const VM: Description<'_> = Description {
        name: "alpha",
        ram: Ram { base: RAM_BASE, bytes: 128 << 20 },
        vcpus: 2,
        gic: Gic::V3,
        initrd: Some(Stretch { start: Addr::new(0x4800_0000), bytes: 0x1234 }),
        bootargs: "console=ttyAMA0",
        modules: &[],
        virtio: 0,
        nested: false,
        flash: None,
        seed: b"",
    };

    fn get<'a>(node: &FdtNode<'a>, name: &str) -> &'a [u8] {
        node.properties().find(|property| property.name() == name).unwrap().value_as().unwrap()
    }

    fn cells(bytes: &[u8]) -> alloc::vec::Vec<u32> {
        bytes.as_chunks::<4>().0.iter().map(|&cell| u32::from_be_bytes(cell)).collect()
    }

    #[test]
    fn the_tree_is_valid_and_says_what_was_asked_for() {
        let bytes = VM.build();
        let tree = Fdt::new(&bytes).unwrap();
        let chosen = tree.find_node("/chosen").unwrap();
        assert_eq!(get(&chosen, "bootargs"), b"console=ttyAMA0\0");
        assert_eq!(cells(get(&chosen, "linux,initrd-start")), [0, 0x4800_0000]);
        assert_eq!(cells(get(&chosen, "linux,initrd-end")), [0, 0x4800_1234]);
        assert_eq!(get(&chosen, "stdout-path"), b"/pl011@9000000\0");
        let memory = tree.find_node("/memory@40000000").unwrap();
        assert_eq!(cells(get(&memory, "reg")), [0, 0x4000_0000, 0, 0x800_0000]);
        let names: alloc::vec::Vec<String> =
            tree.find_node("/cpus").unwrap().children().map(|cpu| cpu.name().to_string()).collect();
        assert_eq!(names, ["cpu@0", "cpu@1"]);
        let intc = tree.find_node("/intc").unwrap();
        assert_eq!(cells(get(&intc, "reg")), [0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x4_0000]);
    }

    #[test]
    fn each_slot_that_has_a_device_is_where_it_is_looked_for() {
        let bytes = Description { virtio: 0b1001, ..VM }.build();
        let tree = Fdt::new(&bytes).unwrap();
        for (name, at, spi) in [("/virtio_mmio@a000000", 0xa00_0000, 16), ("/virtio_mmio@a000600", 0xa00_0600, 19)] {
            let virtio = tree.find_node(name).unwrap();
            assert_eq!(cells(get(&virtio, "reg")), [0, at, 0, 0x200]);
            assert_eq!(cells(get(&virtio, "interrupts")), [0, spi, 1]);
        }
    }

    #[test]
    fn a_gicv2_board_has_its_cpu_interface_and_wires_ppis_to_its_cpus() {
        let bytes = Description { gic: Gic::V2, ..VM }.build();
        let tree = Fdt::new(&bytes).unwrap();
        let intc = tree.find_node("/intc").unwrap();
        assert_eq!(cells(get(&intc, "reg")), [0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x1_0000]);
        assert_eq!(get(&intc, "compatible"), b"arm,cortex-a15-gic\0");
        let timer = tree.find_node("/timer").unwrap();
        assert_eq!(cells(get(&timer, "interrupts"))[..6], [1, 13, 0x304, 1, 14, 0x304]);
    }

    #[test]
    fn a_tree_is_no_longer_than_is_reckoned_with() {
        let bootargs = "x".repeat(1000);
        for (vcpus, bootargs) in [(1, ""), (2, "quiet"), (8, &bootargs), (16, &bootargs)] {
            let vm = Description { name: "fifteen-letters", vcpus, bootargs, virtio: 1, ..VM };
            let vm = Description { nested: true, flash: Some([u64::MAX; 2]), ..vm };
            let bytes = vm.build().len() as u64;
            let most = most_bytes(vcpus, bootargs, core::iter::empty());
            assert!(bytes <= most && bytes + 300 > most, "{vcpus} vCPUs: {bytes}");
        }
    }

    #[test]
    fn flash_is_told_of_where_there_is_some() {
        assert!(Fdt::new(&VM.build()).unwrap().find_node("/flash@0").is_none());
        let bytes = Description { flash: Some([2 << 20, 1 << 20]), ..VM }.build();
        let flash = Fdt::new(&bytes).unwrap().find_node("/flash@0").map(|flash| cells(get(&flash, "reg")));
        assert_eq!(flash.unwrap(), [0, 0, 0, 2 << 20, 0, 64 << 20, 0, 1 << 20]);
    }

    #[test]
    fn modules_are_where_xen_looks_for_them() {
        let at = |start, bytes| Stretch { start: Addr::new(start), bytes };
        let modules = [
            (at(0x4800_0000, 0x1234), "kernel", "console=hvc0"),
            (at(0x4810_0000, 5), "ramdisk", ""),
            (at(u64::MAX, 5), "device-tree", "x"),
        ];
        let bytes = Description { modules: &modules, ..VM }.build();
        let tree = Fdt::new(&bytes).unwrap();
        let chosen = tree.find_node("/chosen").unwrap();
        assert_eq!([cells(get(&chosen, "#address-cells")), cells(get(&chosen, "#size-cells"))], [[2], [2]]);
        let kernel = tree.find_node("/chosen/module@48000000").unwrap();
        assert_eq!(get(&kernel, "compatible"), b"multiboot,kernel\0multiboot,module\0");
        assert_eq!(
            (get(&kernel, "bootargs"), cells(get(&kernel, "reg"))),
            (&b"console=hvc0\0"[..], [0, 0x4800_0000, 0, 0x1234].into())
        );
        let ramdisk = tree.find_node("/chosen/module@48100000").unwrap();
        assert_eq!(get(&ramdisk, "compatible"), b"multiboot,ramdisk\0multiboot,module\0");
        assert!(ramdisk.properties().all(|property| property.name() != "bootargs"));
        let more = bytes.len() - VM.build().len();
        let most = most_bytes(0, "", modules.iter().map(|(.., bootargs)| bootargs.len()))
            - most_bytes(0, "", core::iter::empty());
        assert!((more as u64) <= most, "{more}, {most}");
    }

    #[test]
    fn affinity_counts_as_on_qemu() {
        assert_eq!(Gic::V2.mpidr(7), 7);
        assert_eq!(Gic::V3.mpidr(15), 15);
        assert_eq!(Gic::V3.mpidr(17), 0x101);
    }

    #[test]
    fn the_largest_tree_fits_its_room_and_its_length_knows_no_initrd() {
        let bootargs = "x".repeat(2047);
        let large =
            Description { vcpus: 64, virtio: u32::MAX, flash: Some([1, 1]), bootargs: &bootargs, seed: &[1; 72], ..VM };
        assert!(large.build().len() as u64 <= DTB_ROOM / 2);
        let elsewhere = Stretch { start: Addr::new(u64::MAX), bytes: 0 };
        assert_eq!(large.build().len(), Description { initrd: Some(elsewhere), ..large }.build().len());
        Fdt::new(&large.build()).unwrap();
    }
}
