//! The paths of one host: where to look for candidates, the best first.

use regex::{Regex, RegexSet};

use super::params::Params;
use super::{Map, PathPattern, Segment};

/// Routes that agree in host and path, as indices into the router's conditions, the best first.
type Candidates = Vec<u32>;

/// The paths of one host.
#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: Map<Candidates>,
    templates: Templates,
    regexes: Regexes,
    prefixes: Prefixes,
}

impl Paths {
    /// Adds a route. Routes come in the order of the file.
    pub(super) fn insert(&mut self, pattern: &PathPattern, candidate: u32) {
        let candidates = match pattern {
            PathPattern::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
            PathPattern::Template { segments, rest } => self.templates.entry(segments, *rest),
            PathPattern::Regex(regex) => self.regexes.entry(regex),
            PathPattern::Prefix(prefix) => self.prefixes.entry(prefix),
        };
        // A host may be listed twice.
        if candidates.last() != Some(&candidate) {
            candidates.push(candidate);
        }
    }

    /// Puts the candidates of each path in order, once all are there.
    pub(super) fn finish<K: Ord>(&mut self, rank: impl Fn(u32) -> K) {
        let templates = self.templates.nodes.iter_mut().flat_map(|node| [&mut node.end, &mut node.rest]);
        let prefixes = self.prefixes.nodes.iter_mut().map(|node| &mut node.candidates);
        let regexes = self.regexes.all.iter_mut().map(|(_, candidates)| candidates);
        for candidates in self.exact.values_mut().chain(templates).chain(regexes).chain(prefixes) {
            // Stable, so the order of the file decides between equals.
            candidates.sort_by_key(|candidate| rank(*candidate));
        }
        self.regexes.finish();
    }

    /// Calls `visit` with the candidates of each pattern that matches, the best first, until it gives something.
    pub(super) fn visit<R>(&self, path: &str, visit: &mut impl FnMut(&[u32], Params) -> Option<R>) -> Option<R> {
        // The asterisk form names no path, so that only a route for everything takes it.
        if !path.starts_with('/') {
            return self.prefixes.visit_all(path, visit);
        }
        let exact = self.exact.get(path).and_then(|candidates| visit(candidates, Params::default()));
        exact
            .or_else(|| self.templates.visit(0, path, Some(1), Params::default(), visit))
            .or_else(|| self.regexes.visit(path, visit))
            .or_else(|| self.prefixes.visit(path, visit))
    }
}

/// The segment of `path` that starts at `start`: where it ends, and where the next one starts.
fn segment(path: &str, start: usize) -> (&str, Option<usize>) {
    match path[start..].split_once('/') {
        Some((segment, _)) => (segment, Some(start + segment.len() + 1)),
        None => (&path[start..], None),
    }
}

/// Templates as a tree, a level for each segment. Node 0 is the root.
#[derive(Debug)]
struct Templates {
    nodes: Vec<TemplateNode>,
}

#[derive(Debug, Default)]
struct TemplateNode {
    text: Map<u32>,
    param: Option<u32>,
    /// Templates that end here.
    end: Candidates,
    /// Templates that go on with `/*` here.
    rest: Candidates,
}

impl Default for Templates {
    fn default() -> Self {
        Templates { nodes: vec![TemplateNode::default()] }
    }
}

impl Templates {
    fn entry(&mut self, segments: &[Segment], rest: bool) -> &mut Candidates {
        let mut at = 0;
        for segment in segments {
            let new = self.nodes.len() as u32;
            let next = match segment {
                Segment::Text(text) => *self.nodes[at].text.entry(text.as_str().into()).or_insert(new),
                Segment::Param(_) => *self.nodes[at].param.get_or_insert(new),
            };
            if next == new {
                self.nodes.push(TemplateNode::default());
            }
            at = next as usize;
        }
        let node = &mut self.nodes[at];
        if rest { &mut node.rest } else { &mut node.end }
    }

    /// Text before a parameter before the rest, at each segment. `start` is where the next segment starts, if
    /// there is one. The depth is that of the deepest template, and a template has few parameters, so that even
    /// a path made for the purpose visits few nodes.
    fn visit<R>(
        &self,
        node: u32,
        path: &str,
        start: Option<usize>,
        params: Params,
        visit: &mut impl FnMut(&[u32], Params) -> Option<R>,
    ) -> Option<R> {
        let node = &self.nodes[node as usize];
        let mut found = None;
        if let Some(start) = start {
            let (segment, next) = segment(path, start);
            if let Some(child) = node.text.get(segment) {
                found = self.visit(*child, path, next, params, visit);
            }
            if let (None, Some(child), false) = (&found, node.param, segment.is_empty()) {
                found = self.visit(child, path, next, params.with(start, start + segment.len()), visit);
            }
        } else if !node.end.is_empty() {
            found = visit(&node.end, params);
        }
        if found.is_none() && !node.rest.is_empty() {
            found = visit(&node.rest, params.with(start.unwrap_or(path.len()), path.len()));
        }
        found
    }
}

/// Regular expressions in the order of the file.
#[derive(Debug, Default)]
struct Regexes {
    all: Vec<(Regex, Candidates)>,
    /// All of them in one automaton, where there are several and they fit: one pass says which match.
    set: Option<RegexSet>,
}

impl Regexes {
    fn entry(&mut self, regex: &Regex) -> &mut Candidates {
        let known = self.all.iter().position(|(known, _)| known.as_str() == regex.as_str());
        let index = known.unwrap_or_else(|| {
            self.all.push((regex.clone(), Candidates::new()));
            self.all.len() - 1
        });
        &mut self.all[index].1
    }

    fn finish(&mut self) {
        if self.all.len() > 1 {
            // Too large for one automaton is no error: they are tried one by one then.
            self.set = RegexSet::new(self.all.iter().map(|(regex, _)| regex.as_str())).ok();
        }
    }

    fn visit<R>(&self, path: &str, visit: &mut impl FnMut(&[u32], Params) -> Option<R>) -> Option<R> {
        if let Some(set) = &self.set {
            return set.matches(path).into_iter().find_map(|index| one_regex(&self.all[index], path, visit));
        }
        self.all.iter().find_map(|one| one_regex(one, path, visit))
    }
}

fn one_regex<R>(
    (regex, candidates): &(Regex, Candidates),
    path: &str,
    visit: &mut impl FnMut(&[u32], Params) -> Option<R>,
) -> Option<R> {
    let captures = regex.captures(path)?;
    let named = regex.capture_names().enumerate().filter(|(_, name)| name.is_some());
    let params = named.fold(Params::default(), |params, (index, _)| {
        let range = captures.get(index).map_or(0..0, |group| group.range());
        params.with(range.start, range.end)
    });
    visit(candidates, params)
}

/// Prefixes as a tree, a level for each segment. Node 0 is the root: the prefix of everything.
#[derive(Debug)]
struct Prefixes {
    nodes: Vec<PrefixNode>,
}

#[derive(Debug, Default)]
struct PrefixNode {
    children: Map<u32>,
    /// The root is its own parent.
    parent: u32,
    /// Bytes of the prefix.
    bytes: usize,
    candidates: Candidates,
}

impl Default for Prefixes {
    fn default() -> Self {
        Prefixes { nodes: vec![PrefixNode::default()] }
    }
}

impl Prefixes {
    fn entry(&mut self, prefix: &str) -> &mut Candidates {
        let mut at = 0;
        for segment in prefix.split('/').skip(1) {
            let new = self.nodes.len() as u32;
            let next = *self.nodes[at].children.entry(segment.into()).or_insert(new);
            if next == new {
                let bytes = self.nodes[at].bytes + 1 + segment.len();
                self.nodes.push(PrefixNode { parent: at as u32, bytes, ..PrefixNode::default() });
            }
            at = next as usize;
        }
        &mut self.nodes[at].candidates
    }

    /// Down as far as the path goes, then back up: the longest prefix comes first.
    fn visit<R>(&self, path: &str, visit: &mut impl FnMut(&[u32], Params) -> Option<R>) -> Option<R> {
        let mut at = 0;
        let mut start = Some(1);
        while let Some(here) = start {
            let (segment, next) = segment(path, here);
            let Some(child) = self.nodes[at].children.get(segment) else { break };
            (at, start) = (*child as usize, next);
        }
        loop {
            let node = &self.nodes[at];
            if !node.candidates.is_empty() {
                let found = visit(&node.candidates, rest_of(path, node.bytes));
                if found.is_some() {
                    return found;
                }
            }
            if at == 0 {
                return None;
            }
            at = node.parent as usize;
        }
    }

    /// The candidates of `/*` only.
    fn visit_all<R>(&self, path: &str, visit: &mut impl FnMut(&[u32], Params) -> Option<R>) -> Option<R> {
        visit(&self.nodes[0].candidates, Params::default().with(path.len(), path.len()))
    }
}

/// What follows a prefix of this many bytes and the slash behind it.
fn rest_of(path: &str, prefix_bytes: usize) -> Params {
    Params::default().with(path.len().min(prefix_bytes + 1), path.len())
}
