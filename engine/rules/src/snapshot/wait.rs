//! How many requests an upstream has at a time, and how others wait.

use std::time::Duration;

use crate::concurrency::Bounds;
use crate::queue::{Nanos, Policy};

/// How many requests an upstream has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// So many.
    Fixed(u32),
    /// As many as it can do, which is found out.
    Adaptive(Bounds),
}

/// How requests wait for an upstream that has as many as it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How many may wait, over all cores.
    pub depth: usize,
    /// How long one may.
    pub wait_max: Duration,
    /// Where a request says how much it matters. `None`: all matter alike.
    pub priority: Option<UrgencyFrom>,
    /// Among whom turns are taken.
    pub fair_by: FairBy,
}

impl Waiting {
    /// What a queue goes by.
    pub fn policy(&self) -> Policy {
        Policy { depth: self.depth, wait_max: Nanos::try_from(self.wait_max.as_nanos()).unwrap_or(Nanos::MAX) }
    }
}

/// Where a request says how much it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrgencyFrom {
    /// The field, in lower case.
    pub field: String,
    /// Whether only trusted proxies are believed.
    pub trusted_only: bool,
}

impl UrgencyFrom {
    /// The field whose parameter `u` says it (RFC 9218 §4.1). In others it is a word or a number.
    pub const STANDARD: &str = "priority";
}

/// Among whom turns are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FairBy {
    /// Nobody: who came first goes first.
    Nobody,
    /// Clients, by their addresses.
    Client,
    /// Routes.
    Route,
    /// Values of this field, whose name is in lower case.
    Field(String),
}
