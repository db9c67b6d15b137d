//! The scanner on a board: what it merges and drops, which blocks it splits for that, and that what the monitor tells of it is so.

use crate::exits::model;
use crate::pressure::{SECOND, manage};
use flatland::arm::desc::Hole;
use flatland::frames::Work;
use flatland::host::Host;
use flatland::machine::Machine;
use flatland::memory::pack::Put;
use flatland::memory::{Access, RAM_BASE};
use flatland::vm::Vm;
use harness::cpu::{BoardPlan, Cpu, host_on, run_all, shown};
use harness::touch::resolve;
use std::sync::atomic::Ordering;

/// Pages of a VM: two blocks.
const PAGES: u64 = 1024;

/// Gives a page a content of its own, or zeroes.
fn write(cpu: &Cpu<'_>, host: &Host, vm: &Vm, page: u64, content: u64) {
    let words =
        (0..512_u64).map(|n| if content == 0 { 0 } else { (content * 512 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) });
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let at = RAM_BASE + (page << 12);
    let mut memory = vm.memory.lock();
    let _ = resolve(&mut memory, cpu, &host.pool, at, Access::Write);
    memory.write(cpu, &host.pool, at, &bytes).expect("there is memory");
}

/// Scans all pages of all VMs some times.
fn scan(cpu: &Cpu<'_>, host: &Host) {
    let until = host.pressure.scanner.lock().totals.rounds + 4;
    for _ in 0..1_000_000 {
        let _ = host.idle(cpu);
        if host.pressure.scanner.lock().totals.rounds >= until {
            return;
        }
    }
    panic!("the scanner does not come to an end");
}

#[test]
fn equal_pages_become_one_and_zeroes_none_where_a_block_is_worth_it() {
    let model = model();
    let cpu = Cpu::new(&model);
    cpu.pace.set(1);
    let host = host_on(&model, &BoardPlan { merges: true, ..BoardPlan::new(1, &["one", "two"]) });
    run_all(host);
    let [one, two] = [0, 1].map(|n| &host.fleet.vms[n]);
    for (n, vm) in [one, two].into_iter().enumerate() {
        for page in 0..PAGES {
            let content = match page {
                // The same in both, for other pages.
                0..16 => 1 + (page + n as u64) % 16,
                16..32 if n == 0 => 0,
                // Too few to split the second block for.
                512..515 => page,
                520..523 if n == 0 => 0,
                _ => 10_000 * (n as u64 + 1) + page,
            };
            write(&cpu, host, vm, page, content);
        }
    }
    for vm in [one, two] {
        let memory = vm.memory.lock();
        assert!([0, 512].into_iter().all(|page| memory.is_block(&cpu, RAM_BASE + (page << 12))), "{}", vm.name);
    }
    // Nobody looks for equal pages while there is memory and somebody waits for the CPU.
    (0..20).for_each(|_| host.manage(&cpu, true));
    assert_eq!(host.pressure.scanner.lock().totals.scanned, 0);
    scan(&cpu, host);
    let counts = host.pool.lock().counts();
    // A tenth of what sharing saves, and what is free or could be compressed to a quarter.
    assert_eq!(host.copy_reserve(), (16 / 10, counts.free + counts.guest / 4));
    for (vm, shared, zero) in [(one, 16, 16), (two, 16, 0)] {
        let memory = vm.memory.lock();
        let resident = memory.resident();
        assert_eq!((resident.shared, resident.zero), (shared, zero), "{}", vm.name);
        assert_eq!(resident.frames, PAGES - shared - zero, "{}", vm.name);
        let blocks = [0, 512].map(|page| memory.is_block(&cpu, RAM_BASE + (page << 12)));
        assert_eq!(blocks, [false, true], "{}", vm.name);
    }
    let overcommit = host.pressure.overcommit.lock();
    host.tell_memory(&overcommit, |board, rows| {
        let [of_one, of_two] = rows else { panic!("two VMs") };
        assert_eq!((board.private, board.shared, board.saved), (4 * (2 * PAGES - 48), 64, 64));
        let [scanned, merged, zeroed, differed] = board.scan;
        assert_eq!((merged, zeroed, differed), (16, 16, 0));
        assert!(scanned >= 4 * (2 * PAGES - 48), "{scanned} pages");
        assert_eq!((of_one.private, of_one.shared, of_one.zero), (4 * (PAGES - 32), 64, 64));
        assert_eq!((of_two.private, of_two.shared, of_two.zero), (4 * (PAGES - 16), 64, 0));
        // What is charged is a VM's own, and its part of what it shares.
        assert_eq!((of_one.active, of_two.active), (4 * (PAGES - 32 + 8), 4 * (PAGES - 16 + 8)));
        // Each has half of what both share.
        assert_eq!((of_one.saved, of_two.saved), (32, 32));
        let known = board.private + board.shared + board.store + board.tables + board.images;
        assert_eq!(known + board.reserved + board.hypervisor + board.free, board.total);
    });
    drop(overcommit);
    // A page of a block that is split is dropped by itself.
    let zeroed = || host.pressure.scanner.lock().totals.zeroed;
    let before = zeroed();
    for page in [100, 101, 300] {
        write(&cpu, host, two, page, 0);
    }
    scan(&cpu, host);
    assert_eq!((two.memory.lock().resident().zero, zeroed() - before), (3, 3));
    host.sum_up();
    let said = shown(host);
    assert!(said.contains("memory:") && said.contains("merge"), "{said}");
    assert!(!said.contains("shadows:"), "{said}");
    for (name, pages, nanos) in host.costs() {
        let is_done = [Work::Scan, Work::Freeze, Work::Merge].iter().any(|work| work.name() == name);
        assert_eq!((pages > 0, nanos > 0), (is_done, is_done), "{name}: {pages} pages, {nanos} ns");
    }
}

#[test]
fn a_block_is_split_for_as_many_pages_as_pay_for_the_table() {
    // Where there is memory enough.
    let worth = 8;
    for zeroes in [1, worth - 1, worth, worth + 1] {
        let model = model();
        let cpu = Cpu::new(&model);
        cpu.pace.set(1);
        let host = host_on(&model, &BoardPlan { merges: true, ..BoardPlan::new(1, &["one"]) });
        run_all(host);
        let vm = &host.fleet.vms[0];
        for page in 0..512 {
            let is_zero = page % 50 == 3 && page / 50 < zeroes;
            write(&cpu, host, vm, page, if is_zero { 0 } else { page + 1 });
        }
        scan(&cpu, host);
        let memory = vm.memory.lock();
        let dropped = if zeroes < worth { 0 } else { zeroes };
        assert_eq!(memory.resident().zero, dropped, "of {zeroes} pages");
        assert_eq!(memory.is_block(&cpu, RAM_BASE), dropped == 0);
    }
}

#[test]
fn who_finds_little_slows_down_and_who_is_short_hurries() {
    let model = model();
    let cpu = Cpu::new(&model);
    cpu.pace.set(1);
    let host = host_on(&model, &BoardPlan { merges: true, ..BoardPlan::new(1, &["one", "two"]) });
    run_all(host);
    let [one, two] = [0, 1].map(|n| &host.fleet.vms[n]);
    // So many equal pages of a hundred, in blocks that are split for them.
    let fill = |equal: u64| {
        for (n, vm) in [one, two].into_iter().enumerate() {
            for page in 0..PAGES {
                let content = if page % 100 < equal { 1 + page } else { 10_000 * (n as u64 + 1) + page };
                write(&cpu, host, vm, page, content);
            }
        }
    };
    // A round, and a second of the policy's.
    let round = || {
        let until = host.pressure.scanner.lock().totals.rounds + 1;
        while host.pressure.scanner.lock().totals.rounds < until {
            let _ = host.idle(&cpu);
        }
        cpu.pass(SECOND);
        manage(&cpu, host);
        host.pressure.overcommit.lock().pace.percent_hundredths()
    };
    let fast = host.pressure.overcommit.lock().pace.percent_hundredths();
    fill(0);
    let slow: Vec<_> = (0..6).map(|_| round()).collect();
    assert!(slow.is_sorted_by(|a, b| a >= b) && slow[5] == fast / 16, "{slow:?} of {fast}");
    // Between two rounds nothing is learned.
    cpu.pass(SECOND);
    manage(&cpu, host);
    assert_eq!(host.pressure.overcommit.lock().pace.percent_hundredths(), fast / 16);
    // A twentieth of the pages can be merged, which is much of a round, however many went before: as fast as it may.
    fill(5);
    let found: Vec<_> = (0..4).map(|_| round()).collect();
    // At once, whatever was read in vain before.
    assert!(found[..2].contains(&fast), "{found:?} of {fast}");
    // What was merged in earlier rounds does not count for later ones.
    let after: Vec<_> = (0..8).map(|_| round()).collect();
    assert_eq!(after.last(), Some(&(fast / 16)), "{after:?} of {fast}");
    // Pages of zeroes are as good as equal ones.
    for page in (0..PAGES).filter(|page| page % 100 < 5) {
        write(&cpu, host, one, page, 0);
    }
    let found: Vec<_> = (0..2).map(|_| round()).collect();
    assert!(found.contains(&fast), "{found:?} of {fast}");
}

/// What a page costs that is compressed in steps is what all of them cost.
#[test]
fn the_cost_of_a_compressed_page_is_that_of_all_its_steps() {
    const EACH: u64 = 1000;
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &BoardPlan::new(1, &["one"]));
    run_all(host);
    let one = &host.fleet.vms[0];
    let at = RAM_BASE + (5 << 12);
    let bytes: Vec<u8> = (0..4096_u64).map(|n| (n % 3 * (n / 7)) as u8 & 7).collect();
    let mut memory = one.memory.lock();
    resolve(&mut memory, &cpu, &host.pool, at, Access::Write).unwrap();
    memory.write(&cpu, &host.pool, at, &bytes).unwrap();
    memory.split(&cpu, &host.pool, at).ok();
    cpu.pace.set(EACH);
    let steps = (1..1000).find(|_| memory.evict(&cpu, &host.pool, at) == Put::Packed).expect("it is small");
    assert!(steps > 2, "{steps} steps");
    assert_eq!(host.pool.costs().of(Work::Pack), (1, steps * EACH));
}

/// A frame that nobody changes any more is named by a page that nothing backs, and by no other; whoever writes to that page has a copy.
#[test]
fn a_shared_frame_is_lent_to_a_page_that_nothing_backs() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &BoardPlan { merges: true, ..BoardPlan::new(1, &["one", "two"]) });
    run_all(host);
    let [one, two] = [0, 1].map(|n| &host.fleet.vms[n]);
    let at = |page: u64| RAM_BASE + (page << 12);
    write(&cpu, host, one, 0, 7);
    let content = |vm: &Vm, page: u64| {
        let mut bytes = [0; 4096];
        vm.memory.lock().read(&cpu, &host.pool, at(page), &mut bytes).unwrap();
        bytes
    };
    let expected = content(one, 0);
    let own = resolve(&mut one.memory.lock(), &cpu, &host.pool, at(0), Access::Read).unwrap().output_of(at(0)).unwrap();
    assert!(!two.memory.lock().lend(&cpu, &host.pool, at(600), own), "its owner may still write to it");
    let hash = host.pool.hash().of(cpu.frame(own));
    let frame = one.memory.lock().freeze(&cpu, &host.pool, 0, hash).expect("it is the VM's alone");
    let frames = host.pool.lock().counts();
    assert!(two.memory.lock().lend(&cpu, &host.pool, at(600), frame));
    assert_eq!(two.memory.lock().resident().shared, 1);
    assert!(content(two, 600) == expected);
    assert_eq!(host.pool.lock().counts().guest, frames.guest, "it takes no frame");
    // Neither where something is, nor outside of RAM; and that takes no claim to the frame.
    write(&cpu, host, two, 0, 8);
    for page in [0, 600, 1 << 20] {
        assert!(!two.memory.lock().lend(&cpu, &host.pool, at(page), frame), "page {page}");
    }
    assert_eq!(two.memory.lock().resident().shared, 1);
    write(&cpu, host, two, 600, 9);
    assert!(content(one, 0) == expected && content(two, 600) != expected);
    assert_eq!(two.memory.lock().resident().shared, 0);
    // The last that names it has it for itself.
    write(&cpu, host, one, 0, 10);
    assert_eq!(one.memory.lock().resident().shared, 0);
    assert_eq!(host.pool.lock().counts().shared, 0);
    assert_eq!(model.errors(), Vec::<String>::new());
}

/// What is told of a VM's memory and the board's is what there is, each in its unit.
#[test]
fn what_is_told_of_memory_is_what_there_is() {
    let model = model();
    model.attach_disk(64);
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &BoardPlan { merges: true, ..BoardPlan::new(1, &["one", "two"]) });
    run_all(host);
    let [one, two] = [0, 1].map(|n| &host.fleet.vms[n]);
    // 20 pages that both have, 10 that are zero, some of their own, in blocks of which there are three.
    for (n, vm) in [one, two].into_iter().enumerate() {
        for page in 0..PAGES {
            let content = match page {
                0..20 => 1 + page,
                20..30 => 0,
                _ => 10_000 * (n as u64 + 1) + page,
            };
            if n == 0 || page < 512 {
                write(&cpu, host, vm, page, content);
            }
        }
    }
    scan(&cpu, host);
    // Some that compress, and some in the balloon.
    let at = |page: u64| RAM_BASE + (page << 12);
    for page in 40..43 {
        // The half of it.
        let half = |n: u64| if n < 2048 { (n * page).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33 } else { 0 };
        let bytes: Vec<u8> = (0..4096_u64).map(|n| half(n) as u8).collect();
        let mut memory = one.memory.lock();
        memory.write(&cpu, &host.pool, at(page), &bytes).unwrap();
        assert!((0..1000).any(|_| memory.evict(&cpu, &host.pool, at(page)) == Put::Packed));
    }
    two.memory.lock().give_up(&cpu, &host.pool, at(50), 7, Hole::Ballooned, &mut || false);
    two.entitled.store(900, Ordering::Relaxed);
    one.entitled.store(5000, Ordering::Relaxed);
    let overcommit = host.pressure.overcommit.lock();
    let counts = host.pool.lock().counts();
    host.tell_memory(&overcommit, |board, rows| {
        for (row, vm) in rows.iter().zip(&host.fleet.vms) {
            let resident = vm.memory.lock().resident();
            assert_eq!((row.name, row.configured), (vm.name.as_str(), 4096));
            let told = [row.private, row.shared, row.zero, row.packed, row.swapped, row.tables];
            // Beside its tables there is the page that tells of stolen time.
            let tables = resident.tables + 1;
            let pages = [resident.frames, resident.shared, resident.zero, resident.packed, resident.swapped, tables];
            assert_eq!(told, pages.map(|pages| pages * 4), "{row:?}");
            // Units of 256 bytes.
            assert_eq!(row.packed_in, resident.units / 4);
            // Of a frame that two name each has a half.
            assert_eq!((row.shared, row.saved, row.zero), (80, 40, 40), "{row:?}");
        }
        assert_eq!(rows.iter().map(|row| row.packed).collect::<Vec<_>>(), [12, 0]);
        assert!(rows[0].packed_in > 0 && rows[0].packed_in < 12, "{rows:?}");
        // No VM is meant to have more than it has at most.
        assert_eq!(rows.iter().map(|row| row.entitled).collect::<Vec<_>>(), [4096, 3600]);
        let told = [board.total, board.private, board.tables, board.shared, board.images, board.store, board.free];
        let frames = [counts.total, counts.guest, counts.table, counts.shared, 0, counts.store, counts.free];
        assert_eq!(told, frames.map(|frames| frames * 4), "{board:?}");
        assert_eq!((board.saved, board.level), (80, "high"));
        assert_eq!(board.scan[1..3], [20, 20], "{board:?}");
        assert_eq!((board.hypervisor, board.reserved), (0, (counts.reserved + counts.hypervisor) * 4));
    });
    // Costs are of a page each.
    let packs = host.costs().into_iter().find(|(name, ..)| *name == Work::Pack.name()).unwrap();
    assert_eq!((packs.1, host.pool.costs().of(Work::Pack).0), (3, 3));
}

/// A block of zeroes goes whole; of one with a word in it the page with that is left.
#[test]
fn a_block_of_zeroes_goes_whole() {
    let model = model();
    let cpu = Cpu::new(&model);
    let host = host_on(&model, &BoardPlan { merges: true, ..BoardPlan::new(1, &["one", "two"]) });
    run_all(host);
    let one = &host.fleet.vms[0];
    for page in 0..PAGES {
        write(&cpu, host, one, page, u64::from(page == 700));
    }
    let before = one.memory.lock().resident();
    assert_eq!(before.frames, PAGES);
    scan(&cpu, host);
    let after = one.memory.lock().resident();
    // The second was split for what it has of them.
    assert_eq!((after.frames, after.zero), (1, PAGES - 1));
    let totals = host.pressure.scanner.lock().totals;
    assert_eq!((totals.zeroed, totals.merged), (PAGES - 1, 0));
    assert_eq!(after.tables, before.tables + 1);
    let mut words = [0; 8];
    one.memory.lock().read(&cpu, &host.pool, RAM_BASE + (700 << 12), &mut words).unwrap();
    assert_ne!(words, [0; 8]);
}
