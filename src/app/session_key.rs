//! The key of the sessions of those who have logged in: kept, so that they outlive a restart.

use std::path::Path;

use super::sticky_key::write;
use crate::proxy::SessionKey;

/// The file in the state directory.
const FILE: &str = "session.key";

/// The kept key, or a new one that is kept from now on. Nothing where there is no chance to be had: one of this run
/// is made when it is needed.
pub(super) fn session_key(state_dir: &Path) -> Option<SessionKey> {
    let path = state_dir.join(FILE);
    if let Some(key) = std::fs::read_to_string(&path).ok().and_then(|text| SessionKey::read(&text)) {
        return Some(key);
    }
    let key = SessionKey::random()?;
    if let Err(error) = write(&path, &key.text()) {
        let path = path.display();
        tracing::warn!(%error, "`{path}` can not be written: who has logged in has to do so again after the next restart");
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_kept_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let text = || session_key(dir.path()).unwrap().text();
        let key = text();
        assert_eq!(text(), key);
        let file = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "nonsense").unwrap();
        let other = text();
        assert_ne!(other, key);
        assert_eq!(text(), other);
    }
}
