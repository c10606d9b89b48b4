//! A set of networks, of millions if need be: whether an address is in any of them.
//!
//! Networks become ranges without overlap, and these the sorted addresses at which being in the set begins or ends:
//! an address is in it if an odd number of these edges is not above it. An index by the upper bits, finer where there
//! are more edges, leaves a cache line of them to look at. The set does not change; a new one takes its place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of networks. An IPv4 address that is written as one of IPv6 (`::ffff:1.2.3.4`) is one of IPv4, and no
/// network of IPv6 but those within `::ffff:0:0/96` contains it.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    v4: Edges<u32>,
    /// Upper halves of the networks that are no longer than /64, which nearly all are.
    v6: Edges<u64>,
    /// The longer ones.
    v6_long: Edges<u128>,
    count: usize,
}

impl Prefixes {
    /// Whether an address is in any of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.v6.contains((bits >> 64) as u64) || self.v6_long.contains(bits)
            }
        }
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many networks it was made of.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes of memory that it takes: half a megabyte, about 4.5 for each network of IPv4 that touches no other, and 18
    /// for one of IPv6 up to /64.
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes() + self.v6_long.memory_bytes()
    }
}

impl FromIterator<IpNet> for Prefixes {
    /// Makes the set, which takes about 0.1 µs for each network: not for a core.
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6, mut v6_long) = (Vec::new(), Vec::new(), Vec::new());
        let mut count = 0;
        for network in networks {
            count += 1;
            match canonical(network) {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => {
                    let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
                    if network.prefix_len() <= 64 {
                        v6.push(((first >> 64) as u64, (last >> 64) as u64));
                    } else {
                        v6_long.push((first, last));
                    }
                }
            }
        }
        Prefixes { v4: Edges::new(v4), v6: Edges::new(v6), v6_long: Edges::new(v6_long), count }
    }
}

/// A network of IPv4 that is written as one of IPv6 as what it is.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
    match network {
        IpNet::V6(network) if MAPPED.contains(&network) => {
            let address = Ipv4Addr::from_bits(network.addr().to_bits() as u32);
            Ipv4Net::new(address, network.prefix_len() - 96).map_or(IpNet::V6(network), IpNet::V4)
        }
        other => other,
    }
}

/// A number that an address is made of.
trait Bits: Copy + Ord {
    /// What is behind its upper 16 bits, if that makes it smaller.
    type Low: Copy + Ord;

    /// The number after it. `None`: it is the last.
    fn next(self) -> Option<Self>;

    /// Its upper 16 bits.
    fn top(self) -> usize;

    /// As many of the bits behind these, at most 16.
    fn sub(self, bits: u32) -> usize;

    fn low(self) -> Self::Low;
}

macro_rules! bits {
    ($($Type:ty: $Low:ty),+) => {$(
        impl Bits for $Type {
            type Low = $Low;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn top(self) -> usize {
                (self >> (Self::BITS - 16)) as usize
            }

            fn sub(self, bits: u32) -> usize {
                ((self << 16 >> (Self::BITS - 16)) as usize) >> (16 - bits)
            }

            fn low(self) -> $Low {
                self as $Low
            }
        }
    )+};
}
bits!(u32: u16, u64: u64, u128: u128);

/// Bits of an index entry that say how fine a part of the index is, at most 16.
const FINE_BITS: u32 = 5;

/// Bytes that a look-up should have to look at.
const LINE: usize = 64;

/// Where being in the set begins and ends, in turns.
#[derive(Clone, Debug)]
struct Edges<T: Bits> {
    /// For each value of the upper 16 bits, where in `starts` it begins, and by how many further bits.
    index: Vec<u32>,
    /// How many edges are before each part of the index.
    starts: Vec<u32>,
    /// The edges in order.
    edges: Vec<T::Low>,
}

impl<T: Bits> Default for Edges<T> {
    fn default() -> Self {
        Edges { index: Vec::new(), starts: Vec::new(), edges: Vec::new() }
    }
}

impl<T: Bits> Edges<T> {
    /// Of ranges that include their ends.
    fn new(ranges: Vec<(T, T)>) -> Self {
        let edges = edges(ranges);
        if edges.is_empty() {
            return Edges::default();
        }
        let (mut index, mut starts) = (Vec::with_capacity(1 << 16), Vec::new());
        let mut before = 0;
        for top in 0..1 << 16 {
            let count = edges[before..].partition_point(|edge| edge.top() == top);
            let here = &edges[before..before + count];
            let lines = (count * size_of::<T::Low>()).div_ceil(LINE).max(1);
            let bits = lines.next_power_of_two().ilog2().min(16);
            index.push((starts.len() as u32) << FINE_BITS | bits);
            let mut at = 0;
            for sub in 0..1 << bits {
                at += here[at..].partition_point(|edge| edge.sub(bits) < sub);
                starts.push((before + at) as u32);
            }
            before += count;
        }
        starts.push(edges.len() as u32);
        Edges { index, starts, edges: edges.into_iter().map(T::low).collect() }
    }

    fn contains(&self, key: T) -> bool {
        let Some(entry) = self.index.get(key.top()) else { return false };
        let part = (entry >> FINE_BITS) as usize + key.sub(entry & ((1 << FINE_BITS) - 1));
        let (first, end) = (self.starts[part] as usize, self.starts[part + 1] as usize);
        let (here, low) = (&self.edges[first..end], key.low());
        let not_above = if size_of_val(here) <= 2 * LINE {
            // Too few to wrap, and without the check for it the loop has no branches.
            usize::from(here.iter().fold(0u16, |count, edge| count.wrapping_add(u16::from(*edge <= low))))
        } else {
            here.partition_point(|edge| *edge <= low)
        };
        !(first + not_above).is_multiple_of(2)
    }

    fn memory_bytes(&self) -> usize {
        (self.index.capacity() + self.starts.capacity()) * size_of::<u32>()
            + self.edges.capacity() * size_of::<T::Low>()
    }
}

/// The beginnings and ends of ranges that may overlap.
fn edges<T: Bits>(mut ranges: Vec<(T, T)>) -> Vec<T> {
    ranges.sort_unstable();
    let mut edges = Vec::with_capacity(ranges.len() * 2);
    let mut ranges = ranges.into_iter();
    let mut open = ranges.next();
    while let Some((first, mut last)) = open {
        open = None;
        for next in ranges.by_ref() {
            // What touches it belongs to it too.
            if last.next().is_some_and(|behind| next.0 > behind) {
                open = Some(next);
                break;
            }
            last = last.max(next.1);
        }
        edges.push(first);
        edges.extend(last.next());
    }
    edges
}

/// Lines of a list at most: it keeps the number of edges within 32 bits with room to spare.
pub const LINES_MAX: usize = 10_000_000;

/// Why a list of networks cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A line is neither an address nor a network.
    #[error("line {line}: `{text}` is neither an address nor a network")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What stands there, cut short.
        text: String,
    },
    /// A network has bits behind its length, so that it may not be the one that was meant.
    #[error("line {line}: `{text}` has bits behind its length; the network is {network}")]
    HostBits {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// The network that it is in.
        network: IpNet,
    },
    /// There are more than [`LINES_MAX`] lines.
    #[error("it has more than {LINES_MAX} lines")]
    TooLong,
}

/// Reads a list: an address or a network a line; empty lines and what follows a `#` mean nothing. Lines end in LF or
/// CRLF.
///
/// # Errors
/// The first line that cannot be read: a list with a hole is not the list that was meant.
pub fn parse_list(text: &[u8]) -> Result<Prefixes, ListError> {
    let mut networks = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if index >= LINES_MAX {
            return Err(ListError::TooLong);
        }
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if !line.is_empty() {
            networks.push(network(line).map_err(|fault| fault.at(index + 1, line))?);
        }
    }
    Ok(networks.into_iter().collect())
}

/// What is wrong with a line.
enum Fault {
    Unreadable,
    HostBits(IpNet),
}

impl Fault {
    fn at(self, line: usize, text: &[u8]) -> ListError {
        let text = String::from_utf8_lossy(text).chars().take(64).flat_map(char::escape_debug).collect();
        match self {
            Fault::Unreadable => ListError::Line { line, text },
            Fault::HostBits(network) => ListError::HostBits { line, text, network },
        }
    }
}

fn network(line: &[u8]) -> Result<IpNet, Fault> {
    let text = str::from_utf8(line).map_err(|_| Fault::Unreadable)?;
    // With a zero in front it would be octal to some, and is no address to the standard library.
    let address: IpAddr = text.split('/').next().unwrap_or_default().parse().map_err(|_| Fault::Unreadable)?;
    let network = if text.contains('/') { text.parse().ok() } else { Some(IpNet::from(address)) };
    let network: IpNet = network.ok_or(Fault::Unreadable)?;
    if network.trunc() == network { Ok(network) } else { Err(Fault::HostBits(network.trunc())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> Prefixes {
        networks.iter().map(|network| network.parse::<IpNet>().expect("a network")).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_is_in_the_set_if_it_is_in_one_of_the_networks() {
        let set = set(&["10.0.0.0/8", "192.0.2.7/32", "255.255.255.254/31", "2001:db8::/32", "2001:db9::1/128"]);
        let cases = [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("255.255.255.253", false),
            ("255.255.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("::ffff:11.1.2.3", false),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("2001:db9::1", true),
            ("2001:db9::2", false),
            ("::", false),
        ];
        for (address, expected) in cases {
            assert_eq!(set.contains(ip(address)), expected, "{address}");
        }
    }

    #[test]
    fn the_whole_space_and_nothing_are_sets() {
        let all = set(&["0.0.0.0/0", "::/0"]);
        let ends = ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:1.2.3.4"];
        for address in ends.map(ip) {
            assert!(all.contains(address), "{address}");
            assert!(!Prefixes::default().contains(address), "{address}");
            assert!(!set(&[]).contains(address), "{address}");
        }
    }

    /// A dual-stack socket would else let `deny = ["::/0"]` refuse clients of IPv4, and only there.
    #[test]
    fn an_address_of_ipv4_is_one_however_it_is_written() {
        assert!(!set(&["::/0"]).contains(ip("::ffff:10.0.0.1")));
        assert!(set(&["::ffff:10.0.0.0/104"]).contains(ip("10.0.0.1")));
        assert!(set(&["10.0.0.0/8"]).contains(ip("::ffff:10.0.0.1")));
    }

    #[test]
    fn lists_are_an_address_or_network_a_line() {
        let text = b"# a list\r\n203.0.113.0/24\r\n\r\n  198.51.100.7 # one\n2001:db8:bad::/48\n\n";
        let list = parse_list(text).expect("a list");
        assert_eq!(list.len(), 3);
        for (address, expected) in [("203.0.113.9", true), ("198.51.100.7", true), ("2001:db8:bad::1", true)] {
            assert_eq!(list.contains(ip(address)), expected, "{address}");
        }
        assert!(parse_list(b"").expect("an empty list").is_empty());
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let line = |line, text: &str| ListError::Line { line, text: text.to_owned() };
        let cases: [(&[u8], ListError); 5] = [
            (b"10.0.0.1\n10.0.0\n", line(2, "10.0.0")),
            (b"10.0.0.0/33", line(1, "10.0.0.0/33")),
            (b"\n\nevil.example\n", line(3, "evil.example")),
            (b"\xff\x1b", line(1, "\u{fffd}\\u{1b}")),
            (
                b"10.0.0.1/8",
                ListError::HostBits {
                    line: 1,
                    text: "10.0.0.1/8".to_owned(),
                    network: "10.0.0.0/8".parse().expect("a network"),
                },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_list(text).map(|list| list.len()), Err(expected));
        }
    }

    /// Few enough different addresses that networks touch, overlap and repeat.
    fn network_of_few() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..256, 20u8..=32).prop_map(|(bits, length)| {
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0000 | bits << 4), length).expect("a length").trunc())
        });
        let v6 = (0u128..256, 50u8..=128).prop_map(|(bits, length)| {
            let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | bits << 60);
            IpNet::V6(Ipv6Net::new(address, length).expect("a length").trunc())
        });
        prop_oneof![v4, v6, Just("0.0.0.0/1".parse().expect("a network"))]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_set_agrees_with_a_look_at_every_network(
            networks in proptest::collection::vec(network_of_few(), 0..300),
            others in proptest::collection::vec(any::<IpAddr>(), 8),
        ) {
            let set: Prefixes = networks.iter().copied().collect();
            let ends = networks.iter().flat_map(|network| [network.network(), network.broadcast()]);
            let beside = ends.flat_map(|address| match address {
                IpAddr::V4(address) => [-1, 0, 1].map(|by| {
                    IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by)))
                }),
                IpAddr::V6(address) => [-1, 0, 1].map(|by| {
                    IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(by)))
                }),
            });
            for address in beside.chain(others) {
                let expected = networks.iter().any(|network| network.contains(&address.to_canonical()));
                prop_assert_eq!(set.contains(address), expected, "{}", address);
            }
        }
    }

    #[test]
    fn a_million_networks_take_the_memory_that_is_stated() {
        // Every other address: none of them touches another.
        let networks = (0..1_000_000u32).map(|index| IpNet::from(IpAddr::V4(Ipv4Addr::from_bits(index << 1))));
        let set: Prefixes = networks.collect();
        assert_eq!(set.len(), 1_000_000);
        assert!(set.memory_bytes() < 5_000_000, "{}", set.memory_bytes());
        assert!(set.contains(ip("0.0.0.2")) && !set.contains(ip("0.0.0.3")));
    }
}
