//! Physical memory: who owns each frame, and which are free.
//!
//! [`Pool`] knows every frame of the board's RAM by a 16-byte [`record::Record`]; [`Frame`] is a run of them in somebody's
//! hands. What a frame held before must never be seen by the next guest, so a frame comes out of the pool as
//! `Frame<Dirty>`, and only [`Frame<Clean>`] gives away its address for mapping: [`Frame::zero`] and [`Frame::fill`] are the
//! only ways from one to the other. "Clean" means more than zeroed: every other CPU sees the zeroes before it can see
//! anything that is stored afterwards, such as the descriptor that maps them.
//!
//! Frames of guests with equal contents are found by their [`hash`] and [`hints`]; compressed pages lie in the [`store`],
//! where the [`compressor`] puts them, as [`lz4`] blocks.
//!
//! A `Frame` is not `Copy`. It ends in a table ([`Frame::into_table`]) or back in the pool ([`Pool::give_back`]); to drop it
//! would lose the memory, so that fails in builds with debug assertions, and shows in the counts otherwise.

pub mod compressor;
pub mod costs;
mod frame;
pub mod hash;
pub mod hints;
pub mod lz4;
pub mod pool;
pub mod record;
mod shared;
pub mod store;
pub mod swap;

pub use compressor::{Compressor, Expander};
pub use costs::{Costs, Work};
pub use frame::{Clean, Contents, Dirty, Filling, Frame};
pub use hash::Hash;
pub use pool::{Counts, Pool};
pub use record::{FrameState, HYPERVISOR, Order, Record, Use};
pub use shared::SharedPool;
