//! Figures of each route and upstream. They belong to the name, so a reload keeps them, and each core writes its own.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use sluice_rules::limit::LimitId;
use sluice_rules::snapshot::{RouteId, Snapshot, UpstreamId};

use crate::cache::WORDS;

use super::histogram::{Durations, Sizes};
use super::metrics::Counter;

/// Methods that have a label of their own (RFC 9110 §9, RFC 5789); all others share the last.
pub(crate) const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"];

/// Classes of status codes; the first stands for no response.
pub(crate) const CLASSES: [&str; 6] = ["error", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Where a method is in [`METHODS`].
pub(crate) fn method_index(method: &[u8]) -> usize {
    METHODS.iter().position(|known| known.as_bytes() == method).unwrap_or(METHODS.len() - 1)
}

/// Where a status code is in [`CLASSES`].
pub(crate) fn class_index(status: u16) -> usize {
    usize::from(status / 100).min(CLASSES.len() - 1)
}

/// A value for each core, made when the core first needs it: most of ten thousand routes are never asked for.
pub(crate) struct PerCore<T>(Box<[OnceLock<Box<T>>]>);

impl<T: Default> PerCore<T> {
    fn new(cores: usize) -> Self {
        PerCore((0..cores).map(|_| OnceLock::new()).collect())
    }

    /// The value of a core, which alone writes to it.
    pub(crate) fn of(&self, core: usize) -> &T {
        self.0[core].get_or_init(Box::default)
    }

    /// The values that there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|value| value.get().map(|value| &**value))
    }
}

/// A histogram that exists once something was counted in it.
#[derive(Default)]
pub(crate) struct Lazy(OnceLock<Box<Durations>>);

impl Lazy {
    /// The histogram to count in.
    pub(crate) fn made(&self) -> &Durations {
        self.0.get_or_init(Box::default)
    }

    /// The histogram if something was counted.
    pub(crate) fn get(&self) -> Option<&Durations> {
        self.0.get().map(|durations| &**durations)
    }
}

/// What one core counts of a route.
#[derive(Default)]
pub(crate) struct RouteSeries {
    /// By method and class of status.
    pub(crate) durations: [[Lazy; CLASSES.len()]; METHODS.len()],
    pub(crate) request_content: Sizes,
    pub(crate) response_content: Sizes,
    cache: OnceLock<Box<CacheSeries>>,
}

impl RouteSeries {
    /// What it counts of the cache.
    pub(crate) fn cache(&self) -> &CacheSeries {
        self.cache.get_or_init(Box::default)
    }

    /// The same if there is anything.
    pub(crate) fn cache_if_any(&self) -> Option<&CacheSeries> {
        self.cache.get().map(|cache| &**cache)
    }
}

/// What one core counts of the cache on a route.
#[derive(Default)]
pub(crate) struct CacheSeries {
    /// By the words for what the cache did.
    pub(crate) outcomes: [Counter; WORDS.len()],
    /// Requests that shared one to the origin with others.
    pub(crate) collapsed: Counter,
    /// How long the origin would have taken for hits.
    pub(crate) saved_millis: Counter,
}

/// What one core counts of an upstream.
#[derive(Default)]
pub(crate) struct UpstreamSeries {
    /// By class of status.
    pub(crate) durations: [Lazy; CLASSES.len()],
    /// Waits until it may have one more request.
    pub(crate) queue_waits: Lazy,
    /// Requests that it was not given, by reason.
    pub(crate) queue_refused: [Counter; QueueRefusal::ALL.len()],
}

/// Why a request was not given to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueRefusal {
    /// As many waited as may.
    Full,
    /// It had waited for too long.
    Timeout,
    /// It would have waited for too long.
    Hopeless,
}

impl QueueRefusal {
    pub(crate) const ALL: [QueueRefusal; 3] = [QueueRefusal::Full, QueueRefusal::Timeout, QueueRefusal::Hopeless];

    /// The word for it in figures.
    pub(crate) fn label(self) -> &'static str {
        match self {
            QueueRefusal::Full => "full",
            QueueRefusal::Timeout => "timeout",
            QueueRefusal::Hopeless => "hopeless",
        }
    }
}

/// What one core counts of a limit: requests by what it decided.
#[derive(Default)]
pub(crate) struct LimitSeries {
    /// They were let through.
    pub(crate) allowed: Counter,
    /// They were held back first.
    pub(crate) delayed: Counter,
    /// They were refused.
    pub(crate) refused: Counter,
    /// They would have been refused, by a limit that only observes.
    pub(crate) observed: Counter,
}

/// The figures of all routes, upstreams and limits of a configuration.
pub(crate) struct SeriesTable {
    /// By name; requests that no route was found for are under the empty name.
    pub(crate) routes: BTreeMap<String, Arc<PerCore<RouteSeries>>>,
    pub(crate) upstreams: BTreeMap<String, Arc<PerCore<UpstreamSeries>>>,
    pub(crate) limits: BTreeMap<String, Arc<PerCore<LimitSeries>>>,
    by_route: Vec<Arc<PerCore<RouteSeries>>>,
    by_upstream: Vec<Arc<PerCore<UpstreamSeries>>>,
    by_limit: Vec<Arc<PerCore<LimitSeries>>>,
    no_route: Arc<PerCore<RouteSeries>>,
    cores: usize,
}

impl SeriesTable {
    /// The table for a first configuration.
    pub(crate) fn new(cores: usize, snapshot: &Snapshot) -> Self {
        SeriesTable::with(cores, snapshot, None)
    }

    /// The table for a configuration that replaces this one's. What is of the same name is taken over; what is no
    /// longer named is forgotten once its last request has ended.
    pub(crate) fn renewed(&self, snapshot: &Snapshot) -> Self {
        SeriesTable::with(self.cores, snapshot, Some(self))
    }

    fn with(cores: usize, snapshot: &Snapshot, before: Option<&SeriesTable>) -> Self {
        let mut routes = BTreeMap::new();
        let route_names = snapshot.routes.iter().map(|route| route.name.as_str());
        let by_route = route_names.map(|name| named(cores, name, before.map(|b| &b.routes), &mut routes)).collect();
        let no_route = named(cores, "", before.map(|before| &before.routes), &mut routes);
        let mut upstreams = BTreeMap::new();
        let upstream_names = snapshot.upstreams.iter().map(|upstream| upstream.name.as_str());
        let by_upstream =
            upstream_names.map(|name| named(cores, name, before.map(|b| &b.upstreams), &mut upstreams)).collect();
        let mut limits = BTreeMap::new();
        let limit_names = snapshot.limits.iter().map(|limit| limit.name.as_str());
        let by_limit = limit_names.map(|name| named(cores, name, before.map(|b| &b.limits), &mut limits)).collect();
        SeriesTable { routes, upstreams, limits, by_route, by_upstream, by_limit, no_route, cores }
    }

    /// How many cores there are.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    /// The figures of a route, or of requests without one.
    pub(crate) fn route(&self, route: Option<RouteId>, core: usize) -> &RouteSeries {
        route.map_or(&self.no_route, |route| &self.by_route[route.0 as usize]).of(core)
    }

    /// The figures of a limit.
    pub(crate) fn limit(&self, limit: LimitId, core: usize) -> &LimitSeries {
        self.by_limit[limit.0 as usize].of(core)
    }

    /// The figures of an upstream.
    pub(crate) fn upstream(&self, upstream: UpstreamId, core: usize) -> &UpstreamSeries {
        self.by_upstream[upstream.0 as usize].of(core)
    }
}

type ByName<T> = BTreeMap<String, Arc<PerCore<T>>>;

fn named<T: Default>(cores: usize, name: &str, before: Option<&ByName<T>>, now: &mut ByName<T>) -> Arc<PerCore<T>> {
    if let Some(known) = now.get(name) {
        return Arc::clone(known);
    }
    let kept = before.and_then(|before| before.get(name)).map(Arc::clone);
    let series = kept.unwrap_or_else(|| Arc::new(PerCore::new(cores)));
    now.insert(name.to_owned(), Arc::clone(&series));
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(routes: &str) -> Snapshot {
        let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{routes}");
        sluice_config::load_str("test", &text).unwrap_or_else(|report| panic!("{report}")).snapshot
    }

    fn route(name: &str, path: &str) -> String {
        format!("[[route]]\nname = \"{name}\"\npath = \"{path}\"\nrespond = {{ status = 200 }}\n")
    }

    /// A reload that moves a route takes its figures along; one that is gone leaves nothing.
    #[test]
    fn figures_live_on_by_name() {
        let before = SeriesTable::new(2, &snapshot(&(route("a", "/a") + &route("b", "/b"))));
        before.route(Some(RouteId(1)), 1).request_content.record(&super::super::histogram::SIZE_BOUNDS, 5);
        let after = before.renewed(&snapshot(&(route("b", "/b") + &route("c", "/c"))));
        assert!(Arc::ptr_eq(&after.by_route[0], &before.by_route[1]));
        assert!(Arc::ptr_eq(&after.no_route, &before.no_route));
        assert_eq!(after.routes.keys().collect::<Vec<_>>(), ["", "b", "c"]);
    }

    #[test]
    fn a_method_of_its_own_making_shares_a_label() {
        assert_eq!(METHODS[method_index(b"PATCH")], "PATCH");
        assert_eq!(METHODS[method_index(b"get")], "_OTHER");
        assert_eq!((CLASSES[class_index(204)], CLASSES[class_index(999)]), ("2xx", "5xx"));
    }
}
