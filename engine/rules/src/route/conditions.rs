//! What a route asks for beside host and path: method, fields and query parameters.

use std::cmp::Reverse;

use sluice_wire::head::{Name, Request};

use super::{Lookup, Matcher, ValuePattern};
use crate::snapshot::RouteId;

/// A set of the methods that the routes of a router name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MethodSet(u128);

impl MethodSet {
    /// Different methods that the routes of a listener may name.
    pub const MAX: usize = 128;

    /// The set of this method, empty if no route names it.
    pub(super) fn of(methods: &[Box<str>], method: &str) -> MethodSet {
        methods
            .iter()
            .position(|known| **known == *method)
            .map_or_else(MethodSet::default, |index| MethodSet(1 << index))
    }

    /// Whether the method of this index is in the set.
    pub(super) fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    /// Whether no method is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The methods of either set.
    pub(super) fn union(self, other: MethodSet) -> MethodSet {
        MethodSet(self.0 | other.0)
    }

    fn intersects(self, other: MethodSet) -> bool {
        self.0 & other.0 != 0
    }
}

/// How far a request meets the conditions.
pub(super) enum Fit {
    /// In all.
    Full,
    /// In all but the method.
    ButMethod,
    /// Not.
    None,
}

/// What a route asks for beside host and path.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) route: RouteId,
    /// Empty: every method.
    pub(super) methods: MethodSet,
    headers: Box<[Field]>,
    query: Box<[(String, ValuePattern)]>,
}

#[derive(Debug)]
struct Field {
    known: Name,
    name: String,
    value: ValuePattern,
}

impl Conditions {
    /// The conditions of a route; methods that are new go into `methods`.
    pub(super) fn new(route: RouteId, matcher: &Matcher, methods: &mut Vec<Box<str>>) -> Conditions {
        let mut set = MethodSet::default();
        for method in &matcher.methods {
            if MethodSet::of(methods, method).is_empty() {
                assert!(methods.len() < MethodSet::MAX, "the routes name too many methods");
                methods.push(method.as_str().into());
            }
            set = set.union(MethodSet::of(methods, method));
        }
        let field = |(name, value): &(String, ValuePattern)| Field {
            known: Name::of(name.as_bytes()),
            name: name.clone(),
            value: value.clone(),
        };
        let headers = matcher.headers.iter().map(field).collect();
        Conditions { route, methods: set, headers, query: matcher.query.clone().into_boxed_slice() }
    }

    /// Routes of the same host and path are tried in ascending order of this, then in the order of the file.
    pub(super) fn rank(&self) -> (bool, Reverse<usize>, Reverse<usize>) {
        (self.methods.is_empty(), Reverse(self.headers.len()), Reverse(self.query.len()))
    }

    /// How far the request meets the conditions; `method` is its own as a set.
    pub(super) fn fit(&self, method: MethodSet, lookup: &Lookup<'_>) -> Fit {
        let by_method = self.methods.is_empty() || self.methods.intersects(method);
        let by_rest = self.headers.iter().all(|field| field.matches(lookup.request))
            && self.query.iter().all(|(name, value)| query_matches(name, value, lookup.query));
        match (by_method, by_rest) {
            (true, true) => Fit::Full,
            (false, true) => Fit::ButMethod,
            (_, false) => Fit::None,
        }
    }
}

impl Field {
    fn matches(&self, request: Request<'_>) -> bool {
        let fields = &request.head.fields;
        match self.known {
            Name::Other => fields.values_of(request.bytes, &self.name).any(|value| self.value.matches(value)),
            known => fields.values(request.bytes, known).any(|value| self.value.matches(value)),
        }
    }
}

impl ValuePattern {
    /// Whether a value is what it must be.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        match self {
            ValuePattern::Exact(text) => text.as_bytes() == value,
            ValuePattern::Regex(regex) => str::from_utf8(value).is_ok_and(|value| regex.is_match(value)),
            ValuePattern::Present => true,
        }
    }
}

fn query_matches(name: &str, pattern: &ValuePattern, query: Option<&str>) -> bool {
    let Some(query) = query else { return false };
    query.split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key == name && pattern.matches(value.as_bytes())
    })
}
