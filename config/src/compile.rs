//! From the tables as written to the snapshot that runs: names become indices, patterns become routers, and what
//! only shows when tables are seen together is checked.

mod cache;
mod expect;
mod health;
mod operate;
mod reach;
mod routes;
mod templates;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use sluice_rules::route::Router;
use sluice_rules::snapshot::{
    KeepAlive, Listener, ListenerLimits, ListenerTimeouts, Reload, Runtime, Snapshot, TargetPolicy, Upstream,
    UpstreamId, UpstreamTimeouts,
};

use crate::error::{Code, Diagnostic, Place};
use crate::read::{At, Context};
use crate::schema::{self, Schema};
use crate::values::{Address, Prefix};

use tls::Certificates;

/// Bytes of a request line where the file says nothing.
const REQUEST_LINE_BYTES: u64 = 8 << 10;

/// The snapshot of a schema. `None`: something is missing without which there is none.
pub(crate) fn snapshot(schema: &Schema, context: &mut Context<'_>) -> Option<Snapshot> {
    let runtime = Runtime {
        cores: schema.runtime.cores.0,
        driver: schema.runtime.driver.0,
        memory_bytes: schema.runtime.memory.0,
    };
    check_listeners(schema, context);
    check_clashes(schema, context);
    let mut certificates = Certificates::new();
    let upstreams = schema.upstream.items.iter();
    let upstreams: Vec<_> =
        upstreams.map(|(name, table)| upstream(name, table.as_ref(), &mut certificates, context)).collect();
    let compiled = routes::compile(schema, context);
    check_unused(schema, &compiled, context);
    let listeners = schema.listener.iter().enumerate();
    let listeners =
        listeners.map(|(index, table)| listener(table, compiled.router(index), &mut certificates, context)).collect();
    let (log, drain) = (operate::log(&schema.log, context), operate::drain(&schema.drain, context));
    let reload = Reload { watch: schema.reload.watch.value };
    let tests = expect::tests(schema, context);
    Some(Snapshot {
        runtime,
        cache: cache::store(schema, context),
        admin: operate::admin(schema, context),
        log,
        drain,
        reload,
        listeners,
        routes: compiled.routes?,
        matchers: compiled.matchers.into_iter().map(|(matcher, _)| matcher).collect(),
        upstreams: upstreams.into_iter().collect::<Option<_>>()?,
        tests,
        hidden: Vec::new(),
    })
}

fn listener(
    table: &schema::Listener,
    router: Router,
    certificates: &mut Certificates,
    context: &mut Context<'_>,
) -> Listener {
    let protocols = tls::protocols(table, context);
    let prefixed = table.proxy_protocol.given();
    if let Some(prefixed) = prefixed.filter(|prefixed| prefixed.from.is_empty() && prefixed.from.complete) {
        let note = Diagnostic::error(Code::InvalidValue, prefixed.from.place, "nobody sends a PROXY prefix");
        context.push(note.label("needs at least one network").help("write from = [\"10.0.0.0/8\"]"));
    }
    Listener {
        name: listener_name(table),
        address: table.address.0,
        tls: table.tls.given().map(|tls| certificates.listener(tls, context)),
        protocols,
        http2: tls::http2(table, protocols, context),
        proxy_protocol: prefixed.iter().flat_map(|table| networks(&table.from)).collect(),
        limits: listener_limits(&table.limits, context),
        timeouts: listener_timeouts(&table.timeouts),
        trusted_proxies: networks(&table.trusted_proxies).collect(),
        underscores: table.underscores.0,
        target: target_policy(table),
        router,
    }
}

fn networks(list: &[At<Prefix>]) -> impl Iterator<Item = IpNet> {
    list.iter().map(|prefix| prefix.0)
}

/// The name from the file, or the address.
pub(crate) fn listener_name(listener: &schema::Listener) -> String {
    listener.name.given().map_or_else(|| listener.address.0.to_string(), |name| name.0.clone())
}

pub(crate) fn target_policy(listener: &schema::Listener) -> TargetPolicy {
    TargetPolicy {
        merge_slashes: listener.merge_slashes.value,
        path_parameters: listener.path_parameters.0,
        encoded_slash: listener.encoded_slashes.0,
    }
}

/// Notes a second thing of a name or an address that something already has.
pub(crate) fn check_unique<K: std::hash::Hash + Eq>(
    seen: &mut HashMap<K, Option<Place>>,
    key: K,
    place: Option<Place>,
    message: impl FnOnce() -> String,
    context: &mut Context<'_>,
) {
    match seen.get(&key) {
        Some(first) => {
            let note = Diagnostic::error(Code::Duplicate, place, message()).label("again here");
            context.push(note.related(*first, "first here"));
        }
        None => {
            seen.insert(key, place);
        }
    }
}

fn check_listeners(schema: &Schema, context: &mut Context<'_>) {
    // After another error, such as a misspelt `[[listner]]`, it may well be there.
    if schema.listener.is_empty() && !context.has_errors() {
        let place = schema.listener.place.unwrap_or(Place::new(0, 0..0));
        let note = Diagnostic::error(Code::MissingKey, Some(place), "there is no listener");
        context.push(note.help("add a [[listener]] with an address"));
    }
    let (mut names, mut addresses) = (HashMap::new(), HashMap::new());
    for listener in &schema.listener.items {
        if let Some(name) = listener.name.given() {
            let message = format!("two listeners are named {}", context.written(name.place));
            check_unique(&mut names, name.0.as_str(), name.place, || message, context);
        }
        let address = &listener.address;
        // Port 0 is another port each time.
        if address.0.port() != 0 {
            let message = format!("two listeners have the address {}", context.written(address.place));
            check_unique(&mut addresses, address.0, address.place, || message, context);
        }
    }
}

/// Notes addresses that overlap: every address of a port, and one of them. With IPv6, every address is none of IPv4.
fn check_clashes(schema: &Schema, context: &mut Context<'_>) {
    let overlap = |one: SocketAddr, other: SocketAddr| {
        let wild = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
        wild && one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4()
    };
    let mut by_port: HashMap<u16, Vec<&At<Address>>> = HashMap::new();
    for listener in schema.listener.iter() {
        let known = by_port.entry(listener.address.0.port()).or_default();
        let clash = known.iter().find(|known| known.0 != listener.address.0 && overlap(known.0, listener.address.0));
        if let Some(first) = clash {
            let note = Diagnostic::warning(Code::Clash, listener.address.place, "two listeners overlap");
            let note = note.label("one of them is for every address of the port");
            context
                .push(note.related(first.place, "overlaps with this").help("name each address, or use one listener"));
        }
        known.push(&listener.address);
    }
    let Some(admin) = schema.admin.given().and_then(|admin| admin.address.given()) else { return };
    if let Some(listener) = schema.listener.iter().find(|listener| overlap(listener.address.0, admin.0)) {
        let note = Diagnostic::error(Code::Clash, admin.place, "the admin address is one that clients connect to");
        let note = note.label("taken already").help("use a port of its own, such as 127.0.0.1:9901");
        context.push(note.related(listener.address.place, "by this listener"));
    }
}

fn listener_limits(limits: &schema::ListenerLimits, context: &mut Context<'_>) -> ListenerLimits {
    let (head, line) = (limits.header_bytes.0, limits.request_line_bytes.given());
    if let Some(line) = line.filter(|line| line.0 > head) {
        let note = Diagnostic::error(Code::OutOfRange, line.place, "`request-line-bytes` is more than `header-bytes`");
        let note = note.label(format!("has to be at most {}", crate::units::show_size(head)));
        context.push(note.related(limits.header_bytes.place, "the whole head"));
    }
    ListenerLimits {
        header_bytes: head as usize,
        header_fields: limits.header_fields.0 as usize,
        request_line_bytes: line.map_or(REQUEST_LINE_BYTES, |line| line.0).min(head) as usize,
        connections: limits.connections.0 as usize,
        body_bytes: limits.body.0,
        rate_min: limits.min_rate.0,
    }
}

fn listener_timeouts(timeouts: &schema::ListenerTimeouts) -> ListenerTimeouts {
    ListenerTimeouts {
        header: timeouts.header.0,
        keep_alive: timeouts.keep_alive.0,
        body: timeouts.body.0,
        write: timeouts.write.0,
        half_close: timeouts.half_close.0,
        tunnel: timeouts.tunnel.0,
    }
}

fn upstream(
    name: &At<String>,
    table: Option<&At<schema::Upstream>>,
    certificates: &mut Certificates,
    context: &mut Context<'_>,
) -> Option<Upstream> {
    let table = table?;
    if table.endpoints.is_empty() && table.endpoints.complete {
        let message = format!("the upstream `{}` has no endpoints", name.value);
        context.push(Diagnostic::error(Code::InvalidValue, table.endpoints.place, message).label("needs at least one"));
    }
    let mut seen = HashMap::new();
    for endpoint in &table.endpoints.items {
        let message = format!("the endpoint {} is listed twice", context.written(endpoint.place));
        check_unique(&mut seen, &endpoint.0, endpoint.place, || message, context);
    }
    let (protocol, http2) = tls::upstream_http2(table, context);
    Some(Upstream {
        name: name.value.clone(),
        endpoints: table.endpoints.iter().map(|endpoint| endpoint.0.clone()).collect(),
        balance: table.balance.0,
        timeouts: UpstreamTimeouts {
            connect: table.timeouts.connect.0,
            response: table.timeouts.response.0,
            idle: table.timeouts.idle.0,
        },
        keep_alive: KeepAlive { connections: table.keep_alive.connections.0 as usize, idle: table.keep_alive.idle.0 },
        retries: table.retries.0 as u32,
        header_bytes: table.limits.header_bytes.0 as usize,
        header_fields: table.limits.header_fields.0 as usize,
        protocol,
        tls: certificates.upstream(table, context),
        http2,
        health: health::health(table, context),
    })
}

/// Warns of upstreams that no route sends to and of listeners without a route. With a route that is not as it was
/// meant, one cannot know.
fn check_unused(schema: &Schema, compiled: &routes::Compiled, context: &mut Context<'_>) {
    if !schema.route.complete || schema.route.doubtful.contains(&true) {
        return;
    }
    for (index, (name, table)) in schema.upstream.items.iter().enumerate() {
        if table.is_some() && !compiled.used.contains(&UpstreamId(index as u32)) {
            let message = format!("no route sends to the upstream `{}`", name.value);
            context.push(Diagnostic::warning(Code::Unused, name.place, message).label("unused"));
        }
    }
    for (index, listener) in schema.listener.iter().enumerate() {
        if !schema.route.is_empty() && !compiled.applies(index) {
            let note = Diagnostic::warning(Code::Unused, listener.place, "no route applies to the listener");
            context.push(note.label("answers everything with 404"));
        }
    }
}
