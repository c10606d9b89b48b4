//! Certificates and ticket keys whose files change while the gateway runs: read again, checked, and in use from then
//! on. A file that cannot be used changes nothing.
//!
//! The folders are watched, and looked at each minute all the same: not every file system tells of changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sluice_config::certificates::{self, Concern};
use sluice_rules::snapshot::Certificate;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Control;
use super::watch::Folders;
use crate::publish::Publication;
use crate::rt;
use crate::tls::tickets::RENEW_EVERY;

/// How often files are looked at though nothing tells of a change.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What came of changes, and what is known of the files.
#[derive(Default)]
pub(super) struct Renewals {
    applied: AtomicU64,
    failed: AtomicU64,
    /// Another configuration serves, with other files maybe.
    pub(super) renewed: Notify,
}

impl Renewals {
    /// Each outcome by its label.
    pub(super) fn all(&self) -> [(&'static str, u64); 2] {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("applied", get(&self.applied)), ("failed", get(&self.failed))]
    }

    /// Takes note of what came of a file. `told` are the errors that were told of already.
    pub(super) fn note(&self, file: &Path, outcome: Result<bool, String>, told: &mut HashMap<PathBuf, String>) {
        match outcome {
            Ok(changed) => {
                told.remove(file);
                if changed {
                    self.applied.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(file = %file.display(), "what was renewed is in use");
                }
            }
            Err(error) if told.get(file) == Some(&error) => {}
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(file = %file.display(), %error, "a changed file cannot be used; what was read before stays in use");
                told.insert(file.to_owned(), error);
            }
        }
    }
}

/// Looks after the files of the configuration that serves, for ever.
pub(super) async fn watch(control: Arc<Control>) {
    let mut told = HashMap::new();
    loop {
        let files = files(&control.shared.published.current());
        if files.is_empty() {
            control.renewals.renewed.notified().await;
            continue;
        }
        let mut folders = Folders::watch(&files);
        loop {
            // First a look: a change may have come before the folders were watched.
            let there = Arc::clone(&control);
            let known = std::mem::take(&mut told);
            let look = tokio::task::spawn_blocking(move || {
                rt::stand_back();
                look(&there, known)
            });
            told = look.await.unwrap_or_default();
            tokio::select! {
                _ = timeout(LOOK_EVERY, folders.changed()) => {}
                () = control.renewals.renewed.notified() => break,
            }
        }
    }
}

/// Draws a new secret for session tickets every few hours, for ever.
pub(super) async fn renew_tickets(control: Arc<Control>) {
    let mut turn = tokio::time::interval(RENEW_EVERY);
    // The first one comes at once, and the first secret was drawn just now.
    turn.tick().await;
    loop {
        turn.tick().await;
        control.shared.published.current().tickets.renew();
    }
}

/// The files that something is shown of.
fn files(publication: &Publication) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for certificate in certificates_of(publication) {
        files.extend([certificate.files.chain.clone(), certificate.files.key.clone()]);
    }
    let listeners = publication.snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    files.extend(listeners.filter_map(|tls| tls.ticket_keys.as_ref()).map(|keys| keys.file.clone()));
    files.sort_unstable();
    files.dedup();
    files
}

/// The certificates that are shown now, to clients and to upstreams.
fn certificates_of(publication: &Publication) -> Vec<Arc<Certificate>> {
    let of_listeners = publication.tls.iter().flatten().flat_map(|server| server.certificates.all());
    of_listeners.chain(publication.clients.iter().flatten().filter_map(|client| client.certificate())).collect()
}

/// Reads all files again and takes what has changed.
fn look(control: &Control, mut told: HashMap<PathBuf, String>) -> HashMap<PathBuf, String> {
    let publication = control.shared.published.current();
    let mut present = certificates_of(&publication);
    present.sort_unstable_by(|a, b| a.files.chain.cmp(&b.files.chain).then_with(|| a.files.key.cmp(&b.files.key)));
    present.dedup_by(|a, b| a.files == b.files);
    for certificate in present {
        let outcome = renew(&publication, &certificate);
        control.renewals.note(&certificate.files.chain, outcome, &mut told);
    }
    for (listener, server) in publication.snapshot.listeners.iter().zip(&publication.tls) {
        let (Some(tls), Some(server)) = (&listener.tls, server) else { continue };
        let Some(keys) = &tls.ticket_keys else { continue };
        let read = certificates::ticket_keys(&keys.file).map_err(|error| error.to_string());
        let outcome = read.map(|read| server.secrets.replace(&read.keys));
        control.renewals.note(&keys.file, outcome, &mut told);
    }
    told
}

/// Reads a certificate again. Returns whether another one is shown now.
fn renew(publication: &Publication, present: &Arc<Certificate>) -> Result<bool, String> {
    let renewed = certificates::load(&present.files).map_err(|error| error.to_string())?;
    if renewed == **present {
        return Ok(false);
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs() as i64);
    for concern in certificates::concerns(&renewed, now) {
        // What clients would refuse is no better than what they have.
        if matches!(concern, Concern::Expired(_) | Concern::NotYetValid(_)) && present.not_after >= now {
            return Err(concern.to_string());
        }
        tracing::warn!(file = %renewed.files.chain.display(), "{concern}");
    }
    let renewed = Arc::new(renewed);
    for server in publication.tls.iter().flatten().filter(|server| server.certificates.has(&renewed.files)) {
        server.certificates.replace(&renewed).map_err(|error| error.to_string())?;
    }
    for client in publication.clients.iter().flatten().filter(|client| client.has(&renewed.files)) {
        client.replace(&renewed).map_err(|error| error.to_string())?;
    }
    Ok(true)
}
