//! Images: whatever a kernel's headers say, all of a plan lies in RAM, apart, and only that is written.

use crate::engine::{Rng, run};
use crate::seeds::{BASE, elf, linux};
use flatland::addr::{Addr, Ipa};
use flatland::bundle::gzip::{Workspace, pack};
use flatland::bundle::image::{Failure, Plan, Short, Sink};
use flatland::bundle::place::DTB_ROOM;
use flatland::bundle::{Granule, MOST_DIAGNOSTICS, OnCrash, VmSpec};

const M: u64 = 1 << 20;

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        linux(0, 3 * M, 2000),
        linux(0x8_0000, 0, 2000),
        elf(BASE, &[(BASE, 200, 300), (BASE + 2 * M, 100, 5000)]),
        elf(BASE + 4 * M, &[(BASE + 4 * M, 64, 64)]),
        vec![0; 100],
        vec![0xff; 64],
        Vec::new(),
        // Headers that lie about where and how much.
        linux(u64::MAX, u64::MAX, 64),
        linux(0, u64::MAX, 64),
        linux(u64::MAX - BASE, 1, 64),
        linux(1 << 63, 1 << 63, 64),
        elf(u64::MAX, &[(u64::MAX, 1, u64::MAX)]),
        elf(BASE, &[(BASE, 10, u64::MAX), (BASE - 1, 10, 2)]),
        elf(BASE, &[(BASE, 1, 1); 33]),
        elf(BASE, &[(BASE, 100, 100), (BASE + 99, 100, 100)]),
    ];
    let mut table = elf(BASE, &[(BASE, 10, 10)]);
    table[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    seeds.push(table.clone());
    table[32..40].copy_from_slice(&64_u64.to_le_bytes());
    table[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
    seeds.push(table);
    let packed: Vec<Vec<u8>> = seeds.iter().map(|seed| pack(seed)).collect();
    seeds.extend(packed);
    seeds
}

/// A sink that only knows where RAM ends, and a digest of what came.
#[derive(Default, PartialEq, Eq, Debug)]
struct Fence {
    end: u64,
    bytes: u64,
    digest: u64,
}

impl Fence {
    fn take(&mut self, at: Addr<Ipa>, bytes: u64) {
        let end = at.bits().checked_add(bytes).expect("does not wrap");
        assert!(at.bits() >= BASE && end <= self.end, "{at} + {bytes:#x} is not in RAM");
        self.bytes += bytes;
        self.digest = self.digest.rotate_left(7) ^ at.bits() ^ bytes;
    }
}

impl Sink for Fence {
    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Short> {
        self.take(at, bytes.len() as u64);
        Ok(())
    }
    fn zero(&mut self, at: Addr<Ipa>, bytes: u64) -> Result<(), Short> {
        self.take(at, bytes);
        Ok(())
    }
}

fn check_plan(plan: &Plan<'_>, memory: u64, has_flash: bool) {
    let end = BASE + memory;
    let mut taken: Vec<(u64, u64)> =
        plan.segments.iter().map(|part| (part.at.bits(), part.bytes + part.zeroes)).collect();
    taken.push((plan.dtb.bits(), DTB_ROOM));
    taken.extend(plan.initrd.map(|initrd| (initrd.start.bits(), initrd.bytes)));
    for (n, &(at, bytes)) in taken.iter().enumerate() {
        assert!(at >= BASE && at.checked_add(bytes).is_some_and(|last| last <= end), "{at:#x} + {bytes:#x}");
        for &(other, other_bytes) in &taken[..n] {
            assert!(at + bytes <= other || other + other_bytes <= at, "{at:#x} overlaps {other:#x}");
        }
    }
    if has_flash {
        assert_eq!(plan.entry.bits(), 0, "it starts in its flash");
    } else {
        assert!((BASE..end).contains(&plan.entry.bits()));
    }
    assert!(plan.dtb.bits().is_multiple_of(4096));
}

#[test]
fn no_image_writes_beyond_its_vm() {
    run("image", 60_000, &seeds(), check);
}

/// One image, as the kernel of a VM.
pub(crate) fn check(input: &[u8], rng: &mut Rng) {
    let mut workspace = Workspace::new();
    // Zeroes cost nothing until they are looked at.
    let disk = vec![0; 6 << 20];
    let memory = *rng.pick(&[2 * M, 4 * M, 6 * M, 16 * M, 512 * M, 255 << 30]);
    let near_end = (1 << 20) - rng.below(0x2_0000);
    let initrd = *rng.pick(&[None, Some(1), Some(4097), Some(near_end), Some(3 << 20), Some(6 << 20)]);
    let repacked = (rng.below(8) == 0).then(|| pack(input));
    let vm = VmSpec {
        modules: Vec::new(),
        disks: Vec::new(),
        nets: Vec::new(),
        name: "fuzz",
        vcpus: 1,
        memory,
        shares: 1,
        kernel: Some(repacked.as_deref().unwrap_or(input)),
        initrd: initrd.map(|len| &disk[..len]),
        bootargs: "",
        on_crash: OnCrash::Stop,
        affinity: 1,
        watchdog: None,
        granule: Granule::Block,
        min: None,
        domain: None,
        nested: false,
        by_traps: false,
        flash: (rng.below(4) == 0).then_some([&[0; 64], &[]]),
    };
    let plan = match vm.plan(Addr::new(BASE), &mut workspace) {
        Ok(plan) => plan,
        Err(list) => {
            assert!(!list.is_empty() && list.len() <= MOST_DIAGNOSTICS + 1);
            let of_vm = |place: &str| place.starts_with("/vms/fuzz/");
            assert!(list.iter().take(MOST_DIAGNOSTICS).all(|error| of_vm(&error.place)));
            return;
        }
    };
    check_plan(&plan, memory, vm.flash.is_some());
    let parts: u64 = plan.segments.iter().map(|part| part.bytes + part.zeroes).sum();
    let wanted = parts + plan.initrd.map_or(0, |initrd| initrd.bytes);
    let fence = || Fence { end: BASE + memory, ..Fence::default() };
    let (mut first, mut second) = (fence(), fence());
    let outcome = plan.load(&mut workspace, &mut first);
    assert_eq!(outcome, plan.load(&mut workspace, &mut second));
    assert_eq!(first, second);
    match outcome {
        // All of it, and nothing else.
        Ok(()) => assert_eq!(first.bytes, wanted),
        Err(Failure::Corrupt(_)) => assert!(first.bytes <= wanted),
        Err(Failure::Short(_)) => panic!("the fence never runs out of memory"),
    }
}
