//! The walk of a request through the steps of live traffic.

use std::net::IpAddr;
use std::time::Duration;

use sluice_wire::authority::Authority;
use sluice_wire::forwarded::CLAIMS;
use sluice_wire::grpc;
use sluice_wire::h1::body::Framing;
use sluice_wire::h1::encode::{self, Edits};
use sluice_wire::h1::parse::{self, HeadError, Progress};
use sluice_wire::h2::outbound;
use sluice_wire::head::{Request, RequestHead};
use sluice_wire::target::{Target, TargetError};
use sluice_wire::writer::Writer;

use crate::access::{self, Access, AccessId, Denial, Lists};
use crate::admission::{self, Admitted};
use crate::cache::fill;
use crate::check::{Scheme, TestRequest};
use crate::client;
use crate::failure::Failure;
use crate::guard::{self, Method};
use crate::limit::Facts;
use crate::outgoing::Outgoing;
use crate::queue::ask;
use crate::reply::{Reply, connection_field};
use crate::rewrite::{Rewritten, Values};
use crate::route::{Found, Lookup};
use crate::snapshot::{Action, Balance, CachePolicy, Endpoint, Listener, Route, Snapshot, Upstream};

use super::{
    Bound, DATE, Decision, Explanation, FieldNote, Misses, Outcome, Step, TakenRoute, TakenUpstream, cached, http2,
    listen, near, words,
};
use cached::Looked;
use listen::Begun;

/// A request on its way.
pub(super) struct Walk<'s> {
    snapshot: &'s Snapshot,
    listener: &'s Listener,
    asked: &'s TestRequest,
    explanation: Explanation,
    /// The head in the form of HTTP/1.1.
    bytes: Vec<u8>,
    head: RequestHead,
    target: Target,
    authority: Authority,
    /// Who it comes from: whoever connects, or whom trusted proxies name.
    client: IpAddr,
    is_head: bool,
    is_grpc: bool,
    expects_continue: bool,
    keep_alive: bool,
}

impl<'s> Walk<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, asked: &'s TestRequest) -> Self {
        let (listener, chosen) = listen::choose(snapshot, &asked.url);
        let client = asked.client_ip.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let nothing = Outcome::Answered { status: 0, head: Vec::new(), body: Vec::new(), failure: None };
        let explanation = Explanation {
            request: listen::bytes(asked),
            client,
            listener: chosen,
            target: None,
            route: None,
            misses: Misses::default(),
            steps: Vec::new(),
            upstream: None,
            timeouts: Vec::new(),
            outcome: nothing,
        };
        Walk {
            snapshot,
            listener,
            asked,
            explanation,
            bytes: Vec::new(),
            head: RequestHead::default(),
            target: Target::default(),
            authority: Authority::default(),
            client,
            is_head: false,
            is_grpc: false,
            expects_continue: false,
            keep_alive: false,
        }
    }

    /// Walks as far as the request comes, and notes what is sent or answered in the end.
    pub(super) fn go(mut self, with_misses: bool) -> Explanation {
        if self.connects().is_err() {
            self.explanation.outcome = Outcome::Unanswered;
            return self.explanation;
        }
        let begun = listen::connect(self.listener, self.asked, &mut self.explanation.steps);
        let ended = match begun {
            Begun::Http1 | Begun::Http2 => self.read_head(begun == Begun::Http2).and_then(|()| self.steps(with_misses)),
            Begun::Failed(failure) => Err(failure),
            Begun::Unanswered => {
                self.explanation.outcome = Outcome::Unanswered;
                return self.explanation;
            }
        };
        let answer = match ended {
            Ok(None) => return self.explanation,
            // RFC 9113 §8.1.1: the stream is reset.
            Err(failure @ Failure::RequestMalformed(_)) if failure.status() == 400 => {
                self.explanation.outcome = Outcome::Unanswered;
                return self.explanation;
            }
            Ok(Some(reply)) => reply,
            Err(failure) => Reply::failure(failure),
        };
        let answer = if self.is_grpc { answer.for_grpc() } else { answer };
        // RFC 9110 §10.1.1: a client that waits for a 100 may or may not send its content now.
        let keep_alive = self.keep_alive && !self.expects_continue && !answer.failure.is_some_and(Failure::closes);
        let connection = connection_field(keep_alive, self.head.version);
        let mut space = vec![0; answer.bytes_max(DATE, connection)];
        let written = answer.write(DATE, &mut space, self.is_head, connection).map_or(0, |(written, _)| written);
        space.truncate(written);
        let head_end = memchr::memmem::find(&space, b"\r\n\r\n").map_or(space.len(), |at| at + 4);
        let body = space.split_off(head_end);
        let failure = answer.failure.map(Failure::label);
        if begun == Begun::Http2 {
            space = http2::response(answer.status, &space);
        }
        self.explanation.outcome = Outcome::Answered { status: answer.status, head: space, body, failure };
        self.explanation
    }

    /// The steps in the order of live traffic. `None`: it is sent to an upstream.
    fn steps(&mut self, with_misses: bool) -> Result<Option<Reply>, Failure> {
        let (bytes, head) = (self.bytes.clone(), self.head.clone());
        let request = Request { bytes: &bytes, head: &head };
        self.is_grpc = grpc::is_call(request);
        let admitted = self.admit(request)?;
        let max_forwards = match guard::method(request) {
            Method::GoOn { max_forwards } => {
                self.note("method", Decision::GoOn, words::method(request.method(), max_forwards));
                max_forwards
            }
            Method::Answered(reply) => {
                self.ended("method", &reply, words::method_answered(request.method()));
                return Ok(Some(reply));
            }
        };
        let (target, authority) = (self.target.clone(), self.authority.clone());
        let lookup = Lookup::new(request, &target, &authority);
        let found = self.listener.router.find(&lookup);
        if with_misses {
            self.explanation.misses = near::misses(self.snapshot, self.listener, &lookup, found.as_ref().ok());
        }
        let found = match found {
            Ok(found) => found,
            Err(missed) => {
                let reply = Reply::missed(&self.listener.router, missed);
                self.ended("route", &reply, words::missed(&self.listener.router, missed, request.method()));
                return Ok(Some(reply));
            }
        };
        let route = self.snapshot.route(found.route);
        self.found(route, &found, request);
        self.access(route, request)?;
        self.limits(route, &admitted)?;
        let upgrade = guard::upgrade(route, request, admitted.connection, admitted.framing);
        let upgrade =
            self.step("upgrade", upgrade, |upgrade| words::upgrade(route, request, upgrade.map(|u| u.as_str())))?;
        if let Some(reply) = self.rates(route, &found, request) {
            return Ok(Some(reply));
        }

        let cache = route.cache.as_ref().filter(|_| upgrade.is_none() && !self.is_grpc);
        let looked = cache.map(|policy| (policy, Looked::at(policy, request, &target, admitted.framing)));
        let target = match &looked {
            Some((policy, looked)) => {
                let decision = if looked.ends() { Decision::Answered } else { Decision::GoOn };
                self.note("cache", decision, looked.words(policy));
                looked.target(&target, self.listener.target)
            }
            None => target,
        };
        let values = Values { params: &found.params, target: &target, authority: &authority };
        match &route.action {
            Action::Forward(_) if looked.as_ref().is_some_and(|(_, looked)| looked.ends()) => {
                Ok(Some(Reply::only_if_cached()))
            }
            Action::Forward(id) => {
                let rewritten = values.rewrite(&route.rewrite, self.listener.target);
                let rewritten = self.step("rewrite", rewritten, words::rewritten)?;
                let upstream = self.snapshot.upstream(*id);
                let speaks_http2 = upstream.protocol.speaks_http2(self.is_grpc, upgrade.is_some());
                self.queue(request, route, upstream);
                self.forward(request, upstream, speaks_http2, upgrade.is_some());
                let outgoing = Outgoing {
                    request,
                    authority: authority.as_str(),
                    hop: &self.listener.hop(self.explanation.client),
                    framing: admitted.framing,
                    connection: admitted.connection,
                    underscores: self.listener.underscores,
                    expects_continue: admitted.expects_continue,
                    upgrade: upgrade.map(String::as_str),
                    max_forwards,
                };
                let scheme = if upstream.tls.is_some() { Scheme::Https } else { Scheme::Http };
                // Where it is agreed on, HTTP/1.1 stands for either.
                let by_http2 = (speaks_http2 == Some(true)).then_some(scheme);
                let fills = looked.filter(|(_, looked)| looked.fills()).map(|(policy, _)| policy);
                self.explanation.outcome = sent(&outgoing, &rewritten, target.as_str(), by_http2, self.is_grpc, fills)?;
                Ok(None)
            }
            Action::Redirect { to, status } => {
                let location = values.location(to).inspect_err(|_| {
                    let why = "it would lead to a host of the client's choice".to_owned();
                    self.note("redirect", Decision::Refused, why);
                })?;
                let why = format!("the route redirects with {status} to `{location}`");
                let reply = Reply::redirect(*status, location);
                self.ended("redirect", &reply, why);
                Ok(Some(reply))
            }
            Action::Respond { status, fields, body } => {
                let reply = Reply::fixed(*status, fields, body);
                self.ended("respond", &reply, format!("the route answers by itself with {status}"));
                Ok(Some(reply))
            }
        }
    }

    fn read_head(&mut self, is_http2: bool) -> Result<(), Failure> {
        let limits = self.listener.limits.head();
        let timeouts = &self.listener.timeouts;
        self.bound("timeouts.header", timeouts.header, "from the first byte of the head to its last");
        let parsed = if is_http2 {
            self.explanation.request = http2::text(self.asked);
            let read = http2::read(self.asked, &mut self.bytes, &mut self.head, limits);
            read.map_err(Failure::RequestMalformed)
        } else {
            self.bytes = listen::bytes(self.asked);
            match parse::request(&self.bytes, &mut Progress::default(), limits, &mut self.head) {
                Ok(true) if self.head.length == self.bytes.len() => Ok(()),
                // A line that ends the head too early: what follows would be another request.
                Ok(_) => Err(Failure::RequestHead(HeadError::LineEnd)),
                Err(error) => Err(Failure::RequestHead(error)),
            }
        };
        let (length, lines) = (self.head.length, self.head.fields.lines().len());
        self.step("head", parsed, |()| words::head(length, lines, limits))
    }

    fn admit(&mut self, request: Request<'_>) -> Result<Admitted, Failure> {
        self.is_head = request.method() == "HEAD";
        let address = || Some(self.listener.address);
        let admitted = admission::admit(self.listener, request, address, &mut self.target, &mut self.authority);
        let serves = listen::serves(self.listener, &self.asked.url, self.authority.host());
        let admitted = admitted.and_then(|admitted| serves.then_some(admitted).ok_or(Failure::RequestMisdirected));
        let why = |admitted: &Admitted| words::admitted(admitted, request.head.version);
        let admitted = self.step("admission", admitted, why)?;
        self.client = client::address(self.listener, self.explanation.client, request);
        self.expects_continue = admitted.expects_continue;
        self.keep_alive = admitted.connection.persists(request.head.version);
        self.explanation.target = Some(words::normalised(request, &self.target, &self.authority, self.listener.target));
        let trusted = self.listener.trusts(self.explanation.client);
        let claims = request.head.fields.present().intersects(CLAIMS);
        self.note("client", Decision::GoOn, words::client(self.explanation.client, trusted, claims));
        let timeouts = &self.listener.timeouts;
        if admitted.framing != Framing::Empty {
            self.bound("timeouts.body", timeouts.body, "without a byte of the request's content");
        }
        self.bound("timeouts.write", timeouts.write, "without the client taking a byte of the response");
        if self.keep_alive {
            self.bound("timeouts.keep-alive", timeouts.keep_alive, "from the end of the response to the next request");
        }
        Ok(admitted)
    }

    fn found(&mut self, route: &Route, found: &Found, request: Request<'_>) {
        let matcher = self.snapshot.matcher(found.route);
        let names = matcher.path.params();
        let values = (0..).map(|index| found.params.get(index, self.target.path()).to_owned());
        let params = names.into_iter().map(str::to_owned).zip(values).collect();
        let matches = matcher.to_string();
        self.note("route", Decision::GoOn, format!("`{}`: {matches}", route.name));
        self.explanation.route = Some(TakenRoute { name: route.name.clone(), matches, params });
        if let Some(time) = guard::timeout(route, request, self.is_grpc) {
            let is_asked = Some(time) != route.timeout;
            let key = if is_asked { "grpc-timeout" } else { "timeout" };
            let of = if is_asked { "the request".to_owned() } else { format!("route {}", route.name) };
            let what = "from the complete head to the last byte of the response";
            self.explanation.timeouts.push(Bound { key, of, time, what });
        }
    }

    /// The access lists of the route, with what their files had when the configuration was read.
    fn access(&mut self, route: &Route, request: Request<'_>) -> Result<(), Failure> {
        if route.access.is_empty() {
            return Ok(());
        }
        let passed = access::pass(self.snapshot, &self.lists(), &route.access, self.client, request);
        self.asked_access("access", &route.access, passed)
    }

    /// Those of the listener, which are asked when the client connects.
    fn connects(&mut self) -> Result<(), Failure> {
        if self.listener.access.is_empty() {
            return Ok(());
        }
        let address = self.explanation.client;
        let passed = access::pass_address(self.snapshot, &self.lists(), &self.listener.access, address);
        self.asked_access("connection", &self.listener.access, passed)
    }

    fn lists(&self) -> Vec<Lists> {
        self.snapshot.access.iter().map(Access::lists).collect()
    }

    fn asked_access(
        &mut self,
        step: &'static str,
        ids: &[AccessId],
        passed: Result<(), (AccessId, Denial)>,
    ) -> Result<(), Failure> {
        match passed {
            Ok(()) => {
                let names: Vec<String> = ids.iter().map(|id| format!("`{}`", self.snapshot.access(*id).name)).collect();
                self.note(step, Decision::GoOn, format!("{} passes {}", self.client, names.join(", ")));
                Ok(())
            }
            Err((id, denial)) => {
                let why = words::denied(&self.snapshot.access(id).name, denial, self.client);
                self.note(step, Decision::Refused, why);
                Err(denial.into())
            }
        }
    }

    fn limits(&mut self, route: &Route, admitted: &Admitted) -> Result<(), Failure> {
        let limit_bytes = guard::body_bytes_max(self.listener, route);
        let of = if route.body_bytes.is_some() { "route" } else { "listener" };
        let bound = format!("`limits.body` of the {of}, {}", words::size(limit_bytes));
        self.step("body limit", guard::body(admitted.framing, limit_bytes), |()| words::limit(admitted.framing, &bound))
    }

    fn queue(&mut self, request: Request<'_>, route: &Route, upstream: &Upstream) {
        let Some(concurrency) = upstream.concurrency else { return };
        let trusted = self.listener.trusts(self.explanation.client);
        let (urgency, source) = ask::urgency(&upstream.waiting, route, request, trusted);
        self.note("queue", Decision::GoOn, words::queue(concurrency, &upstream.waiting, urgency, source));
        let of = format!("upstream {}", upstream.name);
        let time = upstream.waiting.wait_max;
        self.explanation.timeouts.push(Bound { key: "queue.max-wait", of, time, what: "to be sent" });
    }

    /// What the limits of the route would say if nobody had asked before.
    fn rates(&mut self, route: &Route, found: &Found, request: Request<'_>) -> Option<Reply> {
        let (target, authority) = (self.target.clone(), self.authority.clone());
        let client = client::address(self.listener, self.explanation.client, request);
        let (host, path, params) = (authority.host(), target.path(), &found.params);
        let facts = Facts { client, request, host, path, params, route: &route.name };
        let mut refused = false;
        for applied in &route.limits {
            let (why, fits) = self.snapshot.limit(applied.limit).explained(applied, &facts);
            self.note("limit", if fits { Decision::GoOn } else { Decision::Refused }, why);
            refused |= !fits;
        }
        refused.then(|| Reply::rate_limited(None, ""))
    }

    fn forward(&mut self, request: Request<'_>, upstream: &Upstream, speaks_http2: Option<bool>, upgrade: bool) {
        let balance = match (upstream.endpoints.len(), upstream.balance) {
            (1, _) => "the only one",
            (_, Balance::RoundRobin) => "each in turn, on each core",
            (_, Balance::TwoChoices) => "the one with fewer requests under way of two drawn at random, on each core",
        };
        let candidates = upstream.endpoints.iter().map(shown_endpoint).collect();
        let retries = words::retries(request.method(), upstream);
        let by = words::carried(upstream, speaks_http2);
        self.note("upstream", Decision::GoOn, format!("`{}`, {balance}{by}", upstream.name));
        if let Some(check) = &upstream.health {
            self.note("health", Decision::GoOn, words::health(check));
        }
        self.explanation.upstream = Some(TakenUpstream { name: upstream.name.clone(), candidates, balance, retries });
        let of = format!("upstream {}", upstream.name);
        let bounds = [
            ("timeouts.connect", upstream.timeouts.connect, "to be connected"),
            (
                "timeouts.response",
                upstream.timeouts.response,
                "from the request sent to the first byte of the response",
            ),
            ("timeouts.idle", upstream.timeouts.idle, "between two bytes"),
        ];
        for (key, time, what) in bounds {
            self.explanation.timeouts.push(Bound { key, of: of.clone(), time, what });
        }
        if upgrade {
            self.bound(
                "timeouts.tunnel",
                self.listener.timeouts.tunnel,
                "without a byte in either direction after a 101",
            );
        }
    }

    /// Notes a step by what it gave.
    fn step<T>(
        &mut self,
        name: &'static str,
        result: Result<T, Failure>,
        why: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        match &result {
            Ok(value) => self.note(name, Decision::GoOn, why(value)),
            Err(failure) => self.refused(name, *failure),
        }
        result
    }

    fn refused(&mut self, name: &'static str, failure: Failure) {
        self.note(name, Decision::Refused, words::refused(failure));
    }

    /// Notes a step that ended the request.
    fn ended(&mut self, name: &'static str, reply: &Reply, why: String) {
        let decision = if reply.failure.is_some() { Decision::Refused } else { Decision::Answered };
        self.note(name, decision, why);
    }

    fn note(&mut self, name: &'static str, decision: Decision, why: String) {
        self.explanation.steps.push(Step { name, decision, why });
    }

    fn bound(&mut self, key: &'static str, time: Duration, what: &'static str) {
        let of = format!("listener {}", self.listener.name);
        self.explanation.timeouts.push(Bound { key, of, time, what });
    }
}

/// The head that goes to the upstream, by HTTP/2 if there is a scheme for it, and what became of each field. `fills`: the
/// cache asks for it, for others as well.
fn sent(
    outgoing: &Outgoing<'_>,
    rewritten: &Rewritten,
    target: &str,
    by_http2: Option<Scheme>,
    is_grpc: bool,
    fills: Option<&CachePolicy>,
) -> Result<Outcome, Failure> {
    let request = outgoing.request;
    let mut edits = Edits::default();
    outgoing.edit(&mut edits);
    let before = edits.clone();
    if let Some(policy) = fills {
        fill::edit(policy, request, &mut edits);
    }
    if by_http2.is_some() && is_grpc {
        // Servers of gRPC look for it, to find out whether a proxy takes trailers away.
        edits.add_lines(b"TE: trailers\r\n");
    }
    let target = rewritten.target.as_deref().unwrap_or(target);
    let host = rewritten.host.as_deref().unwrap_or(outgoing.authority);
    let head = if let Some(scheme) = by_http2 {
        let opening = outbound::request(request, target, host, scheme.as_str(), &edits);
        http2::opening(&opening.map_err(|_| Failure::RequestTarget(TargetError::Character))?)
    } else {
        let mut head = vec![0; request.head.length + edits.added().len() + target.len() + host.len() + 64];
        let mut writer = Writer::new(&mut head);
        encode::request(&mut writer, request, target, host, &edits);
        let written = writer.finish().unwrap_or(0);
        head.truncate(written);
        head
    };
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for (position, line) in request.head.fields.lines().iter().enumerate() {
        let name = String::from_utf8_lossy(line.name_span.of(request.bytes)).into_owned();
        let value = String::from_utf8_lossy(line.value_span.of(request.bytes)).into_owned();
        if edits.keeps(position, &request.head.fields) {
            kept.push(FieldNote { name, value, why: "" });
        } else {
            let why = if before.keeps(position, &request.head.fields) {
                "not part of the key, and what the origin answers is for others as well"
            } else {
                words::removed(outgoing, line.name, name.as_bytes())
            };
            removed.push(FieldNote { name, value, why });
        }
    }
    let added = edits.added().split(|byte| *byte == b'\n').filter_map(words::field);
    let added = added.map(|(name, value)| FieldNote { why: words::added(&name), name, value }).collect();
    Ok(Outcome::Sent { target: target.to_owned(), host: host.to_owned(), head, kept, removed, added })
}

fn shown_endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Name { host, port } => format!("{host}:{port}"),
    }
}
