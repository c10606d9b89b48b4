//! Nothing that a client sends forges a line of the log: row 38 of the attack table.

use sluice_load::origin::Reply;

use crate::harness::{Site, both_drivers};
use crate::json::is_json;

both_drivers! {
    /// Whatever was in a request, nothing of it reaches the terminal raw, and each line that claims to be JSON is one
    /// value.
    fn log_lines_cannot_be_forged(driver: &str) {
        let site = Site::http(driver, |_| Reply::ok("fine"));
        let forged = "{\"status\":200,\"forged\":true}";
        for request in [
            format!("GET /x?%0a{forged}%1b[31m HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a\"b\\c\r\nReferer: \\\"}}\r\n\r\n"),
            format!("GET /x\x1b[31m\x07 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {forged}\r\n\r\n"),
            "GET /x\n{\"forged\":true} HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
            "GET /x HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a\x1b[2J\u{85}\u{2028}b\r\n\r\n".to_owned(),
            "GET /x HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \u{9b}31m\u{7f}\r\n\r\n".to_owned(),
            "G\x1bT /x HTTP/1.1\r\nHost: \x1b]0;a\x07\r\n\r\n".to_owned(),
        ] {
            let mut client = site.connect();
            client.send(&request);
            client.finish();
            let (answer, _) = client.rest();
            let answer = String::from_utf8_lossy(&answer);
            assert!(!answer.contains('\x1b') && !answer.contains("forged"), "{request:?} came back in {answer:?}");
        }
        let mut client = site.connect();
        client.send(b"GET /x?\xff\xfe HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \xff\xfe\r\n\r\n");
        client.finish();
        let _ = client.rest();
        assert_eq!(site.ask("GET /last HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), 200);
        for line in site.gateway.output().iter().filter(|l| !l.starts_with("ready: ")) {
            assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
            assert!(!line.starts_with("{\"forged"), "{line:?}");
            assert!(!line.starts_with('{') || is_json(line), "{line:?}");
        }
    }
}
