//! Every kind of fault: its code, its place, and what the message offers.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use sluice_config::{Code, Report, Severity, load_str_with};

fn variables(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8080".into()),
        "SECRET" => Some("hunter2".into()),
        _ => None,
    }
}

fn report(text: &str) -> Report {
    match load_str_with("gateway.toml", text, &variables) {
        Ok(loaded) => loaded.report,
        Err(report) => report,
    }
}

/// `code line:column help` of each diagnostic.
fn found(text: &str) -> Vec<String> {
    let report = report(text);
    let show = |diagnostic: &sluice_config::Diagnostic| {
        let (line, column) = diagnostic.place.map_or((0, 0), |place| report.position(place));
        let help = diagnostic.help.as_deref().unwrap_or_default();
        format!("{} {line}:{column} {help}", diagnostic.code.as_str()).trim_end().to_owned()
    };
    report.diagnostics().iter().map(show).collect()
}

/// A sound file with these lines behind it; they start at line 8.
fn with(lines: &str) -> String {
    let sound = "listener = [{ address = '127.0.0.1:80' }]\n\n[upstream.origin]\nendpoints = ['10.0.0.1:80']\n[[route]]\n\
                 upstream = 'origin'\n\n";
    format!("{sound}{lines}")
}

/// A route with these lines, besides those of [`with`]; they start at line 9.
fn route(lines: &str) -> String {
    with(&format!("[[route]]\n{lines}"))
}

/// A listener with these lines, and nothing else; they start at line 3.
fn listener(lines: &str) -> String {
    format!("[[listener]]\naddress = '127.0.0.1:80'\n{lines}")
}

#[track_caller]
fn assert_found(text: &str, expected: &[&str]) {
    assert_eq!(found(text), expected, "\n{text}\n{}", report(text));
}

#[test]
fn what_the_tests_build_upon_is_sound() {
    assert_found(&with(""), &[]);
    assert_found(&listener(""), &[]);
    assert_found(&route("path = '/a'\nupstream = 'origin'"), &[]);
}

/// A key that has no meaning, with the key that was probably meant.
#[test]
fn unknown_keys_offer_the_nearest() {
    let cases: &[(String, &[&str])] = &[
        (listener("adress = 1"), &["unknown-key 3:1 did you mean `address`?"]),
        (listener("limits = { header_bytes = '16KiB' }"), &["unknown-key 3:12 did you mean `header-bytes`?"]),
        (listener("zzzzzz = 1"), &["unknown-key 3:1"]),
        (with("[upstrem.x]\nendpoints = []"), &["unknown-key 8:2 did you mean `upstream`?"]),
        (route("upstream = 'origin'\nmethod = ['GET']"), &["unknown-key 10:1 did you mean `methods`?"]),
        (
            route("upstream = 'origin'\npath = { regx = '/a' }"),
            &["missing-key 10:8", "unknown-key 10:10 did you mean `regex`?"],
        ),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A key whose feature is not part of this version says so.
#[test]
fn features_to_come_are_not_unknown_keys() {
    let cases: &[(String, &[&str])] = &[
        (listener("backlog = 128"), &["not-built-yet 3:1"]),
        (listener("protocols = ['h3']"), &["not-built-yet 3:14"]),
        (listener("limits.requests-per-connection = 1"), &["not-built-yet 3:8"]),
        (route("upstream = 'origin'\ncompress = {}"), &["not-built-yet 10:1"]),
        (route("upstream = 'origin'\npath = '/a'\ncache = { vary = [] }"), &["not-built-yet 11:11"]),
        (
            with("[limit.a]\nkey = 'identity'\nrate = '1/s'"),
            &[
                "unused 8:8",
                "not-built-yet 9:7 until clients have identities, count by \"client-ip\" or \"header:NAME\"",
            ],
        ),
        (with("[log.access]\nsample = '1%'"), &["not-built-yet 9:1"]),
        (with("[upstream.b]\nendpoints = ['a:1']\nbalance = 'ewma'"), &["unused 8:11", "not-built-yet 10:11"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// How many an upstream has at a time, and how others wait.
#[test]
fn what_upstreams_and_cores_can_do() {
    let upstream = |text: &str| with(&format!("[upstream.b]\nendpoints = ['a:1']\n{text}"));
    let cases: &[(String, &[&str])] = &[
        (upstream("concurrency = 16\nqueue = { depth = 0 }"), &["unused 8:11"]),
        (upstream("concurrency = 0"), &["unused 8:11", "out-of-range 10:15"]),
        (upstream("concurrency = '16'"), &["unused 8:11", "wrong-type 10:15"]),
        (upstream("queue = {}"), &["unused 8:11", "unused 10:9 write concurrency = 16, or leave the queue out"]),
        (upstream("concurrency = {}"), &["unused 8:11", "missing-key 10:15"]),
        (upstream("concurrency = { adaptive = true, max = 200 }"), &["unused 8:11"]),
        (upstream("concurrency = { adaptive = false }"), &["unused 8:11", "conflict 10:28"]),
        (upstream("concurrency = { adaptive = true, min = 9, max = 8 }"), &["unused 8:11", "out-of-range 10:40"]),
        (upstream("concurrency = { adaptive = true, target = 20 }"), &["unused 8:11", "wrong-type 10:43"]),
        (upstream("concurrency = 1\nqueue.priority = 'x-priority'"), &["unused 8:11", "invalid-value 11:18"]),
        (upstream("concurrency = 1\nqueue.priority-from = 'trusted-proxies'"), &["unused 8:11", "unused 11:23"]),
        (upstream("concurrency = 1\nqueue.fair-by = 'clients'"), &["unused 8:11", "invalid-value 11:17"]),
        (upstream("concurrency = 1\nqueue.fair-by = 'header:a b'"), &["unused 8:11", "invalid-value 11:17"]),
        (
            upstream("concurrency = 1\nqueue.max-wait = 500"),
            &["unused 8:11", "missing-unit 11:18 write the unit, like `\"10s\"`"],
        ),
        (route("upstream = 'origin'\npath = '/a'\npriority = 'urgent'"), &["invalid-value 11:12"]),
        (route("upstream = 'origin'\npath = '/a'\npriority = 8"), &["out-of-range 11:12"]),
        (route("respond = {}\npath = '/a'\npriority = 'low'"), &["unused 11:12"]),
        (with("[overload]\nmemory = '80%'\nbusy = '95%'"), &[]),
        (with("[overload]\nbusy = '0%'"), &["invalid-value 9:8"]),
        (with("[overload]\nbusy = 95"), &["wrong-type 9:8"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// What is kept of responses, and what tells them apart.
#[test]
fn caches() {
    let cache = |table: &str| route(&format!("upstream = 'origin'\npath = '/a'\ncache = {table}"));
    let cases: &[(String, &[&str])] = &[
        (cache("{}"), &[]),
        (cache("true"), &["wrong-type 11:9"]),
        (cache("{ ttl = 10 }"), &["missing-unit 11:17 write the unit, like `\"10s\"`"]),
        (cache("{ ignore-origin = true }"), &["missing-key 11:27 write ttl = \"10m\", or leave `ignore-origin` out"]),
        (cache("{ jitter = '60%' }"), &["out-of-range 11:20"]),
        (cache("{ jitter = '5' }"), &["missing-unit 11:20 write the unit, like `\"20%\"`"]),
        (cache("{ key = ['query:a'] }"), &["invalid-value 11:17 add \"path\""]),
        (cache("{ key = ['path', 'query', 'query:a'] }"), &["conflict 11:35"]),
        (cache("{ key = ['path', 'header:A', 'header:a'] }"), &["duplicate 11:38"]),
        (cache("{ key = ['path', 'body'] }"), &["invalid-value 11:26"]),
        (cache("{ key = ['path', 'query:a b'] }"), &["invalid-value 11:26"]),
        (cache("{ key = ['path', 'host', 'scheme', 'cookie:a', 'method', 'identity'] }"), &[]),
        (cache("{ methods = ['PUT'] }"), &["invalid-value 11:22"]),
        (cache("{ max-request = '1KiB' }"), &["unused 11:25 name POST or QUERY in `methods`"]),
        (cache("{ bypass = ['session'] }"), &["invalid-value 11:21"]),
        (cache("{ max-object = '1GiB' }"), &["out-of-range 11:24"]),
        (route("path = '/a'\nrespond = {}\ncache = {}"), &["conflict 11:9"]),
        (with("[cache]\nmemory = '512MiB'"), &["unused 8:1 write cache = {} in a [[route]]"]),
        (
            with("[cache]\nmemory = '4MiB'\n[[route]]\npath = '/a'\nupstream = 'origin'\ncache = {}"),
            &["out-of-range 9:10"],
        ),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A limit `a` with these lines, which start at line 9, and a route that names it.
fn limit(lines: &str) -> String {
    with(&format!("[limit.a]\n{lines}\n[[route]]\npath = '/a/{{id}}'\nlimits = ['a']\nupstream = 'origin'"))
}

/// What a limit cannot mean.
#[test]
fn limits_say_what_they_allow_to_whom() {
    let by_ip = |lines: &str| limit(&format!("key = 'client-ip'\n{lines}"));
    let cases: &[(String, &[&str])] = &[
        (by_ip("rate = '100/s'"), &[]),
        (by_ip("rate = '5000/hour'\nburst = 1\ndelay = { up-to = '1s' }\nmode = 'observe'"), &[]),
        (by_ip("quota = '1000/month'"), &[]),
        (by_ip("quota = '1000/d'\nwindow = 'sliding'"), &[]),
        (limit("key = ['client-ip', 'param:id', 'cookie:c', 'route', 'host']\nrate = '1/s'"), &[]),
        (limit("rate = '1/s'"), &["missing-key 8:1"]),
        (by_ip(""), &["missing-key 8:1 write rate = \"100/s\""]),
        (by_ip("rate = '1/s'\nquota = '1/day'"), &["conflict 11:9 name two limits on the route"]),
        (by_ip("rate = '1/s'\nwindow = 'sliding'"), &["conflict 11:10"]),
        (by_ip("quota = '1/day'\nburst = 2"), &["conflict 11:9"]),
        (by_ip("quota = '1/day'\ndelay = { up-to = '1s' }"), &["conflict 11:9"]),
        (by_ip("rate = 100"), &["missing-unit 10:8 write the unit, like `\"100/s\"` or `\"1000/day\"`"]),
        (by_ip("rate = '100'"), &["invalid-value 10:8 write it like `\"100/s\"`, `\"5000/h\"` or `\"1000/day\"`"]),
        (by_ip("rate = '0/s'"), &["out-of-range 10:8"]),
        (by_ip("rate = '1000001/s'"), &["out-of-range 10:8"]),
        (by_ip("rate = '1/month'"), &["out-of-range 10:8"]),
        (by_ip("rate = '1/day'\nburst = 1000"), &["out-of-range 10:8"]),
        (by_ip("quota = '5/s'"), &["out-of-range 10:9"]),
        (by_ip("quota = '1/month'\nwindow = 'sliding'"), &["out-of-range 10:9"]),
        (by_ip("quota = '200000/day'\nwindow = 'sliding'"), &["out-of-range 10:9"]),
        (by_ip("rate = '10/s'\ncost = 11"), &["never-matches 11:8"]),
        (by_ip("rate = '1/s'\nmode = 'shadow'"), &["invalid-value 11:8"]),
        (by_ip("rate = '1/s'\noverrides = { 'a' = '1/s' }"), &["invalid-value 11:15"]),
        (by_ip("rate = '1/s'\noverrides = { '::1' = 'unlimited', '10.0.0.0/8' = { rate = '2/s', burst = 9 } }"), &[]),
        (
            by_ip("rate = '1/s'\ntiers = { by = 'client-ip', a = '2/s' }"),
            &["invalid-value 11:16 `overrides` take addresses"],
        ),
        (
            by_ip("rate = '1/s'\ntiers = { by = 'header:x', a = '2/s', b = 3 }"),
            &["missing-unit 11:43 write the unit, like `\"100/s\"` or `\"1000/day\"`"],
        ),
        (by_ip("rate = '1/s'\ntiers = { a = '2/s' }"), &["missing-key 11:9"]),
        (limit("key = ['host', 'route']\nrate = '1/s'\noverrides = { a = '1/s' }"), &["conflict 11:13"]),
        (limit("key = 'header:a b'\nrate = '1/s'"), &["invalid-value 9:7"]),
        (
            limit("key = 'claim:sub'\nrate = '1/s'"),
            &["not-built-yet 9:7 until clients have identities, count by \"client-ip\" or \"header:NAME\""],
        ),
        (limit("key = 'param:no'\nrate = '1/s'"), &["unknown-parameter 13:11"]),
        (with("[limit.'a b']\nkey = 'host'\nrate = '1/s'"), &["invalid-value 8:8", "unused 8:8"]),
        (route("upstream = 'origin'\npath = '/a'\nlimits = ['a']"), &["dangling-name 11:11"]),
        (route("upstream = 'origin'\npath = '/a'\nlimits = { rates = 'a' }"), &["dangling-name 11:20"]),
        (route("upstream = 'origin'\npath = '/a'\nbandwidth = { per-stream = '1B/s' }"), &["out-of-range 11:28"]),
        (with("[limits]\nkeys = 1"), &["out-of-range 9:8"]),
        (with("[limits]\nstate = '/no/such/folder/x'"), &["unwritable 9:9"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
    let twice = limit("key = 'host'\nrate = '1/s'").replace("['a']", "['a', 'a']");
    assert_found(&twice, &["duplicate 13:16"]);
    let costs = limit("key = 'host'\nrate = '5/s'").replace("['a']", "{ rates = 'a', cost = 6 }");
    assert_found(&costs, &["never-matches 13:32"]);
}

/// A key that is missing.
#[test]
fn what_has_to_be_there() {
    let cases: &[(String, &[&str])] = &[
        ("".into(), &["missing-key 1:1 add a [[listener]] with an address"]),
        ("[[listener]]\nname = 'a'".into(), &["missing-key 1:1"]),
        ("[[listner]]\naddress = '127.0.0.1:1'".into(), &["unknown-key 1:3 did you mean `listener`?"]),
        (route("upstrem = 'origin'\npath = '/a'"), &["unknown-key 9:1 did you mean `upstream`?"]),
        (with("[admin]"), &["missing-key 8:1 write address = \"127.0.0.1:9901\""]),
        (with("[[test]]"), &["missing-key 8:1", "missing-key 8:1", "missing-key 8:1"]),
        (with("[[test]]\nname = 'a'\nrequest = {}\nexpect = {}"), &["missing-key 10:11"]),
        (with("[[test]]\nname = 'a'\nrequest = { url = 'http://a' }\nexpect = {}"), &["missing-key 11:10"]),
        (
            with("[[test]]\nname = 'a'\nrequest = { url = 'http://a' }\nexpect = { statu = 200 }"),
            &["unknown-key 11:12 did you mean `status`?"],
        ),
        (with("[upstream.b]"), &["missing-key 8:1"]),
        (route("path = '/a'\nredirect = {}"), &["missing-key 10:12"]),
        (route("path = {}\nupstream = 'origin'"), &["missing-key 9:8"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A value of another type than the key takes.
#[test]
fn types() {
    let cases: &[(String, &[&str])] = &[
        (listener("limits = 1"), &["wrong-type 3:10"]),
        (listener("merge-slashes = 'yes'"), &["wrong-type 3:17"]),
        (listener("trusted-proxies = '10.0.0.0/8'"), &["wrong-type 3:19"]),
        (listener("limits.header-fields = '100'"), &["wrong-type 3:24"]),
        (listener("limits.connections = 1.5"), &["wrong-type 3:22"]),
        ("listener = 1".into(), &["wrong-type 1:12"]),
        (route("path = 1\nupstream = 'origin'"), &["wrong-type 9:8"]),
        (route("upstream = ['origin']"), &["wrong-type 9:12"]),
        (route("upstream = 'origin'\nheaders = { a = false }"), &["wrong-type 10:17"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A number without a unit, with a unit that is none, or no quantity at all.
#[test]
fn units() {
    let cases: &[(String, &[&str])] = &[
        (listener("timeouts.header = 10"), &["missing-unit 3:19 write the unit, like `\"10s\"`"]),
        (listener("timeouts.header = '10'"), &["missing-unit 3:19 write the unit, like `\"10s\"`"]),
        (listener("timeouts.header = '10sec'"), &["invalid-value 3:19 write it like `\"10s\"`"]),
        (listener("timeouts.header = true"), &["wrong-type 3:19"]),
        (listener("limits.body = 1_000_000"), &["missing-unit 3:15 write the unit, like `\"64KiB\"`"]),
        (listener("limits.body = '1mb'"), &["invalid-value 3:15 write it like `\"64KiB\"`"]),
        (listener("limits.min-rate = '240B'"), &["invalid-value 3:19 write it like `\"500B/s\"`"]),
        (listener("limits.min-rate = 240"), &["missing-unit 3:19 write the unit, like `\"500B/s\"`"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A value below the least or above the most.
#[test]
fn ranges() {
    let cases: &[(String, &[&str])] = &[
        (listener("limits.header-bytes = '1B'"), &["out-of-range 3:23"]),
        (listener("limits.header-bytes = '64KiB'"), &["out-of-range 3:23"]),
        (listener("limits.header-fields = 0"), &["out-of-range 3:24"]),
        (listener("limits.header-fields = 257"), &["out-of-range 3:24"]),
        (listener("limits = { header-bytes = '2KiB', request-line-bytes = '4KiB' }"), &["out-of-range 3:56"]),
        (listener("limits.header-bytes = '2KiB'"), &[]),
        (listener("timeouts.header = '99ms'"), &["out-of-range 3:19"]),
        (listener("timeouts.tunnel = '25h'"), &["out-of-range 3:19"]),
        (listener("timeouts.half-close = '0s'"), &[]),
        (with("[drain]\ngrace = '2d'"), &["out-of-range 9:9"]),
        (with("[log.access]\nbuffer = '1KiB'"), &["out-of-range 9:10"]),
        (with("[runtime]\nmemory = '1MiB'"), &["out-of-range 9:10"]),
        (with("[runtime]\ncores = 0"), &["out-of-range 9:9"]),
        (with("[runtime]\ncores = 99999999999999999999"), &["out-of-range 9:9"]),
        (route("path = '/a'\nrespond = { status = 99 }"), &["out-of-range 10:22"]),
        (with("[upstream.b]\nendpoints = ['a:1']\nretries = 4"), &["unused 8:11", "out-of-range 10:11"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A value of the right type that means nothing.
#[test]
fn values_that_mean_nothing() {
    let cases: &[(String, &[&str])] = &[
        ("[[listener]]\naddress = 'localhost'".into(), &["invalid-value 2:11"]),
        (listener("trusted-proxies = ['10.0.0.0/33']"), &["invalid-value 3:20"]),
        (listener("underscores = 'refused'"), &["invalid-value 3:15 did you mean `refuse`?"]),
        (with("[log]\nlevel = 'warning'"), &["invalid-value 9:9 did you mean `warn`?"]),
        (with("[log.access]\nto = 'stdin'"), &["invalid-value 9:6"]),
        (with("[log.access]\nto = 'sdtout'"), &["invalid-value 9:6 did you mean `stdout`?"]),
        (with("[log.access]\nto = 'stdout'\nmask-query = ['']"), &["invalid-value 10:15"]),
        (with("[admin]\nsocket = ''"), &["invalid-value 9:10"]),
        (
            with("[[test]]\nname = 'a'\nrequest = { url = '/x', client-ip = 'a' }\nexpect = { status = 200 }"),
            &["invalid-value 10:19", "invalid-value 10:37"],
        ),
        (with("[runtime]\ncores = 'all'"), &["invalid-value 9:9"]),
        (with("[runtime]\ndriver = 'iouring'"), &["invalid-value 9:10 did you mean `io_uring`?"]),
        (with("[upstream.b]\nendpoints = []"), &["unused 8:11", "invalid-value 9:13"]),
        (
            with("[upstream.b]\nendpoints = ['http://a:1', '10.0.0.1']"),
            &["unused 8:11", "invalid-value 9:14", "invalid-value 9:28"],
        ),
        (route("upstream = 'origin'\nhost = ['a:80', 'b.*']"), &["invalid-value 10:9", "invalid-value 10:17"]),
        (route("upstream = 'origin'\npath = 'a'"), &["invalid-value 10:8"]),
        (route("upstream = 'origin'\npath = '/a*'"), &["invalid-value 10:8"]),
        (route("upstream = 'origin'\npath = { regex = '(' }"), &["invalid-value 10:18"]),
        (route("upstream = 'origin'\npath = { regex = '.{9999}' }"), &["invalid-value 10:18"]),
        (route("upstream = 'origin'\nmethods = ['get', 'G T']"), &["invalid-value 10:12", "invalid-value 10:19"]),
        (route("upstream = 'origin'\nhost = []"), &["invalid-value 10:8"]),
        (route("upstream = 'origin'\nmethods = []"), &["invalid-value 10:11"]),
        (
            route("upstream = 'origin'\nheaders = { 'a b' = true, c = \"a\\nb\" }"),
            &["invalid-value 10:13", "invalid-value 10:31"],
        ),
        (route("path = '/a'\nredirect = { to = '/b', status = 304 }"), &["invalid-value 10:34"]),
        (route("path = '/a'\nrespond = { fields = { a = \"b\\r\\nc: d\" } }"), &["invalid-value 10:28"]),
        (route("path = '/a'\nrespond = { fields = { content-length = '1' } }"), &["invalid-value 10:24"]),
        (route("path = '/a'\nupstream = 'origin'\nupgrade = ['h2c']"), &["invalid-value 11:12"]),
        (
            route("path = '/a'\nupstream = 'origin'\nrewrite = { path = 'b', host = 'a/b', query = '#' }"),
            &["invalid-value 11:20", "invalid-value 11:32", "invalid-value 11:47"],
        ),
        (route("path = '/a'\nupstream = 'origin'\nrewrite = { path = '/{a' }"), &["invalid-value 11:20"]),
        (route("path = '/a'\nupstream = 'origin'\ntrailers = ['a:b']"), &["invalid-value 11:13"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A name of something that does not exist.
#[test]
fn names_that_dangle() {
    let cases: &[(String, &[&str])] = &[
        (
            with("[[test]]\nname = 'a'\nrequest = { url = 'http://a' }\nexpect = { route = 'rote 1', upstream = 'b' }"),
            &["dangling-name 11:20 did you mean `route 1`?", "dangling-name 11:41"],
        ),
        (route("upstream = 'orign'"), &["never-matches 8:1", "dangling-name 9:12 did you mean `origin`?"]),
        (
            route("upstream = 'zzz'\nlistener = ['127.0.0.1:80', '127.0.0.1:81']\npath = '/a'"),
            &["dangling-name 9:12", "dangling-name 10:29 did you mean `127.0.0.1:80`?"],
        ),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// Two things of one name or address.
#[test]
fn two_of_one_name() {
    let test = "[[test]]\nname = 'a'\nrequest = { url = 'http://a' }\nexpect = { status = 404 }\n";
    let cases: &[(String, &[&str])] = &[
        (with(&test.repeat(2)), &["duplicate 13:8"]),
        (
            "[[listener]]\nname = 'a'\naddress = '127.0.0.1:1'\n[[listener]]\nname = 'a'\naddress = '127.0.0.1:1'"
                .into(),
            &["duplicate 5:8", "duplicate 6:11"],
        ),
        ("[[listener]]\naddress = '127.0.0.1:0'\n[[listener]]\naddress = '127.0.0.1:0'".into(), &[]),
        (
            route(
                "name = 'a'\npath = '/a'\nupstream = 'origin'\n[[route]]\nname = 'a'\npath = '/b'\nupstream = 'origin'",
            ),
            &["duplicate 13:8"],
        ),
        (with("[upstream.origin]\nendpoints = ['a:1']"), &["duplicate 8:11"]),
        (route("path = '/a'\nupstream = 'origin'\nupstream = 'origin'"), &["duplicate 11:1"]),
        (
            with(
                "[upstream.b]\nendpoints = ['a:1']\n[[route]]\npath = '/b'\nupstream = 'b'\n[upstream.b]\nendpoints = ['a:1']\nretries = 9",
            ),
            &["duplicate 13:11", "out-of-range 15:11"],
        ),
        (with("[upstream.b]\nendpoints = ['a:1', 'A:1']"), &["unused 8:11", "duplicate 9:21"]),
        (route("path = '/a'\nupstream = 'origin'\nheaders = { X-A = true, x-a = true }"), &["duplicate 11:25"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A template names a parameter that the path does not have.
#[test]
fn parameters() {
    let cases: &[(String, &[&str])] = &[
        (
            route("path = '/users/{name}'\nupstream = 'origin'\nrewrite = { path = '/{nam}/{rest}' }"),
            &["unknown-parameter 11:20 did you mean `name`?", "unknown-parameter 11:20"],
        ),
        (route("path = '/a'\nredirect = { to = '/{id}' }"), &["unknown-parameter 10:19"]),
        (route("path = { regex = '/(?<id>.*)' }\nredirect = { to = '/{id}{path}{host}?{query}' }"), &[]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// What a route writes has to be what the gateway would send or a client could follow.
#[test]
fn templates() {
    let rewrite = |lines: &str| route(&format!("path = '/{{id}}/*'\nupstream = 'origin'\nrewrite = {{ {lines} }}"));
    for sound in [
        "path = '/v2/{id}/{rest}'",
        "path = '/v2{path}'",
        "path = '/'",
        "query = ''",
        "query = 'id={id}&{query}'",
        "host = '{id}.internal:8080'",
        "host = '[::1]'",
    ] {
        assert_found(&rewrite(sound), &[]);
    }
    for wrong in [
        "path = ''",
        "path = '{id}'",
        "path = '/a/../b'",
        "path = '/v2/{path}'",
        "path = '/%7e'",
        "path = '/a?b'",
        "query = 'a#b'",
        "query = 'a\"b'",
        "host = ''",
        "host = 'a/b'",
        "host = 'user@{id}'",
        "host = 'a:99999'",
    ] {
        let column = 13 + wrong.find('\'').unwrap();
        assert_found(&rewrite(wrong), &[format!("invalid-value 11:{column}").as_str()]);
    }
    for (to, is_sound) in [
        ("https://{host}{path}", true),
        ("/new/{rest}", true),
        ("{path}", true),
        ("", false),
        ("new", false),
        ("javascript:alert(1)", false),
        ("{id}.example.com", false),
    ] {
        let text = route(&format!("path = '/{{id}}/*'\nredirect = {{ to = '{to}' }}"));
        assert_found(&text, if is_sound { &[] } else { &["invalid-value 10:19"] });
    }
}

/// Keys that exclude each other, or none of several.
#[test]
fn conflicts() {
    let cases: &[(String, &[&str])] = &[
        (route("path = '/a'"), &["conflict 8:1"]),
        (route("path = '/a'\nupstream = 'origin'\nrespond = {}"), &["conflict 11:11"]),
        (route("path = '/a'\nrespond = { status = 204, body = 'x' }"), &["conflict 10:34"]),
        (with("[admin]\naddress = '127.0.0.1:1'\nsocket = '/tmp/a'"), &["conflict 10:10"]),
        (with("[drain]\ngrace = '5s'\ndeadline = '4s'"), &["conflict 10:12"]),
        (with("[drain]\ngrace = '31s'"), &["conflict 9:9"]),
        (with("[drain]\ndeadline = '1s'"), &[]),
        (
            with(
                "[[test]]\nname = 'a'\nrequest = { url = 'http://a' }\nexpect = { status = 200, upstream = 'origin' }",
            ),
            &["conflict 11:21"],
        ),
        (route("path = '/a'\nrespond = {}\nrewrite = { path = '/b' }"), &["conflict 11:11"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A path that no normalised request has, or the conditions of an earlier route.
#[test]
fn routes_that_no_request_reaches() {
    let cases: &[(String, &[&str])] = &[
        (route("path = '/a/../b'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/a//b'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/a b/*'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/%7Euser'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/caf%c3%a9'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/a;b=c'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/a%2Fb'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/{id}/./x'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/a?b'\nupstream = 'origin'"), &["never-matches 9:8"]),
        (route("path = '/caf%C3%A9'\nupstream = 'origin'"), &[]),
        (route("upstream = 'origin'"), &["never-matches 8:1"]),
        (
            route(
                "path = '/{a}/x'\nhost = ['a', 'b']\nupstream = 'origin'\n[[route]]\npath = '/{b}/x'\nhost = 'B'\nrespond = {}",
            ),
            &["never-matches 12:1"],
        ),
        (
            route(
                "path = '/a'\nhost = ['a', 'b']\nupstream = 'origin'\n[[route]]\npath = '/a'\nhost = ['b', 'c']\nrespond = {}",
            ),
            &[],
        ),
        (
            route("path = '/q'\nquery = { a = 'b c' }\nupstream = 'origin'"),
            &["never-matches 10:15 percent-encode it as it stands in a URL: `a%20b` with upper-case digits"],
        ),
        (
            route(
                "path = '/a'\nmethods = ['GET', 'PUT']\nupstream = 'origin'\n[[route]]\npath = '/a'\nmethods = ['PUT', 'GET']\nupstream = 'origin'",
            ),
            &["never-matches 12:1"],
        ),
        (route("path = '/q'\nquery = { a = 'b%20c' }\nupstream = 'origin'"), &[]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// What is applied though it may not be meant.
#[test]
fn warnings() {
    let cases: &[(String, &[&str])] = &[(with("[upstream.spare]\nendpoints = ['a:1']"), &["unused 8:11"])];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// Addresses that overlap, though they are not the same.
#[test]
fn clashes() {
    let two = |one: &str, other: &str| format!("listener = [{{ address = '{one}' }}, {{ address = '{other}' }}]");
    let help = "name each address, or use one listener";
    let admin = "clash 9:11 use a port of its own, such as 127.0.0.1:9901";
    let cases: &[(String, &[&str])] = &[
        (two("0.0.0.0:80", "127.0.0.1:80"), &[&format!("clash 1:53 {help}")]),
        (two("[::1]:80", "[::]:80"), &[&format!("clash 1:51 {help}")]),
        (two("0.0.0.0:80", "[::]:80"), &[]),
        (two("0.0.0.0:80", "127.0.0.1:81"), &[]),
        (two("0.0.0.0:0", "127.0.0.1:0"), &[]),
        (with("[admin]\naddress = '127.0.0.1:80'"), &[admin]),
        (with("[admin]\naddress = '127.0.0.1:80'").replacen("127.0.0.1", "0.0.0.0", 1), &[admin]),
        (with("[admin]\naddress = '127.0.0.1:81'"), &[]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// A route that another takes all requests of, wherever it stands, and which one that is.
#[test]
fn routes_that_others_hide() {
    let first = |lines: &str| format!("[[listener]]\naddress = '127.0.0.1:80'\n[[route]]\nrespond = {{}}\n{lines}\n");
    let second = |lines: &str| format!("[[route]]\nrespond = {{}}\n{lines}\n");
    let hidden = true;
    for (one, other, is_hidden) in [
        ("path = '/{tenant}/*'", "path = '/static/*'", hidden),
        ("path = '/{tenant}/*'", "path = '/static/css/*'", hidden),
        ("path = '/a/{b}/*'", "path = '/a/c/*'", hidden),
        ("path = '/{tenant}/*'", "path = '/*'", !hidden),
        ("path = '/{tenant}/{b}/*'", "path = '/static/*'", !hidden),
        ("path = '/a/{b}/*'", "path = '/b/c/*'", !hidden),
        ("path = '/{tenant}/*'\nhost = 'a'", "path = '/static/*'", !hidden),
        ("path = '/{tenant}/*'\nmethods = 'GET'", "path = '/static/*'", !hidden),
        ("path = '/{tenant}/*'\nmethods = 'GET'", "path = '/static/*'\nmethods = 'GET'", hidden),
        ("path = { regex = '/.*' }", "path = '/a/*'", hidden),
        ("path = { regex = '/[a-z]+' }", "path = '/a/*'", !hidden),
        ("path = '/a'\nmethods = ['GET', 'PUT']", "path = '/a'\nmethods = ['PUT']", hidden),
        ("path = '/a'\nheaders = { x = true }", "path = '/a'\nheaders = { x = 'a' }", hidden),
        ("path = '/a'\nheaders = { x = { regex = '^a' } }", "path = '/a'\nheaders = { x = 'ab' }", hidden),
        ("path = '/a'\nheaders = { x = 'a' }", "path = '/a'\nheaders = { x = true }", !hidden),
        ("path = '/a'\nheaders = { x = true }", "path = '/a'\nheaders = { x = 'a', y = 'b' }", !hidden),
        ("path = '/a'\nquery = { x = true }", "path = '/a'\nquery = { x = 'a' }", hidden),
    ] {
        let code = format!("never-matches {}:1", 6 + one.matches('\n').count());
        let expected = [code.as_str()];
        assert_found(&(first(one) + &second(other)), if is_hidden { &expected[..] } else { &[] });
    }
    let text = first("path = '/static/*'") + &second("path = '/{tenant}/*'");
    assert_found(&text, &["never-matches 3:1"]);
    let shown = report(&text).to_string();
    assert!(shown.contains("6 | [[route]]") && shown.contains("{parameters} come before a prefix"), "{shown}");
    assert_found(&route("path = '/t'\nmethods = ['TRACE']\nupstream = 'origin'"), &["never-matches 10:12"]);
}

/// Two routes of which neither is more exact, though a request may match both.
#[test]
fn ties() {
    let pair = |one: &str, other: &str| {
        format!(
            "[[listener]]\naddress = '127.0.0.1:80'\n[[route]]\nrespond = {{}}\n{one}\n[[route]]\nrespond = {{}}\n{other}\n"
        )
    };
    let tie = &["tie 6:1 name what parts them in `methods`, `headers` or `query` of both"][..];
    for (one, other, expected) in [
        ("headers = { a = '1' }", "headers = { b = '1' }", tie),
        ("methods = ['GET', 'PUT']", "methods = ['GET', 'POST']", tie),
        ("query = { a = '1' }", "query = { b = true }", tie),
        ("headers = { a = '1' }", "headers = { a = '2' }", &[]),
        ("headers = { a = '1' }", "headers = { a = true }", &[]),
        ("headers = { a = '1' }", "query = { b = '1' }", &[]),
        ("methods = ['GET']", "methods = ['POST']", &[]),
        ("methods = ['GET']\nheaders = { a = '1' }", "methods = ['POST']\nheaders = { b = '1' }", &[]),
        ("host = 'a'\nheaders = { a = '1' }", "host = 'b'\nheaders = { b = '1' }", &[]),
    ] {
        assert_found(&pair(one, other), expected);
    }
}

/// A secret in the file is noticed, and a report does not spread it.
#[test]
fn secrets_in_plain_sight() {
    let help = "write \"${NAME}\" for an environment variable, or \"${file:/run/secrets/name}\"";
    let plain = |place: &str| format!("plain-secret {place} {help}");
    let cases: &[(String, &[String])] = &[
        (route("path = '/a'\nupstream = 'origin'\nheaders = { x-api-key = 'swordfish' }"), &[plain("11:25")]),
        (route("path = '/a'\nrespond = { fields = { set-cookie = 'swordfish=1' } }"), &[plain("10:37")]),
        (
            with(
                "[[test]]\nname = 'a'\nrequest = { url = 'http://a', fields = { authorization = 'Bearer swordfish' } }\nexpect = { status = 404 }",
            ),
            &[plain("10:58")],
        ),
        (route("path = '/a'\nredirect = { to = 'https://me:swordfish@example.com' }"), &[plain("10:19")]),
        (route("path = '/a'\nupstream = 'origin'\nheaders = { x-api-key = '${SECRET}' }"), &[]),
        (route("path = '/a'\nupstream = 'origin'\nheaders = { authorization = true }"), &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(found(text), *expected, "{text}\n{}", report(text));
        for shown in [report(text).render(false), report(text).to_json()] {
            assert!(!shown.contains("swordfish"), "{shown}");
        }
    }
}

/// Whoever reaches the admin endpoints controls the gateway.
#[test]
fn the_admin_endpoints_are_for_this_machine() {
    let help =
        "exposed-admin 9:11 use 127.0.0.1 or [::1], or write allow-remote = true if a firewall keeps others away";
    let cases: &[(String, &[&str])] = &[
        (with("[admin]\naddress = '0.0.0.0:9901'"), &[help]),
        (with("[admin]\naddress = '10.0.0.1:9901'"), &[help]),
        (with("[admin]\naddress = '0.0.0.0:9901'\nallow-remote = true"), &[]),
        (with("[admin]\naddress = '[::1]:9901'"), &[]),
        (with("[admin]\nsocket = '/tmp/a'"), &[]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// Which version of HTTP is spoken depends on whether there is TLS.
#[test]
fn protection_means_something() {
    let ladder = |steps: &str| with(&format!("[protection]\nladder = [{steps}]"));
    let listed = |lines: &str| {
        let route = "[[route]]\npath = '/a'\nupstream = 'origin'\naccess = ['a']\n";
        with(&format!("{route}[access.a]\n{lines}"))
    };
    let cases: &[(String, &[&str])] = &[
        (listed("deny = ['10.0.0.0/8']"), &[]),
        (listed("allow-file = 'no-such-file'"), &["unreadable 13:14 it is read as soon as it is there"]),
        (
            listed(""),
            &["invalid-value 12:1 write deny = [\"203.0.113.0/24\"], allow = [...], or name a file by deny-file"],
        ),
        (listed("deny = ['10.0.0']"), &["invalid-value 13:9"]),
        (listed("deny = ['10.0.0.1/8']"), &["invalid-value 13:9"]),
        (listed("methods = []"), &["invalid-value 13:11 leave it out to let all methods pass"]),
        (listed("methods = ['get']"), &["invalid-value 13:12"]),
        (listed("dny = []"), &["unknown-key 13:1 did you mean `deny`?"]),
        (route("path = '/a'\nupstream = 'origin'\naccess = ['b']"), &["dangling-name 11:11"]),
        (
            route("path = '/a'\nupstream = 'origin'\naccess = ['offce']\n[access.office]\nallow = ['::1']"),
            &[
                "dangling-name 11:11 did you mean `office`?",
                "unused 12:9 write access = [\"office\"] on a route or a listener",
            ],
        ),
        (listener("access = ['a']\n[access.a]\nmethods = ['GET']"), &["unused 3:10"]),
        (listener("access = ['a', 'a']\n[access.a]\ndeny = ['::1']"), &["duplicate 3:16"]),
        (listener("limits.new-connections-per-client = 200"), &["missing-unit 3:37 write the unit, like `\"100/s\"`"]),
        (with("[protection]"), &[]),
        (with("[protection]\nmode = 'enforced'"), &["invalid-value 9:8 did you mean `enforce`?"]),
        (ladder("'throttle:30s', 'ban:10m'"), &[]),
        (ladder("'trottle:30s'"), &["invalid-value 9:11 did you mean `throttle`?"]),
        (ladder("'ban'"), &["invalid-value 9:11 write how long behind it, like `\"ban:10m\"`"]),
        (ladder("'ban:10'"), &["invalid-value 9:11 write how long behind it, like `\"ban:10m\"`"]),
        (ladder("'ban:100ms'"), &["invalid-value 9:11"]),
        (ladder("'ban:10m', 'throttle:1m'"), &["conflict 9:22"]),
        (ladder(""), &["invalid-value 9:10 to take no measures, write mode = \"observe\""]),
        (with("[protection]\ntrip.errors = '0%'"), &["out-of-range 9:15"]),
        (with("[protection]\ntrip.errors = 50"), &["missing-unit 9:15 write the unit, like `\"20%\"`"]),
        (with("[protection]\ntrip.requests = '5/s'"), &["conflict 9:17"]),
        (with("[protection]\nthrottle = '500/s'"), &["conflict 9:12"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

#[test]
fn protocols_go_with_tls() {
    let cases: &[(String, &[&str])] = &[
        (listener("protocols = ['http/1.1', 'h2c']"), &[]),
        (listener("protocols = ['h2c']\nhttp2 = { streams = 1 }"), &[]),
        (listener("protocols = ['h2']"), &["conflict 3:14 in plain text it is \"h2c\""]),
        (listener("protocols = ['h2c', 'h2c']"), &["duplicate 3:21"]),
        (listener("protocols = []"), &["invalid-value 3:13 write [\"h2\", \"http/1.1\"], or leave it out"]),
        (listener("protocols = ['http2']"), &["invalid-value 3:14 did you mean `h2`?"]),
        (listener("protocols = 'h2c'"), &["wrong-type 3:13"]),
        (listener("http2.streams = 1"), &["unused 3:1"]),
        (listener("protocols = ['h2c']\nhttp2.streams = 0"), &["out-of-range 4:17"]),
        (listener("protocols = ['h2c']\nhttp2.window = '2MiB'"), &["out-of-range 4:16"]),
        (listener("protocols = ['h2c']\nhttp2.connection-window = '1KiB'"), &["out-of-range 4:27"]),
        (listener("protocols = ['h2c']\nhttp2.resets = '5/m'"), &["invalid-value 4:16 write it like `\"100/s\"`"]),
        (listener("protocols = ['h2c']\nhttp2.resets = 5"), &["missing-unit 4:16 write the unit, like `\"100/s\"`"]),
        (listener("proxy-protocol = {}"), &["missing-key 3:18"]),
        (listener("proxy-protocol.from = []"), &["invalid-value 3:23 write from = [\"10.0.0.0/8\"]"]),
        (listener("proxy-protocol.from = ['10.0.0.0/8', '::1']"), &[]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// Connections to upstreams: whose certificate is not verified can be anyone.
#[test]
fn upstreams_are_verified() {
    let upstream = |lines: &str| {
        with("").replace("endpoints = ['10.0.0.1:80']", &format!("endpoints = ['10.0.0.1:443']\n{lines}"))
    };
    let help = "unverified 5:18 name the certificates that may sign its own: ca = \"ca.pem\"";
    let cases: &[(String, &[&str])] = &[
        (upstream("tls = true\nprotocol = 'auto'"), &[]),
        (upstream("tls = {}\nprotocol = 'h2'\nhttp2 = { streams = 10, connections = 2 }"), &[]),
        (upstream("tls = { server-name = 'Api.Example.com' }"), &[]),
        (upstream("tls = { server-name = 'https://a' }"), &["invalid-value 5:23"]),
        (upstream("tls = { verify = false }"), &[help]),
        (upstream("tls = { verfy = false }"), &["unknown-key 5:9 did you mean `verify`?"]),
        (upstream("tls = 'on'"), &["wrong-type 5:7"]),
        (upstream("tls = true\nprotocol = 'grpc'"), &["invalid-value 6:12 did you mean `h2`?"]),
        (upstream("tls = true\nprotocol = 'http/1.1'\nhttp2 = {}"), &["unused 7:9"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// What stands for a variable is missing.
#[test]
fn variables_and_files() {
    let cases: &[(String, &[&str])] = &[
        (
            "[[listener]]\naddress = '127.0.0.1:${PORT}'\nname = '${NOWHERE}'".into(),
            &["missing-variable 3:8 set it, or give a default: `${NOWHERE:-default}`"],
        ),
        (
            "[[listener]]\naddress = '${NOWHERE}'".into(),
            &["missing-variable 2:11 set it, or give a default: `${NOWHERE:-default}`"],
        ),
        ("[[listener]]\naddress = '127.0.0.1:${PORT'".into(), &["invalid-value 2:11 a literal `${` is written `$${`"]),
        ("[[listener]]\naddress = '${file:/nonexistent/file}'".into(), &["unreadable 2:11"]),
        ("[[listener]]\naddress = '${}'".into(), &["invalid-value 2:11"]),
        ("include = ['/nonexistent/*.toml']\n[[route]]\nupstream = 'elsewhere'".into(), &["include 1:12"]),
        ("include = ['/nonexistent/file.toml']".into(), &["include 1:12"]),
        ("include = 1\n[[listener]]\naddress = '127.0.0.1:1'".into(), &["wrong-type 1:11"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// Text that is not TOML.
#[test]
fn a_fault_of_syntax_hides_no_others_and_raises_none() {
    let cases: &[(String, &[&str])] = &[
        ("[[listener]\naddress = '127.0.0.1:1'\n[[route]]\nupstream = 'x'".into(), &["syntax 1:12"]),
        ("[[listener]]\naddress = '127.0.0.1:1\nname = 'a'\n".into(), &["syntax 2:23"]),
        ("listener = [\n".into(), &["syntax 1:13"]),
        ("= 1".into(), &["syntax 1:1"]),
        (
            "[[listener]]\naddress = 127.0.0.1:80\nfoo = 1\n".into(),
            &["syntax 2:16 text stands in quotes: \"...\"", "unknown-key 3:1"],
        ),
        (
            "[[listener]]\naddress = '127.0.0.1:1\nlimits.body = 5\n[[route]]\npath = /a\nupstream = 'elsewhere'\n"
                .into(),
            &[
                "syntax 2:23",
                "missing-unit 3:15 write the unit, like `\"64KiB\"`",
                "syntax 5:8 text stands in quotes: \"...\"",
            ],
        ),
        ("[[listener\naddress = 1\n[[route]]\npath = 1\n".into(), &["syntax 1:11", "wrong-type 4:8"]),
        (
            "[upstream.a]\nendpoints = [\n  'a:1'\n  'b:1'\n]\nretries = 9\n".into(),
            &["syntax 4:3", "out-of-range 6:11"],
        ),
        ("a = 1\na.b = 2\n".into(), &["syntax 2:1"]),
    ];
    for (text, expected) in cases {
        assert_found(text, expected);
    }
}

/// All faults of a file are there at once, however different they are.
#[test]
fn ten_faults_are_ten_errors() {
    let text = r#"
[runtime]
driver = "uring"
memory = 64

[[listener]]
address = "127.0.0.1:80"
header-bytes = "16KiB"
timeouts = { header = "1ms" }

[upstream.origin]
endpoints = ["10.0.0.1"]

[[route]]
path = "/a//b"
upstream = "orgin"

[[route]]
path = "/users/{id}"
methods = ["get"]
redirect = { to = "/{name}" }
timeout = "5"

[trace]
"#;
    let expected = [
        "invalid-value 3:10",
        "missing-unit 4:10 write the unit, like `\"64KiB\"`",
        "unknown-key 8:1",
        "out-of-range 9:23",
        "invalid-value 12:14",
        "never-matches 15:8",
        "dangling-name 16:12 did you mean `origin`?",
        "invalid-value 20:12",
        "unknown-parameter 21:19",
        "missing-unit 22:11 write the unit, like `\"10s\"`",
        "not-built-yet 24:2",
    ];
    assert_found(text, &expected);
}

/// What a variable holds is in no message, whatever is wrong with it.
#[test]
fn what_a_variable_holds_is_never_shown() {
    let secret = "${SECRET}";
    let lines = [
        "path = '/a'\nupstream = 'SECRET'",
        "path = 'SECRET'\nupstream = 'origin'",
        "path = '/SECRET//x'\nupstream = 'origin'",
        "path = '/{SECRET}/{SECRET}'\nupstream = 'origin'",
        "path = { regex = '(SECRET' }\nupstream = 'origin'",
        "path = { regex = '(?<SECRET' }\nupstream = 'origin'",
        "path = '/a'\nupstream = 'origin'\nhost = 'SECRET:80'",
        "path = '/a'\nupstream = 'origin'\ntimeout = 'SECRET'",
        "path = '/a'\nupstream = 'origin'\ntimeout = '1SECRET'",
        "path = '/a'\nupstream = 'origin'\nlimits = { body = '1SECRET' }",
        "path = '/a'\nupstream = 'origin'\nmethods = ['SECRET ']",
        "path = '/a'\nredirect = { to = '/{SECRET}' }",
        "path = '/a'\nredirect = { to = '/', status = 'SECRET' }",
        "path = '/a'\nrespond = { fields = { a = ' SECRET' } }",
        "name = 'SECRET'\npath = '/a'\nrespond = {}\n[[route]]\nname = 'SECRET'\npath = '/b'\nrespond = {}",
        "path = '/a'\nrespond = {}\n[upstream.x]\nendpoints = ['SECRET']\nbalance = 'SECRET'",
        "path = '/a'\nrespond = {}\n[upstream.x]\nendpoints = ['SECRET://a']",
        "path = '/a'\nrespond = {}\nlistener = 'SECRET'",
        "path = '/a'\nrespond = {}\n[log.access]\nto = 'SECRET'",
    ];
    for lines in lines {
        let text = route(&lines.replace("SECRET", secret));
        let report = report(&text);
        assert!(report.has_errors(), "{text}");
        for shown in [report.render(false), report.render(true), report.to_json()] {
            assert!(!shown.contains("hunter2"), "\n{text}\n{shown}");
        }
    }
}

/// Both places of what stands twice in a file, for keys and for headers.
#[test]
fn a_duplicate_cites_where_it_stood_first() {
    for (text, first) in [
        (with("[upstream.origin]\nendpoints = ['a:1']"), r#""line":3,"column":11"#),
        (route("path = '/a'\nupstream = 'origin'\nupstream = 'origin'"), r#""line":10,"column":1"#),
    ] {
        let expected = format!(r#""related":[{{"file":"gateway.toml",{first},"label":"first here"}}]"#);
        assert!(report(&text).to_json().contains(&expected), "{}", report(&text));
    }
}

#[test]
fn warnings_do_not_stand_in_the_way() {
    let text = with("[upstream.spare]\nendpoints = ['a:1']");
    let loaded = load_str_with("gateway.toml", &text, &variables).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.report.diagnostics()[0].severity, Severity::Warning);
    assert!(!loaded.report.has_errors());
}

/// The whole of what a person sees of one fault.
#[test]
fn a_report_shows_the_line() {
    let expected = "error[unknown-key]: unknown key `adress`
 --> gateway.toml:3:1
  |
3 | adress = 1
  | ^^^^^^ has no meaning here
  |
  = help: did you mean `address`?";
    assert_eq!(report(&listener("adress = 1")).to_string(), expected);
}

#[test]
fn a_report_is_json_too() {
    let expected = concat!(
        r#"[{"code":"duplicate","severity":"error","message":"two listeners are named \"a\"","#,
        r#""file":"gateway.toml","line":5,"column":8,"label":"again here","#,
        r#""related":[{"file":"gateway.toml","line":2,"column":8,"label":"first here"}]}]"#,
    );
    let one = |port: u16| format!("[[listener]]\nname = \"a\"\naddress = '127.0.0.1:{port}'\n");
    assert_eq!(report(&format!("{}{}", one(1), one(2))).to_json(), expected);
}

/// A code that no test expects may have lost its meaning.
#[test]
fn every_code_is_expected_somewhere() {
    let tests = concat!(include_str!("diagnostics.rs"), include_str!("files.rs"), include_str!("certificates.rs"));
    for code in Code::ALL {
        assert!(tests.contains(&format!("\"{} ", code.as_str())), "{}", code.as_str());
    }
}
