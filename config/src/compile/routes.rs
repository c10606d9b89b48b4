//! Routes: what they match, what they do, and whether any request can reach them.

use std::collections::{HashMap, HashSet};

use sluice_rules::route::{Matcher, MethodSet, PathPattern, Router, Segment};
use sluice_rules::snapshot::{Action, Route, RouteId, UpstreamId};
use sluice_wire::target;

use super::{cache, check_unique, listener_name, reach, target_policy, templates};
use crate::error::{Code, Diagnostic, Place};
use crate::read::{At, Context, Optional};
use crate::schema::{self, Schema};

/// All routes, compiled.
pub(super) struct Compiled {
    /// `None`: some route could not be compiled.
    pub(super) routes: Option<Vec<Route>>,
    /// Upstreams that some route sends to.
    pub(super) used: HashSet<UpstreamId>,
    /// What each route matches, and the listeners where it applies.
    pub(super) matchers: Vec<(Matcher, Vec<usize>)>,
    sound: bool,
}

impl Compiled {
    /// The router of a listener. Empty if there are errors, since then nobody will use it.
    pub(super) fn router(&self, listener: usize) -> Router {
        let ids = (0..).map(RouteId);
        let here = ids.zip(&self.matchers).filter(|(_, (_, listeners))| self.sound && listeners.contains(&listener));
        Router::new(here.map(|(id, (matcher, _))| (id, matcher)))
    }

    /// Whether some route is there for a listener.
    pub(super) fn applies(&self, listener: usize) -> bool {
        self.matchers.iter().any(|(_, listeners)| listeners.contains(&listener))
    }
}

/// Compiles all routes and notes what is wrong with them.
pub(super) fn compile(schema: &Schema, context: &mut Context<'_>) -> Compiled {
    let mut used = HashSet::new();
    let mut names = HashMap::new();
    let mut routes = Some(Vec::new());
    let mut matchers = Vec::new();
    let all: Vec<String> = schema.listener.iter().map(|listener| listener_name(listener)).collect();
    let upstreams: HashMap<&str, usize> =
        schema.upstream.items.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
    for ((index, table), doubtful) in schema.route.iter().enumerate().zip(&schema.route.doubtful) {
        if let Some(name) = table.name.given() {
            let message = format!("two routes are named {}", context.written(name.place));
            check_unique(&mut names, name.0.as_str(), name.place, || message, context);
        }
        let matcher = matcher(table);
        let listeners = listeners(schema, &all, table, context);
        check_path(schema, table, &listeners, context);
        let action = action(schema, table, *doubtful, &upstreams, &matcher.path, context);
        used.extend(action.iter().filter_map(|action| match action {
            Action::Forward(upstream) => Some(*upstream),
            Action::Redirect { .. } | Action::Respond { .. } => None,
        }));
        let rewrite = templates::rewrite(table, &matcher.path, context);
        let cache = cache::policy(schema, table, context);
        matchers.push((matcher, listeners));
        let route = action.map(|action| Route {
            name: route_name(index, table),
            action,
            rewrite,
            timeout: table.timeout.given().map(|timeout| timeout.0),
            body_bytes: table.limits.given().and_then(|limits| limits.0.body.given().map(|body| body.0)),
            upgrade: table.upgrade.iter().map(|protocol| protocol.0.clone()).collect(),
            trailers: table.trailers.iter().map(|name| name.0.clone()).collect(),
            cache,
        });
        routes = routes.zip(route).map(|(mut routes, route)| {
            routes.push(route);
            routes
        });
    }
    reach::check(schema, &matchers, context);
    let sound = check_methods(schema, context);
    Compiled { routes, used, matchers, sound }
}

/// The name from the file, or one that counts.
pub(super) fn route_name(index: usize, table: &schema::Route) -> String {
    table.name.given().map_or_else(|| format!("route {}", index + 1), |name| name.0.clone())
}

fn matcher(table: &schema::Route) -> Matcher {
    let hosts = table.host.given().map(|hosts| hosts.0.iter().map(|host| host.0.clone()).collect());
    let methods = table.methods.given().map(|methods| methods.0.iter().map(|method| method.0.clone()).collect());
    let pairs = |pairs: &[(At<String>, At<crate::matching::ValueMatch>)]| {
        pairs.iter().map(|(name, value)| (name.value.clone(), value.0.clone())).collect::<Vec<_>>()
    };
    Matcher {
        hosts: hosts.unwrap_or_default(),
        path: table.path.0.clone(),
        methods: methods.unwrap_or_default(),
        headers: table.headers.given().map(|headers| pairs(&headers.0)).unwrap_or_default(),
        query: table.query.given().map(|query| pairs(&query.0)).unwrap_or_default(),
    }
}

/// Indices of the listeners where a route applies.
fn listeners(schema: &Schema, all: &[String], table: &schema::Route, context: &mut Context<'_>) -> Vec<usize> {
    let names = match &table.listener {
        Optional::Absent => return (0..all.len()).collect(),
        // Where it applies is unknown, so nothing more can be said of it.
        Optional::Broken => return Vec::new(),
        Optional::Given(names) => &names.0,
    };
    let mut found = Vec::new();
    for name in &names.items {
        match all.iter().position(|listener| *listener == name.0) {
            Some(index) => found.push(index),
            // It may be the name of a listener that could not be read.
            None if !schema.listener.complete => {}
            None => dangling("listener", name, all.iter().map(String::as_str), context),
        }
    }
    found
}

/// Notes a name of something that does not exist.
pub(super) fn dangling<'n>(
    what: &str,
    name: &At<crate::values::Name>,
    known: impl Iterator<Item = &'n str>,
    context: &mut Context<'_>,
) {
    let message = format!("there is no {what} {}", context.written(name.place));
    let note = Diagnostic::error(Code::DanglingName, name.place, message).label("not found");
    context.push(if context.is_substituted(name.place) { note } else { note.did_you_mean(&name.0, known) });
}

/// Notes a path that normalising would change, so that no request ever has it.
fn check_path(schema: &Schema, table: &schema::Route, listeners: &[usize], context: &mut Context<'_>) {
    let written = match &table.path.0 {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(prefix) => format!("{prefix}/"),
        PathPattern::Template { segments, .. } => segments.iter().fold(String::new(), |path, segment| match segment {
            Segment::Text(text) => path + "/" + text,
            Segment::Param(_) => path + "/x",
        }),
        PathPattern::Regex(_) => return,
    };
    let mut normal = target::Target::default();
    let mut why = None;
    for listener in listeners {
        let read = normal.read("GET", written.as_bytes(), target_policy(&schema.listener[*listener]));
        match read {
            Ok(()) if normal.as_str() == written && !written.contains('?') => return,
            Ok(()) => why = Some(format!("requests for it arrive as `{}`", normal.as_str())),
            Err(error) => why = Some(format!("requests for it are refused: {error}")),
        }
    }
    if let Some(mut why) = why {
        if context.is_substituted(table.path.place) {
            why = "after `${...}` was replaced".to_owned();
        }
        let message = format!("no request has the path {}", context.written(table.path.place));
        context.push(Diagnostic::error(Code::NeverMatches, table.path.place, message).label(why));
    }
}

/// What the route does. `None`: that is unclear, and a diagnostic says why.
fn action(
    schema: &Schema,
    table: &At<schema::Route>,
    doubtful: bool,
    upstreams: &HashMap<&str, usize>,
    path: &PathPattern,
    context: &mut Context<'_>,
) -> Option<Action> {
    let written: Vec<Option<Place>> = [
        (!table.upstream.is_absent(), table.upstream.given().and_then(|given| given.place)),
        (!table.redirect.is_absent(), table.redirect.given().and_then(|given| given.place)),
        (!table.respond.is_absent(), table.respond.given().and_then(|given| given.place)),
    ]
    .into_iter()
    .filter_map(|(there, place)| there.then_some(place))
    .collect();
    // A route that is not as it was meant may do something under another key.
    if written.is_empty() && !doubtful {
        let note = Diagnostic::error(Code::Conflict, table.place, "the route does nothing");
        context.push(note.label("needs one of `upstream`, `redirect` and `respond`"));
    }
    if let [first, second, ..] = written[..] {
        let note = Diagnostic::error(Code::Conflict, second.or(table.place), "the route does two things");
        let note = note.label("only one of `upstream`, `redirect` and `respond`");
        context.push(note.related(first, "first here"));
    }
    if table.upstream.is_absent() && !written.is_empty() {
        if let Some(rewrite) = table.rewrite.given() {
            let note = Diagnostic::error(Code::Conflict, rewrite.place, "nothing is sent that could be rewritten");
            context.push(note.label("`rewrite` goes with `upstream`"));
        }
        for (place, key) in [(table.upgrade.place, "upgrade"), (table.trailers.place, "trailers")] {
            if place.is_some() {
                let note = Diagnostic::warning(Code::Unused, place, format!("`{key}` is for what is sent on"));
                context.push(note.label("has no effect here"));
            }
        }
    }
    let forward = table.upstream.given().and_then(|name| upstream(schema, upstreams, name, context));
    let redirect = table.redirect.given().map(|redirect| templates::redirect(redirect, path, context));
    let respond = table.respond.given().map(|respond| respond_action(respond, context));
    forward.or(redirect).or(respond)
}

fn upstream(
    schema: &Schema,
    upstreams: &HashMap<&str, usize>,
    name: &At<crate::values::Name>,
    context: &mut Context<'_>,
) -> Option<Action> {
    let index = upstreams.get(name.0.as_str()).copied();
    if index.is_none() {
        dangling("upstream", name, schema.upstream.items.iter().map(|(known, _)| known.as_str()), context);
    }
    index.map(|index| Action::Forward(UpstreamId(index as u32)))
}

/// Fields that the gateway writes by itself, since they say where a response ends.
const FRAMING: [&str; 5] = ["connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"];

fn respond_action(respond: &schema::Respond, context: &mut Context<'_>) -> Action {
    let given = respond.fields.given();
    let fields = given.map(|fields| fields.0.as_slice()).unwrap_or_default();
    for (name, _) in fields.iter().filter(|(name, _)| FRAMING.contains(&name.as_str())) {
        let message = format!("the gateway writes `{}` by itself", name.value);
        context.push(Diagnostic::error(Code::InvalidValue, name.place, message).label("leave it out"));
    }
    let status = respond.status.0 as u16;
    // RFC 9110 §15.3.5, §15.3.6, §15.4.5
    if matches!(status, 204 | 205 | 304) && !respond.body.is_empty() {
        let message = format!("a response with status {status} has no content");
        let note = Diagnostic::error(Code::Conflict, respond.body.place, message).label("leave it out");
        context.push(note.related(respond.status.place, "because of this"));
    }
    let fields = fields.iter().map(|(name, value)| (name.value.clone(), value.0.clone())).collect();
    Action::Respond { status, fields, body: respond.body.value.clone().into_bytes() }
}

/// Whether the methods that all routes name fit the sets of a router.
fn check_methods(schema: &Schema, context: &mut Context<'_>) -> bool {
    let mut methods = HashSet::new();
    for method in schema.route.iter().filter_map(|route| route.methods.given()).flat_map(|methods| methods.0.iter()) {
        if method.0 == "TRACE" {
            let note = Diagnostic::error(Code::NeverMatches, method.place, "the gateway answers TRACE by itself");
            context.push(note.label("can never match"));
        }
        methods.insert(method.0.as_str());
        if methods.len() > MethodSet::MAX {
            let message = format!("the routes name more than {} methods", MethodSet::MAX);
            context.push(Diagnostic::error(Code::OutOfRange, method.place, message).label("one too many"));
            return false;
        }
    }
    true
}
