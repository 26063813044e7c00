//! The gate by itself.

use super::*;

#[test]
fn a_closed_gate_admits_nobody_and_an_open_one_counts() {
    let gate = Gate::closed(0);
    assert_eq!(gate.enter(), Entered::Closed);
    gate.open();
    assert_eq!(gate.enter(), Entered::Inside);
    assert_eq!(gate.inside(), 1);
    assert_eq!(gate.close(), 1);
    assert_eq!(gate.enter(), Entered::Closed);
    assert!(gate.leave(Some(7)), "the last one out of a closed gate is reported");
    assert_eq!(gate.last_left(), 7);
}

#[test]
fn quiet_leavers_leave_no_stamp() {
    let gate = Gate::closed(3);
    gate.open();
    assert_eq!(gate.enter(), Entered::Inside);
    assert!(!gate.leave(None), "nobody watches an open gate unless asked");
    assert_eq!(gate.last_left(), 3);
    assert_eq!(gate.enter(), Entered::Inside);
    assert_eq!(gate.watch(), 1);
    assert!(gate.leave(Some(9)));
}
