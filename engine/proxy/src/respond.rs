//! The policy flow of a request, on one screen. Read this first.
//!
//! A step gives go-on, answered, or [`Failure`]; users choose which steps, never their order.

use std::rc::Rc;

use sluice_rules::failure::Failure;
use sluice_rules::route::{Found, Lookup, Missed};
use sluice_rules::snapshot::{Action, Piece, Rewrite, Template};
use sluice_wire::authority::Authority;
use sluice_wire::head::Request;
use sluice_wire::target::{Target, TargetError};

use crate::core::{Core, Scratch};
use crate::exchange::Exchange;
use crate::reply::Reply;
use crate::rt::Buffer;
use crate::steps::guard;
use crate::upstream::{UpstreamResponse, forward};

/// Where a response comes from.
pub(crate) enum Response {
    /// The gateway's own.
    Own(Reply),
    /// An upstream's.
    Upstream(UpstreamResponse),
}

/// Answers the request whose head is at the front of `input`.
pub(crate) async fn respond(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
) -> Result<Response, Failure> {
    if let Some(reply) = guard::method(exchange, scratch, input)? {
        return Ok(Response::Own(reply));
    }
    if let Err(allowed) = route(exchange, scratch, input)? {
        return Ok(Response::Own(Reply::method_not_allowed(allowed)));
    }
    guard::body(exchange)?;
    guard::upgrade(exchange, scratch, input)?;

    let local = Rc::clone(&exchange.local);
    let route = exchange.route.map(|route| local.snapshot().route(route)).ok_or(Failure::NoRoute)?;
    exchange.due = route.timeout.map(|timeout| core.deadlines.after(timeout));
    match &route.action {
        Action::Forward(upstream) => {
            rewrite(exchange, scratch, &route.rewrite)?;
            forward(core, exchange, scratch, input, *upstream).await.map(Response::Upstream)
        }
        Action::Redirect { to, status } => {
            let location = filled(to, exchange, scratch);
            // What a client sends must not choose the host that it is sent to.
            if location.starts_with("//") {
                return Err(Failure::RequestTarget(TargetError::Form));
            }
            Ok(Response::Own(Reply::redirect(*status, location)))
        }
        Action::Respond { status, fields, body } => Ok(Response::Own(Reply::fixed(*status, fields, body))),
    }
}

/// Finds the route. The inner error is the `Allow` of a 405.
fn route(exchange: &mut Exchange<'_>, scratch: &Scratch, input: &Buffer) -> Result<Result<(), String>, Failure> {
    let lookup = Lookup {
        host: scratch.authority.host(),
        path: scratch.target.path(),
        query: scratch.target.query(),
        request: Request { bytes: input.filled(), head: &scratch.request },
    };
    let router = &exchange.client.listener(&exchange.local).router;
    match router.find(&lookup) {
        Ok(Found { route, params }) => {
            exchange.route = Some(route);
            exchange.params = params;
            Ok(Ok(()))
        }
        Err(Missed::NotFound) => Err(Failure::NoRoute),
        Err(Missed::Method(allowed)) => Ok(Err(router.methods(allowed).collect::<Vec<_>>().join(", "))),
    }
}

/// Writes the target and host that are sent, where the route wants others than were received. What parameters make
/// of them is held to the same rules as what was received.
fn rewrite(exchange: &Exchange<'_>, scratch: &mut Scratch, rewrite: &Rewrite) -> Result<(), Failure> {
    scratch.rewritten_host = None;
    scratch.rewritten_target = None;
    if let Some(host) = &rewrite.host {
        let mut canonical = Authority::default();
        let host = filled(host, exchange, scratch);
        canonical.read(host.as_bytes()).map_err(|_| Failure::RequestHost)?;
        scratch.rewritten_host = Some(canonical.as_str().to_owned());
    }
    if rewrite.path.is_none() && rewrite.query.is_none() {
        return Ok(());
    }
    let mut target = match &rewrite.path {
        Some(path) => filled(path, exchange, scratch),
        None => scratch.target.path().to_owned(),
    };
    let query = match &rewrite.query {
        Some(query) => Some(filled(query, exchange, scratch)).filter(|query| !query.is_empty()),
        None => scratch.target.query().map(str::to_owned),
    };
    if let Some(query) = query {
        target.push('?');
        target.push_str(&query);
    }
    let policy = exchange.client.listener(&exchange.local).target;
    let mut canonical = Target::default();
    canonical.read("GET", target.as_bytes(), policy).map_err(Failure::RequestTarget)?;
    scratch.rewritten_target = Some(canonical.as_str().to_owned());
    Ok(())
}

/// A template with its holes filled.
fn filled(template: &Template, exchange: &Exchange<'_>, scratch: &Scratch) -> String {
    let mut text = String::new();
    for piece in &template.0 {
        text.push_str(match piece {
            Piece::Text(text) => text,
            Piece::Param(param) => exchange.params.get(*param, scratch.target.path()),
            Piece::Path => scratch.target.path(),
            Piece::Query => scratch.target.query().unwrap_or_default(),
            Piece::Host => scratch.authority.host(),
        });
    }
    text
}
