//! The guest's PL011 (to come in full).
/// What a write leads to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effect {
    /// A byte to send.
    pub out: Option<u8>,
}
/// A PL011.
#[derive(Debug, Default)]
pub struct Uart {
    registers: [u32; 32],
}
impl Uart {
    /// After reset.
    pub fn new() -> Self {
        Self::default()
    }
    /// Reads.
    pub fn read(&mut self, offset: u64, _bytes: u8) -> u64 {
        const ID: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
        match offset {
            0x18 => 0x90,
            0xfe0..=0xffc => u64::from(ID[((offset - 0xfe0) / 4) as usize & 7]),
            _ => self.registers.get((offset / 4) as usize).copied().map_or(0, u64::from),
        }
    }
    /// Writes.
    pub fn write(&mut self, offset: u64, _bytes: u8, value: u64) -> Effect {
        if offset == 0 {
            return Effect { out: Some(value as u8) };
        }
        if let Some(register) = self.registers.get_mut((offset / 4) as usize) {
            *register = value as u32;
        }
        Effect::default()
    }
    /// The line.
    pub fn line(&self) -> bool {
        self.registers[14] & 0x20 != 0
    }
}
