//! Cold boot.
#![no_std]
#![no_main]
