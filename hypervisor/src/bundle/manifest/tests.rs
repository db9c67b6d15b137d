//! What manifests say and what is said about them.

use super::{COMPATIBLE, DiskNode, ModuleNode, VmNode, distance, images, read};
use crate::addr::Mac;
use crate::bundle::{Findings, Granule, Limits, NetSpec, OnCrash};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

const LIMITS: Limits = Limits { vcpus: 8, cpus: 4, memory: 255 << 30 };

fn key<T: ToPropertyValue>(name: &str, value: T) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).unwrap()
}

fn vm(name: &str, keys: Vec<DeviceTreeProperty>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    keys.into_iter().for_each(|key| node.add_property(key));
    node
}

fn manifest(vms: Vec<DeviceTreeNode>) -> Vec<u8> {
    manifest_with(vms, vec![])
}

/// The same with these nodes beside `vms`.
fn manifest_with(vms: Vec<DeviceTreeNode>, others: Vec<DeviceTreeNode>) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root.add_property(key("compatible", COMPATIBLE));
    let mut node = DeviceTreeNode::new("vms").unwrap();
    vms.into_iter().for_each(|vm| node.add_child(vm));
    tree.root.add_child(node);
    others.into_iter().for_each(|node| tree.root.add_child(node));
    tree.to_dtb()
}

fn good(dtb: &[u8]) -> Vec<VmNode<'_>> {
    let mut findings = Findings::default();
    let entries = read(dtb, &LIMITS, &mut findings);
    findings.unless(entries).unwrap()
}

fn errors(dtb: &[u8]) -> Vec<String> {
    let mut findings = Findings::default();
    read(dtb, &LIMITS, &mut findings);
    findings.unless(()).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The errors of a VM that is complete but for `keys`.
fn errors_of(keys: Vec<DeviceTreeProperty>) -> Vec<String> {
    let mut all = vec![key("memory", "128M"), key("kernel", "Image")];
    all.extend(keys);
    errors(&manifest(vec![vm("a", all)]))
}

#[test]
fn memory_and_kernel_are_enough() {
    let dtb = manifest(vec![vm("a", vec![key("memory", "2M"), key("kernel", "Image")])]);
    let entries = good(&dtb);
    let expected = VmNode {
        name: "a",
        vcpus: 1,
        memory: Some(2 << 20),
        shares: 1000,
        kernel: Some("Image"),
        initrd: None,
        bootargs: "",
        on_crash: OnCrash::Stop,
        affinity: u64::MAX,
        watchdog: None,
        granule: Granule::Block,
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
    assert_eq!(entries, [expected]);
}

#[test]
fn every_key_arrives() {
    let keys = vec![
        key("memory", "4G"),
        key("kernel", "./k"),
        key("initrd", "r"),
        key("bootargs", "quiet"),
        key("vcpus", 8_u32),
        key("shares", 5_u32),
        key("on-crash", "restart"),
        key("affinity", [3_u32, 0]),
        key("watchdog-seconds", 10_u32),
        key("granule", "4K"),
        key("min", "64M"),
        key("domain", "lab"),
        key("flash", "code.fd"),
        key("flash-variables", "vars.fd"),
    ];
    let dtb = manifest(vec![vm("b-2", keys)]);
    let entry = &good(&dtb)[0];
    assert_eq!((entry.name, entry.vcpus, entry.memory, entry.shares), ("b-2", 8, Some(4 << 30), 5));
    assert_eq!((entry.kernel, entry.initrd, entry.bootargs), (Some("k"), Some("r"), "quiet"));
    assert_eq!((entry.on_crash, entry.affinity, entry.watchdog), (OnCrash::Restart, 0b1001, Some(10)));
    assert_eq!((entry.granule, entry.min, entry.domain), (Granule::Page, Some(64 << 20), Some("lab")));
    let named: Vec<_> = images(&dtb).into_iter().map(|(_, name)| name).collect();
    assert_eq!(named, ["k", "r", "code.fd", "vars.fd"]);
    assert_eq!((entry.flash, entry.variables), (Some("code.fd"), Some("vars.fd")));
}

/// A VM with the node `modules`, which has these nodes.
fn vm_with(nested: bool, modules: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut all = vec![key("memory", "128M"), key("kernel", "xen")];
    if nested {
        all.push(key("nested", [0_u32; 0]));
    }
    let mut vm = vm("a", all);
    let mut node = DeviceTreeNode::new("modules").unwrap();
    modules.into_iter().for_each(|module| node.add_child(module));
    vm.add_child(node);
    vm
}

#[test]
fn modules_have_files_and_command_lines() {
    let kernel = vm("kernel", vec![key("file", "Image"), key("bootargs", "quiet")]);
    let ramdisk = vm("ramdisk", vec![key("file", "initrd.gz")]);
    let dtb = manifest(vec![vm_with(true, vec![ramdisk, kernel])]);
    let module = |kind, file, bootargs| ModuleNode { kind, file, bootargs };
    assert_eq!(good(&dtb)[0].modules, [module("ramdisk", "initrd.gz", ""), module("kernel", "Image", "quiet")]);
    let named = images(&dtb);
    let named: Vec<_> = named.iter().map(|(place, name)| (place.as_str(), *name)).collect();
    let places = ["/vms/a/kernel", "/vms/a/modules/ramdisk/file", "/vms/a/modules/kernel/file"];
    assert_eq!(named, [(places[0], "xen"), (places[1], "initrd.gz"), (places[2], "Image")]);
}

#[test]
fn what_is_wrong_with_modules_is_said_with_its_place() {
    let of = |nested, modules| errors(&manifest(vec![vm_with(nested, modules)]));
    let kernel = || vm("kernel", vec![key("file", "Image")]);
    assert_eq!(of(false, vec![kernel()]), ["/vms/a/modules: it is no hypervisor; add nested; or leave them out"]);
    let wrong = of(true, vec![vm("initrd", vec![]), vm("kernel", vec![key("bootargs", 5_u32), key("name", "x")])]);
    let start = |error: &String| error.split(';').next().unwrap().to_string();
    assert_eq!(
        wrong.iter().map(start).collect::<Vec<_>>(),
        [
            "/vms/a/modules: unknown node \"initrd\"",
            "/vms/a/modules/kernel/bootargs: it is not one text",
            "/vms/a/modules/kernel: unknown key \"name\"",
            "/vms/a/modules/kernel: file is missing"
        ]
    );
}

/// A manifest with these switches and VMs, each of which has these network devices.
fn networks(switches: Vec<DeviceTreeNode>, vms: Vec<(&str, Vec<DeviceTreeNode>)>) -> Vec<u8> {
    let vms = vms.into_iter().map(|(name, nets)| {
        let mut vm = vm(name, vec![key("memory", "128M"), key("kernel", "Image")]);
        let mut node = DeviceTreeNode::new("nets").unwrap();
        nets.into_iter().for_each(|net| node.add_child(net));
        vm.add_child(node);
        vm
    });
    let mut node = vm("switches", vec![]);
    switches.into_iter().for_each(|switch| node.add_child(switch));
    manifest_with(vms.collect(), vec![node])
}

fn net(name: &str, switch: &str) -> DeviceTreeNode {
    vm(name, vec![key("switch", switch)])
}

#[test]
fn network_devices_have_an_address_of_their_own_at_a_switch() {
    let fixed = vm("eth1", vec![key("switch", "dmz"), key("mac", "52:54:0:aB:1:f"), key("promiscuous", [0_u32; 0])]);
    let switches = vec![vm("lan", vec![]), vm("dmz", vec![])];
    let dtb = networks(switches, vec![("a", vec![net("eth0", "lan"), fixed]), ("b", vec![net("eth0", "lan")])]);
    let vms = good(&dtb);
    let made = vms[0].nets[0].mac;
    assert!(made.0[0] == 2 && made != vms[1].nets[0].mac && made == good(&dtb)[0].nets[0].mac, "{made}");
    let of = |n: usize, m: usize| {
        let NetSpec { name, switch, promiscuous, .. } = vms[n].nets[m];
        (name, switch, promiscuous)
    };
    assert_eq!([of(0, 0), of(1, 0), of(0, 1)], [("eth0", "lan", false), ("eth0", "lan", false), ("eth1", "dmz", true)]);
    assert_eq!(vms[0].nets[1].mac, Mac([0x52, 0x54, 0, 0xab, 1, 0xf]));
}

#[test]
fn what_is_wrong_with_networks_is_said_with_its_place() {
    let lan = || vec![vm("lan", vec![])];
    let start = |error: &String| error.split(';').next().unwrap().to_string();
    let of = |dtb: Vec<u8>| errors(&dtb).iter().map(start).collect::<Vec<_>>();
    let mac = |name, text: &str| vm(name, vec![key("switch", "lan"), key("mac", text)]);
    let wrong = ["52:54:00:00:00", "52:54:00:00:00:00:00", "53:54:00:00:00:00", "52:54:00:00:00:+1", "0:0:0:0:0:0"];
    for text in wrong {
        let errors = of(networks(lan(), vec![("a", vec![mac("eth0", text)])]));
        assert!(errors.len() == 1 && errors[0].starts_with("/vms/a/nets/eth0/mac: "), "{errors:?}");
    }
    let address = "52:54:00:00:00:01";
    let dtb = networks(
        vec![vm("lan", vec![key("uplink", 1_u32)]), vm("Lan", vec![])],
        vec![
            ("a", vec![mac("eth0", address), net("eth1", "lan"), net("eth2", "wan"), vm("eth3", vec![])]),
            ("b", vec![mac("eth0", address)]),
        ],
    );
    assert_eq!(
        of(dtb),
        [
            "/vms/a/nets/eth3: switch is missing",
            "/switches/lan: unknown key \"uplink\"",
            "/switches/Lan: \"Lan\" cannot be the name of a switch",
            "/vms/a/nets/eth1/switch: the VM is at this switch already",
            "/vms/a/nets/eth2/switch: there is no switch \"wan\"",
            "/vms/b/nets/eth0/mac: VM a has this address",
        ]
    );
    let five = ["1", "2", "3", "4", "5"].map(|name| net(name, "lan")).into();
    let errors = of(networks(lan(), vec![("a", five)]));
    assert_eq!(errors[0], "/vms/a/nets: there are too many network devices");
}

/// A VM with the node `disks`, which has these nodes.
fn vm_with_disks(disks: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut vm = vm("a", vec![key("memory", "128M"), key("kernel", "Image")]);
    let mut node = DeviceTreeNode::new("disks").unwrap();
    disks.into_iter().for_each(|disk| node.add_child(disk));
    vm.add_child(node);
    vm
}

#[test]
fn disks_have_images_and_come_in_their_order() {
    let root = vm("root", vec![key("image", "./root.ext4")]);
    let data = vm("data-2", vec![key("image", "data"), key("read-only", [0_u32; 0])]);
    let dtb = manifest(vec![vm_with_disks(vec![root, data])]);
    let disk = |name, image, read_only| DiskNode { name, image, read_only };
    assert_eq!(good(&dtb)[0].disks, [disk("root", "root.ext4", false), disk("data-2", "data", true)]);
    let named = images(&dtb);
    let named: Vec<_> = named.iter().map(|(place, name)| (place.as_str(), *name)).collect();
    let places = ["/vms/a/kernel", "/vms/a/disks/root/image", "/vms/a/disks/data-2/image"];
    assert_eq!(named, [(places[0], "Image"), (places[1], "root.ext4"), (places[2], "data")]);
}

#[test]
fn what_is_wrong_with_disks_is_said_with_its_place() {
    let image = || vec![key("image", "x")];
    let of = |disks| errors(&manifest(vec![vm_with_disks(disks)]));
    let wrong = of(vec![
        vm("Root", image()),
        vm("a", vec![key("read-only", 5_u32), key("file", "x")]),
        vm("b", vec![key("image", 0_u32)]),
    ]);
    let start = |error: &String| error.split(';').next().unwrap().to_string();
    assert_eq!(
        wrong.iter().map(start).collect::<Vec<_>>(),
        [
            "/vms/a/disks/Root: \"Root\" cannot be the name of a disk",
            "/vms/a/disks/a/read-only: it takes no value",
            "/vms/a/disks/a: unknown key \"file\"",
            "/vms/a/disks/a: image is missing",
            "/vms/a/disks/b/image: it is not a file's name",
            "/vms/a/disks/b: image is missing",
        ]
    );
    let many: Vec<_> = ["1", "2", "3", "4", "5", "6", "7", "8", "9"].map(|name| vm(name, image())).into();
    good(&manifest(vec![vm_with_disks(many[..8].to_vec())]));
    assert_eq!(of(many), ["/vms/a/disks: there are too many disks; leave out all but 8"]);
}

#[test]
fn firmware_needs_no_kernel_and_variables_need_firmware() {
    let of = |keys: Vec<DeviceTreeProperty>| manifest(vec![vm("a", keys)]);
    good(&of(vec![key("memory", "64M"), key("flash", "code.fd")]));
    assert_eq!(
        errors(&of(vec![key("memory", "64M"), key("flash-variables", "vars.fd")])),
        ["/vms/a: kernel is missing; add kernel = \"Image\";", "/vms/a: flash is missing; add flash = \"u-boot.bin\";"]
    );
    assert_eq!(errors_of(vec![key("flash-variables", "vars.fd")]).len(), 1);
}

#[test]
fn all_errors_come_at_once_each_with_its_place() {
    let dtb = manifest(vec![
        vm("Alpha", vec![key("memory", "3M"), key("vcpus", 9_u32)]),
        vm("b", vec![key("kernel", "k"), key("memory", "1T"), key("cpus", 1_u32)]),
    ]);
    assert_eq!(
        errors(&dtb),
        [
            "/vms/Alpha: \"Alpha\" cannot be the name of a VM; use 1 to 15 of a to z, 0 to 9 and -",
            "/vms/Alpha/memory: \"3M\" is not a multiple of 2M; write a multiple of 2M from \"2M\" to \"255G\"",
            "/vms/Alpha/vcpus: 9 is not allowed; write a number of 1 to 8, like <1>",
            "/vms/Alpha: kernel is missing; add kernel = \"Image\";",
            "/vms/b/memory: \"1T\" is not a size; write a multiple of 2M from \"2M\" to \"255G\"",
            "/vms/b: unknown key \"cpus\"; did you mean \"vcpus\"?",
        ]
    );
}

#[test]
fn names_have_so_many_letters_of_these() {
    let keys = || vec![key("memory", "2M"), key("kernel", "k")];
    for fine in ["a", "0", "-", "web-1", "abcdefghijklmno"] {
        good(&manifest(vec![vm(fine, keys())]));
    }
    for bad in ["abcdefghijklmnop", "abcdefghijklmnopqrstuvwxyz", "A", "a_b", "a.b", "a,b"] {
        let errors = errors(&manifest(vec![vm(bad, keys())]));
        assert!(errors.len() == 1 && errors[0].contains("cannot be the name of a VM"), "{bad}: {errors:?}");
    }
}

#[test]
fn sizes_are_read_to_the_last_letter() {
    for bad in ["", "M", "128", "+2M", "-2M", "2 M", "1M", "0G", "256G", "99999999999999999999G", "2MB", "0x2M"] {
        let errors = errors(&manifest(vec![vm("a", vec![key("memory", bad), key("kernel", "k")])]));
        assert_eq!(errors.len(), 1, "{bad}: {errors:?}");
    }
    for fine in ["2048K", "255G", "002M"] {
        good(&manifest(vec![vm("a", vec![key("memory", fine), key("kernel", "k")])]));
    }
}

#[test]
fn values_of_the_wrong_kind_are_told_apart() {
    let one = |key| errors_of(vec![key]).remove(0);
    assert!(one(key("vcpus", "2")).starts_with("/vms/a/vcpus: it is not one number"));
    assert!(one(key("bootargs", 1_u32)).contains("not one text"));
    assert!(one(key("bootargs", vec!["a", "b"])).contains("not one text"));
    assert!(one(key("bootargs", "x".repeat(2048))).contains("2047 at most"));
    assert!(one(key("initrd", "")).contains("a name of 0 bytes"));
    assert!(one(key("initrd", "x".repeat(256))).contains("a name of 256 bytes"));
    good(&manifest(vec![vm("a", vec![key("memory", "2M"), key("kernel", "x".repeat(255))])]));
    assert!(one(key("initrd", "manifest.dtb")).contains("the manifest itself"));
    assert!(one(key("on-crash", "reboot")).contains("\"restart\""));
    assert!(one(key("affinity", [0_u32, 4])).contains("there is no CPU 4"));
    assert!(one(key("affinity", [1_u32, 1])).contains("twice"));
    assert!(one(key("affinity", "")).contains("not a list"));
    assert!(one(key("watchdog-seconds", 0_u32)).contains("0 is not allowed"));
    assert!(one(key("vcpus", "two")).contains("\"two\" is a text, not a number; write a number of 1 to 8, like <1>"));
}

#[test]
fn unknown_keys_and_nodes_are_errors_wherever_they_stand() {
    let mut tree = DeviceTree::new();
    tree.root.add_property(key("compatible", "flatland,bundle-2"));
    tree.root.add_property(key("model", "x"));
    tree.root.add_child(DeviceTreeNode::new("chosen").unwrap());
    let mut vms = DeviceTreeNode::new("vms").unwrap();
    vms.add_property(key("memory", "128M"));
    vms.add_property(key("#address-cells", 1_u32));
    let mut a = vm("a", vec![key("memory", "2M"), key("kernel", "k"), key("bootarg", ""), key("zzz", "")]);
    a.add_child(DeviceTreeNode::new("uart").unwrap());
    vms.add_child(a);
    tree.root.add_child(vms);
    let errors = errors(&tree.to_dtb());
    let whats =
        ["another kind", "\"model\"", "node \"chosen\"", "\"memory\"", "\"bootargs\"?", "keys of a VM are", "\"uart\""];
    assert_eq!(errors.len(), whats.len(), "{errors:?}");
    for (error, what) in errors.iter().zip(whats) {
        assert!(error.contains(what), "{error} has no {what}");
    }
}

#[test]
fn the_policy_is_read_and_its_errors_are_told() {
    let mut tree = DeviceTree::new();
    let mut policy = DeviceTreeNode::new("policy").unwrap();
    policy.add_property(key("pool", "448M"));
    policy.add_property(key("idle-tax", 100_u32));
    policy.add_property(key("scan-cpu", 101_u32));
    policy.add_property(key("tax", 1_u32));
    policy.add_property(key("swap", "swap"));
    // As a compiler of device trees likes to have it.
    policy.add_property(key("#address-cells", 1_u32));
    policy.add_property(key("#size-cells", 0_u32));
    tree.root.add_child(policy);
    let mut findings = Findings::default();
    let dtb = tree.to_dtb();
    let read = super::policy(&dtb, &Limits::ANY_BOARD, &mut findings);
    assert_eq!((read.pool, read.tax, read.risk, read.scan_cpu), (Some(448 << 20), Some(100), None, None));
    assert_eq!(read.swap, Some("swap"));
    let errors: Vec<String> = findings.unless(()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("/policy/scan-cpu: 101") && errors[1].contains("unknown key \"tax\""), "{errors:?}");
    assert!(
        errors_of(vec![key("memory", "2M"), key("kernel", "k"), key("min", "4M")])[0].contains("more than its memory")
    );
}

#[test]
fn too_many_vms_and_none_are_errors() {
    let crowd =
        |n| manifest((0..n).map(|n| vm(&n.to_string(), vec![key("memory", "2M"), key("kernel", "k")])).collect());
    assert_eq!(good(&crowd(16)).len(), 16);
    assert_eq!(errors(&crowd(17)), ["/vms: there are 17 VMs; leave out all but 16"]);
    assert!(errors(&manifest(vec![]))[0].contains("no VMs"));
    assert!(errors(b"what")[0].starts_with("manifest.dtb: it is no device tree"));
}

#[test]
fn the_nearest_key_is_found() {
    assert_eq!(distance("kernel", "kernel"), 0);
    assert_eq!(distance("kernal", "kernel"), 1);
    assert_eq!(distance("cpus", "vcpus"), 1);
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(distance("abc", ""), 3);
    assert_eq!(distance("flaw", "lawn"), 2);
    assert_eq!(distance("vcpuss", "vcpus"), 1);
    assert_eq!(distance("abcd", "bd"), 2);
    assert_eq!(distance("abc", "xyz"), 3);
    assert!(super::nearest("watchdog").contains("watchdog-seconds"));
    assert!(super::nearest("memo").contains("memory"));
}

#[test]
fn nodes_of_the_root_are_there_once() {
    // With a third node, whose name is changed to that of another.
    let tree = |third: Option<(&str, &str)>| {
        let mut tree = DeviceTree::new();
        tree.root.add_property(key("compatible", COMPATIBLE));
        let mut vms = DeviceTreeNode::new("vms").unwrap();
        vms.add_child(vm("a", vec![key("memory", "2M"), key("kernel", "Image")]));
        tree.root.add_child(vms);
        tree.root.add_child(DeviceTreeNode::new("policy").unwrap());
        let Some((before, after)) = third else { return tree.to_dtb() };
        tree.root.add_child(DeviceTreeNode::new(before).unwrap());
        let mut dtb = tree.to_dtb();
        let at = dtb.windows(before.len()).position(|bytes| bytes == before.as_bytes()).unwrap();
        dtb[at..at + after.len()].copy_from_slice(after.as_bytes());
        dtb
    };
    assert_eq!(good(&tree(None)).len(), 1);
    for (before, after) in [("vmz", "vms"), ("polizy", "policy")] {
        let errors = errors(&tree(Some((before, after))));
        assert!(errors.iter().any(|error| error.contains("two nodes of this name")), "{after}: {errors:?}");
    }
}
