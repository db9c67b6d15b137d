//! What the loop asks of the CPU it runs on: EL2 on a board, a model in the tests.

use crate::arm::el1::Context;
use crate::host::Host;
use crate::machine::Machine;
use crate::vcpu::{El2Registers, Fp, Registers};

/// Why the guest was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By a synchronous exception: its syndrome is in the registers.
    Synchronous,
    /// By a physical interrupt.
    Interrupt,
    /// By an SError of the board.
    SError,
    /// It was not entered: its PSTATE is none that it may have.
    Illegal,
}

/// What a physical interrupt of this CPU is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Irq {
    /// Another CPU set a request of the vCPU that runs here ([`Machine::nudge`]).
    Nudge,
    /// Another CPU wants this one to ask the queue ([`Machine::signal`]).
    Signal,
    /// The deadline that [`Cpu::set_deadline`] set has come.
    Deadline,
    /// The guest's virtual timer fires.
    VirtualTimer,
    /// The virtual interface wants its list registers filled.
    Maintenance,
    /// The board's UART.
    Uart,
    /// Nothing that is used.
    Other,
}

/// What the loop asks of its CPU besides what every room asks of the [`Machine`]: the registers that make it be a vCPU, its
/// timer and its interrupts.
pub trait Cpu: Machine {
    /// What ending an acknowledged interrupt takes.
    type Ack: Copy;

    /// Runs the loaded vCPU until it leaves. Its EL1 registers are on this CPU; these are those that move at every exit.
    fn enter(&self, registers: &mut Registers) -> Exit;
    /// Waits for what this CPU has accessed so far. True if that raised an SError, which is over then.
    fn drain_serrors(&self) -> bool;

    /// Makes this CPU be the vCPU with these registers of EL1 and EL2.
    fn load_context(&self, context: &Context, el2: &El2Registers);
    /// Takes EL1's registers off this CPU, which still has them.
    fn save_context(&self, context: &mut Context);
    /// Makes this CPU be nobody: no timer of a vCPU fires, no guest's walks are made, and what was issued here is complete
    /// before the vCPU goes on elsewhere.
    fn be_nobody(&self);
    /// Gives EL2's control registers the values for vCPUs without an EL2 of their own.
    fn reset_traps(&self);
    /// Traps the guest's use of FP, or not.
    fn trap_fp(&self, trap: bool);
    /// Puts FP registers onto this CPU and lets the guest use them.
    fn load_fp(&self, fp: &Fp);
    /// Takes FP registers off this CPU and traps their next use.
    fn save_fp(&self, fp: &mut Fp);

    /// Has [`Irq::Deadline`] come at this tick of the system counter, or not at all.
    fn set_deadline(&self, at: Option<u64>);
    /// Sets or clears the active state of the virtual timer's physical interrupt: while it is set, the timer does not interrupt.
    fn set_timer_active(&self, active: bool);
    /// Sleeps until an interrupt is pending (WFI). They are masked: it is not taken.
    fn wait_for_interrupt(&self);
    /// Acknowledges the next interrupt.
    fn acknowledge(&self) -> Option<(Irq, Self::Ack)>;
    /// Drops an interrupt's priority, and deactivates it, if its guest is not to.
    fn end(&self, ack: Self::Ack, deactivate: bool);

    /// Sends what the console has, as far as the UART takes it.
    fn send_console(&self, host: &Host);
    /// The UART's interrupt: takes what was typed, sends what waits.
    fn serve_uart(&self, host: &Host);
    /// Every VM is over. On a board this does not return.
    fn power_off(&self, host: &Host);
}
