//! The guest's PL031 (to come in full).
/// A PL031.
#[derive(Debug, Default)]
pub struct Rtc {}
impl Rtc {
    /// Reset.
    pub fn new() -> Self {
        Self {}
    }
    /// Reads.
    pub fn read(&self, offset: u64, seconds: u64) -> u64 {
        if offset == 0 { seconds } else { 0 }
    }
    /// Writes.
    pub fn write(&mut self, _offset: u64, _value: u64, _seconds: u64) {}
    /// Line.
    pub fn line(&self, _seconds: u64) -> bool {
        false
    }
}
