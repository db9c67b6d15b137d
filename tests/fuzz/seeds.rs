//! Valid inputs to start from.

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use flatland::bundle::{MANIFEST, cpio, manifest};

/// The base of the guests' RAM.
pub(crate) const BASE: u64 = 0x4000_0000;

/// An archive of these files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, data) in files {
        cpio::append(&mut out, name, data).expect("small enough");
    }
    cpio::finish(&mut out);
    out
}

/// An archive with this manifest and the images that [`manifest`] names.
pub(crate) fn bundle(dtb: &[u8]) -> Vec<u8> {
    archive(&[(MANIFEST, dtb), ("Image", &linux(0, 0x20_0000, 3000)), ("kernel", &[0; 64]), ("initrd.gz", b"disk")])
}

fn set<T: ToPropertyValue>(node: &mut DeviceTreeNode, key: &str, value: T) {
    node.add_property(DeviceTreeProperty::new(key, value).expect("a valid key"));
}

/// A manifest with every key in it.
pub(crate) fn manifest() -> Vec<u8> {
    let mut full = DeviceTreeNode::new("full").expect("valid");
    set(&mut full, "vcpus", 2_u32);
    set(&mut full, "memory", "128M");
    set(&mut full, "shares", 500_u32);
    set(&mut full, "kernel", "Image");
    set(&mut full, "initrd", "initrd.gz");
    set(&mut full, "bootargs", "console=ttyAMA0 quiet");
    set(&mut full, "on-crash", "restart");
    set(&mut full, "affinity", [0_u32, 1, 3]);
    set(&mut full, "watchdog-seconds", 10_u32);
    let mut vms = DeviceTreeNode::new("vms").expect("valid");
    vms.add_child(full);
    for name in ["alpha", "beta-2"] {
        let mut least = DeviceTreeNode::new(name).expect("valid");
        set(&mut least, "memory", "2M");
        set(&mut least, "kernel", "kernel");
        vms.add_child(least);
    }
    tree(vms)
}

/// A manifest with the largest number of errors one can have in a few bytes.
pub(crate) fn crowd() -> Vec<u8> {
    let mut vms = DeviceTreeNode::new("vms").expect("valid");
    for n in 0..40 {
        let mut vm = DeviceTreeNode::new(format!("VM{n}")).expect("valid");
        for key in 0..4 {
            set(&mut vm, &format!("key{key}"), "");
        }
        vms.add_child(vm);
    }
    tree(vms)
}

fn tree(vms: DeviceTreeNode) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    set(&mut tree.root, "compatible", manifest::COMPATIBLE);
    tree.root.add_child(vms);
    tree.to_dtb()
}

/// A Linux `Image` of `len` bytes with this header.
pub(crate) fn linux(text_offset: u64, image_size: u64, len: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..len.max(64)).map(|n| (n >> 2) as u8).collect();
    image[8..16].copy_from_slice(&text_offset.to_le_bytes());
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// An ELF file with these segments: physical address, bytes in the file, bytes in memory.
pub(crate) fn elf(entry: u64, segments: &[(u64, u64, u64)]) -> Vec<u8> {
    let mut file = Vec::from(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0");
    file.extend_from_slice(&entry.to_le_bytes());
    file.extend_from_slice(&64_u64.to_le_bytes());
    file.extend_from_slice(&[0; 8 + 4]);
    for half in [64, 56, segments.len() as u16, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    let mut offset = 64 + 56 * segments.len() as u64;
    for &(at, bytes, memory) in segments {
        file.extend_from_slice(&1_u32.to_le_bytes());
        file.extend_from_slice(&5_u32.to_le_bytes());
        for word in [offset, at | 0xffff_0000_0000_0000, at, bytes, memory, 4096] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        offset += bytes;
    }
    file.resize(offset as usize, 0x5a);
    file
}
