//! The two figures that do not swing: user instructions (callgrind) and system calls (strace) per request.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    contender::{self, Kind, LOAD_CORE, Routes, Running},
    load::{self, Plan, Until},
    process,
    wire::Ports,
};

/// What is counted: this contender under this load.
pub(crate) struct Load<'a> {
    pub(crate) kind: Kind,
    pub(crate) directory: &'a Path,
    pub(crate) upstream: u16,
    pub(crate) plan: &'a Plan,
}

impl Load<'_> {
    fn start(&self, routes: Routes, wrapper: &[String]) -> io::Result<Running> {
        contender::start(self.kind, self.directory, self.upstream, routes, wrapper)
    }

    fn drive(&self, ports: Ports, requests: u64) -> io::Result<u64> {
        load::drive(ports, self.plan, Until::Requests(requests)).map(|outcome| outcome.done)
    }
}

/// User instructions per request: the difference of two runs of different length, so that starting costs nothing.
pub(crate) fn instructions(load: &Load<'_>, routes: Routes, requests: u64) -> io::Result<f64> {
    let few = requests / 4;
    let short = total_instructions(load, routes, few)?;
    let long = total_instructions(load, routes, few + requests)?;
    Ok((long.0 - short.0) / (long.1 - short.1) as f64)
}

fn total_instructions(load: &Load<'_>, routes: Routes, requests: u64) -> io::Result<(f64, u64)> {
    let out = load.directory.join("callgrind");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out)?;
    let wrapper = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        // Processes that split off are counted; programs that are started, such as a backend, are not.
        "--trace-children=no".to_owned(),
        format!("--callgrind-out-file={}/%p", out.display()),
    ];
    let mut running = load.start(routes, &wrapper)?;
    let done = load.drive(running.ports, requests)?;
    running.end();
    let mut total = 0.0;
    for file in fs::read_dir(&out)?.flatten() {
        let text = fs::read_to_string(file.path())?;
        let counts = text.lines().filter_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
        total += counts.filter_map(|count| count.trim().parse::<f64>().ok()).fold(0.0, f64::max);
    }
    Ok((total, done))
}

/// System calls per request, counted while the load runs.
pub(crate) fn system_calls(load: &Load<'_>, requests: u64) -> io::Result<f64> {
    let running = load.start(Routes::Fixed(10), &[])?;
    load.drive(running.ports, requests / 4)?;
    let out = load.directory.join("strace");
    let _ = fs::remove_file(&out);
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "strace", "-f", "-c", "-o"]).arg(&out);
    for pid in process::tree(running.pid()) {
        command.args(["-p", &pid.to_string()]);
    }
    let mut tracer = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_until_traced(running.pid())?;
    let done = load.drive(running.ports, requests * 2)?;
    Command::new("kill").args(["-INT", &tracer.id().to_string()]).status()?;
    tracer.wait()?;
    let text = fs::read_to_string(&out)?;
    let total = text.lines().rfind(|line| line.ends_with(" total")).unwrap_or_default();
    // Columns: share, seconds, microseconds a call, calls, errors where there were any.
    let calls: f64 = total.split_whitespace().nth(3).and_then(|calls| calls.parse().ok()).unwrap_or(f64::NAN);
    Ok(calls / done as f64)
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
