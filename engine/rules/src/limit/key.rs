//! What of a request a limit counts by, and which account that is.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip::SipHasher13;
use sluice_wire::Name;
use sluice_wire::head::Request;

use crate::route::Params;

/// What of a request a limit counts by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The client's address, as far as [`Prefixes`] says.
    ClientIp,
    /// The values of a field, its name in lower case.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// A parameter of the route's path.
    Param(String),
    /// The host that is asked for.
    Host,
    /// The route.
    Route,
}

/// Bits of a client's address that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of IPv4.
    pub ipv4: u8,
    /// Of IPv6, where a single client mostly has 64 bits to itself.
    pub ipv6: u8,
}

impl Prefixes {
    /// The network of an address that counts as one client.
    pub fn network(self, address: IpAddr) -> String {
        let bits = if address.is_ipv4() { self.ipv4 } else { self.ipv6 };
        ipnet::IpNet::new(address, bits).map_or_else(|_| address.to_string(), |network| network.trunc().to_string())
    }

    fn cut(self, address: IpAddr) -> [u8; 16] {
        let bits = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.ipv4.min(32))).unwrap_or(0);
                // As mapped addresses, which no client has.
                u128::from(Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0, 0])) | u128::from(u32::from(address) & mask)
            }
            IpAddr::V6(address) => {
                u128::from(address) & u128::MAX.checked_shl(128 - u32::from(self.ipv6.min(128))).unwrap_or(0)
            }
        };
        bits.to_be_bytes()
    }
}

/// What is known of a request when its limits are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client, see [`crate::client::address`].
    pub client: IpAddr,
    /// Method and fields.
    pub request: Request<'a>,
    /// The host in lower case and without a port.
    pub host: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// The parameters of the path.
    pub params: &'a Params,
    /// The name of the route.
    pub route: &'a str,
}

impl<'a> Facts<'a> {
    /// Calls `with` for each value of a part. `param`: where in the route's path its parameter is.
    fn values(&self, part: &Part, param: usize, prefixes: Prefixes, mut with: impl FnMut(&[u8])) {
        match part {
            Part::ClientIp => with(&prefixes.cut(self.client)),
            Part::Header(name) => {
                self.request.head.fields.values_of(self.request.bytes, name).for_each(with);
            }
            Part::Cookie(name) => self.cookie(name).into_iter().for_each(with),
            Part::Param(_) => with(self.params.get(param, self.path).as_bytes()),
            Part::Host => with(self.host.as_bytes()),
            Part::Route => with(self.route.as_bytes()),
        }
    }

    /// The first value of a part, if it has one that is not an address.
    pub fn text(&self, part: &Part, param: usize) -> Option<&'a [u8]> {
        match part {
            Part::ClientIp => None,
            Part::Header(name) => {
                let is_it = |line: &&sluice_wire::head::FieldLine| {
                    line.name_span.of(self.request.bytes).eq_ignore_ascii_case(name.as_bytes())
                };
                let line = self.request.head.fields.lines().iter().find(is_it);
                line.map(|line| line.value_span.of(self.request.bytes))
            }
            Part::Cookie(name) => self.cookie(name),
            Part::Param(_) => Some(self.params.get(param, self.path).as_bytes()),
            Part::Host => Some(self.host.as_bytes()),
            Part::Route => Some(self.route.as_bytes()),
        }
    }

    /// The value of the first cookie of a name (RFC 6265 §4.2.1).
    fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let fields = &self.request.head.fields;
        let lines = fields.lines().iter().filter(|line| line.name == Name::Cookie);
        lines.map(|line| line.value_span.of(self.request.bytes)).find_map(|value| cookie(value, name))
    }
}

fn cookie<'v>(value: &'v [u8], name: &str) -> Option<&'v [u8]> {
    value.split(|byte| *byte == b';').find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

/// Makes keys that nobody outside can foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret(pub [u64; 2]);

/// The key of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Names the account; never 0. Of a million keys two have the same hash once in thirty million times.
    pub hash: u64,
    /// Names the account that it shares with its like when there is no room for one of its own: that of the client's
    /// network (IPv4 by /16, IPv6 by /32) or, where no address counts, of every so manieth key. It counts to
    /// [`Key::SHARED`], and no two limits of a configuration have one together, unless it has more than 63.
    pub shared: u32,
}

/// Accounts that a limit's keys share when there is no room.
const LIKES: u64 = 256;

impl Key {
    /// Accounts that keys share.
    pub const SHARED: usize = 64 * LIKES as usize;
}

/// A limit's own number, from its name, the same in every process.
pub fn seed(name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// What a limit's keys are derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// Its own number, see [`seed`].
    pub seed: u64,
    /// Which one of the configuration it is, from 0 on.
    pub index: u32,
    /// What it counts by.
    pub parts: Vec<Part>,
    /// Bits of addresses that count.
    pub prefixes: Prefixes,
}

/// Derives the key of a request for a limit. `params`: where in the route's path the parameters of its parts are.
///
/// What is hashed is injective: each value comes with its length, and each part ends with a mark, so that two requests
/// have the same key only if they have the same values. A request without a value shares an account with its like.
pub fn derive(secret: Secret, from: &Derivation, params: &[usize], facts: &Facts<'_>) -> Key {
    let Derivation { seed, index, parts, prefixes } = from;
    let mut hasher = SipHasher13::new_with_keys(secret.0[0], secret.0[1]);
    hasher.write_u64(*seed);
    let mut params = params.iter().copied();
    for part in parts {
        let param = if matches!(part, Part::Param(_)) { params.next().unwrap_or_default() } else { 0 };
        facts.values(part, param, *prefixes, |value| {
            hasher.write_u32(value.len() as u32);
            hasher.write(value);
        });
        hasher.write_u32(u32::MAX);
    }
    let hash = hasher.finish().max(1);
    let like = if parts.contains(&Part::ClientIp) { network(facts.client) } else { hash };
    Key { hash, shared: shared(index % 63, like) }
}

/// The key of a client alone, for what is no limit of the configuration.
pub fn of_client(secret: Secret, seed: u64, prefixes: Prefixes, client: IpAddr) -> Key {
    let mut hasher = SipHasher13::new_with_keys(secret.0[0], secret.0[1]);
    hasher.write_u64(seed);
    hasher.write(&prefixes.cut(client));
    Key { hash: hasher.finish().max(1), shared: shared(63, network(client)) }
}

/// A client's network: IPv4 by /16, IPv6 by /32.
fn network(client: IpAddr) -> u64 {
    let [a, b, c, d, .., w, x, y, z] = Prefixes { ipv4: 16, ipv6: 32 }.cut(client);
    u64::from_be_bytes([a, b, c, d, w, x, y, z])
}

fn shared(index: u32, like: u64) -> u32 {
    let mixed = like.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    index * LIKES as u32 + (mixed >> 32) as u32 % LIKES as u32
}
