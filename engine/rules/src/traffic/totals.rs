//! The windows of all cores as one, and what is certain of each client over a while.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use ipnet::IpNet;

use crate::protection::{Observed, Subject};

use super::cardinality::Cardinality;
use super::heavy::HeavyHitters;
use super::{Tally, Text, Window};

/// Seconds that errors are judged over.
const LATELY: usize = 10;

/// Keys of each kind that are told of.
const TOP: usize = 20;

/// What was most frequent in the last second.
#[derive(Clone, Debug)]
pub struct Top<K> {
    /// The keys with how often they were seen, at most, from the most frequent.
    pub keys: Vec<(K, u64)>,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Top { keys: Vec::new() }
    }
}

/// What is known of one client in the last second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Who.
    pub subject: Subject,
    /// Requests, at most.
    pub requests: u64,
    /// What is certain.
    pub seen: Observed,
    /// How its requests ended, as far as they were followed.
    pub tally: Tally,
}

/// The traffic of the last second on all cores, and of the seconds before as far as it is needed.
#[derive(Debug, Default)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// How they ended.
    pub tally: Tally,
    /// Different clients, about.
    pub distinct_clients: f64,
    /// Different paths, about.
    pub distinct_paths: f64,
    /// Clients, from the most frequent.
    pub clients: Vec<Client>,
    /// Networks.
    pub networks: Top<IpNet>,
    /// Paths.
    pub paths: Top<Text>,
    /// User agents.
    pub agents: Top<Text>,
    /// Requests and errors that are certain, for each of the last seconds.
    lately: VecDeque<HashMap<Subject, (u64, u64)>>,
}

impl Totals {
    /// Takes in the windows of a second, one for each core, with the tenths of a second that it covers: a core that
    /// is busy may be late, and what comes in two seconds is not what comes in one.
    pub fn take(&mut self, windows: &[(&Window, u32)]) {
        let mut tally = Tally::default();
        windows.iter().for_each(|(window, _)| tally.add(window.tally));
        let requests = windows.iter().map(|(window, tenths)| in_a_second(window.requests, *tenths)).sum();
        (self.requests, self.tally) = (requests, tally);
        self.distinct_clients = distinct(windows.iter().map(|(window, _)| &window.distinct_clients));
        self.distinct_paths = distinct(windows.iter().map(|(window, _)| &window.distinct_paths));
        self.networks = top(windows.iter().map(|(window, _)| &window.networks));
        self.paths = top(windows.iter().map(|(window, _)| &window.paths));
        self.agents = top(windows.iter().map(|(window, _)| &window.agents));
        self.take_clients(windows);
    }

    fn take_clients(&mut self, windows: &[(&Window, u32)]) {
        let mut all: HashMap<Subject, Client> = HashMap::new();
        let mut certain: HashMap<Subject, (u64, u64)> = HashMap::new();
        let hitters = windows.iter().flat_map(|(window, tenths)| window.clients.iter().map(move |one| (one, *tenths)));
        for (hitter, tenths) in hitters {
            let nobody =
                Client { subject: hitter.key, requests: 0, seen: Observed::default(), tally: Tally::default() };
            let client = all.entry(hitter.key).or_insert(nobody);
            client.requests += in_a_second(hitter.count, tenths);
            client.seen.requests += in_a_second(hitter.certain(), tenths);
            client.tally.add(hitter.tally);
            let (requests, errors) = certain.entry(hitter.key).or_default();
            *requests += hitter.certain();
            *errors += hitter.tally.errors;
        }
        if self.lately.len() >= LATELY {
            self.lately.pop_front();
        }
        self.lately.push_back(certain);
        self.clients = all.into_values().collect();
        for client in &mut self.clients {
            for second in &self.lately {
                let (requests, errors) = second.get(&client.subject).copied().unwrap_or_default();
                client.seen.requests_lately += requests;
                client.seen.errors_lately += errors;
            }
        }
        self.clients.sort_unstable_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.subject.cmp(&b.subject)));
    }
}

/// How many of what came in a window came in a second.
fn in_a_second(count: u64, tenths: u32) -> u64 {
    count.saturating_mul(10) / u64::from(tenths.max(10))
}

fn distinct<'w>(sketches: impl Iterator<Item = &'w Cardinality>) -> f64 {
    let mut merged = Cardinality::default();
    sketches.for_each(|sketch| merged.merge(sketch));
    merged.estimate()
}

fn top<'w, K: Copy + Eq + Hash + 'w>(hitters: impl Iterator<Item = &'w HeavyHitters<K, ()>>) -> Top<K> {
    let mut all: HashMap<K, u64> = HashMap::new();
    for hitter in hitters.flat_map(HeavyHitters::iter) {
        *all.entry(hitter.key).or_default() += hitter.count;
    }
    let mut keys: Vec<(K, u64)> = all.into_iter().collect();
    keys.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    keys.truncate(TOP);
    Top { keys }
}

#[cfg(test)]
mod tests {
    use super::super::Request;
    use super::*;

    fn subject(last: u8) -> Subject {
        Subject::of([192, 0, 2, last].into())
    }

    fn record(window: &mut Window, client: Subject, status: u16, times: usize) {
        for _ in 0..times {
            let tally = Tally::of(status, None);
            window.record(&Request { client, path: b"/a", user_agent: b"curl", tally });
        }
    }

    #[test]
    fn cores_are_added_up_and_errors_are_counted_over_ten_seconds() {
        let mut totals = Totals::default();
        for second in 1..=12 {
            let (mut a, mut b) = (Window::new(7), Window::new(7));
            record(&mut a, subject(1), 404, 3);
            record(&mut b, subject(1), 200, 2);
            record(&mut b, subject(2), 200, 1);
            totals.take(&[(&a, 10), (&b, 10)]);
            let first = totals.clients[0];
            assert_eq!((first.subject, first.requests, first.tally.errors), (subject(1), 5, 3));
            let seconds = second.min(LATELY as u64);
            let seen = Observed { requests: 5, requests_lately: 5 * seconds, errors_lately: 3 * seconds };
            assert_eq!(first.seen, seen, "in second {second}");
        }
        assert_eq!((totals.requests, totals.tally.errors), (6, 3));
        assert_eq!(totals.networks.keys, [("192.0.2.0/24".parse().expect("a network"), 6)]);
        assert_eq!(totals.paths.keys, [(Text::of(b"/a"), 6)]);
        assert!((totals.distinct_clients - 2.0).abs() < 0.1 && (totals.distinct_paths - 1.0).abs() < 0.1);
    }

    /// A core that hands over late must not make its clients look twice as fast.
    #[test]
    fn a_long_window_counts_by_the_second() {
        let mut window = Window::new(7);
        record(&mut window, subject(1), 404, 600);
        let mut totals = Totals::default();
        totals.take(&[(&window, 20)]);
        let seen = Observed { requests: 300, requests_lately: 600, errors_lately: 600 };
        assert_eq!((totals.requests, totals.clients[0].seen), (300, seen));
    }

    /// However many others there are, nobody is charged with more than was seen of them for sure.
    #[test]
    fn a_crowd_does_not_make_anybody_guilty() {
        let mut window = Window::new(7);
        for number in 0..200_000u32 {
            let client = Subject::of(std::net::Ipv4Addr::from_bits(number).into());
            record(&mut window, client, 404, 1);
        }
        let mut totals = Totals::default();
        totals.take(&[(&window, 10)]);
        assert!(totals.clients.iter().all(|client| client.requests > 300 && client.seen.requests == 1));
        assert!(totals.clients.iter().all(|client| client.seen.errors_lately <= 1));
        let error = (totals.distinct_clients - 200_000.0).abs();
        assert!(error < 0.08 * 200_000.0, "{}", totals.distinct_clients);
    }
}
