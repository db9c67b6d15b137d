//! The nodes of a VM in the manifest: its boot modules, its disks, its network devices and the switches that these are at.

use super::value::{self, Value, ValueError};
use crate::addr::Mac;
use crate::bundle::{Findings, MODULES, MOST_DISKS, MOST_NETS, MOST_PORTS, NetSpec, quote};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

/// The most switches that are read: as many as there can be network devices at them.
const MOST_SWITCHES: usize = 64;

/// Keys that say how a tree's numbers are laid out: harmless wherever they stand.
pub(super) const LAYOUT: [&str; 2] = ["#address-cells", "#size-cells"];

/// A boot module of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModuleNode<'a> {
    /// Which of [`MODULES`] it is.
    pub kind: &'static str,
    /// `file`: the name of a member.
    pub file: &'a str,
    /// `bootargs`.
    pub bootargs: &'a str,
}

/// A disk of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskNode<'a> {
    /// The node's name.
    pub name: &'a str,
    /// `image`: the name of a member.
    pub image: &'a str,
    /// `read-only`.
    pub read_only: bool,
}

/// Where a VM is in the manifest.
pub(super) fn place(vm: &str) -> String {
    // Names that are too long are reported as such; here they are only kept from filling the screen.
    format!("/vms/{}", vm.get(..40).unwrap_or(vm))
}

/// Reports a name that is none, of such a thing.
pub(super) fn check_name_of(name: &str, what: &str, place: String, findings: &mut Findings) {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 15 || !name.bytes().all(allowed) {
        let what = format!("{} cannot be the name of {what}", quote(name));
        findings.add(place, what, "use 1 to 15 of a to z, 0 to 9 and -");
    }
}

/// Where a module of a VM is in the manifest.
pub(crate) fn module_place(vm: &str, kind: &str) -> String {
    format!("{}/modules/{kind}", place(vm))
}

/// Where a disk of a VM is in the manifest.
pub(super) fn disk_place(vm: &str, disk: &str) -> String {
    format!("{}/disks/{}", place(vm), disk.get(..40).unwrap_or(disk))
}

/// Reports the keys of a node, which should have none.
fn refuse_keys(node: &FdtNode<'_>, at: &str, remedy: &str, findings: &mut Findings) {
    for property in node.properties().filter(|property| !LAYOUT.contains(&property.name())) {
        findings.add(at, format!("unknown key {}", quote(property.name())), remedy);
    }
}

/// Shows each key of a node, which has no others in it, to `set`: that knows none of this name, or has taken its value, or says what is
/// wrong with it. `keys` says which there are.
fn read_keys<'a>(
    node: &FdtNode<'a>,
    at: &str,
    keys: &str,
    findings: &mut Findings,
    mut set: impl FnMut(&str, Value<'a>) -> Option<Result<(), ValueError>>,
) {
    for property in node.properties() {
        let name = property.name();
        match set(name, value::bytes(&property)) {
            None => findings.add(at, format!("unknown key {}", quote(name)), keys),
            Some(Ok(())) => {}
            Some(Err(ValueError { what, remedy })) => findings.add(format!("{at}/{name}"), what, remedy),
        }
    }
    for node in node.children() {
        findings.add(at, format!("unknown node {}", quote(node.name())), "it has keys only, no nodes");
    }
}

/// Reads the modules of a VM.
pub(super) fn read_modules<'a>(vm: &str, node: &FdtNode<'a>, findings: &mut Findings) -> Vec<ModuleNode<'a>> {
    let mut modules: Vec<ModuleNode<'a>> = Vec::new();
    let at = format!("{}/modules", place(vm));
    refuse_keys(node, &at, "a module's keys belong in its own node", findings);
    for child in node.children() {
        let Some(kind) = MODULES.into_iter().find(|kind| *kind == child.name()) else {
            let what = format!("unknown node {}", quote(child.name()));
            findings.add(at.as_str(), what, format!("the modules are {}", MODULES.join(", ")));
            continue;
        };
        let at = module_place(vm, kind);
        if modules.iter().any(|module| module.kind == kind) {
            findings.add(at.as_str(), "it is given twice", "leave one of them out");
            continue;
        }
        let mut file = None;
        let mut bootargs = "";
        read_keys(&child, &at, "the keys of a module are file, bootargs", findings, |key, bytes| match key {
            "file" => Some(value::file(bytes).map(|name| file = Some(name))),
            "bootargs" => Some(value::bootargs(bytes).map(|text| bootargs = text)),
            _ => None,
        });
        match file {
            Some(file) => modules.push(ModuleNode { kind, file, bootargs }),
            None => findings.add(at, "file is missing", "add file = \"Image\";"),
        }
    }
    modules
}

/// Reads the disks of a VM.
pub(super) fn read_disks<'a>(vm: &str, node: &FdtNode<'a>, findings: &mut Findings) -> Vec<DiskNode<'a>> {
    let mut disks: Vec<DiskNode<'a>> = Vec::new();
    let at = format!("{}/disks", place(vm));
    refuse_keys(node, &at, "a disk's keys belong in its own node", findings);
    for (n, child) in node.children().enumerate() {
        let name = child.name();
        if n >= MOST_DISKS {
            findings.add(at.as_str(), "there are too many disks", format!("leave out all but {MOST_DISKS}"));
            return disks;
        }
        let at = disk_place(vm, name);
        check_name_of(name, "a disk", at.clone(), findings);
        if disks.iter().any(|disk| disk.name == name) {
            findings.add(at.as_str(), "there are two disks of this name", "give each a name of its own");
            continue;
        }
        let mut image = None;
        let mut read_only = false;
        read_keys(&child, &at, "the keys of a disk are image, read-only", findings, |key, bytes| match key {
            "image" => Some(value::file(bytes).map(|name| image = Some(name))),
            "read-only" => Some(value::flag(bytes).map(|flag| read_only = flag)),
            _ => None,
        });
        match image {
            Some(image) => disks.push(DiskNode { name, image, read_only }),
            None => findings.add(at, "image is missing", "add image = \"root.ext4\";"),
        }
    }
    disks
}

/// Where a network device of a VM is in the manifest.
fn net_place(vm: &str, net: &str) -> String {
    format!("{}/nets/{}", place(vm), net.get(..40).unwrap_or(net))
}

/// The address of a device that is given none: one of those that are nobody's (IEEE 802, 8.4: locally administered), made of the names,
/// so that it is the same each time.
fn made_of(vm: &str, net: &str) -> Mac {
    // FNV-1a.
    let names = vm.bytes().chain([b'/']).chain(net.bytes());
    let hash =
        names.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let [a, b, c, d, e, ..] = (hash ^ hash >> 40).to_le_bytes();
    Mac([0x02, a, b, c, d, e])
}

/// Reads the network devices of a VM.
pub(super) fn read_nets<'a>(vm: &str, node: &FdtNode<'a>, findings: &mut Findings) -> Vec<NetSpec<'a>> {
    let mut nets: Vec<NetSpec<'a>> = Vec::new();
    let at = format!("{}/nets", place(vm));
    refuse_keys(node, &at, "a network device's keys belong in its own node", findings);
    for (n, child) in node.children().enumerate() {
        let name = child.name();
        if n >= MOST_NETS {
            let what = "there are too many network devices";
            findings.add(at.as_str(), what, format!("leave out all but {MOST_NETS}"));
            return nets;
        }
        let at = net_place(vm, name);
        check_name_of(name, "a network device", at.clone(), findings);
        if nets.iter().any(|net| net.name == name) {
            findings.add(at.as_str(), "there are two network devices of this name", "give each a name of its own");
            continue;
        }
        let (mut switch, mut mac, mut promiscuous) = (None, None, false);
        let keys = "the keys of a network device are switch, mac, promiscuous";
        read_keys(&child, &at, keys, findings, |key, bytes| match key {
            "switch" => Some(value::text(bytes).map(|name| switch = Some(name))),
            "mac" => Some(value::mac(bytes).map(|address| mac = Some(address))),
            "promiscuous" => Some(value::flag(bytes).map(|flag| promiscuous = flag)),
            _ => None,
        });
        match switch {
            Some(switch) => {
                nets.push(NetSpec { name, switch, mac: mac.unwrap_or_else(|| made_of(vm, name)), promiscuous });
            }
            None => findings.add(at, "switch is missing", "add switch = \"lan\";"),
        }
    }
    nets
}

/// Reads the node `switches`: the names of the switches.
pub(super) fn read_switches<'a>(root: &FdtNode<'a>, findings: &mut Findings) -> Vec<&'a str> {
    let mut switches: Vec<&'a str> = Vec::new();
    for node in root.children().filter(|node| node.name() == "switches") {
        refuse_keys(&node, "/switches", "a switch is a node in it, like lan {};", findings);
        for child in node.children() {
            let name = child.name();
            let at = format!("/switches/{}", name.get(..40).unwrap_or(name));
            check_name_of(name, "a switch", at.clone(), findings);
            if switches.contains(&name) {
                findings.add(at.as_str(), "there are two switches of this name", "give each a name of its own");
                continue;
            }
            read_keys(&child, &at, "a switch has no keys", findings, |_, _| None);
            // The others are said to be too many where somebody is at them.
            if switches.len() < MOST_SWITCHES {
                switches.push(name);
            }
        }
    }
    switches
}

/// Reports network devices of VMs, by their names, that cannot be at their switch: there is none, another has the address, or the VM is
/// there already.
pub(super) fn check_nets(switches: &[&str], vms: &[(&str, &[NetSpec<'_>])], findings: &mut Findings) {
    let all = || vms.iter().flat_map(|(vm, nets)| nets.iter().map(move |net| (*vm, net)));
    for (n, (vm, net)) in all().enumerate() {
        let at = |key| format!("{}/{key}", net_place(vm, net.name));
        if !switches.contains(&net.switch) {
            let what = format!("there is no switch {}", quote(net.switch));
            let remedy = format!("add switches {{ {} {{}}; }}; beside vms", net.switch.get(..15).unwrap_or("lan"));
            findings.add(at("switch"), what, remedy);
            continue;
        }
        let mut earlier = all().take(n).filter(|(_, other)| other.switch == net.switch);
        if earlier.clone().count() >= MOST_PORTS {
            let remedy = format!("put some of them at another: a switch has {MOST_PORTS} ports");
            findings.add(at("switch"), "there are too many network devices at this switch", remedy);
        }
        if let Some((other, _)) = earlier.clone().find(|(_, other)| other.mac == net.mac) {
            findings.add(at("mac"), format!("VM {other} has this address"), "give it another with mac = \"...\";");
        }
        if earlier.any(|(other, _)| other == vm) {
            findings.add(at("switch"), "the VM is at this switch already", "leave one of the two out");
        }
    }
}
