//! The policy flow of a request, on one screen. Read this first.
//!
//! A step gives go-on, answered, or [`Failure`]; users choose which steps, never their order. Steps that need
//! nothing but values are functions of `sluice-rules`, and `sluice_rules::explain` walks through the same ones.

use std::rc::Rc;

use sluice_rules::access;
use sluice_rules::failure::Failure;
use sluice_rules::guard::{self, Method};
use sluice_rules::limit::Facts;
use sluice_rules::reply::Reply;
use sluice_rules::rewrite::Values;
use sluice_rules::route::Lookup;
use sluice_rules::snapshot::Action;
use sluice_wire::head::Request;

use crate::cache::{self, Cached};
use crate::core::{Core, Scratch};
use crate::exchange::Exchange;
use crate::limits::limit;
use crate::rt::Buffer;
use crate::shield::gate;
use crate::upstream::{UpstreamResponse, send};

/// Where a response comes from.
pub(crate) enum Response {
    /// The gateway's own.
    Own(Reply),
    /// An upstream's.
    Upstream(UpstreamResponse),
    /// The cache's.
    Cached(Cached),
}

/// Answers the request whose head is at the front of `input`.
pub(crate) async fn respond(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
) -> Result<Response, Failure> {
    gate::request(core, exchange).await?;
    let local = Rc::clone(&exchange.local);
    let listener = exchange.client.listener(&local);
    let request = Request { bytes: input.filled(), head: &scratch.request };
    match guard::method(request) {
        Method::GoOn { max_forwards } => exchange.max_forwards = max_forwards,
        Method::Answered(reply) => return Ok(Response::Own(reply)),
    }
    let found = match listener.router.find(&Lookup::new(request, &scratch.target, &scratch.authority)) {
        Ok(found) => found,
        Err(missed) => return Ok(Response::Own(Reply::missed(&listener.router, missed))),
    };
    exchange.route = Some(found.route);
    let route = local.snapshot().route(found.route);
    access::pass(local.snapshot(), local.lists(), &route.access, exchange.client_ip, request)
        .map_err(|(_, denial)| denial)?;
    let limit_bytes = guard::body_bytes_max(listener, route);
    guard::body(exchange.framing, limit_bytes)?;
    exchange.limit_content(limit_bytes, &route.trailers);
    exchange.upgrade = guard::upgrade(route, request, exchange.connection, exchange.framing)?.cloned();
    exchange.due = guard::timeout(route, request, exchange.is_grpc).map(|timeout| core.deadlines.after(timeout));
    if !route.limits.is_empty() {
        let client = exchange.client_ip;
        let (host, path, params) = (scratch.authority.host(), scratch.target.path(), &found.params);
        let facts = Facts { client, request, host, path, params, route: &route.name };
        if let Some(refusal) = limit(core, exchange, &route.limits, &facts).await? {
            return Ok(Response::Own(refusal));
        }
    }

    let asked = cache::asked(exchange, scratch, input, route);
    let values = Values { params: &found.params, target: &scratch.target, authority: &scratch.authority };
    match &route.action {
        Action::Forward(upstream) => {
            scratch.rewritten = values.rewrite(&route.rewrite, listener.target)?;
            match asked {
                Some(asked) => cache::respond(core, exchange, scratch, input, asked, *upstream).await,
                None => send(core, exchange, scratch, input, *upstream).await.map(Response::Upstream),
            }
        }
        Action::Redirect { to, status } => Ok(Response::Own(Reply::redirect(*status, values.location(to)?))),
        Action::Respond { status, fields, body } => Ok(Response::Own(Reply::fixed(*status, fields, body))),
    }
}
