//! Other CPUs: a job is given with CPU_ON and ends with CPU_OFF, so an idle CPU costs nothing.

use crate::psci::{self, affinity_info};
use crate::timer::{self, PATIENCE};
use crate::{args, cpu};
use core::sync::atomic::{AtomicUsize, Ordering};

static JOB: [AtomicUsize; cpu::MAX] = [const { AtomicUsize::new(0) }; cpu::MAX];

/// A job: it gets the index of its CPU.
pub type Job = fn(usize);

/// Turns a CPU on and makes it run `job` and go off; returns PSCI's answer.
pub fn start(index: usize, job: Job) -> i64 {
    JOB[index].store(job as usize, Ordering::SeqCst);
    psci::ask(psci::CPU_ON, args::mpidr(index), psci::entry(), index as u64)
}

/// Returns whether the CPU has ended its job.
pub fn is_done(index: usize) -> bool {
    JOB[index].load(Ordering::SeqCst) == 0
}

/// Returns whether the CPU is off, by AFFINITY_INFO.
pub fn is_off(index: usize) -> bool {
    affinity_info(args::mpidr(index), 0) == 1
}

/// Runs `job` on all CPUs, this one (which must be the first) last to start, and waits until all are off again.
pub fn on_all(job: Job) {
    for index in 1..args::n_cpus() {
        let answer = start(index, job);
        assert!(answer == psci::SUCCESS, "CPU_ON of CPU {index}: {answer}");
    }
    job(0);
    for index in 1..args::n_cpus() {
        assert!(timer::wait_until(PATIENCE, || is_done(index) && is_off(index)), "CPU {index} does not end its job");
    }
}

pub(crate) fn secondary(index: usize) -> ! {
    let job = JOB[index].load(Ordering::SeqCst);
    assert!(job != 0, "CPU {index} is on without a job");
    // SAFETY: only `start` writes it, always with such a function.
    let job = unsafe { core::mem::transmute::<usize, Job>(job) };
    job(index);
    JOB[index].store(0, Ordering::SeqCst);
    let answer = psci::cpu_off();
    panic!("CPU_OFF returned {answer}")
}
