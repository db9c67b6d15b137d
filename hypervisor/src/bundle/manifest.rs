//! The manifest: which VMs there are and what each is made of, as a device tree that `dtc` compiled.
//!
//! ```text
//! / {
//!     compatible = "flatland,bundle-1";
//!     vms {
//!         alpha {
//!             memory = "128M";              // a multiple of 2M; required
//!             kernel = "Image";             // a member of the archive; required without flash
//!             initrd = "initrd.gz";
//!             bootargs = "console=ttyAMA0";
//!             vcpus = <2>;                  // 1
//!             shares = <1000>;              // 1000
//!             on-crash = "stop";            // "stop", "restart" or "dump"
//!             affinity = <0 1>;             // any CPU
//!             watchdog-seconds = <10>;      // none
//!             granule = "2M";               // what a first touch allocates: "2M" or "4K"
//!             min = "32M";                  // all of its memory: what it has whatever others need
//!             domain = "lab";               // none: it shares equal pages with VMs of the same domain
//!             nested;                       // not: it starts at EL2, to be a hypervisor itself
//!             nested-backend = "trap";      // "nv2" where the CPUs have FEAT_NV2: how EL2 is run
//!             flash = "u-boot.fd";          // none: firmware at 0, where it starts; read-only
//!             flash-variables = "vars.fd";  // erased: flash at 64M, written until the board is turned off
//!             modules {                     // none: files for a kernel that is a hypervisor, as multiboot,module in /chosen
//!                 kernel { file = "Image"; bootargs = "console=hvc0"; };
//!                 ramdisk { file = "initrd.gz"; };
//!             };
//!             disks {                       // none: virtio disks, in this order; the names are their serial numbers
//!                 root {
//!                     image = "root.ext4";  // a member of the archive: what is written is the VM's own, until it ends
//!                     read-only;            // not
//!                 };
//!             };
//!             nets {                        // none: virtio network devices, in this order
//!                 eth0 {
//!                     switch = "lan";       // required: one of those below
//!                     mac = "52:54:00:0:0:1"; // made of the names: its address, the only one it may send from
//!                     promiscuous;          // not: it may send from others too, as a bridge does
//!                 };
//!             };
//!         };
//!     };
//!     switches { lan {}; };                 // none: Ethernet switches between VMs
//!     policy {                              // how memory is managed where it is short; may be left out
//!         pool = "448M";                    // all there is: the most RAM for guests
//!         idle-tax = <75>;                  // percent
//!         cow-risk = <10>;                  // percent
//!         scan-cpu = <50>;                  // percent of one CPU
//!         swap = "swap";                    // all of a disk that is blank: the partition to swap to, by its name
//!     };
//! };
//! ```
//!
//! Key types: [`VmNode`]. [`read`] is total: whatever it is given, it comes back with the VMs it could make out and with
//! all errors, unknown keys among them. It relies on [`Fdt::new`], which checks the whole tree before anything is read
//! from it. Values are read in `manifest/value.rs`, the nodes of a VM in `manifest/nodes.rs`.

mod nodes;
mod value;

use super::{Findings, Granule, Limits, NetSpec, OnCrash, PolicySpec, quote};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::fdt::{Fdt, FdtNode, FdtProperty};
use dtoolkit::{Node, Property};
pub(super) use nodes::module_place;
pub use nodes::{DiskNode, ModuleNode};
use nodes::{LAYOUT, check_name_of, check_nets, disk_place, place, read_disks, read_modules, read_nets, read_switches};
use value::ValueError;

/// The most VMs of a manifest.
pub const MOST_VMS: usize = 16;
/// The most bytes of a compiled manifest.
pub const MOST_BYTES: usize = 256 << 10;
/// What the root node must be compatible with.
pub const COMPATIBLE: &str = "flatland,bundle-1";

/// The keys of a VM.
const KEYS: [&str; 16] = [
    "vcpus",
    "memory",
    "shares",
    "kernel",
    "initrd",
    "bootargs",
    "on-crash",
    "affinity",
    "watchdog-seconds",
    "granule",
    "min",
    "domain",
    "nested",
    "nested-backend",
    "flash",
    "flash-variables",
];
/// The keys of the node `policy`.
const POLICY: [&str; 5] = ["pool", "idle-tax", "cow-risk", "scan-cpu", "swap"];
/// One VM of the manifest. What is required and was missing or wrong is nothing here, and among the findings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmNode<'a> {
    /// The node's name.
    pub name: &'a str,
    /// `vcpus`.
    pub vcpus: u16,
    /// `memory`, in bytes.
    pub memory: Option<u64>,
    /// `shares`.
    pub shares: u32,
    /// `kernel`: the name of a member.
    pub kernel: Option<&'a str>,
    /// `initrd`: the name of a member.
    pub initrd: Option<&'a str>,
    /// `bootargs`.
    pub bootargs: &'a str,
    /// `on-crash`.
    pub on_crash: OnCrash,
    /// `affinity` as a mask, all ones where it is not given.
    pub affinity: u64,
    /// `watchdog-seconds`.
    pub watchdog: Option<u32>,
    /// `granule`.
    pub granule: Granule,
    /// `min`, in bytes.
    pub min: Option<u64>,
    /// `domain`.
    pub domain: Option<&'a str>,
    /// `nested`.
    pub nested: bool,
    /// `nested-backend`: whether it is "trap".
    pub by_traps: bool,
    /// `flash`: the name of a member.
    pub flash: Option<&'a str>,
    /// `flash-variables`: the name of a member.
    pub variables: Option<&'a str>,
    /// `modules`, in their order.
    pub modules: Vec<ModuleNode<'a>>,
    /// `disks`, in their order.
    pub disks: Vec<DiskNode<'a>>,
    /// `nets`, in their order.
    pub nets: Vec<NetSpec<'a>>,
}

/// Reads the compiled manifest `dtb`. Errors go to `findings`; at most [`MOST_VMS`] entries are returned.
pub fn read<'a>(dtb: &'a [u8], limits: &Limits, findings: &mut Findings) -> Vec<VmNode<'a>> {
    let Some(root) = open(dtb, findings) else { return Vec::new() };
    check_root(&root, findings);
    let Some(vms) = root.children().find(|node| node.name() == "vms") else {
        findings.add("/", "there is no node \"vms\"", "add vms { NAME { ... }; };");
        return Vec::new();
    };
    for property in vms.properties().filter(|property| !LAYOUT.contains(&property.name())) {
        let what = format!("unknown key {}", quote(property.name()));
        findings.add("/vms", what, "a VM's keys belong in its own node, /vms/NAME");
    }
    let mut entries: Vec<VmNode<'a>> = Vec::new();
    let mut n_vms = 0_usize;
    for node in vms.children() {
        n_vms += 1;
        if n_vms > MOST_VMS {
            continue;
        }
        let name = node.name();
        check_name(name, findings);
        if entries.iter().any(|other| other.name == name) {
            findings.add(place(name), "there are two VMs of this name", "give each a name of its own");
        }
        entries.push(read_vm(name, &node, limits, findings));
    }
    let nets: Vec<_> = entries.iter().map(|vm| (vm.name, vm.nets.as_slice())).collect();
    check_nets(&read_switches(&root, findings), &nets, findings);
    if n_vms == 0 {
        findings.add("/vms", "there are no VMs", "add NAME { memory = \"128M\"; kernel = \"Image\"; };");
    } else if n_vms > MOST_VMS {
        findings.add("/vms", format!("there are {n_vms} VMs"), format!("leave out all but {MOST_VMS}"));
    }
    entries
}

/// The images that the manifest `dtb` names, as far as it can be read: the path of each key and the name it gives. For
/// whoever gathers the files before [`super::Bundle::open`] reports the errors.
pub fn images(dtb: &[u8]) -> Vec<(String, &str)> {
    let mut ignored = Findings::default();
    let mut names = Vec::new();
    for entry in read(dtb, &Limits::ANY_BOARD, &mut ignored) {
        let flash = [("flash", entry.flash), ("flash-variables", entry.variables)];
        for (key, name) in [("kernel", entry.kernel), ("initrd", entry.initrd)].into_iter().chain(flash) {
            names.extend(name.map(|name| (format!("{}/{key}", place(entry.name)), name)));
        }
        let modules = entry.modules.iter();
        names.extend(modules.map(|module| (format!("{}/file", module_place(entry.name, module.kind)), module.file)));
        let disks = entry.disks.iter();
        names.extend(disks.map(|disk| (format!("{}/image", disk_place(entry.name, disk.name)), disk.image)));
    }
    names
}

/// The root of the tree, unless it is no tree at all.
fn open<'a>(dtb: &'a [u8], findings: &mut Findings) -> Option<FdtNode<'a>> {
    const REMEDY: &str = "compile the manifest with dtc, as scripts/bundle does";
    if dtb.len() > MOST_BYTES {
        findings.add(super::MANIFEST, format!("it has more than {MOST_BYTES} bytes"), REMEDY);
        return None;
    }
    match Fdt::new(dtb) {
        Ok(tree) => Some(tree.root()),
        Err(error) => {
            findings.add(super::MANIFEST, format!("it is no device tree: {error}"), REMEDY);
            None
        }
    }
}

fn check_root(root: &FdtNode<'_>, findings: &mut Findings) {
    let mut compatible = false;
    for property in root.properties() {
        match property.name() {
            "compatible" => {
                compatible = true;
                if value::text(value::bytes(&property)).as_ref().ok() != Some(&COMPATIBLE) {
                    let remedy = format!("this hypervisor reads \"{COMPATIBLE}\"");
                    findings.add("/compatible", "the manifest is of another kind or version", remedy);
                }
            }
            name if LAYOUT.contains(&name) => {}
            name => findings.add("/", format!("unknown key {}", quote(name)), "leave it out"),
        }
    }
    if !compatible {
        findings.add("/", "there is no \"compatible\"", format!("add compatible = \"{COMPATIBLE}\";"));
    }
    let (mut n_vms, mut n_policies, mut n_switches) = (0, 0, 0);
    for child in root.children() {
        if child.name() == "vms" {
            n_vms += 1;
        } else if child.name() == "policy" {
            n_policies += 1;
        } else if child.name() == "switches" {
            n_switches += 1;
        } else {
            findings.add("/", format!("unknown node {}", quote(child.name())), "VMs belong in the node vms");
        }
    }
    if n_vms > 1 {
        findings.add("/vms", "there are two nodes of this name", "put all VMs into one");
    }
    for (place, n) in [("/policy", n_policies), ("/switches", n_switches)] {
        if n > 1 {
            findings.add(place, "there are two nodes of this name", "leave one of them out");
        }
    }
}

/// Reads the node `policy` of the compiled manifest `dtb`, if it has one. Errors of its own go to `findings`; those of the
/// tree are for [`read`] to find.
pub fn policy<'a>(dtb: &'a [u8], limits: &Limits, findings: &mut Findings) -> PolicySpec<'a> {
    let mut policy = PolicySpec::default();
    let Some(root) = open(dtb, &mut Findings::default()) else { return policy };
    let Some(node) = root.children().find(|node| node.name() == "policy") else { return policy };
    for property in node.properties() {
        let bytes = value::bytes(&property);
        // At most 100, so it fits.
        let percent = |most| value::number(bytes, 0, most).map(|number| Some(number as u8));
        let result = match property.name() {
            "pool" => value::size(bytes, limits.memory).map(|size| policy.pool = Some(size)),
            "idle-tax" => percent(100).map(|tax| policy.tax = tax),
            "cow-risk" => percent(100).map(|risk| policy.risk = risk),
            "scan-cpu" => percent(100).map(|share| policy.scan_cpu = share),
            "swap" => value::partition(bytes).map(|name| policy.swap = Some(name)),
            name if LAYOUT.contains(&name) => Ok(()),
            name => {
                let remedy = format!("its keys are {}", POLICY.join(", "));
                findings.add("/policy", format!("unknown key {}", quote(name)), remedy);
                Ok(())
            }
        };
        if let Err(ValueError { what, remedy }) = result {
            findings.add(format!("/policy/{}", property.name()), what, remedy);
        }
    }
    for child in node.children() {
        findings.add("/policy", format!("unknown node {}", quote(child.name())), "it has keys only, no nodes");
    }
    policy
}

fn check_name(name: &str, findings: &mut Findings) {
    check_name_of(name, "a VM", place(name), findings);
}

/// Reads the node of one VM.
fn read_vm<'a>(name: &'a str, node: &FdtNode<'a>, limits: &Limits, findings: &mut Findings) -> VmNode<'a> {
    let mut entry = VmNode {
        name,
        vcpus: 1,
        memory: None,
        shares: 1000,
        kernel: None,
        initrd: None,
        bootargs: "",
        on_crash: OnCrash::Stop,
        affinity: u64::MAX,
        watchdog: None,
        granule: Granule::default(),
        min: None,
        domain: None,
        nested: false,
        by_traps: false,
        flash: None,
        variables: None,
        modules: Vec::new(),
        disks: Vec::new(),
        nets: Vec::new(),
    };
    let mut seen = [false; KEYS.len()];
    for property in node.properties() {
        let key = property.name();
        let Some(seen) = KEYS.iter().position(|&known| known == key).and_then(|n| seen.get_mut(n)) else {
            if !LAYOUT.contains(&key) {
                findings.add(place(name), format!("unknown key {}", quote(key)), nearest(key));
            }
            continue;
        };
        let at = format!("{}/{key}", place(name));
        if *seen {
            findings.add(at, "it is given twice", "leave one of them out");
        } else if let Err(ValueError { what, remedy }) = set(&mut entry, &property, limits) {
            findings.add(at, what, remedy);
        }
        *seen = true;
    }
    let is_given = |wanted| KEYS.iter().zip(seen).any(|(&key, seen)| seen && key == wanted);
    for (key, is_required, example) in [
        ("memory", true, "memory = \"128M\";"),
        ("kernel", !is_given("flash"), "kernel = \"Image\";"),
        ("flash", is_given("flash-variables"), "flash = \"u-boot.bin\";"),
    ] {
        if is_required && !is_given(key) {
            findings.add(place(name), format!("{key} is missing"), format!("add {example}"));
        }
    }
    if let (Some(min), Some(memory)) = (entry.min, entry.memory)
        && min > memory
    {
        findings.add(format!("{}/min", place(name)), "it is more than its memory", "write no more than \"memory\"");
    }
    for child in node.children() {
        match child.name() {
            "modules" => entry.modules.extend(read_modules(name, &child, findings)),
            "disks" => entry.disks.extend(read_disks(name, &child, findings)),
            "nets" => entry.nets.extend(read_nets(name, &child, findings)),
            other => {
                let what = format!("unknown node {}", quote(other));
                findings.add(place(name), what, "the nodes of a VM are modules, disks, nets");
            }
        }
    }
    if !entry.modules.is_empty() && !entry.nested {
        findings.add(format!("{}/modules", place(name)), "it is no hypervisor", "add nested; or leave them out");
    }
    entry
}

/// Puts the value of one known key into the entry.
fn set<'a>(entry: &mut VmNode<'a>, property: &FdtProperty<'a>, limits: &Limits) -> Result<(), ValueError> {
    let value = value::bytes(property);
    match property.name() {
        "vcpus" => {
            let number = value::number(value, 1, limits.vcpus.into())?;
            // Bounded by a limit that is a u16.
            entry.vcpus = u16::try_from(number).unwrap_or(limits.vcpus);
        }
        "memory" => entry.memory = Some(value::size(value, limits.memory)?),
        "shares" => entry.shares = value::number(value, 1, value::MOST_SHARES)?,
        "kernel" => entry.kernel = Some(value::file(value)?),
        "initrd" => entry.initrd = Some(value::file(value)?),
        "bootargs" => entry.bootargs = value::bootargs(value)?,
        "on-crash" => entry.on_crash = value::on_crash(value)?,
        "affinity" => entry.affinity = value::affinity(value, limits.cpus)?,
        "min" => entry.min = Some(value::size(value, limits.memory)?),
        "domain" => entry.domain = Some(value::text(value)?),
        "nested" => entry.nested = value::flag(value)?,
        "nested-backend" => entry.by_traps = value::backend(value)?,
        "flash" => entry.flash = Some(value::file(value)?),
        "flash-variables" => entry.variables = Some(value::file(value)?),
        "granule" => entry.granule = value::granule(value)?,
        "watchdog-seconds" => entry.watchdog = Some(value::number(value, 1, value::MOST_SECONDS)?),
        _ => {}
    }
    Ok(())
}

/// What to do about an unknown key: the known one that is most like it, or all of them.
fn nearest(key: &str) -> String {
    let best = KEYS.iter().map(|&known| (distance(key, known), known)).min();
    let alike = |known: &str| key.len() >= 3 && (known.starts_with(key) || key.starts_with(known));
    if let Some((_, known)) = best.filter(|&(distance, _)| distance <= 2) {
        return format!("did you mean \"{known}\"?");
    }
    match KEYS.iter().find(|known| alike(known)) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("the keys of a VM are {}", KEYS.join(", ")),
    }
}

/// How many letters have to be put in, left out or changed to make `a` into `b`. Only for short words: the cost is the
/// product of the lengths, and `b` longer than 31 is never alike.
fn distance(a: &str, b: &str) -> usize {
    const MOST: usize = 32;
    if a.len() >= MOST || b.len() >= MOST {
        return usize::MAX;
    }
    let mut row: [usize; MOST] = core::array::from_fn(|n| n);
    for (n, from) in a.bytes().enumerate() {
        let mut diagonal = n;
        let mut left = n + 1;
        // The row is one ahead of `b`: its first cell is the distance to nothing.
        for (cell, to) in row.iter_mut().skip(1).zip(b.bytes()) {
            let changed = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    if b.is_empty() { a.len() } else { row.get(b.len()).copied().unwrap_or(usize::MAX) }
}

#[cfg(test)]
mod tests;
