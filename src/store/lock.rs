//! One process for each state directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Another process works in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "state directory `{}` is in use by another running dormouse\nhint: stop that one, or give this one a directory of its own",
    .0.display()
)]
pub struct StateInUse(pub PathBuf);

/// The lock; freed when it is dropped, and by the kernel when the process ends in whatever way.
#[derive(Debug)]
pub(super) struct Lock(File);

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum NoLock {
    /// Somebody else has it.
    InUse(StateInUse),
    /// It can not be tried.
    Failed(io::Error),
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, NoLock> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"));
        let file = file.map_err(NoLock::Failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(NoLock::InUse(StateInUse(dir.to_owned()))),
            Err(TryLockError::Error(error)) => Err(NoLock::Failed(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that is just being started holds a copy of the file until it runs its own program: closing ours
        // alone would not free the lock.
        let _ = self.0.unlock();
    }
}
