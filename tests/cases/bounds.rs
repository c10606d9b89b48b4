//! Every limit holds exactly: sizes of heads and bodies, and memory under many clients (row 37 of the attack table).

use sluice_load::origin::Reply;

use crate::harness::{Client, Setup, Site, both_drivers};
use crate::table::{After, Reaches, refused, run};

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
}

both_drivers! {
    /// 8 KiB of request line, 16 KiB of head, 100 fields.
    fn heads_have_limits(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("timeouts = { header = \"5s\" }"));
        let fields = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
        run(&site, &[
            refused("request line", get(&format!("/{}", "a".repeat(9000)), ""), &[414]),
            refused("request line, query", get(&format!("/?{}", "a".repeat(9000)), ""), &[414]),
            refused("request line without end", format!("GET /{}", "a".repeat(20_000)), &[414]),
            refused("method without end", "A".repeat(20_000), &[400, 414, 501]),
            refused("one long field", get("/attack", &format!("X: {}\r\n", "a".repeat(17_000))), &[431]),
            refused("one field without end", format!("GET /attack HTTP/1.1\r\nX: {}", "a".repeat(40_000)), &[431]),
            refused("a name without end", format!("GET /attack HTTP/1.1\r\n{}", "a".repeat(40_000)), &[400, 431]),
            refused("many long fields", get("/attack", &format!("X: {}\r\n", "a".repeat(500)).repeat(40)), &[431]),
            refused("101 fields", get("/attack", &fields(100)), &[431]),
            refused("1000 fields", get("/attack", &fields(1000)), &[431]),
        ]);
        let line = format!("/{}", "a".repeat(8192 - "GET / HTTP/1.1\r\n".len() - 16));
        assert_eq!(site.ask(get(&line, "")).text(), line);
        assert_eq!(site.ask(get("/x", &fields(99))).text(), "/x");
        assert_eq!(site.ask(get("/x", &format!("X: {}\r\n", "a".repeat(15_000)))).text(), "/x");
        let request = &site.origin.requests().pop().expect("a request");
        assert_eq!(request.field("x").map(|v| v.len()), Some(15_000));
    }

    /// The limits of a listener are its own.
    fn limits_of_heads_are_configured(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("limits = { header-bytes = \"1KiB\", header-fields = 5 }"));
        run(&site, &[
            refused("bytes", get("/attack", &format!("X: {}\r\n", "a".repeat(1100))), &[431]),
            refused("fields", get("/attack", "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n"), &[431]),
        ]);
        assert_eq!(site.ask(get("/x", "A: 1\r\nB: 2\r\n")).text(), "/x");
    }

    /// A body over the limit of its route is refused: at once if its length is known, else when it passes.
    fn bodies_have_limits(driver: &str) {
        let site = Site::echo(driver, &Setup::route("limits = { body = \"1KiB\" }"));
        let post = |framing: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n{body}");
        let chunk = "100\r\n".to_owned() + &"x".repeat(256) + "\r\n";
        run(&site, &[
            refused("length", post("Content-Length: 1025", ""), &[413]).after(After::Closed),
            refused("chunks", post("Transfer-Encoding: chunked", &(chunk.repeat(5) + "0\r\n\r\n")), &[413])
                .reaches(Reaches::Head),
            refused("one chunk", post("Transfer-Encoding: chunked", "401\r\n"), &[413]).reaches(Reaches::Head),
            refused("with an expectation", post("Expect: 100-continue\r\nContent-Length: 1025", ""), &[413]),
        ]);
        let fits = post("Content-Length: 1024", &"x".repeat(1024));
        assert_eq!(site.ask(fits).text(), "/x");
        assert_eq!(site.ask(post("Transfer-Encoding: chunked", &(chunk.repeat(4) + "0\r\n\r\n"))).text(), "/x");
        assert!(site.origin.requests().iter().all(|r| r.body.data.len() <= 1024));
    }

    /// Row 37: clients with large unfinished heads, and clients that do not read, take bounded memory.
    fn memory_is_bounded(driver: &str) {
        let site = Site::http(driver, |_| Reply::ok(vec![b'x'; 4 << 20]));
        let warm = site.ask(get("/x", ""));
        assert_eq!(warm.body.data.len(), 4 << 20);
        let before = site.gateway.resident_bytes();
        let part = format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{}", format!("X: {}\r\n", "a".repeat(300)).repeat(40));
        let heads: Vec<Client> = (0..200).map(|_| {
            let mut client = site.connect();
            client.send(&part);
            client
        }).collect();
        let readers: Vec<Client> = (0..30).map(|_| {
            let mut client = site.connect();
            client.send(get("/x", ""));
            assert_eq!(client.head().status, 200);
            client
        }).collect();
        assert_eq!(site.ask(get("/y", "")).status(), 200);
        let grown = site.gateway.resident_bytes().saturating_sub(before);
        // 200 heads of 12 KiB, and 30 answers of 4 MiB of which each may hold a few buffers of 64 KiB.
        assert!(grown < 32 << 20, "{grown} bytes more for {} heads and {} readers", heads.len(), readers.len());
    }

    /// Idle connections hold no buffer: hundreds cost next to nothing.
    fn idle_connections_are_cheap(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        let idle = |count: usize| -> Vec<Client> {
            (0..count)
                .map(|_| {
                    let mut client = site.connect();
                    client.send(get("/x", ""));
                    assert_eq!(client.response().text(), "/x");
                    client
                })
                .collect()
        };
        let first = idle(50);
        let before = site.gateway.resident_bytes();
        let more = idle(300);
        let grown = site.gateway.resident_bytes().saturating_sub(before);
        // The bar for a release build is 1 KiB; a debug build may take more, but no buffers. Memory comes in steps.
        let each = grown / more.len() as u64;
        assert!(each < 8 << 10, "{each} bytes for each idle connection besides the first {}", first.len());
    }

    /// Nor do connections that have not sent anything yet, however many come at once.
    fn silent_connections_are_cheap(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        assert_eq!(site.ask(get("/x", "")).text(), "/x");
        let before = site.gateway.resident_bytes();
        let silent: Vec<Client> = (0..300).map(|_| site.connect()).collect();
        assert_eq!(site.ask(get("/x", "")).text(), "/x");
        let each = site.gateway.resident_bytes().saturating_sub(before) / silent.len() as u64;
        assert!(each < 8 << 10, "{each} bytes for each silent connection");
    }
}
