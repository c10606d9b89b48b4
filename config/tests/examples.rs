//! Every example loads, and the defaults are those of the reference.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod made;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_config::{Loaded, load, load_str_with};
use sluice_rules::check::{Expect, Scheme, TestRequest, Url, run_tests};
use sluice_rules::snapshot::{
    AccessFormat, Action, Admin, Balance, Bypass, Cache, CachePolicy, Drain, Driver, Endpoint, Http2Limits, KeyParts,
    Level, Log, LogFormat, LogTarget, Piece, Protocols, QueryPart, Reload, SetCookie, Template, TlsVersion,
    Underscores, UnknownName, UpstreamHttp2, UpstreamProtocol,
};

fn example(name: &str) -> Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    load(&path).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn every_example_loads_without_a_warning_and_its_tests_hold() {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(made::examples("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(paths.len() >= 16);
    for path in paths {
        let loaded = load(&path).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.report.diagnostics().is_empty(), "{}", loaded.report);
        let failures: Vec<String> = run_tests(&loaded.snapshot).iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{}: {failures:#?}", path.display());
    }
}

#[test]
fn the_smallest_file_has_safe_defaults() {
    let snapshot = example("plain.toml").snapshot;
    assert_eq!(snapshot.runtime.cores, None);
    assert_eq!(snapshot.runtime.driver, Driver::Auto);
    assert_eq!(snapshot.runtime.memory_bytes, 256 << 20);
    assert_eq!(snapshot.admin, None);
    assert_eq!(snapshot.log, Log { level: Level::Info, format: LogFormat::Text, access: None });
    assert_eq!(snapshot.drain, Drain { grace: Duration::from_secs(1), deadline: Duration::from_secs(30) });
    assert_eq!(snapshot.reload, Reload { watch: false });
    assert!(snapshot.tests.is_empty());
    let listener = &snapshot.listeners[0];
    assert_eq!(listener.name, "127.0.0.1:8080");
    assert_eq!(listener.limits.header_bytes, 16 << 10);
    assert_eq!(listener.limits.header_fields, 100);
    assert_eq!(listener.limits.request_line_bytes, 8 << 10);
    assert_eq!(listener.limits.connections, 100_000);
    assert_eq!(listener.limits.body_bytes, 16 << 20);
    assert_eq!(listener.limits.rate_min, 240);
    assert_eq!(listener.timeouts.header, Duration::from_secs(10));
    assert_eq!(listener.timeouts.keep_alive, Duration::from_secs(75));
    assert_eq!(listener.timeouts.half_close, Duration::from_secs(1));
    assert_eq!(listener.timeouts.tunnel, Duration::from_secs(3600));
    assert!(listener.tls.is_none() && listener.proxy_protocol.is_empty());
    assert_eq!(listener.protocols, Protocols { http1: true, http2: false });
    let http2 = Http2Limits {
        streams: 128,
        window_bytes: 64 << 10,
        connection_window_bytes: 1 << 20,
        resets_per_second: 20,
        control_frames_per_second: 100,
    };
    assert_eq!(listener.http2, http2);
    assert_eq!(listener.underscores, Underscores::Refuse);
    assert_eq!(listener.target, Default::default());
    let upstream = &snapshot.upstreams[0];
    assert_eq!(upstream.balance, Balance::RoundRobin);
    assert_eq!(upstream.endpoints, [Endpoint::Address("127.0.0.1:9000".parse().unwrap())]);
    assert_eq!(upstream.timeouts.connect, Duration::from_secs(2));
    assert_eq!(upstream.keep_alive.connections, 256);
    assert_eq!(upstream.retries, 1);
    assert_eq!((upstream.protocol, &upstream.tls), (UpstreamProtocol::Default, &None));
    assert_eq!(upstream.http2, UpstreamHttp2 { streams: 128, connections: 16 });
    let route = &snapshot.routes[0];
    assert_eq!(route.name, "route 1");
    assert_eq!(route.upgrade, ["websocket"]);
    assert_eq!(route.trailers.len(), 6);
    assert!(matches!(route.action, Action::Forward(id) if snapshot.upstream(id).name == "origin"));
}

/// What is written is what holds: the example that writes out the defaults equals the one that leaves them.
#[test]
fn defaults_that_are_written_out_change_nothing() {
    let (short, long) = (example("plain.toml").snapshot, example("timeouts-limits.toml").snapshot);
    assert_eq!(short.runtime, long.runtime);
    assert_eq!(short.listeners[0].limits, long.listeners[0].limits);
    assert_eq!(short.listeners[0].timeouts, long.listeners[0].timeouts);
    assert_eq!(short.listeners[0].target, long.listeners[0].target);
    assert_eq!(short.upstreams[0].timeouts, long.upstreams[0].timeouts);
    assert_eq!(short.upstreams[0].keep_alive, long.upstreams[0].keep_alive);
    assert_eq!(long.routes[0].body_bytes, Some(1 << 30));
    assert_eq!(long.routes[0].timeout, Some(Duration::from_secs(300)));
}

/// What protects connections is what the files have, and a version of HTTP follows from it.
#[test]
fn certificates_and_protocols_are_those_of_the_files() {
    let folder = made::examples("protected");
    let snapshot = |name: &str| load(&folder.join(name)).unwrap_or_else(|report| panic!("{report}")).snapshot;
    let both = Protocols { http1: true, http2: true };
    let tls = snapshot("tls.toml");
    let listener = &tls.listeners[0];
    assert_eq!((listener.protocols, tls.listeners[1].protocols), (both, Protocols { http1: true, http2: false }));
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!((tls.certificates.len(), tls.certificates[1].chain.len()), (2, 2));
    assert_eq!(tls.certificates[0].files.chain, folder.join("cert.pem"));
    assert_eq!(tls.certificates[0].names, ["localhost", "*.example.com", "127.0.0.1"]);
    assert_eq!((tls.unknown_name, tls.min_version), (UnknownName::Default, TlsVersion::Tls12));
    assert!(tls.client.is_none() && tls.ticket_keys.is_some());

    let mtls = snapshot("mtls.toml");
    let client = |index: usize| mtls.listeners[index].tls.as_ref().and_then(|tls| tls.client.clone()).unwrap();
    assert_eq!((client(0).required, client(1).required, client(0).roots.len()), (true, false, 1));

    let http2 = snapshot("http2.toml");
    assert_eq!((http2.listeners[0].protocols, http2.listeners[1].protocols), (both, both));
    assert_eq!(http2.upstreams[0].protocol, UpstreamProtocol::Http2);
    assert_eq!(http2.upstreams[0].http2, UpstreamHttp2 { streams: 100, connections: 4 });
    assert_eq!(snapshot("grpc.toml").listeners[1].protocols, Protocols { http1: false, http2: true });

    let upstreams = snapshot("upstream-tls.toml").upstreams;
    let (public, internal) = (upstreams[0].tls.as_ref().unwrap(), upstreams[1].tls.as_ref().unwrap());
    assert_eq!(upstreams[0].protocol, UpstreamProtocol::Auto);
    assert!(public.verify && public.roots.is_none() && public.server_name.is_none() && public.certificate.is_none());
    assert_eq!(internal.server_name.as_deref(), Some("orders.internal"));
    assert_eq!(internal.certificate.as_ref().unwrap().files.key, folder.join("client-key.pem"));
    assert_eq!(internal.roots.as_ref().unwrap().len(), 1);

    let networks = snapshot("proxy-protocol.toml").listeners[0].proxy_protocol.clone();
    assert_eq!(networks, ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
}

/// A route keeps what the file says, and otherwise what the origin allows.
#[test]
fn caches_are_those_of_the_file() {
    let snapshot = example("cache.toml").snapshot;
    let purge = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(snapshot.cache, Cache { memory_bytes: 512 << 20, object_bytes_max: 16 << 20, purge });
    let policy = |index: usize| snapshot.routes[index].cache.clone().unwrap();
    let default = CachePolicy { jitter_percent: 5, ..CachePolicy::default() };
    assert_eq!(policy(0), default);
    assert_eq!(default.set_cookie, SetCookie::Pass);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let catalogue = CachePolicy {
        ttl: seconds(30),
        negative_ttl: seconds(5),
        stale_while_revalidate: seconds(60),
        stale_if_error: seconds(3600),
        bypass: vec![Bypass::Cookie("sid".into()), Bypass::Header("x-preview".into())],
        ..default.clone()
    };
    assert_eq!(policy(1), catalogue);
    let key = KeyParts {
        query: QueryPart::Only(vec!["page".into()]),
        headers: vec!["accept-language".into()],
        ..KeyParts::default()
    };
    let tags = Some("cache-tag".into());
    assert_eq!(policy(2), CachePolicy { ttl: seconds(600), ignore_origin: true, key, tags, ..default.clone() });
    let key = KeyParts { identity: true, ..KeyParts::default() };
    assert_eq!(policy(3), CachePolicy { query: true, request_bytes_max: 16 << 10, key, ..default });
    assert_eq!(example("plain.toml").snapshot.routes[0].cache, None);
}

#[test]
fn templates_know_their_parameters_by_position() {
    let snapshot = example("rewrite.toml").snapshot;
    let rewrite = &snapshot.routes[1].rewrite;
    let text = |text: &str| Piece::Text(text.into());
    assert_eq!(rewrite.path, Some(Template(vec![text("/files/"), Piece::Param(1)])));
    assert_eq!(rewrite.query, Some(Template(vec![text("tenant="), Piece::Param(0), text("&"), Piece::Query])));
    assert_eq!(rewrite.host, Some(Template(vec![Piece::Param(0), text(".internal")])));
}

#[test]
fn variables_are_put_in_also_for_numbers() {
    let text = "[runtime]\ncores = '${CORES}'\n[[listener]]\naddress = '127.0.0.1:${PORT:-81}'\n";
    let variables = |name: &str| (name == "CORES").then(|| "3".to_owned());
    let loaded = load_str_with("x.toml", text, &variables).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.snapshot.runtime.cores, Some(3));
    assert_eq!(loaded.snapshot.listeners[0].address.port(), 81);
}

/// A path is relative to the file that names it.
#[test]
fn logs_go_beside_the_file() {
    let log = example("logs.toml").snapshot.log;
    assert_eq!(log.format, LogFormat::Json);
    let access = log.access.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    assert_eq!(access.to, LogTarget::File(folder.join("access.log")));
    assert_eq!((access.format, access.buffer_bytes), (AccessFormat::Json, 1 << 20));
    assert_eq!(access.mask_query, ["token", "password", "sig"]);
    assert_eq!(example("admin.toml").snapshot.admin, Some(Admin::Socket("/tmp/sluice.sock".into())));
}

#[test]
fn tests_are_plain_data() {
    let tests = example("tests.toml").snapshot.tests;
    assert!(tests[0].place.ends_with("tests.toml:20"), "{}", tests[0].place);
    let url = Url { scheme: Scheme::Http, authority: "api.example.com".into(), target: "/users/42?full=1".into() };
    let request = TestRequest { method: "GET".into(), url, fields: vec![], client_ip: None, http2: false };
    assert_eq!(tests[0].request, request);
    assert_eq!(tests[1].expect.location.as_deref(), Some("/new/a/b"));
    assert_eq!(tests[2].request.client_ip, "192.0.2.1".parse().ok());
    assert_eq!(tests[2].request.fields, [("accept".to_owned(), "*/*".to_owned())]);
    assert_eq!(tests[2].expect, Expect { status: Some(404), ..Expect::default() });
}
