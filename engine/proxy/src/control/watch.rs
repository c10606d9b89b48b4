//! Reload when a file has changed, if `reload.watch` asks for it.
//!
//! The folders are watched, not the files: editors and mounted secrets put a new file or link in the place of the
//! old one. What counts is the content: a folder may see many other changes.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::Control;

/// A change is looked at once nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(200);

/// Or after so many changes that each came sooner.
const CHANGES_MAX: usize = 50;

/// Bytes of a file that are looked at: as many as a configuration may have.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What is watched.
#[derive(Default)]
pub(super) struct Watched {
    state: Mutex<State>,
    renewed: Notify,
}

#[derive(Clone, Default)]
struct State {
    files: Vec<PathBuf>,
    print: u64,
}

impl Watched {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let print = fingerprint(&files);
        Watched { state: Mutex::new(State { files, print }), renewed: Notify::new() }
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.state().files
    }

    /// These files were read, and this is what was in them.
    pub(super) fn set(&self, files: Vec<PathBuf>, print: u64) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { files, print };
        self.renewed.notify_one();
    }

    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reloads when a file has changed, for ever.
pub(super) async fn watch(control: Arc<Control>) {
    loop {
        let files = control.watched.files();
        if files.is_empty() || !control.shared.published.current().snapshot.reload.watch {
            control.watched.renewed.notified().await;
            continue;
        }
        let mut folders = Folders::watch(&files);
        loop {
            // First a look: a change may have come before the folders were watched.
            let before = control.watched.state();
            let print = tokio::task::spawn_blocking(move || fingerprint(&before.files)).await;
            if print.is_ok_and(|print| print != control.watched.state().print) {
                // It says itself what came of it.
                let _ = control.reload().await;
            }
            tokio::select! {
                () = folders.changed() => {}
                () = control.watched.renewed.notified() => break,
            }
        }
    }
}

/// Folders that are watched.
pub(super) struct Folders {
    /// Held, not used: it ends when it is dropped.
    _watcher: Option<RecommendedWatcher>,
    changes: mpsc::Receiver<()>,
}

impl Folders {
    /// Watches the folders that the files are in.
    pub(super) fn watch(files: &[PathBuf]) -> Folders {
        // One is enough: the others are read together with it.
        let (events, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = events.try_send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::error!(%error, "files cannot be watched; reload by HUP or `sluice reload`");
                return Folders { _watcher: None, changes };
            }
        };
        for folder in folders(files) {
            if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, folder = %folder.display(), "a folder cannot be watched for changes");
            }
        }
        Folders { _watcher: Some(watcher), changes }
    }

    /// Waits until something has changed and nothing more does. Without a watcher that is never.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        for _ in 0..CHANGES_MAX {
            if timeout(QUIET, self.changes.recv()).await.is_err() {
                return;
            }
        }
    }
}

/// The folders that the files are in, by their names as they were written.
fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let folder = |file: &PathBuf| match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    files.iter().map(folder).collect()
}

/// A number for what is in the files, and for which files of their kind are beside them: a new one may be included.
pub(super) fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let content = std::fs::metadata(file).and_then(|kind| {
            let mut content = Vec::new();
            // A pipe would be waited for.
            if kind.is_file() {
                std::fs::File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
            }
            Ok((kind.is_file(), content))
        });
        content.map_err(|error| error.kind()).hash(&mut hasher);
    }
    for folder in folders(files) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let names: BTreeSet<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        names.hash(&mut hasher);
    }
    hasher.finish()
}
