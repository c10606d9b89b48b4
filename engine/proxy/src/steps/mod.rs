//! The steps of [`crate::respond`], in the order of its phases.

pub(crate) mod guard;
