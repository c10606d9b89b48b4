//! The cache look-up: the step between the route and the upstream.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use sluice_rules::cache::conditional::{self, AfterHead, Precondition};
use sluice_rules::cache::invalidate::{self, Unsafe};
use sluice_rules::cache::key::{self, Subject};
use sluice_rules::cache::lookup::{self, After, Asked, Decision, Forward, Found, Hit, Leave, Origin};
use sluice_rules::cache::range::{self, Multipart, Selection};
use sluice_rules::cache::status::{CacheStatus, Outcome};
use sluice_rules::cache::stored::{self, Facts};
use sluice_rules::cache::tags::Pattern;
use sluice_rules::cache::{Moment, Seconds, UnixSeconds, fill};
use sluice_rules::failure::Failure;
use sluice_rules::reply::Reply;
use sluice_rules::snapshot::{CachePolicy, Route, UpstreamId};
use sluice_wire::h1::body::Framing;
use sluice_wire::head::{Request, Response as ResponseView};

use crate::core::{Core, Scratch};
use crate::exchange::Exchange;
use crate::respond::Response;
use crate::rt::Buffer;
use crate::upstream::{self, UpstreamResponse};

use super::fetch::{Fetch, Handover};
use super::fill::{End, Fill, Follower, Known};
use super::follow::Waiting;
use super::index::Indexed;
use super::object::Object;
use super::purge::Manner;
use super::store::Begun;

/// How often a request looks again before it goes to the origin on its own: what it has followed was not for it.
const ROUNDS_MAX: u32 = 3;

/// What the cache did with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) outcome: Outcome,
    pub(crate) stored: bool,
    pub(crate) collapsed: bool,
    pub(crate) ttl: Option<i64>,
    pub(crate) detail: Option<&'static str>,
    /// How long the origin would have taken, in milliseconds, as far as is known.
    pub(crate) saved_millis: u32,
}

/// What the cache did, in the words of logs and figures.
pub(crate) const WORDS: [&str; 6] = ["hit", "stale", "revalidated", "miss", "expired", "bypass"];

impl Note {
    fn new(outcome: Outcome) -> Self {
        Note { outcome, stored: false, collapsed: false, ttl: None, detail: None, saved_millis: 0 }
    }

    pub(super) fn forwarded(why: Forward) -> Self {
        Note::new(Outcome::Forwarded { why, status: None })
    }

    /// Appends `Cache-Status`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Note { outcome, stored, collapsed, ttl, detail, .. } = *self;
        CacheStatus { outcome, stored, collapsed, ttl, detail, key: None }.write(out);
    }

    /// Where the word for it is in [`WORDS`].
    pub(crate) fn index(&self) -> usize {
        match self.outcome {
            Outcome::Hit(Hit { leave: Leave::Fresh, .. }) => 0,
            Outcome::Hit(_) => 1,
            Outcome::Forwarded { status: Some(304), .. } => 2,
            Outcome::Forwarded { why, .. } => match why {
                Forward::UriMiss | Forward::VaryMiss => 3,
                Forward::Stale | Forward::AlwaysValidate => 4,
                _ => 5,
            },
            Outcome::OnlyIfCached => 3,
        }
    }

    /// The word for it.
    pub(crate) fn word(&self) -> &'static str {
        WORDS[self.index()]
    }
}

/// Where a response that the cache gives comes from.
pub(crate) enum Source {
    /// The index of the core.
    Stored(Rc<Indexed>),
    /// It is on its way; its head, and the length of its body if that is known.
    Fill(Box<Filling>),
}

/// A response on its way.
pub(crate) struct Filling {
    pub(crate) head: Arc<Object>,
    pub(crate) length: Option<u64>,
    pub(crate) follower: Follower,
    pub(crate) waiting: Waiting,
}

/// What of it the client gets.
pub(crate) enum Answer {
    Whole,
    NotModified,
    Part(std::ops::Range<u64>),
    Parts(Box<Multipart>),
    Unsatisfiable,
}

/// A response that the cache gives.
pub(crate) struct Cached {
    pub(crate) source: Source,
    pub(crate) answer: Answer,
    pub(crate) age: Seconds,
}

impl Cached {
    /// The stored response.
    pub(crate) fn object(&self) -> &Object {
        match &self.source {
            Source::Stored(indexed) => indexed.object(),
            Source::Fill(filling) => &filling.head,
        }
    }
}

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
struct Looked {
    stored: Option<Rc<Indexed>>,
    /// Whether there is something for the target.
    has_variants: bool,
    /// How many insertions there had been, if the store was looked at.
    insertions: Option<u64>,
    /// Whether responses to such requests are known not to be stored.
    passes: bool,
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
    if asked.bypass.is_some() && asked.bypass != Some(Forward::NoStore) {
        return Box::pin(pass(core, exchange, scratch, input, route, policy, &lookup, upstream)).await;
    }
    lookup.hash = hash(core, exchange, scratch, input, route, policy, &asked);
    let looked = look_up(core, scratch, input, &lookup);
    let facts = looked.stored.as_ref().map(|stored| stored.object().facts_now());
    let found = match &facts {
        Some(facts) => Found::Stored(facts),
        None if looked.has_variants => Found::OtherVariants,
        None => Found::Nothing,
    };
    match (lookup::decide(&asked, found, now), looked.stored.as_ref()) {
        (Decision::Hit(hit), Some(stored)) => {
            stored.object().used();
            if hit.leave == Leave::WhileRevalidate && stored.is_to_refresh(now) {
                refresh(core, exchange, scratch, input, &lookup, stored, upstream);
            }
            let request = Request { bytes: input.filled(), head: &scratch.request };
            let facts = facts.as_ref().unwrap_or(&stored.object().facts);
            let saved_millis = stored.object().fetched_millis();
            exchange.cache = Some(Note { saved_millis, ..Note::new(Outcome::Hit(hit)) });
            Ok(Response::Cached(give(core, request, &asked, Rc::clone(stored), facts, hit.age)))
        }
        (decision, _) => {
            let miss = Miss { route, policy, lookup, looked, upstream };
            Box::pin(miss.respond(core, exchange, scratch, input, decision)).await
        }
    }
}

/// Writes the primary key to the scratch. Returns its hash.
fn hash(
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
        identity: None,
        content,
    };
    key::primary(&policy.key, &subject, key);
    secret.hash(key)
}

/// Finds what is stored for a request: in the index of the core, or else in the store of the node.
fn look_up(core: &Core, scratch: &mut Scratch, input: &Buffer, lookup: &Lookup) -> Looked {
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
        let found = store.find(hash, core.index, now);
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
fn selects(object: &Object, request: Request<'_>, secondary: &mut Vec<u8>) -> bool {
    object.selecting().is_none_or(|selecting| {
        secondary.clear();
        selecting.write(request, secondary);
        secondary.as_slice() == object.secondary()
    })
}

/// Decides what of a stored response a client gets.
fn give(core: &Core, request: Request<'_>, asked: &Asked, stored: Rc<Indexed>, facts: &Facts, age: Seconds) -> Cached {
    let object = stored.object();
    let answer = if asked.is_conditional || asked.has_range {
        answer(core, request, asked, facts, object.head(), Some(object.body_bytes()))
    } else {
        Answer::Whole
    };
    Cached { source: Source::Stored(stored), answer, age }
}

/// What of a response a client gets that has it already, or wants a part.
fn answer(core: &Core, request: Request<'_>, asked: &Asked, facts: &Facts, head: &[u8], length: Option<u64>) -> Answer {
    let wall = core.wall_seconds();
    if asked.is_conditional && conditional::precondition(request, facts, head, wall) == Precondition::NotModified {
        return Answer::NotModified;
    }
    let Some(length) = length.filter(|_| asked.has_range) else { return Answer::Whole };
    match range::select(request, facts, head, length, wall) {
        Selection::Whole => Answer::Whole,
        Selection::One(range) => Answer::Part(range),
        Selection::Unsatisfiable => Answer::Unsatisfiable,
        Selection::Several(ranges) => {
            let parsed = stored::parse(head);
            let view = parsed.as_ref().map(|parsed| ResponseView { bytes: head, head: parsed });
            let random = u128::from(core.random()) << 64 | u128::from(core.random());
            Answer::Parts(Box::new(Multipart::new(ranges, length, view.and_then(stored::content_type), random)))
        }
    }
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

/// A request that what is stored does not answer.
struct Miss<'m> {
    route: &'m Route,
    policy: &'m CachePolicy,
    lookup: Lookup,
    looked: Looked,
    upstream: UpstreamId,
}

/// What came of following a fill.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Followed {
    Response(Response),
    /// It was not for this request.
    Again,
    /// It goes to the origin on its own.
    Alone,
}

impl Miss<'_> {
    async fn respond(
        mut self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        scratch: &mut Scratch,
        input: &Buffer,
        mut decision: Decision,
    ) -> Result<Response, Failure> {
        let mut rounds = 0;
        let mut last_failure = None;
        loop {
            let (why, validates) = match decision {
                Decision::GatewayTimeout => {
                    exchange.cache = Some(Note::new(Outcome::OnlyIfCached));
                    let fields = [("Cache-Control".to_owned(), "no-store".to_owned())];
                    return Ok(Response::Own(Reply::fixed(504, &fields, b"")));
                }
                Decision::Fill(why) => (why, None),
                Decision::Validate(why) => (why, self.looked.stored.clone()),
                Decision::Pass(why) => {
                    return self.alone(core, exchange, scratch, input, why).await;
                }
                Decision::Hit(hit) => {
                    let Some(stored) = self.looked.stored.clone() else { return Err(Failure::Internal) };
                    let request = Request { bytes: input.filled(), head: &scratch.request };
                    exchange.cache = Some(Note::new(Outcome::Hit(hit)));
                    let facts = stored.object().facts_now();
                    return Ok(Response::Cached(give(core, request, &self.lookup.asked, stored, &facts, hit.age)));
                }
            };
            rounds += 1;
            if rounds > ROUNDS_MAX {
                if let Some(failure) = last_failure {
                    exchange.cache = Some(Note::forwarded(why));
                    return Err(failure);
                }
                return self.alone(core, exchange, scratch, input, why).await;
            }
            if self.looked.passes && validates.is_none() {
                return self.alone(core, exchange, scratch, input, why).await;
            }
            let request = Request { bytes: input.filled(), head: &scratch.request };
            let joins = |fill: &Fill| {
                !fill.is_spoiled()
                    && fill.head().is_none_or(|head| {
                        head.key() == scratch.key.as_slice() && selects(&head, request, &mut Vec::new())
                    })
            };
            let followed = match core.shared.cache.begin(self.lookup.hash, self.looked.insertions, joins) {
                Begun::Again => Ok(Followed::Again),
                Begun::Alone => Ok(Followed::Alone),
                Begun::Follow(fill) => self.follow(core, exchange, scratch, input, why, &fill, None).await,
                Begun::Lead(fill) => {
                    let handover = Rc::new(Handover::default());
                    let stored = validates.as_ref().map(|stored| Arc::clone(stored.object()));
                    let there = Some(Rc::clone(&handover));
                    let lookup = &self.lookup;
                    let fetch = Fetch::new(core, exchange, scratch, input, lookup, &fill, stored, there, self.upstream)
                        .ok_or(Failure::OutOfMemory)?;
                    fetch.start();
                    self.follow(core, exchange, scratch, input, why, &fill, Some(handover)).await
                }
            };
            match followed {
                Ok(Followed::Response(response)) => return Ok(response),
                Ok(Followed::Alone) => return self.alone(core, exchange, scratch, input, why).await,
                Ok(Followed::Again) => {}
                Err(failure) => {
                    let is_own = matches!(failure, Failure::ClientGone | Failure::OutOfMemory) || exchange.attempts > 0;
                    if is_own || exchange.due.is_some_and(|due| due <= core.deadlines.now()) {
                        return Err(failure);
                    }
                    last_failure = Some(failure);
                }
            }
            self.lookup.now = core.moment(core.clock.now());
            self.looked = look_up(core, scratch, input, &self.lookup);
            let facts = self.looked.stored.as_ref().map(|stored| stored.object().facts_now());
            let found = match &facts {
                Some(facts) => Found::Stored(facts),
                None if self.looked.has_variants => Found::OtherVariants,
                None => Found::Nothing,
            };
            decision = lookup::decide(&self.lookup.asked, found, self.lookup.now);
        }
    }

    /// Waits for what somebody fetches.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the exchange")]
    async fn follow(
        &self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        scratch: &mut Scratch,
        input: &Buffer,
        why: Forward,
        fill: &Arc<Fill>,
        handover: Option<Rc<Handover>>,
    ) -> Result<Followed, Failure> {
        let follower = Follower::new(fill);
        let waiting = Waiting::new(core, exchange);
        let since = core.clock.now();
        let known = waiting.head(core, fill).await;
        exchange.times.waited += core.clock.now() - since;
        let is_leader = handover.is_some();
        let told = handover.as_ref().and_then(|handover| handover.told.take());
        if let Some(told) = told {
            exchange.take_over(&told);
        }
        let mut note = Note { collapsed: !is_leader, ..Note::forwarded(why) };
        let request = Request { bytes: input.filled(), head: &scratch.request };
        let asked = &self.lookup.asked;
        let now = core.moment(core.clock.now());
        exchange.cache = Some(note);
        match known? {
            Known::Head(head, length) => {
                let is_for_it = head.key() == scratch.key.as_slice() && selects(&head, request, &mut Vec::new());
                if !is_for_it {
                    return Ok(Followed::Again);
                }
                note.stored = is_leader;
                note.ttl = Some(head.facts.ttl(now));
                exchange.cache = Some(note);
                let age = head.facts.age(now);
                let answer = answer(core, request, asked, &head.facts, head.head(), length);
                let filling = Box::new(Filling { head, length, follower, waiting });
                Ok(Followed::Response(Response::Cached(Cached { source: Source::Fill(filling), answer, age })))
            }
            Known::End(End::Stored(object)) => {
                if object.key() != scratch.key.as_slice() || !selects(&object, request, &mut Vec::new()) {
                    return Ok(Followed::Again);
                }
                let facts = object.facts_now();
                note.outcome = Outcome::Forwarded { why, status: Some(304) };
                note.stored = is_leader;
                note.ttl = Some(facts.ttl(now));
                exchange.cache = Some(note);
                let stored = core.cache.insert(object);
                let age = facts.age(now);
                Ok(Followed::Response(Response::Cached(give(core, request, asked, stored, &facts, age))))
            }
            Known::End(End::Stale(object, origin)) => {
                let facts = object.facts_now();
                match lookup::after(asked, &facts, origin, now) {
                    After::Serve(hit) => {
                        exchange.cache = Some(Note { collapsed: !is_leader, ..Note::new(Outcome::Hit(hit)) });
                        let stored = core.cache.insert(object);
                        Ok(Followed::Response(Response::Cached(give(core, request, asked, stored, &facts, hit.age))))
                    }
                    After::Freshen | After::Deliver => Ok(Followed::Alone),
                }
            }
            Known::End(End::Released) => {
                let Some(handed) = handover.and_then(|handover| handover.response.take()) else {
                    return Ok(Followed::Alone);
                };
                note.detail = handed.why.map(|why| why.label());
                exchange.cache = Some(note);
                drop(waiting);
                let (mut response, head) = (handed.response, handed.head);
                scratch.response = head;
                response.leg.watch(core, exchange);
                Ok(Followed::Response(Response::Upstream(response)))
            }
            Known::End(End::Failed(failure)) => Err(failure),
            // Nothing is whole without a head.
            Known::End(End::Whole) => Err(Failure::Internal),
        }
    }

    /// Goes to the origin for this client alone.
    async fn alone(
        &self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        scratch: &mut Scratch,
        input: &Buffer,
        why: Forward,
    ) -> Result<Response, Failure> {
        exchange.cache = Some(Note::forwarded(why));
        let Miss { route, policy, lookup, upstream, .. } = self;
        let response = forward(core, exchange, scratch, input, *upstream).await?;
        after(core, exchange, scratch, route, policy, lookup, &response);
        Ok(Response::Upstream(response))
    }
}

/// Forwards a request that is not looked up.
#[expect(clippy::too_many_arguments, reason = "each is another part of the exchange")]
async fn pass(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    route: &Route,
    policy: &CachePolicy,
    lookup: &Lookup,
    upstream: UpstreamId,
) -> Result<Response, Failure> {
    let why = lookup.asked.bypass.unwrap_or(Forward::Method);
    let request = Request { bytes: input.filled(), head: &scratch.request };
    exchange.cache = Some(Note::forwarded(why));
    if request.method() == "PURGE" {
        return Ok(Response::Own(purge(core, exchange, scratch)));
    }
    if lookup.asked.control.only_if_cached {
        exchange.cache = Some(Note::new(Outcome::OnlyIfCached));
        let fields = [("Cache-Control".to_owned(), "no-store".to_owned())];
        return Ok(Response::Own(Reply::fixed(504, &fields, b"")));
    }
    let is_safe = invalidate::is_safe(request.method());
    let response = forward(core, exchange, scratch, input, upstream).await?;
    if !is_safe {
        invalidated(core, exchange, scratch, input, route, policy, lookup.now, &response);
    }
    Ok(Response::Upstream(response))
}

async fn forward(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    upstream: UpstreamId,
) -> Result<UpstreamResponse, Failure> {
    upstream::forward(core, exchange, scratch, input, upstream).await
}

/// Purges the target of a request with the method PURGE, if the client may.
fn purge(core: &Core, exchange: &Exchange<'_>, scratch: &Scratch) -> Reply {
    let no_store = ("Cache-Control".to_owned(), "no-store".to_owned());
    let address: IpAddr = exchange.client.peer.ip().to_canonical();
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
#[expect(clippy::too_many_arguments, reason = "each is another part of the exchange")]
fn invalidated(
    core: &Core,
    exchange: &Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    route: &Route,
    policy: &CachePolicy,
    now: Moment,
    response: &UpstreamResponse,
) {
    let listener = exchange.client.listener(&exchange.local);
    let (scheme, authority) = (exchange.client.hop.scheme(), scratch.authority.as_str());
    let asked = Unsafe { scheme, authority, target: &scratch.target, policy: listener.target };
    let view = ResponseView { bytes: response.buffer.filled(), head: &scratch.response };
    let targets = invalidate::targets(asked, view);
    let authority = authority.to_owned();
    for (place, target) in targets.into_iter().enumerate() {
        let has_other_parts = policy.key != Default::default();
        if place == 0 && !has_other_parts && !exchange.client.hop.is_trusted() {
            // The key is known, which is cheaper than a purge: writes to many targets are nothing special.
            let plain = Asked { method: lookup::Method::Get, ..asked_plainly() };
            let hash = hash(core, exchange, scratch, input, route, policy, &plain);
            core.shared.cache.expire(hash, now);
            continue;
        }
        let pattern = Pattern::Url { scheme: scheme.to_owned(), authority: authority.clone(), target };
        // If there is no room for it, everything of the authority goes: what is stale must not stay.
        if core.shared.cache.purges.purge(&pattern, Manner::Soft).is_err() {
            let _ = core.shared.cache.purges.purge(&Pattern::All, Manner::Soft);
        }
    }
}

/// A GET without anything special.
fn asked_plainly() -> Asked {
    Asked {
        method: lookup::Method::Get,
        control: Default::default(),
        bypass: None,
        may_store: true,
        has_authorization: false,
        has_cookie: false,
        is_conditional: false,
        has_range: false,
    }
}

/// What a response that is not stored means for what is: one to a HEAD freshens it or makes it stale (RFC 9111 §4.3.5).
fn after(
    core: &Core,
    exchange: &Exchange<'_>,
    scratch: &Scratch,
    _route: &Route,
    _policy: &CachePolicy,
    lookup: &Lookup,
    response: &UpstreamResponse,
) {
    if lookup.asked.method != lookup::Method::Head {
        return;
    }
    let view = ResponseView { bytes: response.buffer.filled(), head: &scratch.response };
    let wall: UnixSeconds = core.wall_seconds();
    let found = core.shared.cache.find(lookup.hash, core.index, lookup.now);
    for object in found.objects.iter().filter(|object| object.key() == scratch.key.as_slice()) {
        let facts = object.facts_now();
        match conditional::after_head(view, &facts, object.head(), object.body_bytes(), wall) {
            AfterHead::Expire => object.expire(lookup.now),
            AfterHead::Freshen | AfterHead::Nothing => {}
        }
    }
    let _ = exchange;
}

/// Whether the origin has failed.
pub(super) fn origin_of(outcome: Result<u16, Failure>) -> Origin {
    match outcome {
        Ok(status) => Origin::Status(status),
        Err(_) => Origin::Failed,
    }
}
