//! The rules of the fuzz targets, driven by seeded mutations of what real peers send, for a second each.

use std::time::{Duration, Instant};

use sluice_load::random::Random;

/// Pieces that make mutations reach further than random bytes would.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"%2e",
    b"%2f",
    b"%",
    b"/../",
    b"//",
    b"?",
    b"#",
    b"\\",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Host: a\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"\xc3\xa4",
    b"_",
    b"http://a",
    b"*",
    b"'",
    b"\"",
    b"${A}",
    b"[[route]]\n",
    b" = ",
    b"10s",
    b"max-age=",
    b"no-store",
    b"W/",
    b"bytes=",
    b"-",
    b"=",
    b"2147483648",
    b" GMT",
    b"Sun, ",
    b";q=0.5",
];

fn for_a_second(rule: fn(&[u8]), seeds: &[&[u8]]) {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let mut bytes = seeds[random.below(seeds.len() as u64) as usize].to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64 + 1) as usize;
            match random.below(4) {
                0 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len() as u64) as usize].iter().copied())),
                1 => bytes.truncate(at),
                2 if at < bytes.len() => bytes[at] = random.next() as u8,
                _ => drop(bytes.drain(at..(at + random.below(6) as usize).min(bytes.len()))),
            }
        }
        rule(&bytes);
    }
}

#[test]
fn request_heads() {
    for_a_second(
        sluice_tests::request_head,
        &[
            b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
            b"POST /a/b?c=d HTTP/1.1\r\nHost: example.com:80\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive, x\r\nX: \r\n\r\n",
        ],
    );
}

#[test]
fn response_heads() {
    for_a_second(
        sluice_tests::response_head,
        &[
            b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.0 304 \r\nETag: \"x\"\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
        ],
    );
}

#[test]
fn chunked_content() {
    for_a_second(
        sluice_tests::chunked,
        &[b"5\r\nhello\r\n0\r\n\r\n", b"1;a=\"b\"\r\nx\r\nA ;y\r\n0123456789\r\n0\r\nGrpc-Status: 0\r\n\r\n"],
    );
}

#[test]
fn targets() {
    for_a_second(
        sluice_tests::target,
        &[b"/a/b;c/../d?e=f", b"http://example.com/%41/%c3%a4/./x", b"*", b"/a//b/%7e?q=[1]|2"],
    );
}

#[test]
fn translations() {
    for_a_second(
        sluice_tests::translate,
        &[
            b"/a?b\nhost:a.example\ncookie:a=1\ncookie:b=2\nte:trailers\ncontent-length:0\nx-y:z",
            b"/\ncontent-length:5\nset-cookie:a\nset-cookie:b\nexpect:100-continue\nx:\xc3\xa4",
            b"/a\nsec-websocket-key:x\nvia:1.1 a\nx-forwarded-for:1.2.3.4",
        ],
    );
}

#[test]
fn prefaces() {
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc0\0\x02\x01\xc0\0\x02\x02\x04\xd2\x01\xbb\x01\0\x02h2";
    let hello = b"\x16\x03\x01\0\x3f\x01\0\0\x3b\x03\x03................................\0\0\x02\x13\x01\x01\0\
        \0\x10\0\0\0\x0c\0\x0a\0\0\x07a.local";
    for_a_second(
        sluice_tests::preface,
        &[b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nGET", b"PROXY UNKNOWN\r\n", binary, hello],
    );
}

#[test]
fn cache_directives() {
    for_a_second(
        sluice_tests::cache_control,
        &[
            b"max-age=3600, s-maxage=10, stale-while-revalidate=5, foo",
            b"no-cache=\"set-cookie, x\", private, ext=\"a, \\\"max-age=1\"",
            b"max-age=60, foo=?0, bar=(a b);c, baz=:YQ==:",
        ],
    );
}

#[test]
fn selecting_fields() {
    for_a_second(
        sluice_tests::vary,
        &[b"Accept-Encoding, foo ,BAR", b"*", b"foo, *", b"gzip, br, zstd", b"gzip;q=0.5, *;q=0"],
    );
}

#[test]
fn dates() {
    for_a_second(
        sluice_tests::date,
        &[
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
            b"Fri, 31 Dec 9999 23:59:60 GMT",
        ],
    );
}

#[test]
fn ranges() {
    for_a_second(
        sluice_tests::range,
        &[b"bytes=0-9", b"bytes=-5, 3-, 10-20", b"bytes=0-0,2-2,4-4,1-3", b"bytes=30-100,0-1"],
    );
}

#[test]
fn prefix_lists() {
    for_a_second(
        sluice_tests::prefix_list,
        &[b"# bad\n203.0.113.0/24\r\n198.51.100.7\n", b"2001:db8::/32\n::ffff:10.0.0.0/104\n0.0.0.0/0\n::1"],
    );
}

#[test]
fn configurations() {
    for_a_second(
        sluice_tests::config,
        &[
            include_bytes!("../../config/examples/cache.toml"),
            include_bytes!("../../config/examples/routes.toml"),
            include_bytes!("../../config/examples/rewrite.toml"),
            include_bytes!("../../config/examples/timeouts-limits.toml"),
            include_bytes!("../../config/examples/logs.toml"),
            include_bytes!("../../config/examples/tests.toml"),
        ],
    );
}
