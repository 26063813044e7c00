//! The task that has certificates got and renewed as the settings want it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{dns_secrets::secret_variables, manager::Manager};
use crate::{
    model::Settings,
    net::{Certificates, Wish, use_one_provider},
    provider::still_secret,
};

/// Where certificates can not be kept, that is tried again after so long.
const BROKEN: Duration = Duration::from_secs(60);

/// Gets and renews certificates for as long as the settings ask for it.
#[derive(Debug)]
pub struct Acme {
    state_dir: PathBuf,
    certificates: Arc<Certificates>,
    settings: watch::Receiver<Arc<Settings>>,
    wishes: mpsc::Receiver<Wish>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// None is asked for.
    Off,
    /// What is got could not be kept.
    Broken,
    On(Box<Manager>),
}

impl Acme {
    /// Shows the certificates that are kept. Nothing is ordered before it runs.
    pub fn open(state_dir: PathBuf, certificates: Arc<Certificates>, settings: watch::Receiver<Arc<Settings>>) -> Self {
        use_one_provider();
        let wishes = certificates.wishes();
        let mut acme = Self { state_dir, certificates, settings, wishes, work: Work::Off };
        acme.begin();
        acme
    }

    /// Works until the end.
    pub async fn run(mut self, end: CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                goes_on = self.work() => if !goes_on { return },
            }
            self.begin();
        }
    }

    /// Takes the settings as they are now.
    fn begin(&mut self) {
        // What was under way ends before anything else begins.
        self.work = Work::Off;
        let wanted = self.settings.borrow_and_update().tls.acme.clone();
        still_secret(&secret_variables(wanted.as_ref()));
        self.work = match wanted {
            None => {
                self.certificates.set_from_authority(Vec::new(), Vec::new());
                Work::Off
            }
            Some(wanted) => match Manager::open(&self.state_dir, wanted, Arc::clone(&self.certificates)) {
                Ok(manager) => Work::On(Box::new(manager)),
                Err(error) => {
                    tracing::error!(%error, "certificates can not be kept in the state directory: none are got");
                    Work::Broken
                }
            },
        };
        self.certificates.set_demand(matches!(self.work, Work::On(_)));
    }

    /// Works until that is to be begun anew; says whether it ever will be.
    async fn work(&mut self) -> bool {
        let Self { settings, wishes, .. } = self;
        match &mut self.work {
            Work::Off => tokio::select! {
                changed = settings.changed() => changed.is_ok(),
                () = decline(wishes) => false,
            },
            Work::Broken => tokio::select! {
                changed = tokio::time::timeout(BROKEN, settings.changed()) => changed.unwrap_or(Ok(())).is_ok(),
                () = decline(wishes) => false,
            },
            Work::On(manager) => loop {
                tokio::select! {
                    () = manager.work(wishes) => return false,
                    Ok(()) = settings.changed() => {
                        let now = settings.borrow().tls.acme.clone();
                        match now.filter(|now| manager.is_by(now)) {
                            Some(now) => manager.moved_to(now.place),
                            None => return true,
                        }
                    }
                }
            },
        }
    }
}

/// Nothing comes of a wish: whoever waits for it is told at once.
async fn decline(wishes: &mut mpsc::Receiver<Wish>) {
    while wishes.recv().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::oneshot;

    use super::{
        super::manager::samples::{in_line, none, settings},
        *,
    };

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_certificate_that_nobody_gets_is_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("certificates"), "in the way").unwrap();
        let (_send, receive) = watch::channel(Arc::default());
        let mut acme = Acme::open(directory.path().to_owned(), none(), receive);
        let (wish, wishes) = mpsc::channel(1);
        acme.wishes = wishes;
        for work in [Work::Off, Work::Broken] {
            acme.work = work;
            let (done, told) = oneshot::channel();
            wish.try_send(Wish { host: "app.test".to_owned(), done: Some(done) }).unwrap();
            tokio::select! {
                _ = acme.work() => panic!("nothing has changed"),
                told = tokio::time::timeout(Duration::from_secs(1), told) => {
                    told.expect("its handshake is held").unwrap_err();
                }
            }
        }
    }

    #[tokio::test]
    async fn a_state_directory_that_was_not_to_be_used_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("certificates"), "in the way").unwrap();
        let with = |line| {
            let tls = crate::model::TlsSettings { acme: Some(settings(in_line(line))), ..Default::default() };
            Arc::new(Settings { tls, ..Settings::default() })
        };
        let (send, receive) = watch::channel(with(3));
        let mut acme = Acme::open(directory.path().to_owned(), none(), receive);
        assert!(matches!(acme.work, Work::Broken));
        fs::remove_file(directory.path().join("certificates")).unwrap();
        send.send(with(4)).unwrap();
        assert!(acme.work().await);
        acme.begin();
        assert!(matches!(acme.work, Work::On(_)));
    }
}
