//! A board whose VMs have more memory than there is: what they use is watched and charged, whoever needs a frame gets one, and the
//! policy sees to it that there are some. And how much the hypervisor takes for itself.

use crate::exits::model;
use flatland::addr::{Size, VmId};
use flatland::arm::desc::Hole;
use flatland::bundle::{Bundle, Limits};
use flatland::frames::{HYPERVISOR, Use};
use flatland::host::{Host, heap_for};
use flatland::machine::Machine;
use flatland::memory::pack::Put;
use flatland::memory::{Access, Miss, RAM_BASE};
use flatland::next::{Cause, Next};
use flatland::policy::{Level, Pace};
use flatland::vm::Vm;
use flatland::vm::device_tree::most_bytes;
use harness::cpu::{BoardPlan, Cpu, bundle, host_on, run_all, shown, try_host};
use harness::model::Model;
use harness::touch::resolve;
use std::sync::atomic::Ordering;

/// Ticks of a second.
pub(crate) const SECOND: u64 = 62_500_000;

const PLAN: BoardPlan<'_> = BoardPlan { pool: Some("6M"), ..BoardPlan::new(1, &["one", "two"]) };

fn begin(model: &Model) -> &'static Host {
    let host = host_on(model, &PLAN);
    run_all(host);
    host
}

/// Writes to a page what compresses well, as its guest does, which rests where there is no memory. Returns how often that was.
fn touch(cpu: &Cpu<'_>, host: &Host, vm: &Vm, page: u64) -> u32 {
    let at = RAM_BASE + (page << 12);
    for misses in 0..10_000 {
        let done = vm.memory.lock().write(cpu, &host.pool, at, &page.to_le_bytes());
        match done {
            Ok(()) => return misses,
            Err(Miss::Again) => {}
            Err(Miss::Short) => assert_eq!(host.starve(cpu, vm), Next::Resume, "page {page} of {}", vm.name),
            Err(miss) => panic!("page {page} of {}: {miss:?}", vm.name),
        }
    }
    panic!("page {page} of {} is never to be had", vm.name);
}

/// Looks after memory until that is not due any more.
pub(crate) fn manage(cpu: &Cpu<'_>, host: &Host) {
    for _ in 0..10_000 {
        if !host.is_managing_due(cpu) {
            return;
        }
        host.manage(cpu, false);
    }
    panic!("memory is always to be looked after");
}

/// Lets a second pass, and a little more; memory is looked after whenever that is due.
fn second(cpu: &Cpu<'_>, host: &Host) {
    let end = cpu.now() + SECOND + SECOND / 100;
    for _ in 0..10_000 {
        let due = host.housekeeping(cpu).expect("memory is looked after each second");
        if due > end {
            return;
        }
        cpu.pace.set(due.saturating_sub(cpu.now()).max(1));
        let _ = cpu.now();
        cpu.pace.set(1);
        host.manage(cpu, false);
    }
    panic!("the housekeeping does not come to rest");
}

#[test]
fn whoever_needs_a_frame_gets_one_while_there_is_something_to_compress() {
    let model = model();
    let cpu = Cpu::new(&model);
    cpu.pace.set(1);
    let host = begin(&model);
    let mut misses = 0;
    for page in 0..1800 {
        misses += touch(&cpu, host, &host.fleet.vms[(page & 1) as usize], 1 + page / 2);
    }
    assert!(misses > 0, "there is memory enough");
    // Each is charged for its own, and for its part of the store: 16 units are a frame. Nothing is known of what is idle.
    host.tell_memory(&host.pressure.overcommit.lock(), |_, rows| {
        for (row, vm) in rows.iter().zip(&host.fleet.vms) {
            let resident = vm.memory.lock().resident();
            assert_eq!((resident.shared, resident.shadows), (0, 0), "{}", vm.name);
            assert!(resident.units > 160, "{}: {} units", vm.name, resident.units);
            assert_eq!(row.active, 4 * (resident.frames + resident.pending + resident.units / 16), "{}", vm.name);
        }
    });
    let packed: u64 = host.fleet.vms.iter().map(|vm| vm.memory.lock().resident().packed).sum();
    assert!(packed > 300, "{packed} pages are compressed");
}

#[test]
fn the_policy_keeps_some_memory_free_and_watches_who_uses_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    cpu.pace.set(1);
    let host = begin(&model);
    second(&cpu, host);
    let level = || host.pressure.overcommit.lock().policy.level();
    assert_eq!(level(), Level::High);
    // The first takes nearly all, and it is charged for that.
    let mut page = 1;
    while touch(&cpu, host, &host.fleet.vms[0], page) == 0 {
        page += 1;
    }
    let before = host.pool.lock().counts().free;
    // Whoever looks for equal pages and found few hurries now that memory is short, and only then.
    let pace = || host.pressure.overcommit.lock().pace.percent_hundredths();
    let slow = || {
        let pace = &mut host.pressure.overcommit.lock().pace;
        *pace = Pace::new(50);
        (0..4).for_each(|_| pace.found(1000, 0));
    };
    slow();
    assert_eq!(pace(), 5000 / 16);
    second(&cpu, host);
    assert_ne!(level(), Level::High);
    assert_eq!(pace(), 5000);
    // Nobody does, on this board.
    host.pressure.overcommit.lock().pace = Pace::new(0);
    for _ in 0..30 {
        second(&cpu, host);
    }
    let free = host.pool.lock().counts().free;
    // 4 in 100 frames.
    assert!(before < 61 && (61..150).contains(&free), "{before} frames were free, and {free} are after half a minute");
    for vm in &host.fleet.vms {
        let sampled = vm.memory.lock().sampled().0;
        assert_eq!(sampled > 0, vm.id == VmId(0), "{sampled} pages of {} are watched", vm.name);
    }
    slow();
    host.fleet.vms[0].memory.lock().give_up(&cpu, &host.pool, RAM_BASE, 1024, Hole::Ballooned, &mut || false);
    second(&cpu, host);
    assert_eq!((level(), pace()), (Level::High, 5000 / 16), "having enough is no reason");
}

#[test]
fn statistics_are_of_the_last_second_whenever_they_are_turned_on() {
    let model = model();
    let cpu = Cpu::new(&model);
    cpu.pace.set(1);
    let host = begin(&model);
    (0..5).for_each(|_| second(&cpu, host));
    let _ = shown(host);
    host.pressure.overcommit.lock().stats.is_on = true;
    // The times of a second's lines, which are for the board, its costs and each VM.
    let times = || {
        let said = shown(host);
        let lines: Vec<_> = said.lines().filter_map(|line| line.split_once("stats t=")).map(|(_, line)| line).collect();
        let times: Vec<_> = lines.iter().filter_map(|line| line.split_once(' ')?.0.parse::<f64>().ok()).collect();
        assert_eq!((times.len(), lines.len()), (2 + PLAN.names.len(), 2 + PLAN.names.len()), "{said}");
        assert!(times.iter().all(|time| *time == times[0]), "{said}");
        times[0]
    };
    let mut last = cpu.now() as f64 / SECOND as f64;
    for page in 512..612 {
        assert_eq!(touch(&cpu, host, &host.fleet.vms[1], page), 0);
    }
    // It does not use them for two periods of the watch.
    (0..69).for_each(|_| second(&cpu, host));
    let _ = shown(host);
    second(&cpu, host);
    let said = shown(host);
    let overcommit = host.pressure.overcommit.lock();
    host.tell_memory(&overcommit, |_, rows| {
        for row in rows {
            let line = said.lines().find(|line| line.contains(&format!("vm={} ", row.name))).expect(&said);
            let [private, active, entitled] = [row.private, row.active, row.entitled];
            assert!(line.contains(&format!(" private={private} ")), "{row:?}: {line}");
            assert!(line.contains(&format!(" active={active} ")), "{row:?}: {line}");
            assert!(line.ends_with(&format!(" entitled={entitled}")), "{row:?}: {line}");
        }
        assert!(rows[1].active < rows[1].private, "{rows:?}");
    });
    drop(overcommit);
    last += 70.0;
    for n in 0..4 {
        second(&cpu, host);
        let time = times();
        assert!(time > last - 0.1 && time < last + 1.1, "second {n}: {time} s after {last} s");
        last = time;
    }
}

#[test]
fn the_heap_is_for_as_many_vms_as_there_are() {
    let heap = |names: &'static [&'static str], nested| {
        let archive = bundle(&BoardPlan { nested, ..BoardPlan::new(1, names) }, &[("kernel", &[0; 64])]);
        heap_for(&Bundle::open(&archive, &Limits::ANY_BOARD).unwrap())
    };
    let one = heap(&["one"], false);
    let vm = heap(&["one", "two"], false) - one;
    assert_eq!(heap(&["one", "two", "three"], false), one + 2 * vm);
    // Of two vCPUs, and a device tree.
    let tree = most_bytes(2, "", core::iter::empty());
    assert_eq!((vm, one), ((8 << 10) + 2 * 3584 + tree, (304 << 10) + vm));
    assert_eq!(heap(&["one"], true) - one, (20 << 10) + 2 * 2048, "one with an EL2 has more");
}

#[test]
fn whoever_gets_no_memory_waits_for_so_long_and_no_longer() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = begin(&model);
    cpu.pace.set(0);
    let [one, two] = [0, 1].map(|n| &host.fleet.vms[n]);
    cpu.pass(SECOND * 1000 + 7);
    // Nobody has any page that could be taken.
    for (seconds, n) in [(0, 0), (1, 10), (8, 18)] {
        cpu.pass(SECOND * seconds);
        assert_eq!(host.starve(&cpu, one), Next::WaitForMemory, "after {n} seconds");
    }
    let now = cpu.now();
    assert_eq!(host.retry_at(now), now + SECOND / 500, "it tries again after 2 ms");
    cpu.pass(SECOND * 11 - 1);
    assert_eq!(host.starve(&cpu, one), Next::WaitForMemory);
    assert_eq!(host.starve(&cpu, two), Next::WaitForMemory, "the other begins to wait");
    cpu.pass(1);
    assert!(matches!(host.starve(&cpu, one), Next::Stop(Cause::Crash(why)) if why.contains("no memory left")));
    assert_eq!(host.starve(&cpu, two), Next::WaitForMemory);
    // Somebody has some: whoever waited goes on, and waits anew if that was not enough.
    for page in 1..1000 {
        let _ = touch(&cpu, host, one, page);
    }
    cpu.pass(SECOND * 19);
    assert_eq!(host.starve(&cpu, two), Next::Resume);
    assert_eq!(two.starving.load(Ordering::Relaxed), 0);
}

/// Blocks are split for watching who uses what only where memory is short.
#[test]
fn while_there_is_memory_blocks_stay_whole() {
    let model = model();
    let cpu = Cpu::new(&model);
    cpu.pace.set(1);
    let host = host_on(&model, &BoardPlan { pool: Some("12M"), ..PLAN });
    run_all(host);
    let vm = &host.fleet.vms[0];
    let at = RAM_BASE + (512 << 12);
    let _ = resolve(&mut vm.memory.lock(), &cpu, &host.pool, at, Access::Write);
    let is_block = || vm.memory.lock().is_block(&cpu, at);
    assert!(is_block());
    // Two periods of the watch.
    for _ in 0..70 {
        second(&cpu, host);
        assert_eq!(host.pressure.overcommit.lock().policy.level(), Level::High);
    }
    assert!(vm.memory.lock().sampled().0 > 0, "nobody watches");
    assert!(is_block());
}

/// What its flash holds is memory that a VM needs beside its own.
#[test]
fn flash_counts_for_whether_there_is_enough_for_all() {
    let plan = BoardPlan::new(1, &["one", "two", "three"]);
    let image = vec![1; 1 << 20];
    assert!(try_host(&model(), &plan, &[("kernel", &[0; 64])]).is_ok());
    let refused = try_host(&model(), &plan, &[("kernel", &[0; 64]), ("flash", &image)]).err().expect("there is not");
    assert!(refused.contains("KiB are wanted"), "{refused}");
}

/// No frame more and none less than the manifest lets the VMs have is to be had.
#[test]
fn a_pool_has_as_much_as_the_manifest_says() {
    for (pool, frames) in [("6M", 1536), ("8M", 2048), ("10M", 2560)] {
        let model = model();
        let host = host_on(&model, &BoardPlan { pool: Some(pool), ..PLAN });
        let counts = host.pool.lock().counts();
        assert_eq!(counts.free + counts.table + counts.guest + counts.shared + counts.store, frames, "{counts:?}");
    }
}

/// A page that somebody has begun to compress is compressed first when a frame is wanted.
#[test]
fn what_was_begun_is_done_first() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = begin(&model);
    let vm = &host.fleet.vms[0];
    (0..600).for_each(|page| assert_eq!(touch(&cpu, host, vm, page), 0));
    let at = RAM_BASE + (300 << 12);
    {
        let half = |n: u64| if n < 2048 { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33 } else { 0 };
        let bytes: Vec<u8> = (0..4096).map(|n| half(n) as u8).collect();
        let mut memory = vm.memory.lock();
        memory.write(&cpu, &host.pool, at, &bytes).unwrap();
        let _ = memory.split(&cpu, &host.pool, at);
        assert_eq!(memory.evict(&cpu, &host.pool, at), Put::Begun);
    }
    let mut hoard = Vec::new();
    while host.pool.lock().counts().free > 1 {
        hoard.extend(host.pool.lock().take(Size::Page, HYPERVISOR, Use::Hypervisor).map(std::mem::ManuallyDrop::new));
    }
    assert_eq!(host.starve(&cpu, vm), Next::Resume);
    assert_eq!(vm.memory.lock().peek(&cpu, at), None, "it is compressed by now");
}
