//! What the operator types, carried out.
//!
//! [`typed`] takes a byte from the board's UART to whom it is for. A command of the monitor's is carried out and answered by the CPU
//! that has the housekeeping, between its turns, a line at a time ([`go_on`]): all of it would keep interrupts masked for long. What
//! is typed waits meanwhile. Nothing here waits for a guest: a vCPU that is loaded elsewhere shows as running, and what is wanted of it is
//! left with its VM.

use super::{HOUSEKEEPING_CPU, Host, Shutdown};
use crate::addr::VmId;
use crate::arm::el1::El1;
use crate::devices::UART_INTID;
use crate::devices::device::Device;
use crate::devices::uart::AHEAD;
use crate::devices::virtio::blk::{Counts, SECTOR};
use crate::devices::virtio::net;
use crate::machine::Machine;
use crate::monitor::memory;
use crate::monitor::views::{self, DiskRow, ExitRow, NetRow, RegsRow, TopRow, VmRow};
use crate::monitor::{Answer, Command, HELP, Input, Take, Typing};
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
    if host.console.answers.load(Ordering::SeqCst) {
        // Whoever ends the answer has it taken.
        host.console.held.store(true, Ordering::SeqCst);
        return false;
    }
    let vm = host.console.lock().keyboard().and_then(|vm| host.fleet.vms.get(usize::from(vm.0)));
    let patience = PATIENCE * u64::from(host.facts.frequency.hz());
    let mut ask = || {
        let waiting = vm.map_or(0, |vm| vm.bus.uart.lock().waiting());
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
            let mut uart = vm.bus.uart.lock();
            // What finds too much before it, though it was held back, is lost, as on a real line.
            let _ = uart.typed(byte);
            host.line(m, vm, UART_INTID, uart.line().into());
        }
        Input::Command(command) => {
            *host.console.answer.lock() = Some(Answer::new(command));
            host.console.answers.store(true, Ordering::SeqCst);
            // Which carries it out.
            m.signal(HOUSEKEEPING_CPU);
        }
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

/// Carries out a command. True if its answer has several lines, which follow.
fn carry_out<M: Machine>(host: &Host, m: &M, given: &mut Answer) -> bool {
    let answer = |text| answer_text(host, text);
    match given.command {
        Command::Help
        | Command::Vms
        | Command::Disks
        | Command::Nets
        | Command::Mem
        | Command::Top
        | Command::Why(_)
        | Command::Exits(_)
        | Command::Regs(_)
        | Command::Log(_) => {
            if given.command == Command::Top {
                look_at_cpus(host, m);
            }
            let mut console = host.console.lock();
            if let Command::Log(n) = given.command {
                given.log = console.history().last(n);
            }
            console.begin_answer();
            return true;
        }
        Command::Nothing => host.console.lock().answer(|_| Ok(())),
        Command::Balloon(vm, bytes) => with(host, vm, |vm| set_balloon(host, vm, bytes)),
        Command::Check(on) => set_checks(host, on, m.allocations()),
        Command::Stats(on) => {
            host.pressure.overcommit.lock().stats.is_on = on;
            answer(if on { "a line for each VM every second" } else { "no more lines" });
        }
        Command::Attach(vm) => host.console.lock().attend(vm),
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
    false
}

/// Stops `vm`, paused or not.
fn end<M: Machine>(host: &Host, m: &M, vm: &Vm, cause: Cause) {
    host.resume(m, vm);
    host.stop(m, vm, cause);
}

/// Has `vm`'s balloon hold so many `bytes`, or what the policy says.
fn set_balloon(host: &Host, vm: &Vm, bytes: Option<u64>) {
    let up = vm.bus.balloon.lock().is_up();
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

/// Goes on with what the operator has commanded: begins to carry it out, or writes a line of the answer. True if there is more.
pub fn go_on<M: Machine>(host: &Host, m: &M) -> bool {
    if !host.console.answers.load(Ordering::Relaxed) {
        return false;
    }
    let mut held = host.console.answer.lock();
    let more = match held.as_mut() {
        None => false,
        Some(answer) if answer.has_begun => {
            let more = next_line(host, m, answer);
            if !more {
                host.console.lock().end_answer();
            }
            more
        }
        Some(answer) => {
            answer.has_begun = true;
            carry_out(host, m, answer)
        }
    };
    if !more {
        *held = None;
        host.console.answers.store(false, Ordering::SeqCst);
    }
    host.console.to_send.store(true, Ordering::Release);
    more
}

/// Writes the next line of `answer`. False where there is none.
#[inline(never)]
fn next_line<M: Machine>(host: &Host, m: &M, answer: &mut Answer) -> bool {
    let line = answer.line;
    answer.line += 1;
    match answer.command {
        Command::Help => host.console.lock().answer_line(|out| {
            let (name, takes, does) = HELP.get(line)?;
            Some(writeln!(out, "{name:<8} {takes:<6} {does}"))
        }),
        Command::Vms => {
            let row = line.checked_sub(1).and_then(|n| host.fleet.vms.get(n)).map(|vm| vm_row(host, m, vm));
            host.console.lock().answer_line(|out| views::vms(out, line, |_| row))
        }
        Command::Disks => {
            let row = line.checked_sub(1).and_then(|n| disk_row(host, n));
            host.console.lock().answer_line(|out| views::disks(out, line, |_| row))
        }
        Command::Nets => {
            let row = line.checked_sub(1).and_then(|n| net_row(host, n));
            host.console.lock().answer_line(|out| views::nets(out, line, |_| row))
        }
        Command::Mem => {
            let overcommit = host.pressure.overcommit.lock();
            host.tell_memory(&overcommit, |board, rows| {
                host.console.lock().answer_line(|out| memory::mem(out, line, board, rows))
            })
        }
        Command::Top => {
            let window = host.queue.top.lock();
            let [began, ended] = window.at;
            let before = |n| (0..n).map(|n| window.ticks(n)).sum();
            let row = line.checked_sub(1).and_then(|n| top_row(host, n, window.ticks(n)));
            let n_rows = window.ran.iter().map(Vec::len).max().unwrap_or(0);
            // At most 16 CPUs.
            let board = (ended.saturating_sub(began), host.facts.n_cpus as u16);
            host.console.lock().answer_line(|out| views::top(out, line, board, |n| (before(n), row), n_rows))
        }
        Command::Why(vm) => {
            let overcommit = host.pressure.overcommit.lock();
            let event = overcommit.policy.journal().of(vm).nth(line);
            host.console.lock().answer_line(|out| match event {
                Some(event) => Some(writeln!(out, "{event}")),
                None if line == 0 => Some(out.write_str("nothing was taken from it or given to it\n")),
                None => None,
            })
        }
        Command::Exits(only) => {
            let rows = exit_rows(host, only);
            host.console.lock().answer_line(|out| views::exits(out, line, rows))
        }
        Command::Regs(vm) => regs_line(host, vm, answer, line),
        Command::Log(_) => {
            let mut console = host.console.lock();
            // It is shown from a copy: the answer needs the console.
            let mut text = alloc::string::String::new();
            let more = console.history().show(&mut text, &mut answer.log);
            more && console.answer_line(|out| Some(out.write_str(&text)))
        }
        _ => false,
    }
}

fn vm_row<'h, M: Machine>(host: &'h Host, m: &M, vm: &'h Vm) -> VmRow<'h> {
    let attended = host.console.lock().attended();
    let now = m.now();
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
}

/// The disk with number `n` of all.
fn disk_row(host: &Host, n: usize) -> Option<DiskRow<'_>> {
    let (vm, disk) = host.fleet.vms.iter().flat_map(|vm| vm.bus.disks.iter().map(move |disk| (vm, disk))).nth(n)?;
    let blk = disk.blk.lock();
    let Counts { requests, read, written, errors } = blk.counts;
    let state = match (blk.broken(), disk.stuck.load(Ordering::Relaxed)) {
        (Some(_), _) => "broke",
        (None, 1..) => "waits",
        (None, 0) if !blk.is_up() => "idle",
        (None, 0) if blk.is_read_only() => "ro",
        (None, 0) => "rw",
    };
    let (bytes, lent) = (blk.sectors() * SECTOR, disk.lent.load(Ordering::Relaxed));
    Some(DiskRow { vm: &vm.name, name: &disk.name, bytes, state, requests, read, written, lent, errors })
}

/// The network device with number `n` of all.
fn net_row(host: &Host, n: usize) -> Option<NetRow<'_>> {
    let (vm, nic) = host.fleet.vms.iter().flat_map(|vm| vm.bus.nics.iter().map(move |nic| (vm, nic))).nth(n)?;
    let lan = host.lans.get(nic.at.0)?;
    let net = nic.net.lock();
    let net::Counts { sent_bytes, received_bytes, dropped, refused, .. } = net.counts;
    let state = match net.broken() {
        Some(_) => "broke",
        None if net.is_up() => "up",
        None => "idle",
    };
    Some(NetRow {
        vm: &vm.name,
        name: &nic.name,
        switch: &lan.name,
        mac: net.mac(),
        state,
        sent: sent_bytes,
        received: received_bytes,
        dropped,
        refused,
    })
}

/// Takes down what each vCPU has run by now.
fn look_at_cpus<M: Machine>(host: &Host, m: &M) {
    let now = m.now();
    let mut window = host.queue.top.lock();
    let queue = host.queue.lock();
    let slots = host.fleet.vms.iter().flat_map(|vm| &vm.slots);
    let ran = slots.map(|slot| queue.spent(slot.entity, now)).collect();
    drop(queue);
    let [_, last] = core::mem::take(&mut window.ran);
    window.ran = [last, ran];
    window.at = [window.at[1], now];
}

/// The vCPU with number `n` of all, which ran so many `ticks`.
fn top_row(host: &Host, n: usize, ticks: u64) -> Option<TopRow<'_>> {
    let all = host.fleet.vms.iter().flat_map(|vm| (0_u16..).zip(&vm.slots).map(move |(vcpu, slot)| (vm, vcpu, slot)));
    let (vm, vcpu, slot) = { all }.nth(n)?;
    let queue = host.queue.lock();
    let state = match (vm.life.state(), queue.state(slot.entity)) {
        (State::Running, sched::EntityState::Running(_)) => "running",
        (State::Running, sched::EntityState::Ready) => "ready",
        (State::Running, sched::EntityState::Blocked(_)) => "waiting",
        (State::Running, sched::EntityState::Off) => "off",
        (state, _) => state.word(),
    };
    Some(TopRow { name: &vm.name, vcpu, cpu: queue.loaded_on(slot.entity).map(|cpu| cpu.0), state, ticks })
}

/// How often guests were left, by cause.
fn exit_rows(host: &Host, only: Option<VmId>) -> impl Iterator<Item = ExitRow<'static>> + '_ {
    // A timer that fires leaves by an interrupt, which is counted as such.
    let exits = Counter::ALL.into_iter().filter(|counter| *counter != Counter::Timer);
    exits.map(move |counter| {
        let vms = host.fleet.vms.iter().filter(|vm| only.is_none_or(|only| vm.id == only));
        let count = vms.flat_map(|vm| &vm.slots).map(|slot| slot.counted(counter)).sum();
        ExitRow { cause: counter.name(), count }
    })
}

/// A line of the registers of the vCPU that `answer` is at, or on to the next vCPU.
fn regs_line(host: &Host, vm: VmId, answer: &mut Answer, line: usize) -> bool {
    let Some(slot) = host.fleet.vms.get(usize::from(vm.0)).and_then(|vm| vm.slots.get(answer.vcpu)) else {
        return false;
    };
    // At most 64.
    let n = answer.vcpu as u16;
    let written = match slot.vcpu.try_lock() {
        None => {
            host.console
                .lock()
                .answer_line(|out| Some(writeln!(out, "vCPU {n} is loaded on a CPU; `pause` it and look again")));
            false
        }
        Some(vcpu) => {
            let system: Vec<_> = El1::ALL.iter().map(|register| (register.name(), vcpu.saved.get(*register))).collect();
            let row = RegsRow {
                vcpu: n,
                state: if slot.power() == Power::On { "on" } else { "off" },
                x: &vcpu.registers.x,
                pc: vcpu.registers.pc,
                pstate: vcpu.registers.pstate,
                system: &system,
            };
            host.console.lock().answer_line(|out| views::regs(out, line, &row))
        }
    };
    if !written {
        (answer.vcpu, answer.line) = (answer.vcpu + 1, 0);
    }
    true
}
