//! The virtual interrupt controller, as pure state.
