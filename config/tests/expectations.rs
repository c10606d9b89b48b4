//! The tests in a configuration: each expectation that is not met is told, with what is so, and nothing secret.

use sluice_config::load_str_with;
use sluice_rules::check::{TestFailure, run_tests};
use sluice_rules::explain::explain;
use sluice_rules::snapshot::Snapshot;

const GATEWAY: &str = r#"
[[listener]]
address = "127.0.0.1:8080"

[upstream.app]
endpoints = ["127.0.0.1:9000"]

[upstream.other]
endpoints = ["127.0.0.1:9001"]

[[route]]
name = "users"
path = "/users/{id}"
rewrite = { path = "/v2/{id}", host = "inner.test" }
upstream = "app"

[[route]]
name = "keyed"
path = "/keyed"
headers = { authorization = "Bearer ${TOKEN}" }
rewrite = { query = "key=${TOKEN}" }
upstream = "other"

[[route]]
name = "moved"
path = "/old/*"
redirect = { to = "/new/{rest}", status = 301 }
"#;

fn snapshot(tests: &str) -> Snapshot {
    let variables = |name: &str| (name == "TOKEN").then(|| "hunter2-hunter2".to_owned());
    load_str_with("gateway.toml", &format!("{GATEWAY}{tests}"), &variables).unwrap_or_else(|r| panic!("{r}")).snapshot
}

fn failures(url: &str, expect: &str) -> Vec<TestFailure> {
    let test =
        format!("[[test]]\nname = \"it\"\nrequest = {{ url = \"http://a.test{url}\" }}\nexpect = {{ {expect} }}\n");
    run_tests(&snapshot(&test))
}

#[test]
fn each_expectation_is_held_against_what_happens() {
    for (url, expect) in [
        ("/users/7", "route = \"users\", upstream = \"app\", sent-target = \"/v2/7\", sent-host = \"inner.test\""),
        ("/users/7", "sent-fields = { x-forwarded-host = \"a.test\", x-other = false, via = \"1.1 sluice\" }"),
        ("/old/a?b=c", "status = 301, location = \"/new/a\", route = \"moved\""),
        ("/none", "status = 404"),
        ("/users/%2f", "status = 400"),
    ] {
        let found = failures(url, expect);
        assert!(found.is_empty(), "{url} {expect}: {}", found[0]);
    }
    for (url, expect, key, actual) in [
        ("/users/7", "status = 200", "status", "sent to upstream `app`"),
        ("/old/a", "status = 302", "status", "`301`"),
        ("/users/7", "route = \"moved\"", "route", "`users`"),
        ("/none", "route = \"moved\"", "route", "no route"),
        ("/users/7", "upstream = \"other\"", "upstream", "`app`"),
        ("/old/a", "upstream = \"app\"", "upstream", "answered here with 301"),
        ("/old/a", "location = \"/a\"", "location", "`/new/a`"),
        ("/none", "location = \"/a\"", "location", "no Location"),
        ("/users/7", "location = \"/a\"", "location", "sent to upstream `app`"),
        ("/users/7", "sent-target = \"/users/7\"", "sent-target", "`/v2/7`"),
        ("/none", "sent-target = \"/none\"", "sent-target", "answered here with 404"),
        ("/users/7", "sent-host = \"a.test\"", "sent-host", "`inner.test`"),
        ("/users/7", "sent-fields = { via = false }", "sent-fields.via", "`1.1 sluice`"),
        ("/users/7", "sent-fields = { x-a = \"1\" }", "sent-fields.x-a", "no such field"),
        ("/none", "sent-fields = { x-a = false }", "sent-fields.x-a", "answered here with 404"),
    ] {
        let found = failures(url, expect);
        assert_eq!(found.len(), 1, "{url} {expect}");
        let [mismatch] = found[0].mismatches.as_slice() else { panic!("{url} {expect}: {}", found[0]) };
        assert_eq!((mismatch.key.as_str(), mismatch.actual.as_str()), (key, actual), "{url} {expect}");
        assert_eq!((found[0].name.as_str(), found[0].place.starts_with("gateway.toml:")), ("it", true));
    }
}

/// What came from the environment is compared, and never printed.
#[test]
fn what_came_from_outside_is_hidden() {
    let keyed = "[[test]]\nname = \"it\"\nexpect = { sent-target = \"/other\" }\n\
        request = { url = \"http://a.test/keyed\", fields = { authorization = \"Bearer hunter2-hunter2\" } }\n";
    let snapshot = snapshot(keyed);
    let found = run_tests(&snapshot);
    assert_eq!(found[0].mismatches[0].actual, "`/keyed?key=<hidden>`");
    let shown = format!("{} {:?}", found[0], found[0].explanation.outcome);
    assert!(shown.contains("<hidden>") && !shown.contains("key=hunter2"), "{shown}");
    // A near miss does not say what would have been right.
    let mut request = snapshot.tests[0].request.clone();
    request.fields[0].1 = "Bearer wrong".to_owned();
    let explanation = explain(&snapshot, &request);
    let shown = format!("{:?}", explanation.misses);
    assert!(shown.contains("Bearer <hidden>") && !format!("{explanation:?}").contains("hunter2"), "{shown}");
}
