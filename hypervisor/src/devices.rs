//! The devices of the virtual board.
