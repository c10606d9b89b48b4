//! Ten files as operators break them, and the whole of what they are told.
//!
//! What is told stands beside each file. After a change that is meant, `SLUICE_RENEW=1` writes it anew, to be read
//! as somebody would who has never seen the code.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

use sluice_config::load_str_with;

#[test]
fn operators_are_told_what_is_wrong() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert_eq!(paths.len(), 10);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let told = load_str_with("gateway.toml", &text, &|_| None).unwrap_err().render(false) + "\n";
        let beside = path.with_extension("txt");
        if std::env::var_os("SLUICE_RENEW").is_some() {
            std::fs::write(&beside, &told).unwrap();
        }
        assert_eq!(told, std::fs::read_to_string(&beside).unwrap_or_default(), "{}", path.display());
    }
}
