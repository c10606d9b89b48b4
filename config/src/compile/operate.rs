//! Admin, logs and draining.

use sluice_rules::snapshot::{AccessLog, Admin, Drain, Log, LogTarget};

use crate::error::{Code, Diagnostic};
use crate::files::unwritable;
use crate::read::{At, Context};
use crate::schema::{self, Schema};
use crate::values::FilePath;

/// Where the admin endpoints listen, if anywhere.
pub(super) fn admin(schema: &Schema, context: &mut Context<'_>) -> Option<Admin> {
    let table = schema.admin.given()?;
    if table.address.is_absent() && table.socket.is_absent() {
        let note = Diagnostic::error(Code::MissingKey, table.place, "the admin endpoints have no place to listen");
        context.push(note.label("needs `address` or `socket`").help("write address = \"127.0.0.1:9901\""));
    }
    if !table.address.is_absent() && !table.socket.is_absent() {
        let (address, socket) = (table.address.given(), table.socket.given());
        let place = socket.and_then(|socket| socket.place).or(table.place);
        let note = Diagnostic::error(Code::Conflict, place, "the admin endpoints listen on an address or a socket");
        context.push(
            note.label("only one of `address` and `socket`")
                .related(address.and_then(|given| given.place), "first here"),
        );
    }
    if let Some(address) = table.address.given() {
        if !address.0.ip().is_loopback() && !table.allow_remote.value {
            let note = Diagnostic::error(Code::ExposedAdmin, address.place, "the admin address is not on loopback");
            let note = note.label("whoever reaches it controls the gateway");
            context.push(
                note.help("use 127.0.0.1 or [::1], or write allow-remote = true if a firewall keeps others away"),
            );
        }
        return Some(Admin::Address(address.0));
    }
    let socket = table.socket.given()?;
    check_writable(socket, context);
    Some(Admin::Socket(socket.0.clone()))
}

/// Notes a path where nothing can be written.
pub(super) fn check_writable(path: &At<FilePath>, context: &mut Context<'_>) {
    if let Some(why) = unwritable(&path.0) {
        let message = format!("{} cannot be written", context.written(path.place));
        let why = if context.is_substituted(path.place) { "after `${...}` was replaced".to_owned() } else { why };
        context.push(Diagnostic::error(Code::Unwritable, path.place, message).label(why));
    }
}

/// What is logged, and where.
pub(super) fn log(table: &schema::Log, context: &mut Context<'_>) -> Log {
    let access = &table.access;
    let to = match &access.to.value {
        schema::LogTarget::Off => None,
        schema::LogTarget::Stdout => Some(LogTarget::Stdout),
        schema::LogTarget::Stderr => Some(LogTarget::Stderr),
        schema::LogTarget::File(path) => {
            check_writable(&At { value: path.clone(), place: access.to.place }, context);
            Some(LogTarget::File(path.0.clone()))
        }
    };
    if to.is_none() {
        let places = [access.format.place, access.buffer.place, access.mask.place, access.mask_query.place];
        if let Some(place) = places.into_iter().chain([access.request_fields.place]).flatten().min() {
            let note = Diagnostic::warning(Code::Unused, Some(place), "no access log is written");
            let note = note.label("has no effect").related(access.to.place, "because of this");
            context.push(note.help("say where it goes: to = \"stdout\" or a file"));
        }
    }
    let access = to.map(|to| AccessLog {
        to,
        format: access.format.0,
        buffer_bytes: access.buffer.0 as usize,
        mask: access.mask.iter().map(|name| name.0.clone()).collect(),
        mask_query: access.mask_query.iter().map(|name| name.0.to_ascii_lowercase()).collect(),
        request_fields: access.request_fields.iter().map(|name| name.0.clone()).collect(),
    });
    Log { level: table.level.0, format: table.format.0, access }
}

/// How the gateway ends.
pub(super) fn drain(table: &schema::Drain, context: &mut Context<'_>) -> Drain {
    let (grace, deadline) = (&table.grace, &table.deadline);
    if deadline.0 < grace.0 {
        let place = deadline.place.or(grace.place);
        let note = Diagnostic::error(Code::Conflict, place, "the drain ends before its grace does");
        let note = note.label("`deadline` counts from the beginning and includes `grace`");
        context.push(note.related(grace.place.filter(|grace| Some(*grace) != place), "the grace"));
    }
    Drain { grace: grace.0, deadline: deadline.0 }
}
