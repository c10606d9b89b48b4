//! Responses that must not be believed: row 17 of the attack table, and the strictness of rows 2 to 11 towards origins.

use sluice_load::origin::{Ended, Reply, Then};

use crate::harness::{Broken, Response, Site, both_drivers};
use crate::table::preview;

type Outcome = Result<Response, Broken>;

/// Has the origin send each of these answers to a GET, and collects what `judge` says of what the client got.
///
/// After each, another request must be answered well, and on another upstream connection.
fn each<B: AsRef<[u8]>>(driver: &str, rows: &[(&str, B)], judge: impl Fn(&Outcome) -> Result<(), String>) {
    let answers: Vec<Vec<u8>> = rows.iter().map(|(_, bytes)| bytes.as_ref().to_vec()).collect();
    let site = Site::http(driver, move |request| match request.head.path().strip_prefix("/row/") {
        // A connection that stays open leaves it to the gateway to close it.
        Some(row) => Reply::raw(answers[row.parse::<usize>().expect("the number of a row")].clone()),
        None => Reply::ok("fine"),
    });
    let mut failures = Vec::new();
    for (row, (name, bytes)) in rows.iter().enumerate() {
        site.origin.forget();
        let mut client = site.connect();
        client.send(format!("GET /row/{row} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let mut outcome = judge(&client.try_response("GET"));
        let next = site.ask("GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n");
        if next.text() != "fine" {
            outcome = Err(format!("the next request got {} {:?}", next.status(), next.text()));
        }
        let connection_of = |start: &str| {
            site.origin.requests().iter().find(|r| r.head.target.starts_with(start)).map(|r| r.connection)
        };
        if connection_of("/row/") == connection_of("/next") {
            outcome = Err("the upstream connection was used again".to_owned());
        }
        if let Err(why) = outcome {
            failures.push(format!("{name}: {why}\n      origin sent {:?}", preview(bytes.as_ref())));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n  {}", failures.len(), rows.len(), failures.join("\n  "));
}

/// The gateway's own 502, whole.
fn bad_gateway(outcome: &Outcome) -> Result<(), String> {
    match outcome {
        Ok(r) if r.status() == 502 && r.is_problem() && r.proxy_error().is_some() => Ok(()),
        Ok(r) => Err(format!("status {}, {:?}", r.status(), r.text())),
        Err(broken) => Err(format!("no answer: {broken:?}")),
    }
}

/// An answer that began, and whose connection then ended before it was whole.
fn cut(outcome: &Outcome) -> Result<(), String> {
    match outcome {
        Err(Broken::Cut(..)) => Ok(()),
        // Nothing had been sent yet, so an answer of the gateway's own is as good.
        Ok(r) if r.status() == 502 && r.is_problem() => Ok(()),
        Ok(r) => Err(format!("status {}, looks whole: {:?}", r.status(), r.text())),
        Err(broken) => Err(format!("{broken:?}")),
    }
}

both_drivers! {
    /// A head that is not strictly valid is an error of the origin; nothing of it reaches the client.
    fn malformed_heads_are_a_502(driver: &str) {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(1 << 20));
        let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X: y\r\n".repeat(20_000));
        let endless = format!("{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(17));
        each(driver, &[
            ("CL and TE", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            ("TE and CL", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            ("two CL, equal", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
            ("two CL", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
            ("CL list", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok"),
            ("CL sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
            ("CL empty", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok"),
            ("CL overflow", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok"),
            ("TE unknown", "HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nok"),
            ("TE gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            ("TE twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("TE in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
            ("bare LF once", "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\nok"),
            ("bare CR", "HTTP/1.1 200 OK\r\nX: y\rz\r\nContent-Length: 2\r\n\r\nok"),
            ("NUL", "HTTP/1.1 200 OK\r\nX: y\0\r\nContent-Length: 2\r\n\r\nok"),
            ("obs-fold", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok"),
            ("space before colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"),
            ("bad name", "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nok"),
            ("no colon", "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok"),
            ("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("status 600", "HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("no status", "HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("sign", "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("version 2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("version 0.9", "HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("another protocol", "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("no head at all", "hello, world\r\n\r\n"),
            ("binary", "\x15\x03\x01\x00\x02\x02\x28"),
            ("control in the reason", "HTTP/1.1 200 O\x08K\r\nContent-Length: 2\r\n\r\nok"),
            ("head too long", long.as_str()),
            ("too many fields", many.as_str()),
            ("seventeen interim responses", endless.as_str()),
            ("101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
            ("interim, then nonsense", "HTTP/1.1 103 Early Hints\r\n\r\nnonsense\r\n\r\n"),
        ], bad_gateway);
    }

    /// A chunked body that goes wrong after a good start breaks the connection: it must never look whole.
    fn malformed_chunks_break_the_connection(driver: &str) {
        let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let trailers = "A: b\r\n".repeat(900);
        each(driver, &[
            ("not a size", chunked("5\r\nhello\r\nx\r\n")),
            ("0x", chunked("5\r\nhello\r\n0x5\r\nhello\r\n0\r\n\r\n")),
            ("overflow", chunked("5\r\nhello\r\nfffffffffffffffff\r\n")),
            ("LF after the size", chunked("5\r\nhello\r\n5\nhello\r\n0\r\n\r\n")),
            ("LF after data", chunked("5\r\nhello\n0\r\n\r\n")),
            ("data too long", chunked("5\r\nhello!\r\n0\r\n\r\n")),
            ("LF at the end", chunked("5\r\nhello\r\n0\r\n\n")),
            ("bad trailer", chunked("5\r\nhello\r\n0\r\nnonsense\r\n\r\n")),
            ("huge trailers", chunked(&format!("5\r\nhello\r\n0\r\n{trailers}\r\n"))),
            ("huge extension", chunked(&format!("5\r\nhello\r\n5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000)))),
        ], cut);
    }

    /// Bytes after a response are nobody's answer: the body is delivered, the upstream connection closed.
    fn extra_bytes_are_never_an_answer(driver: &str) {
        let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        each(driver, &[
            ("after Content-Length", format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{poison}")),
            ("after chunks", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{poison}")),
            ("after nothing", format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{poison}")),
            ("204", format!("HTTP/1.1 204 No Content\r\n\r\n{poison}")),
            ("204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok".to_owned()),
            ("204 with chunks",
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned()),
            ("304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok".to_owned()),
            ("an LF too much", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\n".to_owned()),
        ], |outcome| match outcome {
            Ok(r) if r.status() == 204 && (r.field("content-length").is_some() || !r.body.data.is_empty()) => {
                Err(format!("{:?} {:?}", r.head, r.text()))
            }
            Ok(r) if matches!(r.status(), 200 | 204 | 304) && ["ok", ""].contains(&r.text().as_str()) => Ok(()),
            // Refusing a 204 that has a body is as good.
            other => bad_gateway(other),
        });
    }

    /// A response to HEAD that has a body all the same poisons nothing.
    fn a_body_in_answer_to_head_is_dropped(driver: &str) {
        let site = Site::http(driver, |request| match request.head.method.as_str() {
            "HEAD" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n\
                                  HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
            _ => Reply::ok("fine"),
        });
        let mut client = site.connect();
        client.send("HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\nGET /y HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let head = client.response_to("HEAD");
        assert_eq!((head.status(), head.field("content-length").as_deref()), (200, Some("46")));
        assert_eq!(client.response().text(), "fine");
    }

    /// Unasked bytes on an idle upstream connection are not the answer to the next request.
    fn unasked_answers_on_idle_connections_are_dropped(driver: &str) {
        let poisoned = sluice_load::origin::Gate::new();
        let there = poisoned.clone();
        let site = Site::new(driver, &crate::harness::Setup::default(), sluice_load::origin::Origin::raw(move |mut conn| {
            while let Some(request) = conn.request() {
                conn.reply(&request, Reply::ok("fine"));
                if conn.number() == 0 {
                    conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").expect("an open connection");
                    there.open();
                }
            }
        }));
        let mut client = site.connect();
        for _ in 0..3 {
            client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(client.response().text(), "fine");
            assert!(poisoned.wait());
        }
    }

    /// RFC 9112 §8: a body that is cut off never looks whole to the client, however it was framed.
    fn cut_bodies_never_look_whole(driver: &str) {
        let heads = [
            ("Content-Length", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
            ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1000\r\n"),
            ("between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
            ("in the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
            ("close-delimited", "HTTP/1.1 200 OK\r\n\r\n"),
        ];
        let site = Site::http(driver, move |request| {
            let (_, wire) = heads[request.head.path()[1..].parse::<usize>().expect("the number of a row")];
            let reset = request.head.target.ends_with("reset");
            let body = if wire.contains("chunked") { "" } else { "the first part" };
            Reply::raw(format!("{wire}{body}")).then(if reset { Then::Reset } else { Then::Close })
        });
        for (row, (name, _)) in heads.iter().enumerate() {
            for end in ["finish", "reset"] {
                let mut client = site.connect();
                client.send(format!("GET /{row}?{end} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
                let outcome = client.try_response("GET");
                // The orderly end of a close-delimited body is its proper end (RFC 9112 §6.3).
                if (*name, end) == ("close-delimited", "finish") {
                    let response = outcome.unwrap_or_else(|broken| panic!("{name}, {end}: {broken:?}"));
                    assert_eq!(response.text(), "the first part");
                    continue;
                }
                cut(&outcome).unwrap_or_else(|why| panic!("{name}, {end}: {why}"));
                if let Err(Broken::Cut(_, bytes)) = outcome {
                    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{name}, {end}: a last chunk");
                }
            }
        }
    }

    /// To an HTTP/1.0 client a cut body can only be told by a reset.
    fn a_cut_body_resets_an_http_10_client(driver: &str) {
        let site = Site::http(driver, |_| {
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").then(Then::Close)
        });
        let mut client = site.connect();
        client.send("GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n");
        match client.try_response("GET") {
            Err(Broken::Cut(Ended::Reset, _) | Broken::Nothing(Ended::Reset)) => {}
            Ok(response) if response.status() == 502 => {}
            other => panic!("looks whole: {other:?}"),
        }
    }
}
