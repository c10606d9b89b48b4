//! What is done about clients that do harm: measures, the ladder that they are steps of, and what they are held to.

mod ladder;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use crate::limit::Mode;
use crate::prefixes::Prefixes;

pub use ladder::{Cause, Ladder, Observed, STANDINGS_MAX, Stand, Step};

/// What is done about clients that do harm.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Whether measures are taken, or only told of.
    pub mode: Mode,
    /// What has a client take the next step.
    pub trip: Trip,
    /// The steps. Never empty.
    pub ladder: Vec<Rung>,
    /// Requests a second that a client which is slowed down may still ask for.
    pub throttle: u32,
    /// Clients that are never judged.
    pub exempt: Prefixes,
}

/// What has a client take the next step. Either is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Requests in one second.
    pub requests: u32,
    /// Percent of its requests in a while that fail by its own fault.
    pub errors_percent: u8,
    /// Requests in a while that the share is taken of at least.
    pub requests_min: u32,
}

/// A step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// What is done.
    pub measure: Measure,
    /// How long.
    pub time: Duration,
}

/// What is done about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// It gets a low rate; what is above that is refused.
    Throttle,
    /// Its requests wait and are then refused.
    Tarpit,
    /// Its connections are closed.
    Ban,
}

impl Measure {
    /// All of them, from the mildest.
    pub const ALL: [Measure; 3] = [Measure::Throttle, Measure::Tarpit, Measure::Ban];

    /// How hard it is, from 0.
    pub fn strength(self) -> usize {
        self as usize
    }

    /// The word for it in files, events and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Measure::Throttle => "throttle",
            Measure::Tarpit => "tarpit",
            Measure::Ban => "ban",
        }
    }
}

/// Who is judged: an address of IPv4, or the /64 of one of IPv6, which is what one client gets of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(IpAddr);

impl Subject {
    /// Whom an address belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Subject(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))),
            v4 => Subject(v4),
        }
    }

    /// An address of it.
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// All of its addresses.
    pub fn network(self) -> IpNet {
        match self.0 {
            IpAddr::V4(address) => IpNet::V4(Ipv4Net::new_assert(address, 32)),
            IpAddr::V6(address) => IpNet::V6(Ipv6Net::new_assert(address, 64)),
        }
    }

    /// The network that it is counted in with its neighbours: a /24 of IPv4, a /48 of IPv6.
    pub fn neighbourhood(self) -> IpNet {
        match self.0 {
            IpAddr::V4(address) => IpNet::V4(Ipv4Net::new_assert(address, 24).trunc()),
            IpAddr::V6(address) => IpNet::V6(Ipv6Net::new_assert(address, 48).trunc()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(_) => self.network().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_ipv6_is_its_64() {
        let subject = |text: &str| Subject::of(text.parse().expect("an address"));
        assert_eq!(subject("2001:db8::1"), subject("2001:db8::ffff:1"));
        assert_ne!(subject("2001:db8::1"), subject("2001:db8:0:1::1"));
        assert_eq!(subject("::ffff:192.0.2.1"), subject("192.0.2.1"));
        assert_eq!(subject("2001:db8:1:2:3::").to_string(), "2001:db8:1:2::/64");
        assert_eq!(subject("192.0.2.1").neighbourhood().to_string(), "192.0.2.0/24");
        assert_eq!(subject("2001:db8:1:2::").neighbourhood().to_string(), "2001:db8:1::/48");
    }
}
