//! What the operator sees and types.
//!
//! [`Console`] shares the board's one serial line among the VMs, the hypervisor's log and the monitor; [`Command`] is what
//! the operator asked for, [`views`] the tables that answer, [`Log`] the last lines of the log, [`Typing`] how fast the line is read. All of it is plain state of
//! fixed size: whoever has the UART drains the bytes, whoever has the VMs carries out the commands.

mod answer;
mod commands;
mod line;
mod log;
pub mod memory;
mod mux;
mod stream;
mod typing;
pub mod views;

pub use answer::Answer;
pub use commands::{Command, CommandError, HELP, parse};
pub use line::{Editor, Key};
pub use log::Log;
pub use mux::{Console, Input};
pub use typing::{Take, Typing};
