//! What a file says of a backend, put over what its container says of itself.

use crate::model::{BackendSpec, IdlePolicy, Readiness};

/// Sets what the file says (what differs from the defaults) and leaves the rest to the container's labels.
pub(super) fn put_over(found: &mut BackendSpec, file: BackendSpec, defaults: &IdlePolicy) {
    put_policy_over(&mut found.policy, file.policy, defaults);
    if file.ready != Readiness::Tcp {
        found.ready = file.ready;
    }
    if !file.depends_on.is_empty() {
        found.depends_on = file.depends_on;
    }
    found.ports.extend(file.ports);
    found.ports.sort_unstable();
    found.ports.dedup();
    found.unit.network = file.unit.network.or(found.unit.network.take());
    found.unit.command = file.unit.command.or(found.unit.command.take());
}

/// Field by field; the pattern names all, so that a new setting can not be forgotten here.
fn put_policy_over(found: &mut IdlePolicy, file: IdlePolicy, defaults: &IdlePolicy) {
    macro_rules! fields {
        ($($field:ident),* $(,)?) => {{
            let IdlePolicy { $($field),* } = file;
            $(if $field != defaults.$field { found.$field = $field; })*
        }};
    }
    fields!(
        idle_timeout,
        dependency_only,
        stop_method,
        stop_signal,
        stop_timeout,
        stop_after,
        wake_timeout,
        start_endpoint,
        waiting,
        settle,
        ignore,
        asleep_response,
        stream_idle,
        flow_timeout,
        min_uptime,
        schedule,
        busy,
        max_held,
        hold_timeout,
        drain_timeout,
        on_wake_timeout,
        wake_after_manual_stop,
    );
}
