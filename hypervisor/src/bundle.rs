//! What the board boots: a cpio archive with a manifest and images.
