//! A vCPU's registers: what they are and where they live.
