//! The two figures that do not swing: user instructions (callgrind) and system calls (strace) per request.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    contender::{self, Kind, LOAD_CORE, Routes},
    load::{self, Plan, Until},
    process,
};

/// User instructions per request: the difference of two runs of different length, so that starting costs nothing.
pub(crate) fn instructions(
    kind: Kind,
    routes: Routes,
    directory: &Path,
    upstream: u16,
    plan: &Plan,
    scale: u64,
) -> io::Result<f64> {
    let (few, many) = (500, 500 + 2_000 * scale);
    let short = total_instructions(kind, routes, directory, upstream, plan, few)?;
    let long = total_instructions(kind, routes, directory, upstream, plan, many)?;
    Ok((long.0 - short.0) / (long.1 - short.1) as f64)
}

fn total_instructions(
    kind: Kind,
    routes: Routes,
    directory: &Path,
    upstream: u16,
    plan: &Plan,
    requests: u64,
) -> io::Result<(f64, u64)> {
    let out = directory.join("callgrind");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out)?;
    let wrapper = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        // Processes that split off are counted; programs that are started, such as a backend, are not.
        "--trace-children=no".to_owned(),
        format!("--callgrind-out-file={}/%p", out.display()),
    ];
    let mut running = contender::start(kind, directory, upstream, routes, &wrapper)?;
    let outcome = load::drive(running.port, plan, Until::Requests(requests))?;
    running.end();
    let mut total = 0.0;
    for file in fs::read_dir(&out)?.flatten() {
        let text = fs::read_to_string(file.path())?;
        let counts = text.lines().filter_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
        total += counts.filter_map(|count| count.trim().parse::<f64>().ok()).fold(0.0, f64::max);
    }
    Ok((total, outcome.done))
}

/// System calls per request, counted while the load runs.
pub(crate) fn system_calls(kind: Kind, directory: &Path, upstream: u16, plan: &Plan, scale: u64) -> io::Result<f64> {
    let running = contender::start(kind, directory, upstream, Routes::Fixed(10), &[])?;
    load::drive(running.port, plan, Until::Requests(500))?;
    let out = directory.join("strace");
    let _ = fs::remove_file(&out);
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "strace", "-f", "-c", "-o"]).arg(&out);
    for pid in process::tree(running.pid()) {
        command.args(["-p", &pid.to_string()]);
    }
    let mut tracer = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_until_traced(running.pid())?;
    let outcome = load::drive(running.port, plan, Until::Requests(5_000 * scale))?;
    Command::new("kill").args(["-INT", &tracer.id().to_string()]).status()?;
    tracer.wait()?;
    let text = fs::read_to_string(&out)?;
    let total = text.lines().rfind(|line| line.ends_with(" total")).unwrap_or_default();
    // Columns: share, seconds, microseconds a call, calls, errors where there were any.
    let calls: f64 = total.split_whitespace().nth(3).and_then(|calls| calls.parse().ok()).unwrap_or(f64::NAN);
    Ok(calls / outcome.done as f64)
}

/// Waits until every process of the tree is under the tracer.
fn wait_until_traced(pid: u32) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let untraced = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains("TracerPid:\t0\n"))
    };
    while process::tree(pid).iter().any(untraced) {
        if Instant::now() > deadline {
            return Err(io::Error::other("strace did not attach"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
