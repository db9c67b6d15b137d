//! From a cause to what is done about it.
