//! The response cache: stored bodies once on the node, an index of them on each core.

pub mod policy;
