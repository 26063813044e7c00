use std::{future::poll_fn, task::Poll};

use tokio::task::{LocalSet, spawn_local, yield_now};

use super::*;

type Held = Rc<RefCell<Option<Guest>>>;

/// A client that is silent, and ends when it is told to; its guest can be seen from outside.
fn client(guests: &Rc<Guests>) -> Held {
    let held = Rc::new(RefCell::new(None));
    let inside = Rc::clone(&held);
    guests.add(|guest| {
        *inside.borrow_mut() = Some(guest);
        struct Gone(Held);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.borrow_mut().take();
            }
        }
        let gone = Gone(Rc::clone(&inside));
        let task = spawn_local(async move {
            poll_fn(|cx| {
                let leaves = gone.0.borrow().as_ref().is_none_or(|guest| guest.leaves(cx));
                if leaves { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        task.abort_handle()
    });
    held
}

fn tell(held: &Held, what: impl FnOnce(&Guest)) {
    what(held.borrow().as_ref().unwrap());
}

async fn who_stays<const N: usize>(clients: [&Held; N]) -> [bool; N] {
    yield_now().await;
    yield_now().await;
    clients.map(|held| held.borrow().is_some())
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_quiet_one_ends_first_and_only_after_a_while() {
    let test = async {
        let guests = Rc::new(Guests::default());
        let [first, second, third] = [client(&guests), client(&guests), client(&guests)];
        assert!(!guests.make_room(), "they have just come");
        tell(&first, Guest::busy);
        pass(GRACE / 2).await;
        tell(&third, Guest::busy);
        tell(&third, |guest| guest.quiet(Instant::now()));
        yield_now().await;
        pass(GRACE).await;
        let late = client(&guests);
        assert!(guests.make_room());
        assert_eq!(who_stays([&first, &second, &third, &late]).await, [true, false, true, true]);
        assert!(guests.make_room());
        assert_eq!(who_stays([&first, &second, &third, &late]).await, [true, false, false, true]);
        assert!(!guests.make_room(), "one is busy, and one has just come");
        pass(GRACE).await;
        assert!(guests.make_room());
        assert_eq!(who_stays([&first, &late]).await, [true, false]);
        assert_eq!(guests.all.borrow().len(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_finish_is_spared_longer_and_who_went_on_is_left_alone() {
    let test = async {
        let guests = Rc::new(Guests::default());
        let clients: Vec<_> = (0..3).map(|_| client(&guests)).collect();
        let [half, quiet, other] = [&clients[0], &clients[1], &clients[2]];
        tell(half, |guest| guest.half(Instant::now()));
        pass(HALF - GRACE / 2).await;
        tell(quiet, Guest::busy);
        tell(other, Guest::busy);
        tell(quiet, |guest| guest.quiet(Instant::now()));
        tell(other, |guest| guest.quiet(Instant::now()));
        pass(GRACE).await;
        assert!(guests.make_room());
        assert_eq!(who_stays([half, quiet, other]).await, [true, false, true]);
        // It was found, too, and has gone on meanwhile.
        tell(other, Guest::busy);
        assert!(guests.make_room());
        assert_eq!(who_stays([half, quiet, other]).await, [false, false, true]);
        assert!(!guests.make_room());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_at_the_last_moment_stays_and_may_be_asked_again() {
    let test = async {
        let guests = Rc::new(Guests::default());
        let held: Held = Rc::new(RefCell::new(None));
        let (inside, spoke) = (Rc::clone(&held), Rc::new(Cell::new(true)));
        let unread = Rc::clone(&spoke);
        guests.add(|guest| {
            guest.busy();
            guest.quiet(Instant::now());
            *inside.borrow_mut() = Some(guest);
            let task = spawn_local(async move {
                poll_fn(|cx| {
                    let held = inside.borrow();
                    let guest = held.as_ref().unwrap();
                    match guest.leaves(cx) {
                        true if unread.take() => guest.stays(cx),
                        true => return Poll::Ready(()),
                        false => {}
                    }
                    Poll::Pending
                })
                .await;
                inside.borrow_mut().take();
            });
            task.abort_handle()
        });
        yield_now().await;
        pass(GRACE).await;
        assert!(guests.make_room());
        assert_eq!((who_stays([&held]).await, spoke.get()), ([true], false));
        pass(LOOKS.1).await;
        assert!(guests.make_room(), "it is found again");
        assert_eq!(who_stays([&held]).await, [false]);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_the_longest_quiet_ones_are_found_at_once() {
    let test = async {
        let guests = Rc::new(Guests::default());
        let mut clients = Vec::new();
        for _ in 0..3 * FOUND {
            clients.push(client(&guests));
            pass(Duration::from_millis(1)).await;
        }
        pass(GRACE).await;
        for ended in 1..=2 * FOUND {
            pass(LOOKS.0).await;
            assert!(guests.make_room());
            yield_now().await;
            yield_now().await;
            let left: Vec<_> = clients.iter().map(|held| held.borrow().is_some()).collect();
            assert!(left[..ended].iter().all(|stays| !stays) && left[ended..].iter().all(|stays| *stays));
        }
        assert!(guests.all.borrow().iter().enumerate().all(|(index, taken)| taken.index.get() == index));
    };
    LocalSet::new().run_until(test).await;
}
