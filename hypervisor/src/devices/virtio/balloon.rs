//! stub
#![allow(missing_docs)]
use super::Ram;
use crate::addr::{Addr, Ipa};
pub trait Pages: Ram {
    fn inflate(&mut self, at: Addr<Ipa>, pages: u64);
    fn deflate(&mut self, at: Addr<Ipa>, pages: u64);
    fn report(&mut self, at: Addr<Ipa>, bytes: u64);
}
#[derive(Debug)]
pub struct Balloon;
impl Balloon {
    pub fn new() -> Self {
        Self
    }
    pub fn reset(&mut self) {}
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        crate::devices::empty_slot(offset, size)
    }
    pub fn write(&mut self, _o: u64, _s: u8, _v: u64) {}
    pub fn line(&self) -> bool {
        false
    }
    pub fn has_work(&self) -> bool {
        false
    }
    pub fn serve(&mut self, _ram: &mut impl Pages, _budget: usize) -> bool {
        false
    }
    pub fn set_target(&mut self, _p: u32) {}
    pub fn target(&self) -> u32 {
        0
    }
    pub fn actual(&self) -> u32 {
        0
    }
    pub fn is_up(&self) -> bool {
        false
    }
    pub fn poison(&self) -> Option<u32> {
        None
    }
    pub fn start_hinting(&mut self) {}
    pub fn stop_hinting(&mut self) {}
    pub fn is_hinting(&self) -> bool {
        false
    }
}
