//! `log`'s records: onto the console once there is one, straight to the UART before.

use super::uart::Emergency;
use core::fmt::Write;
use flatland::host::Host;
use log::{LevelFilter, Log, Metadata, Record};
use spin::Once;

struct Logger;

static HOST: Once<&'static Host> = Once::new();

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        match HOST.get() {
            Some(host) => host.console.say(*record.args()),
            None => _ = writeln!(Emergency, "flatland: {}", record.args()),
        }
    }

    fn flush(&self) {}
}

/// Makes `log` work.
pub(crate) fn init() {
    // It is set once, here.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
}

/// From here on records go through the console.
pub(crate) fn attach(host: &'static Host) {
    HOST.call_once(|| host);
}
