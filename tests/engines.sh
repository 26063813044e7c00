#!/usr/bin/env bash
# Private Docker engines for the tests. Each one lives in namespaces (network, mounts, host name) and a directory of its
# own, so that it neither sees nor disturbs an engine that the machine already has, nor the engines of a second run.
#
#   tests/engines.sh with COMMAND...    make the engines, run COMMAND on the first one's machine, take everything down
#   tests/engines.sh sweep              take down what a run that was killed has left behind
#
# and, inside `with`, about one engine by its name (`main`, or `spare` for tests that harm their engine):
#
#   tests/engines.sh start NAME [live-restore]   start its daemon (again)
#   tests/engines.sh stop NAME                   end its daemon in order
#   tests/engines.sh crash NAME                  kill -9 its daemon and its containerd
#
# COMMAND and everything below it find in their environment:
#
#   DORMOUSE_TEST_DOCKER         unix://… of the engine `main`, whose network namespace they run in
#   DORMOUSE_TEST_DOCKER_SPARE   unix://… of the engine `spare`; its containers are reached by a route
#   DORMOUSE_TEST_ENGINES        this file
#   DORMOUSE_TEST_RUN            the directory of the run
#
# Needs root, and dockerd, iproute2, iptables, util-linux, procps, curl and a static busybox. Sourced, it only defines the
# functions: `engines_up`, `engines_env`, `on_main`, `engines_down`, `engines_sweep`.

ENGINES_SELF=$(readlink -f "${BASH_SOURCE[0]}")
ENGINES_RUNS=${TMPDIR:-/tmp}/dormouse-engines

# Waits until a command succeeds: wait_until SECONDS COMMAND...
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "gave up waiting for: $*" >&2; return 1; }
    sleep 0.05
  done
}

# Names follow from the directory of the run alone, so that every process of the run finds them again.
engine_dir() { echo "$DORMOUSE_TEST_RUN/$1"; }
engine_space() { echo "$(basename "$DORMOUSE_TEST_RUN")-$1"; }
engine_socket() { echo "$(engine_dir "$1")/docker.sock"; }
engine_answers() { curl -sf --max-time 2 --unix-socket "$(engine_socket "$1")" http://docker/_ping; }
engine_pid() { cat "$(engine_dir "$1")/docker.pid" 2>/dev/null; }

# Is this process the daemon of that engine? A pid from a file may long belong to somebody else.
is_daemon_of() { # PID NAME
  [ -n "$1" ] && { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF -- "dockerd --config-file $(engine_dir "$2")/"
}

# Runs a command in the network namespace of an engine; mounts and names stay the caller's.
on_engine() { # NAME COMMAND...
  local name=$1
  shift
  nsenter --net="/run/netns/$(engine_space "$name")" -- "$@"
}
on_main() { on_engine main "$@"; }

# The machine of an engine: a network namespace with a loopback, and a process that does nothing but keep a mount and a
# host-name namespace. These outlive the daemon, since a daemon that returns finds its living containers only where their
# root file systems are mounted. In them /sys shows the machine's own network, the cgroups are the host's, and a containerd
# of the host is out of sight: the engine starts one of its own.
machine_up() { # NAME
  local dir space
  dir=$(engine_dir "$1") space=$(engine_space "$1")
  mkdir -p "$dir/cgroup" && ip netns add "$space" && on_engine "$1" ip link set lo up || return 1
  setsid unshare --mount --uts --propagation private sh -ec '
    cd "$1"
    hostname "$2"
    mount --rbind /sys/fs/cgroup cgroup
    nsenter --net="/run/netns/$2" mount -t sysfs sysfs /sys
    mount --rbind cgroup /sys/fs/cgroup
    [ ! -d /run/containerd ] || mount -t tmpfs tmpfs /run/containerd
    echo $$ >keeper
    exec sleep infinity
  ' machine "$dir" "$space" >>"$dir/log" 2>&1 </dev/null &
  disown
  wait_until 10 test -s "$dir/keeper" || { cat "$dir/log" >&2; return 1; }
}

# Joins the spare machine to the main one, so that a proxy on the main one reaches the containers of both.
machines_join() {
  on_main ip link add spare type veth peer name eth0 netns "$(engine_space spare)" &&
    on_main ip addr add 10.231.0.1/30 dev spare &&
    on_main ip link set spare up &&
    on_main ip route add 10.231.2.0/24 via 10.231.0.2 &&
    on_engine spare ip addr add 10.231.0.2/30 dev eth0 &&
    on_engine spare ip link set eth0 up &&
    on_engine spare ip route add default via 10.231.0.1
}

# The daemon's settings. Everything is stated here and nowhere else: a machine's own /etc/docker/daemon.json has no say.
engine_settings() { # NAME LIVE_RESTORE
  local dir subnet iptables
  dir=$(engine_dir "$1")
  # The spare engine writes no packet filter: its containers are to be reached from the main machine.
  case $1 in main) subnet=1 iptables=true ;; *) subnet=2 iptables=false ;; esac
  cat <<JSON
{
  "data-root": "$dir/data",
  "exec-root": "$dir/exec",
  "pidfile": "$dir/docker.pid",
  "hosts": ["unix://$(engine_socket "$1")"],
  "bip": "10.231.$subnet.1/24",
  "default-address-pools": [{ "base": "10.231.$((subnet * 64)).0/18", "size": 24 }],
  "iptables": $iptables,
  "ip-masq": $iptables,
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "cgroup-parent": "/$(engine_space "$1")",
  "live-restore": $2,
  "shutdown-timeout": 1
}
JSON
}

engine_shims() { pgrep -f -- "containerd-shim.* -address $(engine_dir "$1")/exec/"; }

# A daemon that is killed while it starts a container forgets what it has begun: a process that never runs, in a network
# whose address the returning daemon gives to somebody else, so that two answer for it. Ends what was left of earlier
# daemons and is not among the containers that this one runs.
engine_forgotten() { # NAME SHIM...
  local running shim id
  running=$(curl -sf --max-time 10 --unix-socket "$(engine_socket "$1")" http://docker/containers/json) || return 1
  shift
  for shim in "$@"; do
    id=$(tr '\0' '\n' 2>/dev/null <"/proc/$shim/cmdline" | sed -n '/^-id$/{n;p;}')
    [ -n "$id" ] || continue
    case $running in *"\"Id\":\"$id\""*) continue ;; esac
    pkill -9 -P "$shim"
    kill -9 "$shim" 2>/dev/null
  done
  return 0
}

# Starts the daemon. With a session of its own it outlives a Ctrl-C at the terminal; the trap of the run ends it.
engine_start() { # NAME [live-restore]
  local name=$1 live=false dir shims
  [ "${2:-}" = live-restore ] && live=true
  dir=$(engine_dir "$name")
  is_daemon_of "$(engine_pid "$name")" "$name" && { echo "engine $name runs already" >&2; return 1; }
  rm -f "$dir/docker.pid" "$dir/exec/containerd/containerd.pid" "$(engine_socket "$name")"
  engine_settings "$name" "$live" >"$dir/daemon.json"
  shims=$(engine_shims "$name")
  DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1 setsid \
    nsenter --target "$(cat "$dir/keeper")" --mount --uts --root --net="/run/netns/$(engine_space "$name")" \
    dockerd --config-file "$dir/daemon.json" >>"$dir/log" 2>&1 </dev/null &
  disown
  wait_until 60 engine_answers "$name" || { echo "the log of engine $name ends:" >&2; tail -20 "$dir/log" >&2; return 1; }
  # shellcheck disable=SC2086 # one word each
  engine_forgotten "$name" $shims
}

# Ends the daemon in order and waits for it.
engine_stop() { # NAME
  local pid
  pid=$(engine_pid "$1")
  is_daemon_of "$pid" "$1" || return 0
  kill "$pid" 2>/dev/null
  for _ in $(seq 300); do
    is_daemon_of "$pid" "$1" || return 0
    sleep 0.1
  done
  return 1
}

# Kills the daemon and its containerd as a power cut would, and leaves the containers to their fate.
engine_crash() { # NAME
  local pid
  pid=$(engine_pid "$1")
  is_daemon_of "$pid" "$1" || { echo "engine $1 does not run" >&2; return 1; }
  kill -9 "$pid"
  pkill -9 -f -- "--config $(engine_dir "$1")/exec/containerd/" || :
  wait_until 10 not_daemon_of "$pid" "$1"
}
not_daemon_of() { ! is_daemon_of "$@"; }

# Ends an engine and everything that belongs to it, whatever state it is in, at once: an orderly end would wait for each
# container that is deaf to SIGTERM. Processes are found by the engine's own directory, never by a broad name. Repeatable.
engine_down() { # NAME
  local name=$1 dir space file shim pid
  dir=$(engine_dir "$name") space=$(engine_space "$name")
  # A frozen container cannot even be killed on cgroup v1: thaw first.
  find "/sys/fs/cgroup/freezer/$space" -name freezer.state 2>/dev/null | while read -r file; do echo THAWED >"$file"; done
  find "/sys/fs/cgroup/$space" -name cgroup.freeze 2>/dev/null | while read -r file; do echo 0 >"$file"; done
  pid=$(engine_pid "$name")
  is_daemon_of "$pid" "$name" && kill -9 "$pid"
  for shim in $(engine_shims "$name"); do pkill -9 -P "$shim"; done
  sleep 0.2
  pkill -9 -f -- "(-address|--config) $dir/exec/"
  sleep 0.2
  # The mounts are in the keeper's namespace and go with it.
  pid=$(cat "$dir/keeper" 2>/dev/null)
  [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$dir" ] && kill -9 "$pid"
  ip netns del "$space" 2>/dev/null
  find /sys/fs/cgroup -depth -type d -path "*/$space*" -exec rmdir {} \; 2>/dev/null
  rm -rf "$dir"
}

# Makes the engines of a run. The directory's name carries our pid, so that `sweep` knows whether the run still lives.
engines_up() {
  mkdir -p "$ENGINES_RUNS"
  DORMOUSE_TEST_RUN=$(mktemp -d "$ENGINES_RUNS/dmt$$-XXXX") || return 1
  export DORMOUSE_TEST_RUN
  local name
  for name in main spare; do machine_up "$name" || return 1; done
  machines_join || return 1
  for name in main spare; do engine_start "$name" || return 1; done
}

engines_env() {
  export DORMOUSE_TEST_DOCKER="unix://$(engine_socket main)"
  export DORMOUSE_TEST_DOCKER_SPARE="unix://$(engine_socket spare)"
  export DORMOUSE_TEST_ENGINES=$ENGINES_SELF
}

engines_down() {
  [ -n "${DORMOUSE_TEST_RUN:-}" ] || return 0
  engine_down spare
  engine_down main
  rm -rf "$DORMOUSE_TEST_RUN"
  rmdir "$ENGINES_RUNS" 2>/dev/null
  unset DORMOUSE_TEST_RUN
}

# Takes down the engines of runs whose process is gone.
engines_sweep() {
  local run pid
  for run in "$ENGINES_RUNS"/dmt*; do
    [ -d "$run" ] || continue
    pid=${run##*/dmt} pid=${pid%%-*}
    kill -0 "$pid" 2>/dev/null && continue
    echo "taking down what the run of process $pid left behind"
    DORMOUSE_TEST_RUN=$run
    engines_down
  done
}

engines_with() {
  local status child=
  trap 'set +e; [ -z "$child" ] || kill "$child" 2>/dev/null; engines_down' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  engines_sweep
  engines_up || exit 1
  engines_env
  on_main "$@" &
  child=$!
  wait "$child"
  status=$? child=
  exit "$status"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -u
  verb=${1:-}
  [ $# -gt 0 ] && shift
  case $verb in
    with) engines_with "$@" ;;
    sweep) engines_sweep ;;
    start | stop | crash)
      [ -d "${DORMOUSE_TEST_RUN:-}" ] || { echo "only inside \`tests/engines.sh with\`" >&2; exit 2; }
      "engine_$verb" "$@"
      ;;
    *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
fi
