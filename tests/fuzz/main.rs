//! Fuzzing on the host: what comes from outside, broken in every way a small generator can think of.
//!
//! Each test takes valid inputs and hand-made hostile ones, mutates them ([`engine`]), and checks after every input not
//! only that nothing panics but that what came out keeps its promises. Each prints `fuzz NAME: N inputs`.
//! `FLATLAND_FUZZ=N` sets the number of inputs of each test; runs repeat exactly, as the generator has a fixed seed.

mod blk;
mod cpio;
mod engine;
mod fdt;
mod guest;
mod gzip;
mod image;
mod manifest;
mod net;
mod seeds;
mod syndrome;
mod virtqueue;
