//! This program as the one layer of a container image: itself, and the shared libraries that it was started with.
//!
//! Which ones those are is read from the program's own memory map, so that nothing has to be resolved anew; a static
//! program has none. The loader goes where the program's own header asks for it, the libraries to one directory that
//! `LD_LIBRARY_PATH` names.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Where the program is in the image.
pub const PROGRAM: &str = "/dormouse";
/// What the image has in its environment.
pub const ENVIRONMENT: [&str; 1] = ["LD_LIBRARY_PATH=/lib"];

/// The layer, an archive in the form of `tar`.
pub fn layer() -> io::Result<Vec<u8>> {
    let program = fs::read("/proc/self/exe")?;
    let mut files = BTreeMap::new();
    let maps = fs::read_to_string("/proc/self/maps")?;
    let own = fs::read_link("/proc/self/exe")?;
    let loader = loader(&program).map(|path| path.trim_start_matches('/').to_owned());
    for library in libraries(&maps, &own) {
        let bytes = fs::read(&library)?;
        for name in names(&library) {
            files.insert(format!("lib/{name}"), bytes.clone());
        }
    }
    if let Some(loader) = loader {
        files.insert(loader.clone(), fs::read(format!("/{loader}"))?);
    }
    files.insert(PROGRAM.trim_start_matches('/').to_owned(), program);
    archive(&files)
}

/// Files of which code is mapped, other than the program.
fn libraries(maps: &str, own: &Path) -> Vec<PathBuf> {
    let mapped = maps.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (_, rights) = (fields.next()?, fields.next()?);
        let path = fields.nth(3).filter(|path| path.starts_with('/') && rights.contains('x'))?;
        Some(PathBuf::from(path)).filter(|path| path != own)
    });
    let mut found: Vec<_> = mapped.collect();
    found.dedup();
    found
}

/// Its names in its directory: its own, and those of links to it, one of which the program asks for.
fn names(library: &Path) -> Vec<String> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let beside = library.parent().and_then(|directory| fs::read_dir(directory).ok());
    let links =
        beside.into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let same = links.map(|entry| entry.path()).filter(|link| fs::canonicalize(link).is_ok_and(|to| to == library));
    same.chain([library.to_owned()]).filter_map(|path| name(&path)).collect()
}

/// The loader that a program of 64 bits in this machine's byte order asks for (ELF, `PT_INTERP`); a static one has none.
fn loader(program: &[u8]) -> Option<&str> {
    const INTERPRETER: u64 = 3;
    let number = |at: usize, width: usize| {
        let bytes = program.get(at..at + width)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let place = |at: usize, width: usize| usize::try_from(number(at, width)?).ok();
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (place(32, 8)?, place(54, 2)?, place(56, 2)?);
    let header = (0..count).map(|index| table + index * size).find(|at| number(*at, 4) == Some(INTERPRETER))?;
    let (begin, length) = (place(header + 8, 8)?, place(header + 32, 8)?);
    std::str::from_utf8(program.get(begin..begin + length)?).ok().map(|path| path.trim_end_matches('\0'))
}

/// A `tar` archive (POSIX `ustar`) of files that everybody may read and run.
fn archive(files: &BTreeMap<String, Vec<u8>>) -> io::Result<Vec<u8>> {
    const BLOCK: usize = 512;
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        if name.len() > 100 {
            return Err(io::Error::other(format!("the name `{name}` is too long for the image")));
        }
        put(0, name.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        // The sum is taken with spaces in its own place.
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_memory_map() {
        let maps = "5581-5582 r--p 00000000 fe:01 17 /usr/bin/dormouse\n\
                    5582-5583 r-xp 00001000 fe:01 17 /usr/bin/dormouse\n\
                    7f01-7f02 r--p 00000000 fe:01 18 /usr/lib/libc.so.6\n\
                    7f02-7f03 r-xp 00001000 fe:01 18 /usr/lib/libc.so.6\n\
                    7f04-7f05 rw-s 00000000 00:05 19 /dev/zero\n\
                    7f06-7f07 rw-p 00000000 00:00 0\n\
                    7f08-7f09 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(libraries(maps, Path::new("/usr/bin/dormouse")), [Path::new("/usr/lib/libc.so.6")]);
    }

    #[test]
    fn what_is_packed_is_read_by_tar() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("layer.tar");
        fs::write(&file, layer().unwrap()).unwrap();
        let tar = |words: &[&str]| {
            let output = std::process::Command::new("tar").args(words).arg("-f").arg(&file).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let listed = tar(&["-t"]);
        assert!(listed.lines().any(|name| name == "dormouse"), "{listed}");
        // What runs these tests has a loader exactly when it is not static.
        let program = fs::read("/proc/self/exe").unwrap();
        let wanted = loader(&program).map(|path| path.trim_start_matches('/').to_owned());
        assert!(wanted.is_none_or(|wanted| listed.lines().any(|name| name == wanted)), "{listed}");
        tar(&["-x", "-C", &directory.path().to_string_lossy()]);
        assert_eq!(fs::read(directory.path().join("dormouse")).unwrap(), program);
    }
}
