//! One VM's memory: the only room that writes its descriptors.
