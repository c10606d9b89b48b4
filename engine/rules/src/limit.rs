//! Limits on how much a client may do: what they count by, how much they allow, and what a client is told.
//!
//! Pure: an account is a [`Word`] that its keeper passes in and replaces by what comes out. Where accounts are kept, and
//! how cores share them, is the I/O shell's business.

mod calendar;
mod fields;
mod key;
mod meter;
#[cfg(test)]
mod tests;
mod word;
mod words;

use std::collections::HashMap;

use foldhash::fast::FixedState;
use ipnet::IpNet;

pub use self::calendar::Period;
pub use self::fields::{Stand, lines, seconds};
pub use self::key::{Derivation, Facts, Key, Part, Prefixes, Secret, derive, of_client, seed};
pub use self::meter::{Bucket, Calendar, Meter, Sliding, Standing, Take};
pub use self::word::{FRESH, HELD, Moment, Nanos, QUOTA_MAX, SLIDING_MAX, Word, is_lasting, is_spent};

/// An index into [`crate::snapshot::Snapshot::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitId(pub u32);

/// A limit, as the configuration has it.
#[derive(Debug)]
pub struct Limit {
    /// The name from the file, which fits into a quoted string as it is.
    pub name: String,
    /// What it counts by.
    pub key: Derivation,
    /// How much is allowed where nothing else is said.
    pub meter: Meter,
    /// How much is allowed by what a part of the request says.
    pub tiers: Option<Tiers>,
    /// How much is allowed to single keys. `None` is without a bound.
    pub overrides: Overrides,
    /// How long a request may be held back until it fits, instead of being refused.
    pub patience: Nanos,
    /// What is done about what does not fit.
    pub mode: Mode,
    /// Whether what is refused counts as well.
    pub penalizes: bool,
    /// What a request counts, unless its route says otherwise.
    pub cost: u64,
    /// The field of a response that says what the request has counted in the end.
    pub cost_field: Option<String>,
    /// What clients are told.
    pub told: Told,
}

/// How much is allowed by what a part of the request says.
#[derive(Debug)]
pub struct Tiers {
    /// The part.
    pub by: Part,
    /// Its values.
    pub named: HashMap<Vec<u8>, Option<Meter>, FixedState>,
}

/// How much is allowed to single keys.
#[derive(Debug, Default)]
pub struct Overrides {
    /// By the value of the key.
    pub values: HashMap<Vec<u8>, Option<Meter>, FixedState>,
    /// By the client's address; the longer network first.
    pub networks: Vec<(IpNet, Option<Meter>)>,
}

/// What a limit, or the protection, does about what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It acts: a request is refused or held back, a measure is taken.
    Enforce,
    /// It counts and tells.
    Observe,
}

impl Mode {
    /// The word for it in files and events.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
        }
    }
}

/// What clients are told of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The fields of the draft, when it refuses.
    Refusals,
    /// The fields of the draft, always.
    Draft,
    /// The fields that came before them, always.
    XRateLimit,
    /// Nothing but when to come back.
    Nothing,
}

/// A limit on a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Which one.
    pub limit: LimitId,
    /// Where in the route's path the parameters of its key are.
    pub params: Vec<usize>,
    /// What a request counts.
    pub cost: u64,
}

impl Limit {
    /// The account of a request.
    pub fn key(&self, secret: Secret, applied: &Applied, facts: &Facts<'_>) -> Key {
        derive(secret, &self.key, &applied.params, facts)
    }

    /// How much is allowed to a request's key. `None`: there is no bound.
    pub fn allowance(&self, applied: &Applied, facts: &Facts<'_>) -> Option<&Meter> {
        if let Some((_, meter)) = self.overrides.networks.iter().find(|(network, _)| network.contains(&facts.client)) {
            return meter.as_ref();
        }
        if !self.overrides.values.is_empty()
            && let [part] = &self.key.parts[..]
            && let Some(value) = facts.text(part, applied.params.first().copied().unwrap_or_default())
            && let Some(meter) = self.overrides.values.get(value)
        {
            return meter.as_ref();
        }
        let named = self.tiers.as_ref().and_then(|tiers| tiers.named.get(facts.text(&tiers.by, 0)?));
        match named {
            Some(meter) => meter.as_ref(),
            None => Some(&self.meter),
        }
    }
}
