//! VMIDs with more tables than numbers: none is lent twice at a time, and who runs keeps its own.

use flatland::addr::{Addr, CpuId, Vmid};
use flatland::arm::vmsa::{Geometry, VmidBits, vttbr};
use flatland::machine::Machine;
use flatland::stage2::vmid::{Tag, Vmids};
use harness::model::{Dice, Flaw, Model};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const RAM: u64 = 0x4000_0000;
const TABLES: u64 = 400;
const CPUS: u16 = 4;

/// Each table is one root that maps 1 GiB blocks, so that CPUs have something to remember.
fn model(seed: u64, flaw: Flaw) -> Model {
    let model = Model::new(Addr::new(RAM), TABLES * 4096, seed, flaw);
    for table in 0..TABLES {
        let root = Addr::new(RAM + table * 4096);
        model.zero(root, 1);
        model.store(root, (table + 1) << 30 | 0x7fd);
    }
    model.settle();
    model.errors();
    model.tempt(Addr::new(0));
    model
}

/// Runs guests on CPUs by dice; the first error, if any.
fn run(seed: u64, steps: u64, flaw: Flaw) -> Result<u64, (u64, String)> {
    let model = model(seed, flaw);
    let vmids = Vmids::new(VmidBits::Eight, usize::from(CPUS));
    let tags: Vec<Tag> = (0..TABLES).map(|_| Tag::new()).collect();
    let geometry = Geometry::of_bits(39).unwrap();
    let mut running: [Option<(u64, Vmid)>; CPUS as usize] = [None; CPUS as usize];
    let mut dice = Dice::new(seed);
    for step in 0..steps {
        // The first two CPUs change their guest rarely, over roll-overs, and often both run the same one.
        let slow = dice.one_in(200);
        let cpu = CpuId(if slow { 0 } else { 2 } + dice.below(2) as u16);
        let few = slow || dice.one_in(50);
        let table = dice.below(if few { 3 } else { TABLES });
        model.leave(cpu);
        running[usize::from(cpu.0)] = None;
        let vmid = vmids.of(&model, cpu, &tags[table as usize]);
        model.enter(cpu, vttbr(Addr::new(RAM + table * 4096), vmid), geometry);
        for other in running.iter().flatten().filter(|other| other.0 == table) {
            assert_eq!(other.1, vmid, "a table that runs elsewhere has one number");
        }
        running[usize::from(cpu.0)] = Some((table, vmid));
        assert_ne!(vmid, Vmid(0));
        assert_eq!(tags[table as usize].vmid(), Some(vmid));
        for (cpu, (table, _)) in (0..).zip(running).filter_map(|(cpu, run)| Some((cpu, run?))) {
            let seen = model.access(CpuId(cpu), Addr::new(8)).map(|pa| pa.bits());
            if seen != Some((table + 1) << 30 | 8) {
                return Err((step, format!("CPU {cpu} sees {seen:x?} through table {table}")));
            }
        }
        if let Some(error) = model.errors().into_iter().next() {
            return Err((step, error));
        }
    }
    assert_eq!(model.tally().alls, vmids.rollovers());
    Ok(vmids.rollovers())
}

#[test]
fn eight_bits_roll_over_without_mixing_guests() {
    let steps = 20_000;
    let rollovers = run(3, steps, Flaw::None).unwrap();
    println!("{steps} entries, {rollovers} roll-overs");
    assert!(rollovers > 20);
}

#[test]
fn a_roll_over_that_forgets_nothing_is_found() {
    for seed in 1..=10 {
        let (step, error) = run(seed, 20_000, Flaw::Forget).expect_err("a dropped invalidation is found");
        if seed == 1 {
            println!("found at entry {step}: {error}");
        }
    }
}

#[test]
fn sixteen_bits_are_all_lent_before_they_roll_over() {
    let model = model(1, Flaw::None);
    let vmids = Vmids::new(VmidBits::Sixteen, 1);
    let mut seen = vec![false; 1 << 16];
    for number in 1..1 << 16 {
        let vmid = vmids.of(&model, CpuId(0), &Tag::new());
        assert!(!std::mem::replace(&mut seen[usize::from(vmid.0)], true), "entry {number}");
    }
    assert!(!seen[0]);
    assert_eq!(vmids.rollovers(), 0);
    let last = Tag::new();
    vmids.of(&model, CpuId(0), &last);
    assert_eq!((vmids.rollovers(), model.tally().alls), (1, 1));
}

#[test]
fn a_table_keeps_its_number_while_numbers_last() {
    let model = model(1, Flaw::None);
    let vmids = Vmids::new(VmidBits::Eight, 2);
    let tags: Vec<Tag> = (0..200).map(|_| Tag::new()).collect();
    let first: Vec<Vmid> = tags.iter().map(|tag| vmids.of(&model, CpuId(0), tag)).collect();
    let again: Vec<Vmid> = tags.iter().map(|tag| vmids.of(&model, CpuId(1), tag)).collect();
    assert_eq!(first, again);
}

#[test]
fn cpus_that_ask_at_once_get_different_numbers() {
    let model = model(5, Flaw::None);
    let vmids = Vmids::new(VmidBits::Eight, usize::from(CPUS));
    let tags: Vec<Tag> = (0..300).map(|_| Tag::new()).collect();
    let running = Mutex::new([None::<(usize, Vmid)>; CPUS as usize]);
    let entries = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (model, vmids, tags, running, entries) = (&model, &vmids, &tags, &running, &entries);
            scope.spawn(move || {
                let mut dice = Dice::new(u64::from(cpu) + 11);
                for _ in 0..30_000 {
                    let table = dice.below(tags.len() as u64) as usize;
                    running.lock().unwrap()[usize::from(cpu)] = None;
                    let vmid = vmids.of(model, CpuId(cpu), &tags[table]);
                    let mut running = running.lock().unwrap();
                    let clash = |other: &&(usize, Vmid)| (other.0 == table) != (other.1 == vmid);
                    assert_eq!(running.iter().flatten().find(clash), None, "{table} under {vmid}");
                    running[usize::from(cpu)] = Some((table, vmid));
                    entries.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} entries on {CPUS} threads, {} roll-overs", entries.into_inner(), vmids.rollovers());
    assert!(vmids.rollovers() > 50);
}
