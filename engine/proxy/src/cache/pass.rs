//! A request that the cache only looks on at: what it means for what is stored.

use std::rc::Rc;
use std::sync::Arc;

use sluice_rules::cache::conditional::{self, AfterHead};
use sluice_rules::cache::invalidate::{self, Unsafe};
use sluice_rules::cache::lookup::{Asked, Forward, Method};
use sluice_rules::cache::status::Outcome;
use sluice_rules::cache::tags::Pattern;
use sluice_rules::cache::{Times, fill, storable, stored};
use sluice_rules::failure::Failure;
use sluice_rules::reply::Reply;
use sluice_rules::snapshot::{CachePolicy, KeyParts, Route, UpstreamId};
use sluice_wire::head::{Request, Response as ResponseView};

use crate::core::{Core, Scratch};
use crate::exchange::Exchange;
use crate::respond::Response;
use crate::rt::Buffer;
use crate::upstream::{self, UpstreamResponse};

use super::note::Note;
use super::object::{Object, Parts};
use super::purge::{Manner, Purgeable};
use super::step::{Lookup, hash, selects};

/// A request, and where it goes.
pub(super) struct Passed<'p> {
    pub(super) route: &'p Route,
    pub(super) policy: &'p CachePolicy,
    pub(super) lookup: Lookup,
    pub(super) upstream: UpstreamId,
}

/// Forwards a request that is not looked up.
pub(super) async fn respond(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    passed: Passed<'_>,
    why: Forward,
) -> Result<Response, Failure> {
    let request = Request { bytes: input.filled(), head: &scratch.request };
    exchange.cache = Some(Note::forwarded(why));
    if request.method() == "PURGE" {
        return Ok(Response::Own(purge(core, exchange, scratch)));
    }
    if passed.lookup.asked.control.only_if_cached {
        return Ok(only_if_cached(exchange));
    }
    let is_safe = invalidate::is_safe(request.method());
    let response = upstream::send(core, exchange, scratch, input, passed.upstream).await?;
    if !is_safe {
        invalidated(core, exchange, scratch, input, &passed, &response);
    }
    Ok(Response::Upstream(response))
}

/// RFC 9111 §5.2.1.7: nothing is stored, and the client wants nothing else.
pub(super) fn only_if_cached(exchange: &mut Exchange<'_>) -> Response {
    exchange.cache = Some(Note::new(Outcome::OnlyIfCached));
    Response::Own(Reply::only_if_cached())
}

impl Passed<'_> {
    /// Goes to the origin for this client alone.
    pub(super) async fn alone(
        &self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        scratch: &mut Scratch,
        input: &Buffer,
        why: Forward,
    ) -> Result<Response, Failure> {
        exchange.cache = Some(Note::forwarded(why));
        let asked = core.moment(core.clock.now());
        let response = upstream::send(core, exchange, scratch, input, self.upstream).await?;
        if self.lookup.asked.method == Method::Head {
            let now = core.moment(core.clock.now());
            let times = Times { asked, received: now, wall: core.wall_seconds() };
            after_head(core, scratch, input, self, &response, times);
        }
        Ok(Response::Upstream(response))
    }
}

/// Purges the target of a request with the method PURGE, if the client may.
fn purge(core: &Core, exchange: &Exchange<'_>, scratch: &Scratch) -> Reply {
    let no_store = ("Cache-Control".to_owned(), "no-store".to_owned());
    let address = exchange.client.peer.ip().to_canonical();
    let networks = &exchange.local.snapshot().cache.purge;
    if !networks.iter().any(|network| network.contains(&address)) {
        return Reply::fixed(403, &[no_store], b"");
    }
    let pattern = Pattern::Url {
        scheme: exchange.client.hop.scheme().to_owned(),
        authority: scratch.authority.as_str().to_owned(),
        target: scratch.target.as_str().to_owned(),
    };
    match core.shared.cache.purges.purge(&pattern, Manner::Hard) {
        Ok(()) => Reply::fixed(204, &[no_store], b""),
        Err(_) => Reply::fixed(503, &[no_store, ("Retry-After".to_owned(), "1".to_owned())], b""),
    }
}

/// Makes stale what an unsafe method has changed (RFC 9111 §4.4).
fn invalidated(
    core: &Core,
    exchange: &Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    passed: &Passed<'_>,
    response: &UpstreamResponse,
) {
    let Passed { route, policy, .. } = passed;
    let store = &core.shared.cache;
    let listener = exchange.client.listener(&exchange.local);
    let (scheme, authority) = (exchange.client.hop.scheme(), scratch.authority.as_str().to_owned());
    let asked = Unsafe { scheme, authority: &authority, target: &scratch.target, policy: listener.target };
    let view = ResponseView { bytes: response.buffer.filled(), head: &scratch.response };
    let targets = invalidate::targets(asked, view);
    let now = core.moment(core.clock.now());
    // With a plain key it is known where the target itself is stored, which is cheaper than a purge.
    let is_plain = policy.key == KeyParts::default() && !exchange.client.hop.is_trusted();
    for (place, target) in targets.into_iter().enumerate() {
        if place == 0 && is_plain {
            let hash = hash(core, exchange, scratch, input, route, policy, &Asked::plain());
            store.expire(hash, now);
            continue;
        }
        let pattern = Pattern::Url { scheme: scheme.to_owned(), authority: authority.clone(), target };
        // If there is no room for it, everything goes: what is stale must not stay.
        if store.purges.purge(&pattern, Manner::Soft).is_err() {
            let _ = store.purges.purge(&Pattern::All, Manner::Soft);
        }
    }
}

/// What the response to a HEAD means for what is stored for GET: it freshens it, or makes it stale (RFC 9111 §4.3.5).
fn after_head(
    core: &Core,
    scratch: &Scratch,
    input: &Buffer,
    passed: &Passed<'_>,
    response: &UpstreamResponse,
    times: Times,
) {
    let Passed { policy, lookup, .. } = passed;
    let store = &core.shared.cache;
    let request = Request { bytes: input.filled(), head: &scratch.request };
    let view = ResponseView { bytes: response.buffer.filled(), head: &scratch.response };
    if fill::is_for_one(policy, &lookup.asked, request, &scratch.target) {
        // What one client has shaped must not become what others get.
        return;
    }
    for before in store.find(lookup.hash, times.received).objects {
        if before.key() != scratch.key.as_slice() || !selects(&before, request, &mut Vec::new()) {
            continue;
        }
        match conditional::after_head(view, &before.facts, before.head(), before.body_bytes(), times.wall) {
            AfterHead::Expire => before.expire(times.received),
            AfterHead::Nothing => {}
            AfterHead::Freshen => {
                let Some(object) = freshened(core, policy, &before, view, times) else { continue };
                if store.replace(&object, &before, times.received) {
                    core.cache.insert(object);
                }
            }
        }
    }
}

/// A stored response with the fields of one to a HEAD. `None`: it is not stored any longer, or there is no room.
fn freshened(
    core: &Core,
    policy: &CachePolicy,
    before: &Object,
    update: ResponseView<'_>,
    times: Times,
) -> Option<Arc<Object>> {
    let store = &core.shared.cache;
    let parsed = stored::parse(before.head())?;
    let own = ResponseView { bytes: before.head(), head: &parsed };
    let merged = stored::freshen(policy, own, update, times.wall)?;
    let random = core.random() as u32;
    let storable = storable::judge_merged(policy, &Asked::plain(), &merged, update, times, random).ok()?;
    let tags: Vec<u64> = before.tags().collect();
    let parts = Parts {
        hash: before.hash(),
        key: before.key(),
        url: before.url(),
        tags: &tags,
        selecting: before.selecting().cloned(),
        secondary: before.secondary(),
        head: &storable.head,
        facts: storable.facts,
        // A purge since then is meant for it as well.
        generation: before.generation(),
        fetched_millis: before.fetched_millis(),
    };
    let segments = before.segments(&store.account)?;
    let charge = store.account.charge(Object::charged_bytes(&parts, &segments))?;
    Object::new(&parts, segments, charge)
}
