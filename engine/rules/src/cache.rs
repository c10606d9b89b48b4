//! The law of the response cache: a shared cache by RFC 9111, as functions of values.
//!
//! A request is looked at once ([`lookup::Asked`]), its [`key`] leads to what is stored, and [`lookup::decide`] says
//! what becomes of it. A response is judged once, when it is stored ([`storable::judge`]): what a look-up needs of it
//! is then in [`stored::Facts`], so that a hit parses nothing but a few fields of its request. Every decision has a
//! reason, which `Cache-Status` ([`status`]) and explanations tell.
//!
//! The way of a request on a route with a cache:
//!
//! ```text
//! lookup::Asked::read      may it be answered from the cache at all          else forwarded, lookup::Forward says why
//! key::primary             scheme, host, path, chosen parts                  the primary key
//! vary::Selecting          for each set of selecting fields seen with it     the secondary key
//! lookup::decide           hit, validate, forward, 504
//!   conditional::precondition, range::select                                 200, 304, 206, 416 from what is stored
//! fill::edit, conditional::validation                                        what is sent to the origin
//! lookup::after            what the origin's response, or its failure, means for what is stored
//!   storable::judge        a new response: Facts, or why it is not stored
//!   stored::freshen        a 304, or the response to a HEAD: the merged head, which is judged again
//!   invalidate::targets    after an unsafe method
//! status::CacheStatus      what clients are told
//! ```
//!
//! Times that last are monotonic ([`Moment`]) and the same for all cores of a node; only `Date` and its like are of
//! the wall's clock ([`UnixSeconds`]), so that a clock that is set does not bend ages.

pub mod conditional;
pub mod control;
pub mod dates;
pub mod fill;
pub mod freshness;
pub mod invalidate;
pub mod key;
pub mod lookup;
#[cfg(test)]
mod oracle;
pub mod range;
#[cfg(test)]
pub(crate) mod sample;
pub mod status;
pub mod storable;
pub mod stored;
pub mod tags;
pub mod vary;

/// Seconds as fields have them, at most [`SECONDS_MAX`].
pub type Seconds = u32;

/// RFC 9111 §1.2.2: what is more counts as this.
pub const SECONDS_MAX: Seconds = 1 << 31;

/// Seconds since 1970 by the wall's clock.
pub type UnixSeconds = i64;

/// A point of monotonic time: milliseconds since a start that all cores of a node share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since an earlier moment; none if it is later.
    pub fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment this many milliseconds later.
    pub fn after(self, millis: u64) -> Moment {
        Moment(self.0.saturating_add(millis))
    }
}

/// When a response was asked for and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the request was sent that it answers.
    pub asked: Moment,
    /// When its head was received.
    pub received: Moment,
    /// The same by the wall's clock.
    pub wall: UnixSeconds,
}

/// Whole seconds of milliseconds, at most [`SECONDS_MAX`].
fn seconds(millis: u64) -> Seconds {
    Seconds::try_from(millis / 1000).map_or(SECONDS_MAX, |seconds| seconds.min(SECONDS_MAX))
}
