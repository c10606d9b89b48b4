//! The response cache: the node's store, and what a route keeps.

use std::collections::HashMap;

use sluice_rules::cache::lookup::Method;
use sluice_rules::snapshot::{Cache, CachePolicy, KeyParts, QueryPart};

use super::{check_unique, networks};
use crate::error::{Code, Diagnostic, Place};
use crate::read::{At, Context};
use crate::schema::{self, Part, RouteCache, Schema};
use crate::units::show_size;

/// The store that all routes with a cache share.
pub(super) fn store(schema: &Schema, context: &mut Context<'_>) -> Cache {
    let table = &schema.cache;
    let (memory, object) = (&table.memory, &table.max_object);
    if object.0 > memory.0 {
        let place = object.place.or(memory.place);
        let note = Diagnostic::error(Code::OutOfRange, place, "`max-object` is more than `memory`");
        let note = note.label(format!("has to be at most {}", show_size(memory.0)));
        context.push(note.related(memory.place.filter(|memory| Some(*memory) != place), "all of it"));
    }
    let used = schema.route.iter().any(|route| !route.cache.is_absent());
    if let Some(place) = table.place.filter(|_| !used && schema.route.complete && !schema.route.is_empty()) {
        let note = Diagnostic::warning(Code::Unused, Some(place), "no route has a cache");
        context.push(note.label("has no effect").help("write cache = {} in a [[route]]"));
    }
    Cache { memory_bytes: memory.0, object_bytes_max: object.0, purge: networks(&table.purge_from).collect() }
}

/// What a route keeps of its responses, if anything.
pub(super) fn policy(schema: &Schema, route: &schema::Route, context: &mut Context<'_>) -> Option<CachePolicy> {
    let table = route.cache.given()?;
    if route.upstream.is_absent() && !(route.redirect.is_absent() && route.respond.is_absent()) {
        let note = Diagnostic::error(Code::Conflict, table.place, "nothing comes from an upstream that could be kept");
        context.push(note.label("`cache` goes with `upstream`"));
    }
    check(schema, table, context);
    let time = |time: Option<&At<schema::Freshness>>| time.map(|time| time.0);
    Some(CachePolicy {
        ttl: table.ttl.given().map(|ttl| ttl.0),
        ignore_origin: table.ignore_origin.value,
        ignore_client: table.ignore_client.value,
        negative_ttl: time(table.negative_ttl.given()),
        stale_while_revalidate: time(table.stale_while_revalidate.given()),
        stale_if_error: time(table.stale_if_error.given()),
        jitter_percent: table.jitter.0 as u32,
        key: key(table, context),
        set_cookie: table.set_cookie.0,
        post: table.methods.iter().any(|method| method.0 == Method::Post),
        query: table.methods.iter().any(|method| method.0 == Method::Query),
        request_bytes_max: table.max_request.0,
        tags: table.tags.given().map(|name| name.0.clone()),
        bypass: table.bypass.iter().map(|rule| rule.0.clone()).collect(),
        object_bytes_max: table.max_object.given().map(|size| size.0),
    })
}

fn check(schema: &Schema, table: &At<RouteCache>, context: &mut Context<'_>) {
    if table.ignore_origin.value && table.ttl.is_absent() {
        let note = Diagnostic::error(Code::MissingKey, table.ignore_origin.place, "nobody says how long is fresh");
        context.push(note.label("needs `ttl`").help("write ttl = \"10m\", or leave `ignore-origin` out"));
    }
    if let Some(size) = table.max_object.given().filter(|size| size.0 > schema.cache.memory.0) {
        let note = Diagnostic::error(Code::OutOfRange, size.place, "`max-object` is more than `memory` of `[cache]`");
        let note = note.label(format!("has to be at most {}", show_size(schema.cache.memory.0)));
        context.push(note.related(schema.cache.memory.place, "all of it"));
    }
    let by_content = table.methods.iter().any(|method| method.0.is_keyed_by_content());
    if table.max_request.place.is_some() && !by_content {
        let note = Diagnostic::warning(Code::Unused, table.max_request.place, "no content is part of the key");
        context.push(note.label("has no effect").help("name POST or QUERY in `methods`"));
    }
}

/// What tells requests apart.
fn key(table: &RouteCache, context: &mut Context<'_>) -> KeyParts {
    let mut parts = KeyParts { query: QueryPart::Only(Vec::new()), ..KeyParts::default() };
    let (mut has_path, mut whole, mut first) = (false, None::<Option<Place>>, None::<Option<Place>>);
    let mut seen: HashMap<&Part, Option<Place>> = HashMap::new();
    for part in table.key.iter() {
        let message = format!("{} is part of the key twice", context.written(part.place));
        if part.0 != Part::Always {
            check_unique(&mut seen, &part.0, part.place, || message, context);
        }
        match &part.0 {
            Part::Always => {}
            Part::Path => has_path = true,
            Part::Query => {
                whole.get_or_insert(part.place);
            }
            Part::Parameter(name) => {
                first.get_or_insert(part.place);
                if let QueryPart::Only(names) = &mut parts.query {
                    names.push(name.clone());
                }
            }
            Part::Header(name) => parts.headers.push(name.clone()),
            Part::Cookie(name) => parts.cookies.push(name.clone()),
            Part::Method => parts.method = true,
            Part::Identity => parts.identity = true,
        }
    }
    if !has_path && table.key.complete {
        let note = Diagnostic::error(Code::InvalidValue, table.key.place, "the key has no path");
        context.push(note.label("every path would have one response").help("add \"path\""));
    }
    if let (Some(whole), Some(first)) = (whole, first) {
        let note = Diagnostic::error(Code::Conflict, first, "all of the query is part of the key already");
        context.push(note.label("leave one of them out").related(whole, "all of it"));
    }
    if whole.is_some() {
        parts.query = QueryPart::Whole;
    }
    parts
}
