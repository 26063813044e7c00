//! What a file says of a backend, put over what its container says of itself.

use crate::{
    config::Written,
    model::{BackendSpec, IdlePolicy},
};

/// Sets what is written in a file, also where it equals the default, and leaves the rest to the container's labels.
/// Without a word of what is written, everything is.
pub(super) fn put_over(found: &mut BackendSpec, file: BackendSpec, written: Option<&Written>) {
    let has = |key: &str| written.is_none_or(|written| written.has(key));
    put_policy_over(&mut found.policy, file.policy, &has);
    if has("ready") {
        found.ready = file.ready;
    }
    if has("depends_on") {
        found.depends_on = file.depends_on;
    }
    found.unit.network = file.unit.network.or(found.unit.network.take());
    found.unit.command = file.unit.command.or(found.unit.command.take());
}

/// Field by field; the pattern names all, so that a new setting can not be forgotten here.
fn put_policy_over(found: &mut IdlePolicy, file: IdlePolicy, has: &dyn Fn(&str) -> bool) {
    macro_rules! fields {
        ($($field:ident),* $(,)?) => {{
            let IdlePolicy { idle_timeout, dependency_only, $($field),* } = file;
            // One setting of the file: a negative idle timeout makes a dependency.
            if has("idle_timeout") {
                (found.idle_timeout, found.dependency_only) = (idle_timeout, dependency_only);
            }
            $(if has(stringify!($field)) { found.$field = $field; })*
        }};
    }
    fields!(
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
