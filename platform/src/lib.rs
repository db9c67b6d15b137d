//! What Flatland knows of boards.
#![no_std]
#![forbid(unsafe_code)]
