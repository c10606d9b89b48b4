//! One canonical path, for routing and for the origin alike: row 30 of the attack table.

use sluice_load::origin::{Origin, Reply};

use crate::harness::{Gateway, Setup, Site, both_drivers};
use crate::table::{Case, forwarded, refused, run};

both_drivers! {
    /// What can be read in two ways is refused.
    fn ambiguous_paths_are_refused(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("timeouts = { header = \"2s\" }"));
        let targets: [&[u8]; 34] = [
            b"/a%2Fb", b"/a%2fb", b"/a%5Cb", b"/a%5cb", b"/a%00b", b"/%", b"/a%4", b"/a%zz", b"/a%4g", b"/%%41", b"/a\\b",
            b"/a\x01b", b"/a\x7fb", b"/a\tb", b"/\xc3\xa9", b"/\xff", b"/%ff", b"/%c0%af", b"/%c1%81", b"/%e0%80%af",
            b"/%ed%a0%80", b"/%f4%90%80%80", b"/%e2%82", b"/..", b"/../a", b"/a/../../b", b"/%2e%2e/a", b"/%2E./a", b"/..;/a",
            b"/..;x=y/a", b"/a/..;/..;/b", b"/%2e%2e%2fa", b"/./..", b"//..",
        ];
        let cases: Vec<Case> = targets
            .iter()
            .map(|target| {
                let bytes = [b"GET ", *target, b" HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
                refused(&target.escape_ascii().to_string(), bytes, &[400])
            })
            .collect();
        run(&site, &cases);
    }

    /// The rest gets one normal form, and the origin gets that.
    fn paths_have_one_normal_form(driver: &str) {
        forwarded(&Site::echo(driver, &Setup::default()), &[
            ("/", "/"),
            ("/a/b?c=d", "/a/b?c=d"),
            ("/%41", "/A"),
            ("/%7e%2D%2e_", "/~-._"),
            ("/%e2%82%ac", "/%E2%82%AC"),
            ("/a%20b", "/a%20b"),
            ("/%25", "/%25"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/a%3Bb", "/a%3Bb"),
            ("/a%3bb", "/a%3Bb"),
            ("/%3f%23", "/%3F%23"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/./a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a;x=1/b;y", "/a/b"),
            ("/a/;x/b", "/a/b"),
            ("/a/..;/b", "/b"),
            ("/a/.;/b", "/a/b"),
            ("/a;/../b", "/b"),
            ("/...", "/..."),
            ("/a'b(c)*!$&+,=:@", "/a'b(c)*!$&+,=:@"),
        ]);
    }

    /// A query is left as it is, but for what may not stand there.
    fn queries_are_made_valid_and_not_changed_else(driver: &str) {
        forwarded(&Site::echo(driver, &Setup::default()), &[
            ("/?", "/?"),
            ("/?a=%", "/?a=%25"),
            ("/?a=%4", "/?a=%254"),
            ("/?a=%zz", "/?a=%25zz"),
            ("/?a=100%&b=1", "/?a=100%25&b=1"),
            ("/?a=%41", "/?a=%41"),
            ("/?a=|[]{}\"", "/?a=%7C%5B%5D%7B%7D%22"),
            ("/?a=<>^`\\", "/?a=%3C%3E%5E%60%5C"),
            ("/?a;b=c", "/?a;b=c"),
            ("/?//../..//", "/?//../..//"),
            ("/?a?b", "/?a?b"),
            ("/a/..?..", "/?.."),
            ("/?a=b%20c+d", "/?a=b%20c+d"),
            ("/?a=!$&'()*,:@~", "/?a=!$&'()*,:@~"),
        ]);
    }

    /// What was routed is what is sent: no spelling of a path gets round its route.
    fn no_spelling_gets_round_a_route(driver: &str) {
        let open = Origin::http(|_| Reply::ok("open"));
        let closed = Origin::http(|request| Reply::ok(format!("closed {}", request.head.target)));
        let toml = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n\n\
             [upstream.open]\nendpoints = [\"{}\"]\n\n[upstream.closed]\nendpoints = [\"{}\"]\n\n\
             [[route]]\npath = \"/*\"\nupstream = \"open\"\n\n[[route]]\npath = \"/admin/*\"\nupstream = \"closed\"\n",
            open.address(), closed.address());
        let site = Site { gateway: Gateway::start(driver, &toml), origin: open };
        for target in [
            "/admin/x", "//admin/x", "/./admin/x", "/a/../admin/x", "/%61dmin/x", "/admin;y/x", "/a/..;/admin/x",
            "/admin//x", "/admin/./x", "/admin/y/../x", "/%61%64%6d%69%6e/x", "/;/admin/x", "/a/%2e%2e/admin/x",
            "http://a.test//admin/x", "/admin/x;.css",
        ] {
            let response = site.ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(response.text(), "closed /admin/x", "{target}");
        }
        for target in ["/Admin/x", "/admin%3Bx", "/a?/admin/x", "/administrator"] {
            let response = site.ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(response.text(), "open", "{target}");
        }
        assert!(closed.violations().is_empty());
    }
}
