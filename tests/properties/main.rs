//! To be filled.
mod vgic;
