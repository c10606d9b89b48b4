//! The cache look-up: the step between the route and the upstream.

use std::rc::Rc;
use std::sync::Arc;

use sluice_rules::cache::key::{self, Subject};
use sluice_rules::cache::lookup::{self, Asked, Decision, Forward, Found, Leave};
use sluice_rules::cache::status::Outcome;
use sluice_rules::cache::{Moment, fill};
use sluice_rules::failure::Failure;
use sluice_rules::snapshot::{CachePolicy, Route, UpstreamId};
use sluice_wire::h1::body::Framing;
use sluice_wire::head::Request;

use crate::core::{Core, Scratch};
use crate::exchange::Exchange;
use crate::respond::Response;
use crate::rt::Buffer;

use super::answer::give;
use super::fetch::Fetch;
use super::index::Indexed;
use super::miss::Miss;
use super::note::Note;
use super::object::Object;
use super::pass::{self, Passed};
use super::store::Begun;

/// Looks at a request of a route with a cache. `None`: the cache has no part in it. Parameters of the query that do not
/// tell requests apart go no further.
pub(crate) fn asked(exchange: &Exchange<'_>, scratch: &mut Scratch, input: &Buffer, route: &Route) -> Option<Asked> {
    let policy = route.cache.as_ref()?;
    if exchange.upgrade.is_some() || exchange.is_grpc {
        return None;
    }
    let Scratch { request: head, target, .. } = scratch;
    let request = Request { bytes: input.filled(), head };
    let has_content = !matches!(exchange.framing, Framing::Empty | Framing::Length(0));
    let mut asked = Asked::read(policy, request, target, has_content);
    if exchange.client.hop.identity().is_some() {
        asked = asked.identified(policy);
    }
    let is_at_hand = exchange.incoming.is_none() && exchange.buffered_bytes as u64 <= policy.request_bytes_max;
    if asked.method.is_keyed_by_content() && has_content && !is_at_hand && asked.bypass.is_none() {
        asked.bypass = Some(Forward::Content);
        asked.may_store = false;
    }
    if asked.may_store
        && let Some(narrowed) = fill::target(policy, target)
    {
        let listener = exchange.client.listener(&exchange.local);
        // It was read from a target by the same rules, so it is one.
        let read = target.read("GET", narrowed.as_bytes(), listener.target);
        debug_assert!(read.is_ok());
    }
    Some(asked)
}

/// A request as the cache sees it.
pub(super) struct Lookup {
    pub(super) asked: Asked,
    pub(super) hash: u128,
    pub(super) now: Moment,
}

/// What was found.
pub(super) struct Looked {
    pub(super) stored: Option<Rc<Indexed>>,
    /// Whether there is something for the target.
    pub(super) has_variants: bool,
    /// How many insertions there had been, if the store was looked at.
    pub(super) insertions: Option<u64>,
    /// Whether responses to such requests are known not to be stored.
    pub(super) passes: bool,
}

impl Looked {
    /// Decides what becomes of the request.
    pub(super) fn decide(&self, lookup: &Lookup) -> Decision {
        let facts = self.stored.as_ref().map(|stored| stored.object().facts_now());
        let found = match &facts {
            Some(facts) => Found::Stored(facts),
            None if self.has_variants => Found::OtherVariants,
            None => Found::Nothing,
        };
        lookup::decide(&lookup.asked, found, lookup.now)
    }
}

/// Answers from the cache, or by way of it.
pub(crate) async fn respond(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    asked: Asked,
    upstream: UpstreamId,
) -> Result<Response, Failure> {
    let local = Rc::clone(&exchange.local);
    let route = exchange.route.map(|route| local.snapshot().route(route));
    let Some((route, policy)) = route.and_then(|route| Some((route, route.cache.as_ref()?))) else {
        return Err(Failure::Internal);
    };
    let now = core.moment(exchange.times.head);
    let mut lookup = Lookup { asked, hash: 0, now };
    if let Some(why) = asked.bypass {
        let passed = Passed { route, policy, lookup, upstream };
        return Box::pin(pass::respond(core, exchange, scratch, input, passed, why)).await;
    }
    lookup.hash = hash(core, exchange, scratch, input, route, policy, &asked);
    let looked = look_up(core, scratch, input, &lookup);
    match (looked.decide(&lookup), looked.stored.as_ref()) {
        (Decision::Hit(hit), Some(stored)) => {
            stored.object().used();
            if hit.leave == Leave::WhileRevalidate && stored.is_to_refresh(now) {
                refresh(core, exchange, scratch, input, &lookup, stored, upstream);
            }
            let request = Request { bytes: input.filled(), head: &scratch.request };
            let saved_millis = stored.object().fetched_millis();
            exchange.cache = Some(Note { saved_millis, ..Note::new(Outcome::Hit(hit)) });
            Ok(Response::Cached(give(core, request, &asked, Rc::clone(stored), hit.age)))
        }
        (decision, _) => {
            let passed = Passed { route, policy, lookup, upstream };
            Box::pin(Miss { passed, looked }.respond(core, exchange, scratch, input, decision)).await
        }
    }
}

/// Writes the primary key to the scratch. Returns its hash.
pub(super) fn hash(
    core: &Core,
    exchange: &Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    route: &Route,
    policy: &CachePolicy,
    asked: &Asked,
) -> u128 {
    let secret = core.shared.cache.secret;
    let Scratch { request: head, target, authority, key, .. } = scratch;
    let content = asked.method.is_keyed_by_content().then(|| {
        let content = &input.filled()[head.length..][..exchange.buffered_bytes];
        secret.hash(content).to_ne_bytes()
    });
    key.clear();
    let subject = Subject {
        route: &route.name,
        scheme: exchange.client.hop.scheme(),
        authority: authority.as_str(),
        target,
        request: Request { bytes: input.filled(), head },
        method: asked.method,
        trusted: exchange.client.hop.is_trusted(),
        identity: exchange.client.hop.identity(),
        content,
    };
    key::primary(&policy.key, &subject, key);
    secret.hash(key)
}

/// Finds what is stored for a request: in the index of the core, or else in the store of the node.
pub(super) fn look_up(core: &Core, scratch: &mut Scratch, input: &Buffer, lookup: &Lookup) -> Looked {
    let Lookup { hash, now, .. } = *lookup;
    let store = &core.shared.cache;
    let Scratch { request: head, key, secondary, .. } = scratch;
    let request = Request { bytes: input.filled(), head };
    let mut looked = Looked { stored: None, has_variants: false, insertions: None, passes: false };
    let mut consider = |looked: &mut Looked, indexed: &Rc<Indexed>| {
        let object = indexed.object();
        if object.key() != key.as_slice() {
            return;
        }
        looked.has_variants = true;
        // RFC 9111 §4: of several that a request selects, the most recent.
        let date = |object: &Object| (object.facts.date, object.facts.received);
        let is_newer = looked.stored.as_ref().is_none_or(|best| date(best.object()) < date(object));
        if is_newer && selects(object, request, secondary) {
            looked.stored = Some(Rc::clone(indexed));
        }
    };
    core.cache.find(store, hash, now, |indexed| consider(&mut looked, indexed));
    if looked.stored.is_none() {
        let found = store.find(hash, now);
        for object in found.objects {
            core.cache.insert(object);
        }
        core.cache.find(store, hash, now, |indexed| consider(&mut looked, indexed));
        looked.insertions = Some(found.insertions);
        looked.passes = found.passes;
    }
    looked
}

/// Whether a request selects a stored response of its primary key.
pub(super) fn selects(object: &Object, request: Request<'_>, secondary: &mut Vec<u8>) -> bool {
    object.selecting().is_none_or(|selecting| {
        secondary.clear();
        selecting.write(request, secondary);
        secondary.as_slice() == object.secondary()
    })
}

/// Fetches a fresh response while a stale one is given.
fn refresh(
    core: &Rc<Core>,
    exchange: &Exchange<'_>,
    scratch: &Scratch,
    input: &Buffer,
    lookup: &Lookup,
    stored: &Rc<Indexed>,
    upstream: UpstreamId,
) {
    if let Begun::Lead(fill) = core.shared.cache.begin(lookup.hash, None, |_| true) {
        let stored = Some(Arc::clone(stored.object()));
        // Without a buffer for it the next request tries again.
        if let Some(fetch) = Fetch::new(core, exchange, scratch, input, lookup, &fill, stored, None, upstream) {
            fetch.start();
        }
    }
}
