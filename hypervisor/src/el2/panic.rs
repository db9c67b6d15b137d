//! The end: EL2's own faults and panics, told on the UART with a backtrace that `scripts/symbols` can read.

use super::{percpu, power, uart};
use core::fmt::Write;
use core::panic::PanicInfo;
use flatland::arm::esr;
use flatland::vcpu::Registers;

/// How many frames of a backtrace are shown.
const FRAMES: usize = 32;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if percpu::enter_fault() == 0 {
        uart::guess();
        let mut out = uart::Emergency;
        let _ = writeln!(out, "\r\nflatland: PANIC on CPU {}: {info}", percpu::cpu());
        backtrace(frame_pointer());
    }
    end()
}

/// EL2's own exception, from vectors.S, on the emergency stack.
#[unsafe(no_mangle)]
extern "C" fn rust_own_fault(registers: &mut OwnFault, kind: u64) -> ! {
    match percpu::enter_fault() {
        0 => {
            uart::guess();
            let mut out = uart::Emergency;
            let class = esr::class(registers.esr);
            let what = if kind & 3 == 3 { "SError" } else { esr::class_name(class) };
            let _ = writeln!(
                out,
                "\r\nflatland: PANIC on CPU {}: {what} at EL2 (vector {kind}), esr {:#x} far {:#x} elr {:#x} sp {:#x}",
                percpu::cpu(),
                registers.esr,
                registers.far,
                registers.elr,
                registers.sp
            );
            let _ = writeln!(out, "flatland: backtrace {:#x}", registers.elr);
            for (n, x) in registers.x.iter().enumerate() {
                let _ = write!(out, "x{n:<2} {x:#018x}{}", if n % 4 == 3 { "\r\n" } else { "  " });
            }
            let _ = writeln!(out);
            backtrace(registers.x[29]);
        }
        1 => {
            let _ = writeln!(uart::Emergency, "flatland: PANIC while telling of a PANIC");
        }
        _ => {}
    }
    end()
}

/// What own_fault in vectors.S leaves on the emergency stack.
#[repr(C)]
struct OwnFault {
    x: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
}

const _: () = assert!(core::mem::size_of::<OwnFault>() == core::mem::size_of::<Registers>());

fn frame_pointer() -> u64 {
    let fp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) fp, options(nomem, nostack, preserves_flags)) };
    fp
}

/// Prints the return addresses of the frames from `fp` on (AAPCS64: each frame record is the caller's x29 and x30).
fn backtrace(mut fp: u64) {
    for _ in 0..FRAMES {
        // Only addresses of the image's or a CPU's stack: a broken chain ends here instead of faulting.
        if !fp.is_multiple_of(16) || !(0x8000_0000_0000..0xa000_0000_0000).contains(&fp) {
            return;
        }
        // SAFETY: aligned and in the region of the stacks; a hole in it faults into `rust_own_fault`, which counts.
        let [next, back] = unsafe { *(fp as *const [u64; 2]) };
        if back == 0 {
            return;
        }
        let _ = writeln!(uart::Emergency, "flatland: backtrace {back:#x}");
        if next <= fp {
            return;
        }
        fp = next;
    }
}

fn end() -> ! {
    power::after_panic()
}
