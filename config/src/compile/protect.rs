//! Access lists, and what is done about clients that do harm.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sluice_rules::access::{Access, AccessId, ListFile, Side};
use sluice_rules::prefixes::Prefixes;
use sluice_rules::protection::{Protection, Rung, Trip};

use super::routes::dangling;
use super::{check_unique, networks};
use crate::error::{Code, Diagnostic, Place};
use crate::lists;
use crate::read::{At, Context, List, Optional};
use crate::schema::{self, Schema};
use crate::values::{FilePath, Name, Prefix};

/// All access lists, in the order of the files. `None`: one of them could not be read.
pub(super) fn access(schema: &Schema, context: &mut Context<'_>) -> Option<Vec<Access>> {
    let lists = schema.access.items.iter().map(|(name, table)| one(name, table.as_ref(), context));
    // All of them, so that all that is wrong is found.
    lists.collect::<Vec<_>>().into_iter().collect()
}

fn one(name: &At<String>, table: Option<&At<schema::Access>>, context: &mut Context<'_>) -> Option<Access> {
    let table = table?;
    let allow = side(&table.allow, &table.allow_file, context);
    let deny = side(&table.deny, &table.deny_file, context);
    let methods = table.methods.given();
    if let Some(methods) = methods.filter(|methods| methods.is_empty() && methods.complete) {
        let note = Diagnostic::error(Code::InvalidValue, methods.place, "no method passes");
        context.push(note.label("needs at least one").help("leave it out to let all methods pass"));
    }
    let is_whole = [&table.allow, &table.deny].iter().all(|list| list.complete) && table.deny_user_agents.complete;
    let has_files = !table.allow_file.is_absent() || !table.deny_file.is_absent();
    let says_nothing = table.allow.is_empty() && table.deny.is_empty() && table.deny_user_agents.is_empty();
    // After another error, such as a misspelt key, it may well have some.
    if says_nothing && !has_files && table.methods.is_absent() && is_whole && !context.has_errors() {
        let message = format!("the access list `{}` has no entries", name.value);
        let note = Diagnostic::error(Code::InvalidValue, table.place, message).label("lets everything pass");
        context.push(note.help("write deny = [\"203.0.113.0/24\"], allow = [...], or name a file by deny-file"));
    }
    Some(Access {
        name: name.value.clone(),
        allow: allow?,
        deny: deny?,
        methods: methods.iter().flat_map(|methods| methods.iter()).map(|method| method.0.clone()).collect(),
        deny_user_agents: table.deny_user_agents.iter().map(|pattern| pattern.0.clone()).collect(),
    })
}

/// Networks with those of a file. `None`: it cannot be used.
fn side(listed: &At<List<Prefix>>, file: &Optional<FilePath>, context: &mut Context<'_>) -> Option<Side> {
    check_host_bits(listed, context);
    let file = match file {
        Optional::Absent => None,
        Optional::Broken => return None,
        Optional::Given(path) => Some(list_file(path, context)?),
    };
    Some(Side { listed: networks(listed).collect(), file })
}

fn check_host_bits(listed: &List<Prefix>, context: &mut Context<'_>) {
    for network in listed.iter().filter(|network| network.0.trunc() != network.0) {
        let message = format!("{} has bits behind its length", context.written(network.place));
        let note = Diagnostic::warning(Code::InvalidValue, network.place, message);
        context.push(note.label(format!("taken for {}", network.0.trunc())));
    }
}

/// A list that is not there is empty until it is: what writes it may come later than the gateway.
fn list_file(path: &At<FilePath>, context: &mut Context<'_>) -> Option<ListFile> {
    // It is no file of the configuration: it is watched by itself, and a change of it reloads nothing else.
    match lists::load(&path.0) {
        Ok(prefixes) => Some(ListFile { path: path.0.clone(), prefixes: Arc::new(prefixes) }),
        Err(error) if error.is_missing() => {
            let message = format!("{} is not there", context.written(path.place));
            let note = Diagnostic::warning(Code::Unreadable, path.place, message);
            context.push(note.label("an empty list until it is").help("it is read as soon as it is there"));
            Some(ListFile { path: path.0.clone(), prefixes: Arc::default() })
        }
        Err(error) => {
            let message = format!("{} cannot be used", context.written(path.place));
            let code = error.code();
            let note = Diagnostic::error(code, path.place, message).label(error.to_string());
            context.push(note.help("a list has an address or a network a line; `#` begins a comment"));
            None
        }
    }
}

/// The access lists that a route or a listener names, in their order.
pub(super) fn named(
    schema: &Schema,
    names: &Optional<List<Name>>,
    used: &mut HashSet<usize>,
    context: &mut Context<'_>,
) -> Vec<AccessId> {
    let Some(names) = names.given() else { return Vec::new() };
    let mut seen = HashMap::new();
    let mut ids = Vec::new();
    for name in names.iter() {
        let message = format!("{} is listed twice", context.written(name.place));
        check_unique(&mut seen, name.0.as_str(), name.place, || message, context);
        match schema.access.items.iter().position(|(known, _)| known.value == name.0) {
            Some(index) => {
                used.insert(index);
                ids.push(AccessId(index as u32));
            }
            None => {
                let known = schema.access.items.iter().map(|(known, _)| known.as_str());
                dangling("access list", name, known, context);
            }
        }
    }
    ids
}

/// Notes what of an access list means nothing to a listener, which asks it before a request has come.
pub(super) fn check_listener(schema: &Schema, ids: &[AccessId], place: Option<Place>, context: &mut Context<'_>) {
    for (name, table) in ids.iter().filter_map(|id| schema.access.items.get(id.0 as usize)) {
        let Some(table) = table else { continue };
        let of_requests = [table.methods.given().and_then(|methods| methods.place), table.deny_user_agents.place];
        if let Some(inner) = of_requests.into_iter().flatten().next() {
            let message = format!("a listener asks `{}` before a request has come", name.value);
            let note = Diagnostic::warning(Code::Unused, place, message).label("only addresses count here");
            context.push(note.related(Some(inner), "has no effect for a listener"));
        }
    }
}

/// Warns of access lists that nobody names.
pub(super) fn check_unused(schema: &Schema, used: &HashSet<usize>, context: &mut Context<'_>) {
    for (index, (name, table)) in schema.access.items.iter().enumerate() {
        if table.is_some() && !used.contains(&index) {
            let message = format!("no route and no listener asks the access list `{}`", name.value);
            let note = Diagnostic::warning(Code::Unused, name.place, message).label("unused");
            context.push(note.help(format!("write access = [\"{}\"] on a route or a listener", name.value)));
        }
    }
}

/// What is done about clients that do harm.
pub(super) fn protection(schema: &Schema, context: &mut Context<'_>) -> Option<Protection> {
    let table = schema.protection.given()?;
    if table.ladder.is_empty() && table.ladder.complete {
        let note = Diagnostic::error(Code::InvalidValue, table.ladder.place, "the ladder has no steps");
        context.push(note.label("needs at least one").help("to take no measures, write mode = \"observe\""));
    }
    for pair in table.ladder.windows(2) {
        if pair[1].measure.strength() < pair[0].measure.strength() {
            let message = format!("{} is milder than the step before it", context.written(pair[1].place));
            let note = Diagnostic::warning(Code::Conflict, pair[1].place, message);
            context.push(note.label("who goes on is let off").related(pair[0].place, "the step before it"));
        }
    }
    let (requests, throttle) = (&table.trip.requests, &table.throttle);
    if throttle.0 >= requests.0 {
        let place = throttle.place.or(requests.place);
        let note = Diagnostic::error(Code::Conflict, place, "a client may ask for more when it is slowed down");
        let note = note.label("has to be less than `trip.requests`");
        context.push(note.related(requests.place.filter(|other| Some(*other) != place), "trips above this"));
    }
    check_host_bits(&table.exempt, context);
    let trip = &table.trip;
    Some(Protection {
        mode: table.mode.0,
        trip: Trip {
            requests: trip.requests.0 as u32,
            errors_percent: trip.errors.0 as u8,
            requests_min: trip.min_requests.0 as u32,
        },
        ladder: table.ladder.iter().map(|step| Rung { measure: step.measure, time: step.time }).collect(),
        throttle: throttle.0 as u32,
        exempt: networks(&table.exempt).collect::<Prefixes>(),
    })
}
