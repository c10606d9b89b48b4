//! Clients that do harm, and those beside them: gates, lists, the ladder, bans. Clients differ by their address on
//! loopback.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_load::origin::{Ended, Origin, Reply};
use socket2::{Domain, Socket, Type};

use crate::harness::{Broken, Client, PATIENCE, Setup, Site, both_drivers, eventually, within};

/// The admin endpoints.
const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// A protection that is quick to judge.
fn protection(mode: &str, ladder: &str) -> String {
    format!(
        "{ADMIN}\n[protection]\nmode = \"{mode}\"\nthrottle = \"5/s\"\n\
         trip = {{ requests = \"200/s\", errors = \"50%\", min-requests = 40 }}\nladder = [{ladder}]\n"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// A connection from `127.0.0.LAST`.
fn try_connect(address: SocketAddr, last: u8) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    Ok(socket.into())
}

fn connect(site: &Site, last: u8) -> Client {
    Client::over(try_connect(site.gateway.address(), last).expect("a connection to the gateway"))
}

/// The status of one request from `127.0.0.LAST` on a connection of its own; 0 if the connection is broken instead.
fn ask_from(site: &Site, last: u8, request: &str) -> u16 {
    let Ok(stream) = try_connect(site.gateway.address(), last) else { return 0 };
    let mut client = Client::over(stream);
    if client.try_send(request).is_err() {
        return 0;
    }
    client.try_response("GET").map_or(0, |response| response.status())
}

fn is_closed(site: &Site, last: u8) -> bool {
    match try_connect(site.gateway.address(), last) {
        Err(_) => true,
        Ok(stream) => {
            let mut client = Client::over(stream);
            let _ = client.try_send(get("/"));
            matches!(client.try_response("GET"), Err(Broken::Nothing(Ended::Reset | Ended::Finished)))
        }
    }
}

/// What an admin endpoint says.
fn admin(site: &Site, path: &str) -> String {
    let mut client = Client::connect(site.gateway.admin());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    client.response().text()
}

fn state(site: &Site) -> Value {
    serde_json::from_str(&admin(site, "/api/protection")).expect("JSON")
}

/// The value of a line of `/metrics`.
fn metric(site: &Site, name: &str) -> u64 {
    let text = admin(site, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} in\n{text}"))
}

/// Sends requests from `127.0.0.LAST` until `enough`, at most `rate` a second, as fast as one connection goes.
fn flood(address: SocketAddr, last: u8, rate: u32, path: &str, enough: impl Fn(u64, u16) -> bool) {
    let begun = Instant::now();
    let (mut count, mut client) = (0u64, None);
    while begun.elapsed() < PATIENCE {
        if client.is_none() {
            client = try_connect(address, last).ok().map(Client::over);
        }
        let sent = client.as_mut().map(|client| client.try_send(get(path)).is_ok());
        let answer = client.as_mut().filter(|_| sent == Some(true)).map(|client| client.try_response("GET"));
        let status = match answer {
            Some(Ok(response)) => {
                if response.field("connection").as_deref() == Some("close") {
                    client = None;
                }
                response.status()
            }
            Some(Err(_)) | None => {
                client = None;
                0
            }
        };
        count += 1;
        if enough(count, status) {
            return;
        }
        let due = Duration::from_secs(1) * u32::try_from(count).unwrap_or(u32::MAX) / rate;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

both_drivers! {
    /// What is denied gets 403 from a route and no connection from a listener; others notice nothing.
    fn access_lists_refuse_by_address(driver: &str) {
        let more = format!(
            "{ADMIN}[[route]]\npath = \"/inner/*\"\nupstream = \"origin\"\naccess = [\"outer\", \"inner\"]\n\
             [access.blocked]\ndeny = [\"127.0.0.9\"]\n\
             [access.outer]\ndeny = [\"127.0.0.3\"]\n[access.inner]\nallow = [\"127.0.0.2\", \"127.0.0.3\"]\n"
        );
        let setup = Setup { listener: "access = [\"blocked\"]".to_owned(), ..Setup::more(&more) };
        let site = Site::echo(driver, &setup);
        let cases = [(2, "/inner/a", 200), (3, "/inner/a", 403), (4, "/inner/a", 403), (3, "/outer", 200), (9, "/", 0)];
        for (last, path, expected) in cases {
            assert_eq!(ask_from(&site, last, &get(path)), expected, "127.0.0.{last} {path}");
        }
        let mut client = connect(&site, 4);
        client.send(get("/inner/a"));
        let response = client.response();
        assert!(response.is_problem());
        assert_eq!(response.proxy_error().as_deref(), Some("http_request_denied"));
        client.send(get("/outer"));
        assert_eq!(client.response().status(), 200, "the connection goes on");
        assert_eq!(metric(&site, "sluice_gate_refusals_total{reason=\"access\"}"), 1);
        assert!(eventually(|| metric(&site, "sluice_failures_total{cause=\"http_request_denied\"}") == 3));
    }

    /// The request's client is whom a trusted proxy names, and nobody else is believed.
    fn access_lists_ask_for_the_client_behind_a_proxy(driver: &str) {
        let setup = Setup {
            listener: "trusted-proxies = [\"127.0.0.2\", \"10.0.0.0/8\"]".to_owned(),
            route: "access = [\"bad\"]".to_owned(),
            ..Setup::more("[access.bad]\ndeny = [\"192.0.2.0/24\"]\n")
        };
        let site = Site::echo(driver, &setup);
        let cases = [
            (2, "X-Forwarded-For: 192.0.2.7", 403),
            (2, "X-Forwarded-For: 198.51.100.1, 192.0.2.7, 10.0.0.1", 403),
            (2, "X-Forwarded-For: 192.0.2.7, 198.51.100.1", 200),
            (2, "X-Forwarded-For: 192.0.2.7, nonsense", 200),
            (2, "Forwarded: for=\"192.0.2.7:4711\"", 403),
            (2, "X-Forwarded-For: 198.51.100.1\r\nForwarded: for=192.0.2.7", 200),
            (3, "X-Forwarded-For: 192.0.2.7", 200),
        ];
        for (last, field, expected) in cases {
            let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
            assert_eq!(ask_from(&site, last, &request), expected, "127.0.0.{last} {field}");
        }
    }

    fn access_lists_refuse_by_method_and_user_agent(driver: &str) {
        let setup = Setup {
            route: "access = [\"reading\"]".to_owned(),
            ..Setup::more(
                "[access.reading]\nmethods = [\"GET\"]\ndeny-user-agents = [{ regex = \"(?i)scan\" }, \"\"]\n",
            )
        };
        let site = Site::echo(driver, &setup);
        let cases = [
            ("GET", "User-Agent: curl", 200),
            ("PUT", "User-Agent: curl\r\nContent-Length: 0", 403),
            ("GET", "User-Agent: BigScanner/1", 403),
            ("GET", "X-Other: 1", 403),
        ];
        for (method, field, expected) in cases {
            let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
            assert_eq!(ask_from(&site, 1, &request), expected, "{method} {field}");
        }
    }

    /// A changed list is in use without a reload; one with a mistake changes nothing and is told of.
    fn a_list_file_is_read_again_when_it_changes(driver: &str) {
        let folder = crate::harness::TempDir::new();
        let list = folder.file("list.txt", "127.0.0.2\n");
        let setup = Setup {
            route: "access = [\"bad\"]".to_owned(),
            ..Setup::more(&format!("{ADMIN}[access.bad]\ndeny-file = \"{}\"\n", list.display()))
        };
        let site = Site::echo(driver, &setup);
        let passes = |last| ask_from(&site, last, &get("/"));
        assert_eq!((passes(2), passes(3)), (403, 200));
        let replace = |text: &str| {
            let new = folder.file("new", text);
            std::fs::rename(new, &list).expect("a file in a temporary directory");
        };
        replace("# others\r\n127.0.0.3/32\r\n");
        assert!(eventually(|| (passes(2), passes(3)) == (200, 403)), "the new list");
        replace("127.0.0.2\nnonsense\n");
        let failed = "sluice_access_list_reloads_total{outcome=\"failed\"}";
        assert!(eventually(|| metric(&site, failed) == 1), "the mistake is told of");
        assert_eq!((passes(2), passes(3)), (200, 403), "what was read before stays in use");
        assert!(eventually(|| site.gateway.output().iter().any(|line| line.contains("line 2: `nonsense`"))));
        std::fs::write(&list, "127.0.0.2\n").expect("a list");
        assert!(eventually(|| (passes(2), passes(3)) == (403, 200)), "written in place");
        let status = site.gateway.status();
        assert!(status.contains("\"configuration\": 1"), "no reload: {status}");
    }

    /// One client's connections are bounded, and those that leave make room; others have their own.
    fn connections_of_a_client_are_bounded(driver: &str) {
        let listener = "limits = { connections-per-client = 3 }";
        let setup = Setup { cores: Some(2), ..Setup::listener(listener) };
        let site = Site::echo(driver, &Setup { more: ADMIN.to_owned(), ..setup });
        let mut held: Vec<Client> = (0..3).map(|_| connect(&site, 2)).collect();
        for client in &mut held {
            client.send(get("/"));
            assert_eq!(client.response().status(), 200);
        }
        assert!(is_closed(&site, 2), "a fourth");
        assert_eq!(ask_from(&site, 3, &get("/")), 200, "another client");
        held.pop();
        assert!(eventually(|| ask_from(&site, 2, &get("/")) == 200), "room again");
        assert!(metric(&site, "sluice_gate_refusals_total{reason=\"connections\"}") >= 1);
    }

    /// New connections of one client come at a rate, over all cores; others have their own.
    fn new_connections_of_a_client_are_bounded(driver: &str) {
        let listener = "limits = { new-connections-per-client = \"10/s\" }";
        let setup = Setup { cores: Some(2), more: ADMIN.to_owned(), ..Setup::listener(listener) };
        let site = Site::echo(driver, &setup);
        let begun = Instant::now();
        let served = (0..60).filter(|_| ask_from(&site, 2, &get("/")) == 200).count();
        let most = 10.0 + begun.elapsed().as_secs_f64() * 10.0 + 1.0;
        assert!(served >= 10 && served as f64 <= most, "{served} of at most {most}");
        assert_eq!(ask_from(&site, 3, &get("/")), 200, "another client");
        assert_eq!(metric(&site, "sluice_gate_refusals_total{reason=\"new-connections\"}"), 60 - served as u64);
        assert!(within(Duration::from_secs(3), || ask_from(&site, 2, &get("/")) == 200), "once its time has come");
    }

    /// The prefix says whose connection it is.
    fn behind_a_proxy_the_client_counts(driver: &str) {
        let listener = "proxy-protocol = { from = [\"127.0.0.0/8\"] }\naccess = [\"bad\"]\n\
                        limits = { connections-per-client = 1 }";
        let site = Site::echo(driver, &Setup { more: "[access.bad]\ndeny = [\"192.0.2.9\"]\n".to_owned(), ..Setup::listener(listener) });
        let open = |address: &str| {
            let mut client = connect(&site, 1);
            let _ = client.try_send(format!("PROXY TCP4 {address} 192.0.2.1 1 80\r\n{}", get("/")));
            let status = client.try_response("GET").map_or(0, |response| response.status());
            (status, client)
        };
        let (first, held) = open("192.0.2.7");
        assert_eq!(first, 200);
        assert_eq!(open("192.0.2.7").0, 0, "a second one of the same client");
        assert_eq!(open("192.0.2.8").0, 200, "another client by the same proxy");
        assert_eq!(open("192.0.2.9").0, 0, "one that is denied");
        drop(held);
        assert!(eventually(|| open("192.0.2.7").0 == 200));
    }

    /// A client above its rate is slowed down within two seconds and banned if it goes on; others notice nothing. When
    /// its time has passed it is served again.
    fn a_flood_goes_up_the_ladder(driver: &str) {
        let setup = Setup { cores: Some(2), ..Setup::more(&protection("enforce", "\"throttle:30s\", \"ban:3s\"")) };
        let site = Site::echo(driver, &setup);
        let begun = Instant::now();
        let throttled = AtomicU64::new(0);
        flood(site.gateway.address(), 2, 2000, "/", |_, status| {
            let now = begun.elapsed().as_millis() as u64;
            if status == 429 {
                let _ = throttled.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
            }
            status == 0 || status == 403
        });
        let banned = begun.elapsed();
        let throttled = Duration::from_millis(throttled.into_inner());
        println!("throttled after {throttled:?}, banned after {banned:?}");
        assert!(throttled > Duration::ZERO && throttled < Duration::from_secs(4), "{throttled:?}");
        assert!(is_closed(&site, 2), "banned");
        assert_eq!(ask_from(&site, 3, &get("/")), 200, "others are served");
        let state = state(&site);
        let steps: Vec<(&str, &str)> = state["events"].as_array().expect("events").iter().rev()
            .filter(|event| event["event"] == "step")
            .map(|event| (event["measure"].as_str().unwrap_or_default(), event["cause"].as_str().unwrap_or_default()))
            .collect();
        assert_eq!(steps, [("throttle", "requests"), ("ban", "requests")], "{state:#}");
        assert!(state["events"][0]["requests"].as_u64() > Some(200));
        assert_eq!(state["bans"][0]["network"], "127.0.0.2/32");
        assert!(site.gateway.output().iter().any(|line| line.contains("trip.requests")), "it is told of");
        assert_eq!(metric(&site, "sluice_protection_steps_total{measure=\"ban\",mode=\"enforce\"}"), 1);
        assert!(metric(&site, "sluice_gate_refusals_total{reason=\"ban\"}") >= 1);
        assert!(eventually(|| ask_from(&site, 2, &get("/")) == 200), "its time has passed");
    }

    /// A client whose requests fail by its own fault is judged by their share.
    fn a_scanner_is_judged_by_its_errors(driver: &str) {
        let origin = Origin::http(|request| {
            if request.head.target.starts_with("/secret") { Reply::empty(404) } else { Reply::ok("here") }
        });
        let site = Site::new(driver, &Setup::more(&protection("enforce", "\"ban:60s\"")), origin);
        flood(site.gateway.address(), 2, 100, "/secret", |count, status| matches!(status, 0 | 403) || count > 600);
        assert!(is_closed(&site, 2));
        assert_eq!(state(&site)["events"][0]["cause"], "errors");
        // As many requests of another client, which are fine.
        flood(site.gateway.address(), 3, 100, "/fine", |count, _| count > 300);
        assert_eq!(ask_from(&site, 3, &get("/fine")), 200);
    }

    /// Nothing is done by default, and what would be is told of.
    fn in_observe_mode_nothing_is_done(driver: &str) {
        let site = Site::echo(driver, &Setup::more(&protection("observe", "\"ban:60s\"")));
        let refused = AtomicBool::new(false);
        let told = || state(&site)["events"].as_array().is_some_and(|events| !events.is_empty());
        flood(site.gateway.address(), 2, 2000, "/", |count, status| {
            refused.fetch_or(status != 200, Ordering::Relaxed);
            count % 500 == 0 && told()
        });
        assert!(!refused.into_inner());
        let state = state(&site);
        let event = &state["events"][0];
        assert_eq!((&event["mode"], &event["measure"]), (&Value::from("observe"), &Value::from("ban")), "{state:#}");
        assert_eq!(state["measures"][0]["enforced"], false);
        assert_eq!(state["bans"].as_array().map(Vec::len), Some(0));
        assert_eq!(ask_from(&site, 2, &get("/")), 200);
    }

    /// A request in the tar pit waits and is refused; a client beside it does not wait.
    fn the_tar_pit_holds_requests_up(driver: &str) {
        let site = Site::echo(driver, &Setup::more(&protection("enforce", "\"tarpit:60s\"")));
        let tarpitted = || state(&site)["measures"][0]["measure"] == "tarpit";
        let stuck = AtomicBool::new(false);
        flood(site.gateway.address(), 2, 2000, "/", |count, status| {
            stuck.fetch_or(status == 429, Ordering::Relaxed);
            stuck.load(Ordering::Relaxed) || (count % 200 == 0 && tarpitted())
        });
        let begun = Instant::now();
        let mut client = connect(&site, 2);
        client.send(get("/"));
        let aside = ask_from(&site, 3, &get("/"));
        assert_eq!((aside, begun.elapsed() < Duration::from_secs(5)), (200, true));
        client.stream().set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        assert_eq!(client.response().status(), 429);
        assert!(begun.elapsed() > Duration::from_secs(9), "{:?}", begun.elapsed());
    }

    /// An operator bans a network, sees it, and lifts it again; it is closed at accept, and on open connections too.
    fn bans_are_made_and_lifted_by_hand(driver: &str) {
        let site = Site::echo(driver, &Setup { cores: Some(2), ..Setup::more(ADMIN) });
        let say = |arguments: &[&str]| {
            let output = site.gateway.command(arguments);
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            (output.status.success(), said)
        };
        let mut open = connect(&site, 2);
        open.send(get("/"));
        assert_eq!(open.response().status(), 200);
        assert_eq!(say(&["ban", "list"]), (true, String::new()));
        assert_eq!(say(&["ban", "add", "127.0.0.2", "--reason", "noise"]), (true, "banned: 127.0.0.2/32\n".to_owned()));
        assert!(is_closed(&site, 2));
        open.send(get("/"));
        let response = open.response();
        assert_eq!((response.status(), response.field("connection").as_deref()), (403, Some("close")));
        assert_eq!(ask_from(&site, 3, &get("/")), 200);
        let (_, listed) = say(&["ban", "list"]);
        assert!(listed.starts_with("127.0.0.2/32") && listed.contains("operator") && listed.contains("noise"), "{listed}");
        assert_eq!(say(&["ban", "remove", "127.0.0.2"]), (true, "lifted: 127.0.0.2/32\n".to_owned()));
        assert_eq!(ask_from(&site, 2, &get("/")), 200);
        assert!(!say(&["ban", "remove", "127.0.0.2"]).0, "it is not banned any more");
        assert!(!say(&["ban", "add", "nonsense"]).0);
        assert!(say(&["ban", "add", "127.0.0.0/28", "--for", "1s"]).0);
        assert!(is_closed(&site, 3));
        assert!(eventually(|| ask_from(&site, 3, &get("/")) == 200), "its time has passed");
        assert_eq!(metric(&site, "sluice_protection_bans"), 0);
        let (_, top) = say(&["top"]);
        assert!(top.contains("protection: off"), "{top}");
    }

    /// Who is who: the figures name clients, paths and user agents.
    fn the_figures_say_who_loads_the_gateway(driver: &str) {
        let site = Site::echo(driver, &Setup::more(&protection("observe", "\"ban:60s\"")));
        let request = "GET /popular?x=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: agent/1\r\n\r\n";
        let is_seen = || {
            (0..20).for_each(|_| assert_eq!(ask_from(&site, 5, request), 200));
            let top = String::from_utf8_lossy(&site.gateway.command(&["top"]).stdout).into_owned();
            ["127.0.0.5", "127.0.0.0/24", "/popular", "agent/1"].iter().all(|text| top.contains(text))
        };
        assert!(eventually(is_seen));
    }

    /// ATTACKS.md 23 and 37: two thousand clients that send their heads byte by byte hold nobody up, and end by
    /// themselves.
    fn slow_heads_disturb_nobody(driver: &str) {
        const SLOW: usize = 2000;
        let listener = "timeouts = { header = \"3s\" }";
        let setup = Setup { more: ADMIN.to_owned(), ..Setup::listener(listener) };
        let site = Site::echo(driver, &setup);
        let quiet = p99(&site, 300);
        let mut slow: Vec<Client> = (0..SLOW).map(|number| connect(&site, 10 + (number % 200) as u8)).collect();
        let begun = Instant::now();
        slow.iter_mut().for_each(|client| drop(client.try_send("GET / HT")));
        let loaded = p99(&site, 300);
        println!("p99 of others: {quiet:?} quiet, {loaded:?} beside {SLOW} slow heads");
        assert!(loaded < quiet * 10 + Duration::from_millis(50), "{quiet:?} {loaded:?}");
        let buffers = metric(&site, "sluice_buffer_bytes");
        assert!(buffers < 64 << 20, "{buffers}");
        for mut client in slow {
            let answer = client.try_response("GET").map(|response| response.status());
            assert!(matches!(answer, Ok(408)), "{answer:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    /// The figure that counts: while one client floods, nothing is refused to others, and they wait little longer.
    fn a_flood_does_not_hurt_others(driver: &str) {
        let setup = Setup { cores: Some(2), ..Setup::more(&protection("enforce", "\"throttle:2s\", \"ban:60s\"")) };
        let site = Site::echo(driver, &setup);
        let quiet = p99(&site, 100);
        let stop = AtomicBool::new(false);
        let address = site.gateway.address();
        let (during, after) = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| flood(address, 2, 1000, "/", |_, _| stop.load(Ordering::Relaxed)));
            }
            let during = p99(&site, 100);
            assert!(within(PATIENCE, || is_closed(&site, 2)), "it is banned in the end");
            let after = p99(&site, 100);
            stop.store(true, Ordering::Relaxed);
            (during, after)
        });
        println!("p99 of others: {quiet:?} quiet, {during:?} while a flood begins, {after:?} once it is banned");
        assert!(after < quiet * 10 + Duration::from_millis(50), "{quiet:?} {during:?} {after:?}");
    }
}

/// The 99th percentile of the time of requests of many clients, none of which may be refused.
fn p99(site: &Site, requests: usize) -> Duration {
    let mut times: Vec<Duration> = (0..requests)
        .map(|number| {
            let last = 100 + (number % 100) as u8;
            let begun = Instant::now();
            assert_eq!(ask_from(site, last, &get("/")), 200, "127.0.0.{last}");
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// A list of a million networks is read at start, and asked without being felt.
#[test]
fn a_list_of_a_million_networks_serves() {
    let folder = crate::harness::TempDir::new();
    let mut text = String::with_capacity(16 << 20);
    for number in 0..1_000_000u32 {
        let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + number * 8));
        text.push_str(&format!("{address}/30\n"));
    }
    text.push_str("127.0.0.2\n");
    let list = folder.file("list.txt", text);
    let access = format!("[access.bad]\ndeny-file = \"{}\"\n", Path::new(&list).display());
    let setup = Setup { listener: "access = [\"bad\"]".to_owned(), ..Setup::more(&access) };
    let site = Site::echo("epoll", &setup);
    assert!(is_closed(&site, 2));
    assert_eq!(ask_from(&site, 3, &get("/")), 200);
}
