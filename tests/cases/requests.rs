//! Requests that a gateway must refuse, or frame in only one way: rows 1 to 14 of the attack table.

use sluice_load::origin::{Origin, Reply};

use crate::harness::{Broken, Setup, Site, both_drivers};
use crate::table::{After, Case, Reaches, refused, run};

/// Incomplete heads are to fail as such, soon.
const LISTENER: &str = "timeouts = { header = \"2s\", body = \"2s\" }";

fn site(driver: &str) -> Site {
    Site::echo(driver, &Setup::listener(LISTENER))
}

/// A POST with these framing fields (each ending in CRLF) and this body.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /attack HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}").into_bytes()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET /attack HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

both_drivers! {
    /// Row 1, RFC 9112 §6.1: both Content-Length and Transfer-Encoding is refused, and the connection closed.
    fn content_length_with_transfer_encoding_is_refused(driver: &str) {
        let both = |name: &str, fields: &str, body: &str| refused(name, post(fields, body), &[400]);
        run(&site(driver), &[
            both("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"),
            both("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "1\r\nG\r\n0\r\n\r\n"),
            both("CL 0", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            both("agreeing", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            both("on GET", "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
            both("identity", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "hello"),
        ]);
    }

    /// Row 2, RFC 9112 §6.1 and §6.3: the one transfer coding is a single, plain `chunked`.
    fn obfuscated_transfer_encodings_are_refused(driver: &str) {
        let chunked = "5\r\nhello\r\n0\r\n\r\n";
        let mut cases: Vec<Case> = [
            ("space before the colon", "Transfer-Encoding : chunked\r\n"),
            ("tab before the colon", "Transfer-Encoding\t: chunked\r\n"),
            ("vertical tab", "Transfer-Encoding:\x0bchunked\r\n"),
            ("form feed", "Transfer-Encoding:\x0cchunked\r\n"),
            ("NUL in front", "Transfer-Encoding: \0chunked\r\n"),
            ("NUL behind", "Transfer-Encoding: chunked\0\r\n"),
            ("quotes", "Transfer-Encoding: \"chunked\"\r\n"),
            ("single quotes", "Transfer-Encoding: 'chunked'\r\n"),
            ("twice in a list", "Transfer-Encoding: chunked, chunked\r\n"),
            ("two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            ("two fields, one unknown", "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n"),
            ("two fields, one hidden", "Transfer-Encoding: x\r\ntransfer-encoding: chunked\r\n"),
            ("chunked is not last", "Transfer-Encoding: chunked, gzip\r\n"),
            ("chunked is not there", "Transfer-Encoding: gzip\r\n"),
            ("parameter", "Transfer-Encoding: chunked;q=1\r\n"),
            ("empty", "Transfer-Encoding:\r\n"),
            ("folded", "Transfer-Encoding:\r\n chunked\r\n"),
            ("folded by a tab", "Transfer-Encoding: x\r\n\tchunked\r\n"),
            ("leading space", " Transfer-Encoding: chunked\r\n"),
            ("underscore", "Transfer_Encoding: chunked\r\n"),
            ("bare CR", "Foo: bar\rTransfer-Encoding: chunked\r\n"),
            ("bare LF", "Foo: bar\nTransfer-Encoding: chunked\r\n"),
            ("non-ASCII", "Transfer-Encoding: \u{212a}chunked\r\n"),
        ]
        .into_iter()
        .map(|(name, fields)| refused(name, post(fields, chunked), &[400]))
        .collect();
        cases.extend([
            refused("xchunked", post("Transfer-Encoding: xchunked\r\n", chunked), &[400]),
            refused("identity", post("Transfer-Encoding: identity\r\n", chunked), &[400]),
            refused("empty member", post("Transfer-Encoding: ,chunked\r\n", chunked), &[400]),
            refused("trailing comma", post("Transfer-Encoding: chunked,\r\n", chunked), &[400]),
            refused("gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", chunked), &[501]),
            refused("two codings in two fields",
                post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", chunked), &[400]),
            refused("HTTP/1.0",
                format!("POST /attack HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"), &[400]),
            refused("HTTP/1.0, kept alive", format!(
                "POST /attack HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {chunked}"), &[400]),
        ]);
        run(&site(driver), &cases);
    }

    /// Row 3, RFC 9112 §6.3: Content-Length is one field of digits that do not overflow.
    fn odd_content_lengths_are_refused(driver: &str) {
        let mut cases: Vec<Case> = [
            "+5", "-5", "0x5", "5_0", "5 5", "5,5", "5, 5", "5.0", "5;", "\"5\"", "5\t5", "", "five", "5e0", "\u{ff15}",
            "18446744073709551616", "99999999999999999999999999", "-0", "5\0", "5\x0b", "\x0c5", "0b1", ",5", "5,",
        ]
        .into_iter()
        .map(|value| refused(&format!("{value:?}"), post(&format!("Content-Length: {value}\r\n"), "hello"), &[400]))
        .collect();
        for (name, fields) in [
            ("two, equal", "Content-Length: 5\r\nContent-Length: 5\r\n"),
            ("two, different", "Content-Length: 5\r\nContent-Length: 6\r\n"),
            ("two, apart and in other case", "Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n"),
            ("folded", "Content-Length:\r\n 5\r\n"),
            ("space before the colon", "Content-Length : 5\r\n"),
            ("underscore", "Content_Length: 5\r\n"),
        ] {
            cases.push(refused(name, post(fields, "hello"), &[400]));
        }
        cases.push(refused("largest", post("Content-Length: 18446744073709551615\r\n", "hello"), &[400, 413]));
        cases.push(refused("on GET", get("Content-Length: +0\r\n"), &[400]));
        run(&site(driver), &cases);
    }

    /// Rows 4 and 5: a body is framed by the same rules on every method, and never becomes a request.
    fn bodies_are_framed_alike_on_every_method(driver: &str) {
        let site = site(driver);
        let inner = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
        for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "POST", "PUT", "PROPFIND"] {
            let with_length = format!(
                "{method} /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
            let chunked = format!(
                "{method} /b HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
                inner.len());
            site.origin.forget();
            let mut client = site.connect();
            client.send(with_length + &chunked + "GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n");
            for (method, body) in [(method, "/a"), (method, "/b"), ("GET", "/c")] {
                let response = client.response_to(method);
                assert_eq!(response.status(), 200, "{method} {body}");
                assert_eq!(response.text(), if method == "HEAD" { "" } else { body }, "{method}");
            }
            let requests = site.origin.requests();
            let targets: Vec<_> = requests.iter().map(|r| r.head.target.as_str()).collect();
            assert_eq!(targets, ["/a", "/b", "/c"], "{method}");
            assert!(requests[..2].iter().all(|r| r.body.data == inner.as_bytes()), "{method}");
        }
    }

    /// Row 4: the body of a request that the gateway answers itself is read or the connection closed.
    fn bodies_of_requests_answered_here_never_become_requests(driver: &str) {
        let more = "[[route]]\npath = \"/only-get\"\nmethods = [\"GET\"]\nupstream = \"origin\"\n";
        let origin = Origin::http(|_| Reply::ok("from the origin"));
        // Without a catch-all route, so that there is a 404 and a 405.
        let toml = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n{LISTENER}\n\n\
             [upstream.origin]\nendpoints = [\"{}\"]\n\n\
             [[route]]\npath = \"/sentinel\"\nupstream = \"origin\"\n\n\
             [[route]]\npath = \"/smuggled\"\nupstream = \"origin\"\n\n{more}",
            origin.address());
        let site = Site { gateway: crate::harness::Gateway::start(driver, &toml), origin };
        let inner = "GET /smuggled?inner HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let request = |line: &str, fields: &str| {
            format!("{line} HTTP/1.1\r\nHost: a.test\r\n{fields}Content-Length: {}\r\n\r\n{inner}", inner.len())
        };
        run(&site, &[
            refused("404", request("POST /nowhere", ""), &[404]).after(After::Either),
            refused("404 on GET", request("GET /nowhere", ""), &[404]).after(After::Either),
            refused("405", request("POST /only-get", ""), &[405]).after(After::Either),
            refused("405 for TRACE", request("TRACE /sentinel", ""), &[405]).after(After::Either),
            refused("417", request("POST /sentinel", "Expect: miracles\r\n"), &[417]).after(After::Either),
            refused("501", request("CONNECT a.test:443", ""), &[501]),
        ]);
        let allow = site.ask("DELETE /only-get HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        assert_eq!(allow.status(), 405);
        let allowed = allow.head.fields.list("allow");
        assert!(allowed.iter().any(|m| m == "GET"), "Allow: {allowed:?}");
    }

    /// Row 6, RFC 9110 §10.1.1: an expectation other than 100-continue cannot be met.
    fn unknown_expectations_get_417(driver: &str) {
        let cases = ["miracles", "100-continue, miracles", "y 100-continue", "100-continue;x=1", "1OO-continue"]
            .map(|value| {
                refused(value, post(&format!("Expect: {value}\r\nContent-Length: 5\r\n"), "hello"), &[417])
                    .after(After::Either)
            });
        run(&site(driver), &cases);
    }

    /// Row 7, RFC 9112 §7.1: chunks are digits, CRLF, data, CRLF, and nothing that may be read in two ways.
    fn malformed_chunks_are_refused(driver: &str) {
        let many = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(120) + "0\r\n\r\n";
        let cases: Vec<Case> = [
            ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
            ("sign", "+5\r\nhello\r\n0\r\n\r\n"),
            ("minus", "-5\r\nhello\r\n0\r\n\r\n"),
            ("underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
            ("no digits", "\r\nhello\r\n0\r\n\r\n"),
            ("no digits, extension", ";a=b\r\nhello\r\n0\r\n\r\n"),
            ("leading space", " 5\r\nhello\r\n0\r\n\r\n"),
            ("trailing space", "5 \r\nhello\r\n0\r\n\r\n"),
            ("trailing tab", "5\t\r\nhello\r\n0\r\n\r\n"),
            ("not hexadecimal", "g\r\nhello\r\n0\r\n\r\n"),
            ("LF after the size", "5\nhello\r\n0\r\n\r\n"),
            ("CR after the size", "5\rhello\r\n0\r\n\r\n"),
            ("CRCRLF after the size", "5\r\r\nhello\r\n0\r\n\r\n"),
            ("LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
            ("LF ends an extension", "5;\nhello\r\n0\r\n\r\n"),
            ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
            ("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
            ("NUL after the size", "5\0\r\nhello\r\n0\r\n\r\n"),
            ("17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
            ("overflow", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
            ("overflow by far", "fffffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
            ("data too long", "5\r\nhello!\r\n0\r\n\r\n"),
            ("no CRLF after data", "5\r\nhello0\r\n\r\n"),
            ("LF after data", "5\r\nhello\n0\r\n\r\n"),
            ("CR after data", "5\r\nhello\rx0\r\n\r\n"),
            ("LF after the last size", "5\r\nhello\r\n0\n\r\n"),
            ("LF ends the trailers", "5\r\nhello\r\n0\r\n\n"),
            ("LF ends a trailer", "5\r\nhello\r\n0\r\nA: b\n\r\n"),
            ("trailer without colon", "5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
            ("trailer, space before colon", "5\r\nhello\r\n0\r\nA : b\r\n\r\n"),
            ("trailer folded", "5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n"),
            ("trailer with NUL", "5\r\nhello\r\n0\r\nA: b\0\r\n\r\n"),
            ("trailer with bare CR", "5\r\nhello\r\n0\r\nA: b\rc\r\n\r\n"),
            ("request instead of trailers", "5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
            ("huge extension", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000))),
            ("many extensions", &many),
            ("huge trailers", &format!("5\r\nhello\r\n0\r\nA: {}\r\n\r\n", "a".repeat(5000))),
            ("many trailers", &format!("5\r\nhello\r\n0\r\n{}\r\n", "A: b\r\n".repeat(900))),
        ]
        .into_iter()
        .map(|(name, body)| {
            refused(name, post("Transfer-Encoding: chunked\r\n", body), &[400]).reaches(Reaches::Head)
        })
        .chain([refused("largest size", post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\nhello"), &[400, 413])
            .reaches(Reaches::Head)])
        .collect();
        run(&site(driver), &cases);
    }

    /// Row 7: extensions are dropped; sizes may be of either case and have leading zeros. The reader of the origin
    /// refuses extensions, so none may arrive.
    fn valid_chunks_are_sent_on_without_extensions(driver: &str) {
        let site = site(driver);
        for (name, body, want) in [
            ("plain", "5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("extension", "5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
            ("quoted extension", "5;a=\"b\\\"; c\"\r\nhello\r\n0;x\r\n\r\n", "hello"),
            ("leading zeros", "0000000000000005\r\nhello\r\n000\r\n\r\n", "hello"),
            ("upper case", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("lower case", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("many", "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", "abc"),
            ("empty", "0\r\n\r\n", ""),
            ("CRLF within", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
        ] {
            site.origin.forget();
            let mut client = site.connect();
            client.send(post("Transfer-Encoding: CHUNKED\r\n", body));
            client.send("GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(client.response().text(), "/attack", "{name}");
            assert_eq!(client.response().text(), "/next", "{name}");
            assert_eq!(String::from_utf8_lossy(&site.origin.requests()[0].body.data), want, "{name}");
        }
    }

    /// Row 8, RFC 9110 §6.5.1: a trailer is never merged into the header section, and those with a meaning for
    /// framing, routing or authentication are dropped.
    fn dangerous_trailers_are_dropped(driver: &str) {
        let site = site(driver);
        for trailer in [
            "Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil.test", "Authorization: Basic YTpi",
            "Cookie: a=b", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6", "Connection: close",
            "Content-Type: text/html", "Trailer: X", "TE: trailers", "X-Anything: 1",
        ] {
            site.origin.forget();
            let mut client = site.connect();
            let name = trailer.split(':').next().unwrap_or_default();
            client.send(post(
                &format!("Trailer: {name}\r\nTransfer-Encoding: chunked\r\n"),
                &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n")));
            client.send("GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(client.response().status(), 200, "{trailer}");
            assert_eq!(client.response().text(), "/next", "{trailer}");
            let request = &site.origin.requests()[0];
            assert_eq!(request.body.data, b"hello");
            assert!(request.body.trailers.0.is_empty(), "{trailer}: {:?}", request.body.trailers);
            assert_eq!(request.field("host").as_deref(), Some("a.test"), "{trailer}");
            assert!(!request.head.fields.has("authorization") && !request.head.fields.has("x-anything"), "{trailer}");
        }
    }

    /// Rows 9, 10 and 11: bare LF, bare CR, NUL and folded lines are refused wherever they are in a head.
    fn malformed_line_ends_are_refused(driver: &str) {
        run(&site(driver), &[
            refused("all LF", "GET /attack HTTP/1.1\nHost: a.test\n\n", &[400]),
            refused("LF after the request line", "GET /attack HTTP/1.1\nHost: a.test\r\n\r\n", &[400]),
            refused("LF after a field", "GET /attack HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", &[400]),
            refused("LF as the empty line", "GET /attack HTTP/1.1\r\nHost: a.test\r\n\n", &[400]),
            refused("LFLF within", get("X: a\n\nGET /smuggled HTTP/1.1\r\n"), &[400]),
            refused("CR within a value", get("X: a\rb\r\n"), &[400]),
            refused("CR before a name", get("\rX: a\r\n"), &[400]),
            refused("CR after a value", get("X: a\r\r\n"), &[400]),
            refused("CR in the request line", "GET /att\rack HTTP/1.1\r\nHost: a.test\r\n\r\n", &[400]),
            refused("CRCRLF after the request line", "GET /attack HTTP/1.1\r\r\nHost: a.test\r\n\r\n", &[400]),
            refused("CR alone as line ends", "GET /attack HTTP/1.1\rHost: a.test\r\r", &[400]),
            refused("NUL in a value", get("X: a\0b\r\n"), &[400]),
            refused("NUL in a name", get("X\0: a\r\n"), &[400]),
            refused("NUL in the target", "GET /att\0ack HTTP/1.1\r\nHost: a.test\r\n\r\n", &[400]),
            refused("NUL in front", "\0GET /attack HTTP/1.1\r\nHost: a.test\r\n\r\n", &[400]),
            refused("other control characters", get("X: a\x08b\r\n"), &[400]),
            refused("ESC", get("X: a\x1b[0m\r\n"), &[400]),
            refused("DEL", get("X: a\x7fb\r\n"), &[400]),
            refused("folded by a space", get("X: a\r\n b\r\n"), &[400]),
            refused("folded by a tab", get("X: a\r\n\tb\r\n"), &[400]),
            refused("folded Host", "GET /attack HTTP/1.1\r\nHost:\r\n a.test\r\n\r\n", &[400]),
            refused("first field folded", "GET /attack HTTP/1.1\r\n Host: a.test\r\nHost: b.test\r\n\r\n", &[400]),
            refused("a line of spaces", get("X: a\r\n  \r\n"), &[400]),
        ]);
    }

    /// Row 12, RFC 9110 §5.1: a field name is a token, and one with an underscore could pass for another.
    fn bad_field_names_are_refused(driver: &str) {
        let cases: Vec<Case> = [
            ": a", "Na me: a", "Name : a", "Name\t: a", "X@Y: a", "X(Y): a", "X[Y]: a", "X{Y}: a", "X\"Y: a", "X/Y: a",
            "X\\Y: a", "X=Y: a", "X;Y: a", "X,Y: a", "X?Y: a", "X<Y>: a", "\u{e9}: a", "no colon", "X\x01Y: a",
            "X_Y: a", "X_Forwarded_For: 6.6.6.6", "_: a",
        ]
        .into_iter()
        .map(|field| refused(&format!("{field:?}"), get(&format!("{field}\r\n")), &[400]))
        .collect();
        run(&site(driver), &cases);
    }

    /// Row 12: a listener may drop fields with underscores, or let them pass; aliases of fields that the gateway
    /// writes never pass.
    fn underscores_are_dropped_or_allowed_where_configured(driver: &str) {
        let request = get("X_Custom: 1\r\nX_Forwarded_For: 6.6.6.6\r\nContent_Length: 7\r\nTransfer_Encoding: chunked\r\n");
        for (policy, custom) in [("drop", false), ("allow", true)] {
            let site = Site::echo(driver, &Setup::listener(&format!("underscores = \"{policy}\"")));
            assert_eq!(site.ask(&request).status(), 200, "{policy}");
            let fields = &site.origin.requests()[0].head.fields;
            assert_eq!(fields.has("x_custom"), custom, "{policy}");
            assert!(!fields.has("x_forwarded_for"), "{policy}");
            assert!(!fields.has("content_length") && !fields.has("transfer_encoding"), "{policy}");
        }
    }

    /// Row 13, RFC 9112 §3.2: exactly one valid Host.
    fn bad_hosts_are_refused(driver: &str) {
        let mut cases: Vec<Case> = [
            "", "a b", "a/b", "a?b", "a#b", "user@a.test", "user:pw@a.test", "a:b", "a.test:99999", "a.test:-1", "a.test:+1",
            "a.test:80:80", "[::1", "::1", "[::1]x", "[zz]", "[]", "a,b", "a\tb", "a\\b", "a\u{e9}", "a\"b", "a<b", "a%00",
            "a%zz", "a^b", "a|b", ":80", "http://a.test",
        ]
        .into_iter()
        .map(|host| refused(&format!("{host:?}"), format!("GET /attack HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]))
        .collect();
        cases.extend([
            refused("none", "GET /attack HTTP/1.1\r\nX: y\r\n\r\n", &[400]),
            refused("two", get("Host: b.test\r\n"), &[400]),
            refused("two, equal", get("Host: a.test\r\n"), &[400]),
            refused("two, other case", get("HOST: b.test\r\n"), &[400]),
            refused("two in HTTP/1.0", "GET /attack HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n", &[400]),
            refused("invalid in HTTP/1.0", "GET /attack HTTP/1.0\r\nHost: a b\r\n\r\n", &[400]),
            refused("none with absolute-form", "GET http://a.test/attack HTTP/1.1\r\nX: y\r\n\r\n", &[400]),
            refused("invalid with absolute-form", "GET http://a.test/attack HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
        ]);
        run(&site(driver), &cases);
    }

    /// Row 13, RFC 9112 §3.2.2: the authority of an absolute-form target replaces Host, for routing too.
    fn absolute_form_outranks_host(driver: &str) {
        let origin = Origin::http(|r| Reply::ok(r.field("host").unwrap_or_default()));
        let toml = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n\n[upstream.origin]\nendpoints = [\"{}\"]\n\n\
             [[route]]\nhost = \"b.test\"\npath = \"/*\"\nupstream = \"origin\"\n", origin.address());
        let site = Site { gateway: crate::harness::Gateway::start(driver, &toml), origin };
        let inside = site.ask("GET http://b.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!((inside.status(), inside.text().as_str()), (200, "b.test"));
        assert_eq!(site.origin.requests()[0].head.target, "/x?y");
        let outside = site.ask("GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n");
        assert_eq!(outside.status(), 404);
        let case = site.ask("GET HTTP://B.TEST HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!((case.status(), case.text().as_str()), (200, "b.test"));
        assert_eq!(site.origin.requests().last().expect("a request").head.target, "/");
        // RFC 9112 §3.2: HTTP/1.0 may come without Host; to the origin there is one all the same.
        let old = site.ask("GET http://b.test/old HTTP/1.0\r\n\r\n");
        assert_eq!(old.status(), 200);
        assert_eq!(site.origin.requests().last().expect("a request").head.target, "/old");
    }

    /// HTTP/1.0 needs no Host.
    fn http_10_without_host_is_served(driver: &str) {
        let site = site(driver);
        let response = site.ask("GET /old HTTP/1.0\r\n\r\n");
        assert_eq!((response.status(), response.text().as_str()), (200, "/old"));
    }

    /// Row 14, RFC 9112 §3: one method, one target, one version, one space between each.
    fn malformed_request_lines_are_refused(driver: &str) {
        let line = |line: &str, want: &[u16]| refused(&format!("{line:?}"), format!("{line}\r\nHost: a.test\r\n\r\n"), want);
        run(&site(driver), &[
            line("GET\t/attack\tHTTP/1.1", &[400]),
            line("GET  /attack HTTP/1.1", &[400]),
            line("GET /attack  HTTP/1.1", &[400]),
            line("GET /attack HTTP/1.1 ", &[400]),
            line(" GET /attack HTTP/1.1", &[400]),
            line("GET /att ack HTTP/1.1", &[400]),
            line("GET /attack\x0bHTTP/1.1", &[400]),
            line("GET /attack", &[400]),
            line("GET", &[400]),
            line("GET /attack ", &[400]),
            line("GET /attack HTTP/1.11", &[400]),
            line("GET /attack HTTP/1.", &[400]),
            line("GET /attack HTTP/1", &[400]),
            line("GET /attack HTTP/11", &[400]),
            line("GET /attack HTTP/1.1x", &[400]),
            line("GET /attack http/1.1", &[400]),
            line("GET /attack HTTP /1.1", &[400]),
            line("GET /attack ICY/1.1", &[400]),
            line("GET /attack HTTP/0.9", &[400]),
            line("GET /attack HTTP/1.2", &[505]),
            line("GET /attack HTTP/2.0", &[505]),
            line("GET /attack HTTP/3.0", &[505]),
            line("G(T /attack HTTP/1.1", &[400]),
            line("G\u{e9}T /attack HTTP/1.1", &[400]),
            line("\x16\x03\x01\x02 /attack HTTP/1.1", &[400]),
            line("GET * HTTP/1.1", &[400]),
            line("POST * HTTP/1.1", &[400]),
            line("GET a.test:80 HTTP/1.1", &[400]),
            line("GET attack HTTP/1.1", &[400]),
            line("GET ?attack HTTP/1.1", &[400]),
            line("GET /attack#fragment HTTP/1.1", &[400]),
            line("GET http://a.test/#fragment HTTP/1.1", &[400]),
            line("GET http://user@a.test/ HTTP/1.1", &[400]),
            line("GET http://user:pw@a.test/ HTTP/1.1", &[400]),
            line("GET http:///attack HTTP/1.1", &[400]),
            line("GET http:/attack HTTP/1.1", &[400]),
            line("GET ftp://a.test/attack HTTP/1.1", &[400]),
            line("GET http://a.test:99999/ HTTP/1.1", &[400]),
            line("GET http://a b/ HTTP/1.1", &[400]),
            line("CONNECT a.test:443 HTTP/1.1", &[501]),
            line("CONNECT /attack HTTP/1.1", &[501]),
            refused("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]),
            refused("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", &[400]),
            line("TRACE /attack HTTP/1.1", &[405]).after(After::Either),
        ]);
    }

    /// RFC 9110 §9.3.7 and §7.6.2: OPTIONS * goes to the origin as it is; Max-Forwards counts down, and at zero this
    /// gateway answers.
    fn options_and_max_forwards(driver: &str) {
        let site = site(driver);
        let options = |target: &str, fields: &str| {
            format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n")
        };
        assert_eq!(site.ask(options("*", "")).text(), "*");
        assert_eq!(site.ask(options("*", "Max-Forwards: 5\r\n")).status(), 200);
        let last = site.origin.requests().pop().expect("a request");
        assert_eq!((last.head.target.as_str(), last.field("max-forwards").as_deref()), ("*", Some("4")));
        site.origin.forget();
        for target in ["*", "/x"] {
            assert_eq!(site.ask(options(target, "Max-Forwards: 0\r\n")).status(), 200);
        }
        assert!(site.origin.requests().is_empty());
        let get = site.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nMax-Forwards: 0\r\n\r\n");
        assert_eq!(get.text(), "/x", "Max-Forwards means nothing for GET");
    }

    /// Each method that is a token goes through as it is.
    fn methods_are_case_sensitive_tokens(driver: &str) {
        let site = site(driver);
        for method in ["get", "M-SEARCH", "PROPFIND", "X!#$%&'*+.^_`|~9"] {
            site.origin.forget();
            assert_eq!(site.ask(format!("{method} /x HTTP/1.1\r\nHost: a.test\r\n\r\n")).status(), 200, "{method}");
            assert_eq!(site.origin.requests()[0].head.method, method);
        }
    }

    /// A request that is cut off is never sent on as a whole one.
    fn cut_requests_never_look_whole(driver: &str) {
        let site = site(driver);
        for (name, bytes) in [
            ("Content-Length", post("Content-Length: 10\r\n", "hello")),
            ("chunked, within data", post("Transfer-Encoding: chunked\r\n", "a\r\nhello")),
            ("chunked, before the last chunk", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")),
            ("chunked, before the last CRLF", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n")),
            ("head", b"GET /attack HTTP/1.1\r\nHost: a.test\r\n".to_vec()),
        ] {
            let mut client = site.connect();
            client.send(bytes);
            client.finish();
            match client.try_response("POST") {
                Ok(response) => assert!((400..500).contains(&response.status()), "{name}: {}", response.status()),
                Err(broken) => assert!(matches!(broken, Broken::Nothing(_)), "{name}: {broken:?}"),
            }
        }
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0), "upstream connections left open");
        assert!(site.origin.requests().is_empty());
    }
}
