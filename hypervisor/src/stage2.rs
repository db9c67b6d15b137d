//! Stage-2 tables over one table, any input and output space.
