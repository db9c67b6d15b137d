//! What images are taken for, where they go, and what arrives there.

use super::{Failure, Format, Plan, Short, Sink};
use crate::addr::{Addr, Ipa};
use crate::bundle::gzip::{self, Workspace};
use crate::bundle::{Granule, Module, OnCrash, VmSpec};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

const BASE: u64 = 0x4000_0000;
const M: u64 = 1 << 20;

fn vm<'a>(memory: u64, kernel: &'a [u8], initrd: Option<&'a [u8]>) -> VmSpec<'a> {
    VmSpec {
        modules: Vec::new(),
        disks: Vec::new(),
        nets: Vec::new(),
        name: "a",
        vcpus: 1,
        memory,
        shares: 1000,
        kernel: Some(kernel),
        initrd,
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
    }
}

fn plan<'a>(vm: &VmSpec<'a>) -> Result<Plan<'a>, Vec<String>> {
    vm.plan(Addr::new(BASE), &mut Workspace::new()).map_err(|list| list.iter().map(ToString::to_string).collect())
}

fn linux(text_offset: u64, image_size: u64, len: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..len).map(|n| (n >> 3) as u8).collect();
    image[8..16].copy_from_slice(&text_offset.to_le_bytes());
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// An ELF file with these segments: physical address, bytes in the file, bytes in memory.
fn elf(entry: u64, segments: &[(u64, u64, u64)]) -> Vec<u8> {
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
        // Linked at a virtual address of its own, as kernels are.
        for word in [offset, at | 0xffff_0000_0000_0000, at, bytes, memory, 4096] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        offset += bytes;
    }
    for &(at, bytes, _) in segments {
        file.extend((0..bytes).map(|n| (n ^ at >> 12) as u8));
    }
    file
}

/// RAM that knows what was never written.
struct Ram {
    bytes: Vec<Option<u8>>,
    left: usize,
}

impl Ram {
    fn new(bytes: u64) -> Self {
        Self { bytes: vec![None; bytes as usize], left: usize::MAX }
    }
    fn at(&self, at: u64, len: usize) -> Vec<Option<u8>> {
        self.bytes[(at - BASE) as usize..][..len].to_vec()
    }
}

impl Sink for Ram {
    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Short> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(Short { at })?;
        let start = (at.bits() - BASE) as usize;
        for (n, &byte) in bytes.iter().enumerate() {
            assert!(self.bytes[start + n].replace(byte).is_none(), "written twice");
        }
        Ok(())
    }
    fn zero(&mut self, at: Addr<Ipa>, bytes: u64) -> Result<(), Short> {
        self.write(at, &vec![0; bytes as usize])
    }
}

fn some(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().copied().map(Some).collect()
}

#[test]
fn a_linux_image_goes_to_its_text_offset_packed_or_not() {
    let image = linux(0x1000, 0x30000, 0x20001);
    let packed = gzip::pack(&image);
    let mut workspace = Workspace::new();
    for file in [&image, &packed] {
        let initrd = [9; 5000];
        let plan = plan(&vm(4 * M, file, Some(&initrd))).unwrap();
        assert_eq!((plan.format, plan.entry.bits(), plan.segments.len()), (Some(Format::Image), BASE + 0x1000, 1));
        assert_eq!(plan.initrd.unwrap().start.bits(), BASE + 2 * M);
        for _ in 0..2 {
            let mut ram = Ram::new(4 * M);
            plan.load(&mut workspace, &mut ram).unwrap();
            assert!(ram.at(BASE + 0x1000, image.len()) == some(&image));
            assert_eq!(ram.at(BASE + 0x1000 + 0x20001, 1), [Some(0)]);
            assert_eq!(ram.at(BASE + 0x31000, 1), [None]);
            assert!(ram.at(BASE + 2 * M, 5000) == some(&initrd));
        }
    }
}

#[test]
fn an_image_takes_the_memory_it_says_it_needs() {
    let image = linux(0, 3 * M, 4096);
    assert_eq!(plan(&vm(4 * M, &image, None)).unwrap().dtb.bits(), BASE + 3 * M);
    let large = linux(0, 5 * M + 1, 4096);
    assert_eq!(
        plan(&vm(4 * M, &large, None)).unwrap_err(),
        ["/vms/a/kernel: its part of 5242881 bytes at 0x40000000 does not fit: it is too large by 1048577 bytes; \
          give the VM memory = \"6M\" or more, or smaller images"]
    );
    let old = linux(0xffff, 0, 4096);
    assert_eq!(plan(&vm(4 * M, &old, None)).unwrap().entry.bits(), BASE + 0x80000);
    for hostile in [linux(u64::MAX - 5, u64::MAX, 4096), linux(0, u64::MAX, 4096), linux(1 << 63, 1, 4096)] {
        assert_eq!(
            plan(&vm(4 * M, &hostile, None)).unwrap_err().len(),
            1 + usize::from(hostile[8] == 0 && hostile[15] == 0x80)
        );
    }
}

#[test]
fn an_elf_file_is_loaded_by_its_physical_addresses() {
    let file = elf(0xffff_0000_4020_0010, &[(BASE + 2 * M, 100, 100), (BASE + 3 * M, 50, 5000)]);
    for file in [file.clone(), gzip::pack(&file)] {
        let plan = plan(&vm(16 * M, &file, None)).unwrap();
        assert_eq!((plan.format, plan.entry.bits(), plan.dtb.bits()), (Some(Format::Elf), BASE + 2 * M + 0x10, BASE));
        let mut ram = Ram::new(16 * M);
        plan.load(&mut Workspace::new(), &mut ram).unwrap();
        assert_eq!(ram.at(BASE + 2 * M + 1, 2), [Some(1), Some(2)]);
        assert_eq!(ram.at(BASE + 2 * M + 99, 2), [Some(99), None]);
        assert_eq!(ram.at(BASE + 3 * M + 49, 3), [Some(49), Some(0), Some(0)]);
        assert_eq!(ram.at(BASE + 3 * M + 4999, 2), [Some(0), None]);
    }
}

#[test]
fn kinds_and_failures_are_told_in_words() {
    use alloc::string::ToString;
    let kinds = [Format::Image, Format::Elf, Format::Flat].map(|format| format.to_string());
    assert_eq!(kinds, ["Linux Image", "ELF", "flat binary"]);
    let short = Failure::Short(Short { at: Addr::new(0x4020_0000) }).to_string();
    assert!(short.contains("memory ran out") && short.contains("0x40200000"), "{short}");
    assert_eq!(Failure::Corrupt("it is cut off").to_string(), "the kernel cannot be unpacked: it is cut off");
}

#[test]
fn elf_files_that_cannot_run_here_are_refused() {
    let one = |file: &[u8]| plan(&vm(4 * M, file, None)).unwrap_err().remove(0);
    assert!(one(&elf(BASE, &[(0x1000, 10, 10)])).contains("is not in RAM, 0x40000000 to 0x40400000"));
    assert!(one(&elf(0, &[(BASE, 10, 10)])).contains("entry point 0x0"));
    assert!(one(&elf(BASE, &[(BASE, 10, 5 * M)])).contains("too large by 1M"));
    assert!(one(&elf(BASE, &[(BASE, 10, u64::MAX)])).contains("too large by"));
    assert!(one(&elf(BASE, &[(BASE, 10, 10), (BASE + 9, 10, 10)])).contains("overlap"));
    assert!(one(&elf(BASE, &[])).contains("nothing to load"));
    assert!(one(&elf(BASE, &[(BASE, 0, 1); 33])).contains("more than 32 segments"));
    // One right behind the other, in either order, is none.
    for starts in [[BASE, BASE + 10], [BASE + 10, BASE]] {
        plan(&vm(4 * M, &elf(BASE, &starts.map(|start| (start, 10, 10))), None)).unwrap();
    }
    let fine = elf(BASE, &[(BASE, 10, 10)]);
    assert!(one(&fine[..fine.len() - 1]).contains("bytes that the file does not have"));
    assert!(one(&fine[..70]).contains("not at its start"));
    assert!(one(&fine[..63]).contains("cut off"));
    let change = |at: usize, to: u8| {
        let mut file = fine.clone();
        file[at] = to;
        one(&file)
    };
    assert!(change(4, 1).contains("32 bits"));
    assert!(change(5, 2).contains("unknown kind"));
    assert!(change(18, 62).contains("machine 62, not AArch64"));
    assert!(change(54, 32).contains("32 bytes each"));
}

/// An entry point may be a virtual address: of code, in a segment that is linked elsewhere than it is loaded.
#[test]
fn an_entry_point_may_be_a_virtual_address_of_code() {
    const HIGH: u64 = 0xffff_0000_0000_0000;
    let file = elf(BASE | HIGH | 4, &[(BASE, 10, 10)]);
    assert_eq!(plan(&vm(4 * M, &file, None)).unwrap().entry.bits(), BASE + 4);
    let change = |file: &[u8], at: usize, to: &[u8]| {
        let mut file = file.to_vec();
        file[at..at + to.len()].copy_from_slice(to);
        plan(&vm(4 * M, &file, None)).map(|plan| plan.entry.bits())
    };
    // p_flags without PF_X; behind what is loaded; at the end of that.
    assert!(change(&file, 64 + 4, &[4]).is_err(), "no code");
    assert_eq!(change(&file, 24, &[8]), Ok(BASE + 8));
    assert!(change(&file, 24, &[12]).is_err(), "behind what the file has");
    // Linked where it is loaded, its entry is what it says.
    let same = elf(BASE + 4, &[(BASE, 10, 10)]);
    assert_eq!(change(&same, 64 + 16, &BASE.to_le_bytes()), Ok(BASE + 4));
}

#[test]
fn anything_else_is_a_flat_binary_where_qemu_puts_it() {
    let plan = plan(&vm(2 * M, b"\x00\x00\x00\x14", None)).unwrap();
    assert_eq!((plan.format, plan.entry.bits(), plan.dtb.bits()), (Some(Format::Flat), BASE + 0x80000, BASE + M));
}

#[test]
fn a_vm_with_flash_starts_there_and_has_its_tree_at_the_base() {
    let kernel = linux(0, 0x3000, 0x2000);
    let flashed = |memory, kernel, image| VmSpec { kernel, flash: Some([image, &[]]), ..vm(memory, &[], None) };
    let with = plan(&flashed(64 * M, Some(&kernel), &[1])).unwrap();
    assert_eq!((with.entry.bits(), with.dtb.bits(), with.segments[0].at.bits()), (0, BASE, BASE + 2 * M));
    let without = plan(&flashed(2 * M, None, &[1])).unwrap();
    assert_eq!((without.entry.bits(), without.dtb.bits(), without.format), (0, BASE, None));
    let large = vec![0; 64 * M as usize + 1];
    assert_eq!(plan(&flashed(64 * M, None, &[])).unwrap_err().len(), 1);
    let error = plan(&flashed(64 * M, None, &large)).unwrap_err().remove(0);
    assert_eq!(error, "/vms/a/flash: it has more than 64M; leave out what is behind that");
}

#[test]
fn what_is_plainly_no_kernel_is_refused() {
    let one = |file: &[u8]| plan(&vm(4 * M, file, None)).unwrap_err().remove(0);
    assert!(one(b"").contains("empty"));
    assert!(one(b"\x28\xb5\x2f\xfdxxxx").contains("zstd"));
    assert!(one(b"MZ\0\0zimg").contains("zboot"));
    assert!(one(b"\x1f\x8b\x08").contains("cannot be unpacked"));
    assert!(one(&gzip::pack(b"")).contains("empty"));
}

/// On the pages behind the initrd, or where that would be, in their order.
#[test]
fn modules_arrive_behind_the_initrd() {
    let (initrd, kernel, ramdisk) = ([9; 5000], [7; 4096], vec![5; 70_000]);
    let module = |kind, data| Module { kind, data, bootargs: "" };
    let modules = vec![module("kernel", &kernel[..]), module("ramdisk", &ramdisk[..])];
    for with_initrd in [true, false] {
        let image = [0; 64];
        let spec = VmSpec { modules: modules.clone(), ..vm(4 * M, &image, with_initrd.then_some(&initrd[..])) };
        let plan = plan(&spec).unwrap();
        let mut ram = Ram::new(4 * M);
        plan.load(&mut Workspace::new(), &mut ram).unwrap();
        let first = BASE + 2 * M + if with_initrd { 8192 } else { 0 };
        let at: Vec<_> = plan.modules.iter().map(|place| (place.start.bits(), place.bytes)).collect();
        assert_eq!(at, [(first, 4096), (first + 4096, 70_000)]);
        assert_eq!(plan.initrd.map(|initrd| initrd.start.bits()), with_initrd.then_some(BASE + 2 * M));
        assert!(ram.at(first, 4096) == some(&kernel) && ram.at(first + 4096, 70_000) == some(&ramdisk));
        assert!(!with_initrd || ram.at(BASE + 2 * M, 5000) == some(&initrd));
    }
    let spec =
        VmSpec { modules: vec![module("kernel", &[]), module("ramdisk", &ramdisk)], ..vm(M * 2, &[0; 64], None) };
    assert_eq!(plan(&spec).unwrap_err(), ["/vms/a/modules/kernel: the file is empty; leave modules/kernel out"]);
    let large = vec![0; 3 * M as usize];
    let spec =
        VmSpec { modules: vec![module("kernel", &kernel), module("ramdisk", &large)], ..vm(4 * M, &[0; 64], None) };
    let error = &plan(&spec).unwrap_err()[0];
    assert!(error.starts_with("/vms/a/modules/ramdisk: its 3M do not fit behind the kernel: "), "{error}");
}

#[test]
fn an_initrd_that_does_not_fit_says_by_how_much() {
    let initrd = vec![0; 3 * M as usize];
    assert_eq!(
        plan(&vm(4 * M, &[0; 64], Some(&initrd))).unwrap_err(),
        ["/vms/a/initrd: its 3M do not fit behind the kernel: 1M too large; \
          give the VM memory = \"8M\" or more, or smaller images"]
    );
    assert!(plan(&vm(8 * M, &[0; 64], Some(&initrd))).is_ok());
    assert!(plan(&vm(8 * M, &[0; 64], Some(&[]))).unwrap_err()[0].contains("initrd: the file is empty"));
}

#[test]
fn a_lie_about_the_length_is_found_when_loading() {
    let mut packed = gzip::pack(&[7; 100_000]);
    let at = packed.len() - 4;
    packed[at..].copy_from_slice(&90_000_u32.to_le_bytes());
    let mut ram = Ram::new(4 * M);
    let failure = plan(&vm(4 * M, &packed, None)).unwrap().load(&mut Workspace::new(), &mut ram).unwrap_err();
    assert_eq!(failure, Failure::Corrupt("it is longer than it says"));
    packed[at..].copy_from_slice(&110_000_u32.to_le_bytes());
    let failure =
        plan(&vm(4 * M, &packed, None)).unwrap().load(&mut Workspace::new(), &mut Ram::new(4 * M)).unwrap_err();
    assert_eq!(failure, Failure::Corrupt("its length is not the one it names"));
}

#[test]
fn running_out_of_memory_is_passed_on() {
    let packed = gzip::pack(&[7; 100_000]);
    let mut ram = Ram::new(4 * M);
    ram.left = 70_000;
    let failure = plan(&vm(4 * M, &packed, None)).unwrap().load(&mut Workspace::new(), &mut ram).unwrap_err();
    assert_eq!(failure, Failure::Short(Short { at: Addr::new(BASE + 0x80000 + 17 * 4096) }));
}
