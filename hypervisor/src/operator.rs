//! What the operator types, carried out.
//!
//! [`typed`] takes a byte from the board's UART to whom it is for; a command of the monitor's is carried out at once, on
//! the CPU that took the UART's interrupt. Nothing here waits for a guest: a vCPU that is loaded elsewhere shows as
//! running, and what is wanted of it is left with its VM.

use crate::addr::VmId;
use crate::arm::el1::El1;
use crate::devices::UART_INTID;
use crate::devices::uart::AHEAD;
use crate::host::{Host, Shutdown};
use crate::machine::Machine;
use crate::monitor::memory;
use crate::monitor::views::{self, ExitRow, RegsRow, TopRow, VmRow};
use crate::monitor::{Command, HELP, Input, Take, Typing};
use crate::next::Cause;
use crate::sched;
use crate::vcpu::Counter;
use crate::vm::{Power, Slot, State, Vm};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

/// How long a guest that has too much before it may take nothing of it until what is typed is lost, in seconds.
const PATIENCE: u64 = 5;

/// Whether the next byte may be taken off the board's line; if not, [`held`](crate::host::SharedConsole::held) is set until it may be.
pub fn may_take<M: Machine>(host: &Host, m: &M, typing: &mut Typing) -> bool {
    let vm = host.console.lock().keyboard().and_then(|vm| host.fleet.vms.get(usize::from(vm.0)));
    let patience = PATIENCE * u64::from(host.facts.frequency.hz());
    let mut ask = || {
        let waiting = vm.map_or(0, |vm| vm.devices.lock().uart.waiting());
        typing.take(waiting, AHEAD, m.now(), patience)
    };
    let mut take = ask();
    if take == Take::No && !host.console.held.swap(true, Ordering::SeqCst) {
        // The guest may have read before it could see that this is waited for.
        take = ask();
    }
    if take == Take::No {
        return false;
    }
    host.console.held.store(false, Ordering::Relaxed);
    if take == (Take::Lost { first: true })
        && let Some(vm) = vm
    {
        host.console.say(format_args!("{}: does not read what is typed, which is lost from here on", vm.name));
    }
    true
}

/// The operator typed `byte`.
pub fn typed<M: Machine>(host: &Host, m: &M, byte: u8) {
    let input = host.console.lock().receive(byte);
    host.console.to_send.store(true, Ordering::Release);
    match input {
        Input::Nothing => {}
        Input::Guest(vm, byte) => {
            let Some(vm) = host.fleet.vms.get(usize::from(vm.0)) else { return };
            let mut devices = vm.devices.lock();
            // What finds too much before it, though it was held back, is lost, as on a real line.
            let _ = devices.uart.typed(byte);
            host.line(m, vm, UART_INTID, devices.uart.line().into());
        }
        Input::Command(command) => carry_out(host, m, command),
    }
}

/// One line of an answer.
fn answer(host: &Host, text: fmt::Arguments<'_>) {
    host.console.lock().answer(|out| writeln!(out, "{text}"));
}

/// The same, of a text that is there.
#[inline(never)]
fn answer_text(host: &Host, text: &str) {
    answer(host, format_args!("{text}"));
}

fn carry_out<M: Machine>(host: &Host, m: &M, command: Command) {
    let answer = |text| answer_text(host, text);
    match command {
        Command::Nothing => host.console.lock().answer(|_| Ok(())),
        Command::Help => host
            .console
            .lock()
            .answer(|out| HELP.iter().try_for_each(|(name, takes, does)| writeln!(out, "{name:<8} {takes:<6} {does}"))),
        Command::Vms => show_vms(host, m),
        Command::Mem => show_mem(host),
        Command::Top => show_top(host, m),
        Command::Balloon(vm, bytes) => with(host, vm, |vm| set_balloon(host, vm, bytes)),
        Command::Why(vm) => show_why(host, vm),
        Command::Check(on) => set_checks(host, on, m.allocations()),
        Command::Stats(on) => {
            host.pressure.overcommit.lock().stats = on;
            answer(if on { "a line for each VM every second" } else { "no more lines" });
        }
        Command::Exits(vm) => show_exits(host, vm),
        Command::Regs(vm) => show_regs(host, vm),
        Command::Attach(vm) => host.console.lock().attend(vm),
        Command::Log(n) => {
            let mut console = host.console.lock();
            // The log is shown from a copy: the answer needs the console.
            let mut text = alloc::string::String::new();
            let _ = console.history().show(&mut text, n);
            console.answer(|out| out.write_str(&text));
        }
        Command::Reboot => {
            answer("restarting the board");
            *host.fleet.shutdown.lock() = Some(Shutdown::Restart);
        }
        Command::PowerOff => {
            answer("powering off");
            *host.fleet.shutdown.lock() = Some(Shutdown::Off);
        }
        Command::Pause(vm) => {
            with(host, vm, |vm| answer(if host.pause(m, vm) { "paused" } else { "it does not run" }));
        }
        Command::Resume(vm) => {
            with(host, vm, |vm| answer(if host.resume(m, vm) { "resumed" } else { "it is not paused" }));
        }
        Command::Stop(vm) => with(host, vm, |vm| {
            if matches!(vm.life.state(), State::Ended(_)) {
                answer("it is over already");
            } else {
                answer("stopping");
                end(host, m, vm, Cause::Operator);
            }
        }),
        Command::Restart(vm) => with(host, vm, |vm| {
            answer("restarting");
            if matches!(vm.life.state(), State::Ended(_)) {
                host.begin(m, vm);
            } else {
                end(host, m, vm, Cause::Restart);
            }
        }),
    }
}

/// Stops `vm`, paused or not.
fn end<M: Machine>(host: &Host, m: &M, vm: &Vm, cause: Cause) {
    host.resume(m, vm);
    host.stop(m, vm, cause);
}

/// Has `vm`'s balloon leave it so many `bytes`, or what the policy says.
fn set_balloon(host: &Host, vm: &Vm, bytes: Option<u64>) {
    let up = vm.balloon.lock().is_up();
    let runs = !matches!(vm.life.state(), State::Ended(_));
    let pages = bytes.map(|bytes| (bytes >> 12).min(vm.spec.memory >> 12));
    host.pressure.overcommit.lock().policy.pin(vm.id, pages);
    match bytes {
        _ if !runs => answer_text(host, "it does not run; when it does, so be it"),
        _ if !up => answer_text(host, "it has no driver for its balloon; when it gets one, so be it"),
        Some(bytes) => answer(host, format_args!("asking it for {} KiB in all", bytes >> 10)),
        None => answer_text(host, "the policy says from now on"),
    }
}

fn show_why(host: &Host, vm: VmId) {
    let overcommit = host.pressure.overcommit.lock();
    host.console.lock().answer(|out| {
        let mut events = overcommit.policy.journal().of(vm).peekable();
        if events.peek().is_none() {
            writeln!(out, "nothing was taken from it or given to it")?;
        }
        events.try_for_each(|event| writeln!(out, "{event}"))
    });
}

/// Has shadow tables checked every second, or not; `n` allocations were made so far.
fn set_checks(host: &Host, on: bool, n: u64) {
    host.pressure.overcommit.lock().checks = on;
    answer_text(host, if on { "a word where something is wrong" } else { "not any more" });
    answer(
        host,
        format_args!(
            "{n} allocations from the heap since boot began: guests make none, but for 8 KiB as a page is compressed"
        ),
    );
}

fn with(host: &Host, vm: VmId, what: impl FnOnce(&Vm)) {
    if let Some(vm) = host.fleet.vms.get(usize::from(vm.0)) {
        what(vm);
    }
}

fn show_vms<M: Machine>(host: &Host, m: &M) {
    let attended = host.console.lock().attended();
    let now = m.now();
    let rows: Vec<VmRow<'_>> = host
        .fleet
        .vms
        .iter()
        .map(|vm| {
            let on = vm.slots.iter().filter(|slot| slot.power() == Power::On).count();
            let queue = host.queue.lock();
            let ticks: u64 = vm.slots.iter().map(|slot| queue.spent(slot.entity, now)).sum();
            VmRow {
                id: vm.id.0,
                name: &vm.name,
                state: vm.life.state().word(),
                // At most 64.
                vcpus_on: on as u16,
                vcpus: vm.spec.vcpus,
                memory: vm.spec.memory,
                cpu_nanos: host.facts.frequency.nanos(ticks),
                exits: vm.slots.iter().map(Slot::exits).sum(),
                attended: attended == Some(vm.id),
            }
        })
        .collect();
    host.console.lock().answer(|out| views::vms(out, &rows));
}

fn show_mem(host: &Host) {
    let overcommit = host.pressure.overcommit.lock();
    host.tell_memory(&overcommit, |board, rows| host.console.lock().answer(|out| memory::mem(out, board, rows)));
}

fn show_top<M: Machine>(host: &Host, m: &M) {
    let now = m.now();
    let mut last = host.queue.top.lock();
    let mut rows = Vec::new();
    let mut spent = Vec::new();
    let queue = host.queue.lock();
    for vm in &host.fleet.vms {
        for (n, slot) in (0_u16..).zip(&vm.slots) {
            let ticks = queue.spent(slot.entity, now);
            let before = last.1.get(spent.len()).copied().unwrap_or(0);
            spent.push(ticks);
            let state = match (vm.life.state(), queue.state(slot.entity)) {
                (State::Running, sched::EntityState::Running(_)) => "running",
                (State::Running, sched::EntityState::Ready) => "ready",
                (State::Running, sched::EntityState::Blocked(_)) => "waiting",
                (State::Running, sched::EntityState::Off) => "off",
                (state, _) => state.word(),
            };
            rows.push(TopRow {
                name: &vm.name,
                vcpu: n,
                cpu: queue.loaded_on(slot.entity).map(|cpu| cpu.0),
                state,
                ticks: ticks.saturating_sub(before),
            });
        }
    }
    drop(queue);
    let window = now.saturating_sub(last.0);
    *last = (now, spent);
    // At most 16 CPUs.
    host.console.lock().answer(|out| views::top(out, window, host.facts.n_cpus as u16, &rows));
}

fn show_exits(host: &Host, only: Option<VmId>) {
    // A timer that fires leaves by an interrupt, which is counted as such.
    let exits = Counter::ALL.into_iter().filter(|counter| *counter != Counter::Timer);
    let rows: Vec<_> = exits
        .map(|counter| ExitRow {
            cause: counter.name(),
            count: host
                .fleet
                .vms
                .iter()
                .filter(|vm| only.is_none_or(|only| vm.id == only))
                .flat_map(|vm| &vm.slots)
                .map(|slot| slot.counted(counter))
                .sum(),
        })
        .collect();
    host.console.lock().answer(|out| views::exits(out, &rows));
}

fn show_regs(host: &Host, vm: VmId) {
    let Some(vm) = host.fleet.vms.get(usize::from(vm.0)) else { return };
    for (n, slot) in (0_u16..).zip(&vm.slots) {
        let Some(vcpu) = slot.vcpu.try_lock() else {
            host.console.lock().answer(|out| writeln!(out, "vCPU {n} is loaded on a CPU; `pause` it and look again"));
            continue;
        };
        let system: Vec<_> = El1::ALL.iter().map(|register| (register.name(), vcpu.saved.get(*register))).collect();
        let row = RegsRow {
            vcpu: n,
            state: if slot.power() == Power::On { "on" } else { "off" },
            x: &vcpu.registers.x,
            pc: vcpu.registers.pc,
            pstate: vcpu.registers.pstate,
            system: &system,
        };
        host.console.lock().answer(|out| views::regs(out, &[row]));
    }
}
