//! Protected connections and versions of HTTP, on both sides.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_rules::snapshot::{
    Certificate, CertificateFiles, ClientCertificates, Http2Limits, Protocols, Tls, UpstreamHttp2, UpstreamProtocol,
    UpstreamTls,
};

use super::check_unique;
use crate::certificates::{self, CertificateError, Concern, Fault, Summary, algorithm};
use crate::error::{Code, Diagnostic, Place};
use crate::read::{At, Context, Optional};
use crate::schema::{self, ListenerProtocol};
use crate::values::FilePath;

/// Certificates by their files, so that one that several listeners use is read and warned of once.
pub(super) struct Certificates {
    loaded: HashMap<CertificateFiles, Option<Arc<Certificate>>>,
    /// Seconds since 1970.
    now: i64,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        Certificates { loaded: HashMap::new(), now }
    }

    /// How a listener protects its connections.
    pub(super) fn listener(&mut self, table: &schema::ListenerTls, context: &mut Context<'_>) -> Tls {
        let files = &table.certificates;
        if files.is_empty() && files.complete {
            let note = Diagnostic::error(Code::InvalidValue, files.place, "a listener with `tls` has a certificate");
            context.push(note.label("needs at least one").help("write { chain = \"cert.pem\", key = \"key.pem\" }"));
        }
        let mut found = Vec::new();
        for one in files.iter() {
            let Some(certificate) = self.certificate(one, true, context) else { continue };
            found.push((certificate, one.chain.place));
        }
        check_names(&found, context);
        let client = table.client.given().map(|client| ClientCertificates {
            roots: authorities(&client.ca, context).unwrap_or_default(),
            required: client.mode.0,
        });
        let ticket_keys = table.ticket_keys.given();
        let ticket_keys = ticket_keys.and_then(|file| used(certificates::ticket_keys(&file.0), file.place, context));
        Tls {
            certificates: found.into_iter().map(|(certificate, _)| certificate).collect(),
            unknown_name: table.unknown_name.0,
            client,
            min_version: table.min_version.0,
            ticket_keys,
        }
    }

    /// How connections to an upstream are protected.
    pub(super) fn upstream(&mut self, table: &schema::Upstream, context: &mut Context<'_>) -> Option<UpstreamTls> {
        let table = table.tls.given()?.value.0.as_ref()?;
        if !table.verify.value {
            let message = "the certificate of the upstream is not verified";
            let note = Diagnostic::warning(Code::Unverified, table.verify.place, message);
            let note = note.label("whoever is in between can be the upstream");
            context.push(match table.ca.given() {
                Some(ca) => note.related(ca.place, "has no effect"),
                None => note.help("name the certificates that may sign its own: ca = \"ca.pem\""),
            });
        }
        let certificate = table.certificate.given().and_then(|files| self.certificate(files, false, context));
        Some(UpstreamTls {
            roots: table.ca.given().and_then(|ca| authorities(ca, context)),
            server_name: table.server_name.given().map(|name| name.0.clone()),
            certificate,
            verify: table.verify.value,
        })
    }

    fn certificate(
        &mut self,
        table: &At<schema::CertificateFiles>,
        is_server: bool,
        context: &mut Context<'_>,
    ) -> Option<Arc<Certificate>> {
        let files = CertificateFiles { chain: table.chain.0.clone(), key: table.key.0.clone() };
        if let Some(known) = self.loaded.get(&files) {
            known.iter().for_each(|known| context.certificate(table.chain.place, Summary::from(&**known)));
            return known.clone();
        }
        let place = |file: &Path| if file == files.key { table.key.place } else { table.chain.place };
        let loaded = match certificates::load(&files) {
            Ok(certificate) => {
                for concern in certificates::concerns(&certificate, self.now) {
                    // Servers do not look at the names of their clients.
                    if is_server || concern != Concern::Nameless {
                        doubt(&concern, table, context);
                    }
                }
                context.certificate(table.chain.place, Summary::from(&certificate));
                Some(Arc::new(certificate))
            }
            Err(CertificateError { file, fault }) => {
                let note = unusable(&fault, place(&file), context);
                let is_pair = fault == Fault::KeyMismatch;
                context.push(if is_pair { note.related(table.chain.place, "of this certificate") } else { note });
                None
            }
        };
        self.loaded.insert(files, loaded.clone());
        loaded
    }
}

fn doubt(concern: &Concern, table: &schema::CertificateFiles, context: &mut Context<'_>) {
    let place = if matches!(concern, Concern::ExposedKey(_)) { table.key.place } else { table.chain.place };
    let note = Diagnostic::warning(concern.code(), place, concern.to_string());
    context.push(note.label(concern.label()).help(concern.help()));
}

fn unusable(fault: &Fault, place: Option<Place>, context: &Context<'_>) -> Diagnostic {
    let message = format!("{} cannot be used", context.written(place));
    Diagnostic::error(fault.code(), place, message).label(fault.to_string()).help(fault.help())
}

/// What was read, or a note of why it could not be.
fn used<T>(read: Result<T, CertificateError>, place: Option<Place>, context: &mut Context<'_>) -> Option<T> {
    read.map_err(|error| context.push(unusable(&error.fault, place, context))).ok()
}

fn authorities(file: &At<FilePath>, context: &mut Context<'_>) -> Option<Arc<[Vec<u8>]>> {
    context.refer(&file.0);
    used(certificates::authorities(&file.0), file.place, context)
}

/// Warns of a certificate that is never shown, since one before it has the same name and algorithm.
fn check_names(certificates: &[(Arc<Certificate>, Option<Place>)], context: &mut Context<'_>) {
    let mut seen: HashMap<(&str, String), Option<Place>> = HashMap::new();
    for (certificate, place) in certificates {
        let algorithm = algorithm(certificate);
        for name in &certificate.names {
            let key = (name.as_str(), algorithm.clone());
            match seen.get(&key) {
                Some(first) if first != place => {
                    let message = format!("two certificates have the name {name} and the algorithm {algorithm}");
                    let note = Diagnostic::warning(Code::Duplicate, *place, message);
                    context.push(note.label("not shown for that name").related(*first, "shown"));
                    break;
                }
                Some(_) => {}
                None => {
                    seen.insert(key, *place);
                }
            }
        }
    }
}

/// The versions of HTTP that a listener speaks.
pub(super) fn protocols(table: &schema::Listener, context: &mut Context<'_>) -> Protocols {
    let is_tls = !table.tls.is_absent();
    let Some(names) = table.protocols.given() else { return Protocols { http1: true, http2: is_tls } };
    if names.is_empty() && names.complete {
        let note = Diagnostic::error(Code::InvalidValue, names.place, "a listener speaks some version of HTTP");
        context.push(note.label("needs at least one").help("write [\"h2\", \"http/1.1\"], or leave it out"));
    }
    let mut seen = HashMap::new();
    for name in names.iter() {
        let message = format!("{} is listed twice", context.written(name.place));
        check_unique(&mut seen, name.0, name.place, || message, context);
        let (message, help) = match name.0 {
            ListenerProtocol::Http2 if !is_tls => {
                ("`h2` is HTTP/2 over TLS, and the listener has no `tls`", "in plain text it is \"h2c\"")
            }
            ListenerProtocol::Http2Cleartext if is_tls => {
                ("`h2c` is HTTP/2 in plain text, and the listener has `tls`", "over TLS it is \"h2\"")
            }
            ListenerProtocol::Http1 | ListenerProtocol::Http2 | ListenerProtocol::Http2Cleartext => continue,
        };
        let note = Diagnostic::error(Code::Conflict, name.place, message).label("never spoken here").help(help);
        context.push(note.related(table.tls.given().and_then(|tls| tls.place), "protected by this"));
    }
    let http1 = |name: &At<schema::ListenerProtocolName>| name.0 == ListenerProtocol::Http1;
    Protocols { http1: names.iter().any(http1), http2: !names.iter().all(http1) }
}

/// Bounds of the HTTP/2 connections of a listener.
pub(super) fn http2(table: &schema::Listener, protocols: Protocols, context: &mut Context<'_>) -> Http2Limits {
    let bounds = &table.http2;
    if let (Some(place), false) = (bounds.place, protocols.http2 || matches!(table.protocols, Optional::Broken)) {
        let note = Diagnostic::warning(Code::Unused, Some(place), "the listener does not speak HTTP/2");
        context.push(note.label("has no effect"));
    }
    if bounds.window.0 > bounds.connection_window.0 {
        let place = bounds.window.place.or(bounds.connection_window.place);
        let note = Diagnostic::error(Code::OutOfRange, place, "`window` is more than `connection-window`");
        let note = note.label(format!("has to be at most {}", crate::units::show_size(bounds.connection_window.0)));
        let connection = bounds.connection_window.place.filter(|_| bounds.window.place.is_some());
        context.push(note.related(connection, "that of all requests together"));
    }
    Http2Limits {
        streams: bounds.streams.0 as u32,
        window_bytes: bounds.window.0 as u32,
        connection_window_bytes: bounds.connection_window.0 as u32,
        resets_per_second: bounds.resets.0 as u32,
        control_frames_per_second: bounds.control_frames.0 as u32,
    }
}

/// Which version of HTTP an upstream is spoken to, and within which bounds.
pub(super) fn upstream_http2(table: &schema::Upstream, context: &mut Context<'_>) -> (UpstreamProtocol, UpstreamHttp2) {
    let protocol = table.protocol.given().map_or(UpstreamProtocol::Default, |name| name.0);
    if let (Some(place), UpstreamProtocol::Http1) = (table.http2.place, protocol) {
        let note = Diagnostic::warning(Code::Unused, Some(place), "the upstream is not spoken to by HTTP/2");
        let because = table.protocol.given().and_then(|name| name.place);
        context.push(note.label("has no effect").related(because, "because of this"));
    }
    let (streams, connections) = (table.http2.streams.0 as u32, table.http2.connections.0 as usize);
    (protocol, UpstreamHttp2 { streams, connections })
}
