//! The key of the cookies by which clients stay with their members: kept, so that they also stay across a restart.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::control::StickyKey;

/// The file in the state directory.
const FILE: &str = "sticky.key";

/// The kept key, or a new one that is kept from now on. Without a place to keep it there is one of this run alone.
pub(super) fn sticky_key(state_dir: &Path) -> StickyKey {
    let path = state_dir.join(FILE);
    if let Some(key) = std::fs::read_to_string(&path).ok().and_then(|text| StickyKey::read(&text)) {
        return key;
    }
    let key = StickyKey::random();
    if let Err(error) = write(&path, &key.text()) {
        let path = path.display();
        tracing::warn!(%error, "`{path}` can not be written: sticky clients lose their members at the next restart");
    }
    key
}

/// Writes a key into a file that nobody else reads.
pub(super) fn write(path: &Path, key: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let key = sticky_key(dir.path());
        assert_eq!(sticky_key(dir.path()), key);
        std::fs::write(dir.path().join(FILE), "nonsense").unwrap();
        let other = sticky_key(dir.path());
        assert_ne!(other, key);
        assert_eq!(sticky_key(dir.path()), other);
    }
}
