//! Which route answers a request.
//!
//! The order is that of the Kubernetes Gateway API. Of all routes that match, the one is taken that comes first by
//!
//! 1. host: an exact one, then the longest domain of a wildcard, then any host;
//! 2. kind of path: exact, template, regular expression, prefix;
//! 3. the path itself: of templates, segment by segment from the left, text before a parameter before `/*`; of
//!    expressions, the one that stands first in the file; of prefixes, the longest;
//! 4. whether it names methods;
//! 5. more fields, then more query parameters;
//! 6. the order in the file.
//!
//! A request is held against every route: if all routes of the best path fail on method, fields or query, the next
//! path is tried, down to the routes of any host.
//!
//! A look-up costs a few hashes, however many routes there are: hosts and exact paths are hashed whole, templates
//! and prefixes segment by segment. Only routes that agree in host and path are tried one after the other. It
//! allocates nothing, except where regular expressions are reached.

mod conditions;
mod params;
mod paths;
mod show;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use foldhash::fast::FixedState;
use regex::{Regex, RegexBuilder};
use sluice_wire::authority::Authority;
use sluice_wire::head::Request;
use sluice_wire::target::Target;

pub use self::conditions::MethodSet;
pub use self::params::Params;

use self::conditions::{Conditions, Fit};
use self::paths::Paths;
use crate::snapshot::RouteId;

/// What a route matches, as compiled from the file.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Hosts, any of which matches. Empty: every host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Methods, any of which matches. Empty: every method. `GET` does not stand for `HEAD`.
    pub methods: Vec<String>,
    /// Fields, all of which must match; names in lower case. Of several lines of a name, one must match.
    pub headers: Vec<(String, ValuePattern)>,
    /// Query parameters, all of which must match. Of several parameters of a name, one must match.
    ///
    /// Names and values are compared as they stand in the normalised target, without decoding them further.
    pub query: Vec<(String, ValuePattern)>,
}

/// A host to match, in lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Every host below this domain (`*.example.com` is `example.com` here), however deep.
    Below(String),
}

/// A path to match, against the normalised path.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// This path: `/exact`.
    Exact(String),
    /// This path and all below it, by whole segments: `/prefix/*` is `/prefix` here, `/*` is the empty string.
    Prefix(String),
    /// Segments with parameters: `/users/{id}`; a parameter takes one non-empty segment. `rest` is whether the
    /// pattern ended in `/*`, so that it takes everything below.
    Template {
        /// The segments in order.
        segments: Vec<Segment>,
        /// Whether everything below matches too.
        rest: bool,
    },
    /// A regular expression over the whole path, from [`PathPattern::regex`]. Its named groups are parameters.
    Regex(Regex),
}

impl PathPattern {
    /// Bytes that a compiled expression may take, so that no file can fill the memory with one line.
    pub const REGEX_BYTES_MAX: usize = 256 * 1024;

    /// The pattern that matches where `text` matches the whole path.
    pub fn regex(text: &str) -> Result<Self, regex::Error> {
        let whole = format!("^(?:{text})$");
        RegexBuilder::new(&whole).size_limit(Self::REGEX_BYTES_MAX).build().map(Self::Regex)
    }

    /// Names of the parameters in the order of [`Params`]. What the `*` of a pattern stands for is `rest`.
    pub fn params(&self) -> Vec<&str> {
        match self {
            PathPattern::Exact(_) => Vec::new(),
            PathPattern::Prefix(_) => vec![REST],
            PathPattern::Template { segments, rest } => segments
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Param(name) => Some(name.as_str()),
                    Segment::Text(_) => None,
                })
                .chain(rest.then_some(REST))
                .collect(),
            PathPattern::Regex(regex) => regex.capture_names().flatten().collect(),
        }
    }
}

/// The name of the parameter that holds what the `*` at the end of a path stands for, without a slash before it.
pub const REST: &str = "rest";

/// A segment of a [`PathPattern::Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Text(String),
    /// Any text, known by this name.
    Param(String),
}

/// What a field or query parameter must be.
#[derive(Clone, Debug)]
pub enum ValuePattern {
    /// Exactly this.
    Exact(String),
    /// Something that this matches anywhere, unless it is anchored. Bytes that are not UTF-8 do not match.
    Regex(Regex),
    /// Anything, even empty.
    Present,
}

/// What of a request the routes look at.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The host in lower case and without a port; empty if there is none.
    pub host: &'a str,
    /// The normalised path, or `*` for a request about the server as a whole.
    pub path: &'a str,
    /// The query without the question mark.
    pub query: Option<&'a str>,
    /// Method and fields.
    pub request: Request<'a>,
}

impl<'a> Lookup<'a> {
    /// What of a request that was admitted the routes look at.
    pub fn new(request: Request<'a>, target: &'a Target, authority: &'a Authority) -> Self {
        Lookup { host: authority.host(), path: target.path(), query: target.query(), request }
    }
}

/// A route that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which one.
    pub route: RouteId,
    /// The values of its parameters.
    pub params: Params,
}

/// Why no route was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// No route matches: 404.
    NotFound,
    /// Some routes match in all but the method: 405. These are the methods that they name, see
    /// [`Router::methods`].
    Method(MethodSet),
}

/// Maps whose keys come from the configuration: nobody outside can choose colliding ones.
type Map<V> = HashMap<Box<str>, V, FixedState>;

/// The compiled routes of a listener.
#[derive(Debug, Default)]
pub struct Router {
    /// What beside host and path each route asks for. Lists of candidates hold indices into it.
    conditions: Vec<Conditions>,
    /// Every method that some route names; a [`MethodSet`] is a set of indices into it.
    methods: Vec<Box<str>>,
    exact: Map<Paths>,
    below: Map<Paths>,
    /// Bytes of the longest key of `below`: a bound on what a hostile `Host` can make us hash.
    below_bytes_max: usize,
    any: Paths,
}

impl Router {
    /// Compiles routes that are given in the order of the file.
    ///
    /// # Panics
    /// If a path has more than [`Params::MAX`] parameters or the routes together name more than
    /// [`MethodSet::MAX`] methods, which the configuration has checked.
    pub fn new<'m>(routes: impl IntoIterator<Item = (RouteId, &'m Matcher)>) -> Router {
        let mut router = Router::default();
        for (id, matcher) in routes {
            assert!(matcher.path.params().len() <= Params::MAX, "a path has too many parameters");
            let candidate = router.conditions.len() as u32;
            let conditions = Conditions::new(id, matcher, &mut router.methods);
            router.conditions.push(conditions);
            if matcher.hosts.is_empty() {
                router.any.insert(&matcher.path, candidate);
            }
            for host in &matcher.hosts {
                let paths = match host {
                    HostPattern::Exact(host) => router.exact.entry(host.as_str().into()).or_default(),
                    HostPattern::Below(domain) => {
                        router.below_bytes_max = router.below_bytes_max.max(domain.len());
                        router.below.entry(domain.as_str().into()).or_default()
                    }
                };
                paths.insert(&matcher.path, candidate);
            }
        }
        let conditions = &router.conditions;
        for paths in router.exact.values_mut().chain(router.below.values_mut()).chain([&mut router.any]) {
            paths.finish(|candidate| conditions[candidate as usize].rank());
        }
        router
    }

    /// The route that answers this request.
    pub fn find(&self, lookup: &Lookup<'_>) -> Result<Found, Missed> {
        // Offsets of parameters are 16 bits; no listener takes a head this long.
        if lookup.path.len() > usize::from(u16::MAX) {
            return Err(Missed::NotFound);
        }
        // RFC 9110 §4.2.3, RFC 3986 §3.2.2: a stop at the end is the same name, written out in full.
        let host = lookup.host.strip_suffix('.').unwrap_or(lookup.host);
        let method = MethodSet::of(&self.methods, lookup.request.method());
        let mut allowed = MethodSet::default();
        let mut visit = |candidates: &[u32], params: Params| {
            for &candidate in candidates {
                let conditions = &self.conditions[candidate as usize];
                match conditions.fit(method, lookup) {
                    Fit::Full => return Some(Found { route: conditions.route, params }),
                    Fit::ButMethod => allowed = allowed.union(conditions.methods),
                    Fit::None => {}
                }
            }
            None
        };
        let found = self.hosts(host).find_map(|paths| paths.visit(lookup.path, &mut visit));
        found.ok_or(if allowed.is_empty() { Missed::NotFound } else { Missed::Method(allowed) })
    }

    /// Whether a route applies on this listener.
    pub fn has(&self, route: RouteId) -> bool {
        // They were compiled in the order of the file.
        self.conditions.binary_search_by_key(&route, |conditions| conditions.route).is_ok()
    }

    /// The methods of a set, for the `Allow` field.
    pub fn methods(&self, set: MethodSet) -> impl Iterator<Item = &str> {
        self.methods.iter().enumerate().filter(move |(index, _)| set.contains(*index)).map(|(_, method)| &**method)
    }

    /// The tables that apply to a host, the most exact first.
    fn hosts<'r>(&'r self, host: &'r str) -> impl Iterator<Item = &'r Paths> {
        // The domain of a wildcard follows a stop, so the scan may start where the longest one could.
        let first =
            if self.below.is_empty() { host.len() } else { host.len().saturating_sub(self.below_bytes_max + 1) };
        let stops = host.as_bytes()[first..].iter().enumerate().filter(|(_, byte)| **byte == b'.');
        let below = stops
            .map(move |(index, _)| first + index)
            .filter(|stop| *stop > 0)
            .filter_map(move |stop| self.below.get(&host[stop + 1..]));
        self.exact.get(host).into_iter().chain(below).chain([&self.any])
    }
}
