//! What Flatland does on boards: one body, every board it fits. Run by `scripts/test`.

mod bare;
mod broken;
mod firmware;
mod linux;
mod memory;
mod nested;
mod operator;
mod trees;
