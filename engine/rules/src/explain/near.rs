//! Routes that nearly take a request, each with the first of its conditions that the request does not meet.
//!
//! Each condition is held against the request alone, by a router that has nothing else: what it says is what live
//! traffic meets.

use std::cmp::Reverse;
use std::fmt::Write;

use crate::route::{Found, HostPattern, Lookup, Matcher, PathPattern, Router, ValuePattern};
use crate::snapshot::{Listener, RouteId, Snapshot};

/// How many are told.
const MISSES_MAX: usize = 5;

/// What of a route a request does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The route does not apply on the listener.
    Listener,
    /// The host.
    Host,
    /// The path.
    Path,
    /// The method.
    Method,
    /// A field.
    Header,
    /// A query parameter.
    Query,
    /// All is met, and another route goes first.
    Order,
}

impl Condition {
    /// The key of a route that sets it.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Listener => "listener",
            Condition::Host => "host",
            Condition::Path => "path",
            Condition::Method => "methods",
            Condition::Header => "headers",
            Condition::Query => "query",
            Condition::Order => "order",
        }
    }
}

/// A route that does not take the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Its name.
    pub route: String,
    /// The first condition that is not met.
    pub condition: Condition,
    /// Why not.
    pub why: String,
}

/// Routes that do not take the request, the nearest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    /// The nearest few.
    pub nearest: Vec<Miss>,
    /// How many there are beside them.
    pub others: usize,
}

/// How near a miss is; less is nearer. Unmet conditions, then how late the first one is looked at, then how few of
/// the path's segments agree.
type Distance = (usize, Reverse<Condition>, Reverse<usize>);

/// The routes beside the one that was `found`, the nearest first.
pub(super) fn misses(snapshot: &Snapshot, listener: &Listener, lookup: &Lookup<'_>, found: Option<&Found>) -> Misses {
    let ids = (0..snapshot.routes.len() as u32).map(RouteId).filter(|id| found.is_none_or(|found| found.route != *id));
    let mut all: Vec<(Distance, RouteId)> = ids.map(|id| (distance(snapshot, listener, lookup, id), id)).collect();
    all.sort();
    let others = all.len().saturating_sub(MISSES_MAX);
    all.truncate(MISSES_MAX);
    let nearest = all.into_iter().map(|((_, Reverse(condition), _), id)| {
        let matcher = snapshot.matcher(id);
        let why = match condition {
            Condition::Listener => format!("it is not on the listener `{}`", listener.name),
            Condition::Host => format!("the host is `{}`, not {}", lookup.host, hosts(matcher)),
            Condition::Path => format!("the path is `{}`, not `{}`", lookup.path, matcher.path),
            Condition::Method => {
                format!("the method is {}, not {}", lookup.request.method(), matcher.methods.join(" or "))
            }
            Condition::Header => header(matcher, lookup),
            Condition::Query => query(matcher, lookup),
            Condition::Order => order(snapshot, lookup, found, matcher),
        };
        Miss { route: snapshot.route(id).name.clone(), condition, why }
    });
    Misses { nearest: nearest.collect(), others }
}

fn distance(snapshot: &Snapshot, listener: &Listener, lookup: &Lookup<'_>, id: RouteId) -> Distance {
    let matcher = snapshot.matcher(id);
    let mut unmet = Vec::new();
    let mut hold = |condition: Condition, met: bool| unmet.extend((!met).then_some(condition));
    hold(Condition::Listener, listener.router.has(id));
    hold(Condition::Host, matches(Matcher { hosts: matcher.hosts.clone(), ..anything() }, lookup));
    hold(Condition::Path, matches(Matcher { path: matcher.path.clone(), ..anything() }, lookup));
    hold(Condition::Method, matches(Matcher { methods: matcher.methods.clone(), ..anything() }, lookup));
    for one in &matcher.headers {
        hold(Condition::Header, has_header(one, lookup));
    }
    for one in &matcher.query {
        hold(Condition::Query, has_query(one, lookup));
    }
    let first = unmet.iter().min().copied().unwrap_or(Condition::Order);
    (unmet.len(), Reverse(first), Reverse(shared_segments(&matcher.path, lookup.path)))
}

fn anything() -> Matcher {
    Matcher {
        hosts: Vec::new(),
        path: PathPattern::Prefix(String::new()),
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn matches(matcher: Matcher, lookup: &Lookup<'_>) -> bool {
    Router::new([(RouteId(0), &matcher)]).find(lookup).is_ok()
}

fn has_header(one: &(String, ValuePattern), lookup: &Lookup<'_>) -> bool {
    matches(Matcher { headers: vec![one.clone()], ..anything() }, lookup)
}

fn has_query(one: &(String, ValuePattern), lookup: &Lookup<'_>) -> bool {
    matches(Matcher { query: vec![one.clone()], ..anything() }, lookup)
}

/// Segments from the left in which a path agrees with a pattern.
fn shared_segments(pattern: &PathPattern, path: &str) -> usize {
    let text = pattern.to_string();
    let agree = |(one, other): &(&str, &str)| one == other || one.starts_with('{') || *one == "*";
    text.split('/').zip(path.split('/')).skip(1).take_while(agree).count()
}

fn header(matcher: &Matcher, lookup: &Lookup<'_>) -> String {
    let Some(one) = matcher.headers.iter().find(|one| !has_header(one, lookup)) else { return String::new() };
    let request = lookup.request;
    let value = request.head.fields.values_of(request.bytes, &one.0).next();
    unmet("field", one, value.map(String::from_utf8_lossy).as_deref())
}

fn query(matcher: &Matcher, lookup: &Lookup<'_>) -> String {
    let Some(one) = matcher.query.iter().find(|one| !has_query(one, lookup)) else { return String::new() };
    let pairs = lookup.query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.into_iter().find(|(name, _)| *name == one.0).map(|(_, value)| value);
    unmet("query parameter", one, value)
}

fn unmet(what: &str, (name, pattern): &(String, ValuePattern), value: Option<&str>) -> String {
    match (value, pattern) {
        (None, _) => format!("there is no {what} `{name}`"),
        (Some(value), ValuePattern::Exact(text)) => format!("the {what} `{name}` is `{value}`, not `{text}`"),
        (Some(value), ValuePattern::Regex(regex)) => {
            format!("the {what} `{name}` is `{value}`, which `{regex}` does not match")
        }
        // Whatever is there is enough, so it was not there.
        (Some(_), ValuePattern::Present) => format!("there is no {what} `{name}`"),
    }
}

/// Why a route that matches as well comes later: the first rule of precedence in which the two differ.
fn order(snapshot: &Snapshot, lookup: &Lookup<'_>, found: Option<&Found>, other: &Matcher) -> String {
    // A route that meets every condition is always found, or one that goes before it.
    let Some(found) = found else { return String::new() };
    let name = &snapshot.route(found.route).name;
    let taken = snapshot.matcher(found.route);
    let because = if host_rank(taken, lookup) != host_rank(other, lookup) {
        "its host is more exact".to_owned()
    } else if kind(&taken.path) != kind(&other.path) {
        format!("{} goes before {}", kind(&taken.path), kind(&other.path))
    } else if shape(&taken.path) != shape(&other.path) {
        let is_regex = matches!(taken.path, PathPattern::Regex(_));
        if is_regex { "its path stands first in the file" } else { "its path is more exact" }.to_owned()
    } else if taken.methods.is_empty() != other.methods.is_empty() {
        "it names methods".to_owned()
    } else if taken.headers.len() != other.headers.len() {
        "it asks for more fields".to_owned()
    } else if taken.query.len() != other.query.len() {
        "it asks for more query parameters".to_owned()
    } else {
        "it stands first in the file".to_owned()
    };
    format!("it matches too, but `{name}` goes first: {because}")
}

/// How exactly a route names the host of a request: less is more exact.
fn host_rank(matcher: &Matcher, lookup: &Lookup<'_>) -> (u8, Reverse<usize>) {
    let met =
        matcher.hosts.iter().filter(|host| matches(Matcher { hosts: vec![(*host).clone()], ..anything() }, lookup));
    let rank = |host: &HostPattern| match host {
        HostPattern::Exact(_) => (0, Reverse(0)),
        HostPattern::Below(domain) => (1, Reverse(domain.len())),
    };
    met.map(rank).min().unwrap_or((2, Reverse(0)))
}

/// The kind of a path in words.
fn kind(path: &PathPattern) -> &'static str {
    match path {
        PathPattern::Exact(_) => "an exact path",
        PathPattern::Template { .. } => "a path with parameters",
        PathPattern::Regex(_) => "a regular expression",
        PathPattern::Prefix(_) => "a prefix",
    }
}

/// A path without the names of its parameters.
fn shape(path: &PathPattern) -> String {
    let text = path.to_string();
    match path {
        PathPattern::Template { .. } => {
            text.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
        }
        PathPattern::Exact(_) | PathPattern::Regex(_) | PathPattern::Prefix(_) => text,
    }
}

/// The hosts of a route, the first few.
fn hosts(matcher: &Matcher) -> String {
    const HOSTS_MAX: usize = 3;
    let shown: Vec<String> = matcher.hosts.iter().take(HOSTS_MAX).map(|host| format!("`{host}`")).collect();
    let mut text = shown.join(" or ");
    if matcher.hosts.len() > HOSTS_MAX {
        let _ = write!(text, " or one of {} more", matcher.hosts.len() - HOSTS_MAX);
    }
    text
}
