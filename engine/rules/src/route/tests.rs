//! The rules of precedence, one table each, and the router against a scan of all routes.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::cmp::Reverse;

use proptest::prelude::*;
use sluice_wire::head::{FieldLine, FieldTable, Name, Request, RequestHead, Span};

use super::*;

/// A request head as the parser would leave it.
struct Head {
    bytes: Vec<u8>,
    head: RequestHead,
}

fn head(method: &str, fields: &[(&str, &str)]) -> Head {
    let mut bytes = format!("{method} / HTTP/1.1\r\n").into_bytes();
    let mut table = FieldTable::default();
    for (name, value) in fields {
        let start = bytes.len();
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        let value_start = start + name.len() + 2;
        table.push(FieldLine {
            name: Name::of(name.as_bytes()),
            name_span: Span::new(start..start + name.len()),
            value_span: Span::new(value_start..value_start + value.len()),
            line: Span::new(start..bytes.len()),
        });
    }
    let head = RequestHead { method: Span::new(0..method.len()), fields: table, ..RequestHead::default() };
    Head { bytes, head }
}

impl Head {
    fn lookup<'a>(&'a self, host: &'a str, path: &'a str, query: Option<&'a str>) -> Lookup<'a> {
        Lookup { host, path, query, request: Request { bytes: &self.bytes, head: &self.head } }
    }
}

/// A path as it stands in a file. `~` starts a regular expression.
fn path(text: &str) -> PathPattern {
    if let Some(regex) = text.strip_prefix('~') {
        return PathPattern::regex(regex).unwrap();
    }
    let (text, rest) = text.strip_suffix("/*").map_or((text, false), |prefix| (prefix, true));
    if !text.contains('{') {
        return if rest { PathPattern::Prefix(text.into()) } else { PathPattern::Exact(text.into()) };
    }
    let param = |segment: &str| segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')).map(str::to_owned);
    let segment = |s: &str| param(s).map_or_else(|| Segment::Text(s.into()), Segment::Param);
    PathPattern::Template { segments: text.split('/').skip(1).map(segment).collect(), rest }
}

fn host(text: &str) -> HostPattern {
    match text.strip_prefix("*.") {
        Some(domain) => HostPattern::Below(domain.into()),
        None => HostPattern::Exact(text.into()),
    }
}

fn matcher(pattern: &str) -> Matcher {
    Matcher { hosts: vec![], path: path(pattern), methods: vec![], headers: vec![], query: vec![] }
}

fn with_hosts(pattern: &str, hosts: &[&str]) -> Matcher {
    Matcher { hosts: hosts.iter().map(|text| host(text)).collect(), ..matcher(pattern) }
}

fn with_methods(pattern: &str, methods: &[&str]) -> Matcher {
    Matcher { methods: methods.iter().map(|m| m.to_string()).collect(), ..matcher(pattern) }
}

fn present(names: &[&str]) -> Vec<(String, ValuePattern)> {
    names.iter().map(|name| (name.to_string(), ValuePattern::Present)).collect()
}

fn router(matchers: &[Matcher]) -> Router {
    Router::new((0..).map(RouteId).zip(matchers))
}

/// The route that answers `GET path` at `host`, by its place in the list.
fn answer(router: &Router, host: &str, path: &str) -> Option<u32> {
    router.find(&head("GET", &[]).lookup(host, path, None)).ok().map(|found| found.route.0)
}

#[test]
fn the_more_exact_host_comes_first() {
    let router = router(&[
        matcher("/*"),
        with_hosts("/*", &["*.example.com"]),
        with_hosts("/*", &["*.b.example.com"]),
        with_hosts("/*", &["a.b.example.com", "example.org"]),
    ]);
    for (host, expected) in [
        ("a.b.example.com", 3),
        ("a.b.example.com.", 3),
        ("example.org", 3),
        ("x.b.example.com", 2),
        ("x.y.b.example.com", 2),
        ("b.example.com", 1),
        ("xb.example.com", 1),
        // A wildcard needs a label, and whole labels.
        ("example.com", 0),
        (".example.com", 0),
        ("badexample.com", 0),
        ("", 0),
    ] {
        assert_eq!(answer(&router, host, "/"), Some(expected), "{host}");
    }
}

#[test]
fn the_host_outranks_the_path() {
    let router = router(&[matcher("/exact"), with_hosts("/*", &["*.example.com"])]);
    assert_eq!(answer(&router, "a.example.com", "/exact"), Some(1));
    assert_eq!(answer(&router, "example.net", "/exact"), Some(0));
}

#[test]
fn exact_then_template_then_regex_then_prefix() {
    let patterns = ["/*", "/users/*", "~/users/[0-9]+", "/users/{id}", "/users/7"];
    let router = router(&patterns.map(matcher));
    for (path, expected) in [("/users/7", 4), ("/users/8", 3), ("/users/8/x", 1), ("/users", 1), ("/other", 0)] {
        assert_eq!(answer(&router, "", path), Some(expected), "{path}");
    }
    // With the template out of the way.
    let router = self::router(&[matcher("/users/*"), matcher("~/users/[0-9]+")]);
    assert_eq!(answer(&router, "", "/users/8"), Some(1));
    assert_eq!(answer(&router, "", "/users/8a"), Some(0), "an expression has to match the whole path");
}

#[test]
fn of_templates_text_comes_before_a_parameter_before_the_rest() {
    let patterns = ["/{a}/{b}", "/{a}/b", "/a/{b}", "/a/{b}/*", "/{a}/{b}/*", "/{a}/*"];
    let router = router(&patterns.map(matcher));
    for (path, expected) in
        [("/a/b", 2), ("/a/x", 2), ("/x/b", 1), ("/x/y", 0), ("/a/b/c", 3), ("/a/b/", 3), ("/x/y/z", 4), ("/x", 5)]
    {
        assert_eq!(answer(&router, "", path), Some(expected), "{path}");
    }
}

#[test]
fn a_parameter_takes_one_segment_that_is_not_empty() {
    let router = router(&[matcher("/users/{id}"), matcher("/users/{id}/")]);
    for (path, expected) in [
        ("/users/7", Some(0)),
        ("/users/7/", Some(1)),
        ("/users/", None),
        ("/users", None),
        ("/users//", None),
        ("/users/7/x", None),
    ] {
        assert_eq!(answer(&router, "", path), expected, "{path}");
    }
}

#[test]
fn expressions_come_in_the_order_of_the_file() {
    let router = router(&[matcher("~/a.*"), matcher("~/ab.*"), with_methods("~/a.*", &["GET"])]);
    assert_eq!(answer(&router, "", "/abc"), Some(2), "the same expression is the same path, so the method decides");
    let router = self::router(&[matcher("~/ab.*"), matcher("~/a.*")]);
    assert_eq!(answer(&router, "", "/abc"), Some(0));
    assert_eq!(answer(&router, "", "/acc"), Some(1));
}

#[test]
fn the_longest_prefix_of_whole_segments_wins() {
    let router = router(&["/*", "/a/*", "/a/b/*"].map(matcher));
    for (path, expected) in
        [("/a/b", 2), ("/a/b/", 2), ("/a/b/c/d", 2), ("/a/bc", 1), ("/a", 1), ("/a/", 1), ("/ab", 0), ("/", 0)]
    {
        assert_eq!(answer(&router, "", path), Some(expected), "{path}");
    }
}

#[test]
fn a_route_that_names_methods_comes_first_then_more_fields_then_more_parameters_then_the_file() {
    let request = head("GET", &[("X-A", "1"), ("x-b", "2"), ("Via", "1.1 x")]);
    let answer = |matchers: &[Matcher]| {
        let found = router(matchers).find(&request.lookup("", "/", Some("p=1&q"))).unwrap();
        found.route.0
    };
    let plain = matcher("/*");
    let get = with_methods("/*", &["GET"]);
    let a = Matcher { headers: present(&["x-a"]), ..matcher("/*") };
    let ab = Matcher { headers: present(&["x-a", "via"]), ..matcher("/*") };
    let p = Matcher { query: present(&["p"]), ..matcher("/*") };
    let pq = Matcher { query: present(&["p", "q"]), ..matcher("/*") };
    assert_eq!(answer(&[plain.clone(), get.clone()]), 1);
    assert_eq!(answer(&[ab.clone(), get.clone()]), 1);
    assert_eq!(answer(&[plain.clone(), a.clone(), ab.clone()]), 2);
    assert_eq!(answer(&[plain.clone(), p.clone(), pq.clone()]), 2);
    assert_eq!(answer(&[pq.clone(), a.clone()]), 1);
    assert_eq!(answer(&[plain.clone(), plain.clone()]), 0);
}

#[test]
fn fields_and_parameters_are_compared_with_every_line_of_their_name() {
    let request = head("GET", &[("X-Tier", "silver"), ("x-tier", "gold"), ("x-raw", "")]);
    let exact = |text: &str| ValuePattern::Exact(text.into());
    let regex = |text: &str| ValuePattern::Regex(Regex::new(text).unwrap());
    let cases = [
        ("x-tier", exact("gold"), true),
        ("x-tier", exact("Gold"), false),
        ("x-tier", regex("^sil"), true),
        ("x-tier", regex("^old"), false),
        ("x-raw", ValuePattern::Present, true),
        ("x-none", ValuePattern::Present, false),
    ];
    for (name, value, expected) in cases {
        let matcher = Matcher { headers: vec![(name.into(), value.clone())], ..matcher("/*") };
        let found = router(&[matcher]).find(&request.lookup("", "/", None));
        assert_eq!(found.is_ok(), expected, "{name} {value:?}");
    }
    let cases = [
        ("a", exact("1"), true),
        ("a", exact("2"), true),
        ("a", exact("3"), false),
        ("b", exact(""), true),
        ("c", exact("x=y"), true),
        ("d", ValuePattern::Present, false),
    ];
    for (name, value, expected) in cases {
        let matcher = Matcher { query: vec![(name.into(), value.clone())], ..matcher("/*") };
        let found = router(&[matcher]).find(&request.lookup("", "/", Some("a=1&a=2&b&c=x=y")));
        assert_eq!(found.is_ok(), expected, "{name} {value:?}");
    }
}

#[test]
fn where_the_best_path_fails_the_next_one_is_tried_down_to_any_host() {
    let router = router(&[
        matcher("/*"),
        Matcher { headers: present(&["x-none"]), ..matcher("/a/b") },
        Matcher { headers: present(&["x-none"]), ..matcher("/a/{b}") },
        Matcher { headers: present(&["x-none"]), ..matcher("/{a}/b") },
        with_hosts("/a/*", &["example.com"]),
    ]);
    assert_eq!(answer(&router, "example.com", "/a/b"), Some(4));
    assert_eq!(answer(&router, "example.com", "/b"), Some(0));
    assert_eq!(answer(&router, "example.net", "/a/b"), Some(0));
}

#[test]
fn a_miss_by_method_alone_names_the_methods_of_all_routes_that_match() {
    let router = router(&[
        with_methods("/a/*", &["GET", "HEAD"]),
        with_methods("/a/b", &["POST", "GET"]),
        Matcher { headers: present(&["x-none"]), ..with_methods("/a/b", &["PATCH"]) },
        with_methods("/c", &["PUT"]),
    ]);
    let allowed = |path: &str| match router.find(&head("DELETE", &[]).lookup("", path, None)) {
        Err(Missed::Method(methods)) => router.methods(methods).collect::<Vec<_>>().join(", "),
        other => format!("{other:?}"),
    };
    assert_eq!(allowed("/a/b"), "GET, HEAD, POST");
    assert_eq!(allowed("/c"), "PUT");
    assert_eq!(allowed("/d"), "Err(NotFound)");
    // Methods are case-sensitive.
    assert!(router.find(&head("get", &[]).lookup("", "/a/b", None)).is_err());
}

#[test]
fn only_a_route_for_everything_takes_the_asterisk_form() {
    let some = router(&[matcher("*"), matcher("~.*"), matcher("/{a}/*"), matcher("/a/*")]);
    assert_eq!(answer(&some, "", "*"), None);
    let all = router(&[matcher("/*")]);
    assert_eq!(answer(&all, "", "*"), Some(0));
}

#[test]
fn parameters_are_places_in_the_path_and_the_rest_is_the_last() {
    for (pattern, at, expected) in [
        ("/users/{id}", "/users/7", vec!["7"]),
        ("/{a}/x/{b}/*", "/1/x/2/3/4", vec!["1", "2", "3/4"]),
        ("/{a}/*", "/1", vec!["1", ""]),
        ("/{a}/*", "/1/", vec!["1", ""]),
        ("/a/*", "/a/b/c", vec!["b/c"]),
        ("/a/*", "/a/", vec![""]),
        ("/a/*", "/a", vec![""]),
        ("/*", "/a/b", vec!["a/b"]),
        ("/*", "/", vec![""]),
        ("/*", "*", vec![""]),
        ("/a", "/a", vec![]),
        ("~/(?<year>[0-9]{4})/(x|y)/(?<name>[a-z]+)(?<tail>/)?", "/2026/x/abc", vec!["2026", "abc", ""]),
    ] {
        let pattern = matcher(pattern);
        let found = router(std::slice::from_ref(&pattern)).find(&head("GET", &[]).lookup("", at, None)).unwrap();
        let values: Vec<_> = (0..found.params.len()).map(|index| found.params.get(index, at)).collect();
        assert_eq!(values, expected, "{at}");
        assert_eq!(found.params.len(), pattern.path.params().len(), "{at}");
        assert_eq!(found.params.get(Params::MAX, at), "");
    }
}

#[test]
fn a_path_longer_than_any_head_is_not_found() {
    let long = format!("/{}", "a".repeat(usize::from(u16::MAX)));
    assert_eq!(answer(&router(&[matcher("/*")]), "", &long), None);
}

/// The documented order, read off one route: the smallest comes first. `None` if host or path do not match.
type Rank = (Reverse<usize>, usize, Vec<u8>, usize, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>, usize);

fn rank(matchers: &[Matcher], index: usize, lookup: &Lookup<'_>) -> Option<Rank> {
    let matcher = &matchers[index];
    let by_host = |host: &HostPattern| match host {
        HostPattern::Exact(name) => (name == lookup.host).then_some(usize::MAX),
        HostPattern::Below(domain) => lookup
            .host
            .strip_suffix(domain.as_str())
            .is_some_and(|label| label.len() > 1 && label.ends_with('.'))
            .then_some(domain.len()),
    };
    let host =
        if matcher.hosts.is_empty() { 0 } else { matcher.hosts.iter().filter_map(by_host).max().filter(|n| *n > 0)? };
    let segments: Vec<&str> = lookup.path.split('/').skip(1).collect();
    let (kind, shape, order, prefix_bytes) = match &matcher.path {
        PathPattern::Exact(path) => (path == lookup.path).then_some((0, vec![], 0, 0))?,
        PathPattern::Template { segments: pattern, rest } => {
            let fits = pattern.len() == segments.len() || *rest && pattern.len() < segments.len();
            let same = pattern.iter().zip(&segments).all(|(pattern, segment)| match pattern {
                Segment::Text(text) => text == segment,
                Segment::Param(_) => !segment.is_empty(),
            });
            // Text, then the end, then a parameter, then the rest.
            let shape = pattern.iter().map(|pattern| if matches!(pattern, Segment::Text(_)) { 0 } else { 2 });
            (fits && same).then_some((1, shape.chain([if *rest { 3 } else { 1 }]).collect(), 0, 0))?
        }
        PathPattern::Regex(regex) => {
            let same = |other: &Matcher| matches!(&other.path, PathPattern::Regex(r) if r.as_str() == regex.as_str());
            let first = matchers.iter().position(|other| same(other) && other.hosts == matcher.hosts)?;
            regex.is_match(lookup.path).then_some((2, vec![], first, 0))?
        }
        PathPattern::Prefix(prefix) => {
            let rest = lookup.path.strip_prefix(prefix.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((3, vec![], 0, prefix.len()))?
        }
    };
    let (fields, query) = (Reverse(matcher.headers.len()), Reverse(matcher.query.len()));
    let no_methods = matcher.methods.is_empty();
    Some((Reverse(host), kind, shape, order, Reverse(prefix_bytes), no_methods, fields, query, index))
}

/// What the router has to find, by a scan of all routes.
fn scan(matchers: &[Matcher], lookup: &Lookup<'_>) -> Result<u32, Vec<String>> {
    let has_field = |name: &str| lookup.request.head.fields.values_of(lookup.request.bytes, name).next().is_some();
    let has_param =
        |name: &str| lookup.query.is_some_and(|query| query.split('&').any(|p| p.split('=').next() == Some(name)));
    let mut ranked: Vec<(Rank, usize)> = (0..matchers.len())
        .filter(|index| matchers[*index].headers.iter().all(|(name, _)| has_field(name)))
        .filter(|index| matchers[*index].query.iter().all(|(name, _)| has_param(name)))
        .filter_map(|index| Some((rank(matchers, index, lookup)?, index)))
        .collect();
    ranked.sort();
    let method = lookup.request.method();
    let allows =
        |index: usize| matchers[index].methods.is_empty() || matchers[index].methods.iter().any(|m| m == method);
    if let Some((_, index)) = ranked.iter().find(|(_, index)| allows(*index)) {
        return Ok(*index as u32);
    }
    let mut allowed: Vec<String> = ranked.iter().flat_map(|(_, index)| matchers[*index].methods.clone()).collect();
    allowed.sort();
    allowed.dedup();
    Err(allowed)
}

prop_compose! {
    /// A host and a path.
    fn any_place()(
        host_text in prop::option::of(prop::sample::select(vec!["a.x", "x", "*.x", "*.a.x", "b.a.x"])),
        segments in prop::collection::vec(prop::sample::select(vec!["a", "b", "{p}", ""]), 0..4),
        rest in any::<bool>(),
        regex in prop::option::weighted(0.2, prop::sample::select(vec!["~/a.*", "~/(?<q>a|b)/?", "~.*b", "~/a/[^/]*"])),
    ) -> Matcher {
        let plain = match (segments.join("/"), rest) {
            (text, true) if text.is_empty() => "/*".to_owned(),
            (text, true) => format!("/{text}/*"),
            (text, false) => format!("/{text}"),
        };
        Matcher { hosts: host_text.into_iter().map(host).collect(), ..matcher(regex.unwrap_or(&plain)) }
    }
}

prop_compose! {
    /// Routes of which several share a host and a path, so that their other conditions decide.
    fn any_matchers()(
        places in prop::collection::vec(any_place(), 1..6),
        conditions in prop::collection::vec((
            any::<prop::sample::Index>(),
            prop::sample::subsequence(vec!["GET", "PUT", "POST"], 0..=2),
            prop::sample::subsequence(vec!["via", "x-f"], 0..=2),
            prop::sample::subsequence(vec!["q", "r"], 0..=2),
        ), 0..24),
    ) -> Vec<Matcher> {
        let one = |(place, methods, fields, query): (prop::sample::Index, Vec<&str>, Vec<&str>, Vec<&str>)| Matcher {
            methods: methods.iter().map(|m| m.to_string()).collect(),
            headers: present(&fields),
            query: present(&query),
            ..place.get(&places).clone()
        };
        conditions.into_iter().map(one).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The index finds what a scan of all routes by the documented order finds.
    #[test]
    fn the_router_agrees_with_a_scan(
        matchers in any_matchers(),
        host in prop::sample::select(vec!["", "x", "a.x", "b.a.x", "c.a.x", "d.c.a.x", "y"]),
        segments in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ""]), 1..4),
        method in prop::sample::select(vec!["GET", "PUT", "DELETE"]),
        fields in prop::sample::subsequence(vec![("Via", "1"), ("X-F", "2")], 0..=2),
        query in prop::option::of(prop::sample::select(vec!["", "q=1", "r", "r=2&q", "q&r", "qq=1"])),
    ) {
        let head = head(method, &fields);
        let path = format!("/{}", segments.join("/"));
        let lookup = head.lookup(host, &path, query);
        let router = router(&matchers);
        let found = match router.find(&lookup) {
            Ok(found) => Ok(found.route.0),
            Err(Missed::NotFound) => Err(vec![]),
            Err(Missed::Method(set)) => {
                let mut methods: Vec<String> = router.methods(set).map(str::to_owned).collect();
                methods.sort();
                Err(methods)
            }
        };
        prop_assert_eq!(found, scan(&matchers, &lookup));
    }
}
