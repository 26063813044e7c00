//! What the health checks of an endpoint have found.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::model::{Endpoint, HealthCheck, RouteSpec, RouteTarget};

/// How an endpoint fares, as far as its checks tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HealthState {
    /// It has not been checked since it woke.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It has failed as often as it may.
    Unhealthy,
}

impl HealthState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What the last checks have found. Pure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// What follows from them.
    pub state: HealthState,
    /// Failures in a row.
    pub failures: u32,
    /// What the last failure was.
    pub why: Option<String>,
}

impl Checked {
    /// After one more check, of which so many may fail in a row.
    #[must_use]
    pub fn after(&self, outcome: Result<(), String>, retries: u32) -> Self {
        let Err(why) = outcome else { return Self { state: HealthState::Healthy, ..Self::default() } };
        let failures = self.failures.saturating_add(1);
        let state = if failures >= retries.max(1) { HealthState::Unhealthy } else { self.state };
        Self { state, failures, why: Some(why) }
    }
}

/// The health of an endpoint. Survives a reload that changes nothing of the check.
#[derive(Debug)]
pub struct Health {
    /// How it is checked.
    pub check: HealthCheck,
    target: (Option<Endpoint>, String),
    ill: AtomicBool,
    /// A std mutex: held for a copy, never across an await, and never by a request.
    checked: Mutex<Checked>,
}

impl Health {
    /// Of a route's endpoint, of which nothing is known; absent: it is not checked.
    pub(super) fn of(route: &RouteSpec) -> Option<Self> {
        let check = route.options.health.clone()?;
        Some(Self { check, target: target(route)?, ill: AtomicBool::new(false), checked: Mutex::default() })
    }

    /// Whether this is the health of the same endpoint, checked in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.check, &self.target) == (&other.check, &other.target)
    }

    /// Whether it has failed as often as it may. One look, without a lock.
    pub fn is_ill(&self) -> bool {
        self.ill.load(Ordering::Relaxed)
    }

    /// What is known.
    pub fn checked(&self) -> Checked {
        self.kept().clone()
    }

    /// Takes the outcome of a check. Returns what is known now, and whether the state is another than before.
    pub fn take(&self, outcome: Result<(), String>) -> (Checked, bool) {
        let mut kept = self.kept();
        let next = kept.after(outcome, self.check.retries);
        let changed = next.state != kept.state;
        *kept = next.clone();
        self.ill.store(next.state == HealthState::Unhealthy, Ordering::Relaxed);
        (next, changed)
    }

    /// It sleeps: nothing is known of it any more.
    pub fn forget(&self) {
        *self.kept() = Checked::default();
        self.ill.store(false, Ordering::Relaxed);
    }

    fn kept(&self) -> MutexGuard<'_, Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it is checked. What has no connections can not be.
fn target(route: &RouteSpec) -> Option<(Option<Endpoint>, String)> {
    let name = match &route.target {
        RouteTarget::Backend { id, endpoint } if endpoint.scheme.has_tcp() => id.to_string(),
        RouteTarget::Address { host, endpoint } if endpoint.scheme.has_tcp() => host.to_string(),
        RouteTarget::Backend { .. }
        | RouteTarget::Address { .. }
        | RouteTarget::Down { .. }
        | RouteTarget::Group(_) => {
            return None;
        }
    };
    Some((route.endpoint(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(outcomes: &[bool], retries: u32) -> Checked {
        let outcome = |ok: &bool| if *ok { Ok(()) } else { Err("no".to_owned()) };
        outcomes.iter().fold(Checked::default(), |checked, ok| checked.after(outcome(ok), retries))
    }

    #[test]
    fn so_many_failures_in_a_row_are_an_illness_and_one_answer_ends_it() {
        assert_eq!(after(&[], 3).state, HealthState::Unknown);
        assert_eq!(after(&[true], 3).state, HealthState::Healthy);
        assert_eq!(after(&[true, false, false], 3).state, HealthState::Healthy);
        assert_eq!(after(&[true, false, false, false], 3).state, HealthState::Unhealthy);
        assert_eq!(after(&[false, false], 3).state, HealthState::Unknown);
        assert_eq!(after(&[false, false, true, false], 3).state, HealthState::Healthy);
        assert_eq!(
            after(&[false, false, false, true], 3),
            Checked { state: HealthState::Healthy, ..Checked::default() }
        );
        for retries in [0, 1] {
            assert_eq!(after(&[false], retries).state, HealthState::Unhealthy);
        }
    }
}
