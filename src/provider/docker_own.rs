//! The container that we ourselves run in.

use std::fs;

/// Files that engines mount into a container from a directory named after its id.
const TELLING: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// The id of the container around us; absent outside of one, or in one whose engine keeps it to itself.
pub fn own_container() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    around(&mounts).map(str::to_owned)
}

/// The id of the container around a process that sees these mounts.
pub(super) fn around(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !TELLING.contains(&point) {
            return None;
        }
        root.split('/').find(|part| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_of_a_container_tell_its_id() {
        let id = "4f".repeat(32);
        let docker = format!("700 1 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda1 rw");
        assert_eq!(around(&docker), Some(id.as_str()));
        let podman = format!("70 1 0:9 /containers/overlay-containers/{id}/userdata/hosts /etc/hosts rw - tmpfs t rw");
        assert_eq!(around(&podman), Some(id.as_str()));
    }

    #[test]
    fn the_mounts_of_a_machine_with_an_engine_tell_nothing() {
        let id = "4f".repeat(32);
        let machine = format!(
            "36 1 8:1 / / rw - ext4 /dev/sda1 rw\n99 36 0:4 / /var/lib/docker/containers/{id}/shm rw - tmpfs t rw"
        );
        assert_eq!(around(&machine), None);
        assert_eq!(around("36 1 8:1 /run/resolv.conf /etc/resolv.conf rw - tmpfs t rw\nshort"), None);
    }
}
