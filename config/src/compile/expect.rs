//! The `[[test]]` tables: what they refer to has to exist, and each has to expect something.

use std::collections::HashMap;

use sluice_rules::check::{Expect, Test, TestRequest};

use super::check_unique;
use super::routes::{dangling, route_name};
use crate::error::{Code, Diagnostic};
use crate::read::{At, Context, Optional};
use crate::schema::{self, Schema};
use crate::values::Name;

/// All tests, in the order of the file.
pub(super) fn tests(schema: &Schema, context: &mut Context<'_>) -> Vec<Test> {
    let routes: Vec<String> = schema.route.iter().enumerate().map(|(index, table)| route_name(index, table)).collect();
    let mut names = HashMap::new();
    let mut tests = Vec::new();
    for (table, doubtful) in schema.test.iter().zip(&schema.test.doubtful) {
        let message = format!("two tests are named {}", context.written(table.name.place));
        check_unique(&mut names, table.name.0.as_str(), table.name.place, || message, context);
        let expect = expect(&table.expect);
        if expect == Expect::default() && !doubtful {
            let note = Diagnostic::error(Code::MissingKey, table.expect.place, "the test expects nothing");
            context.push(note.label(
                "needs at least one of `status`, `route`, `upstream`, `location`, `sent-target`, \
                                     `sent-host` and `sent-fields`",
            ));
        }
        check_possible(&table.expect, context);
        // What could not be read may have the name that is missing.
        if let (Some(name), true) = (table.expect.route.given(), schema.route.complete)
            && !routes.contains(&name.0)
        {
            dangling("route", name, routes.iter().map(String::as_str), context);
        }
        if let Some(name) = table.expect.upstream.given()
            && !schema.upstream.items.iter().any(|(known, _)| known.value == name.0)
        {
            dangling("upstream", name, schema.upstream.items.iter().map(|(known, _)| known.as_str()), context);
        }
        tests.push(Test {
            name: table.name.0.clone(),
            place: context.file_and_line(table.place),
            request: request(&table.request),
            expect,
        });
    }
    tests
}

/// Notes expectations that exclude each other: what is sent on, and what the gateway answers by itself.
fn check_possible(table: &schema::Expect, context: &mut Context<'_>) {
    let sent = [
        table.upstream.given().and_then(|given| given.place),
        table.sent_target.given().and_then(|given| given.place),
        table.sent_host.given().and_then(|given| given.place),
        table.sent_fields.given().and_then(|given| given.place),
    ];
    let answered =
        [table.status.given().and_then(|given| given.place), table.location.given().and_then(|given| given.place)];
    let first = |places: &[Option<crate::error::Place>]| places.iter().flatten().min().copied();
    if let (Some(sent), Some(answered)) = (first(&sent), first(&answered)) {
        let note = Diagnostic::error(Code::Conflict, Some(answered), "no request is both answered and sent on");
        let note = note.label("only for what the gateway answers by itself");
        context.push(note.related(Some(sent), "only for what is sent on"));
    }
}

fn request(table: &schema::TestRequest) -> TestRequest {
    let fields = table.fields.given().map(|fields| fields.0.as_slice()).unwrap_or_default();
    TestRequest {
        method: table.method.0.clone(),
        url: table.url.0.clone(),
        fields: fields.iter().map(|(name, value)| (name.value.clone(), value.0.clone())).collect(),
        client_ip: table.client_ip.given().map(|ip| ip.0),
        http2: table.http2.value,
    }
}

fn expect(table: &schema::Expect) -> Expect {
    let name = |name: &Optional<Name>| name.given().map(|name| name.0.clone());
    let text = |text: &Optional<String>| text.given().map(|text| text.value.clone());
    let fields = table.sent_fields.given().map(|fields| fields.0.as_slice()).unwrap_or_default();
    let field = |(name, value): &(At<String>, At<schema::SentField>)| (name.value.clone(), value.0.clone());
    Expect {
        status: table.status.given().map(|status| status.0 as u16),
        route: name(&table.route),
        upstream: name(&table.upstream),
        location: text(&table.location),
        sent_target: text(&table.sent_target),
        sent_host: text(&table.sent_host),
        sent_fields: fields.iter().map(field).collect(),
    }
}
