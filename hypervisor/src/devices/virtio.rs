//! stub
#![allow(missing_docs)]
pub mod balloon;
use crate::addr::{Addr, Ipa};
pub trait Ram {
    fn read(&mut self, at: Addr<Ipa>, into: &mut [u8]) -> Result<(), Fault>;
    fn write(&mut self, at: Addr<Ipa>, bytes: &[u8]) -> Result<(), Fault>;
}
pub enum Fault {
    Outside,
    Short,
}
