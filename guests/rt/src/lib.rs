//! The run-time of the test guests.
#![no_std]
