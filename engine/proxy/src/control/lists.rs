//! Files of access lists that change while the gateway runs: read again, and in use from then on. A file that cannot
//! be used changes nothing.
//!
//! The folders are watched, and looked at each minute all the same: not every file system tells of changes. A file
//! whose size, time and identity are as before is not read.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_config::lists;
use sluice_rules::access::{Access, Side};
use sluice_rules::prefixes::Prefixes;
use tokio::time::timeout;

use super::Control;
use super::watch::Folders;
use crate::publish::Publication;
use crate::rt;

/// How often files are looked at though nothing tells of a change.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What shows that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of a file, `None` if it is not there.
    fn of(path: &Path) -> Option<Stamp> {
        let file = path.metadata().ok()?;
        Some(Stamp { inode: file.ino(), bytes: file.len(), changed: (file.ctime(), file.ctime_nsec()) })
    }
}

/// What is known of the files.
#[derive(Default)]
struct Known {
    stamps: HashMap<PathBuf, Option<Stamp>>,
    /// Errors that were told of already.
    told: HashMap<PathBuf, String>,
}

/// Looks after the files of the configuration that serves, for ever.
pub(super) async fn watch(control: Arc<Control>) {
    loop {
        let files = files(&control.shared.published.current());
        if files.is_empty() {
            control.list_renewals.renewed.notified().await;
            continue;
        }
        let mut folders = Folders::watch(&files);
        let mut known = Known::default();
        loop {
            // First a look: a change may have come before the folders were watched.
            let there = Arc::clone(&control);
            let publication = control.shared.published.current();
            let look = tokio::task::spawn_blocking(move || {
                rt::stand_back();
                let read = look(&there, &files_of(&publication), &mut known);
                (read, publication, known)
            });
            let Ok((read, publication, after)) = look.await else { return };
            known = after;
            control.renew_lists(&publication, &read);
            drop(publication);
            tokio::select! {
                _ = timeout(LOOK_EVERY, folders.changed()) => {}
                () = control.list_renewals.renewed.notified() => break,
            }
        }
    }
}

impl Control {
    /// Puts what was read in the place of what was there, unless another configuration serves by now, which has read
    /// its files itself.
    fn renew_lists(&self, publication: &Publication, read: &HashMap<PathBuf, Arc<Prefixes>>) {
        let current = self.shared.published.current();
        if read.is_empty() || current.configuration != publication.configuration {
            return;
        }
        let mut lists = current.lists.clone();
        for (access, lists) in current.snapshot.access.iter().zip(&mut lists) {
            for (side, list) in [(&access.allow, &mut lists.allow), (&access.deny, &mut lists.deny)] {
                if let Some(new) = side.file.as_ref().and_then(|file| read.get(&file.path)) {
                    *list = Some(Arc::clone(new));
                }
            }
        }
        drop(current);
        let replaced = self.shared.published.set_lists(lists);
        self.replaced().push(replaced);
    }
}

fn sides(access: &Access) -> [&Side; 2] {
    [&access.allow, &access.deny]
}

/// The files of all access lists.
fn files(publication: &Publication) -> Vec<PathBuf> {
    files_of(publication).into_iter().map(|(path, _)| path).collect()
}

/// The same with what is in them as far as is known.
fn files_of(publication: &Publication) -> Vec<(PathBuf, usize)> {
    let access = publication.snapshot.access.iter();
    let files = access.flat_map(sides).filter_map(|side| side.file.as_ref());
    let mut files: Vec<_> = files.map(|file| (file.path.clone(), file.prefixes.len())).collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// Reads the files that have changed. What could not be read is told of and left out.
fn look(control: &Control, files: &[(PathBuf, usize)], known: &mut Known) -> HashMap<PathBuf, Arc<Prefixes>> {
    let mut read = HashMap::new();
    for (path, before) in files {
        let stamp = Stamp::of(path);
        let first = !known.stamps.contains_key(path);
        if known.stamps.get(path) == Some(&stamp) {
            continue;
        }
        known.stamps.insert(path.clone(), stamp);
        let loaded = lists::load(path).map_err(|error| error.to_string());
        // What the configuration has just read counts as new only if it is.
        let changed = loaded.as_ref().is_ok_and(|list| !first || list.len() != *before);
        control.list_renewals.note(path, loaded.as_ref().map(|_| changed).map_err(Clone::clone), &mut known.told);
        if let Ok(list) = loaded {
            read.insert(path.clone(), Arc::new(list));
        }
    }
    read
}
