//! Routes that no request reaches, and routes between which only their order decides.
//!
//! Both follow the order in which a router tries routes, see `sluice_rules::route`. Only what is certain is noted: one
//! route that takes all of another's requests, not several that do so together.

use std::collections::{HashMap, HashSet};

use sluice_rules::route::{HostPattern, Matcher, PathPattern, Segment, ValuePattern};

use crate::error::{Code, Diagnostic};
use crate::read::{Context, Optional};
use crate::schema::Schema;

/// Routes that one is compared with, so that ten thousand are still checked in a moment.
const COMPARED_MAX: usize = 64;

/// A listener and a host for which a route is there.
type Spot<'m> = (usize, Option<&'m HostPattern>);

/// Notes routes that can never match, and ties.
pub(super) fn check(schema: &Schema, matchers: &[(Matcher, Vec<usize>)], context: &mut Context<'_>) {
    // What could not be read would make routes equal that are not.
    let sound =
        |index: &usize| !schema.route.doubtful[*index] && !matches!(schema.route[*index].listener, Optional::Broken);
    let wide = Wide::of(matchers, (0..matchers.len()).filter(sound));
    let mut earlier = Earlier::default();
    for index in (0..matchers.len()).filter(sound) {
        let (matcher, listeners) = &matchers[index];
        let keys = Keys::of(matcher);
        let spots = spots(matcher, listeners);
        let find = |spot: &Spot<'_>| {
            earlier.hider(matchers, *spot, &keys, matcher).or_else(|| wide.hider(matchers, *spot, matcher))
        };
        let mut hiders: Vec<usize> = spots.iter().map_while(find).collect();
        if hiders.len() == spots.len() && !hiders.is_empty() {
            hiders.sort_unstable();
            hiders.dedup();
            let place = schema.route[index].place;
            let mut note =
                Diagnostic::error(Code::NeverMatches, place, "no request reaches the route").label("can never match");
            for hider in hiders.into_iter().take(3) {
                note = note.related(schema.route[hider].place, why(&matchers[hider].0.path, &matcher.path));
            }
            context.push(note);
        } else if let Some(other) = spots.iter().find_map(|spot| earlier.tie(matchers, *spot, &keys, matcher)) {
            let note = Diagnostic::warning(
                Code::Tie,
                schema.route[index].place,
                "only their order decides between two routes",
            );
            let note = note
                .label("equally exact, and some requests match both")
                .related(schema.route[other].place, "comes first");
            context.push(note.help("name what parts them in `methods`, `headers` or `query` of both"));
        }
        for spot in spots {
            earlier.insert(spot, &keys, matcher, index);
        }
    }
}

fn why(hider: &PathPattern, hidden: &PathPattern) -> &'static str {
    match (hider, hidden) {
        (PathPattern::Template { .. }, PathPattern::Prefix(_)) => {
            "takes its requests: {parameters} come before a prefix"
        }
        (PathPattern::Regex(_), PathPattern::Prefix(_)) => "takes its requests: a regex comes before a prefix",
        _ => "takes its requests: it comes first",
    }
}

fn spots<'m>(matcher: &'m Matcher, listeners: &[usize]) -> Vec<Spot<'m>> {
    let hosts: Vec<_> = if matcher.hosts.is_empty() { vec![None] } else { matcher.hosts.iter().map(Some).collect() };
    listeners.iter().flat_map(|listener| hosts.iter().map(|host| (*listener, *host))).collect()
}

/// What a route matches beside its host, as texts that are equal for equal conditions.
struct Keys {
    path: String,
    /// Whether it names methods, and the names of its fields and parameters: routes of one path that agree in it are
    /// tried in the order of the file, and no others can hide each other.
    names: String,
    /// The values of all fields and parameters.
    values: String,
    /// Whether every value is an exact one.
    exact: bool,
}

impl Keys {
    fn of(matcher: &Matcher) -> Keys {
        let joined = |pairs: &[(String, ValuePattern)], show: fn(&(String, ValuePattern)) -> String| {
            let mut texts: Vec<String> = pairs.iter().map(show).collect();
            texts.sort();
            texts.join("\n")
        };
        let name = |(name, _): &(String, ValuePattern)| name.clone();
        let value = |(name, value): &(String, ValuePattern)| match value {
            ValuePattern::Exact(text) => format!("{name}={text}"),
            ValuePattern::Regex(regex) => format!("{name}~{regex}"),
            ValuePattern::Present => format!("{name}?"),
        };
        let (headers, query) = (&matcher.headers, &matcher.query);
        let exact = |(_, value): &(String, ValuePattern)| matches!(value, ValuePattern::Exact(_));
        Keys {
            path: path_key(&matcher.path),
            names: format!("{}\n\n{}\n\n{}", matcher.methods.is_empty(), joined(headers, name), joined(query, name)),
            values: format!("{}\n\n{}", joined(headers, value), joined(query, value)),
            exact: headers.iter().chain(query).all(exact),
        }
    }
}

fn path_key(path: &PathPattern) -> String {
    match path {
        PathPattern::Exact(path) => format!("={path}"),
        PathPattern::Prefix(prefix) => format!("{prefix}/*"),
        PathPattern::Regex(regex) => format!("~{regex}"),
        PathPattern::Template { segments, rest } => {
            segments.iter().map(segment_key).chain(rest.then(|| "/*".to_owned())).collect()
        }
    }
}

fn segment_key(segment: &Segment) -> String {
    match segment {
        Segment::Text(text) => format!("/{text}"),
        Segment::Param(_) => "/{}".to_owned(),
    }
}

/// The routes that stand before one in the file.
#[derive(Default)]
struct Earlier<'m> {
    /// By path, names and values.
    equal: HashMap<(Spot<'m>, String), Vec<usize>>,
    /// Those whose values are not all exact, by path and names.
    loose: HashMap<(Spot<'m>, String), Vec<usize>>,
    /// By path and rank.
    ranked: HashMap<(Spot<'m>, String), Vec<usize>>,
}

impl<'m> Earlier<'m> {
    /// A route of the same path that takes all requests of another.
    fn hider(
        &self,
        matchers: &[(Matcher, Vec<usize>)],
        spot: Spot<'_>,
        keys: &Keys,
        matcher: &Matcher,
    ) -> Option<usize> {
        let equal = self.equal.get(&(spot, Self::equal_key(keys)));
        let loose = self.loose.get(&(spot, Self::loose_key(keys)));
        let both = equal.into_iter().chain(loose).flat_map(|routes| routes.iter().take(COMPARED_MAX));
        both.copied().find(|other| implies(matcher, &matchers[*other].0))
    }

    /// A route of the same path and rank that takes some of its requests, without one of them being the special case
    /// of the other, for which an order is the natural thing.
    fn tie(&self, matchers: &[(Matcher, Vec<usize>)], spot: Spot<'_>, keys: &Keys, matcher: &Matcher) -> Option<usize> {
        let ranked = self.ranked.get(&(spot, Self::rank_key(keys, matcher)))?;
        ranked.iter().take(COMPARED_MAX).copied().find(|other| {
            let other = &matchers[*other].0;
            overlaps(matcher, other) && !implies(matcher, other) && !implies(other, matcher)
        })
    }

    fn insert(&mut self, spot: Spot<'m>, keys: &Keys, matcher: &Matcher, index: usize) {
        self.equal.entry((spot, Self::equal_key(keys))).or_default().push(index);
        if !keys.exact {
            self.loose.entry((spot, Self::loose_key(keys))).or_default().push(index);
        }
        self.ranked.entry((spot, Self::rank_key(keys, matcher))).or_default().push(index);
    }

    fn equal_key(keys: &Keys) -> String {
        format!("{}\n{}\n{}", keys.path, keys.names, keys.values)
    }

    fn loose_key(keys: &Keys) -> String {
        format!("{}\n{}", keys.path, keys.names)
    }

    fn rank_key(keys: &Keys, matcher: &Matcher) -> String {
        let (headers, query) = (matcher.headers.len(), matcher.query.len());
        format!("{}\n{} {headers} {query}", keys.path, matcher.methods.is_empty())
    }
}

/// Routes that are tried before every prefix and may take all of its requests, wherever they stand in the file:
/// templates that end in `/*`, and expressions that match everything.
#[derive(Default)]
struct Wide<'m> {
    routes: HashMap<(Spot<'m>, String), Vec<usize>>,
    /// Which segments of the templates are parameters.
    shapes: HashSet<Vec<bool>>,
}

impl<'m> Wide<'m> {
    const EVERYTHING: &'static str = "~";

    fn of(matchers: &'m [(Matcher, Vec<usize>)], indices: impl Iterator<Item = usize>) -> Self {
        let mut wide = Wide::default();
        for index in indices {
            let (matcher, listeners) = &matchers[index];
            let key = match &matcher.path {
                PathPattern::Template { segments, rest: true } => {
                    wide.shapes.insert(segments.iter().map(|segment| matches!(segment, Segment::Param(_))).collect());
                    segments.iter().map(segment_key).collect()
                }
                PathPattern::Regex(regex) if ["^(?:.*)$", "^(?:/.*)$"].contains(&regex.as_str()) => {
                    Self::EVERYTHING.to_owned()
                }
                PathPattern::Exact(_)
                | PathPattern::Prefix(_)
                | PathPattern::Template { .. }
                | PathPattern::Regex(_) => {
                    continue;
                }
            };
            for spot in spots(matcher, listeners) {
                wide.routes.entry((spot, key.clone())).or_default().push(index);
            }
        }
        wide
    }

    fn hider(&self, matchers: &[(Matcher, Vec<usize>)], spot: Spot<'_>, matcher: &Matcher) -> Option<usize> {
        // Only `/*` takes requests about the server as a whole, so nothing hides it.
        let PathPattern::Prefix(prefix) = &matcher.path else { return None };
        let segments: Vec<&str> = prefix.split('/').skip(1).collect();
        if segments.is_empty() {
            return None;
        }
        let fitting = self.shapes.iter().take(COMPARED_MAX).filter(|shape| shape.len() <= segments.len());
        let fitting =
            fitting.filter(|shape| shape.iter().zip(&segments).all(|(param, text)| !param || !text.is_empty()));
        let key = |shape: &Vec<bool>| {
            let pairs = shape.iter().zip(&segments);
            pairs.map(|(param, text)| if *param { "/{}".to_owned() } else { format!("/{text}") }).collect::<String>()
        };
        fitting.map(key).chain([Self::EVERYTHING.to_owned()]).find_map(|key| {
            let routes = self.routes.get(&(spot, key))?;
            routes.iter().take(COMPARED_MAX).copied().find(|other| implies(matcher, &matchers[*other].0))
        })
    }
}

/// Whether a request that meets the conditions of `special` beside host and path meets those of `general` too.
fn implies(special: &Matcher, general: &Matcher) -> bool {
    let methods = general.methods.is_empty()
        || !special.methods.is_empty() && special.methods.iter().all(|method| general.methods.contains(method));
    let pairs = |special: &[(String, ValuePattern)], general: &[(String, ValuePattern)]| {
        general
            .iter()
            .all(|(name, value)| special.iter().any(|(other, narrow)| name == other && value_implies(narrow, value)))
    };
    methods && pairs(&special.headers, &general.headers) && pairs(&special.query, &general.query)
}

fn value_implies(special: &ValuePattern, general: &ValuePattern) -> bool {
    match (special, general) {
        (_, ValuePattern::Present) => true,
        (ValuePattern::Exact(special), ValuePattern::Exact(general)) => special == general,
        (ValuePattern::Exact(text), ValuePattern::Regex(regex)) => regex.is_match(text),
        (ValuePattern::Regex(special), ValuePattern::Regex(general)) => special.as_str() == general.as_str(),
        (ValuePattern::Present, _) | (ValuePattern::Regex(_), ValuePattern::Exact(_)) => false,
    }
}

/// Whether some request certainly meets the conditions of both.
fn overlaps(one: &Matcher, other: &Matcher) -> bool {
    let methods = one.methods.is_empty() && other.methods.is_empty()
        || one.methods.iter().any(|method| other.methods.contains(method));
    let pairs = |one: &[(String, ValuePattern)], other: &[(String, ValuePattern)]| {
        one.iter().all(|(name, value)| {
            other
                .iter()
                .filter(|(known, _)| known == name)
                .all(|(_, known)| value_implies(value, known) || value_implies(known, value))
        })
    };
    methods && pairs(&one.headers, &other.headers) && pairs(&one.query, &other.query)
}
