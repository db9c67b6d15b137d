//! Physical memory: who owns each frame, and which are free.
