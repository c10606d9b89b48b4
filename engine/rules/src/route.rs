//! Which route answers a request.

use regex::Regex;

use crate::snapshot::RouteId;

/// What a route matches, as compiled from the file.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Hosts, any of which matches. Empty: every host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Methods, any of which matches. Empty: every method.
    pub methods: Vec<String>,
    /// Fields, all of which must match; names in lower case.
    pub headers: Vec<(String, ValuePattern)>,
    /// Query parameters, all of which must match.
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
    /// A regular expression over the whole path. Its named groups are parameters.
    Regex(Regex),
}

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
    /// Something that this matches anywhere, unless it is anchored.
    Regex(Regex),
    /// Anything, even empty.
    Present,
}

/// The compiled routes of a listener.
#[derive(Debug, Default)]
pub struct Router {}

/// Values of path parameters, as ranges of the path, by position in the pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {}

/// A route that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which one.
    pub route: RouteId,
    /// The values of its parameters.
    pub params: Params,
}
