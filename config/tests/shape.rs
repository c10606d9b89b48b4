//! The description of the tables, from which the reference is made.

use sluice_config::read::{FromToml, Shape};
use sluice_config::schema::Schema;

/// Calls `visit` with the path of each key, its documentation, and whether it has to be written.
fn walk(at: &str, shape: &Shape, visit: &mut impl FnMut(&str, &str, bool)) {
    match shape {
        Shape::Table { keys, .. } => {
            for key in keys {
                let path = format!("{at}.{}", key.name);
                visit(&path, &key.doc, key.required);
                walk(&path, &key.shape, visit);
            }
        }
        Shape::List(inner) => walk(at, inner, visit),
        Shape::Map(inner) => walk(&format!("{at}.NAME"), inner, visit),
        Shape::Any(shapes) => shapes.iter().for_each(|shape| walk(at, shape, visit)),
        Shape::Text(_) | Shape::OneOf(_) | Shape::Integer { .. } | Shape::Boolean => {}
    }
}

#[test]
fn every_key_is_documented_and_few_are_required() {
    let mut required = Vec::new();
    let mut count = 0;
    walk("", &Schema::shape(), &mut |path, doc, is_required| {
        count += 1;
        assert!(!doc.is_empty() && doc.ends_with('.'), "{path}: {doc}");
        assert!(!path.contains('_'), "{path}");
        if is_required && !path.ends_with(".regex") {
            required.push(path.to_owned());
        }
    });
    assert!(count > 60, "{count}");
    let expected = [
        ".listener.address",
        ".listener.tls.certificates",
        ".listener.tls.certificates.chain",
        ".listener.tls.certificates.key",
        ".listener.tls.client.ca",
        ".listener.proxy-protocol.from",
        ".upstream.NAME.endpoints",
        ".upstream.NAME.tls.certificate.chain",
        ".upstream.NAME.tls.certificate.key",
        ".upstream.NAME.concurrency.adaptive",
        ".limit.NAME.key",
        ".limit.NAME.tiers.NAME.rate",
        ".limit.NAME.overrides.NAME.rate",
        ".limit.NAME.delay.up-to",
        ".route.redirect.to",
        ".test.name",
        ".test.request",
        ".test.request.url",
        ".test.expect",
    ];
    assert_eq!(required, expected);
}
