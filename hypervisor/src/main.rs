//! Cold boot as a list of steps, and what each CPU does from then on.

#![no_std]
#![no_main]

extern crate alloc;

mod el2;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use el2::machine::El2;
use el2::{cpu, entry, irq, lists, logger, mmu, percpu, smp, timer};
use flatland::addr::{Addr, CpuId};
use flatland::arm::idreg::{IdRegs, Offer};
use flatland::arm::vmsa::{PaRange, VmidBits};
use flatland::bundle::{Bundle, Limits};
use flatland::host::{self, Facts, Host};
use flatland::run::RunLoop;
use flatland::sched::Frequency;
use flatland::vm::Gic;
use log::info;
use platform::board::{self, Board};
use spin::Once;

/// What CPUs that start later need to know.
struct Shared {
    host: &'static Host,
    board: &'static Board,
}

static SHARED: Once<Shared> = Once::new();
/// How many CPUs have joined the first.
static JOINED: AtomicU32 = AtomicU32::new(0);

/// How long the other CPUs get to come up, in seconds.
const PATIENCE: u64 = 2;

/// The first CPU: where the image was loaded, where the device tree is.
fn boot(image: u64, dtb: u64) -> ! {
    mmu::init(image);
    cpu::init();
    logger::init();
    let (board, dtb) = entry::board(dtb);
    info!("Flatland {} on {} CPUs, {} MiB", env!("CARGO_PKG_VERSION"), board.cpus.len(), mib(&board));
    let (mut pool, stacks, mut own) = match entry::memory(&board, dtb) {
        Ok(memory) => memory,
        Err(why) => entry::give_up(format_args!("EL2's memory map: {why:?}")),
    };
    percpu::init(CpuId(0));
    let board: &'static Board = Box::leak(Box::new(board));
    if let Err(why) = irq::init(board) {
        entry::give_up(format_args!("the interrupt controller: {why:?}"));
    }
    if let Err(why) = irq::init_cpu(board, CpuId(0)) {
        entry::give_up(format_args!("the interrupt controller: {why}"));
    }
    el2::disk::init(board);

    let bundle = entry::bundle(board);
    let mut facts = facts(board, bundle);
    let limits = Limits { vcpus: facts.max_vcpus(), cpus: facts.n_cpus as u16, memory: 255 << 30 };
    let opened = Bundle::open(bundle, &limits);
    if let Ok(bundle) = &opened
        && !entry::grow_heap(&mut pool, &mut own, host::heap_for(bundle))
    {
        entry::give_up(format_args!("the board has no room for what so many vCPUs are kept in; give the VMs fewer"));
    }
    let total = (own.image + own.records + own.heap + own.stacks) / 1024;
    info!(
        "hypervisor memory: {total} KiB (image {}, frame records {}, heap {}, stacks {})",
        own.image / 1024,
        own.records / 1024,
        own.heap / 1024,
        own.stacks / 1024
    );
    facts.own_bytes = total * 1024;
    let swapped = opened.and_then(|bundle| match el2::disk::swap_to(bundle.policy.swap) {
        Ok(()) => Ok(bundle),
        Err(error) => Err(alloc::vec![error]),
    });
    let host = swapped.and_then(|bundle| Host::build(&El2, pool, facts, bundle));
    let host: &'static Host = match host {
        Ok(host) => Box::leak(Box::new(host)),
        Err(errors) => {
            for error in &errors {
                info!("bundle: {error}");
            }
            entry::give_up(format_args!("{} errors in the bundle", errors.len()));
        }
    };
    if host.facts.speculation.is_open() {
        info!(
            "guests can steer speculation of others (Spectre) on this CPU: its firmware has no remedy; see SECURITY.md"
        );
    }
    SHARED.call_once(|| Shared { host, board });
    logger::attach(host);
    start_others(board, &stacks);
    host.begin_all(&El2);
    el2::uart::listen(host);
    RunLoop::new(host, &El2, CpuId(0)).serve(&El2)
}

/// Every other CPU.
fn join(me: CpuId) -> ! {
    cpu::init();
    percpu::init(me);
    let Some(shared) = SHARED.get() else { el2::power::park() };
    if irq::init_cpu(shared.board, me).is_err() {
        el2::power::park();
    }
    JOINED.fetch_add(1, Ordering::AcqRel);
    RunLoop::new(shared.host, &El2, me).serve(&El2)
}

fn mib(board: &Board) -> u64 {
    board.memory.iter().map(|range| range.end - range.start).sum::<u64>() >> 20
}

/// What the board and its CPUs offer to VMs.
fn facts(board: &Board, bundle: &'static [u8]) -> Facts {
    let gic = match board.gic {
        board::Gic::V2 { .. } => Gic::V2,
        board::Gic::V3 { .. } => Gic::V3,
    };
    let pa_range = PaRange::from_mmfr0(cpu::id_register(7, 0));
    let offer = Offer { gic_registers: gic == Gic::V3, pa_range: pa_range.of_guests().field() };
    let ids = IdRegs::new(cpu::id_register, offer);
    Facts {
        n_cpus: board.cpus.len(),
        gic,
        gicv: match &board.gic {
            board::Gic::V2 { virt, .. } => Some(virt.start),
            board::Gic::V3 { .. } => None,
        },
        lists: lists::count(),
        pa_range,
        vmid_bits: VmidBits::from_mmfr1(cpu::id_register(7, 1)),
        el0_ids: ids.at_el0(),
        nested_ids: ids.nested(cpu::id_register(7, 2)).filter(|_| gic == Gic::V3),
        ids,
        midr: cpu::midr(),
        speculation: cpu::speculation(),
        frequency: Frequency::of_board(timer::frequency()),
        own_bytes: 0,
        // Without a number from the boot loader, the time it took to get here is better than nothing.
        seed: board.seed.unwrap_or_else(|| flatland::machine::Machine::now(&El2)),
        entropy: el2::entropy::gather(board),
        images: (bundle, Addr::new(board.initrd.map_or(0, |range| range.start))),
    }
}

/// Starts the other CPUs and waits for them a while.
fn start_others(board: &'static Board, stacks: &[flatland::addr::Addr<flatland::addr::Pa>]) {
    let me = smp::affinity();
    let others: Vec<_> = board.cpus.iter().filter(|cpu| cpu.mpidr & 0xff_00ff_ffff != me).collect();
    let mut expected = 0;
    for ((n, cpu), stack) in (1_u16..).zip(others).zip(stacks) {
        match smp::start(cpu, CpuId(n), *stack) {
            Ok(()) => expected += 1,
            Err(why) => info!("CPU {n} (MPIDR {:#x}) does not start: {why}", cpu.mpidr),
        }
    }
    let deadline = flatland::machine::Machine::now(&El2) + PATIENCE * timer::frequency();
    while JOINED.load(Ordering::Acquire) < expected && flatland::machine::Machine::now(&El2) < deadline {
        core::hint::spin_loop();
    }
    let joined = JOINED.load(Ordering::Acquire);
    if joined < expected {
        info!("only {} of {} CPUs came up", joined + 1, expected + 1);
    } else {
        mmu::drop_identity();
    }
}
