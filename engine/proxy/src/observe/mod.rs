//! What the gateway says about itself.

pub(crate) mod metrics;
