//! What the operator sees and types (to come in full).
use crate::addr::VmId;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
/// The console.
#[derive(Debug, Default)]
pub struct Console {
    ring: VecDeque<u8>,
    names: Vec<String>,
    lines: Vec<Vec<u8>>,
}
impl Console {
    /// For these VMs.
    pub fn new(names: &[&str]) -> Self {
        Self {
            ring: VecDeque::new(),
            names: names.iter().map(|n| String::from(*n)).collect(),
            lines: names.iter().map(|_| Vec::new()).collect(),
        }
    }
    /// A VM's byte.
    pub fn output(&mut self, vm: VmId, byte: u8) {
        let n = usize::from(vm.0);
        if byte == b'\n' {
            let line = core::mem::take(&mut self.lines[n]);
            self.ring.push_back(b'[');
            self.ring.extend(self.names[n].bytes());
            self.ring.extend(*b"] ");
            self.ring.extend(line);
            self.ring.extend(*b"\r\n");
        } else if byte != b'\r' {
            self.lines[n].push(byte);
        }
    }
    /// A line of our own.
    pub fn say(&mut self, what: core::fmt::Arguments<'_>) {
        self.ring.extend(alloc::format!("flatland: {what}\r\n").bytes());
    }
    /// Sends.
    pub fn drain(&mut self, mut put: impl FnMut(u8) -> bool) -> bool {
        while let Some(b) = self.ring.front() {
            if !put(*b) {
                return false;
            }
            self.ring.pop_front();
        }
        true
    }
}
