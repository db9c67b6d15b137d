//! Properties: long random sequences against simple references, on the machine that is an adversary.
//!
//! Every run is the same: dice have fixed seeds. Each test prints how many steps it took (`--nocapture`).

mod balloon;
mod blocks;
mod board;
mod caches;
mod calls;
mod crash;
mod decoding;
mod el0;
mod el0_exits;
mod el2_shadow;
mod el2_walk;
mod ends;
mod exits;
mod flash;
mod forward;
mod frames;
mod instructions;
mod life;
mod loading;
mod lz4;
mod memory;
mod merging;
mod mmio;
mod nested_exits;
mod nested_lists;
mod nested_registers;
mod nested_tlb;
mod nested_transitions;
mod nested_walk;
mod operator;
mod policy;
mod pressure;
mod races;
mod run;
mod sched;
mod shadow;
mod stage2;
mod system_registers;
mod turns;
mod vgic;
mod vmids;
mod wakes;
mod watch;
