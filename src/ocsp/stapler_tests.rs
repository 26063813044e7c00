use jiff::ToSpan;
use tempfile::TempDir;

use super::{
    super::samples::{Authority, Pem, Words, YEAR},
    *,
};
use crate::model::{Served, TlsSettings};

/// A task that is driven by hand.
struct Rig {
    directory: TempDir,
    authority: Authority,
    certificates: Arc<Certificates>,
    settings: watch::Sender<Arc<Settings>>,
}

impl Rig {
    fn new(shown: &[&Pem], authority: Authority) -> Self {
        let certificates = Arc::new(Certificates::new(Box::new(|_| Served::ByName), Box::new(|_| None)));
        let rig = Self {
            directory: tempfile::tempdir().unwrap(),
            authority,
            certificates,
            settings: watch::Sender::new(Arc::default()),
        };
        rig.show(shown);
        rig
    }

    fn show(&self, shown: &[&Pem]) {
        self.certificates.set_from_authority(shown.iter().map(|pem| pem.read()).collect(), Vec::new());
    }

    fn open(&self) -> Stapler {
        Stapler::open(self.directory.path(), Arc::clone(&self.certificates), self.settings.subscribe())
    }

    /// What is told of the first certificate.
    fn told(&self) -> Option<Arc<Stapling>> {
        self.certificates.all()[0].stapling()
    }

    fn is_stapled(&self) -> bool {
        self.told().is_some_and(|told| told.good_staple(Timestamp::now()).is_some())
    }

    fn problems(&self) -> String {
        self.certificates.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// An answer about the first certificate comes.
    fn answer(&self, stapler: &mut Stapler, words: &Words) {
        let of = self.certificates.all()[0].fingerprint;
        let question = stapler.watched[&of].question.clone().unwrap();
        let answer = self.authority.answer(&question, words);
        let verdict = judge(&answer, &question, Timestamp::now()).unwrap();
        stapler.answered(of, Ok((answer, verdict)));
    }

    fn fail(&self, stapler: &mut Stapler) {
        stapler.answered(self.certificates.all()[0].fingerprint, Err("it is away".to_owned()));
    }
}

/// Where nothing is asked.
const NOWHERE: &str = "http://127.0.0.1:1/";

fn asks(stapler: &mut Stapler) -> usize {
    stapler.begin_due();
    stapler.running.len()
}

fn one(must_staple: bool) -> (Rig, Pem) {
    let authority = Authority::new("ours");
    let pem = authority.pem("app.test", &[NOWHERE], must_staple, YEAR);
    (Rig::new(&[&pem], authority), pem)
}

#[tokio::test]
async fn what_is_heard_is_shown_and_kept_and_a_restart_asks_nobody() {
    let (rig, _) = one(true);
    let mut stapler = rig.open();
    assert!(!rig.is_stapled() && rig.problems().contains("there is none: its responder has not answered yet"));
    assert_eq!(asks(&mut stapler), 1);
    assert_eq!(asks(&mut stapler), 1, "it is under way");
    rig.answer(&mut stapler, &Words::good(-60, 7200));
    assert!(rig.is_stapled());
    assert_eq!(rig.problems(), "");
    drop(stapler);
    rig.certificates.set_stapling(HashMap::new());
    assert!(!rig.is_stapled());
    let mut again = rig.open();
    assert!(rig.is_stapled());
    assert_eq!(asks(&mut again), 0);
    let next = again.begin_due().unwrap();
    assert!(next > Duration::from_secs(3000) && next <= LOOK, "{next:?}");
}

#[tokio::test]
async fn what_is_kept_and_not_sound_is_not_shown() {
    let (rig, _) = one(false);
    let mut stapler = rig.open();
    rig.answer(&mut stapler, &Words::good(-60, 7200));
    let of = rig.certificates.all()[0].fingerprint;
    let mut kept = stapler.drawer.kept(of).unwrap();
    let last = kept.len() - 1;
    kept[last] ^= 1;
    stapler.drawer.keep(of, &kept);
    let mut again = rig.open();
    assert!(!rig.is_stapled());
    assert_eq!(asks(&mut again), 1);
}

#[tokio::test]
async fn failures_keep_the_last_answer_and_ask_ever_more_rarely() {
    let (rig, _) = one(false);
    let mut stapler = rig.open();
    rig.answer(&mut stapler, &Words::good(-60, 7200));
    rig.fail(&mut stapler);
    assert!(rig.is_stapled());
    assert_eq!(rig.told().unwrap().trouble.as_deref(), Some("it is away"));
    let first = stapler.begin_due().unwrap();
    for _ in 0..4 {
        rig.fail(&mut stapler);
    }
    let later = stapler.begin_due().unwrap();
    assert!(first < Duration::from_secs(60) && later > Duration::from_secs(400), "{first:?} {later:?}");
    assert_eq!(rig.problems(), "", "who need not staple is not warned of");
    rig.answer(&mut stapler, &Words::good(-30, 7200));
    assert_eq!(rig.told().unwrap().trouble, None);
}

#[tokio::test]
async fn a_revoked_one_is_told_and_nothing_is_shown_until_a_newer_answer_says_otherwise() {
    let (rig, _) = one(false);
    let mut stapler = rig.open();
    rig.answer(&mut stapler, &Words::good(-600, 7200));
    let revoked = Words::revoked(Timestamp::now() - 1.hour());
    rig.answer(&mut stapler, &Words { status: revoked, ..Words::good(-60, 7200) });
    assert!(!rig.is_stapled());
    let told = rig.problems();
    assert!(told.starts_with("error: host app.test: the certificate of `app.test` was revoked at 2"), "{told}");
    // Somebody repeats what was once true.
    rig.answer(&mut stapler, &Words::good(-600, 7200));
    assert!(!rig.is_stapled() && rig.problems().contains("was revoked"));
    let mut again = rig.open();
    assert!(!rig.is_stapled(), "the last good word is not kept");
    rig.answer(&mut again, &Words::good(-30, 7200));
    assert!(rig.is_stapled());
    assert_eq!(rig.problems(), "");
}

#[tokio::test]
async fn a_file_that_is_read_again_keeps_its_answer_and_a_new_certificate_gets_its_own() {
    let (rig, pem) = one(false);
    let mut stapler = rig.open();
    rig.answer(&mut stapler, &Words::good(-60, 7200));
    rig.show(&[&pem, &pem]);
    assert!(rig.is_stapled(), "before anybody has looked");
    stapler.look();
    assert!(rig.is_stapled());
    assert_eq!((stapler.watched.len(), asks(&mut stapler)), (1, 0));
    let renewed = rig.authority.pem("app.test", &[NOWHERE], false, YEAR);
    rig.show(&[&renewed]);
    assert!(!rig.is_stapled());
    stapler.look();
    assert_eq!(asks(&mut stapler), 1);
    rig.answer(&mut stapler, &Words::good(-60, 7200));
    assert!(rig.is_stapled());
    // What comes too late for one that is gone is nobody's.
    let gone = pem.read().fingerprint;
    stapler.answered(gone, Err("late".to_owned()));
    assert_eq!(stapler.watched.len(), 1);
}

#[tokio::test]
async fn nothing_is_asked_where_nobody_needs_it() {
    let authority = Authority::new("ours");
    let plain = authority.pem("plain.test", &[], false, YEAR);
    let over = authority.pem("over.test", &[NOWHERE], false, Duration::ZERO);
    let rig = Rig::new(&[&plain, &over], authority);
    let mut stapler = rig.open();
    assert_eq!(rig.told(), None);
    assert_eq!((stapler.begin_due(), stapler.running.len()), (None, 0));
}

#[tokio::test]
async fn switched_off_nothing_is_asked_or_shown_but_who_needs_it_is_told() {
    let (rig, _) = one(true);
    let mut stapler = rig.open();
    rig.answer(&mut stapler, &Words::good(-60, 7200));
    let switch = |ocsp| {
        let tls = TlsSettings { ocsp, ..TlsSettings::default() };
        rig.settings.send_replace(Arc::new(Settings { tls, ..Settings::default() }));
    };
    switch(OcspStapling::Off);
    stapler.look();
    assert!(!rig.is_stapled() && rig.problems().contains("there is none: `tls: ocsp` is off"), "{}", rig.problems());
    assert_eq!((stapler.begin_due(), stapler.running.len()), (None, 0));
    switch(OcspStapling::On);
    stapler.look();
    assert!(rig.is_stapled(), "what is kept is shown again");
}

#[tokio::test]
async fn one_that_must_be_stapled_and_can_not_be_is_told() {
    let authority = Authority::new("ours");
    let rig = Rig::new(&[&authority.pem("app.test", &[], true, YEAR)], authority);
    let mut stapler = rig.open();
    let told = rig.problems();
    assert!(told.contains("must be shown with an OCSP answer, and there is none: it names no responder"), "{told}");
    assert_eq!((stapler.begin_due(), stapler.running.len()), (None, 0));
}

#[tokio::test]
async fn many_are_asked_a_few_at_a_time_and_a_question_that_breaks_is_a_failure() {
    let authority = Authority::new("ours");
    let pems: Vec<Pem> = (0..7).map(|n| authority.pem(&format!("h{n}.test"), &[NOWHERE], false, YEAR)).collect();
    let rig = Rig::new(&pems.iter().collect::<Vec<_>>(), authority);
    let mut stapler = rig.open();
    assert_eq!(asks(&mut stapler), PARALLEL);
    let mut failed = 0;
    while let Some(done) = stapler.questions.join_next_with_id().await {
        stapler.joined(done);
        failed += 1;
        asks(&mut stapler);
    }
    assert_eq!((failed, stapler.running.len()), (7, 0));
    let broken = stapler.questions.spawn(async { panic!("a fault") });
    let of = rig.certificates.all()[0].fingerprint;
    stapler.running.insert(broken.id(), of);
    let done = stapler.questions.join_next_with_id().await.unwrap();
    stapler.joined(done);
    assert_eq!(stapler.watched[&of].failures, 2);
    assert!(rig.told().unwrap().trouble.as_deref().unwrap().starts_with("the question broke off"));
}
